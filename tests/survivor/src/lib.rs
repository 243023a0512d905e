//! A small program with a store, built with `panic = "abort"` as the agent on
//! the card is: what the tests of that build run instead of the agent, which
//! takes minutes to build.
//!
//! `farm-survivor STATE [unprepared]` says on standard output, a line each;
//! unprepared it has not asked to be started anew:
//!
//! | line | meaning |
//! |---|---|
//! | `start PID TEXT` | it starts, after a panic with this text (or none) |
//! | `alarm TEXT` | what opening found |
//! | `refused TEXT` | the store could not be opened; it ends |
//! | `ready PORT` | it takes commands there (loopback), one a line |
//!
//! | command | answer |
//! |---|---|
//! | `put KEY` | `done`, or `error TEXT` |
//! | `phones`, `readings` | the keys that are there, or `error TEXT` |
//! | `trouble` | why the store can't be used, or nothing |
//! | `panic` | none: it panics, outside the store |
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use farm_store::{Batch, Options, Store, Table};

/// Who is trusted: vital.
pub const PHONES: Table<u64, String> = Table::vital("phones");
/// What can be lost with a damaged card.
pub const READINGS: Table<u64, String> = Table::new("readings");

/// How tests open it, too.
#[must_use]
pub fn options() -> Options {
    Options { schema: 1, wall_time: 1_790_000_000, ..Options::default() }
}

/// Runs for ever.
///
/// # Errors
/// When standard output or the port fails.
pub fn run(state: &Path, prepared: bool) -> io::Result<()> {
    let panicked = if prepared { farm_store::restart_on_panic() } else { None };
    let panicked = panicked.unwrap_or_default();
    say(&format!("start {} {panicked}", std::process::id()))?;
    let (store, report) = match farm_store::open(state, options()) {
        Ok(opened) => opened,
        Err(error) => return say(&format!("refused {error}")),
    };
    for alarm in report.alarms {
        say(&format!("alarm {alarm}"))?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    say(&format!("ready {}", listener.local_addr()?.port()))?;
    loop {
        let (socket, _) = listener.accept()?;
        // Whoever asked may be gone.
        let _gone = serve(socket, &store);
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

fn serve(socket: TcpStream, store: &Store) -> io::Result<()> {
    let mut answers = socket.try_clone()?;
    for line in BufReader::new(socket).lines() {
        let line = line?;
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("put", key) => put(store, key).map(|()| "done".to_owned()),
            ("phones", _) => keys(store, &PHONES),
            ("readings", _) => keys(store, &READINGS),
            ("trouble", _) => Ok(store.trouble().unwrap_or_default()),
            ("panic", _) => panic!("as the test wants"),
            _ => Err("unknown command".into()),
        };
        writeln!(answers, "{}", answer.unwrap_or_else(|error| format!("error {error}")))?;
    }
    Ok(())
}

fn put(store: &Store, key: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut batch = Batch::new();
    batch.put(&READINGS, &key.parse()?, &"21.5".to_owned())?;
    Ok(store.commit_blocking(batch)?)
}

fn keys(store: &Store, table: &Table<u64, String>) -> Result<String, Box<dyn std::error::Error>> {
    let records = store.range(table, .., usize::MAX)?;
    Ok(records.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>().join(" "))
}
