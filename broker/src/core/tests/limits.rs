use std::time::Duration;

use farm_protocol::broker::{
    Access, Address, FromBroker, MAX_FORMER, MAX_INVITATIONS, MAX_PHONES, MAX_WATCHED, RefusedReason, Signal,
    ToBroker, UndeliveredReason as Reason, Watch,
};
use farm_protocol::id::{FarmId, PhoneId};

use super::world::{Device, World, access, invitation, watch};
use crate::core::bucket::Rate;

fn farm_ids(count: usize) -> Vec<FarmId> {
    let id = |n: usize| {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        FarmId::from_bytes(bytes)
    };
    (0..count).map(id).collect()
}

#[test]
fn connections_are_limited_altogether_and_per_address() {
    let mut world = World::with(|settings| {
        settings.limits.connections = 3;
        settings.limits.connections_per_address = 2;
    });
    let one = "2001:db8::1".parse().unwrap();
    let neighbour = "2001:db8::2".parse().unwrap();
    let first = world.open_from(one);
    world.open_from(neighbour);
    let over = world.open_from(one);
    assert_eq!(world.refusal(over), Some(RefusedReason::Limit));
    let elsewhere = world.open();
    assert!(!world.is_closed(elsewhere));
    let full = world.open();
    assert_eq!(world.refusal(full), Some(RefusedReason::Limit));
    let counters = *world.core.counters();
    assert_eq!((counters.limit_connections, counters.limit_connections_per_address), (1, 1));
    world.say(first, ToBroker::Goodbye);
    let room = world.open_from(one);
    assert!(!world.is_closed(room), "a place that is free again is given");
    world.check_invariants();
}

#[test]
fn handshakes_are_limited_altogether_and_per_address() {
    let mut world = World::with(|settings| {
        settings.limits.handshakes = Rate::per_second(4, 1);
        settings.limits.handshakes_per_address = Rate::per_second(2, 1);
    });
    let one = "192.0.2.1".parse().unwrap();
    let tries: Vec<_> = (0..3).map(|_| world.open_from(one)).collect();
    assert!(!world.is_closed(tries[1]));
    assert_eq!(world.refusal(tries[2]), Some(RefusedReason::Limit));
    let others: Vec<_> = (0..3).map(|_| world.open()).collect();
    assert!(!world.is_closed(others[1]), "one address does not use up what is for all");
    assert_eq!(world.refusal(others[2]), Some(RefusedReason::Limit));
    world.advance(Duration::from_secs(1));
    let later = world.open_from(one);
    assert!(!world.is_closed(later));
    assert_eq!(world.core.counters().limit_handshakes, 2);
}

#[test]
fn too_many_messages_close_the_connection() {
    let mut world = World::with(|settings| {
        settings.limits.phone_messages = Rate::per_second(10, 5);
    });
    let phone = Device::phone(1);
    let connection = world.enter(&phone);
    for sequence in 0..10 {
        world.say(connection, phone.heartbeat(sequence));
    }
    world.advance(Duration::from_millis(200));
    world.say(connection, phone.heartbeat(10));
    assert!(!world.is_closed(connection));
    world.say(connection, phone.heartbeat(11));
    assert_eq!(world.refusal(connection), Some(RefusedReason::Limit));
    assert_eq!(world.core.counters().limit_messages, 1);
}

#[test]
fn a_long_list_costs_more_than_one_message() {
    let mut world = World::with(|settings| {
        settings.limits.phone_messages = Rate::per_second(10, 5);
    });
    let connection = world.enter(&Device::phone(1));
    world.say(connection, ToBroker::Watch(Watch { farms: farm_ids(50) }));
    assert!(!world.is_closed(connection));
    world.say(connection, ToBroker::Watch(Watch { farms: farm_ids(50) }));
    assert_eq!(world.refusal(connection), Some(RefusedReason::Limit));
    world.check_invariants();
}

#[test]
fn a_long_signal_costs_more_than_one_message() {
    let mut world = World::with(|settings| settings.limits.phone_messages = Rate::per_second(10, 5));
    let connection = world.enter(&Device::phone(1));
    let peer = Address::Farm(farm_ids(1)[0]);
    let signal = |bytes| ToBroker::Signal(Signal { peer, payload: vec![0; bytes] });
    // 5 and 4 times the price of a short one.
    world.say(connection, signal(20_000));
    world.say(connection, signal(15_000));
    assert!(!world.is_closed(connection));
    world.say(connection, signal(4096));
    assert_eq!(world.refusal(connection), Some(RefusedReason::Limit));
}

#[test]
fn too_many_signals_are_not_handed_on() {
    let mut world = World::with(|settings| {
        settings.limits.phone_signals = Rate::per_second(3, 1);
    });
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    let peer = Address::Farm(farm.farm_id());
    let results: Vec<_> = (0..4).map(|_| world.try_signal(at_phone, peer)).collect();
    assert_eq!(results, [None, None, None, Some(Reason::Limit)]);
    assert!(!world.is_closed(at_phone));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.try_signal(at_phone, peer), None);
    assert_eq!(world.core.counters().limit_signals, 1);
}

#[test]
fn a_phone_sends_at_most_10_pairing_signals_in_any_minute() {
    // Who goes on like this is sent away: that has a test of its own.
    let mut world = World::with(|settings| settings.limits.strikes = Rate::per_second(1000, 1000));
    let phone = world.enter(&Device::phone(1));
    let mut allowed = Vec::new();
    for _ in 0..300 {
        match world.try_signal(phone, Address::Invitation(invitation(1))) {
            Some(Reason::Offline) => allowed.push(world.elapsed()),
            other => assert_eq!(other, Some(Reason::Limit)),
        }
        world.advance(Duration::from_secs(1));
        world.say(phone, Device::phone(1).heartbeat(1));
    }
    let minute = Duration::from_secs(60);
    for at in &allowed {
        let within = allowed.iter().filter(|t| *t >= at && **t < *at + minute).count();
        assert!(within <= 10, "{within} within a minute");
    }
    assert!(allowed.len() >= 25, "{}", allowed.len());
}

#[test]
fn a_farm_gets_at_most_30_pairing_signals_in_any_minute() {
    let mut world = World::new();
    let at_farm = world.enter(&Device::farm(1));
    world.say(at_farm, access(&[], &[invitation(1)]));
    let mut allowed = Vec::new();
    for n in 0..100 {
        // Each from another phone: only the farm's own limit is left.
        let connection = world.enter(&Device::phone(n));
        if world.try_signal(connection, Address::Invitation(invitation(1))).is_none() {
            allowed.push(world.elapsed());
        }
        world.advance(Duration::from_secs(1));
    }
    let minute = Duration::from_secs(60);
    for at in &allowed {
        let within = allowed.iter().filter(|t| *t >= at && **t < *at + minute).count();
        assert!(within <= 30, "{within} within a minute");
    }
    assert!(allowed.len() >= 30, "{}", allowed.len());
    assert!(world.core.counters().limit_pairing > 0);
}

#[test]
fn who_goes_on_beyond_a_limit_is_sent_away() {
    let mut world = World::with(|settings| settings.limits.strikes = Rate::per_minute(6, 6));
    let connection = world.enter(&Device::phone(1));
    let guess = |world: &mut World| {
        let peer = Address::Invitation(invitation(1));
        world.say(connection, ToBroker::Signal(Signal { peer, payload: vec![1] }));
    };
    // What is allowed, and what is still answered.
    (0..5 + 3).for_each(|_| guess(&mut world));
    assert!(!world.is_closed(connection));
    // Heeding it for a while is forgiven.
    world.advance(Duration::from_secs(20));
    (0..1 + 1).for_each(|_| guess(&mut world));
    assert!(!world.is_closed(connection));
    guess(&mut world);
    assert_eq!(world.refusal(connection), Some(RefusedReason::Limit));
    assert_eq!(world.core.counters().limit_strikes, 1);
    world.check_invariants();
}

#[test]
fn the_lists_of_a_farm_are_bounded() {
    let phone = |n: usize| PhoneId::from_bytes([(n % 256) as u8; 20]);
    let fits = Access {
        phones: (0..MAX_PHONES).map(phone).collect(),
        invitations: (0..MAX_INVITATIONS).map(|n| invitation(n as u8)).collect(),
        former: (0..MAX_FORMER).map(phone).collect(),
    };
    let mut former = fits.clone();
    former.former.push(phone(0));
    let mut phones = fits.clone();
    phones.phones.push(phone(0));
    let mut invitations = fits.clone();
    invitations.invitations.push(invitation(99));
    for (list, reason) in [
        (fits, None),
        (phones, Some(RefusedReason::Limit)),
        (invitations, Some(RefusedReason::Limit)),
        (former, Some(RefusedReason::Limit)),
    ] {
        let mut world = World::new();
        let connection = world.enter(&Device::farm(1));
        world.say(connection, ToBroker::Access(list));
        assert_eq!(world.is_closed(connection), reason.is_some());
        if reason.is_some() {
            assert_eq!(world.refusal(connection), reason);
        }
    }
}

#[test]
fn watches_are_bounded_per_connection_and_altogether() {
    let mut world = World::with(|settings| settings.limits.watches = 300);
    let first = world.enter(&Device::phone(1));
    let all = |count| ToBroker::Watch(Watch { farms: farm_ids(count) });
    world.say(first, all(MAX_WATCHED));
    assert_eq!(world.presences(first).len(), MAX_WATCHED);
    let second = world.enter(&Device::phone(2));
    world.say(second, all(45));
    assert_eq!(world.refusal(second), Some(RefusedReason::Limit));
    let third = world.enter(&Device::phone(3));
    world.say(third, all(MAX_WATCHED + 1));
    assert_eq!(world.refusal(third), Some(RefusedReason::Limit));
    assert_eq!(world.core.counters().limit_watches, 2);
    world.say(first, ToBroker::Goodbye);
    assert_eq!(world.core.watchers.len(), 0);
    world.check_invariants();
}

#[test]
fn presence_that_changes_too_often_is_held_back_and_the_last_is_sent() {
    let mut world = World::with(|settings| {
        settings.limits.presence_changes = Rate::per_second(3, 1);
    });
    let (mut farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    world.take(at_phone);
    for sequence in 0..50 {
        farm.epoch = farm.epoch.next();
        world.say(at_farm, farm.heartbeat(sequence));
    }
    assert_eq!(world.presences(at_phone).len(), 3);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.one_state(at_phone).unwrap().epoch, farm.epoch);
    world.advance(Duration::from_secs(60));
    assert!(world.take(at_phone).is_empty());
    assert_eq!(world.core.counters().limit_presence, 47);
    assert_eq!(world.take(at_farm).len(), 50, "every heartbeat is answered");
}

#[test]
fn every_counter_has_a_name() {
    let mut world = World::new();
    let connection = world.enter(&Device::phone(1));
    world.say(connection, Device::phone(1).heartbeat(1));
    assert!(matches!(&world.take(connection)[..], [FromBroker::HeartbeatAnswer(_)]));
    let named: std::collections::BTreeMap<_, _> = world.core.counters().iter().collect();
    assert_eq!((named["opened"], named["welcomed"], named["superseded"]), (1, 1, 0));
}
