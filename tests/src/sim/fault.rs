//! What goes wrong, when, and for how long.

use std::time::Duration;

use super::net::{HostId, Nat};
use super::rng::Rng;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A host's uplink is gone; netlink sees it or not.
    Link {
        /// Whose.
        host: HostId,
        /// The address goes with it.
        seen: bool,
    },
    /// What the host sends is lost, or what is sent to it.
    OneWay {
        /// Whose.
        host: HostId,
        /// What it sends.
        out: bool,
    },
    /// Packets are lost at random.
    Loss {
        /// Whose.
        host: HostId,
        /// Share, in percent.
        percent: u8,
    },
    /// Packets take longer.
    Slow {
        /// Whose.
        host: HostId,
        /// How much, in ms.
        by: u16,
    },
    /// Two hosts can't reach each other.
    Partition {
        /// One.
        a: HostId,
        /// The other.
        b: HostId,
    },
    /// The host gets another local address, and with it another mapping.
    Address {
        /// Whose.
        host: HostId,
        /// Netlink tells.
        seen: bool,
    },
    /// The router gets another public address; nothing local notices.
    Public {
        /// Whose.
        host: HostId,
    },
    /// The router forgets its mappings.
    Forget {
        /// Whose.
        host: HostId,
    },
    /// The process is killed and started again at the end.
    Kill {
        /// Whose.
        host: HostId,
    },
    /// The process is stopped in good order and started again at the end.
    Stop {
        /// Whose.
        host: HostId,
    },
    /// The power is cut.
    Power {
        /// Whose.
        host: HostId,
    },
    /// The broker is slow to read.
    Busy {
        /// How slow, in ms.
        by: u16,
    },
    /// The phone is in the background: nothing runs.
    Suspend {
        /// Whose.
        host: HostId,
    },
    /// The broker's wall clock jumps.
    Clock {
        /// By so many seconds.
        by: i32,
    },
    /// The state is restored from a backup at a restart: starts are forgotten.
    Rollback {
        /// Whose.
        host: HostId,
        /// How many starts.
        starts: u8,
    },
    /// Nobody looks at the phone.
    LookAway {
        /// Whose.
        host: HostId,
    },
}

/// A fault with its time.
#[derive(Debug, Clone, Copy)]
pub struct Scheduled {
    /// Since the beginning.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

/// Who there is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The farms' hosts.
    pub farms: Vec<HostId>,
    /// The phones' hosts.
    pub phones: Vec<HostId>,
}

impl Places {
    fn any(&self, rng: &mut Rng) -> HostId {
        let devices = self.farms.len() + self.phones.len();
        match rng.below(devices as u64 + 1) as usize {
            0 => super::net::BROKER,
            n => n,
        }
    }

    fn device(&self, rng: &mut Rng) -> HostId {
        1 + rng.below((self.farms.len() + self.phones.len()) as u64) as usize
    }

    fn phone(&self, rng: &mut Rng) -> HostId {
        rng.pick(&self.phones)
    }
}

/// One fault at random.
pub fn random(places: &Places, rng: &mut Rng) -> Fault {
    match rng.below(19) {
        0 | 1 => Fault::Link { host: places.any(rng), seen: rng.chance(0.6) },
        2 | 3 => Fault::OneWay { host: places.device(rng), out: rng.chance(0.5) },
        4 => Fault::Loss { host: places.any(rng), percent: rng.range(10, 60) as u8 },
        5 => Fault::Slow { host: places.any(rng), by: rng.range(50, 900) as u16 },
        6 => {
            let a = places.device(rng);
            let b = places.any(rng);
            Fault::Partition { a, b }
        }
        7 | 8 => Fault::Address { host: places.device(rng), seen: rng.chance(0.8) },
        9 => Fault::Public { host: places.device(rng) },
        10 => Fault::Forget { host: places.device(rng) },
        11 => Fault::Kill { host: places.any(rng) },
        12 => Fault::Stop { host: places.any(rng) },
        13 | 14 => Fault::Power { host: places.any(rng) },
        15 => match rng.below(3) {
            0 => Fault::Busy { by: rng.range(100, 6000) as u16 },
            1 => Fault::Clock { by: rng.range(0, 200_000) as i32 - 100_000 },
            _ => Fault::Rollback { host: places.device(rng), starts: rng.range(1, 3) as u8 },
        },
        16 | 17 => Fault::Suspend { host: places.phone(rng) },
        _ => Fault::LookAway { host: places.phone(rng) },
    }
}

/// How long a fault lasts: mostly short, sometimes past what sessions are kept for.
pub fn duration(rng: &mut Rng) -> Duration {
    match rng.below(20) {
        0..6 => rng.ms(100, 3_000),
        6..14 => rng.ms(1_000, 12_000),
        14..19 => rng.ms(5_000, 60_000),
        _ => rng.ms(60_000, 420_000),
    }
}

/// Whether two hosts behind such routers can't reach each other at all.
pub fn hopeless(a: Nat, b: Nat) -> bool {
    a == Nat::Random && b == Nat::Random
}
