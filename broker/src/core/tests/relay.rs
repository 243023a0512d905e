//! Who is told of the relay, and when.

use std::time::Duration;

use farm_protocol::broker::FromBroker;
use farm_protocol::relay::Relay;

use super::world::*;
use crate::core::relay::limits::CREDENTIALS_LAST;
use crate::core::relay::{Issuer, Reach, Secret};
use crate::core::{Action, ConnectionId, Event};

fn world() -> World {
    World::with(|settings| {
        let reach = Reach { udp: Some(3478), ..Reach::default() };
        settings.relay = Some(Issuer { secret: Secret::new(b"tests"), reach });
    })
}

fn welcomed(world: &mut World, device: &Device) -> (ConnectionId, Option<Relay>) {
    if device.role == farm_protocol::broker::Role::Farm {
        world.enroll(device);
    }
    let connection = world.open();
    world.authenticate(connection, device);
    match world.take(connection).pop() {
        Some(FromBroker::Welcome(welcome)) => (connection, welcome.relay),
        other => panic!("{other:?}"),
    }
}

fn beat(world: &mut World, connection: ConnectionId, device: &Device) -> Option<Relay> {
    world.take(connection);
    world.say(connection, device.heartbeat(1));
    match world.take(connection).pop() {
        Some(FromBroker::HeartbeatAnswer(answer)) => answer.relay,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_farm_has_credentials_from_its_welcome_on_and_new_ones_in_time() {
    let mut world = world();
    let farm = Device::farm(1);
    let (connection, first) = welcomed(&mut world, &farm);
    let mut held = first.unwrap();
    let mut good_until = world.elapsed() + Duration::from_secs(held.seconds.into());
    let mut renewed = 0;
    for _ in 0..300 {
        world.advance(Duration::from_secs(60));
        if let Some(relay) = beat(&mut world, connection, &farm) {
            assert_ne!(relay.username, held.username);
            held = relay;
            good_until = world.elapsed() + Duration::from_secs(held.seconds.into());
            renewed += 1;
        }
        assert!(good_until > world.elapsed() + CREDENTIALS_LAST / 3);
    }
    assert_eq!(renewed, 5, "one an hour");
}

#[test]
fn a_phone_has_them_while_a_farm_lists_it() {
    let mut world = world();
    let (farm, phone) = (Device::farm(1), Device::phone(2));
    let at_farm = world.enter(&farm);
    let (at_phone, relay) = welcomed(&mut world, &phone);
    assert_eq!(relay, None);
    assert_eq!(beat(&mut world, at_phone, &phone), None);
    world.say(at_farm, access(&[&phone], &[]));
    let given = beat(&mut world, at_phone, &phone).unwrap();
    let paid_by = |relay: &Relay| relay.username.split(':').nth(1).unwrap()[..16].to_owned();
    let account = world.core.relay_account(farm.farm_id()).unwrap();
    assert_eq!(paid_by(&given), format!("{:016x}", account.0));
    assert_eq!(beat(&mut world, at_phone, &phone), None, "once is enough");
    // Also after it comes back, and no longer when it is taken off the list.
    assert!(welcomed(&mut world, &phone).1.is_some());
    world.say(at_farm, access(&[], &[]));
    let (at_phone, relay) = welcomed(&mut world, &phone);
    assert_eq!((relay, beat(&mut world, at_phone, &phone)), (None, None));
}

#[test]
fn a_broker_without_a_relay_tells_of_none() {
    let mut world = World::new();
    let (connection, relay) = welcomed(&mut world, &Device::farm(1));
    assert_eq!((relay, beat(&mut world, connection, &Device::farm(1))), (None, None));
    assert_eq!(world.core.relay_account(Device::farm(1).farm_id()), None);
}

#[test]
fn a_revoked_farm_is_refused_at_the_relay_and_its_phone_is_paid_by_another() {
    let mut world = world();
    let (farm, other, phone) = (Device::farm(1), Device::farm(2), Device::phone(3));
    for farm in [&farm, &other] {
        let at_farm = world.enter(farm);
        world.say(at_farm, access(&[&phone], &[]));
    }
    let (at_phone, first) = welcomed(&mut world, &phone);
    let accounts = [&farm, &other].map(|farm| world.core.relay_account(farm.farm_id()).unwrap());
    let paid_by = |relay: &Relay| {
        let name = &relay.username.split(':').nth(1).unwrap()[..16];
        accounts.iter().position(|account| format!("{:016x}", account.0) == name).unwrap()
    };
    let payer = paid_by(&first.unwrap());
    let revoked = [&farm, &other][payer].farm_id();

    world.handle(Event::Revoked { farm: revoked });
    assert_eq!(world.stored, [Action::CloseRelay { account: accounts[payer] }]);
    let next = beat(&mut world, at_phone, &phone).expect("new credentials at once, not in an hour");
    assert_eq!(paid_by(&next), 1 - payer);
    assert_eq!(beat(&mut world, at_phone, &phone), None, "once is enough");
}
