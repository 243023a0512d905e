//! Claims that come with the request for a WebSocket.

use farm_protocol::broker::{Authenticate, FromBroker, RefusedReason};
use farm_protocol::channel::Channel;

use super::world::{Device, World};
use crate::core::{Claimed, ConnectionId};

fn channel(number: u8) -> Channel {
    Channel::from_bytes([number; 32])
}

/// A connection on this channel, with this claim.
fn open(world: &mut World, number: u8, claim: Authenticate) -> ConnectionId {
    world.open_claiming(Some(Box::new(Claimed { channel: channel(number), claim })))
}

/// Whether it was asked for an answer to a challenge, and lets it give one.
fn is_asked(world: &mut World, connection: ConnectionId, device: &Device) -> bool {
    let sent = world.take(connection);
    let asked = matches!(&sent[..], [FromBroker::Challenge(c)] if c.nonce == world.nonce(connection));
    world.authenticate(connection, device);
    asked
}

#[test]
fn who_is_known_is_let_in_without_a_challenge() {
    let mut world = World::new();
    let (phone, farm) = (Device::phone(1), Device::farm(1));
    world.enroll(&farm);
    for (number, device) in [&phone, &farm].into_iter().enumerate() {
        let connection = open(&mut world, number as u8, device.claim(&channel(number as u8)));
        assert!(matches!(&world.take(connection)[..], [FromBroker::Welcome(_)]));
        assert_eq!(world.core.states.connection_of(device.id()), Some(connection));
    }
    assert_eq!((world.core.counters().claims, world.core.counters().welcomed), (2, 2));
    world.check_invariants();
}

#[test]
fn a_claim_of_another_connection_proves_nothing() {
    let mut world = World::new();
    let phone = Device::phone(1);
    let connection = open(&mut world, 2, phone.claim(&channel(1)));
    assert_eq!(world.core.states.connection_of(phone.id()), None);
    assert!(is_asked(&mut world, connection, &phone), "TLS may end before this broker");
    assert!(matches!(&world.take(connection)[..], [FromBroker::Welcome(_)]));
    assert_eq!((world.core.counters().claims, world.core.counters().claims_unproved), (0, 1));
    world.check_invariants();
}

#[test]
fn a_claim_that_is_not_as_it_must_be_proves_nothing() {
    let mut world = World::new();
    let farm = Device::farm(1);
    world.enroll(&farm);
    let good = farm.claim(&channel(1));
    let of_another = Authenticate { key: Device::farm(2).key.public(), ..good.clone() };
    let misnamed = Authenticate { broker: "evil.example.org".to_owned(), ..good.clone() };
    let wordless = Authenticate { presence: None, ..good.clone() };
    let wordy = Authenticate { name: Some("x".repeat(300)), ..good };
    for claim in [of_another, misnamed, wordless, wordy] {
        let connection = open(&mut world, 1, claim);
        assert!(is_asked(&mut world, connection, &farm));
        assert!(matches!(&world.take(connection)[..], [FromBroker::Welcome(_)]));
    }
    assert_eq!(world.core.counters().claims, 0);
}

#[test]
fn a_farm_that_is_not_known_is_asked_and_told_why_as_ever() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let connection = open(&mut world, 1, farm.claim(&channel(1)));
    assert!(is_asked(&mut world, connection, &farm));
    assert_eq!(world.refusal(connection), Some(RefusedReason::NotEnrolled));
    assert_eq!(world.core.counters().claims_unproved, 0, "it was not looked at");
}

#[test]
fn the_newest_run_wins_with_a_claim_too() {
    let mut world = World::new();
    let (old, mut farm) = (Device::farm(1), Device::farm(1));
    world.enroll(&farm);
    let first = open(&mut world, 1, farm.claim(&channel(1)));
    farm.restart();
    let second = open(&mut world, 2, farm.claim(&channel(2)));
    assert_eq!(world.refusal(first), Some(RefusedReason::Superseded));
    let stale = open(&mut world, 3, old.claim(&channel(3)));
    assert_eq!(world.refusal(stale), Some(RefusedReason::StaleEpoch));
    assert_eq!(world.core.states.connection_of(farm.id()), Some(second));
    world.check_invariants();
}
