//! The link to a broker that answers, refuses, closes and falls silent.

use std::time::Duration;

use farm_tunnel::link::{Action, Event, Link, NetworkChange, Reason, SocketEvent, SocketId, State};
use serde_json::{Value, json};

use super::{Run, nanos};

const STEPS: usize = 160;

struct Bench {
    run: Run,
    link: Link,
    /// The newest socket, and the one before.
    sockets: Vec<SocketId>,
    sequence: u32,
    steps: Vec<Value>,
}

pub(super) fn run(seed: u64) -> Value {
    let run = Run::new(seed);
    let brokers = [1, 2, 3][seed as usize / 2 % 3];
    let link = Link::new(seed, run.now).among(brokers);
    let mut bench = Bench { run, link, sockets: Vec::new(), sequence: 0, steps: Vec::new() };
    bench.event(Event::Start);
    for _ in 0..STEPS {
        if bench.run.pick(3) == 0
            && let Some((at, _)) = bench.link.poll_timeout()
        {
            bench.run.until(at);
            bench.link.handle_timeout(bench.run.now);
            bench.record(Value::Null);
            continue;
        }
        let event = bench.choose();
        bench.run.wait(Duration::from_millis(600));
        bench.event(event);
    }
    json!({ "name": format!("link {seed}"), "seed": seed, "brokers": brokers, "steps": bench.steps })
}

impl Bench {
    fn choose(&mut self) -> Event {
        let stale = self.run.pick(12) == 0;
        let socket = if stale { self.sockets.first() } else { self.sockets.last() }.copied();
        let on = |event| socket.map_or(Event::Start, |socket| Event::Socket(socket, event));
        match self.run.pick(28) {
            0..=4 => on(SocketEvent::Opened),
            5..=9 => {
                let seconds = [0, 10, 30, 60, 1000][self.run.pick(5) as usize];
                on(SocketEvent::Welcomed { heartbeat_interval: Duration::from_secs(seconds) })
            }
            10..=15 => on(SocketEvent::HeartbeatAnswered { sequence: self.sequence, address_changed: stale }),
            16 => on(SocketEvent::Received),
            17 => on(SocketEvent::Closed("gone".to_owned())),
            18 => on(SocketEvent::Failed("no".repeat(150))),
            19 => on(SocketEvent::Refused { permanent: self.run.pick(2) == 0, explanation: "no".to_owned() }),
            20 => on(SocketEvent::RetryAfter(Duration::from_millis(self.run.pick(400_000)))),
            21 => Event::NetworkChanged(match self.run.pick(3) {
                0 => NetworkChange::Up,
                1 => NetworkChange::Down,
                _ => NetworkChange::AddressChanged,
            }),
            22 => Event::AddressChanged,
            23 => Event::Attention { watched: self.run.pick(2) == 0 },
            24 => Event::ProbeLost,
            25 => Event::ProbeAnswered,
            26 => Event::PathBack,
            _ if self.run.pick(8) == 0 => Event::Stop,
            _ => Event::Start,
        }
    }

    fn event(&mut self, event: Event) {
        let shown = written(&event);
        self.link.handle(event, self.run.now);
        self.record(shown);
    }

    fn record(&mut self, event: Value) {
        let mut actions = Vec::new();
        while let Some(action) = self.link.poll_action() {
            actions.push(match action {
                Action::Connect(socket) => {
                    self.sockets.push(socket);
                    let excess = self.sockets.len().saturating_sub(2);
                    self.sockets.drain(..excess);
                    json!({ "kind": "connect", "socket": number(socket) })
                }
                Action::Close { socket, reason } => {
                    json!({ "kind": "close", "socket": number(socket), "reason": reason_of(&reason) })
                }
                Action::SendHeartbeat { socket, sequence, cause } => {
                    self.sequence = sequence;
                    json!({
                        "kind": "send_heartbeat",
                        "socket": number(socket),
                        "sequence": sequence,
                        "cause": cause.name(),
                    })
                }
                Action::Goodbye(socket) => json!({ "kind": "goodbye", "socket": number(socket) }),
                Action::Changed(state) => json!({ "kind": "changed", "state": self.state(&state) }),
            });
        }
        let timeout = self.link.poll_timeout().map(|(at, why)| {
            use farm_tunnel::link::TimeoutReason as Why;
            let why = match why {
                Why::Retry => "retry",
                Why::Connect => "connect",
                Why::Authenticate => "authenticate",
                Why::HeartbeatDue => "heartbeat_due",
                Why::HeartbeatUnanswered => "heartbeat_unanswered",
            };
            json!([self.run.at(at), why])
        });
        let (now, broker) = (self.run.at(self.run.now), self.link.broker());
        self.steps.push(
            json!({ "at": now, "event": event, "actions": actions, "timeout": timeout, "state": { "broker": broker } }),
        );
    }

    fn state(&self, state: &State) -> Value {
        match state {
            State::Offline { until, attempt, reason } => json!({
                "kind": "offline",
                "until": self.run.at(*until),
                "attempt": attempt,
                "reason": reason_of(reason),
            }),
            State::Connecting { deadline, attempt } | State::Authenticating { deadline, attempt } => {
                json!({ "kind": state.name(), "deadline": self.run.at(*deadline), "attempt": attempt })
            }
            State::Stopped | State::Online => json!({ "kind": state.name() }),
        }
    }
}

/// Sockets are numbered; outside of the core the number is in their text only.
fn number(socket: SocketId) -> u64 {
    let text = socket.to_string();
    text.split(' ').next_back().and_then(|number| number.parse().ok()).expect("socket and a number")
}

fn reason_of(reason: &Reason) -> Value {
    match reason {
        Reason::ConnectFailed(why)
        | Reason::Closed(why)
        | Reason::RefusedForNow(why)
        | Reason::Refused(why) => json!({ "kind": reason.name(), "why": why }),
        Reason::HeartbeatUnanswered(span) | Reason::AskedToWait(span) => {
            json!({ "kind": reason.name(), "span": nanos(*span) })
        }
        _ => json!({ "kind": reason.name() }),
    }
}

fn written(event: &Event) -> Value {
    match event {
        Event::Start => json!({ "kind": "start" }),
        Event::Stop => json!({ "kind": "stop" }),
        Event::Socket(socket, event) => {
            json!({ "kind": "socket", "socket": number(*socket), "event": socket_event(event) })
        }
        Event::NetworkChanged(change) => {
            let change = match change {
                NetworkChange::Up => "up",
                NetworkChange::Down => "down",
                NetworkChange::AddressChanged => "address_changed",
            };
            json!({ "kind": "network_changed", "change": change })
        }
        Event::AddressChanged => json!({ "kind": "address_changed" }),
        Event::Attention { watched } => json!({ "kind": "attention", "watched": watched }),
        Event::ProbeAnswered => json!({ "kind": "probe_answered" }),
        Event::ProbeLost => json!({ "kind": "probe_lost" }),
        Event::PathBack => json!({ "kind": "path_back" }),
    }
}

fn socket_event(event: &SocketEvent) -> Value {
    match event {
        SocketEvent::Opened => json!({ "kind": "opened" }),
        SocketEvent::Failed(why) => json!({ "kind": "failed", "why": why }),
        SocketEvent::Closed(why) => json!({ "kind": "closed", "why": why }),
        SocketEvent::Welcomed { heartbeat_interval } => {
            json!({ "kind": "welcomed", "heartbeatInterval": nanos(*heartbeat_interval) })
        }
        SocketEvent::Refused { permanent, explanation } => {
            json!({ "kind": "refused", "permanent": permanent, "explanation": explanation })
        }
        SocketEvent::RetryAfter(told) => json!({ "kind": "retry_after", "told": nanos(*told) }),
        SocketEvent::Received => json!({ "kind": "received" }),
        SocketEvent::HeartbeatAnswered { sequence, address_changed } => {
            json!({ "kind": "heartbeat_answered", "sequence": sequence, "addressChanged": address_changed })
        }
    }
}
