//! What an error of sled means for what may be done next.

use std::{
    any::Any,
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::restart::Inside;

/// What an error of the engine means.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Somebody holds the database.
    Busy,
    /// The device or the file system failed; the data may be fine.
    Io(io::Error),
    /// Written by another version of sled.
    OtherEngine(String),
    /// What is on the disk can't be right.
    Damaged(String),
}

impl Failure {
    pub(crate) fn text(&self) -> String {
        match self {
            Failure::Busy => "the database is held by another process".to_owned(),
            Failure::Io(e) => e.to_string(),
            Failure::OtherEngine(why) | Failure::Damaged(why) => why.clone(),
        }
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(e) => Failure::from(e),
            other => Failure::Damaged(other.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            // sled's own words, no device says that.
            ErrorKind::Other if e.to_string().contains("could not acquire lock") => Failure::Busy,
            ErrorKind::Other
            // Files that end too early, are gone, or are something else: that
            // does not pass by waiting.
            | ErrorKind::UnexpectedEof
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::NotFound
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory => Failure::Damaged(e.to_string()),
            _ => Failure::Io(e),
        }
    }
}

/// Runs a call into sled; a panic becomes damage. Where panics don't unwind the
/// program is started anew and told so (see `restart`).
pub(crate) fn contain<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let _inside = Inside::new();
    // Unwind safe: after a panic the engine is dropped, and what it wrote so
    // far is what a power cut would have left.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(Failure::Damaged(format!("the database engine panicked: {}", panic_text(panic.as_ref()))))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("for no stated reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_can_be_done_about_them() {
        let meaning = |kind| Failure::from(sled::Error::Io(io::Error::new(kind, "x")));
        assert!(matches!(meaning(ErrorKind::StorageFull), Failure::Io(_)));
        assert!(matches!(meaning(ErrorKind::ReadOnlyFilesystem), Failure::Io(_)));
        assert!(matches!(meaning(ErrorKind::PermissionDenied), Failure::Io(_)));
        assert!(matches!(meaning(ErrorKind::UnexpectedEof), Failure::Damaged(_)));
        // EIO: has no kind of its own.
        let eio = io::Error::from_raw_os_error(5);
        assert!(matches!(Failure::from(sled::Error::Io(eio)), Failure::Io(_)));
        let bug = sled::Error::ReportableBug("x".to_owned());
        assert!(matches!(Failure::from(bug), Failure::Damaged(_)));
    }

    #[test]
    fn a_panic_is_contained() {
        let failure = contain(|| -> Result<(), Failure> { panic!("torn {}", 7) }).unwrap_err();
        assert!(failure.text().contains("torn 7"));
    }
}
