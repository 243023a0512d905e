//! What is asked, and what is answered.

use super::world::*;
use crate::core::relay::Event;
use crate::core::relay::message::{Class, Message, Method, Writer, attribute as a};

#[test]
fn an_allocation_is_opened_refreshed_and_ended() {
    let mut world = World::new();
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    let reply = world.allocate(client, &user);
    assert!(reply.is_success());
    assert_eq!(reply.lifetime(), 600);
    assert_eq!(reply.address(a::XOR_MAPPED_ADDRESS), client.address);
    assert_eq!(reply.address(a::XOR_RELAYED_ADDRESS).ip().to_string(), RELAY);
    assert!(Message::read(&reply.bytes).unwrap().verify(&user.key), "the answer is signed");
    world.pass(500);
    assert_eq!(world.refresh(client, &user, 3600).lifetime(), 3600);
    world.pass(3599);
    assert_eq!(world.open.len(), 1);
    world.pass(1);
    assert_eq!((world.open.len(), world.turn.allocations()), (0, 0));
    assert_eq!(world.refresh(client, &user, 600).code(), 437);
    world.allocated(client, &user);
    assert_eq!(world.refresh(client, &user, 0).lifetime(), 0);
    assert!(world.open.is_empty() && world.turn.poll_timeout().is_none());
}

#[test]
fn a_lifetime_is_neither_tiny_nor_endless() {
    let mut world = World::new();
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    world.allocated(client, &user);
    for (asked, granted) in [(1, 600), (601, 601), (u32::MAX, 3600)] {
        assert_eq!(world.refresh(client, &user, asked).lifetime(), granted);
    }
    // However often it is refreshed.
    let mut hours = 0;
    while world.refresh(client, &user, 3600).is_success() {
        world.pass(3500);
        hours += 1;
        assert!(hours < 26, "it never ends");
    }
    assert!(hours >= 24 && world.open.is_empty());
}

#[test]
fn each_family_has_its_address() {
    let mut world = World::new();
    let user = user(1);
    let family = |world: &mut World, port: u16, family: u8| {
        world.ask(udp(&format!("192.0.2.1:{port}")), &user, Method::Allocate, |w| {
            w.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                .with(a::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
        })
    };
    assert_eq!(family(&mut world, 1, 1).address(a::XOR_RELAYED_ADDRESS).ip().to_string(), RELAY);
    assert_eq!(family(&mut world, 2, 2).address(a::XOR_RELAYED_ADDRESS).ip().to_string(), RELAY_V6);
    assert_eq!(family(&mut world, 3, 3).code(), 440);
    let client = udp("192.0.2.1:2");
    assert_eq!(world.permit(client, &user, PEER).code(), 443, "an IPv4 peer of an IPv6 address");
    assert_eq!(world.permit(client, &user, "[::ffff:8.8.8.8]:1").code(), 443);
    assert!(world.permit(client, &user, "[2a00::1]:1").is_success());
}

#[test]
fn what_is_asked_wrongly_is_told() {
    let mut world = World::new();
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    let plain = |kind: u16, value: &'static [u8]| move |w: Writer| w.with(kind, value);
    let udp_too =
        |kind: u16| move |w: Writer| w.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).with(kind, &[0; 4]);
    assert_eq!(world.ask(client, &user, Method::Allocate, |w| w).code(), 400);
    assert_eq!(
        world.ask(client, &user, Method::Allocate, plain(a::REQUESTED_TRANSPORT, &[6, 0, 0, 0])).code(),
        442
    );
    let reply = world.ask(client, &user, Method::Allocate, udp_too(0x001a));
    assert_eq!((reply.code(), &reply.attributes[&a::UNKNOWN_ATTRIBUTES][..]), (420, &[0, 0x1a][..]));
    assert!(world.ask(client, &user, Method::Allocate, udp_too(0x8123)).is_success(), "optional is skipped");
    assert_eq!(world.ask(client, &user, Method::CreatePermission, |w| w).code(), 400);
    for number in [0x3fff, 0x8000] {
        assert_eq!(world.bind(client, &user, number, PEER).code(), 400, "{number:x}");
    }
    assert_eq!(world.ask(client, &user, Method::Send, |w| w).code(), 400);
    assert_eq!(world.bind(udp("192.0.2.1:6000"), &user, 0x4000, PEER).code(), 437);
}

#[test]
fn an_even_port_may_be_asked_for_and_no_pair() {
    let mut world = World::new();
    let user = user(1);
    let mut ask = |port: u16, flag: u8| {
        world.ask(udp(&format!("192.0.2.1:{port}")), &user, Method::Allocate, |w| {
            w.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).with(a::EVEN_PORT, &[flag])
        })
    };
    assert_eq!(ask(1, 0).address(a::XOR_RELAYED_ADDRESS).port() % 2, 0);
    assert_eq!(ask(2, 0x80).code(), 508);
}

#[test]
fn a_lost_answer_is_given_again_and_no_second_socket() {
    let mut world = World::new();
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    let first = world.allocate(client, &user);
    // The same bytes again: find them by asking with the same transaction.
    let mut bytes = Writer::new(Method::Allocate, Class::Request, first.bytes[8..20].try_into().unwrap())
        .with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .with(a::USERNAME, user.username.as_bytes())
        .with(a::REALM, b"farm");
    let challenge =
        world.send(client, &Writer::new(Method::Allocate, Class::Request, [9; 12]).finish(None)).1;
    bytes = bytes.with(a::NONCE, &challenge[0].attributes[&a::NONCE]);
    let again = world.send(client, &bytes.finish(Some(&user.key))).1;
    assert_eq!(again[0].bytes, first.bytes);
    assert_eq!(world.open.len(), 1);
}

#[test]
fn a_port_that_is_used_again_waits_for_nothing() {
    let mut world = World::new();
    let client = udp("192.0.2.1:5000");
    let (old, _) = world.allocated(client, &user_of(1, 1, UNIX + 100));
    // The device was restarted, and has newer credentials.
    let (new, _) = world.allocated(client, &user_of(1, 1, UNIX + 200));
    assert!(old != new && world.open.len() == 1);
    // Another device behind the same NAT is not let into it.
    assert_eq!(world.allocate(client, &user(2)).code(), 437);
    assert_eq!(world.refresh(client, &user(2), 0).code(), 441);
    assert_eq!(world.open.len(), 1);
}

#[test]
fn newer_credentials_go_on_with_what_older_ones_opened() {
    let mut world = World::new();
    let client = udp("192.0.2.1:5000");
    let (older, newer) = (user_of(1, 1, UNIX + 1000), user_of(1, 1, UNIX + 100_000));
    world.allocated(client, &older);
    world.pass(500);
    assert!(world.refresh(client, &newer, 3600).is_success());
    // And the older ones, expired: for what they opened, and nothing new.
    world.pass(1000);
    assert!(world.permit(client, &older, PEER).is_success());
    assert_eq!(world.allocate(udp("192.0.2.1:5001"), &older).code(), 401);
    assert_eq!(world.turn.counters().relay_expired_credentials, 1);
    assert_eq!(world.open.len(), 1);
}

#[test]
fn a_channel_and_its_peer_belong_together() {
    let mut world = World::new();
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    world.allocated(client, &user);
    assert!(world.bind(client, &user, 0x4000, PEER).is_success());
    assert!(world.bind(client, &user, 0x4000, PEER).is_success(), "prolonged");
    assert_eq!(world.bind(client, &user, 0x4000, "198.51.100.1:4001").code(), 400);
    assert_eq!(world.bind(client, &user, 0x4001, PEER).code(), 400);
    assert!(world.bind(client, &user, 0x4001, "198.51.100.1:4001").is_success());
    world.pass(601);
    world.allocated(client, &user);
    assert!(world.bind(client, &user, 0x4001, PEER).is_success(), "an expired one is free");
}

#[test]
fn a_socket_that_can_t_be_had_is_told() {
    let mut world = World::new();
    world.sockets_left = 0;
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    let reply = world.allocate(client, &user);
    assert_eq!(reply.code(), 508);
    assert!(Message::read(&reply.bytes).unwrap().verify(&user.key));
    assert_eq!(world.turn.counters().relay_sockets_failed, 1);
    world.sockets_left = 1;
    world.allocated(client, &user);
}

#[test]
fn a_connection_without_an_allocation_is_closed() {
    let mut world = World::new();
    let user = user(1);
    for number in 0..3 {
        world.event(Event::StreamOpened(stream(number)));
    }
    world.allocated(stream(0), &user);
    assert_eq!(world.allocate(stream(1), &user_of(1, 1, UNIX - 1)).code(), 401);
    world.event(Event::StreamClosed(stream(2)));
    world.pass(10);
    assert_eq!(world.closed_streams, [stream(1)]);
    // Its end takes the allocation with it; the allocation's end, the connection.
    world.allocated(stream(3), &user);
    world.event(Event::StreamClosed(stream(3)));
    assert_eq!(world.open.len(), 1);
    assert!(world.refresh(stream(0), &user, 0).is_success());
    world.pass(10);
    assert_eq!(world.closed_streams, [stream(1), stream(0)]);
    assert!(world.turn.poll_timeout().is_none());
}

#[test]
fn noise_ends_a_stream_at_once() {
    let mut world = World::new();
    let user = user(1);
    for number in 0..2 {
        world.event(Event::StreamOpened(stream(number)));
    }
    world.allocated(stream(0), &user);
    for number in 0..2 {
        world.send(stream(number), &[0; 20]);
        world.event(Event::StreamClosed(stream(number)));
    }
    assert_eq!(world.closed_streams, [stream(0), stream(1)]);
    assert_eq!((world.open.len(), world.turn.counters().relay_malformed), (0, 2));
    assert!(world.turn.poll_timeout().is_none());
}

#[test]
fn a_binding_request_on_a_stream_is_answered() {
    let mut world = World::new();
    let request = Writer::new(Method::Binding, Class::Request, [1; 12]).finish(None);
    let (_, replies) = world.send(stream(1), &request);
    assert_eq!(replies[0].address(a::XOR_MAPPED_ADDRESS), stream(1).address);
}
