use std::time::Duration;

use farm_protocol::broker::{FromBroker, RefusedReason, ToBroker};
use farm_protocol::epoch::Epoch;

use super::world::{Device, World, access, watch};
use crate::core::Event;

/// A farm that lists a phone that watches it; all have been told.
fn watched() -> (World, Device, crate::core::ConnectionId, crate::core::ConnectionId) {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    let state = world.one_state(at_phone).expect("a listed phone is told");
    assert!(state.online && state.verify(&farm.key.public()).is_ok());
    (world, farm, at_farm, at_phone)
}

#[test]
fn a_listed_phone_is_told_when_the_farm_comes_and_goes() {
    let (mut world, mut farm, at_farm, at_phone) = watched();
    world.advance(Duration::from_secs(10));
    world.handle(Event::Closed { connection: at_farm, slow: false });
    let state = world.one_state(at_phone).unwrap();
    assert!(!state.online && state.since_seconds == 0 && state.epoch == farm.epoch);
    assert!(state.verify(&farm.key.public()).is_ok());

    farm.restart();
    world.enter(&farm);
    let state = world.one_state(at_phone).unwrap();
    assert!(state.online && state.boot == farm.boot && state.epoch == farm.epoch);
    assert!(state.verify(&farm.key.public()).is_ok());
}

#[test]
fn an_unknown_farm_and_one_that_does_not_list_the_phone_look_the_same() {
    let mut world = World::new();
    let (farm, stranger, unknown) = (Device::farm(1), Device::phone(9), Device::farm(2));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&Device::phone(1)], &[]));
    let connection = world.enter(&stranger);
    world.say(connection, watch(&[&farm, &unknown]));
    let presences = world.presences(connection);
    assert_eq!(presences.len(), 2);
    assert!(presences.iter().all(|presence| presence.state.is_none()), "{presences:?}");
    // Neither do its comings and goings tell anything.
    world.handle(Event::Closed { connection: at_farm, slow: false });
    world.enter(&farm);
    assert!(world.take(connection).is_empty());
}

#[test]
fn a_newer_epoch_in_a_heartbeat_is_pushed_at_once() {
    let (mut world, mut farm, at_farm, at_phone) = watched();
    world.advance(Duration::from_secs(7));
    farm.epoch = farm.epoch.next();
    world.say(at_farm, farm.heartbeat(4));
    assert!(matches!(&world.take(at_farm)[..], [FromBroker::HeartbeatAnswer(a)] if a.sequence == 4));
    let state = world.one_state(at_phone).unwrap();
    assert_eq!((state.epoch, state.since_seconds), (farm.epoch, 7), "the same presence goes on");
    assert!(state.verify(&farm.key.public()).is_ok());
    world.say(at_farm, farm.heartbeat(5));
    assert!(world.take(at_phone).is_empty(), "nothing new, nothing pushed");
}

#[test]
fn an_older_epoch_in_a_heartbeat_changes_nothing() {
    let (mut world, mut farm, at_farm, at_phone) = watched();
    let newest = farm.epoch.next();
    farm.epoch = newest;
    world.say(at_farm, farm.heartbeat(1));
    world.take(at_phone);
    farm.epoch = Epoch::of_start(1);
    world.say(at_farm, farm.heartbeat(2));
    assert!(world.take(at_phone).is_empty());
    assert_eq!(world.take(at_farm).len(), 2, "it is answered all the same");
    assert_eq!(world.core.farms.seen(farm.farm_id()).unwrap().epoch, newest);
}

#[test]
fn a_newer_epoch_without_the_farms_signature_is_refused() {
    for forge in [true, false] {
        let (mut world, mut farm, at_farm, at_phone) = watched();
        let old = farm.heartbeat(1);
        farm.epoch = farm.epoch.next();
        let (ToBroker::Heartbeat(mut heartbeat), ToBroker::Heartbeat(old)) = (farm.heartbeat(1), old) else {
            unreachable!();
        };
        heartbeat.presence = old.presence.filter(|_| forge);
        world.say(at_farm, ToBroker::Heartbeat(heartbeat));
        assert_eq!(world.refusal(at_farm), Some(RefusedReason::ProtocolError));
        let state = world.one_state(at_phone).unwrap();
        assert!(!state.online && state.epoch == Epoch::of_start(1));
    }
}

#[test]
fn another_observed_address_is_pushed_at_once() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter_from("192.0.2.1", &farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    world.take(at_phone);

    world.enter_from("192.0.2.1", &farm);
    assert!(world.take(at_phone).is_empty(), "same run, same address: no news");
    world.enter_from("198.51.100.1", &farm);
    assert!(world.one_state(at_phone).unwrap().online);
}

#[test]
fn a_superseded_connection_does_not_show_the_farm_offline() {
    let (mut world, mut farm, _, at_phone) = watched();
    farm.restart();
    world.enter(&farm);
    assert!(world.one_state(at_phone).unwrap().online, "one message, and it is online");
}

#[test]
fn a_phone_is_told_when_the_farm_lists_it_and_when_no_more() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    assert_eq!(world.one_state(at_phone), None);
    let at_farm = world.enter(&farm);
    assert!(world.take(at_phone).is_empty());
    world.say(at_farm, access(&[&phone], &[]));
    assert!(world.one_state(at_phone).unwrap().online);
    world.say(at_farm, access(&[&phone], &[]));
    assert!(world.take(at_phone).is_empty());
    world.say(at_farm, access(&[], &[]));
    assert_eq!(world.one_state(at_phone), None);
}

#[test]
fn the_access_list_outlives_the_farms_connection() {
    let (mut world, farm, at_farm, _) = watched();
    world.say(at_farm, ToBroker::Goodbye);
    assert!(world.is_closed(at_farm));
    world.advance(Duration::from_secs(3600));
    let mut second = Device::phone(1);
    second.slot = farm_protocol::id::Slot::new(1).unwrap();
    let connection = world.enter(&second);
    world.say(connection, watch(&[&farm]));
    let state = world.one_state(connection).unwrap();
    assert!(!state.online && state.since_seconds == 3600, "{state:?}");
}

#[test]
fn a_new_watch_replaces_the_former() {
    let (mut world, farm, at_farm, at_phone) = watched();
    world.say(at_phone, watch(&[&Device::farm(2)]));
    assert_eq!(world.one_state(at_phone), None);
    world.say(at_farm, ToBroker::Goodbye);
    assert!(world.take(at_phone).is_empty());
    world.say(at_phone, watch(&[&farm, &farm]));
    assert_eq!(world.presences(at_phone).len(), 1, "named twice, told once");
    world.say(at_phone, watch(&[]));
    assert_eq!(world.core.watchers.len(), 0);
    world.check_invariants();
}

#[test]
fn the_farms_longest_away_are_no_longer_shown_past_the_bound() {
    let mut world = World::with(|settings| settings.limits.offline_farms = 2);
    let phone = Device::phone(1);
    let farms: Vec<Device> = (1..=3).map(Device::farm).collect();
    let at_phone = world.enter(&phone);
    for farm in &farms {
        let at_farm = world.enter(farm);
        world.say(at_farm, access(&[&phone], &[super::world::invitation(7)]));
        world.say(at_farm, ToBroker::Goodbye);
        world.advance(Duration::from_secs(1));
    }
    world.say(at_phone, watch(&farms.iter().collect::<Vec<_>>()));
    let shown = world.presences(at_phone).into_iter().filter(|p| p.state.is_some());
    let shown: Vec<_> = shown.map(|presence| presence.farm).collect();
    assert!(!shown.contains(&farms[0].farm_id()) && shown.len() == 2);
    let holder = world.core.farms.holder(super::world::invitation(7));
    assert_ne!(holder, Some(farms[0].farm_id()), "its invitations go with it");
    world.enter(&farms[0]);
    assert_eq!(world.core.farms.shown_offline(), 2);
    world.check_invariants();
}

#[test]
fn a_presence_is_checked_before_a_phone_is_told_of_it() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    world.enroll(&farm);
    let come = |world: &mut World, honest: bool| {
        let connection = world.open();
        let mut claim = farm.authenticate(&world.nonce(connection));
        if !honest {
            claim.presence = Some(claim.signature);
        }
        world.say(connection, ToBroker::Authenticate(Box::new(claim)));
        connection
    };
    // Nobody looks: the farm is in, as it has proved who it is.
    let at_farm = come(&mut world, false);
    world.say(at_farm, access(&[&phone], &[]));
    let at_stranger = world.enter(&Device::phone(2));
    world.say(at_stranger, watch(&[&farm]));
    assert!(!world.is_closed(at_farm), "a stranger is told nothing");
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    assert!(world.presences(at_phone).iter().all(|presence| presence.state.is_none()));
    assert_eq!(world.refusal(at_farm), Some(RefusedReason::BadSignature));
    // While somebody looks it does not get in at all.
    let again = come(&mut world, false);
    assert_eq!(world.refusal(again), Some(RefusedReason::BadSignature));
    assert!(world.take(at_phone).is_empty());
    assert_eq!(world.core.counters().refused_bad_signature, 2);
    let at_farm = come(&mut world, true);
    world.say(at_farm, access(&[&phone], &[]));
    assert!(world.presences(at_phone).pop().unwrap().state.is_some_and(|state| state.online));
}

#[test]
fn a_presence_that_waited_is_checked_when_the_farm_lists_its_watcher() {
    for honest in [true, false] {
        let mut world = World::new();
        let (farm, phone) = (Device::farm(1), Device::phone(1));
        world.enroll(&farm);
        let at_farm = world.open();
        let mut claim = farm.authenticate(&world.nonce(at_farm));
        if !honest {
            claim.presence = Some(claim.signature);
        }
        world.say(at_farm, ToBroker::Authenticate(Box::new(claim)));
        let at_phone = world.enter(&phone);
        world.say(at_phone, watch(&[&farm]));
        assert_eq!(world.one_state(at_phone), None);
        world.say(at_farm, access(&[&phone], &[]));
        assert_eq!(world.is_closed(at_farm), !honest);
        let shown = world.presences(at_phone).iter().any(|presence| presence.state.is_some());
        assert_eq!(shown, honest);
    }
}
