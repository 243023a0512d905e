//! The monitor on simulated paths: it must neither kill a lossy radio nor be
//! slow to see a dead one.

use std::collections::BTreeMap;

use super::*;
use crate::backoff::Jitter;

/// What carries packets between the two ends.
#[derive(Clone, Copy)]
struct Path {
    /// Share lost in each direction, in percent.
    loss: u64,
    /// One-way delay and how much it varies.
    delay: Duration,
    varies: Duration,
    /// A queue that swells: extra round trip per second, from second 5 on,
    /// up to a bound.
    swelling: Duration,
    swollen: Duration,
}

const LTE: Path =
    Path { loss: 0, delay: ms(30), varies: ms(20), swelling: Duration::ZERO, swollen: Duration::ZERO };

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// One end's monitor, and an other end that answers and may talk.
struct Lab {
    health: Health,
    rng: Jitter,
    path: Path,
    start: Instant,
    now: Instant,
    /// Packets on their way to us.
    arriving: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    /// Whether each direction works.
    outward: bool,
    homeward: bool,
    /// How often the other side sends something of its own.
    talks: Option<Duration>,
    /// We send data all the time, and notice missing acknowledgements.
    sends: bool,
    pings: u32,
    deaths: Vec<Instant>,
}

impl Lab {
    fn new(seed: u64, path: Path, watched: bool) -> Self {
        let now = Instant::now();
        Self {
            health: Health::new(watched, now),
            rng: Jitter::new(seed),
            path,
            start: now,
            now,
            arriving: BTreeMap::new(),
            serial: 0,
            outward: true,
            homeward: true,
            talks: None,
            sends: false,
            pings: 0,
            deaths: Vec::new(),
        }
    }

    fn survives(&mut self) -> bool {
        self.rng.next_u64() % 100 >= self.path.loss
    }

    /// Lets an event reach us after `trips` one-way delays.
    fn arrive(&mut self, event: Event, trips: u32) {
        let swelling_for = (self.now - self.start).saturating_sub(ms(5_000)).as_secs_f64();
        let queue = self.path.swelling.mul_f64(swelling_for).min(self.path.swollen);
        let delay = (0..trips).map(|_| self.path.delay + self.rng.up_to(self.path.varies)).sum::<Duration>();
        self.serial += 1;
        self.arriving.insert((self.now + delay + queue, self.serial), event);
    }

    fn actions(&mut self) {
        while let Some(action) = self.health.poll_action() {
            match action {
                Action::SendPing(number) => {
                    self.pings += 1;
                    let there = self.outward && self.survives();
                    if there && self.homeward && self.survives() {
                        self.arrive(Event::PingAnswered(number), 2);
                    }
                }
                Action::Verdict(Verdict::Dead { .. }) => self.deaths.push(self.now),
                Action::Verdict(Verdict::Alive) | Action::GradeChanged(_) => {}
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut talk = self.talks.map(|every| self.now + every);
        let mut data = self.sends.then_some(self.now);
        self.actions();
        loop {
            let (timeout, _) = self.health.poll_timeout().expect("a deadline");
            let packet = self.arriving.first_key_value().map(|((at, _), _)| *at);
            let next = [Some(timeout), packet, talk, data].into_iter().flatten().min();
            let next = next.filter(|next| *next <= end).unwrap_or(end);
            self.now = self.now.max(next);
            if next == end {
                break;
            }
            if packet == Some(next) {
                let (_, event) = self.arriving.pop_first().expect("just seen");
                self.health.handle(event, self.now);
            } else if talk == Some(next) {
                talk = self.talks.map(|every| next + every);
                if self.homeward && self.survives() {
                    self.arrive(Event::DataReceived, 1);
                }
            } else if data == Some(next) {
                // The mux repeats its word every 250 ms of silence.
                data = Some(next + ms(250));
                let quiet = self.health.last_heard.is_none_or(|heard| next > heard + ms(250));
                if quiet {
                    self.health.handle(Event::DataDue, self.now);
                }
            } else {
                self.health.handle_timeout(self.now);
            }
            self.actions();
        }
    }
}

/// Times from a loss to the verdict, sorted; the loss comes at a random
/// moment of a path that worked.
fn detection(runs: u64, path: Path, watched: bool, prepare: impl Fn(&mut Lab)) -> Vec<Duration> {
    let one = |seed| {
        let mut lab = Lab::new(seed, path, watched);
        prepare(&mut lab);
        let before = ms(20_000) + lab.rng.up_to(ms(20_000));
        lab.run(before);
        assert!(lab.deaths.is_empty(), "seed {seed}: died before the loss");
        let lost_at = lab.now;
        (lab.outward, lab.homeward) = (false, lab.talks.is_some());
        if !lab.homeward {
            lab.arriving.clear();
        }
        lab.run(ms(60_000));
        let died = lab.deaths.first().unwrap_or_else(|| panic!("seed {seed}: never noticed"));
        *died - lost_at
    };
    let mut times: Vec<_> = (0..runs).map(one).collect();
    times.sort();
    times
}

fn percentiles(times: &[Duration]) -> (Duration, Duration, Duration) {
    (times[times.len() / 2], times[times.len() * 95 / 100], times[times.len() - 1])
}

#[test]
fn thirty_percent_loss_kills_less_than_one_minute_in_a_hundred() {
    for (name, delay, varies) in [("lan", 1, 1), ("lte", 30, 20), ("far", 120, 60)] {
        let path = Path { loss: 30, delay: ms(delay), varies: ms(varies), ..LTE };
        let minutes = 1_000;
        let dead = |seed: &u64| {
            let mut lab = Lab::new(*seed, path, true);
            lab.run(ms(60_000));
            !lab.deaths.is_empty()
        };
        let deaths = (0..minutes).filter(dead).count();
        println!("{name}: {deaths} of {minutes} minutes with 30 % loss each way were fatal");
        assert!(deaths * 100 < minutes as usize, "{name}: {deaths} of {minutes}");
    }
}

#[test]
fn a_total_loss_shows_within_three_seconds() {
    for (name, path) in [
        ("lan", Path { delay: ms(1), varies: ms(1), ..LTE }),
        ("lte", LTE),
        ("lossy lte", Path { loss: 5, ..LTE }),
        ("far", Path { delay: ms(120), varies: ms(60), ..LTE }),
        ("satellite", Path { delay: ms(300), varies: ms(20), ..LTE }),
    ] {
        let (p50, p95, worst) = percentiles(&detection(500, path, true, |_| {}));
        println!("{name}, idle: {p50:.2?} / {p95:.2?} / {worst:.2?}");
        assert!(p50 <= ms(if name == "satellite" { 2_000 } else { 1_500 }), "{name}: median {p50:?}");
        assert!(worst <= WATCHED_LIMIT, "{name}: {worst:?}");
    }
}

#[test]
fn silence_where_data_was_due_shows_sooner() {
    let (p50, p95, worst) = percentiles(&detection(500, LTE, true, |lab| lab.sends = true));
    println!("lte, data due: {p50:.2?} / {p95:.2?} / {worst:.2?}");
    assert!(p50 <= ms(1_250) && worst <= ms(1_700), "{p50:?} {worst:?}");
}

#[test]
fn a_one_way_loss_shows_within_three_seconds_though_data_comes() {
    let times = detection(200, LTE, true, |lab| lab.talks = Some(ms(100)));
    let (p50, p95, worst) = percentiles(&times);
    println!("lte, outward only: {p50:.2?} / {p95:.2?} / {worst:.2?}");
    assert!(worst <= WATCHED_LIMIT + ms(100), "{worst:?}");
}

#[test]
fn unwatched_a_total_loss_shows_within_thirty_seconds() {
    let (p50, p95, worst) = percentiles(&detection(500, LTE, false, |_| {}));
    println!("lte, unwatched: {p50:.2?} / {p95:.2?} / {worst:.2?}");
    assert!(worst <= UNWATCHED_LIMIT, "{worst:?}");
    assert!(p50 <= ms(16_000), "{p50:?}");
}

#[test]
fn a_swelling_queue_is_not_death() {
    // Downloads through a modem with deep buffers: 40 ms become 2.5 s within
    // three seconds, while data comes all the time.
    for seed in 0..100 {
        let path = Path { swelling: ms(800), swollen: ms(2_500), ..LTE };
        let mut lab = Lab::new(seed, path, true);
        lab.talks = Some(ms(20));
        lab.run(ms(60_000));
        assert!(lab.deaths.is_empty(), "seed {seed}: dead after {:?}", lab.deaths[0] - lab.start);
        assert_eq!(lab.health.state(lab.now).grade, Some(Grade::Poor), "seed {seed}");
    }
}

#[test]
fn a_gap_of_the_radio_is_not_death() {
    for seed in 0..500 {
        let mut lab = Lab::new(seed, LTE, true);
        let before = ms(10_000) + lab.rng.up_to(ms(5_000));
        lab.run(before);
        (lab.outward, lab.homeward) = (false, false);
        lab.run(ms(700));
        (lab.outward, lab.homeward) = (true, true);
        lab.run(ms(5_000));
        assert!(lab.deaths.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_healthy_carrier_costs_one_ping_per_interval() {
    let mut lab = Lab::new(7, LTE, true);
    lab.run(ms(600_000));
    assert!((600..640).contains(&lab.pings), "{} pings in 600 s", lab.pings);
    assert_eq!(lab.health.state(lab.now).grade, Some(Grade::Good));
    let mut lab = Lab::new(7, LTE, false);
    lab.run(ms(86_400_000));
    assert!((4_320..4_500).contains(&lab.pings), "{} pings in a day", lab.pings);
}
