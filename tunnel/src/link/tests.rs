use super::*;
use crate::backoff::{FIRST_RETRY_WITHIN, STABLE_AFTER};

/// A link under a clock of its own.
struct Bench {
    link: Link,
    now: Instant,
    /// Of the last heartbeat.
    sequence: u32,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let mut bench = Self { link: Link::new(42, now), now, sequence: 0 };
        bench.event(Event::Start);
        bench
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.link.handle(event, self.now);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        let all = std::iter::from_fn(|| self.link.poll_action());
        let actions: Vec<_> = all.filter(|action| !matches!(action, Action::Changed(_))).collect();
        for action in &actions {
            if let Action::SendHeartbeat { sequence, .. } = action {
                self.sequence = *sequence;
            }
        }
        actions
    }

    fn socket(&mut self, event: SocketEvent) -> Vec<Action> {
        let socket = self.link.socket.expect("a socket");
        self.event(Event::Socket(socket, event))
    }

    /// Goes to the next timeout, which must not be `most` away or more.
    fn timeout(&mut self, most: Duration) -> (TimeoutReason, Duration, Vec<Action>) {
        let (at, reason) = self.link.poll_timeout().expect("a deadline");
        let waited = at.saturating_duration_since(self.now);
        assert!(waited <= most, "{reason:?} in {waited:?}, expected within {most:?}");
        self.now += waited;
        self.link.handle_timeout(self.now);
        (reason, waited, self.actions())
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some((at, _)) = self.link.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.link.handle_timeout(self.now);
            actions.extend(self.actions());
        }
        self.now = end;
        actions
    }

    /// Lets the present attempt succeed, with `rtt` measured.
    fn online(&mut self, rtt: Duration) {
        if matches!(self.link.state, State::Offline { .. }) {
            self.timeout(Duration::MAX);
        }
        self.socket(SocketEvent::Opened);
        self.socket(SocketEvent::Welcomed { heartbeat_interval: HEARTBEAT_INTERVAL });
        self.now += rtt;
        self.answer();
        assert!(self.link.is_online());
    }

    fn answer(&mut self) {
        let sequence = self.sequence;
        self.socket(SocketEvent::HeartbeatAnswered { sequence, address_changed: false });
    }

    fn reason(&self) -> &'static str {
        self.link.reason.name()
    }
}

fn heartbeats(actions: &[Action]) -> Vec<Cause> {
    let cause = |action: &Action| match action {
        Action::SendHeartbeat { cause, .. } => Some(*cause),
        _ => None,
    };
    actions.iter().filter_map(cause).collect()
}

fn closed(why: &str) -> SocketEvent {
    SocketEvent::Closed(why.to_owned())
}

#[test]
fn the_deadlines_fit_each_other() {
    let ten = Duration::from_secs(10);
    assert!(CONNECT_DEADLINE.max(LONGEST_WAIT) + Duration::from_secs(2) <= ten);
    assert!(CONNECT_EVERY < ten && CONNECT_DEBOUNCE < BACKOFF_BASE * 2);
    assert!(STABLE_AFTER > LONGEST_WAIT);
    assert!(LONGEST_PROBE < ANSWER_DEADLINE && ANSWER_DEADLINE < MIN_HEARTBEAT_INTERVAL);
    assert!(WATCHED_HEARTBEAT_INTERVAL + ANSWER_DEADLINE <= Duration::from_secs(30));
    assert_eq!(MAX_CONNECTS_PER_MINUTE, CONNECT_BURST + 60 / CONNECT_EVERY.as_secs() as u32);
    assert_eq!(MAX_HEARTBEATS_PER_MINUTE, HEARTBEAT_BURST + 60 / HEARTBEAT_EVERY.as_secs() as u32);
}

#[test]
fn connects_authenticates_and_measures_the_round_trip() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    assert_eq!(link.poll_timeout(), None);
    link.handle(Event::Start, now);
    let names: Vec<_> = std::iter::from_fn(|| link.poll_action()).collect();
    let socket = SocketId(0);
    assert_eq!(names[1], Action::Connect(socket));
    assert!(matches!(names[2], Action::Changed(State::Connecting { attempt: 1, .. })));
    assert_eq!(link.poll_timeout(), Some((now + CONNECT_DEADLINE, TimeoutReason::Connect)));
    link.handle(Event::Socket(socket, SocketEvent::Opened), now);
    assert_eq!(link.poll_timeout(), Some((now + AUTHENTICATE_DEADLINE, TimeoutReason::Authenticate)));
    link.handle(Event::Socket(socket, SocketEvent::Welcomed { heartbeat_interval: ms(60_000) }), now);
    let last = std::iter::from_fn(|| link.poll_action()).last();
    assert_eq!(last, Some(Action::SendHeartbeat { socket, sequence: 1, cause: Cause::Connected }));
    let answered = SocketEvent::HeartbeatAnswered { sequence: 1, address_changed: false };
    link.handle(Event::Socket(socket, answered), now + ms(80));
    let state = link.state();
    assert_eq!((state.rtt, state.last_answered), (Some(ms(80)), Some(now + ms(80))));
    let (due, reason) = link.poll_timeout().unwrap();
    assert!(due <= now + HEARTBEAT_INTERVAL && due >= now + HEARTBEAT_INTERVAL * 9 / 10);
    assert_eq!(reason, TimeoutReason::HeartbeatDue);
}

#[test]
fn the_brokers_interval_is_bounded() {
    for (asked, least, most) in [(0, 9, 10), (100, 90, 100), (86_400, 270, 300)] {
        let mut bench = Bench::new();
        bench.socket(SocketEvent::Opened);
        bench.socket(SocketEvent::Welcomed { heartbeat_interval: Duration::from_secs(asked) });
        bench.answer();
        let waited = bench.timeout(Duration::from_secs(300)).1;
        assert!((least..=most).contains(&waited.as_secs()), "asked {asked} s, got {waited:?}");
    }
}

#[test]
fn a_stable_link_that_breaks_is_tried_again_at_once() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    bench.wait(STABLE_AFTER);
    bench.socket(closed("bye"));
    let (reason, _, actions) = bench.timeout(FIRST_RETRY_WITHIN);
    assert_eq!(reason, TimeoutReason::Retry);
    assert!(matches!(actions[..], [Action::Connect(_)]));
    assert_eq!((bench.link.state().attempt, bench.reason()), (1, "closed"));
}

#[test]
fn a_flapping_broker_is_not_hammered() {
    let mut bench = Bench::new();
    let begin = bench.now;
    let mut connects = 1;
    while bench.now < begin + Duration::from_secs(60) {
        bench.online(ms(1));
        bench.socket(closed("overloaded"));
        bench.timeout(LONGEST_WAIT);
        connects += 1;
    }
    // About one in 4 s once the backoff has grown, instead of hundreds.
    assert!((12..30).contains(&connects), "{connects} connects");
    assert_eq!(bench.link.state().attempt, connects);
}

#[test]
fn an_unanswered_heartbeat_ends_the_link() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    let sent = bench.timeout(HEARTBEAT_INTERVAL).2;
    assert_eq!(heartbeats(&sent), [Cause::Regular]);
    bench.socket(SocketEvent::Received);
    let (reason, waited, actions) = bench.timeout(ANSWER_DEADLINE);
    assert_eq!((reason, waited), (TimeoutReason::HeartbeatUnanswered, ANSWER_DEADLINE));
    assert!(matches!(&actions[..], [Action::Close { reason: Reason::HeartbeatUnanswered(_), .. }]));
    bench.timeout(FIRST_RETRY_WITHIN);
    assert_eq!(bench.link.state().state.name(), "connecting");
}

#[test]
fn a_network_change_is_probed_at_once_with_a_short_deadline() {
    for (rtt, deadline) in [(ms(5), SHORTEST_PROBE), (ms(300), ms(900)), (ms(5_000), LONGEST_PROBE)] {
        let mut bench = Bench::new();
        bench.online(rtt);
        bench.now += ms(1_000);
        let sent = bench.event(Event::NetworkChanged(NetworkChange::AddressChanged));
        assert_eq!(heartbeats(&sent), [Cause::NetworkChanged], "round trip {rtt:?}");
        assert_eq!(bench.timeout(LONGEST_PROBE).1, deadline, "round trip {rtt:?}");
        assert_eq!(bench.reason(), "heartbeat_unanswered");
        bench.timeout(FIRST_RETRY_WITHIN);
    }
}

#[test]
fn a_network_change_that_the_link_survives_keeps_it() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    bench.now += ms(1_000);
    bench.event(Event::NetworkChanged(NetworkChange::Down));
    bench.event(Event::NetworkChanged(NetworkChange::Up));
    bench.now += ms(40);
    bench.answer();
    assert!(bench.wait(ms(40_000)).is_empty() && bench.link.is_online());
}

#[test]
fn a_burst_of_changes_is_two_heartbeats_and_the_last_is_not_lost() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    bench.now += ms(1_000);
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.extend(bench.event(Event::AddressChanged));
        bench.now += ms(10);
    }
    sent.extend(bench.timeout(CHANGE_DEBOUNCE).2);
    assert_eq!(heartbeats(&sent), [Cause::AddressChanged; 2]);
}

#[test]
fn the_broker_saw_another_address() {
    let mut bench = Bench::new();
    bench.socket(SocketEvent::Opened);
    bench.socket(SocketEvent::Welcomed { heartbeat_interval: HEARTBEAT_INTERVAL });
    bench.now += ms(300);
    let sent = bench.socket(SocketEvent::HeartbeatAnswered { sequence: 1, address_changed: true });
    assert_eq!(heartbeats(&sent), [Cause::AddressChanged]);
}

#[test]
fn when_the_network_is_back_nothing_sleeps_on() {
    let mut bench = Bench::new();
    bench.event(Event::NetworkChanged(NetworkChange::Down));
    // Until it would sleep long.
    while bench.link.state().next_attempt < Some(bench.now + ms(5_000)) {
        if matches!(bench.link.state, State::Offline { .. }) {
            bench.timeout(LONGEST_WAIT);
        }
        bench.socket(SocketEvent::Failed("network is unreachable".to_owned()));
    }
    assert!(!bench.link.state().network_up);
    bench.now += ms(2_000);
    let actions = bench.event(Event::NetworkChanged(NetworkChange::Up));
    assert!(matches!(actions[..], [Action::Connect(_)]), "{actions:?}");
    assert_eq!(bench.link.backoff.attempts(), 0);
}

#[test]
fn attempts_without_a_network_leave_some_for_when_it_is_back() {
    let mut bench = Bench::new();
    // Four outages in a row, each long enough for all attempts that are to be had.
    for outage in 0..4 {
        bench.event(Event::NetworkChanged(NetworkChange::Down));
        let end = bench.now + ms(4_000);
        loop {
            if bench.link.socket.is_some() {
                bench.socket(SocketEvent::Failed("network is unreachable".to_owned()));
            }
            match bench.link.poll_timeout() {
                Some((at, _)) if at < end => drop(bench.timeout(LONGEST_WAIT)),
                _ => break,
            }
        }
        bench.now = end;
        let mut actions = bench.event(Event::NetworkChanged(NetworkChange::Up));
        if actions.is_empty() {
            let (_, waited, due) = bench.timeout(CONNECT_DEBOUNCE);
            assert!(waited <= CONNECT_DEBOUNCE, "outage {outage}: {waited:?}");
            actions = due;
        }
        assert!(matches!(actions[..], [Action::Connect(_)]), "outage {outage}: {actions:?}");
    }
}

#[test]
fn an_attempt_on_the_old_network_is_begun_anew() {
    let mut bench = Bench::new();
    bench.now += ms(3_000);
    let actions = bench.event(Event::NetworkChanged(NetworkChange::Up));
    let reason = Reason::NetworkChanged;
    assert_eq!(actions, [Action::Close { socket: SocketId(0), reason }, Action::Connect(SocketId(1))]);
    // The fresh one gets twice the patience, and so on: a slow handshake
    // succeeds even in a flood.
    let mut longest = Duration::ZERO;
    let mut began = bench.now;
    for _ in 0..300 {
        bench.now += ms(100);
        let actions = bench.event(Event::NetworkChanged(NetworkChange::AddressChanged));
        if actions.iter().any(|action| matches!(action, Action::Close { .. })) {
            longest = longest.max(bench.now - began);
        }
        if actions.iter().any(|action| matches!(action, Action::Connect(_))) {
            began = bench.now;
        }
    }
    assert!(longest >= ms(4_000), "{longest:?}");
}

#[test]
fn a_refusal_is_told_and_tried_again_slowly() {
    let mut bench = Bench::new();
    bench.socket(SocketEvent::Opened);
    let explanation = "not enrolled".repeat(100);
    bench.socket(SocketEvent::Refused { permanent: true, explanation });
    let Reason::Refused(told) = bench.link.state().reason else { panic!() };
    assert_eq!(told.chars().count(), MAX_EXPLANATION);
    // The network has nothing to do with it, the operator does.
    bench.event(Event::NetworkChanged(NetworkChange::Up));
    let next = bench.link.state().next_attempt.unwrap() - bench.now;
    assert!(next >= REFUSED_RETRY && next <= REFUSED_RETRY + REFUSED_SPREAD);
    bench.now += ms(250);
    let actions = bench.event(Event::Start);
    assert!(matches!(actions[..], [Action::Connect(_)]));
}

#[test]
fn the_broker_says_when_to_come_back() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    let actions = bench.socket(SocketEvent::RetryAfter(ms(5_000)));
    assert!(matches!(&actions[..], [Action::Close { reason: Reason::AskedToWait(_), .. }]));
    bench.event(Event::NetworkChanged(NetworkChange::Up));
    let waited = bench.timeout(ms(10_000)).1;
    assert!(waited >= ms(5_000));
}

#[test]
fn attention_probes_and_quickens_the_heartbeat() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    bench.now += ms(5_000);
    assert_eq!(heartbeats(&bench.event(Event::Attention { watched: true })), [Cause::Attention]);
    bench.now += ms(40);
    bench.answer();
    assert_eq!(heartbeats(&bench.timeout(WATCHED_HEARTBEAT_INTERVAL).2), [Cause::Regular]);
    bench.now += ms(40);
    bench.answer();
    assert!(bench.event(Event::Attention { watched: false }).is_empty());
    bench.timeout(WATCHED_HEARTBEAT_INTERVAL);
    bench.now += ms(40);
    bench.answer();
    assert!(bench.wait(ms(50_000)).is_empty());
}

#[test]
fn a_lost_probe_asks_the_link_and_an_answered_one_wakes_it() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    bench.now += ms(5_000);
    assert_eq!(heartbeats(&bench.event(Event::ProbeLost)), [Cause::ProbeLost]);
    assert_eq!(bench.timeout(LONGEST_PROBE).1, LONGEST_PROBE);
    bench.timeout(FIRST_RETRY_WITHIN);
    for _ in 0..5 {
        bench.wait(CONNECT_DEADLINE);
    }
    bench.socket(SocketEvent::Failed("refused".to_owned()));
    bench.event(Event::ProbeAnswered);
    bench.timeout(CONNECT_DEBOUNCE);
    // Where UDP is blocked every probe is lost: that costs one heartbeat.
    bench.online(ms(40));
    bench.now += ms(2_000);
    assert_eq!(heartbeats(&bench.event(Event::ProbeLost)).len(), 1);
    bench.now += ms(40);
    bench.answer();
    bench.now += ms(20_000);
    assert!(bench.event(Event::ProbeLost).is_empty());
}

#[test]
fn an_old_sockets_last_words_change_nothing() {
    let mut bench = Bench::new();
    let old = bench.link.socket.unwrap();
    bench.timeout(CONNECT_DEADLINE);
    bench.online(ms(40));
    let before = bench.link.state();
    for event in [closed("late"), SocketEvent::RetryAfter(ms(1)), SocketEvent::Failed(String::new())] {
        assert!(bench.event(Event::Socket(old, event)).is_empty());
    }
    assert_eq!(bench.link.state(), before);
}

#[test]
fn stopping_says_goodbye_and_is_final_until_started() {
    let mut bench = Bench::new();
    bench.online(ms(40));
    let actions = bench.event(Event::Stop);
    assert!(matches!(&actions[..], [Action::Goodbye(_), Action::Close { reason: Reason::Stopped, .. }]));
    bench.event(Event::NetworkChanged(NetworkChange::Up));
    assert_eq!((bench.link.poll_timeout(), bench.link.state().state), (None, State::Stopped));
    bench.event(Event::Start);
    bench.timeout(CONNECT_DEBOUNCE);
    assert_eq!(bench.link.state().state.name(), "connecting");
}

#[test]
fn a_path_that_is_back_gets_a_new_connection_at_once() {
    let mut bench = Bench::new();
    bench.online(ms(80));
    // TCP's own timers have grown with the gap: what waits there is not waited for.
    bench.now += Duration::from_secs(2);
    bench.event(Event::ProbeLost);
    bench.wait(ms(1_500));
    assert!(bench.link.is_online());
    let actions = bench.event(Event::PathBack);
    assert!(matches!(actions[..], [Action::Close { .. }, Action::Connect(_)]), "{actions:?}");
    // A connection attempt of the new path is left alone, one of the old is not.
    assert_eq!(bench.event(Event::PathBack), []);
    assert_eq!(bench.wait(ON_NEW_PATH + CONNECT_DEBOUNCE), []);
    bench.event(Event::PathBack);
    // This one began when the path was still gone, and TCP would wait a second.
    // The patience with slow handshakes has doubled once.
    bench.wait(ON_NEW_PATH);
    bench.event(Event::PathBack);
    let actions = bench.wait(CONNECT_DEBOUNCE * 2);
    assert!(matches!(actions[..], [Action::Close { .. }, Action::Connect(_)]), "{actions:?}");
}

#[test]
fn a_connection_that_answers_outlives_a_lost_path_to_its_stun_port() {
    let mut bench = Bench::new();
    bench.online(ms(80));
    bench.now += Duration::from_secs(3);
    bench.event(Event::ProbeLost);
    bench.answer();
    bench.event(Event::PathBack);
    assert!(bench.link.is_online());
}

fn refused(permanent: bool) -> SocketEvent {
    SocketEvent::Refused { permanent, explanation: "no".to_owned() }
}

#[test]
fn with_several_brokers_the_next_is_tried_at_once_and_each_once() {
    let ends: [fn() -> SocketEvent; 4] = [
        || SocketEvent::Closed("gone".to_owned()),
        || SocketEvent::Failed("refused".to_owned()),
        || SocketEvent::RetryAfter(Duration::from_secs(3)),
        || refused(false),
    ];
    for end in ends {
        let now = Instant::now();
        let mut bench = Bench { link: Link::new(42, now).among(3), now, sequence: 0 };
        bench.event(Event::Start);
        bench.socket(SocketEvent::Opened);
        bench.socket(SocketEvent::Welcomed { heartbeat_interval: HEARTBEAT_INTERVAL });
        assert_eq!(bench.link.broker(), 0);
        for expected in [1, 2] {
            bench.socket(end());
            let (reason, _, actions) = bench.timeout(CONNECT_DEBOUNCE + FIRST_RETRY_WITHIN);
            assert!(reason == TimeoutReason::Retry && matches!(actions[..], [Action::Connect(_)]));
            assert_eq!(bench.link.broker(), expected);
        }
        // All were tried: now it waits as with one.
        let round = bench.now;
        bench.socket(end());
        assert_eq!(bench.link.broker(), 0);
        let next = bench.link.state().next_attempt.expect("it is offline");
        let told = matches!(end(), SocketEvent::RetryAfter(_));
        assert!(!told || next >= round + Duration::from_secs(3));
    }
}

#[test]
fn what_a_person_has_to_change_is_not_asked_of_all_brokers_at_once() {
    let now = Instant::now();
    let mut bench = Bench { link: Link::new(42, now).among(3), now, sequence: 0 };
    bench.event(Event::Start);
    bench.socket(SocketEvent::Opened);
    bench.socket(refused(true));
    let next = bench.link.state().next_attempt.expect("it is offline");
    assert!(next >= now + REFUSED_RETRY);
    assert_eq!(bench.link.broker(), 1, "but then another is asked");
}

#[test]
fn a_change_of_our_network_is_no_reason_to_leave_a_broker() {
    let now = Instant::now();
    let mut bench = Bench { link: Link::new(42, now).among(2), now, sequence: 0 };
    bench.event(Event::Start);
    bench.wait(ms(300));
    bench.event(Event::NetworkChanged(NetworkChange::AddressChanged));
    bench.wait(ms(600));
    assert_eq!(bench.link.broker(), 0);
}
