//! When free memory is given back to the operating system. Pure.
//!
//! A handshake, a carrier that ends and the parsing at a connect leave half a
//! megabyte and more behind, which a farm does not use again for hours.

use std::time::{Duration, Instant};

/// After the last event: what follows one, such as another carrier, has mostly
/// begun by then, and need not ask for the same pages again.
const AFTER: Duration = Duration::from_secs(1);

/// Counts down after each event that uses much memory for a moment.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    due: Option<Instant>,
}

impl Tidy {
    /// Something came or went.
    pub(super) fn happened(&mut self, now: Instant) {
        self.due = Some(now + AFTER);
    }

    /// When memory is to be given back.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether that is now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_after_the_last_event_and_not_before() {
        let start = Instant::now();
        let mut tidy = Tidy::default();
        assert!(tidy.poll_timeout().is_none() && !tidy.take(start));
        tidy.happened(start);
        tidy.happened(start + AFTER / 2);
        assert!(!tidy.take(start + AFTER));
        assert_eq!(tidy.poll_timeout(), Some(start + AFTER / 2 + AFTER));
        assert!(tidy.take(start + AFTER * 2) && !tidy.take(start + AFTER * 2));
    }
}
