use std::time::Duration;

use farm_protocol::broker::{FromBroker, ToBroker};
use farm_protocol::epoch::Epoch;

use super::world::{Device, UNIX, World, access, watch};
use crate::core::Event;
use crate::core::connection_state::FORGET_DEVICE_AFTER;
use crate::core::limits::{AUTHENTICATE_WITHIN, HEARTBEAT, STALE_AFTER};

#[test]
fn a_socket_that_does_not_authenticate_is_closed_after_5_s() {
    let mut world = World::new();
    let connection = world.open();
    world.advance(AUTHENTICATE_WITHIN - Duration::from_millis(1));
    assert!(!world.is_closed(connection));
    world.advance(Duration::from_millis(1));
    assert!(world.is_closed(connection));
    assert!(matches!(world.take(connection)[..], [FromBroker::Challenge(_)]), "an honest device may be slow");
    assert_eq!(world.core.counters().unauthenticated, 1);
    assert_eq!(world.core.poll_timeout(), None);
}

#[test]
fn a_farm_without_heartbeats_is_offline_after_two_and_a_half() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    for sequence in 0..5 {
        world.advance(HEARTBEAT);
        world.say(at_phone, phone.heartbeat(sequence));
        world.say(at_farm, farm.heartbeat(sequence));
    }
    world.take(at_phone);
    world.advance(STALE_AFTER - Duration::from_millis(1));
    world.say(at_phone, phone.heartbeat(9));
    assert!(!world.is_closed(at_farm));
    world.take(at_phone);
    world.advance(Duration::from_millis(1));
    assert!(world.is_closed(at_farm));
    assert!(!world.one_state(at_phone).unwrap().online);
    assert_eq!(STALE_AFTER, Duration::from_secs(150));
    assert_eq!(world.core.counters().stale_connections, 1);
}

#[test]
fn a_device_away_for_300_s_is_forgotten() {
    let mut world = World::new();
    for device in [Device::phone(1), Device::farm(1)] {
        let connection = world.enter(&device);
        world.say(connection, ToBroker::Goodbye);
        world.advance(FORGET_DEVICE_AFTER - Duration::from_millis(1));
        assert!(world.core.states.run_of(device.id()).is_some());
        world.advance(Duration::from_millis(1));
        assert_eq!(world.core.states.run_of(device.id()), None);
    }
    assert_eq!(world.core.counters().forgotten_devices, 2);
    assert_eq!(world.core.poll_timeout(), None, "nothing is left to wait for");
}

#[test]
fn a_device_that_came_back_is_not_forgotten() {
    let mut world = World::new();
    let phone = Device::phone(1);
    let first = world.enter(&phone);
    world.say(first, ToBroker::Goodbye);
    world.advance(Duration::from_secs(200));
    let connection = world.enter(&phone);
    for sequence in 0..10 {
        world.advance(HEARTBEAT);
        world.say(connection, phone.heartbeat(sequence));
    }
    assert_eq!(world.core.states.connection_of(phone.id()), Some(connection));
}

#[test]
fn an_epoch_is_forgiven_with_the_record() {
    let mut world = World::new();
    let mut broken = Device::farm(1);
    (broken.boot, broken.epoch) = (farm_protocol::id::BootId::from_bytes([7; 16]), Epoch::of_start(900_000));
    let connection = world.enter(&broken);
    world.say(connection, ToBroker::Goodbye);
    world.advance(FORGET_DEVICE_AFTER);
    // Restored from a backup: an older epoch than the one last seen.
    let restored = world.enter(&Device::farm(1));
    assert!(!world.is_closed(restored));
}

#[test]
fn a_clock_that_jumps_touches_nothing_but_tokens() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    let token = world.issue_token([5; 20], None, 3600);
    world.take(at_phone);
    let year = 365 * 24 * 3600;
    for unix in [0, UNIX + 30 * year, 1, u64::MAX, UNIX - 30 * year] {
        world.now.unix = unix;
        world.handle(Event::Timeout);
        for (connection, device) in [(at_farm, &farm), (at_phone, &phone)] {
            world.say(connection, device.heartbeat(1));
            let sent = world.take(connection);
            assert!(matches!(sent[..], [FromBroker::HeartbeatAnswer(_)]), "{unix}: {sent:?}");
        }
        world.check_invariants();
    }
    // Only this looks at the clock, and only as long as it is wrong.
    let newcomer = Device::farm(2);
    for (unix, good) in [(UNIX + 30 * year, false), (UNIX, true)] {
        world.now.unix = unix;
        let connection = world.open();
        let mut claim = newcomer.authenticate(&world.nonce(connection));
        claim.enrollment_token = Some(token.clone());
        world.say(connection, ToBroker::Authenticate(Box::new(claim)));
        assert_eq!(world.is_closed(connection), !good, "{unix}");
    }
}
