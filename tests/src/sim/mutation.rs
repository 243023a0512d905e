//! Deliberate defects that the simulation must catch: the test of the test.
//! Each is built into the simulation's glue or network, none into the product.

use std::fmt;
use std::str::FromStr;

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The farm takes offers of older epochs.
    OldEpoch,
    /// The farm's sessions have no timer.
    FarmTimer,
    /// A phone's session has no timer.
    PhoneTimer,
    /// The link to the broker has no timer.
    LinkTimer,
    /// Some acknowledgements of streams get lost.
    LostAck,
    /// A new carrier goes on where the old one stopped, not where the other end is.
    NoRewind,
    /// The broker does not tell that a farm went or restarted.
    StalePresence,
    /// Whatever is heard, or leaves without an error, counts as an answered ping.
    TrustTraffic,
    /// A superseded carrier is not closed.
    KeepOldCarrier,
    /// The farm keeps sessions without a carrier for ever.
    NoExpiry,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OldEpoch,
        Self::FarmTimer,
        Self::PhoneTimer,
        Self::LinkTimer,
        Self::LostAck,
        Self::NoRewind,
        Self::StalePresence,
        Self::TrustTraffic,
        Self::KeepOldCarrier,
        Self::NoExpiry,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OldEpoch => "old-epoch",
            Self::FarmTimer => "farm-timer",
            Self::PhoneTimer => "phone-timer",
            Self::LinkTimer => "link-timer",
            Self::LostAck => "lost-ack",
            Self::NoRewind => "no-rewind",
            Self::StalePresence => "stale-presence",
            Self::TrustTraffic => "trust-traffic",
            Self::KeepOldCarrier => "keep-old-carrier",
            Self::NoExpiry => "no-expiry",
        }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|m| m.name() == text);
        known.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|m| m.name()).collect();
            format!("no mutation {text:?}: there are {}", names.join(", "))
        })
    }
}
