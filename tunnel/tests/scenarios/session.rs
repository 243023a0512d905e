//! The phone's session, among farms that answer, refuse, restart and vanish.

use std::time::Duration;

use farm_protocol::control::GoodbyeReason;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::BootId;
use farm_protocol::signal::OfferRefused;
use farm_tunnel::session::phone::{Action, Due, Event, Network, Session};
use serde_json::{Value, json};

use super::{Run, hex};

const STEPS: usize = 120;

/// Short, so that it happens between other events.
const RESTS_AFTER: Duration = Duration::from_secs(2);

const REASONS: [(OfferRefused, &str); 6] = [
    (OfferRefused::OtherBoot, "other_boot"),
    (OfferRefused::StaleEpoch, "stale_epoch"),
    (OfferRefused::NotPaired, "not_paired"),
    (OfferRefused::Limit, "limit"),
    (OfferRefused::BadDescription, "bad_description"),
    (OfferRefused::Other, "other"),
];

const GOODBYES: [(GoodbyeReason, &str); 7] = [
    (GoodbyeReason::Superseded, "superseded"),
    (GoodbyeReason::Stopping, "stopping"),
    (GoodbyeReason::Revoked, "revoked"),
    (GoodbyeReason::SessionEnded, "session_ended"),
    (GoodbyeReason::TakenOver, "taken_over"),
    (GoodbyeReason::ProtocolError, "protocol_error"),
    (GoodbyeReason::Other, "other"),
];

pub(super) fn run(seed: u64) -> Value {
    let mut run = Run::new(seed);
    let first = Epoch::of_start(seed + 1);
    let mut session = Session::new(first, seed, run.now);
    let rests = seed.is_multiple_of(2);
    if rests {
        session = session.rests_after(RESTS_AFTER);
    }
    let mut steps = Vec::new();
    // A common beginning, so that runs get somewhere.
    for event in [Event::Start, Event::BrokerLink(true), presence(&mut run, 0)] {
        let shown = written(&event);
        session.handle(event, run.now);
        steps.push(record(&run, &mut session, shown));
    }
    for _ in 0..STEPS {
        if run.pick(3) == 0
            && let Some((at, _)) = session.poll_timeout()
        {
            run.until(at);
            session.handle_timeout(run.now);
            steps.push(record(&run, &mut session, Value::Null));
            continue;
        }
        let event = choose(&mut run, &session);
        run.wait(Duration::from_millis(400));
        let shown = written(&event);
        session.handle(event, run.now);
        steps.push(record(&run, &mut session, shown));
    }
    json!({ "name": format!("session {seed}"), "epoch": first.number(), "seed": seed, "rests": rests, "steps": steps })
}

fn presence(run: &mut Run, boot: u8) -> Event {
    let epoch = Epoch::of_start(5);
    let epoch = if run.pick(4) == 0 { epoch.next() } else { epoch };
    Event::Presence { boot: BootId::from_bytes([boot; 16]), epoch, online: run.pick(5) > 0 }
}

/// Mostly what an attempt needs next, now and then anything.
fn choose(run: &mut Run, session: &Session) -> Event {
    let newest = session.epoch();
    let any = if run.pick(4) == 0 { session.live().unwrap_or(newest) } else { newest };
    match run.pick(29) {
        0..=5 => Event::Answered(newest),
        6..=10 => Event::Opened(newest),
        11..=15 => Event::Hello(newest),
        16 => Event::Lost(any),
        17 => {
            let at = run.pick(GOODBYES.len() as u64) as usize;
            Event::Goodbye(any, GOODBYES[at].0)
        }
        18 => {
            let at = run.pick(REASONS.len() as u64) as usize;
            let ahead = Epoch::of_start(newest.starts() + run.pick(2));
            let farm_boot = BootId::from_bytes([run.pick(3) as u8; 16]);
            Event::Refused { epoch: newest, reason: REASONS[at].0, farm_boot, newest: ahead.max(newest) }
        }
        19 => Event::Undelivered,
        20 => Event::BrokerLink(run.pick(3) > 0),
        21 => {
            let boot = run.pick(4) as u8;
            presence(run, boot)
        }
        22 => match run.pick(3) {
            0 => Event::Network(Network::Down),
            1 => Event::Network(Network::Up),
            _ => Event::Network(Network::Changed),
        },
        23 => Event::Attention { watched: run.pick(2) == 0 },
        24 => match run.pick(7) {
            0 => Event::PresenceUnknown,
            4 => Event::Superseded,
            5 => Event::NoSlot,
            6 => Event::NewSlot(Epoch::of_start(newest.starts() + 1)),
            1 => Event::PathBack,
            2 => Event::Stop,
            _ => Event::Start,
        },
        25..=27 => Event::Path { epoch: any, relayed: run.pick(4) > 0 },
        _ => Event::Start,
    }
}

fn name<T: PartialEq>(list: &[(T, &'static str)], wanted: &T) -> &'static str {
    list.iter().find(|(known, _)| known == wanted).map(|(_, name)| *name).expect("every reason is listed")
}

fn written(event: &Event) -> Value {
    match event {
        Event::Start => json!({ "kind": "start" }),
        Event::Stop => json!({ "kind": "stop" }),
        Event::BrokerLink(online) => json!({ "kind": "broker_link", "online": online }),
        Event::Presence { boot, epoch, online } => {
            json!({ "kind": "presence", "boot": hex(boot.as_bytes()), "epoch": epoch.number(), "online": online })
        }
        Event::PresenceUnknown => json!({ "kind": "presence_unknown" }),
        Event::Answered(epoch) => json!({ "kind": "answered", "epoch": epoch.number() }),
        Event::Refused { epoch, reason, farm_boot, newest } => json!({
            "kind": "refused",
            "epoch": epoch.number(),
            "reason": name(&REASONS, reason),
            "farmBoot": hex(farm_boot.as_bytes()),
            "newest": newest.number(),
        }),
        Event::Superseded => json!({ "kind": "superseded" }),
        Event::NewSlot(epoch) => json!({ "kind": "new_slot", "epoch": epoch.number() }),
        Event::NoSlot => json!({ "kind": "no_slot" }),
        Event::Undelivered => json!({ "kind": "undelivered" }),
        Event::Opened(epoch) => json!({ "kind": "opened", "epoch": epoch.number() }),
        Event::Hello(epoch) => json!({ "kind": "hello", "epoch": epoch.number() }),
        Event::Path { epoch, relayed } => {
            json!({ "kind": "path", "epoch": epoch.number(), "relayed": relayed })
        }
        Event::Lost(epoch) => json!({ "kind": "lost", "epoch": epoch.number() }),
        Event::Goodbye(epoch, reason) => {
            json!({ "kind": "goodbye", "epoch": epoch.number(), "reason": name(&GOODBYES, reason) })
        }
        Event::Network(change) => {
            json!({ "kind": "network", "change": format!("{change:?}").to_lowercase() })
        }
        Event::PathBack => json!({ "kind": "path_back" }),
        Event::Attention { watched } => json!({ "kind": "attention", "watched": watched }),
    }
}

fn record(run: &Run, session: &mut Session, event: Value) -> Value {
    let mut actions = Vec::new();
    while let Some(action) = session.poll_action() {
        actions.push(match action {
            Action::Offer { epoch, farm_boot, ways } => json!({
                "kind": "offer",
                "epoch": epoch.number(),
                "farmBoot": hex(farm_boot.as_bytes()),
                "ways": ways.name(),
            }),
            Action::Attach(epoch) => json!({ "kind": "attach", "epoch": epoch.number() }),
            Action::Close(epoch, reason) => {
                json!({ "kind": "close", "epoch": epoch.number(), "reason": name(&GOODBYES, &reason) })
            }
            Action::Probe(epoch) => json!({ "kind": "probe", "epoch": epoch.number() }),
            Action::TakeAnotherSlot => json!({ "kind": "take_another_slot" }),
            Action::Changed => json!({ "kind": "changed" }),
            Action::Ended => json!({ "kind": "ended" }),
        });
    }
    let timeout = session.poll_timeout().map(|(at, due)| {
        let why = match due {
            Due::Attempt => "attempt",
            Due::Upgrade => "upgrade",
            Due::Answer => "answer",
            Due::Connect => "connect",
            Due::Hello => "hello",
            Due::Rest => "rest",
        };
        json!([run.at(at), why])
    });
    let shown = session.snapshot();
    json!({
        "at": run.at(run.now),
        "event": event,
        "actions": actions,
        "timeout": timeout,
        "state": {
            "state": shown.state.name(),
            "since": run.at(shown.since),
            "failure": shown.failure.map(|f| f.name()),
            "strategy": shown.strategy.map(|s| s.name()),
            "attempt": shown.attempt,
            "nextAttempt": shown.next_attempt.map(|at| run.at(at)),
            "farmPresent": shown.farm_present,
            "networkUp": shown.network_up,
        },
    })
}
