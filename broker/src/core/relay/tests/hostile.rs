//! Strangers, forgers and noise.

use proptest::prelude::*;

use super::world::*;
use crate::core::relay::credentials::Secret;
use crate::core::relay::message::{Class, Method, Writer, attribute as a};

/// A request with everything that a valid one has, made with `key`.
fn signed(world: &mut World, user: &User, nonce: &[u8]) -> Vec<u8> {
    let transaction = world.transaction();
    Writer::new(Method::Allocate, Class::Request, transaction)
        .with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .with(a::USERNAME, user.username.as_bytes())
        .with(a::REALM, b"farm")
        .with(a::NONCE, nonce)
        .finish(Some(&user.key))
}

fn nonce(world: &mut World, client: crate::core::relay::Client) -> Vec<u8> {
    let request = Writer::new(Method::Allocate, Class::Request, [9; 12]).finish(None);
    world.send(client, &request).1[0].attributes[&a::NONCE].clone()
}

#[test]
fn a_stranger_is_never_sent_three_times_what_it_sent() {
    let mut world = World::new();
    let client = udp("192.0.2.1:5000");
    let user = user(1);
    let mut packets: Vec<Vec<u8>> =
        [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::Binding]
            .map(|method| Writer::new(method, Class::Request, [1; 12]).finish(None))
            .into();
    packets.push(signed(&mut world, &user, b"AAAAAAAAAAAAAAAA"));
    packets.push(Writer::new(Method::Allocate, Class::Request, [1; 12]).finish(Some(&user.key)));
    for packet in packets {
        let (_, replies) = world.send(client, &packet);
        assert_eq!(replies.len(), 1);
        assert!(replies[0].bytes.len() < 3 * packet.len(), "{} for {}", replies[0].bytes.len(), packet.len());
    }
    assert_eq!((world.open.len(), world.turn.allocations()), (0, 0));
}

#[test]
fn forged_and_expired_credentials_open_nothing() {
    let mut world = World::new();
    let client = udp("192.0.2.1:5000");
    let nonce = nonce(&mut world, client);
    let good = user(1);
    let other_secret = Secret::new(b"somebody else's secret");
    let forged = User { key: other_secret.integrity_key(&good.username), ..good.clone() };
    let prolonged = User { username: user_of(1, 1, UNIX + 1_000_000).username, ..good.clone() };
    let strange = User { username: "1:admin".into(), key: secret().integrity_key("1:admin") };
    for bad in [&forged, &prolonged, &strange, &user_of(1, 1, UNIX)] {
        let packet = signed(&mut world, bad, &nonce);
        assert_eq!(world.send(client, &packet).1[0].code(), 401, "{bad:?}");
    }
    let counters = world.turn.counters();
    assert_eq!((counters.relay_bad_credentials, counters.relay_expired_credentials), (3, 1));
    // Recorded on one address, replayed from another.
    let packet = signed(&mut world, &good, &nonce);
    assert_eq!(world.send(udp("192.0.2.1:5001"), &packet).1[0].code(), 438);
    // One bit changed anywhere is not what was signed.
    for at in 20..packet.len() - 24 {
        let mut changed = packet.clone();
        changed[at] ^= 1;
        let (_, replies) = world.send(client, &changed);
        assert!(replies.iter().all(|reply| !reply.is_success()), "byte {at}");
        world.pass(1);
    }
    assert!(world.open.is_empty());
    assert!(world.send(client, &packet).1[0].is_success(), "and untouched it is good");
}

#[test]
fn nobody_speaks_for_anothers_allocation() {
    let mut world = World::new();
    let (client, stranger) = (udp("192.0.2.1:5000"), udp("192.0.2.66:5000"));
    let (owner, thief) = (user(1), user(2));
    world.allocated(client, &owner);
    assert!(world.bind(client, &owner, 0x4000, PEER).is_success());
    // From its own address a thief has no allocation; from the owner's (it
    // shares a NAT, or forges) its credentials are the wrong ones.
    assert_eq!(world.refresh(stranger, &thief, 0).code(), 437);
    assert_eq!(world.send_on(stranger, 0x4000, b"x"), None);
    assert_eq!(world.send_to(stranger, PEER, b"x"), None);
    assert_eq!(world.refresh(client, &thief, 0).code(), 441);
    assert_eq!(world.permit(client, &thief, "198.51.100.66:1").code(), 441);
    assert_eq!(world.bind(client, &thief, 0x4001, "198.51.100.66:1").code(), 441);
    assert_eq!(world.allocate(client, &thief).code(), 437);
    assert!(world.send_on(client, 0x4000, b"x").is_some());
}

#[test]
fn a_flood_from_forged_sources_leaves_nothing_behind() {
    let mut world = World::new();
    let request = Writer::new(Method::Allocate, Class::Request, [1; 12]).finish(None);
    for n in 0..100_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        world.send(udp(&format!("20.{b}.{c}.{d}:9")), &request);
    }
    assert_eq!(world.turn.allocations(), 0);
    assert!(world.turn.poll_timeout().is_none());
    assert!(world.turn.requests_remembered() <= crate::core::relay::RelayLimits::default().networks);
    world.pass(60);
    world.allocated(udp("192.0.2.1:5000"), &user(1));
}

proptest! {
    #[test]
    fn any_packet_is_survived(
        mut packet in proptest::collection::vec(any::<u8>(), 0..300),
        kind in prop::sample::select(vec![0u16, 1, 3, 4, 8, 9, 0x16, 0x17, 0x103, 0x113, 0x4000, 0x7fff]),
        framed in any::<bool>(),
    ) {
        let (mut world, user) = (World::new(), user(1));
        let client = udp("192.0.2.1:5000");
        world.allocated(client, &user);
        prop_assert!(world.bind(client, &user, 0x4000, PEER).is_success());
        if packet.len() >= 2 {
            packet[..2].copy_from_slice(&kind.to_be_bytes());
        }
        if framed && packet.len() >= 20 {
            let length = (packet.len() - 20) / 4 * 4;
            packet.truncate(20 + length);
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
        }
        let (_, replies) = world.send(client, &packet);
        prop_assert!(replies.iter().all(|reply| !reply.is_success() || reply.method == 1));
        prop_assert_eq!(world.open.len(), 1);
    }

    #[test]
    fn damaged_attributes_are_survived(at in 0usize..140, value: u8, length in 20usize..140) {
        let mut world = World::new();
        let client = udp("192.0.2.1:5000");
        let nonce = nonce(&mut world, client);
        let mut packet = signed(&mut world, &user(1), &nonce);
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        packet.truncate(length);
        world.send(client, &packet);
    }
}

#[test]
fn channel_data_for_nobody_is_counted_and_dropped() {
    let mut world = World::new();
    let (client, stranger) = (udp("192.0.2.1:5000"), udp("192.0.2.66:5000"));
    world.allocated(client, &user(1));
    let packet = [0x40, 0x00, 0x00, 0x04, 1, 2, 3, 4];
    for from in [client, stranger] {
        let (sent, replies) = world.send(from, &packet);
        assert!(sent.is_none() && replies.is_empty());
    }
    let indication = Writer::new(Method::Send, Class::Indication, [1; 12])
        .with_address(a::XOR_PEER_ADDRESS, address(PEER))
        .with(a::DATA, b"data")
        .finish(None);
    assert!(world.send(stranger, &indication).0.is_none());
    assert_eq!(world.turn.counters().relay_unbound, 3);
    assert!(world.send(client, &indication).0.is_none());
    assert_eq!((world.turn.counters().relay_unbound, world.turn.counters().relay_not_permitted), (3, 1));
}
