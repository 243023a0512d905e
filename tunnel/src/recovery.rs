//! The recovery strategy manager: what to do about a failure, and when.
//!
//! One pure function, [`decide`]. It knows no connection and keeps no state;
//! whoever holds the session asks it after each failure and carries the
//! answer out. There is always a next attempt.

mod delay;

use std::time::Duration;

use farm_protocol::signal::OfferRefused;

use crate::backoff::Jitter;
pub use delay::{
    BLIND_RETRY, BLIND_RETRY_UNWATCHED, LADDER, LONGEST_DELAY, LONGEST_DELAY_UNWATCHED, NOT_PAIRED_RETRY,
    RECHECK, RECHECK_UNWATCHED, RESTART_RETRY, UPGRADE_FIRST, UPGRADE_LONGEST,
};
use delay::{ladder, shortened, upgrade};

/// From this attempt on, every other one goes through a relay only: two
/// chances for the direct way first.
pub const RELAY_FROM_ATTEMPT: u32 = 2;

/// From this attempt on, a stale epoch means that another program holds the
/// same slot and outbids us each time.
pub const ANOTHER_SLOT_FROM_ATTEMPT: u32 = 3;

/// Which ways a carrier may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ways {
    /// A direct one if there is one, else through a relay.
    Any,
    /// Only through a relay.
    RelayOnly,
    /// Only a direct one: to take the place of a relayed carrier that works.
    DirectOnly,
}

impl Ways {
    /// Stable name for logs and scenarios.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::RelayOnly => "relay_only",
            Self::DirectOnly => "direct_only",
        }
    }
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Pings stay unanswered, and nobody said why.
    NetworkTimeout,
    /// Our own address changed, or the farm's.
    IpChange,
    /// The farm's agent restarted, or said that it is about to.
    PeerRestart,
    /// The link to the broker is lost.
    BrokerLost,
    /// This device has no network.
    PhoneOffline,
    /// The broker says that the farm is not there.
    FarmOffline,
    /// A new carrier did not come up: ICE, the handshake or the first words failed.
    CarrierFailed,
    /// The farm refused the offer.
    Refused(OfferRefused),
    /// Another program with our key took our session over: it is newer, so it
    /// has the slot.
    Superseded,
    /// The same, and no other slot is left for us.
    NoSlotLeft,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::NetworkTimeout,
        Self::IpChange,
        Self::PeerRestart,
        Self::BrokerLost,
        Self::PhoneOffline,
        Self::FarmOffline,
        Self::CarrierFailed,
        Self::Refused(OfferRefused::OtherBoot),
        Self::Refused(OfferRefused::StaleEpoch),
        Self::Refused(OfferRefused::NotPaired),
        Self::Refused(OfferRefused::Limit),
        Self::Refused(OfferRefused::BadDescription),
        Self::Refused(OfferRefused::Other),
        Self::Superseded,
        Self::NoSlotLeft,
    ];

    /// The explanation of the failure that has this name, or the name.
    pub fn explain(name: &str) -> &str {
        let named = Self::ALL.into_iter().find(|failure| failure.name() == name);
        match named {
            Some(failure) => failure.explanation(),
            None => name,
        }
    }

    /// What a person is told: what happened, in a few plain words.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NetworkTimeout => "the farm does not answer",
            Self::IpChange => "the network address changed",
            Self::PeerRestart => "the farm's agent is restarting",
            Self::BrokerLost => "the broker can't be reached",
            Self::PhoneOffline => "this device has no network",
            Self::FarmOffline => "the farm is not connected: no power or no network there",
            Self::CarrierFailed => "no connection to the farm came about",
            Self::Refused(reason) => reason.explanation(),
            Self::Superseded => "another program uses this device's key and took its place",
            Self::NoSlotLeft => {
                "other machines use this device's key in every place there is: give each a key of its own (pair it by itself)"
            }
        }
    }

    /// Stable name for logs and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkTimeout => "network_timeout",
            Self::IpChange => "ip_change",
            Self::PeerRestart => "peer_restart",
            Self::BrokerLost => "broker_lost",
            Self::PhoneOffline => "phone_offline",
            Self::FarmOffline => "farm_offline",
            Self::CarrierFailed => "carrier_failed",
            Self::Refused(OfferRefused::OtherBoot) => "refused_other_boot",
            Self::Refused(OfferRefused::StaleEpoch) => "refused_stale_epoch",
            Self::Refused(OfferRefused::NotPaired) => "refused_not_paired",
            Self::Refused(OfferRefused::Limit) => "refused_limit",
            Self::Refused(OfferRefused::BadDescription) => "refused_bad_description",
            Self::Refused(OfferRefused::Other) => "refused_other",
            Self::Superseded => "superseded",
            Self::NoSlotLeft => "no_slot_left",
        }
    }
}

/// What is known when something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// Failures since the session was last live, before this one.
    pub attempt: u32,
    /// The broker's word, or the farm's own: it is there, in the run that we
    /// would call.
    pub farm_present: bool,
    /// The link to the broker is online: without it nothing can be offered.
    pub broker_link: bool,
    /// Our own network has a way out, as far as we were told.
    pub network_up: bool,
    /// Somebody is looking.
    pub watched: bool,
}

/// What is done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// A new carrier to the same farm, at once.
    QuickReconnect,
    /// A new carrier from the new address; the old one goes on until the new
    /// one works (make before break).
    FullReestablishment,
    /// Connect as soon as the farm's new run shows: at once if it already does.
    WaitForPresenceThenConnect,
    /// Tunnels live without the broker: nothing is torn down. What has no
    /// tunnel waits for the link.
    KeepTunnels,
    /// Keep the session's streams, and resume when our network is back.
    ParkUntilNetwork,
    /// Connect as soon as the broker says that the farm is back, and try
    /// blindly now and then: the broker may be late, or lie.
    WaitForPresence,
    /// A new carrier is needed and can't be offered: connect as soon as the
    /// link to the broker is back.
    WaitForBroker,
    /// Another attempt at a carrier, by other ways in turn.
    RetryCarrier,
    /// The farm is full: another attempt, not at once.
    RetryLater,
    /// Move our epoch past the newest that the farm knows, then offer again.
    JumpEpoch,
    /// Only a person can help; tell, and look now and then whether one did.
    StopAndTell,
    /// Another program has our session: go on in a slot of our own.
    TakeAnotherSlot,
}

impl Strategy {
    /// What a person is told is being done.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::QuickReconnect => "reconnecting",
            Self::FullReestablishment => "connecting from the new address; the old way is used until then",
            Self::WaitForPresenceThenConnect => "connecting as soon as the agent is back",
            Self::KeepTunnels => "open tunnels go on; looking for the broker",
            Self::ParkUntilNetwork => "open connections are kept; resuming when the network is back",
            Self::WaitForPresence => "connecting as soon as the farm is back",
            Self::WaitForBroker => "connecting as soon as the broker is back",
            Self::RetryCarrier => "trying again, by other ways in turn",
            Self::RetryLater => "trying again a little later",
            Self::JumpEpoch => "counting on past the newest connection",
            Self::StopAndTell => "this needs you; looking again now and then",
            Self::TakeAnotherSlot => "going on in a place of our own",
        }
    }

    /// Stable name for logs and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuickReconnect => "quick_reconnect",
            Self::FullReestablishment => "full_reestablishment",
            Self::WaitForPresenceThenConnect => "wait_for_presence_then_connect",
            Self::KeepTunnels => "keep_tunnels",
            Self::ParkUntilNetwork => "park_until_network",
            Self::WaitForPresence => "wait_for_presence",
            Self::WaitForBroker => "wait_for_broker",
            Self::RetryCarrier => "retry_carrier",
            Self::RetryLater => "retry_later",
            Self::JumpEpoch => "jump_epoch",
            Self::StopAndTell => "stop_and_tell",
            Self::TakeAnotherSlot => "take_another_slot",
        }
    }
}

/// A strategy, and when it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What is done.
    pub strategy: Strategy,
    /// Offer the next carrier through a relay only.
    pub relay_only: bool,
    /// When to try (again) at the latest: what a strategy waits for (network,
    /// link, presence) starts the attempt earlier. Always `Some`: attempts
    /// never end.
    pub retry_after: Option<Duration>,
}

/// What to do about `failure`.
pub fn decide(failure: Failure, context: &Context, jitter: &mut Jitter) -> Decision {
    let strategy = strategy(failure, context);
    let most =
        match strategy {
            Strategy::KeepTunnels | Strategy::ParkUntilNetwork | Strategy::WaitForBroker => {
                if context.watched { RECHECK } else { RECHECK_UNWATCHED }
            }
            Strategy::StopAndTell => NOT_PAIRED_RETRY,
            Strategy::WaitForPresence => {
                if context.watched {
                    BLIND_RETRY
                } else {
                    BLIND_RETRY_UNWATCHED
                }
            }
            Strategy::WaitForPresenceThenConnect if !context.farm_present => match context.attempt {
                0 => RESTART_RETRY,
                _ if context.watched => BLIND_RETRY,
                _ => BLIND_RETRY_UNWATCHED,
            },
            // Past the quick ones: a farm that has no room has none 100 ms later.
            Strategy::RetryLater => ladder(context.attempt.saturating_add(3), context.watched),
            Strategy::QuickReconnect
            | Strategy::FullReestablishment
            | Strategy::WaitForPresenceThenConnect
            | Strategy::RetryCarrier
            | Strategy::JumpEpoch
            | Strategy::TakeAnotherSlot => ladder(context.attempt, context.watched),
        };
    Decision {
        strategy,
        relay_only: strategy == Strategy::RetryCarrier && tries_relay_only(context.attempt),
        retry_after: Some(shortened(most, jitter)),
    }
}

/// How long a carrier that goes through a relay is used before the next attempt
/// at a direct one; `tries` came to nothing since it came up.
pub fn upgrade_after(tries: u32, jitter: &mut Jitter) -> Duration {
    shortened(upgrade(tries), jitter)
}

fn strategy(failure: Failure, context: &Context) -> Strategy {
    match failure {
        Failure::BrokerLost => Strategy::KeepTunnels,
        Failure::PhoneOffline => Strategy::ParkUntilNetwork,
        Failure::Refused(OfferRefused::NotPaired) => Strategy::StopAndTell,
        // Needs neither: our place at the broker is gone with the session.
        Failure::Superseded => Strategy::TakeAnotherSlot,
        Failure::NoSlotLeft => Strategy::StopAndTell,
        // Whatever else failed, without these nothing can be tried.
        _ if !context.network_up => Strategy::ParkUntilNetwork,
        _ if !context.broker_link => Strategy::WaitForBroker,
        // The first try goes out whatever the broker says of the farm: it
        // costs one offer, and presence may be late.
        Failure::NetworkTimeout if context.farm_present || context.attempt == 0 => Strategy::QuickReconnect,
        Failure::IpChange if context.farm_present || context.attempt == 0 => Strategy::FullReestablishment,
        Failure::CarrierFailed if context.farm_present => Strategy::RetryCarrier,
        Failure::NetworkTimeout | Failure::IpChange | Failure::CarrierFailed | Failure::FarmOffline => {
            Strategy::WaitForPresence
        }
        Failure::PeerRestart | Failure::Refused(OfferRefused::OtherBoot) => {
            Strategy::WaitForPresenceThenConnect
        }
        Failure::Refused(OfferRefused::StaleEpoch) if context.attempt < ANOTHER_SLOT_FROM_ATTEMPT => {
            Strategy::JumpEpoch
        }
        Failure::Refused(OfferRefused::StaleEpoch) => Strategy::TakeAnotherSlot,
        Failure::Refused(OfferRefused::Limit) => Strategy::RetryLater,
        Failure::Refused(OfferRefused::BadDescription | OfferRefused::Other) => Strategy::RetryCarrier,
    }
}

fn tries_relay_only(attempt: u32) -> bool {
    attempt >= RELAY_FROM_ATTEMPT && attempt % 2 == RELAY_FROM_ATTEMPT % 2
}

#[cfg(test)]
mod tests;
