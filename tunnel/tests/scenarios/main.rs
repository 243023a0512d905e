//! Scenarios for a second implementation of the cores: seeded runs of the Rust
//! cores, every event with its time and everything that came of it. The app's
//! tests replay them and must do exactly the same.
//!
//! `UPDATE_VECTORS=1 cargo test -p farm-tunnel --test scenarios` writes
//! `tunnel/vectors/*.json` anew; without it they have to be what the code makes.

mod health;
mod link;
mod mux;
mod recovery;
mod session;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use farm_tunnel::backoff::Jitter;
use serde_json::{Value, json};

/// What drives one run: a seeded choice of events, and virtual time.
struct Run {
    choice: Jitter,
    start: Instant,
    now: Instant,
}

impl Run {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self { choice: Jitter::new(seed ^ 0x5eed_0000), start, now: start }
    }

    /// One of `0..count`.
    fn pick(&mut self, count: u64) -> u64 {
        self.choice.next_u64() % count
    }

    /// Lets up to `most` pass.
    fn wait(&mut self, most: Duration) {
        let span = self.choice.up_to(most);
        self.now += span;
    }

    /// Moves on to `at`, where that is later.
    fn until(&mut self, at: Instant) {
        self.now = self.now.max(at);
    }

    /// A moment as the files have it: nanoseconds since the run's start.
    fn at(&self, moment: Instant) -> Value {
        nanos(moment.saturating_duration_since(self.start))
    }
}

fn nanos(span: Duration) -> Value {
    json!(u64::try_from(span.as_nanos()).expect("scenarios last minutes"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(name: &str, runs: Vec<Value>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.json"));
    let lines: Vec<String> = runs.iter().map(Value::to_string).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let stored = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        stored == text,
        "{} is not what the code makes: UPDATE_VECTORS=1 writes it anew, and the app has to follow",
        path.display()
    );
}

#[test]
fn link() {
    check("link", (0..6).map(link::run).collect());
}

#[test]
fn session() {
    check("session", (0..8).map(session::run).collect());
}

#[test]
fn health() {
    check("health", (0..6).map(health::run).collect());
}

#[test]
fn recovery() {
    check("recovery", recovery::table());
}

#[test]
fn mux() {
    check("mux", (0..4).map(mux::run).collect());
}
