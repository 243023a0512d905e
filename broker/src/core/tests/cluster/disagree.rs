//! Brokers that don't know what the others know.

use std::time::Duration;

use farm_protocol::broker::{Address, UndeliveredReason as Reason};
use farm_protocol::keys::Signature;

use super::super::world::{Device, access, record, watch};
use super::net::{Net, id};
use super::{SECOND, apart, is_online, signal};
use crate::core::cluster::message::{Body, BrokerId, PeerMessage};
use crate::core::cluster::{ASK_AGAIN, BEAT_EVERY};
use crate::core::{ConnectionId, Event};

fn cut(net: &mut Net, broker: usize) {
    for other in 0..net.worlds.len() {
        net.lossy.insert((broker, other));
        net.lossy.insert((other, broker));
    }
}

#[test]
fn of_two_brokers_that_believe_they_have_a_farm_the_newer_claim_holds() {
    for (first, second) in [(0, 1), (1, 0), (2, 0)] {
        let mut net = Net::of(3);
        let farm = Device::farm(1);
        let older = net.enter(first, &farm);
        cut(&mut net, second);
        let newer = net.enter(second, &farm);
        net.run(SECOND);
        let owners = [first, second].map(|b| net.worlds[b].core.states.connection_of(farm.id()));
        assert_eq!(owners, [Some(older), Some(newer)], "both believe it");
        // It had been told of the first one before it was cut off.
        net.lossy.clear();
        net.run(BEAT_EVERY + ASK_AGAIN + SECOND);
        assert_eq!(net.place_of(&farm), Ok(Some(second)), "the first was {first}");
        net.check();
    }
}

#[test]
fn two_that_never_heard_of_each_other_agree_all_the_same() {
    let mut net = Net::of(3);
    let farm = Device::farm(1);
    net.engine(false);
    let here = net.enter(0, &farm);
    let there = net.enter(1, &farm);
    net.engine(true);
    net.run(BEAT_EVERY + ASK_AGAIN + SECOND);
    // Equal claims: any rule will do, if it is everybody's.
    let place = net.place_of(&farm).unwrap().expect("one of them has it");
    let (winner, loser) = if place == 0 { (here, (1, there)) } else { (there, (0, here)) };
    assert_eq!(net.worlds[place].core.states.connection_of(farm.id()), Some(winner));
    assert!(net.worlds[loser.0].is_closed(loser.1));
    // Whom that hit comes back, and then it is there.
    net.enter(loser.0, &farm);
    assert_eq!(net.place_of(&farm), Ok(Some(loser.0)));
}

#[test]
fn a_newer_run_wins_whatever_the_order_in_which_brokers_hear_of_it() {
    let mut net = Net::of(2);
    let mut farm = Device::farm(1);
    net.engine(false);
    for _ in 0..5 {
        // A higher turn does not help an older run.
        net.enter(0, &farm);
    }
    farm.restart();
    net.enter(1, &farm);
    net.engine(true);
    net.run(BEAT_EVERY + ASK_AGAIN + SECOND);
    assert_eq!(net.place_of(&farm), Ok(Some(1)));
}

#[test]
fn a_stale_mirror_notices_and_is_brought_up_to_date() {
    let (mut net, farm, phone, at_farm, at_phone) = apart();
    let second = Device::farm(2);
    net.lossy.insert((0, 1));
    net.close(0, at_farm);
    let at_second = net.enter(0, &second);
    net.say(0, at_second, access(&[&phone], &[]));
    assert!(net.worlds[1].take(at_phone).is_empty(), "it has not heard");
    net.say(1, at_phone, watch(&[&farm, &second]));
    assert_eq!(net.worlds[1].presences(at_phone).iter().filter(|p| p.state.is_some()).count(), 1);
    net.lossy.clear();
    // The next beat shows the gap.
    net.run(BEAT_EVERY + ASK_AGAIN);
    let told = net.worlds[1].presences(at_phone);
    let online = |device: &Device| {
        let last = told.iter().rfind(|presence| presence.farm == device.farm_id());
        last.and_then(|presence| presence.state.as_ref()).map(|state| state.online)
    };
    assert_eq!((online(&farm), online(&second)), (Some(false), Some(true)), "{told:?}");
    assert_eq!(net.place_of(&second), Ok(Some(0)));
    assert!(net.worlds[1].core.counters().peer_gaps > 0);
    net.check();
}

#[test]
fn a_stale_mirror_that_sends_to_the_broker_before_is_corrected_on_the_way() {
    let (mut net, farm, phone, _, at_phone) = apart();
    // The second broker does not hear that the farm moved on to the third.
    net.lossy.insert((2, 1));
    let moved = net.enter(2, &farm);
    net.say(1, at_phone, signal(Address::Farm(farm.farm_id())));
    assert_eq!(net.worlds[2].one_signal(moved), Address::Phone(phone.session()), "handed on by the first");
}

#[test]
fn a_signal_never_runs_in_circles() {
    let (mut net, farm, phone, _, at_phone) = apart();
    // Each believes another has it: the farm left the third unheard.
    let moved = net.enter(2, &farm);
    net.worlds[1].take(at_phone);
    net.lossy = [(2, 0), (2, 1)].into();
    net.close(2, moved);
    net.lossy.clear();
    assert_eq!(net.undelivered(1, at_phone, Address::Farm(farm.farm_id())), Some(Reason::Offline));
    // And what was handed on twice is returned, not handed on.
    let signal = crate::core::cluster::message::PeerSignal {
        sender: Address::Phone(phone.session()),
        receiver: Address::Farm(farm.farm_id()),
        origin: id(1),
        hops: 1,
        payload: b"opaque".to_vec(),
    };
    let message = PeerMessage { from: id(1), sequence: 0, body: Body::Signal(signal) };
    net.worlds[0].handle(Event::Peer(Box::new(message)));
    assert!(matches!(&net.worlds[0].told[0], (Some(to), said)
        if *to == id(1) && matches!(said.body, Body::Undelivered(_))));
}

#[test]
fn an_agent_that_flaps_between_brokers_ends_where_it_was_last() {
    let (mut net, farm, phone, _, at_phone) = apart();
    let mut last = (0, ConnectionId(0));
    // Ten times a second, for a minute.
    for turn in 0..600 {
        let broker = turn % 3;
        last = (broker, net.enter(broker, &farm));
        for world in &mut net.worlds {
            world.advance(Duration::from_millis(100));
        }
        net.settle();
        assert_eq!(net.place_of(&farm), Ok(Some(broker)), "turn {turn}");
    }
    assert_eq!(net.worlds[last.0].core.states.connection_of(farm.id()), Some(last.1));
    net.run(2 * SECOND);
    // The phone is told little, and the truth last.
    let told = net.worlds[1].take(at_phone);
    assert!(told.len() <= 90 && told.iter().all(is_online), "{}", told.len());
    net.say(last.0, last.1, signal(Address::Phone(phone.session())));
    net.worlds[1].one_signal(at_phone);
    net.check();
}

#[test]
fn the_same_without_the_brokers_hearing_of_each_other() {
    let mut net = Net::of(3);
    let farm = Device::farm(1);
    net.engine(false);
    for turn in 0..600 {
        net.enter(turn % 3, &farm);
        for world in &mut net.worlds {
            world.advance(Duration::from_millis(100));
        }
    }
    net.engine(true);
    net.run(BEAT_EVERY + ASK_AGAIN + SECOND);
    assert!(matches!(net.place_of(&farm), Ok(Some(_))));
    net.check();
}

#[test]
fn a_broker_can_claim_no_farm_that_did_not_sign() {
    let (mut net, farm, _, at_farm, at_phone) = apart();
    // As from an attacker in the engine: a far newer epoch would lock it out.
    let forged = crate::core::cluster::message::Claim {
        device: Address::Farm(farm.farm_id()),
        boot: farm.boot,
        epoch: farm_protocol::epoch::Epoch::of_start(900_000),
        turn: 7,
        farm: Some(crate::core::cluster::message::FarmHere {
            proof: Signature::from_bytes([9; 64]),
            address: "192.0.2.1".parse().unwrap(),
            since_seconds: 0,
        }),
    };
    let message = PeerMessage { from: BrokerId(99), sequence: 1, body: Body::Here(vec![forged]) };
    for world in &mut net.worlds {
        world.handle(Event::Peer(Box::new(message.clone())));
    }
    net.settle();
    assert!(!net.worlds[0].is_closed(at_farm) && net.worlds[1].take(at_phone).is_empty());
    assert_eq!(net.place_of(&farm), Ok(Some(0)));
    assert_eq!(net.worlds[2].core.counters().peer_unproven, 1);
}

#[test]
fn a_farm_whose_record_comes_later_is_there_when_it_comes() {
    let mut net = Net::of(2);
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    net.worlds[0].enroll(&farm);
    let at_farm = net.worlds[0].enter(&farm);
    net.say(0, at_farm, access(&[&phone], &[]));
    let at_phone = net.enter(1, &phone);
    net.say(1, at_phone, watch(&[&farm]));
    assert!(net.worlds[1].one_state(at_phone).is_none(), "its record is not here yet");
    let record = record(&farm);
    let entry = crate::core::cluster::records::Entry::Spent(record.clone());
    let recorded = crate::core::cluster::records::Record::Token(record.token, Some(entry));
    net.worlds[1].handle(Event::Recorded(Box::new(recorded)));
    assert!(net.worlds[1].presences(at_phone).last().unwrap().state.as_ref().unwrap().online);
    net.check();
}
