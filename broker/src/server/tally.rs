//! What happens before there is a device, counted where it happens and shown
//! with the core's counters.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::counters::Counters;

/// One count that several tasks share.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// It happened once more.
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It happened so often, by somebody else's count.
    pub(super) fn set(&self, times: u64) {
        self.0.store(times, Ordering::Relaxed);
    }

    /// How often it happened.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! tally {
    ($($name:ident),+ $(,)?) => {
        /// The counts; each is explained at [`Counters`].
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $name: Count),+
        }

        impl Tally {
            /// These counts beside the core's.
            pub(super) fn with(&self, core: &Counters) -> Counters {
                Counters { $($name: self.$name.get(),)+ ..*core }
            }
        }
    };
}

tally! {
    limit_sockets, limit_sockets_per_address, limit_sockets_rate, limit_newcomers, limit_requests,
    tls_failed, http_failed, refused_upgrade, refused_origin,
    stun_answered, stun_ignored, limit_stun,
    alerts_sent, alerts_failed, alerts_dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_the_server_and_of_the_core_are_shown_together() {
        let tally = Tally::default();
        tally.refused_origin.up();
        let both = tally.with(&Counters { signals: 3, ..Counters::default() });
        assert_eq!((both.refused_origin, both.signals), (1, 3));
    }
}
