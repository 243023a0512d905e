//! Any sequence of events, honest or not: no panic, every bound holds, no
//! device has two connections, no older run changes what is shown.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use farm_protocol::broker::{Access, Address, Role, Signal, ToBroker, Watch};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, InvitationId, PhoneId, SessionId, Slot};
use farm_protocol::keys::Nonce;
use proptest::collection::vec;
use proptest::prelude::*;

use super::world::{Device, World};
use crate::core::bucket::Rate;
use crate::core::connection_state::FORGET_DEVICE_AFTER;
use crate::core::{ConnectionId, Event, Limits};

/// Few devices and connections, so that their paths cross.
const DEVICES: u8 = 3;

#[derive(Debug, Clone)]
enum Step {
    Open { host: u8 },
    Authenticate { connection: u8, who: Who, replayed: bool, token: Option<bool> },
    Heartbeat { connection: u8, who: Who },
    Access { connection: u8, phones: Vec<u8>, invitations: Vec<u8> },
    Watch { connection: u8, farms: Vec<u8> },
    Signal { connection: u8, peer: Peer, bytes: usize },
    Goodbye { connection: u8 },
    Malformed { connection: u8 },
    Closed { connection: u8, slow: bool },
    Store { done: bool },
    Wait { millis: u64 },
}

/// A device in some run.
#[derive(Debug, Clone)]
struct Who {
    role: Role,
    device: u8,
    slot: u8,
    boot: u8,
    epoch: u64,
}

#[derive(Debug, Clone)]
enum Peer {
    Farm(u8),
    Phone(u8, u8),
    Invitation(u8),
}

impl Who {
    fn device(&self) -> Device {
        let mut device = Device::new(self.role, self.device);
        device.slot = Slot::new(self.slot % Slot::COUNT).unwrap();
        device.boot = BootId::from_bytes([self.boot; 16]);
        device.epoch = Epoch::of_start(self.epoch);
        device
    }
}

/// Deriving a key is slow; these are asked for at every step.
static FARMS: LazyLock<Vec<FarmId>> =
    LazyLock::new(|| (0..DEVICES + 2).map(|n| Device::farm(n).farm_id()).collect());
static PHONES: LazyLock<Vec<PhoneId>> =
    LazyLock::new(|| (0..DEVICES).map(|n| Device::phone(n).phone_id()).collect());

fn farm_id(n: u8) -> FarmId {
    FARMS[usize::from(n)]
}

fn phone_id(n: u8) -> PhoneId {
    PHONES[usize::from(n)]
}

fn invitation(n: u8) -> InvitationId {
    InvitationId::from_bytes([n; 16])
}

fn who() -> impl Strategy<Value = Who> {
    let role = prop_oneof![Just(Role::Farm), Just(Role::Phone)];
    let slot = prop_oneof![9 => Just(0u8), 1 => 1..3u8];
    let epoch = prop_oneof![9 => 0..4u64, 1 => Just(3_000_000u64)];
    (role, 0..DEVICES, slot, 0..3u8, epoch).prop_map(|(role, device, slot, boot, epoch)| Who {
        role,
        device,
        slot,
        boot,
        epoch,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let c = 0..12u8;
    let peer = prop_oneof![
        (0..DEVICES).prop_map(Peer::Farm),
        (0..DEVICES, 0..2u8).prop_map(|(phone, slot)| Peer::Phone(phone, slot)),
        (0..4u8).prop_map(Peer::Invitation),
    ];
    let bytes = prop_oneof![4 => 0..100usize, 1 => Just(30_000usize)];
    prop_oneof![
        4 => (0..3u8).prop_map(|host| Step::Open { host }),
        8 => (c.clone(), who(), prop::bool::weighted(0.1), prop::option::weighted(0.3, any::<bool>()))
            .prop_map(|(connection, who, replayed, token)| Step::Authenticate { connection, who, replayed, token }),
        4 => (c.clone(), who()).prop_map(|(connection, who)| Step::Heartbeat { connection, who }),
        3 => (c.clone(), vec(0..DEVICES, 0..4), vec(0..4u8, 0..12))
            .prop_map(|(connection, phones, invitations)| Step::Access { connection, phones, invitations }),
        3 => (c.clone(), vec(0..DEVICES + 2, 0..6)).prop_map(|(connection, farms)| Step::Watch { connection, farms }),
        4 => (c.clone(), peer, bytes).prop_map(|(connection, peer, bytes)| Step::Signal { connection, peer, bytes }),
        1 => c.clone().prop_map(|connection| Step::Goodbye { connection }),
        1 => c.clone().prop_map(|connection| Step::Malformed { connection }),
        2 => (c, any::<bool>()).prop_map(|(connection, slow)| Step::Closed { connection, slow }),
        2 => any::<bool>().prop_map(|done| Step::Store { done }),
        3 => prop_oneof![0..2000u64, 0..400_000u64].prop_map(|millis| Step::Wait { millis }),
    ]
}

/// Tight, so that every one of them is met.
fn tight(limits: &mut Limits) {
    *limits = Limits {
        connections: 8,
        connections_per_address: 4,
        handshakes: Rate::per_second(12, 4),
        handshakes_per_address: Rate::per_second(6, 2),
        phone_messages: Rate::per_second(8, 2),
        farm_messages: Rate::per_second(12, 4),
        phone_signals: Rate::per_second(4, 1),
        farm_signals: Rate::per_second(4, 1),
        presence_changes: Rate::per_second(2, 1),
        exchanges_per_farm: 2,
        watches: 8,
        offline_farms: 1,
        farms: 2,
        tokens: 2,
        remembered_addresses: 2,
        ..Limits::default()
    };
}

struct Run {
    world: World,
    opened: Vec<ConnectionId>,
    token: String,
    /// What each farm showed last, and when.
    shown: BTreeMap<FarmId, (BootId, Epoch, Duration)>,
}

impl Run {
    fn new() -> Self {
        let mut world = World::with(|settings| tight(&mut settings.limits));
        world.enroll(&Device::farm(0));
        let token = world.issue_token([5; 20], None, 3600);
        Self { world, opened: Vec::new(), token, shown: BTreeMap::new() }
    }

    fn connection(&self, number: u8) -> ConnectionId {
        let recent = self.opened.iter().rev().nth(usize::from(number));
        recent.copied().unwrap_or(ConnectionId(u64::MAX))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open { host } => {
                let ip = std::net::Ipv4Addr::new(192, 0, 2, host);
                let connection = self.world.open_from(ip.into());
                self.opened.push(connection);
            }
            Step::Authenticate { connection, who, replayed, token } => {
                self.authenticate(connection, &who, replayed, token)
            }
            Step::Heartbeat { connection, who } => {
                let message = who.device().heartbeat(1);
                self.say(connection, message);
            }
            Step::Access { connection, phones, invitations } => {
                let access = Access {
                    phones: phones.into_iter().map(phone_id).collect(),
                    invitations: invitations.into_iter().map(invitation).collect(),
                    former: Vec::new(),
                };
                self.say(connection, ToBroker::Access(access));
            }
            Step::Watch { connection, farms } => {
                let farms = farms.into_iter().map(farm_id).collect();
                self.say(connection, ToBroker::Watch(Watch { farms }));
            }
            Step::Signal { connection, peer, bytes } => {
                let peer = match peer {
                    Peer::Farm(n) => Address::Farm(farm_id(n)),
                    Peer::Phone(n, slot) => {
                        Address::Phone(SessionId { phone: phone_id(n), slot: Slot::new(slot).unwrap() })
                    }
                    Peer::Invitation(n) => Address::Invitation(invitation(n)),
                };
                let payload = vec![0; bytes];
                self.say(connection, ToBroker::Signal(Signal { peer, payload }));
            }
            Step::Goodbye { connection } => self.say(connection, ToBroker::Goodbye),
            Step::Malformed { connection } => {
                let connection = self.connection(connection);
                self.world.handle(Event::Malformed { connection });
            }
            Step::Closed { connection, slow } => {
                let connection = self.connection(connection);
                self.world.handle(Event::Closed { connection, slow });
            }
            Step::Store { done } => self.answer_store(done),
            Step::Wait { millis } => self.world.advance(Duration::from_millis(millis)),
        }
    }

    fn say(&mut self, connection: u8, message: ToBroker) {
        let connection = self.connection(connection);
        self.world.say(connection, message);
    }

    fn authenticate(&mut self, number: u8, who: &Who, replayed: bool, token: Option<bool>) {
        let connection = self.connection(number);
        if self.opened.is_empty() {
            return;
        }
        let nonce = match replayed || connection == ConnectionId(u64::MAX) {
            true => Nonce::from_bytes([0xee; 16]),
            false => self.world.nonce(connection),
        };
        let mut claim = who.device().authenticate(&nonce);
        claim.enrollment_token = token.map(|good| match good {
            true => self.token.clone(),
            false => "wrong".to_owned(),
        });
        self.say(number, ToBroker::Authenticate(Box::new(claim)));
    }

    fn answer_store(&mut self, done: bool) {
        for action in std::mem::take(&mut self.world.stored) {
            if let crate::core::Action::Enroll { farm, .. } = action {
                self.world.handle(match done {
                    true => Event::Enrolled { farm },
                    false => Event::EnrollmentFailed { farm },
                });
            }
        }
    }

    /// While a farm's record lives, what is shown of it only gets newer.
    fn check_shown(&mut self) {
        let now = self.world.elapsed();
        let ids: Vec<FarmId> = (0..DEVICES).map(farm_id).collect();
        for farm in ids {
            let Some(seen) = self.world.core.farms.seen(farm) else {
                self.shown.remove(&farm);
                continue;
            };
            let fresh = (seen.boot, seen.epoch, now);
            let Some((boot, epoch, at)) = self.shown.get(&farm).copied() else {
                self.shown.insert(farm, fresh);
                continue;
            };
            let remembered = now < at + FORGET_DEVICE_AFTER;
            if (boot, epoch) != (seen.boot, seen.epoch) {
                assert!(
                    seen.epoch > epoch || !remembered,
                    "{farm} showed {boot} {epoch}, then {} {}",
                    seen.boot,
                    seen.epoch
                );
            }
            if seen.online || (boot, epoch) != (seen.boot, seen.epoch) {
                self.shown.insert(farm, fresh);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_every_rule_holds(steps in vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.world.check_invariants();
            run.check_shown();
        }
        // Left alone, everything ends by itself.
        run.answer_store(false);
        run.world.advance(Duration::from_secs(2 * 3600 + 600));
        prop_assert_eq!(run.world.core.connections(), 0);
        prop_assert_eq!(run.world.core.poll_timeout(), None);
    }
}
