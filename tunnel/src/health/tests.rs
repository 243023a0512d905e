use proptest::prelude::*;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Bench {
    health: Health,
    now: Instant,
    /// Of the last ping.
    number: u32,
}

impl Bench {
    /// A carrier with a round trip of 40 ms that was alive for a minute.
    fn alive(watched: bool) -> Self {
        let now = Instant::now();
        let mut bench = Self { health: Health::new(watched, now), now, number: 0 };
        bench.actions();
        while bench.now < now + ms(60_000) {
            bench.answer_after(ms(40));
            bench.timeout();
        }
        bench.answer_after(ms(40));
        assert_eq!(bench.health.phase, Phase::Alive);
        bench
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions: Vec<_> = std::iter::from_fn(|| self.health.poll_action()).collect();
        for action in &actions {
            if let Action::SendPing(number) = action {
                self.number = *number;
            }
        }
        actions
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.health.handle(event, self.now);
        self.actions()
    }

    fn answer_after(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.event(Event::PingAnswered(self.number))
    }

    fn timeout(&mut self) -> Vec<Action> {
        let (at, _) = self.health.poll_timeout().unwrap();
        self.now = self.now.max(at);
        self.health.handle_timeout(self.now);
        self.actions()
    }

    /// Runs without any answer until the verdict.
    fn death(&mut self) -> (Duration, Verdict) {
        let start = self.now;
        loop {
            for action in self.timeout() {
                if let Action::Verdict(verdict) = action {
                    return (self.now - start, verdict);
                }
            }
            assert!(self.now < start + ms(60_000), "{:?}", self.health.phase);
        }
    }
}

fn pings(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::SendPing(_))).count()
}

#[test]
fn the_numbers_fit_each_other() {
    let quick = QUICK_INTERVAL * (UNANSWERED_TO_DIE as u32 - 2);
    assert!(WATCHED_INTERVAL + LONGEST_TRUST + quick < WATCHED_LIMIT);
    let slow = SLOW_QUICK_INTERVAL * (UNANSWERED_TO_DIE as u32 - 2);
    assert!(UNWATCHED_INTERVAL + LONGEST_TRUST + slow + LONGEST_OVERDUE < UNWATCHED_LIMIT);
    assert!(SHORTEST_TRUST < SHORTEST_OVERDUE && SHORTEST_SILENCE > WATCHED_INTERVAL);
    assert!(QUICK_INTERVAL < SHORTEST_TRUST && SHORTEST_SILENCE < WATCHED_LIMIT);
}

#[test]
fn the_first_answer_is_the_verdict_alive() {
    let now = Instant::now();
    let mut bench = Bench { health: Health::new(true, now), now, number: 0 };
    assert_eq!(bench.actions(), [Action::SendPing(0)]);
    let actions = bench.answer_after(ms(40));
    assert_eq!(actions, [Action::Verdict(Verdict::Alive), Action::GradeChanged(Grade::Good)]);
    assert_eq!(bench.health.state(bench.now).rtt, Some(ms(40)));
}

#[test]
fn hearing_is_not_living() {
    let now = Instant::now();
    let mut bench = Bench { health: Health::new(true, now), now, number: 0 };
    bench.actions();
    while bench.now < now + START_GRACE {
        bench.event(Event::PingReceived);
        let actions = bench.event(Event::DataReceived);
        assert!(!actions.contains(&Action::Verdict(Verdict::Alive)));
        bench.now += ms(40);
    }
    let Verdict::Dead { reason, silent_for } = bench.death().1 else { panic!() };
    assert_eq!(reason, DeadReason::NeverAnswered);
    assert!(silent_for >= START_GRACE && silent_for <= START_GRACE + ms(500), "{silent_for:?}");
}

#[test]
fn doubt_pings_quickly_and_an_answer_ends_it() {
    let mut bench = Bench::alive(true);
    bench.timeout();
    bench.timeout();
    assert_eq!(bench.health.phase, Phase::Doubted);
    let before = bench.now;
    let sent: usize = (0..5).map(|_| pings(&bench.timeout())).sum();
    assert_eq!((sent, bench.now - before), (5, QUICK_INTERVAL * 5));
    assert!(bench.answer_after(ms(40)).iter().all(|action| !matches!(action, Action::Verdict(_))));
    assert_eq!(bench.health.poll_timeout().unwrap().0, bench.now - ms(40) + WATCHED_INTERVAL);
}

#[test]
fn death_is_final_until_an_answer() {
    let mut bench = Bench::alive(true);
    let (_, verdict) = bench.death();
    assert!(matches!(verdict, Verdict::Dead { reason: DeadReason::Silent, .. }));
    let since = bench.now;
    let sent: usize = (0..10).map(|_| pings(&bench.timeout())).sum();
    assert_eq!(sent, 10);
    assert!(bench.now - since > WATCHED_INTERVAL * 9);
    assert_eq!(bench.health.state(bench.now).grade, Some(Grade::Lost));
    let actions = bench.answer_after(ms(40));
    assert_eq!(actions[0], Action::Verdict(Verdict::Alive));
    assert!(matches!(actions[1], Action::GradeChanged(grade) if grade < Grade::Lost));
}

#[test]
fn a_network_change_asks_at_once_and_old_answers_prove_nothing() {
    let mut bench = Bench::alive(true);
    bench.timeout();
    let old = bench.number;
    bench.now += QUICK_INTERVAL;
    assert_eq!(pings(&bench.event(Event::NetworkChanged)), 1);
    bench.event(Event::PingAnswered(old));
    assert_eq!(bench.health.phase, Phase::Doubted);
    let (after, _) = bench.death();
    assert!(after <= SHORTEST_SILENCE + ms(100), "{after:?}");

    let mut bench = Bench::alive(true);
    bench.now += ms(500);
    bench.event(Event::NetworkChanged);
    bench.answer_after(ms(40));
    assert_eq!(bench.health.phase, Phase::Alive);
}

#[test]
fn data_due_asks_at_once_but_not_twice() {
    let mut bench = Bench::alive(true);
    bench.now += ms(300);
    assert_eq!(pings(&bench.event(Event::DataDue)), 1);
    bench.now += ms(20);
    assert_eq!(pings(&bench.event(Event::DataDue)), 0);
    bench.answer_after(ms(20));
    // The path lives, the data is still due: keep a closer eye.
    assert_eq!(bench.health.poll_timeout().unwrap().0, bench.now - ms(40) + BUSY_INTERVAL);
    bench.event(Event::DataReceived);
    assert_eq!(bench.health.poll_timeout().unwrap().0, bench.now - ms(40) + WATCHED_INTERVAL);
}

#[test]
fn attention_asks_at_once() {
    let mut bench = Bench::alive(false);
    bench.now += ms(10_000);
    assert_eq!(pings(&bench.event(Event::Attention { watched: true })), 1);
    let (after, _) = bench.death();
    assert!(after <= SHORTEST_SILENCE, "{after:?}");
}

#[test]
fn time_in_which_the_process_slept_is_no_silence() {
    let mut bench = Bench::alive(true);
    while bench.health.unanswered.len() < UNANSWERED_TO_DIE {
        bench.timeout();
    }
    // Asleep for an hour, with an answer in the socket's buffer.
    bench.now += ms(3_600_000);
    let actions = bench.event(Event::PingReceived);
    assert!(actions.iter().all(|action| !matches!(action, Action::Verdict(_))), "{actions:?}");
    bench.event(Event::PingAnswered(bench.number));
    assert_eq!(bench.health.phase, Phase::Alive);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0_u32..400).prop_map(Event::PingAnswered),
        1 => Just(Event::PingReceived),
        1 => Just(Event::DataReceived),
        1 => Just(Event::DataDue),
        1 => Just(Event::NetworkChanged),
        1 => any::<bool>().prop_map(|watched| Event::Attention { watched }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Event(Event),
    Answer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0_u64..1_500).prop_map(Step::Wait), event().prop_map(Step::Event), Just(Step::Answer),]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn bounded_and_never_stuck(
        watched: bool,
        steps in proptest::collection::vec(step(), 0..150),
        then_watched: bool,
    ) {
        let now = Instant::now();
        let mut bench = Bench { health: Health::new(watched, now), now, number: 0 };
        let mut sent = vec![now; pings(&bench.actions())];
        for step in steps {
            let end = match step {
                Step::Wait(time) => bench.now + ms(time),
                _ => bench.now,
            };
            while bench.health.poll_timeout().unwrap().0 <= end {
                let count = pings(&bench.timeout());
                sent.extend(vec![bench.now; count]);
            }
            bench.now = end;
            let actions = match step {
                Step::Wait(_) => Vec::new(),
                Step::Event(event) => bench.event(event),
                Step::Answer => bench.answer_after(Duration::ZERO),
            };
            sent.extend(vec![bench.now; pings(&actions)]);
            prop_assert!(bench.health.poll_timeout().unwrap().0 > bench.now);
            prop_assert!((0.0..=1.0).contains(&bench.health.state(bench.now).loss));
        }
        for pair in sent.windows(2) {
            prop_assert!(pair[1] - pair[0] >= QUICK_INTERVAL, "pings {:?} apart", pair[1] - pair[0]);
        }
        // Then silence, whatever came before.
        bench.event(Event::Attention { watched: then_watched });
        if bench.health.phase != Phase::Dead {
            let (after, _) = bench.death();
            let limit = if then_watched { WATCHED_LIMIT } else { UNWATCHED_LIMIT };
            // Answers up to seconds late make for a patient monitor.
            let patience = bench.health.answer_overdue() + LONGEST_TRUST;
            prop_assert!(after <= limit + patience, "{after:?}");
        }
    }
}
