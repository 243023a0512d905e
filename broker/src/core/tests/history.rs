use std::net::IpAddr;
use std::time::Duration;

use farm_protocol::broker::{RefusedReason, ToBroker};

use super::world::{Device, UNIX, World, access, record, watch};
use crate::core::history::{
    Availability, Change, ENTRIES_PER_FARM, Entry, MARK_RUN_EVERY, MONTH, Past, RETURN_WITHIN, WRITE_AFTER,
};
use crate::core::{Action, Event};

const ADDRESS: &str = "192.0.2.1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn changes(world: &World) -> Vec<Change> {
    world.core.history().newest(usize::MAX, None).into_iter().map(|(_, entry)| entry.change).collect()
}

/// The entries that were to be written, in order.
fn written(world: &World) -> Vec<Entry> {
    let histories = world.written.iter().filter_map(|action| match action {
        Action::WriteHistory { writing } => Some(writing.add.iter().map(|(_, entry)| *entry)),
        _ => None,
    });
    histories.flatten().collect()
}

/// A world that remembers: the farm was in this state when the broker ended.
fn after_restart(farm: &Device, change: Change, down: u64) -> World {
    let mut world = World::new();
    world.core.farms.add(farm.farm_id(), record(farm));
    let ended = UNIX - down;
    let past = Past {
        entries: vec![(6, Entry { farm: farm.farm_id(), at: ended - 1000, change })],
        runs: vec![(ended - 1000, ended)],
    };
    let now = world.now;
    world.core.remember(past, now);
    world.handle(Event::Timeout);
    world
}

#[test]
fn changes_are_recorded_once_and_written_together() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let at_farm = world.enter_from(ADDRESS, &farm);
    world.enter_from(ADDRESS, &farm);
    assert_eq!(changes(&world), [Change::Online(address(ADDRESS))], "the same again is no change");
    world.enter_from("198.51.100.1", &farm);
    assert!(world.is_closed(at_farm));
    world.advance(WRITE_AFTER / 2);
    assert!(written(&world).is_empty(), "they wait for each other");
    world.advance(WRITE_AFTER);
    let expected = [Change::Online(address(ADDRESS)), Change::Moved(address("198.51.100.1"))];
    assert_eq!(written(&world).iter().map(|entry| entry.change).collect::<Vec<_>>(), expected);
    assert_eq!(changes(&world), expected);
}

#[test]
fn a_restart_that_a_farm_survives_leaves_no_trace_and_counts_only_while_the_broker_ran() {
    let farm = Device::farm(1);
    let mut world = after_restart(&farm, Change::Online(address(ADDRESS)), 500);
    world.advance(Duration::from_secs(3));
    world.enter_from(ADDRESS, &farm);
    world.advance(RETURN_WITHIN);
    assert_eq!(changes(&world), [Change::Online(address(ADDRESS))]);
    let now = world.now.unix;
    let past = world.core.history().of(farm.farm_id(), 0, now);
    let seen = 1000 + (now - UNIX);
    assert_eq!(past.day, Availability { up_seconds: seen, counted_seconds: seen });
    assert_eq!(past.address, Some(address(ADDRESS)));
}

#[test]
fn a_farm_that_does_not_return_after_a_restart_is_away() {
    let farm = Device::farm(1);
    let mut world = after_restart(&farm, Change::Online(address(ADDRESS)), 500);
    world.advance(RETURN_WITHIN + WRITE_AFTER);
    assert_eq!(changes(&world), [Change::Online(address(ADDRESS)), Change::Offline]);
    world.advance(Duration::from_secs(938));
    let past = world.core.history().of(farm.farm_id(), 0, world.now.unix);
    assert_eq!(past.day, Availability { up_seconds: 1060, counted_seconds: 2000 });
    assert_eq!(past.since, Some(UNIX + 60));
}

#[test]
fn numbers_go_on_after_a_restart() {
    let farm = Device::farm(1);
    let mut world = after_restart(&farm, Change::Offline, 10);
    world.enter(&farm);
    let numbers: Vec<u64> = world.core.history().after(0, None).map(|(number, _)| number).collect();
    assert_eq!(numbers, [6, 7]);
    assert_eq!(world.core.history().next(), 8);
    assert_eq!(world.core.history().after(7, Some(farm.farm_id())).count(), 1);
}

#[test]
fn a_restless_farm_is_recorded_within_its_budget_and_ends_as_it_is() {
    let mut world = World::new();
    let farm = Device::farm(1);
    for _ in 0..200 {
        let at_farm = world.enter(&farm);
        world.advance(Duration::from_millis(100));
        world.say(at_farm, ToBroker::Goodbye);
    }
    let last = world.enter(&farm);
    assert_eq!(changes(&world).len(), 20);
    assert!(world.core.counters().history_held_back > 100);
    world.advance(Duration::from_secs(3600));
    world.say(last, farm.heartbeat(1));
    world.advance(Duration::from_secs(3600));
    let count = changes(&world).len();
    assert!(count <= 22, "{count}");
    assert!(matches!(changes(&world).last(), Some(Change::Offline)), "nothing was heard for an hour");
    assert_eq!(written(&world).len(), count, "all is written");
}

#[test]
fn the_log_of_one_farm_is_bounded_on_disk_too() {
    let farm = Device::farm(1);
    let mut world = World::new();
    world.core.farms.add(farm.farm_id(), record(&farm));
    let entry = |number: u64| {
        let change =
            if number.is_multiple_of(2) { Change::Online(address(ADDRESS)) } else { Change::Offline };
        (number, Entry { farm: farm.farm_id(), at: UNIX - MONTH + number * 60, change })
    };
    let past = Past { entries: (0..ENTRIES_PER_FARM as u64).map(entry).collect(), runs: vec![(0, UNIX)] };
    let now = world.now;
    world.core.remember(past, now);
    world.enter(&farm);
    world.advance(WRITE_AFTER);
    assert_eq!(changes(&world).len(), ENTRIES_PER_FARM);
    let removed = world.written.iter().filter_map(|action| match action {
        Action::WriteHistory { writing } => Some(writing.remove.clone()),
        _ => None,
    });
    assert_eq!(removed.flatten().collect::<Vec<_>>(), [0], "the oldest gives way");
    // What gave way is not taken for absence.
    let past = world.core.history().of(farm.farm_id(), 0, world.now.unix);
    assert!(past.month.counted_seconds < MONTH, "{past:?}");
}

#[test]
fn the_brokers_own_runs_are_marked_and_forgotten_after_a_month() {
    let mut world = World::new();
    let now = world.now;
    let old = UNIX - MONTH;
    world
        .core
        .remember(Past { entries: Vec::new(), runs: vec![(old - 100, old - 50), (old, old + 50)] }, now);
    world.advance(MARK_RUN_EVERY * 2);
    let marks = world.written.iter().filter_map(|action| match action {
        Action::MarkRun { start, until, forget } => Some((*start, *until, forget.clone())),
        _ => None,
    });
    let marks: Vec<_> = marks.collect();
    let every = MARK_RUN_EVERY.as_secs();
    assert_eq!(marks[0], (UNIX, UNIX, vec![old - 100]));
    assert_eq!(marks[1], (UNIX, UNIX + every, vec![old]));
    assert_eq!(marks[2], (UNIX, UNIX + 2 * every, Vec::new()));
}

#[test]
fn the_end_of_the_broker_writes_what_waits() {
    let mut world = World::new();
    let farm = Device::farm(1);
    world.enter(&farm);
    world.handle(Event::ShutDown { seed: 1 });
    assert!(matches!(written(&world).as_slice(), [Entry { change: Change::Online(_), .. }]));
    assert!(matches!(world.written.last(), Some(Action::MarkRun { .. })));
}

#[test]
fn a_revoked_farm_is_told_so_and_never_let_in_again() {
    let mut world = World::new();
    let (farm, phone) = (Device::farm(1), Device::phone(1));
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[&phone], &[]));
    let at_phone = world.enter(&phone);
    world.say(at_phone, watch(&[&farm]));
    assert!(world.one_state(at_phone).unwrap().online);
    world.take(at_farm);

    world.handle(Event::Revoked { farm: farm.farm_id() });
    assert_eq!(world.refusal(at_farm), Some(RefusedReason::Revoked));
    let states: Vec<_> = world.presences(at_phone).into_iter().map(|presence| presence.state).collect();
    assert_eq!(states.last(), Some(&None), "as if it did not exist");
    assert_eq!(world.core.farms().count(), 0);
    assert!(changes(&world).is_empty(), "its log goes with it");

    // Neither without a token, nor with a good one.
    let token = world.issue_token([7; 20], None, 600);
    for token in [None, Some(token)] {
        let connection = world.open();
        let mut claim = farm.authenticate(&world.nonce(connection));
        claim.enrollment_token = token;
        world.say(connection, ToBroker::Authenticate(Box::new(claim)));
        assert_eq!(world.refusal(connection), Some(RefusedReason::Revoked));
    }
    assert_eq!(world.core.counters().refused_revoked, 2);
    world.check_invariants();
}
