use std::time::Duration;

use farm_protocol::broker::{FromBroker, RefusedReason, ToBroker, Watch};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, Slot};
use farm_protocol::keys::Nonce;

use super::world::{Device, UNIX, World, watch};
use crate::core::{ConnectionId, Event};

/// Lets the device try, and gives the refusal.
fn refused(world: &mut World, device: &Device) -> RefusedReason {
    let connection = world.open();
    world.authenticate(connection, device);
    world.refusal(connection).expect("a refusal")
}

#[test]
fn a_device_is_challenged_and_welcomed() {
    let mut world = World::new();
    let connection = world.open_from("::ffff:192.0.2.7".parse().unwrap());
    let nonce = world.nonce(connection);
    assert!(matches!(&world.take(connection)[..], [FromBroker::Challenge(c)] if c.nonce == nonce));
    world.authenticate(connection, &Device::phone(1));
    let sent = world.take(connection);
    let [FromBroker::Welcome(welcome)] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(welcome.observed, "192.0.2.7:40000");
    assert_eq!((welcome.heartbeat_seconds, welcome.stun_port, welcome.time), (60, Some(8443), UNIX));
}

#[test]
fn a_signature_over_another_challenge_is_refused() {
    let mut world = World::new();
    let (phone, connection) = (Device::phone(1), world.open());
    let replayed = phone.authenticate(&Nonce::from_bytes([9; 16]));
    world.say(connection, ToBroker::Authenticate(Box::new(replayed)));
    assert_eq!(world.refusal(connection), Some(RefusedReason::BadSignature));
}

#[test]
fn a_device_that_calls_the_broker_by_another_name_is_refused() {
    let mut world = World::new();
    let (phone, connection) = (Device::phone(1), world.open());
    let mut claim = phone.authenticate(&world.nonce(connection));
    claim.broker = "evil.example.org".to_owned();
    world.say(connection, ToBroker::Authenticate(Box::new(claim)));
    assert_eq!(world.refusal(connection), Some(RefusedReason::WrongBrokerName));
    let mut any = World::with(|settings| settings.names.clear());
    any.enter(&phone);
}

#[test]
fn any_other_message_before_authentication_is_refused() {
    let mut world = World::new();
    let phone = Device::phone(1);
    for message in [phone.heartbeat(1), watch(&[])] {
        let connection = world.open();
        world.say(connection, message);
        assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
    }
    let connection = world.open();
    world.handle(Event::Malformed { connection });
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
}

#[test]
fn authenticating_twice_is_refused() {
    let mut world = World::new();
    let phone = Device::phone(1);
    let connection = world.enter(&phone);
    world.authenticate(connection, &phone);
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
}

#[test]
fn a_farm_has_one_slot_and_states_its_presence() {
    let mut world = World::new();
    let mut farm = Device::farm(1);
    world.enroll(&farm);
    farm.slot = Slot::new(1).unwrap();
    assert_eq!(refused(&mut world, &farm), RefusedReason::ProtocolError);
    farm.slot = Slot::default();

    let connection = world.open();
    let mut claim = farm.authenticate(&world.nonce(connection));
    claim.presence = None;
    world.say(connection, ToBroker::Authenticate(Box::new(claim.clone())));
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));

    // One that is not enrolled is looked at closely; for others see `presence`.
    let connection = world.open();
    let mut claim = Device::farm(2).authenticate(&world.nonce(connection));
    claim.presence = Some(claim.signature);
    world.say(connection, ToBroker::Authenticate(Box::new(claim)));
    assert_eq!(world.refusal(connection), Some(RefusedReason::BadSignature));
}

#[test]
fn texts_over_their_bound_are_refused() {
    let mut world = World::new();
    let (phone, connection) = (Device::phone(1), world.open());
    let mut claim = phone.authenticate(&world.nonce(connection));
    claim.name = Some("x".repeat(300));
    world.say(connection, ToBroker::Authenticate(Box::new(claim)));
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
}

#[test]
fn the_same_run_replaces_its_old_connection_at_once() {
    let mut world = World::new();
    for device in [Device::farm(1), Device::phone(1)] {
        let old = world.enter(&device);
        let new = world.enter(&device);
        assert_eq!(world.refusal(old), Some(RefusedReason::Superseded));
        assert_eq!(world.core.states.connection_of(device.id()), Some(new));
        // What the old connection still says or does changes nothing.
        world.say(old, device.heartbeat(7));
        world.handle(Event::Closed { connection: old, slow: false });
        assert_eq!(world.core.states.connection_of(device.id()), Some(new));
        world.check_invariants();
    }
}

#[test]
fn a_late_word_on_an_older_connection_of_the_same_run_displaces_nothing() {
    let mut world = World::new();
    for device in [Device::phone(1), Device::farm(1)] {
        let older = world.open();
        let newer = world.enter(&device);
        world.authenticate(older, &device);
        assert!(world.is_closed(older) && !world.is_closed(newer));
        assert_eq!(world.core.states.connection_of(device.id()), Some(newer));
        world.check_invariants();
    }
}

#[test]
fn a_restarted_device_replaces_its_old_run_at_once() {
    let mut world = World::new();
    let mut device = Device::farm(1);
    let old = world.enter(&device);
    device.restart();
    world.enter(&device);
    assert_eq!(world.refusal(old), Some(RefusedReason::Superseded));
}

#[test]
fn an_older_epoch_is_refused_and_told_the_newest() {
    let mut world = World::new();
    let mut device = Device::farm(1);
    device.restart();
    let newest = world.enter(&device);
    let mut older = Device::farm(1);
    let mut other_boot = Device::farm(1);
    // The same run with an older epoch; another run with the same one.
    older.boot = device.boot;
    other_boot.epoch = device.epoch;
    for stale in [older, other_boot] {
        let connection = world.open();
        world.authenticate(connection, &stale);
        let sent = world.take(connection);
        let Some(FromBroker::Refused(refused)) = sent.last() else {
            panic!("{sent:?}");
        };
        assert_eq!(refused.reason, RefusedReason::StaleEpoch);
        assert_eq!(refused.newest, Some(device.epoch));
        assert!(world.is_closed(connection) && !world.is_closed(newest));
    }
}

#[test]
fn an_absurd_epoch_is_refused_for_a_known_device() {
    let mut world = World::new();
    let device = Device::phone(1);
    let connection = world.enter(&device);
    for boot in [device.boot, BootId::from_bytes([9; 16])] {
        let mut absurd = Device::phone(1);
        (absurd.boot, absurd.epoch) = (boot, Epoch::of_start(2_000_000));
        assert_eq!(refused(&mut world, &absurd), RefusedReason::StaleEpoch);
    }
    let mut absurd = Device::phone(1);
    absurd.epoch = Epoch::of_start(2_000_000);
    world.say(connection, absurd.heartbeat(1));
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
    // Nobody else may be locked out by it: an unknown one may start anywhere.
    let mut far = Device::phone(2);
    far.epoch = Epoch::of_start(5_000_000);
    world.enter(&far);
}

#[test]
fn the_slots_of_a_phone_do_not_displace_each_other() {
    let mut world = World::new();
    let first = Device::phone(1);
    let mut second = Device::phone(1);
    second.slot = Slot::new(1).unwrap();
    let connections = [world.enter(&first), world.enter(&second)];
    assert!(connections.iter().all(|c| !world.is_closed(*c)));
}

#[test]
fn messages_of_the_other_role_are_refused() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let connection = world.enter(&farm);
    world.say(connection, ToBroker::Watch(Watch::default()));
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
    let connection = world.enter(&phone);
    world.say(connection, super::world::access(&[], &[]));
    assert_eq!(world.refusal(connection), Some(RefusedReason::ProtocolError));
}

#[test]
fn unknown_connections_change_nothing() {
    let mut world = World::new();
    let phone = Device::phone(1);
    let nobody = ConnectionId(99);
    for event in [
        Event::Message { connection: nobody, message: phone.heartbeat(1) },
        Event::Malformed { connection: nobody },
        Event::Closed { connection: nobody, slow: true },
    ] {
        world.handle(event);
    }
    assert_eq!(world.core.counters().slow_readers, 0);
    assert_eq!(world.core.connections(), 0);
}

#[test]
fn a_shutdown_spreads_the_return_of_all() {
    let mut world = World::new();
    let connections: Vec<_> = (0..20).map(|n| world.enter(&Device::phone(n))).collect();
    world.handle(Event::ShutDown { seed: 7 });
    let mut delays: Vec<u32> = connections
        .into_iter()
        .map(|connection| match world.take(connection).as_slice() {
            [FromBroker::RetryAfter(retry)] if world.is_closed(connection) => retry.milliseconds,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(delays.iter().all(|delay| (500..3000).contains(delay)), "{delays:?}");
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 15, "{delays:?}");
    let late = world.open();
    assert!(matches!(&world.take(late)[..], [FromBroker::RetryAfter(_)]) && world.is_closed(late));
    assert_eq!(world.core.connections(), 0);
    world.advance(Duration::from_secs(600));
    assert_eq!(world.core.poll_timeout(), None);
}
