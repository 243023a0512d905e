//! A card: a copy of the image on a bigger disk, and its boot partition as an
//! installer's laptop sees it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{ImageError, doing, wrong};
use crate::harness::run;

/// Larger than the image, as cards are: the state partition has room to grow.
const SIZE: u64 = 512 << 20;

/// Where the image's boot partition begins (`image/build`).
const BOOT: &str = "@@4M";

/// A copy or a file of a partition is done in seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A card in a file.
pub(super) struct Card {
    path: PathBuf,
}

impl Card {
    /// A fresh one from an image.
    pub(super) fn flash(image: &Path, path: PathBuf) -> Result<Self, ImageError> {
        copy(image, &path)?;
        let file = doing("opening the card", OpenOptions::new().write(true).open(&path))?;
        doing("growing the card", file.set_len(SIZE))?;
        Ok(Self { path })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A copy as it is now.
    pub(super) fn copy_to(&self, path: PathBuf) -> Result<Self, ImageError> {
        copy(&self.path, &path)?;
        Ok(Self { path })
    }

    /// Puts a file on the boot partition.
    pub(super) fn put(&self, name: &str, content: &[u8]) -> Result<(), ImageError> {
        let from = self.path.with_extension("put");
        doing("writing a file for the card", fs::write(&from, content))?;
        let mut command = Command::new("mcopy");
        command.args(["-n", "-o", "-i"]).arg(self.boot()).arg(&from).arg(format!("::{name}"));
        run("mcopy", &mut command, PATIENCE)?;
        doing("removing a file", fs::remove_file(&from))
    }

    /// Takes a file from the boot partition.
    pub(super) fn take(&self, name: &str, to: &Path) -> Result<(), ImageError> {
        let mut command = Command::new("mcopy");
        command.args(["-n", "-o", "-i"]).arg(self.boot()).arg(format!("::{name}")).arg(to);
        run("mcopy", &mut command, PATIENCE)?;
        Ok(())
    }

    /// Fills the boot partition with a file of an installer's own.
    pub(super) fn fill_boot(&self) -> Result<(), ImageError> {
        let from = self.path.with_extension("filler");
        let free = Command::new("mdir").args(["-i", &self.boot(), "::"]).output();
        let free = doing("looking at the boot partition", free)?.stdout;
        // "      3 456 789 bytes free"
        let free = String::from_utf8_lossy(&free).into_owned();
        let line = free.lines().find(|line| line.ends_with("bytes free")).unwrap_or_default();
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        let room: u64 = digits.parse().map_err(|_| wrong(format!("how much is free in {free:?}?")))?;
        let file = doing("making a file", std::fs::File::create(&from))?;
        doing("making a file", file.set_len(room))?;
        let mut command = Command::new("mcopy");
        command.args(["-n", "-o", "-i"]).arg(self.boot()).arg(&from).arg("::holidays.jpg");
        run("mcopy", &mut command, PATIENCE)?;
        doing("removing a file", fs::remove_file(&from))
    }

    /// Throws it away.
    pub(super) fn remove(self) -> Result<(), ImageError> {
        doing("removing a card", fs::remove_file(&self.path))
    }

    /// What the installer reads afterwards.
    pub(super) fn report(&self) -> Result<String, ImageError> {
        let to = self.path.with_extension("report");
        self.take("farm-status.txt", &to)?;
        let text = doing("reading the report", fs::read(&to))?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// Overwrites the state partition with noise.
    pub(super) fn spoil_state(&self) -> Result<(), ImageError> {
        let file = doing("opening the card", OpenOptions::new().read(true).write(true).open(&self.path))?;
        let mut table = [0; 512];
        doing("reading the partition table", file.read_exact_at(&mut table, 0))?;
        // The third entry's first sector and length.
        let number = |at: usize| {
            u64::from(u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]))
        };
        let entry = 446 + 2 * 16;
        let (start, length) = (number(entry + 8) * 512, number(entry + 12) * 512);
        let noise: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut at = 0;
        while at < length {
            let piece = noise.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
            doing("spoiling the card", file.write_all_at(&noise[..piece], start + at))?;
            at += piece as u64;
        }
        Ok(())
    }

    fn boot(&self) -> String {
        format!("{}{BOOT}", self.path.display())
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), ImageError> {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").arg(from).arg(to);
    run("cp", &mut command, PATIENCE)?;
    Ok(())
}
