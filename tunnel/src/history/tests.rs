use proptest::prelude::*;

use super::*;

const SETTLE: Duration = Duration::from_secs(5);
const MARK: Duration = Duration::from_secs(3600);
/// Some day in 2026.
const WALL: Duration = Duration::from_secs(1_795_372_227);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A log with its store, under a virtual clock.
struct World {
    history: History,
    stored: Stored,
    now: Instant,
    wall: Duration,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let history = History::new(Stored::default(), WALL, SETTLE, MARK, now);
        let mut world = Self { history, stored: Stored::default(), now, wall: WALL };
        world.history.clock(WALL, true, now);
        world
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.history.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.store();
        }
        self.now = end;
        self.wall += time;
    }

    fn store(&mut self) {
        for change in self.history.take_changes(self.now) {
            self.stored.apply(change);
        }
    }

    fn set(&mut self, kind: Kind, cause: Option<&str>) {
        self.history.set(Some((kind, cause)), self.now);
    }

    /// The power is cut, and comes back after `away`.
    fn cut(&mut self, away: Duration) {
        self.now += away;
        self.wall += away;
        self.history = History::new(self.stored.clone(), self.wall, SETTLE, MARK, self.now);
        self.history.clock(self.wall, true, self.now);
    }

    fn report(&self) -> Report {
        self.history.report(30, self.now)
    }
}

#[test]
fn a_day_with_one_outage() {
    let mut world = World::new();
    world.set(Kind::Up, None);
    world.pass(seconds(3600));
    world.set(Kind::Outage, Some("network_timeout"));
    world.pass(seconds(2));
    world.set(Kind::Outage, Some("farm_offline"));
    world.pass(seconds(34));
    world.set(Kind::Up, None);
    world.pass(seconds(3600 - 36));
    let report = world.report();
    let [outage] = &report.outages[..] else { panic!("{report:?}") };
    assert_eq!(
        (outage.seconds, outage.cause.as_deref(), outage.ongoing),
        (36.0, Some("farm_offline"), false)
    );
    assert_eq!(outage.at, WALL.as_secs() + 3600);
    assert_eq!(report.day.availability, Some((7200.0 - 36.0) / 7200.0));
    assert_eq!(report.day.unobserved_seconds, 86_400.0 - 7200.0);
    assert!(
        report.text("this computer").contains("36.0 s  the farm is not connected"),
        "{}",
        report.text("x")
    );
}

#[test]
fn time_without_power_or_network_is_not_counted_but_shown() {
    let mut world = World::new();
    world.set(Kind::Up, None);
    world.pass(seconds(1000));
    world.set(Kind::NoUplink, Some("phone_offline"));
    world.pass(seconds(500));
    world.set(Kind::Up, None);
    world.pass(MARK * 2);
    world.cut(seconds(7200));
    world.set(Kind::Up, None);
    world.pass(seconds(100));
    let report = world.report();
    assert_eq!(report.outages, []);
    assert_eq!(report.day.availability, Some(1.0));
    assert_eq!(report.day.no_uplink_seconds, 500.0);
    let (up, all) = (report.day.up_seconds, 1000.0 + 7200.0 + 100.0);
    assert!(
        up <= all && up >= all - MARK.as_secs_f64(),
        "at most what came after the last mark is lost: {up}"
    );
    assert_eq!(report.day.unobserved_seconds, 86_400.0 - up - 500.0);
}

#[test]
fn an_outage_that_goes_on_is_in_the_report_and_survives_a_cut() {
    let mut world = World::new();
    world.set(Kind::Outage, Some("broker_lost"));
    world.pass(MARK + seconds(10));
    let report = world.report();
    assert!(report.outages[0].ongoing, "{report:?}");
    assert_eq!(report.outages[0].seconds, 3610.0);
    world.cut(seconds(60));
    let report = world.report();
    assert!(!report.outages[0].ongoing, "{report:?}");
    assert!(report.outages[0].seconds >= 3600.0, "what was marked is kept: {report:?}");
}

#[test]
fn stamps_of_a_run_without_a_clock_are_set_right_once_it_has_one() {
    let now = Instant::now();
    let mut history = History::new(Stored::default(), seconds(100), SETTLE, MARK, now);
    history.set(Some((Kind::Outage, Some("broker_lost"))), now);
    history.set(Some((Kind::Up, None)), now + seconds(50));
    let mut stored = Stored::default();
    history.take_changes(now + seconds(60)).into_iter().for_each(|change| stored.apply(change));
    assert_eq!((stored.spans[0].1.at, stored.spans[0].1.trusted), (100, false));
    history.clock(WALL, true, now + seconds(80));
    assert!(history.poll_timeout().is_some());
    history.take_changes(now + seconds(90)).into_iter().for_each(|change| stored.apply(change));
    assert_eq!((stored.spans[0].1.at, stored.spans[0].1.trusted), (WALL.as_secs() - 80, true));
    assert_eq!(stored.spans[0].1.lasted_ms, 50_000, "durations need no clock");
    // Somebody sets it back: not believed.
    history.clock(seconds(0), false, now + seconds(100));
    assert_eq!(history.report(1, now + seconds(100)).outages[0].at, WALL.as_secs() - 80);
}

#[test]
fn little_is_written() {
    let mut world = World::new();
    world.set(Kind::Up, None);
    let mut writes = 0;
    let end = world.now + DAY;
    while let Some(due) = world.history.poll_timeout().filter(|due| *due <= end) {
        world.now = due;
        world.store();
        writes += 1;
    }
    assert!(writes <= 26, "{writes} writes on a quiet day");
    // A flapping link: one write per SETTLE, however many changes.
    for n in 0..1000 {
        world.set(if n % 2 == 0 { Kind::Outage } else { Kind::Up }, None);
    }
    assert_eq!(world.history.poll_timeout(), Some(world.now + SETTLE));
}

proptest! {
    /// Whatever happens, the log and its store stay within their bound, agree,
    /// and no second is counted twice.
    #[test]
    fn bounded_and_consistent(script in proptest::collection::vec((0_u8..6, 0_u64..2000), 0..1500)) {
        let mut world = World::new();
        let start = world.now;
        for (kind, time) in script {
            world.pass(seconds(time));
            match kind {
                0 => world.set(Kind::Up, None),
                1 => world.set(Kind::Outage, Some(&"long ".repeat(50))),
                2 => world.set(Kind::NoUplink, None),
                3 => world.history.set(None, world.now),
                4 => world.cut(seconds(time)),
                _ => world.store(),
            }
        }
        world.store();
        prop_assert!(world.stored.spans.len() <= MAX_SPANS);
        prop_assert_eq!(world.stored.spans.len(), world.history.entries.len());
        for (_, span) in &world.stored.spans {
            prop_assert!(span.cause.as_ref().is_none_or(|cause| cause.len() <= MAX_CAUSE));
        }
        let month = world.report().month;
        let seen = month.up_seconds + month.outage_seconds + month.no_uplink_seconds;
        let passed = (world.now - start).as_secs_f64();
        prop_assert!(seen <= passed.min(month.seconds as f64) + 1500.0, "{seen} s in {passed} s");
    }
}

#[test]
fn an_outage_is_not_counted_as_far_as_the_other_end_had_no_power() {
    let mut world = World::new();
    world.set(Kind::Up, None);
    world.pass(seconds(1000));
    world.set(Kind::Outage, Some("farm_offline"));
    world.pass(seconds(100));
    world.set(Kind::Up, None);
    world.pass(seconds(1000));
    // It wrote last long before the cut, and took 20 s to start.
    let absence = Absence { at: WALL.as_secs() + 400, lasted: seconds(680), power: true };
    for _ in 0..2 {
        world.history.other_was_away(absence, world.now);
    }
    // The same, after a clock was slewed by a second.
    world.history.other_was_away(Absence { at: absence.at + 1, ..absence }, world.now);
    let report = world.report();
    let [outage] = &report.outages[..] else { panic!("{report:?}") };
    assert_eq!((outage.seconds, outage.other_away_seconds), (100.0, 81.0));
    assert_eq!(outage.other_away.as_deref(), Some("no_power"));
    assert_eq!((report.day.outage_seconds, report.day.other_away_seconds), (19.0, 81.0));
    assert_eq!(report.day.longest_seconds, 19.0);
    assert_eq!(report.day.availability, Some(2000.0 / 2019.0));
    assert_eq!(report.day.unobserved_seconds, 86_400.0 - 2100.0);
    let text = report.text("this computer");
    assert!(text.contains("for 1 min 21 s of it there was no power there"), "{text}");
    // It survives this end's restart, and is known then.
    world.store();
    world.cut(seconds(1));
    world.history.other_was_away(absence, world.now);
    assert_eq!(world.report().day.outage_seconds, 19.0);
    assert_eq!(world.stored.spans.iter().filter(|(_, span)| span.kind == Kind::OtherAway).count(), 2);
}

#[test]
fn a_machine_that_was_off_says_since_when() {
    let mut world = World::new();
    world.set(Kind::Up, None);
    world.pass(seconds(1000));
    world.set(Kind::NoUplink, Some("phone_offline"));
    world.pass(seconds(60));
    world.set(Kind::Up, None);
    world.pass(MARK);
    assert_eq!(
        world.history.absences(9, world.now),
        [Absence { at: WALL.as_secs() + 1000, lasted: seconds(60), power: false }]
    );
    world.cut(seconds(5000));
    let started = world.wall.as_secs() - 12;
    world.history.machine_started(started, world.now);
    let absences = world.history.absences(9, world.now);
    // What was stored last: the last change had settled, the hour was not over.
    let last_mark = WALL.as_secs() + 1060 + SETTLE.as_secs();
    let off = Absence { at: last_mark, lasted: seconds(started - last_mark), power: true };
    assert_eq!(absences[0], off, "{absences:?}");
    assert_eq!((absences.len(), world.history.absences(1, world.now).len()), (2, 1));
    let day = world.report().day;
    assert_eq!(day.no_power_seconds, off.lasted.as_secs_f64());
    assert!(day.unobserved_seconds > day.no_power_seconds && day.availability == Some(1.0), "{day:?}");
    // After a month nobody needs it any more.
    world.set(Kind::Up, None);
    world.pass(MONTH);
    assert_eq!(world.history.absences(9, world.now), []);
}

#[test]
fn a_machine_without_a_clock_claims_nothing() {
    let now = Instant::now();
    let mut history = History::new(Stored::default(), seconds(1000), SETTLE, MARK, now);
    history.set(Some((Kind::Up, None)), now);
    history.set(Some((Kind::NoUplink, None)), now + seconds(100));
    history.set(Some((Kind::Up, None)), now + seconds(200));
    history.machine_started(WALL.as_secs(), now + seconds(300));
    assert_eq!(history.absences(9, now + seconds(300)), [], "no stamp was checked");
    history.clock(WALL, true, now + seconds(300));
    assert_eq!(history.absences(9, now + seconds(300)).len(), 1, "the clock was checked later");
}
