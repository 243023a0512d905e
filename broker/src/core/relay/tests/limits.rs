//! Each limit, met and counted.

use super::world::*;
use crate::core::bucket::Rate;
use crate::core::relay::flow::Bandwidth;
use crate::core::relay::limits::RelayLimits;
use crate::core::relay::message::{Class, Method, Writer, attribute as a};
use crate::core::relay::policy::PeerPolicy;

fn world(limits: RelayLimits) -> World {
    World::with(limits, PeerPolicy::default())
}

#[test]
fn allocations_are_limited_per_device_per_farm_and_in_all() {
    let limits = RelayLimits {
        allocations: 5,
        allocations_per_farm: 3,
        allocations_per_device: 2,
        ..RelayLimits::default()
    };
    let mut world = world(limits);
    let mut code = |port: u16, account, holder| {
        world.allocate(udp(&format!("192.0.2.1:{port}")), &user_of(account, holder, UNIX + 9)).code()
    };
    assert_eq!([code(1, 1, 1), code(2, 1, 1), code(3, 1, 1)], [0, 0, 486], "of one device");
    assert_eq!([code(4, 1, 2), code(5, 1, 3)], [0, 486], "of one farm");
    assert_eq!([code(6, 2, 4), code(7, 2, 5), code(8, 3, 6)], [0, 0, 508], "in all");
    assert_eq!(world.turn.counters().limit_relay_quota, 3);
    assert!(world.refresh(udp("192.0.2.1:1"), &user_of(1, 1, UNIX + 9), 0).is_success());
    assert!(world.allocate(udp("192.0.2.1:8"), &user_of(3, 6, UNIX + 9)).is_success(), "given back");
}

#[test]
fn permissions_and_channels_of_one_allocation_are_limited() {
    let mut world = world(RelayLimits { permissions: 3, channels: 2, ..RelayLimits::default() });
    let (client, user) = (udp("192.0.2.1:5000"), user(1));
    world.allocated(client, &user);
    assert!(world.bind(client, &user, 0x4000, "198.51.100.1:1").is_success());
    assert!(world.bind(client, &user, 0x4001, "198.51.100.2:1").is_success());
    assert_eq!(world.bind(client, &user, 0x4002, "198.51.100.1:2").code(), 508);
    let two = world.ask(client, &user, Method::CreatePermission, |w| {
        w.with_address(a::XOR_PEER_ADDRESS, address("198.51.100.3:1"))
            .with_address(a::XOR_PEER_ADDRESS, address("198.51.100.4:1"))
    });
    assert_eq!(two.code(), 508, "all or none");
    assert!(world.permit(client, &user, "198.51.100.3:1").is_success());
    assert_eq!(world.permit(client, &user, "198.51.100.4:1").code(), 508);
    assert!(world.permit(client, &user, "198.51.100.1:1").is_success(), "those that are there go on");
    world.pass(301);
    assert!(world.permit(client, &user, "198.51.100.4:1").is_success(), "expired ones make room");
}

#[test]
fn bandwidth_is_limited_per_allocation_per_farm_and_in_all() {
    let rate = |per_second| Bandwidth { per_second, burst: per_second };
    let limits =
        RelayLimits { allocation: rate(1000), farm: rate(1500), total: rate(2200), ..RelayLimits::default() };
    let mut world = world(limits);
    let clients = [1, 2, 3].map(|port| udp(&format!("192.0.2.1:{port}")));
    let users = [user_of(1, 1, UNIX + 9), user_of(1, 2, UNIX + 9), user_of(2, 3, UNIX + 9)];
    for (client, user) in clients.iter().zip(&users) {
        world.allocated(*client, user);
        assert!(world.bind(*client, user, 0x4000, PEER).is_success());
    }
    let sent = |world: &mut World, at: usize| {
        (0..20).filter(|_| world.send_on(clients[at], 0x4000, &[0; 100]).is_some()).count()
    };
    assert_eq!([sent(&mut world, 0), sent(&mut world, 1), sent(&mut world, 2)], [10, 5, 7]);
    let counters = world.turn.counters();
    assert_eq!(counters.limit_relay_bandwidth_allocation, 10);
    assert_eq!(counters.limit_relay_bandwidth_farm, 15);
    assert_eq!(counters.limit_relay_bandwidth_total, 13);
    world.pass(1);
    assert_eq!(sent(&mut world, 0), 10, "and comes back");
}

#[test]
fn requests_are_limited_per_network_and_remembered_in_bounds() {
    let limits = RelayLimits { requests: Rate::per_second(20, 1), networks: 100, ..RelayLimits::default() };
    let mut world = world(limits);
    let request = Writer::new(Method::Allocate, Class::Request, [1; 12]).finish(None);
    let answered =
        (0..250).filter(|n| !world.send(udp(&format!("192.0.2.{n}:9")), &request).1.is_empty()).count();
    assert_eq!(answered, 20);
    assert_eq!(world.turn.counters().limit_relay_requests, 230);
    for n in 0..60_000u32 {
        world.send(udp(&format!("198.{}.{}.1:9", n / 256, n % 256)), &request);
    }
    assert!(world.turn.requests_remembered() <= 100);
}
