//! Counts of what was refused or went wrong, by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count {
            $($(#[$doc])* $variant),+
        }

        const NAMES: &[&str] = &[$($name),+];
    };
}

counts! {
    /// Streams handed to a service.
    StreamsForwarded = "streams_forwarded",
    /// Streams for a service that is not in the config.
    UnknownService = "unknown_service",
    /// Streams whose service did not accept.
    ServiceUnavailable = "service_unavailable",
    /// Signals that could not be read.
    MalformedSignals = "malformed_signals",
    /// Signals signed by a wrong key, altered, or for somebody else.
    UnbelievedSignals = "unbelieved_signals",
    /// Signals from phones that are not paired.
    StrangersSignals = "strangers_signals",
    /// Offers of an older or absurd epoch, or for another run.
    StaleOffers = "stale_offers",
    /// Offers past a limit.
    OffersOverLimit = "offers_over_limit",
    /// Offers whose description could not be used.
    BadDescriptions = "bad_descriptions",
    /// Pairing requests that were refused.
    PairingsRefused = "pairings_refused",
    /// Phones that were paired.
    PairingsAccepted = "pairings_accepted",
    /// Carriers that were attached to a session.
    CarriersAttached = "carriers_attached",
    /// Carriers that were lost.
    CarriersLost = "carriers_lost",
    /// Hellos for another session or epoch than their carrier's.
    WrongHellos = "wrong_hellos",
    /// Faults injected on purpose.
    FaultsInjected = "faults_injected",
}

/// All counts since the start.
#[derive(Clone)]
pub struct Counters {
    values: Arc<Vec<AtomicU64>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: Arc::new(NAMES.iter().map(|_| AtomicU64::new(0)).collect()) }
    }
}

impl Counters {
    /// Adds one.
    pub fn add(&self, count: Count) {
        self.values[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that are not zero, by name.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        NAMES
            .iter()
            .zip(self.values.iter())
            .map(|(name, value)| ((*name).to_owned(), value.load(Ordering::Relaxed)))
            .filter(|(_, value)| *value > 0)
            .collect()
    }
}
