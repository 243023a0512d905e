//! What a power cut could have left on the disk.
//!
//! What was synced is there. Of what was not, each part may be there or not:
//! writes are lost, torn at sectors of 512 bytes, and reordered; names of a
//! directory come in the order in which they changed, but only up to some
//! point after the directory's last sync, and another one for each directory.
//! That is less than any Linux file system promises.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use crate::random::Random;
use crate::recording::{Event, FileId, Recording};

/// What the disk writes whole, in bytes.
const SECTOR: usize = 512;

/// What the kernel writes at once, in bytes.
const PAGE: usize = 4096;

/// How unsynced writes fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All are lost.
    Lost,
    /// All are there.
    Kept,
    /// All up to some moment, the last one torn.
    Prefix,
    /// Each page as it was at some moment.
    Pages,
    /// Each sector as it was at some moment.
    Sectors,
}

const MODES: [Mode; 5] = [Mode::Lost, Mode::Kept, Mode::Prefix, Mode::Pages, Mode::Sectors];

/// A directory tree: paths and contents; directories have none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Image {
    entries: BTreeMap<String, Option<Vec<u8>>>,
}

impl Image {
    /// What a cut after the first `cut` events could have left.
    #[must_use]
    pub fn after(recording: &Recording, cut: usize, random: &mut Random) -> Self {
        let events = &recording.events[..cut];
        let (files, directories) = durable(events);
        let names = names(events, &directories, random);
        let mode = MODES[random.below(MODES.len())];
        let mut entries = BTreeMap::new();
        for (path, file) in names {
            let content = file.map(|file| {
                let floor = files.get(&file).copied().unwrap_or(0);
                content(events, file, floor, mode, random)
            });
            entries.insert(path, content);
        }
        Self { entries }
    }

    /// Makes the tree in `root`, which is not there yet unless it was lost too.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        for (path, content) in &self.entries {
            let path = if path.is_empty() { root.to_owned() } else { root.join(path) };
            match content {
                None => {
                    std::fs::create_dir_all(&path)?;
                    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                    std::fs::set_permissions(&path, private)?;
                }
                Some(content) => std::fs::write(&path, content)?,
            }
        }
        Ok(())
    }
}

/// For each file and directory: what happened before this event is durable.
fn durable(events: &[Event]) -> (HashMap<FileId, usize>, HashMap<&str, usize>) {
    let (mut files, mut directories) = (HashMap::new(), HashMap::new());
    for event in events {
        match event {
            Event::Synced(file, since) => {
                let floor = files.entry(*file).or_insert(0);
                *floor = (*since).max(*floor);
            }
            Event::DirectorySynced(path, since) => {
                let floor = directories.entry(path.as_str()).or_insert(0);
                *floor = (*since).max(*floor);
            }
            _ => {}
        }
    }
    (files, directories)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The names that are there, with their files; a directory has none. The
/// directory itself is there as soon as its parent, which nobody recorded, says
/// so: always.
fn names(
    events: &[Event],
    durable: &HashMap<&str, usize>,
    random: &mut Random,
) -> BTreeMap<String, Option<FileId>> {
    let mut cuts: HashMap<String, usize> = HashMap::new();
    let end = events.len();
    let mut counts = |path: &str, at: usize| {
        let directory = parent(path);
        let floor = durable.get(directory).copied().unwrap_or(0);
        let cut = *cuts.entry(directory.to_owned()).or_insert_with(|| match random.below(3) {
            0 => floor,
            1 => end,
            _ => random.between(floor, end),
        });
        at < cut.max(floor)
    };
    let mut names: BTreeMap<String, Option<FileId>> = BTreeMap::from([(String::new(), None)]);
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Create(file, path) if counts(path, at) => {
                names.insert(path.clone(), Some(*file));
            }
            Event::MakeDirectory(path) if !path.is_empty() && counts(path, at) => {
                names.insert(path.clone(), None);
            }
            Event::Unlink(path) if counts(path, at) => {
                names.remove(path);
            }
            Event::Rename(from, to) if counts(to, at) => {
                let moved: Vec<String> = names
                    .keys()
                    .filter(|path| {
                        *path == from || path.strip_prefix(from.as_str()).is_some_and(|r| r.starts_with('/'))
                    })
                    .cloned()
                    .collect();
                for path in moved {
                    let file = names.remove(&path).flatten();
                    names.insert(format!("{to}{}", &path[from.len()..]), file);
                }
            }
            _ => {}
        }
    }
    // What is in a directory that is not there is not there either.
    let there: Vec<String> = names.keys().cloned().collect();
    names.retain(|path, _| path.is_empty() || there.binary_search(&parent(path).to_owned()).is_ok());
    names
}

fn content(events: &[Event], file: FileId, floor: usize, mode: Mode, random: &mut Random) -> Vec<u8> {
    let end = events.len();
    let until = match mode {
        Mode::Lost => floor,
        Mode::Kept => end,
        _ => random.between(floor, end),
    };
    let last = events[..until].iter().rposition(|event| matches!(event, Event::Write(of, ..) if *of == file));
    let mut moments: HashMap<usize, usize> = HashMap::new();
    let mut bytes: Vec<u8> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Truncate(of, length) if *of == file && at < until.max(floor) => bytes.resize(*length, 0),
            Event::Write(of, offset, data) if *of == file => {
                let mut from = *offset;
                while from < offset + data.len() {
                    let to = ((from / SECTOR + 1) * SECTOR).min(offset + data.len());
                    let there = at < floor
                        || match mode {
                            Mode::Lost | Mode::Kept => at < until,
                            Mode::Prefix => at < until && (Some(at) != last || random.below(2) == 0),
                            Mode::Pages | Mode::Sectors => {
                                let unit = from / if mode == Mode::Pages { PAGE } else { SECTOR };
                                let moment = moments.entry(unit).or_insert_with(|| match random.below(3) {
                                    0 => floor,
                                    1 => end,
                                    _ => random.between(floor, end),
                                });
                                at < *moment
                            }
                        };
                    if there {
                        if bytes.len() < to {
                            bytes.resize(to, 0);
                        }
                        bytes[from..to].copy_from_slice(&data[from - offset..to - offset]);
                    }
                    from = to;
                }
            }
            _ => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(synced: bool) -> Recording {
        let mut events = vec![
            Event::MakeDirectory("store".to_owned()),
            Event::Create(0, "store/db".to_owned()),
            Event::Write(0, 0, vec![1; 2000]),
        ];
        if synced {
            events.push(Event::Synced(0, 3));
            events.push(Event::DirectorySynced("store".to_owned(), 4));
            events.push(Event::DirectorySynced(String::new(), 5));
        }
        events.push(Event::Write(0, 1000, vec![2; 2000]));
        Recording { events }
    }

    #[test]
    fn what_was_synced_is_always_there_and_the_rest_is_not() {
        let recording = recording(true);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let image = Image::after(&recording, recording.events.len(), &mut Random::new(seed));
            let content = image.entries["store/db"].clone().unwrap();
            assert_eq!(content[..1000], [1; 1000], "seed {seed}");
            assert!(content[1000..2000].iter().all(|byte| *byte == 1 || *byte == 2), "seed {seed}");
            seen.insert(content);
        }
        assert!(seen.len() > 20, "only {} images", seen.len());
    }

    #[test]
    fn names_that_were_not_synced_may_be_lost() {
        let recording = recording(false);
        let there = |seed| {
            let image = Image::after(&recording, recording.events.len(), &mut Random::new(seed));
            image.entries.contains_key("store/db")
        };
        let kept = (0..100).filter(|seed| there(*seed)).count();
        assert!((10..=90).contains(&kept), "{kept}");
    }
}
