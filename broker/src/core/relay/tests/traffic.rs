//! What goes through.

use super::world::*;
use crate::core::relay::Account;
use crate::core::relay::limits::RelayLimits;
use crate::core::relay::policy::PeerPolicy;

#[test]
fn data_goes_both_ways_with_and_without_a_channel() {
    for client in [udp("192.0.2.1:5000"), stream(1)] {
        let (mut world, user) = (World::new(), user(1));
        let (id, _) = world.allocated(client, &user);
        assert!(world.permit(client, &user, PEER).is_success());
        for length in 0..9 {
            let data = vec![7; length];
            let there = Some(Sent::ToPeer(id, address(PEER), data.clone()));
            assert_eq!(world.send_to(client, PEER, &data), there);
            let back = world.peer_sends(id, PEER, &data).unwrap();
            assert_eq!(back.data(), (Ok(address(PEER)), data.clone()));
        }
        assert!(world.bind(client, &user, 0x4000, PEER).is_success());
        for length in 0..9 {
            let data = vec![8; length];
            let there = Some(Sent::ToPeer(id, address(PEER), data.clone()));
            assert_eq!(world.send_on(client, 0x4000, &data), there);
            let back = world.peer_sends(id, PEER, &data).unwrap();
            assert_eq!(back.data(), (Err(0x4000), data.clone()));
            let Sent::ToClient(to, bytes) = back else { panic!() };
            let padded = if client == stream(1) { 4 + length.next_multiple_of(4) } else { 4 + length };
            assert_eq!((to, bytes.len()), (client, padded));
        }
        // The host is let in, from any port.
        let other = world.peer_sends(id, "198.51.100.1:9", b"x").unwrap();
        assert_eq!(other.data().0, Ok(address("198.51.100.1:9")));
        assert_eq!(world.turn.usage(Account(1)).bytes, 4 * 36 + 1);
        assert_eq!(world.turn.counters().relayed_bytes, 4 * 36 + 1);
    }
}

#[test]
fn ipv6_peers_are_written_as_such() {
    let (mut world, user) = (World::new(), user(1));
    let client = udp("[2001:db8:1::1]:5000");
    let reply = world.ask(client, &user, crate::core::relay::message::Method::Allocate, |w| {
        use crate::core::relay::message::attribute as a;
        w.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).with(a::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])
    });
    assert!(reply.is_success());
    let id = *world.open.keys().next().unwrap();
    let peer = "[2a00:1450::5]:443";
    assert!(world.permit(client, &user, peer).is_success());
    assert_eq!(world.peer_sends(id, peer, b"hello").unwrap().data(), (Ok(address(peer)), b"hello".to_vec()));
    assert_eq!(world.send_to(client, peer, b"x"), Some(Sent::ToPeer(id, address(peer), b"x".to_vec())));
}

#[test]
fn nothing_passes_without_a_permission_or_after_it() {
    let (mut world, user) = (World::new(), user(1));
    let client = udp("192.0.2.1:5000");
    let (id, _) = world.allocated(client, &user);
    assert_eq!(world.send_to(client, PEER, b"x"), None);
    assert_eq!(world.peer_sends(id, PEER, b"x"), None);
    assert_eq!(world.send_on(client, 0x4000, b"x"), None);
    assert!(world.bind(client, &user, 0x4000, PEER).is_success());
    world.pass(299);
    assert!(world.send_on(client, 0x4000, b"x").is_some());
    world.pass(1);
    assert_eq!(world.send_on(client, 0x4000, b"x"), None, "the permission is over, the channel is not");
    assert!(world.permit(client, &user, PEER).is_success());
    assert!(world.send_on(client, 0x4000, b"x").is_some());
    assert!(world.refresh(client, &user, 3600).is_success());
    world.pass(300);
    assert!(world.permit(client, &user, PEER).is_success());
    assert_eq!(world.send_on(client, 0x4000, b"x"), None, "now the channel is over, too");
    assert!(world.send_to(client, PEER, b"x").is_some());
    assert!(world.turn.counters().relay_not_permitted >= 2);
}

#[test]
fn two_allocations_of_one_relay_reach_each_other() {
    let mut world = World::new();
    let (one, other) = (user(1), user(2));
    let (here, there) = (stream(1), udp("192.0.2.9:7000"));
    let (_, at_here) = world.allocated(here, &one);
    let (_, at_there) = world.allocated(there, &other);
    assert!(world.permit(here, &one, &at_there.to_string()).is_success());
    assert_eq!(world.send_to(here, &at_there.to_string(), b"x"), None, "the other has not let it in");
    assert!(world.bind(there, &other, 0x4000, &at_here.to_string()).is_success());
    for length in 1..6 {
        let data = vec![3; length];
        let sent = world.send_to(here, &at_there.to_string(), &data).unwrap();
        assert_eq!(sent.data(), (Err(0x4000), data.clone()));
        let Sent::ToClient(to, _) = &sent else { panic!() };
        assert_eq!(*to, there);
        let back = world.send_on(there, 0x4000, &data).unwrap();
        assert_eq!(back.data(), (Ok(at_there), data));
    }
    assert!(world.turn.usage(Account(1)).bytes > 0 && world.turn.usage(Account(2)).bytes > 0);
    // Any other port of that address is our own machine.
    assert_eq!(world.send_to(here, &format!("{RELAY}:22"), b"x"), None);
    assert!(world.bind(here, &one, 0x4001, &format!("{RELAY}:22")).is_success());
    assert_eq!(world.send_on(here, 0x4001, b"x"), None);
    assert_eq!(world.turn.counters().relay_peer_refused, 2);
    world.refresh(there, &other, 0);
    assert_eq!(world.send_to(here, &at_there.to_string(), b"x"), None, "and so is one that was closed");
}

#[test]
fn the_network_that_it_stands_in_is_out_of_reach() {
    let (mut world, user) = (World::new(), user(1));
    let client = udp("192.0.2.1:5000");
    world.allocated(client, &user);
    for bad in
        ["127.0.0.1:22", "10.0.0.1:80", "169.254.169.254:80", "100.64.1.1:1", "224.0.0.1:1", "0.0.0.0:1"]
    {
        assert_eq!(world.permit(client, &user, bad).code(), 403, "{bad}");
        assert_eq!(world.bind(client, &user, 0x4000, bad).code(), 403, "{bad}");
        assert_eq!(world.send_to(client, bad, b"x"), None, "{bad}");
    }
    let policy = PeerPolicy { allowed: vec!["10.0.0.0/8".parse().unwrap()], ..PeerPolicy::default() };
    let mut lab = World::with(RelayLimits::default(), policy);
    let (id, _) = lab.allocated(client, &user);
    assert!(lab.permit(client, &user, "10.0.0.1:80").is_success());
    let sent = Some(Sent::ToPeer(id, address("10.0.0.1:80"), b"x".to_vec()));
    assert_eq!(lab.send_to(client, "10.0.0.1:80", b"x"), sent);
    assert_eq!(lab.permit(client, &user, "127.0.0.1:22").code(), 403);
}
