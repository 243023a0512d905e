//! The scenarios, as data: one fault each, and what must be reached.

use std::time::{Duration, Instant};

use super::world::World;
use super::{LabError, Nat, Route, Topology, faults};

/// A time that must be kept in half of all runs, and one in 95 of 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The median at most.
    pub p50: Duration,
    /// The 95th percentile at most.
    pub p95: Duration,
}

/// What a scenario must reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goals {
    /// From the fault to the first sign of it.
    pub noticed: Option<Goal>,
    /// From the end of its cause (or, where the network works on at once, from
    /// the fault) to the first answer.
    pub recovered: Option<Goal>,
    /// The longest time without an answer, where no tunnel may notice at all.
    pub gap: Option<Duration>,
    /// From the broker's return to the farm's registration.
    pub registered: Option<Duration>,
}

/// What becomes of the streams that were open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// They go on, byte by byte.
    Survive,
    /// One side lost its sockets: they end, at once and with a reason.
    End,
}

/// In which topologies a scenario makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// In all.
    Any,
    /// Where nothing goes through the broker's machine.
    Direct,
    /// Where everything does.
    Relayed,
}

/// What runs through the tunnel meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A download, an idle session, and pings.
    All,
    /// Nothing, and nobody looks.
    None,
}

/// How long faults last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Only as long as shows the behaviour: for tests.
    Short,
    /// As the goals say.
    Full,
}

/// When a scenario is run without being named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// In tests and in the lab.
    Always,
    /// In the lab.
    Lab,
    /// Only where long ones are asked for: it takes minutes.
    Long,
}

/// What a fault did, and when.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// Just before it was made.
    pub(super) fault: Instant,
    /// When it was complete: what is asked for later is under its effect.
    pub(super) made: Instant,
    /// Just before its cause was removed; the fault itself where the network
    /// works on at once; the moment in which a restarted program was ready.
    pub(super) healed: Instant,
    /// When the broker was back.
    pub(super) broker_back: Option<Instant>,
    /// Measured by the fault itself, where nothing else runs.
    pub(super) recovered: Option<Duration>,
    /// What went wrong on the way.
    pub(super) problems: Vec<String>,
    /// What was done, where chance decided.
    pub(super) story: Vec<String>,
}

impl Marks {
    /// A fault whose cause goes on: the network works on at once, differently.
    /// To be called when it is complete.
    pub(super) fn lasting(fault: Instant) -> Self {
        Self { made: Instant::now(), ..Self::healed(fault, fault) }
    }

    /// A fault whose cause was removed.
    pub(super) fn healed(fault: Instant, healed: Instant) -> Self {
        Self {
            fault,
            made: fault,
            healed,
            broker_back: None,
            recovered: None,
            problems: Vec::new(),
            story: Vec::new(),
        }
    }
}

/// What a fault works on.
pub(super) struct Stage<'a> {
    pub(super) world: &'a mut World,
    pub(super) length: Length,
    pub(super) seed: u64,
}

/// One fault.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, for `--list`.
    pub about: &'static str,
    /// When it is run.
    pub run: Run,
    /// What runs through the tunnel.
    pub traffic: Traffic,
    /// What becomes of it.
    pub streams: Streams,
    /// What must be reached.
    pub goals: Goals,
    /// Where it makes sense.
    pub on: On,
    /// Whether it needs a router with NAT at the farm.
    pub needs_nat: bool,
    /// How long the fault lasts in full, about: the download must span it.
    pub(super) span: Duration,
    pub(super) act: fn(&mut Stage<'_>) -> Result<Marks, LabError>,
}

impl Scenario {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Whether it makes sense there.
    #[must_use]
    pub fn applies_to(&self, topology: &Topology) -> bool {
        let on = match self.on {
            On::Any => true,
            On::Direct => topology.route == Route::Direct,
            On::Relayed => topology.route != Route::Direct,
        };
        on && (!self.needs_nat || topology.farm != Nat::Open)
    }
}

const fn goal(p50: u64, p95: u64) -> Option<Goal> {
    Some(Goal { p50: Duration::from_millis(p50), p95: Duration::from_millis(p95) })
}

/// Noticed and recovered, each p50 and p95, in milliseconds.
const fn within(noticed: Option<Goal>, recovered: Option<Goal>) -> Goals {
    Goals { noticed, recovered, gap: None, registered: None }
}

/// Five pings: what the machine's own scheduling may cost.
const NO_OUTAGE: Duration = Duration::from_millis(250);
/// A path that answers half of all round trips is none yet, but a reader must
/// see it move: two of the transport's timers in a row (1 and 2 s), or a death
/// (2 s) and a new carrier.
const LOSSY_GAP: Duration = Duration::from_secs(5);
/// The card: back at the broker within 10 s.
const REGISTERED: Duration = Duration::from_secs(10);

const UNNOTICED: Goals =
    Goals { noticed: None, recovered: None, gap: Some(NO_OUTAGE), registered: Some(REGISTERED) };

const DEFAULT: Scenario = Scenario {
    name: "",
    about: "",
    run: Run::Always,
    traffic: Traffic::All,
    streams: Streams::Survive,
    goals: within(None, None),
    on: On::Any,
    needs_nat: false,
    span: Duration::from_secs(2),
    act: faults::farm_address,
};

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "power-cut",
        about: "the farm loses power for 10 s: the agent is killed with its link down, then both come back",
        streams: Streams::End,
        goals: within(goal(1_500, 3_000), goal(500, 1_000)),
        span: Duration::from_secs(10),
        act: faults::power_cut,
        ..DEFAULT
    },
    Scenario {
        name: "offline-20",
        about: "the phone's uplink is lost for 20 s",
        goals: within(goal(1_500, 3_000), goal(400, 1_000)),
        span: Duration::from_secs(20),
        act: |stage| faults::phone_offline(stage, 20),
        ..DEFAULT
    },
    Scenario {
        name: "offline-45",
        about: "the phone's uplink is lost for 45 s",
        run: Run::Lab,
        goals: within(goal(1_500, 3_000), goal(400, 1_000)),
        span: Duration::from_secs(45),
        act: |stage| faults::phone_offline(stage, 45),
        ..DEFAULT
    },
    Scenario {
        name: "offline-240",
        about: "the phone's uplink is lost for 4 minutes",
        run: Run::Long,
        goals: within(goal(1_500, 3_000), goal(400, 1_000)),
        span: Duration::from_secs(240),
        act: |stage| faults::phone_offline(stage, 240),
        ..DEFAULT
    },
    Scenario {
        name: "airplane",
        about: "the phone's own interface goes down for 20 s, as in airplane mode",
        goals: within(goal(1_500, 3_000), goal(400, 1_000)),
        span: Duration::from_secs(20),
        act: faults::airplane,
        ..DEFAULT
    },
    Scenario {
        name: "farm-address",
        about: "the farm's local address changes",
        goals: within(goal(100, 300), goal(400, 1_000)),
        act: faults::farm_address,
        ..DEFAULT
    },
    Scenario {
        name: "public-address",
        about: "the farm's router gets another public address, and nothing local notices",
        goals: within(goal(1_500, 2_500), goal(2_000, 3_000)),
        needs_nat: true,
        span: Duration::from_secs(4),
        act: faults::public_address,
        ..DEFAULT
    },
    Scenario {
        name: "idle-address",
        about: "the same while nothing flows and nobody looks; a stream is opened once it was noticed",
        traffic: Traffic::None,
        goals: within(goal(20_000, 20_000), goal(1_000, 1_000)),
        needs_nat: true,
        act: faults::idle_address,
        ..DEFAULT
    },
    Scenario {
        name: "idle-asked",
        about: "the same, but a stream is asked for 5 s after the change, before the farm can know of it",
        run: Run::Lab,
        traffic: Traffic::None,
        // Nothing can reach the farm before its next probe.
        goals: within(None, goal(20_000, 20_000)),
        needs_nat: true,
        act: faults::idle_asked,
        ..DEFAULT
    },
    Scenario {
        name: "forgotten",
        about: "the farm's router forgets its NAT mappings and gives other ports",
        goals: within(goal(1_500, 2_500), goal(2_000, 3_000)),
        needs_nat: true,
        span: Duration::from_secs(4),
        act: faults::forgotten,
        ..DEFAULT
    },
    Scenario {
        name: "agent-restart",
        about: "the agent is stopped and started, as by systemctl restart",
        streams: Streams::End,
        goals: within(goal(500, 1_000), goal(500, 1_000)),
        act: faults::agent_restart,
        ..DEFAULT
    },
    Scenario {
        name: "agent-killed",
        about: "the agent is killed and started at once, as by the watchdog",
        streams: Streams::End,
        goals: within(goal(500, 1_000), goal(500, 1_000)),
        act: faults::agent_killed,
        ..DEFAULT
    },
    Scenario {
        name: "client-restart",
        about: "farm-connect is killed and started",
        streams: Streams::End,
        goals: within(None, goal(500, 1_000)),
        act: faults::client_restart,
        ..DEFAULT
    },
    Scenario {
        name: "broker-restart",
        on: On::Direct,
        about: "the broker is stopped and started",
        goals: UNNOTICED,
        span: Duration::from_secs(8),
        act: |stage| faults::broker_down(stage, 0),
        ..DEFAULT
    },
    Scenario {
        name: "broker-down",
        on: On::Direct,
        about: "the broker is away for 15 s",
        goals: UNNOTICED,
        span: Duration::from_secs(25),
        act: |stage| faults::broker_down(stage, 15),
        ..DEFAULT
    },
    Scenario {
        name: "broker-down-180",
        on: On::Direct,
        about: "the broker is away for 3 minutes",
        run: Run::Long,
        goals: UNNOTICED,
        span: Duration::from_secs(190),
        act: |stage| faults::broker_down(stage, 180),
        ..DEFAULT
    },
    Scenario {
        name: "relay-down",
        about: "the broker, and its relay with it, is away for 15 s where everything goes through that",
        on: On::Relayed,
        goals: within(goal(1_500, 3_000), goal(1_000, 2_000)),
        span: Duration::from_secs(20),
        act: faults::relay_down,
        ..DEFAULT
    },
    Scenario {
        name: "dns-gone",
        on: On::Direct,
        about: "the resolver is gone, and meanwhile the broker restarts",
        goals: UNNOTICED,
        span: Duration::from_secs(15),
        act: faults::dns_gone,
        ..DEFAULT
    },
    Scenario {
        name: "cached-address",
        about: "the resolver is gone, and both sides restart: the address that worked last must do",
        streams: Streams::End,
        goals: within(None, goal(10_000, 10_000)),
        act: faults::cached_address,
        ..DEFAULT
    },
    Scenario {
        name: "one-way-to-phone",
        about: "packets to the phone are lost for 10 s, those from it arrive",
        goals: within(goal(1_500, 3_000), goal(500, 1_000)),
        span: Duration::from_secs(10),
        act: |stage| faults::one_way(stage, "oifname"),
        ..DEFAULT
    },
    Scenario {
        name: "one-way-to-farm",
        about: "packets from the phone are lost for 10 s, those to it arrive",
        goals: within(goal(1_500, 3_000), goal(500, 1_000)),
        span: Duration::from_secs(10),
        act: |stage| faults::one_way(stage, "iifname"),
        ..DEFAULT
    },
    Scenario {
        name: "loss-30",
        about: "30 % of all packets, each way, are lost for a minute",
        run: Run::Lab,
        goals: Goals { gap: Some(LOSSY_GAP), ..within(None, goal(500, 1_000)) },
        span: Duration::from_secs(60),
        act: faults::loss,
        ..DEFAULT
    },
    Scenario {
        name: "twins",
        about: "a second device works with a copy of the phone's key for 15 s",
        streams: Streams::End,
        goals: within(None, goal(500, 1_000)),
        span: Duration::from_secs(15),
        act: faults::twins,
        ..DEFAULT
    },
    Scenario {
        name: "ten-faults",
        about: "ten faults in a row at random (--seed)",
        goals: within(None, goal(2_000, 3_000)),
        span: Duration::from_secs(60),
        act: faults::ten,
        ..DEFAULT
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_their_own() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(!names.contains(""));
    }
}
