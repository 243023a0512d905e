//! The link's promises under whatever sequence of events.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    /// To the next deadline, if it is near.
    Timeout,
    Event(Event),
    /// From the present socket, or from one of the past.
    Socket(SocketEvent, bool),
    /// Answers the newest heartbeat, and thereby all of them.
    Answer,
}

fn socket_event() -> impl Strategy<Value = SocketEvent> {
    prop_oneof![
        Just(SocketEvent::Opened),
        Just(SocketEvent::Failed("no route".to_owned())),
        Just(SocketEvent::Closed("reset".to_owned())),
        (0_u64..1_000).prop_map(|s| SocketEvent::Welcomed { heartbeat_interval: Duration::from_secs(s) }),
        any::<bool>()
            .prop_map(|permanent| SocketEvent::Refused { permanent, explanation: "because".to_owned() }),
        (0_u64..1_000_000).prop_map(|told| SocketEvent::RetryAfter(Duration::from_millis(told))),
        Just(SocketEvent::Received),
        (0_u32..50, any::<bool>()).prop_map(|(sequence, address_changed)| {
            SocketEvent::HeartbeatAnswered { sequence, address_changed }
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        Just(Event::NetworkChanged(NetworkChange::Up)),
        Just(Event::NetworkChanged(NetworkChange::Down)),
        Just(Event::NetworkChanged(NetworkChange::AddressChanged)),
        Just(Event::AddressChanged),
        any::<bool>().prop_map(|watched| Event::Attention { watched }),
        Just(Event::ProbeAnswered),
        Just(Event::ProbeLost),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..400).prop_map(Step::Wait),
        1 => (0_u64..20_000).prop_map(Step::Wait),
        4 => Just(Step::Timeout),
        4 => event().prop_map(Step::Event),
        1 => Just(Step::Event(Event::Stop)),
        5 => (socket_event(), any::<bool>()).prop_map(|(event, stale)| Step::Socket(event, stale)),
        2 => Just(Step::Answer),
    ]
}

/// Runs a link and checks what must always hold.
struct Watcher {
    link: Link,
    now: Instant,
    open: Option<SocketId>,
    sequence: u32,
    connects: Vec<Instant>,
    heartbeats: Vec<Instant>,
}

impl Watcher {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut link = Link::new(seed, now);
        link.handle(Event::Start, now);
        let mut watcher =
            Self { link, now, open: None, sequence: 0, connects: Vec::new(), heartbeats: Vec::new() };
        watcher.check();
        watcher
    }

    fn event(&mut self, event: Event) {
        if let Event::Socket(socket, SocketEvent::Failed(_) | SocketEvent::Closed(_)) = event
            && self.open == Some(socket)
        {
            self.open = None;
        }
        self.link.handle(event, self.now);
        self.check();
    }

    fn check(&mut self) {
        while let Some(action) = self.link.poll_action() {
            match action {
                Action::Connect(socket) => {
                    assert_eq!(self.open, None, "a second socket beside the first");
                    self.open = Some(socket);
                    self.connects.push(self.now);
                }
                Action::Close { socket, .. } => {
                    assert_eq!(self.open.take(), Some(socket), "closed what was not open");
                }
                Action::SendHeartbeat { socket, sequence, .. } => {
                    self.sequence = sequence;
                    assert_eq!(self.open, Some(socket));
                    self.heartbeats.push(self.now);
                }
                Action::Goodbye(socket) => assert_eq!(self.open, Some(socket)),
                Action::Changed(_) => {}
            }
        }
        let stopped = self.link.state == State::Stopped;
        match self.link.poll_timeout() {
            // What is due has been done: a shell can't spin.
            Some((at, reason)) => assert!(at > self.now, "{reason:?} stays due"),
            None => assert!(stopped, "no deadline in {:?}", self.link.state),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.link.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = at;
            self.link.handle_timeout(at);
            self.check();
        }
        self.now = end;
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.pass(Duration::from_millis(ms)),
            Step::Timeout => {
                let at = self.link.poll_timeout().map_or(self.now, |(at, _)| at);
                self.pass((at - self.now).min(Duration::from_secs(20)));
            }
            Step::Event(event) => self.event(event),
            Step::Socket(event, stale) => {
                let id = if stale { self.link.sockets.checked_sub(2).map(SocketId) } else { self.open };
                if let Some(id) = id {
                    self.event(Event::Socket(id, event));
                }
            }
            Step::Answer => {
                if let Some(open) = self.open {
                    let sequence = self.sequence;
                    let answer = SocketEvent::HeartbeatAnswered { sequence, address_changed: false };
                    self.event(Event::Socket(open, answer));
                }
            }
        }
    }
}

fn most_in_a_minute(times: &[Instant]) -> usize {
    let minute = Duration::from_secs(60);
    (0..times.len())
        .map(|i| times[i..].iter().take_while(|t| **t < times[i] + minute).count())
        .max()
        .unwrap_or(0)
}

/// How a broker fails, as the device sees it.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// Connections are refused after a round trip.
    Refusing,
    /// Packets vanish.
    Silent,
    /// Accepts, then never lets in.
    Hanging,
    /// Lets in, then closes after this many ms.
    Flapping(u64),
}

fn outage() -> impl Strategy<Value = Outage> {
    prop_oneof![
        Just(Outage::Refusing),
        Just(Outage::Silent),
        Just(Outage::Hanging),
        (0_u64..3_000).prop_map(Outage::Flapping),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn rates_deadlines_and_one_socket(seed: u64, steps in proptest::collection::vec(step(), 1..400)) {
        let mut watcher = Watcher::new(seed);
        for step in steps {
            watcher.run(step);
        }
        prop_assert!(most_in_a_minute(&watcher.connects) <= MAX_CONNECTS_PER_MINUTE as usize);
        prop_assert!(most_in_a_minute(&watcher.heartbeats) <= MAX_HEARTBEATS_PER_MINUTE as usize);
        for pair in watcher.connects.windows(2) {
            prop_assert!(pair[1] - pair[0] >= CONNECT_DEBOUNCE);
        }
    }

    #[test]
    fn a_flood_of_changes_and_instant_closes_is_bounded(seed: u64, gap in 1_u64..60) {
        let mut watcher = Watcher::new(seed);
        while watcher.now < watcher.connects[0] + Duration::from_secs(180) {
            watcher.run(Step::Event(Event::NetworkChanged(NetworkChange::Up)));
            watcher.run(Step::Socket(SocketEvent::Closed("at once".to_owned()), false));
            watcher.run(Step::Wait(gap));
        }
        let most = most_in_a_minute(&watcher.connects);
        prop_assert!((30..=MAX_CONNECTS_PER_MINUTE as usize).contains(&most), "{most}");
    }

    #[test]
    fn attempts_never_end(seed: u64, steps in proptest::collection::vec(step(), 1..100)) {
        let mut watcher = Watcher::new(seed);
        for step in steps {
            watcher.run(step);
        }
        watcher.run(Step::Event(Event::Start));
        let before = watcher.connects.len();
        // The longest silence there is: told to wait 300 s, spread by 10.
        watcher.pass(Duration::from_secs(311));
        prop_assert!(watcher.connects.len() > before || watcher.link.socket.is_some());
        let before = watcher.connects.len();
        watcher.pass(Duration::from_secs(600));
        // From then on nothing answers: one attempt in 8 s or more often.
        prop_assert!(watcher.connects.len() - before >= 70, "{}", watcher.connects.len() - before);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// The user's number: from the broker's return to online within 10 s.
    #[test]
    fn back_within_ten_seconds(
        seed: u64,
        outages in proptest::collection::vec((outage(), 1_u64..40_000), 1..6),
        rtt_ms in 1_u64..300,
    ) {
        let mut watcher = Watcher::new(seed);
        let rtt = Duration::from_millis(rtt_ms);
        for (outage, length) in outages {
            let end = watcher.now + Duration::from_millis(length);
            while watcher.now < end {
                match (outage, &watcher.link.state) {
                    (Outage::Refusing, State::Connecting { .. }) => {
                        watcher.pass(rtt);
                        watcher.run(Step::Socket(SocketEvent::Failed("refused".to_owned()), false));
                    }
                    (Outage::Hanging | Outage::Flapping(_), State::Connecting { .. }) => {
                        watcher.pass(rtt * 4);
                        watcher.run(Step::Socket(SocketEvent::Opened, false));
                    }
                    (Outage::Flapping(up), State::Authenticating { .. }) => {
                        let heartbeat_interval = HEARTBEAT_INTERVAL;
                        watcher.run(Step::Socket(SocketEvent::Welcomed { heartbeat_interval }, false));
                        watcher.pass(Duration::from_millis(up));
                        watcher.run(Step::Socket(SocketEvent::Closed("flap".to_owned()), false));
                    }
                    _ => watcher.run(Step::Timeout),
                }
            }
        }
        // It is back. Attempts begun before that go nowhere.
        let (back, begun) = (watcher.now, watcher.connects.len());
        let fresh = loop {
            if let State::Online = watcher.link.state {
                break watcher.now;
            }
            if watcher.connects.len() > begun {
                break watcher.now + rtt * 6;
            }
            let (at, _) = watcher.link.poll_timeout().expect("a deadline");
            watcher.pass(at - watcher.now);
        };
        // Six round trips: TCP, TLS, WebSocket, challenge and answer.
        prop_assert!(fresh - back <= Duration::from_secs(10), "{:?}", fresh - back);
    }
}
