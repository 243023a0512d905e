//! What a program did to its directory, as the recorder wrote it down.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::shim::{Orders, Shim};

/// A file, however it is called: numbered in the order of creation.
pub type FileId = usize;

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file was made under this path.
    Create(FileId, String),
    /// Bytes were written at an offset.
    Write(FileId, usize, Vec<u8>),
    /// A file was cut or grown to this length.
    Truncate(FileId, usize),
    /// A file or directory got another path.
    Rename(String, String),
    /// A file or directory was removed.
    Unlink(String),
    /// A directory was made.
    MakeDirectory(String),
    /// A file was synced: what happened before `begun` is durable.
    Synced(FileId, usize),
    /// A directory was synced.
    DirectorySynced(String, usize),
    /// The program announced a line.
    Announce(String),
    /// A sync began; only its end matters.
    Nothing,
}

/// Everything that a program did, in order.
#[derive(Debug, Default)]
pub struct Recording {
    /// The events.
    pub events: Vec<Event>,
}

/// Lengths of a record's head and of its parts: see `shim.c`.
const HEAD: usize = 21;

impl Recording {
    /// Runs the workload under the recorder. `unsync` leaves out fsyncs.
    ///
    /// # Errors
    /// When it fails.
    pub fn make(
        shim: &Shim,
        program: &Path,
        place: &Path,
        seed: u64,
        rounds: usize,
        unsync: Option<&str>,
    ) -> Result<Self, Failure> {
        let (state, record, acks) = (place.join("state"), place.join("record"), place.join("acks"));
        let dir = place.to_str().ok_or("the path is not UTF-8")?;
        let recorded = state.to_str().ok_or("the path is not UTF-8")?;
        let orders =
            Orders { dir: recorded, record: Some(&record), announcements: Some(&acks), unsync, fail: None };
        let mut command = Command::new(program);
        command
            .arg("workload")
            .arg(&state)
            .arg(&acks)
            .arg(seed.to_string())
            .arg(rounds.to_string())
            .args(["1", "true"]);
        shim.preload(&mut command, &orders);
        let output = command.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("the workload of seed {seed} failed in {dir}: {text}").into());
        }
        Self::read(&std::fs::read(&record)?)
    }

    fn read(bytes: &[u8]) -> Result<Self, Failure> {
        let mut recording = Self::default();
        let mut files: HashMap<u64, FileId> = HashMap::new();
        let mut begun: HashMap<(u64, u64, String), usize> = HashMap::new();
        let mut made = 0;
        let mut rest = bytes;
        while let Some((head, after)) = rest.split_at_checked(HEAD) {
            let number = |at: usize| {
                head[at..at + 8].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
            };
            let (inode, a) = (number(1), number(9));
            let length = head[17..21].iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
            let (payload, after) = after.split_at_checked(length).ok_or("the record is cut")?;
            rest = after;
            let text = || String::from_utf8_lossy(payload).into_owned();
            let file = |files: &HashMap<u64, FileId>| {
                files.get(&inode).copied().ok_or_else(|| format!("inode {inode} was never made"))
            };
            let at = recording.events.len();
            let offset = usize::try_from(a).unwrap_or(usize::MAX);
            recording.events.push(match head[0] {
                1 => {
                    files.insert(inode, made);
                    made += 1;
                    Event::Create(made - 1, text())
                }
                2 => Event::Write(file(&files)?, offset, payload.to_vec()),
                3 => Event::Truncate(file(&files)?, offset),
                4 => {
                    let both = text();
                    let (from, to) = both.split_once('\0').ok_or("a rename has two paths")?;
                    Event::Rename(from.to_owned(), to.to_owned())
                }
                5 => Event::Unlink(text()),
                6 => Event::MakeDirectory(text()),
                7 => {
                    begun.insert((inode, a, text()), at);
                    Event::Nothing
                }
                8 => {
                    let since = begun.remove(&(inode, a, text())).ok_or("a sync ended that never began")?;
                    if inode == 0 {
                        Event::DirectorySynced(text(), since)
                    } else {
                        Event::Synced(file(&files)?, since)
                    }
                }
                9 => Event::Announce(text().trim_end().to_owned()),
                other => return Err(format!("an event of kind {other}").into()),
            });
        }
        Ok(recording)
    }

    /// What had been announced when `cut` events had happened.
    pub fn announced(&self, cut: usize) -> impl Iterator<Item = &str> {
        self.events[..cut].iter().filter_map(|event| match event {
            Event::Announce(line) => Some(line.as_str()),
            _ => None,
        })
    }
}
