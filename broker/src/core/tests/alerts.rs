//! When the operator is told of a farm, and when not.

use std::time::Duration;

use super::world::{Device, UNIX, World, record};
use crate::core::alerts::{Alert, Kind};
use crate::core::history::{Change, Entry, Past, RETURN_WITHIN};
use crate::core::{Action, Event};

const AFTER: Duration = Duration::from_secs(600);

fn world() -> World {
    World::with(|settings| settings.alert_after = Some(AFTER))
}

/// What was told since the last look, with the ends of what is remembered.
fn told(world: &mut World) -> Vec<(Kind, u64, u64)> {
    let actions = std::mem::take(&mut world.stored);
    actions
        .into_iter()
        .map(|action| match action {
            Action::Alert { alert } => {
                let Alert { kind, since, at, .. } = *alert;
                (kind, since - UNIX, at - UNIX)
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn an_absence_is_told_once_it_lasts_and_its_end_as_well() {
    let mut world = world();
    let farm = Device::farm(1);
    world.advance(Duration::from_secs(100));
    let at_farm = world.enter(&farm);
    world.advance(Duration::from_secs(100));
    assert_eq!(told(&mut world), []);
    world.handle(Event::Closed { connection: at_farm, slow: false });
    world.advance(AFTER - Duration::from_secs(1));
    assert_eq!(told(&mut world), []);
    world.advance(Duration::from_secs(1));
    assert_eq!(told(&mut world), [(Kind::Away, 200, 800)]);
    world.advance(Duration::from_secs(24 * 3600));
    assert_eq!(told(&mut world), [], "once");
    world.enter(&farm);
    assert_eq!(told(&mut world), [(Kind::Back, 200, 800 + 24 * 3600)]);
}

#[test]
fn a_short_absence_is_told_by_nobody() {
    let mut world = world();
    let farm = Device::farm(1);
    for _ in 0..20 {
        let at_farm = world.enter(&farm);
        world.handle(Event::Closed { connection: at_farm, slow: false });
        world.advance(AFTER - Duration::from_secs(1));
    }
    world.enter(&farm);
    // One connection after the other of a farm that roams.
    world.enter(&farm);
    // Without a heartbeat it is away again after 150 s.
    world.advance(AFTER);
    assert_eq!(told(&mut world), []);
}

#[test]
fn without_alerts_nothing_is_told_and_they_may_come_and_go() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let at_farm = world.enter(&farm);
    world.handle(Event::Closed { connection: at_farm, slow: false });
    world.advance(AFTER * 2);
    assert_eq!(told(&mut world), []);
    let set = |world: &mut World, alert_after| {
        let limits = crate::core::Limits::default();
        let (connections, connections_per_address) = (limits.connections, limits.connections_per_address);
        world.handle(Event::Reconfigured { connections, connections_per_address, alert_after });
    };
    set(&mut world, Some(AFTER * 3));
    world.advance(AFTER);
    assert_eq!(told(&mut world), [(Kind::Away, 0, AFTER.as_secs() * 3)], "what was before counts");
    let at_farm = world.enter(&farm);
    assert_eq!(told(&mut world).len(), 1);
    world.handle(Event::Closed { connection: at_farm, slow: false });
    set(&mut world, None);
    world.advance(AFTER * 9);
    assert_eq!(told(&mut world), []);
}

#[test]
fn a_revoked_farm_is_waited_for_by_nobody() {
    let mut world = world();
    let (one, other) = (Device::farm(1), Device::farm(2));
    for farm in [&one, &other] {
        let connection = world.enter(farm);
        world.handle(Event::Closed { connection, slow: false });
    }
    world.handle(Event::Revoked { farm: one.farm_id() });
    world.advance(AFTER);
    let alerts = std::mem::take(&mut world.stored);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    world.handle(Event::Revoked { farm: other.farm_id() });
    let farm = other.farm_id();
    assert_eq!(world.stored, [Action::ForgetAlert { farm }], "what was told is forgotten");
}

/// A broker that starts with this farm in its store.
fn restarted(farm: &Device, change: Change, ago: u64, told_since: Option<u64>) -> World {
    let mut world = world();
    world.core.farms.add(farm.farm_id(), record(farm));
    let entry = Entry { farm: farm.farm_id(), at: UNIX - ago, change };
    let past = Past { entries: vec![(1, entry)], runs: vec![(UNIX - ago, UNIX - 5)] };
    let now = world.now;
    world.core.remember(past, now);
    world.core.watch_absences(told_since.map(|since| (farm.farm_id(), since)), now);
    world.handle(Event::Timeout);
    world.stored.clear();
    world
}

#[test]
fn a_restart_of_the_broker_repeats_nothing_and_forgets_nothing() {
    let farm = Device::farm(1);
    let online = Change::Online("192.0.2.1".parse().unwrap());
    let kinds = |world: &mut World| {
        let told = std::mem::take(&mut world.stored).into_iter();
        told.filter_map(|action| match action {
            Action::Alert { alert } => Some((alert.kind, alert.since)),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    // It was here, and comes back as devices do after a restart.
    let mut world = restarted(&farm, online, 1000, None);
    world.advance(Duration::from_secs(3));
    world.enter(&farm);
    world.advance(AFTER);
    assert_eq!(kinds(&mut world), []);
    // It was here, and does not come back.
    let mut world = restarted(&farm, online, 1000, None);
    world.advance(AFTER);
    assert_eq!(kinds(&mut world), [(Kind::Away, UNIX)]);
    // It was away for so long that it is due, but it gets the time to return.
    let mut world = restarted(&farm, Change::Offline, 10_000, None);
    world.advance(RETURN_WITHIN - Duration::from_secs(1));
    assert_eq!(kinds(&mut world), []);
    world.advance(Duration::from_secs(1));
    assert_eq!(kinds(&mut world), [(Kind::Away, UNIX - 10_000)]);
    // Told before: not again, but its return is.
    let mut world = restarted(&farm, Change::Offline, 10_000, Some(UNIX - 10_000));
    world.advance(AFTER * 2);
    assert_eq!(kinds(&mut world), []);
    world.enter(&farm);
    assert_eq!(kinds(&mut world), [(Kind::Back, UNIX - 10_000)]);
}
