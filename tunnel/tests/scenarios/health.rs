//! The health monitor, on paths that answer, lag, lose and fall silent.

use std::time::Duration;

use farm_tunnel::health::{Action, Event, Health, Verdict};
use serde_json::{Value, json};

use super::{Run, nanos};

const STEPS: usize = 150;

pub(super) fn run(seed: u64) -> Value {
    let mut run = Run::new(seed);
    let watched = !seed.is_multiple_of(3);
    let mut health = Health::new(watched, run.now);
    let mut asked = Vec::new();
    let mut steps = vec![record(&run, &mut health, &mut asked, Value::Null)];
    // A path that is fine, lossy, or silent, by turns.
    let mut mode = 0;
    for _ in 0..STEPS {
        if run.pick(20) == 0 {
            mode = run.pick(3);
        }
        let answers = match mode {
            0 => 9,
            1 => 5,
            _ => 0,
        };
        let event = if run.pick(10) < answers && !asked.is_empty() {
            run.wait(Duration::from_millis(120));
            let at = run.pick(asked.len() as u64) as usize;
            Some(Event::PingAnswered(asked.remove(at)))
        } else {
            match run.pick(24) {
                0 => Some(Event::PingReceived),
                1 => Some(Event::DataReceived),
                2 => Some(Event::DataDue),
                3 => Some(Event::NetworkChanged),
                4 => Some(Event::Attention { watched: run.pick(2) == 0 }),
                5 => Some(Event::PingAnswered(run.pick(40) as u32)),
                _ => None,
            }
        };
        match event {
            Some(event) => {
                run.wait(Duration::from_millis(300));
                health.handle(event, run.now);
                steps.push(record(&run, &mut health, &mut asked, written(event)));
            }
            None => {
                let (at, _) = health.poll_timeout().expect("there is always a next ping");
                run.until(at);
                // Now and then the process did not run.
                if run.pick(40) == 0 {
                    run.wait(Duration::from_secs(5));
                }
                health.handle_timeout(run.now);
                steps.push(record(&run, &mut health, &mut asked, Value::Null));
            }
        }
    }
    json!({ "name": format!("health {seed}"), "watched": watched, "steps": steps })
}

fn written(event: Event) -> Value {
    match event {
        Event::PingAnswered(number) => json!({ "kind": "ping_answered", "number": number }),
        Event::PingReceived => json!({ "kind": "ping_received" }),
        Event::DataReceived => json!({ "kind": "data_received" }),
        Event::DataDue => json!({ "kind": "data_due" }),
        Event::NetworkChanged => json!({ "kind": "network_changed" }),
        Event::Attention { watched } => json!({ "kind": "attention", "watched": watched }),
    }
}

fn record(run: &Run, health: &mut Health, asked: &mut Vec<u32>, event: Value) -> Value {
    let mut actions = Vec::new();
    while let Some(action) = health.poll_action() {
        actions.push(match action {
            Action::SendPing(number) => {
                asked.push(number);
                json!({ "kind": "send_ping", "number": number })
            }
            Action::Verdict(Verdict::Alive) => json!({ "kind": "alive" }),
            Action::Verdict(Verdict::Dead { reason, silent_for }) => {
                json!({ "kind": "dead", "reason": reason.name(), "silentFor": nanos(silent_for) })
            }
            Action::GradeChanged(grade) => json!({ "kind": "grade_changed", "grade": grade.name() }),
        });
    }
    let (due, why) = health.poll_timeout().expect("there is always a next ping");
    let why = format!("{why:?}").to_lowercase();
    let state = health.state(run.now);
    json!({
        "at": run.at(run.now),
        "event": event,
        "actions": actions,
        "timeout": [run.at(due), why],
        "state": {
            "phase": state.phase.name(),
            "rtt": state.rtt.map(nanos),
            "jitter": nanos(state.jitter),
            "loss": f64::from(state.loss),
        },
    })
}
