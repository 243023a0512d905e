//! Several cores as brokers of one cluster, with an engine between them that
//! loses what a test wants it to lose.

mod disagree;
mod net;
mod random;
mod records;

use std::time::Duration;

use farm_protocol::broker::{Address, FromBroker, RefusedReason, UndeliveredReason as Reason};

use self::net::Net;
use super::world::{Device, access, invitation, signal, watch};
use crate::core::cluster::{BLIND_KEEPS, LEASE};
use crate::core::connection_state::FORGET_DEVICE_AFTER;
use crate::core::{ConnectionId, Event};

const SECOND: Duration = Duration::from_secs(1);

/// A farm at the first of three brokers, and a phone that it lists and that
/// watches it at the second.
fn apart() -> (Net, Device, Device, ConnectionId, ConnectionId) {
    let mut net = Net::of(3);
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = net.enter(0, &farm);
    net.say(0, at_farm, access(&[&phone], &[]));
    let at_phone = net.enter(1, &phone);
    net.say(1, at_phone, watch(&[&farm]));
    let state = net.worlds[1].one_state(at_phone).expect("a listed phone is told");
    assert!(state.online && state.verify(&farm.key.public()).is_ok());
    net.worlds[0].take(at_farm);
    (net, farm, phone, at_farm, at_phone)
}

#[test]
fn a_farm_and_a_phone_at_different_brokers_meet() {
    let (mut net, farm, phone, at_farm, at_phone) = apart();
    net.say(1, at_phone, signal(Address::Farm(farm.farm_id())));
    assert_eq!(net.worlds[0].one_signal(at_farm), Address::Phone(phone.session()));
    net.say(0, at_farm, signal(Address::Phone(phone.session())));
    assert_eq!(net.worlds[1].one_signal(at_phone), Address::Farm(farm.farm_id()));
    assert!(net.worlds[2].core.counters().peer_messages > 0, "all hear who is where");
    assert_eq!(net.worlds[2].core.counters().signals, 0, "nobody hears what they say");
}

#[test]
fn what_changes_about_a_farm_is_told_at_every_broker() {
    let (mut net, mut farm, _, at_farm, at_phone) = apart();
    net.run(5 * SECOND);
    farm.epoch = farm.epoch.next();
    net.say(0, at_farm, farm.heartbeat(1));
    let state = net.worlds[1].one_state(at_phone).unwrap();
    assert_eq!((state.epoch, state.since_seconds), (farm.epoch, 5));
    net.close(0, at_farm);
    assert!(!net.worlds[1].one_state(at_phone).unwrap().online);
    farm.restart();
    net.enter(2, &farm);
    let state = net.worlds[1].one_state(at_phone).unwrap();
    assert!(state.online && state.boot == farm.boot && state.verify(&farm.key.public()).is_ok());
}

#[test]
fn a_stranger_learns_nothing_and_reaches_nobody_through_another_broker() {
    let (mut net, farm, _, at_farm, _) = apart();
    let stranger = Device::phone(9);
    let connection = net.enter(2, &stranger);
    net.say(2, connection, watch(&[&farm]));
    assert!(net.worlds[2].one_state(connection).is_none());
    assert_eq!(net.undelivered(2, connection, Address::Farm(farm.farm_id())), Some(Reason::Offline));
    assert!(net.worlds[0].take(at_farm).is_empty());
}

#[test]
fn a_phone_with_an_invitation_finds_the_farm_at_another_broker() {
    let (mut net, farm, _, at_farm, _) = apart();
    net.say(0, at_farm, access(&[], &[invitation(1)]));
    let guest = Device::phone(7);
    let connection = net.enter(2, &guest);
    net.say(2, connection, signal(Address::Invitation(invitation(1))));
    assert_eq!(net.worlds[0].one_signal(at_farm), Address::Phone(guest.session()));
    net.say(0, at_farm, signal(Address::Phone(guest.session())));
    assert_eq!(net.worlds[2].one_signal(connection), Address::Farm(farm.farm_id()), "it may be answered");
}

#[test]
fn a_device_that_moves_leaves_its_former_broker_at_once() {
    let (mut net, farm, phone, at_farm, at_phone) = apart();
    let moved = net.enter(2, &farm);
    assert!(net.worlds[0].is_closed(at_farm));
    assert!(net.worlds[0].take(at_farm).is_empty(), "the same run knows that it moved");
    assert!(net.worlds[1].take(at_phone).iter().all(is_online), "nobody is told that it was away");
    net.say(1, at_phone, signal(Address::Farm(farm.farm_id())));
    assert_eq!(net.worlds[2].one_signal(moved), Address::Phone(phone.session()));

    let phone_moved = net.enter(2, &phone);
    assert!(net.worlds[1].is_closed(at_phone));
    net.say(2, moved, signal(Address::Phone(phone.session())));
    assert_eq!(net.worlds[2].one_signal(phone_moved), Address::Farm(farm.farm_id()));
}

fn is_online(message: &FromBroker) -> bool {
    matches!(message, FromBroker::Presence(presence) if presence.state.as_ref().is_some_and(|s| s.online))
}

#[test]
fn a_clone_elsewhere_is_superseded_and_told_why() {
    let (mut net, mut farm, _, at_farm, _) = apart();
    farm.restart();
    net.enter(1, &farm);
    assert_eq!(net.worlds[0].refusal(at_farm), Some(RefusedReason::Superseded));
}

#[test]
fn an_older_run_is_refused_at_every_broker() {
    let (mut net, mut farm, _, at_farm, _) = apart();
    let older = Device::farm(1);
    farm.restart();
    let moved = net.enter(1, &farm);
    for broker in [0, 2] {
        let connection = net.worlds[broker].open();
        net.worlds[broker].authenticate(connection, &older);
        assert_eq!(net.worlds[broker].refusal(connection), Some(RefusedReason::StaleEpoch));
    }
    net.close(1, moved);
    net.run(FORGET_DEVICE_AFTER - SECOND);
    let connection = net.worlds[2].open();
    net.worlds[2].authenticate(connection, &older);
    assert_eq!(net.worlds[2].refusal(connection), Some(RefusedReason::StaleEpoch), "remembered for a while");
    net.run(2 * FORGET_DEVICE_AFTER);
    net.enter(2, &older);
    assert!(net.worlds[0].is_closed(at_farm));
}

#[test]
fn what_a_dead_broker_had_is_gone_after_its_lease_unless_it_came_back_elsewhere() {
    let (mut net, farm, phone, _, at_phone) = apart();
    let other = Device::farm(2);
    let at_other = net.enter(0, &other);
    net.say(0, at_other, access(&[&phone], &[]));
    net.say(1, at_phone, watch(&[&farm, &other]));
    net.worlds[1].take(at_phone);
    net.run(SECOND);
    net.kill(0);
    net.run(SECOND);
    net.enter(2, &farm);
    net.run(LEASE);
    let told = net.worlds[1].presences(at_phone);
    let of = |farm: &Device| -> Vec<bool> {
        let told = told.iter().filter(|presence| presence.farm == farm.farm_id());
        told.map(|presence| presence.state.as_ref().unwrap().online).collect()
    };
    assert!(of(&farm).iter().all(|online| *online), "it came back in time: {told:?}");
    assert_eq!(of(&other), [false]);
    assert_eq!(net.worlds[1].core.peers(), 1);
}

#[test]
fn a_minute_without_the_engine_changes_nothing_that_is_known() {
    let (mut net, farm, phone, at_farm, at_phone) = apart();
    net.engine(false);
    net.run(60 * SECOND);
    assert!(net.worlds[1].take(at_phone).is_empty(), "what was known is still shown");
    let farm_address = Address::Farm(farm.farm_id());
    assert_eq!(net.undelivered(1, at_phone, farm_address), Some(Reason::Offline), "said at once");
    let near = net.enter(0, &phone);
    assert_eq!(net.undelivered(0, near, farm_address), None, "what is here works");
    net.worlds[0].one_signal(at_farm);
    net.engine(true);
    net.run(2 * SECOND);
    assert!(net.worlds[1].is_closed(at_phone), "the phone had moved meanwhile");
    net.check();
}

#[test]
fn what_can_not_be_reached_for_long_is_not_there() {
    let (mut net, farm, _, _, at_phone) = apart();
    net.engine(false);
    net.run(BLIND_KEEPS + SECOND);
    assert!(!net.worlds[1].one_state(at_phone).unwrap().online);
    net.engine(true);
    net.run(3 * SECOND);
    assert!(net.worlds[1].one_state(at_phone).unwrap().online, "and there again with the engine");
    assert!(net.worlds[1].core.elsewhere(farm.id()).is_some());
}

#[test]
fn a_broker_that_goes_in_order_empties_nobodys_screen() {
    let (mut net, farm, _, _, at_phone) = apart();
    net.worlds[0].handle(Event::ShutDown { seed: 1 });
    net.kill(0);
    net.run(SECOND);
    net.enter(2, &farm);
    net.run(2 * LEASE);
    assert!(net.worlds[1].take(at_phone).iter().all(is_online));
}
