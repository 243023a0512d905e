//! What the phone knows of the farm's runs: which one is the present one,
//! whether it is there, which ones are over.

use std::collections::VecDeque;

use farm_protocol::epoch::Epoch;
use farm_protocol::id::BootId;

/// Runs that are remembered as over: late presence of one of them is a no-op.
const FORMER: usize = 8;

/// The farm's runs, as heard of by presence and by the farm's own signed word.
#[derive(Debug, Default)]
pub(super) struct Runs {
    present: Option<Run>,
    former: VecDeque<BootId>,
    unknown: bool,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    boot: BootId,
    epoch: Epoch,
    online: bool,
}

/// What presence says that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Late, or nothing new.
    None,
    /// Not at the broker.
    Away,
    /// Another run than before.
    Restarted,
    /// The same run by another connection to the broker.
    Moved,
    /// There, and was not, or was never heard of.
    Came,
}

impl Runs {
    /// Presence came.
    pub(super) fn heard(&mut self, boot: BootId, epoch: Epoch, online: bool) -> News {
        self.unknown = false;
        let known = self.present;
        let late = known.is_some_and(|known| known.boot == boot && epoch < known.epoch);
        if late || self.former.contains(&boot) {
            return News::None;
        }
        self.present = Some(Run { boot, epoch, online });
        let other = known.filter(|known| known.boot != boot);
        if let Some(other) = other {
            if self.former.len() == FORMER {
                self.former.pop_front();
            }
            self.former.push_back(other.boot);
        }
        match known {
            _ if !online => News::Away,
            _ if other.is_some() => News::Restarted,
            Some(known) if epoch > known.epoch => News::Moved,
            Some(known) if known.online => News::None,
            _ => News::Came,
        }
    }

    /// The broker does not know the farm, or not yet.
    pub(super) fn not_known(&mut self) {
        self.unknown = true;
    }

    /// The farm itself spoke, signed, as that run; whether that one is news.
    pub(super) fn spoke(&mut self, boot: BootId) -> bool {
        let known = self.present.as_mut().filter(|run| run.boot == boot);
        let news = known.is_none();
        match known {
            Some(run) => run.online = true,
            None => self.present = Some(Run { boot, epoch: Epoch::default(), online: true }),
        }
        news
    }

    /// The present run was met, or is gone.
    pub(super) fn set_online(&mut self, online: bool) {
        if let Some(run) = &mut self.present {
            run.online = online;
        }
    }

    /// The present run, if one was heard of.
    pub(super) fn boot(&self) -> Option<BootId> {
        self.present.map(|run| run.boot)
    }

    /// Whether it is there, as far as is known.
    pub(super) fn is_online(&self) -> bool {
        self.present.is_some_and(|run| run.online)
    }

    /// For display: `None` until something was heard.
    pub(super) fn shown(&self) -> Option<bool> {
        if self.unknown { Some(false) } else { self.present.map(|run| run.online) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(n: u8) -> BootId {
        BootId::from_bytes([n; 16])
    }

    #[test]
    fn late_presence_of_a_run_that_is_over_says_nothing() {
        let mut runs = Runs::default();
        let epoch = Epoch::default();
        assert_eq!(runs.heard(boot(1), epoch, true), News::Came);
        assert_eq!(runs.heard(boot(1), epoch, true), News::None);
        assert_eq!(runs.heard(boot(2), epoch, true), News::Restarted);
        assert_eq!(runs.heard(boot(1), epoch.next(), false), News::None);
        assert!(runs.is_online() && runs.boot() == Some(boot(2)));
        assert_eq!(runs.heard(boot(2), epoch.next(), true), News::Moved);
        assert_eq!(runs.heard(boot(2), epoch, false), News::None, "said before it moved");
        assert_eq!(runs.heard(boot(2), epoch.next(), false), News::Away);
        assert_eq!(runs.heard(boot(2), epoch.next(), true), News::Came);
    }

    #[test]
    fn so_many_runs_are_remembered_and_no_more() {
        let mut runs = Runs::default();
        for n in 0..=FORMER as u8 + 1 {
            runs.heard(boot(n), Epoch::default(), true);
        }
        assert_eq!(runs.former.len(), FORMER);
        assert_eq!(runs.heard(boot(1), Epoch::default(), true), News::None);
        assert_eq!(runs.heard(boot(0), Epoch::default(), true), News::Restarted, "forgotten");
    }
}
