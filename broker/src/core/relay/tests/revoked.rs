//! A farm that the operator revoked, with credentials that have not expired.

use super::world::*;
use crate::core::relay::Event;
use crate::core::relay::credentials::Account;
use crate::core::relay::limits::STREAM_WITHOUT_ALLOCATION;
use crate::core::relay::message::Method;

#[test]
fn what_a_revoked_farm_has_ends_at_once_and_its_credentials_open_nothing() {
    let mut world = World::new();
    let (farm, phone, other) = (user_of(1, 1, UNIX + 7200), user_of(1, 2, UNIX + 7200), user(3));
    let (at_farm, at_phone, elsewhere) = (udp("192.0.2.1:1"), udp("192.0.2.2:1"), udp("192.0.2.3:1"));
    for (client, user) in [(at_farm, &farm), (at_phone, &phone), (elsewhere, &other)] {
        world.allocated(client, user);
    }
    assert_eq!(world.open.len(), 3);

    world.event(Event::Revoked(Account(1)));
    assert_eq!((world.open.len(), world.turn.allocations()), (1, 1), "its own, and its phone's");
    assert_eq!(world.turn.counters().relay_revoked, 2);
    for (client, user) in [(at_farm, &farm), (at_phone, &phone)] {
        assert_eq!(world.allocate(client, user).code(), 403);
        assert_eq!(world.ask(client, user, Method::Refresh, |w| w).code(), 403);
    }
    assert_eq!(world.turn.counters().relay_revoked, 6);
    // New ones of the same farm, if somebody had them, are as bad.
    let newer = user_of(1, 1, UNIX + 7300);
    assert_eq!(world.allocate(at_farm, &newer).code(), 403);
    assert!(world.ask(elsewhere, &other, Method::Refresh, |w| w).is_success(), "nobody else is touched");
}

#[test]
fn a_revoked_farms_connection_ends_when_it_opens_nothing_else() {
    let mut world = World::new();
    let (farm, client) = (user(1), stream(1));
    world.event(Event::StreamOpened(client));
    world.allocated(client, &farm);
    world.event(Event::Revoked(Account(1)));
    assert!(world.open.is_empty());
    world.pass(STREAM_WITHOUT_ALLOCATION.as_secs() + 1);
    assert_eq!(world.closed_streams, [client]);
}
