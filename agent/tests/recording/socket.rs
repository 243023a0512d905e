//! What programs say on the socket, and what they are answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use farm_agent::readings::socket::{self, Line, SOCKET};
use farm_tunnel::clock::Clock;
use farm_tunnel::executor::spawn;
use serde_json::{Value, json};

use super::{Running, place, settings};

struct Program {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Program {
    fn connect(path: &Path) -> Self {
        let writer = UnixStream::connect(path.join(SOCKET)).unwrap();
        writer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { reader: BufReader::new(writer.try_clone().unwrap()), writer }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    fn ask(&mut self, line: &str) -> Value {
        self.say(format!("{line}\n").as_bytes());
        self.answer()
    }
}

fn start() -> (tempfile::TempDir, std::path::PathBuf, Running) {
    let (dir, path) = place();
    let log = Running::start(&path, settings(), Clock::new());
    let listener = socket::listen(&path.join(SOCKET)).unwrap();
    spawn(socket::serve(listener, log.readings.clone())).detach();
    (dir, path, log)
}

#[test]
fn each_line_is_answered_in_order_and_a_bad_one_spoils_no_other() {
    let (_dir, path, log) = start();
    let mut program = Program::connect(&path);
    assert_eq!(program.ask(r#"{"name": "soil", "value": 23.5, "unit": "%"}"#), json!({"sequence": 1}));
    for bad in [
        "nonsense",
        r#"{"name": "x", "value": NaN}"#,
        r#"{"name": "x", "value": 1e999}"#,
        r#"{"name": "x", "value": null}"#,
        r#"{"name": "x\u0007", "value": 1}"#,
        r#"{"name": "", "value": 1}"#,
        r#"{"name": "agent.uptime", "value": 1}"#,
        "\u{fffd}",
    ] {
        let answer = program.ask(bad);
        assert!(answer["error"].is_string(), "{bad}: {answer}");
    }
    program.say(b"{\"name\": \"a\", \"value\": 1}\n\n{\"name\": 5}\n{\"name\": \"b\", \"value\": 2}");
    program.say(b"\n");
    assert_eq!(program.answer(), json!({"sequence": 2}));
    assert!(program.answer()["error"].is_string());
    assert_eq!(program.answer(), json!({"sequence": 3}));
    let line = Line { name: "c".to_owned(), value: -1.5, unit: None };
    assert_eq!(socket::record(&path, &line).unwrap(), 4);
    assert_eq!(log.readings.newest(), 4);
    log.stop();
}

#[test]
fn what_was_sent_before_an_end_is_answered() {
    let (_dir, path, log) = start();
    let mut program = Program::connect(&path);
    for n in 0..50 {
        program.say(format!("{{\"name\": \"x\", \"value\": {n}}}\n").as_bytes());
    }
    program.writer.shutdown(std::net::Shutdown::Write).unwrap();
    for n in 1..=50 {
        assert_eq!(program.answer(), json!({ "sequence": n }));
    }
    let mut rest = Vec::new();
    program.reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    log.stop();
}

#[test]
fn a_huge_line_ends_its_connection_and_no_other() {
    let (_dir, path, log) = start();
    let mut other = Program::connect(&path);
    let mut program = Program::connect(&path);
    let huge = vec![b'x'; 10 << 20];
    // It is cut off while it writes.
    let _ = program.writer.write_all(&huge);
    let mut line = String::new();
    match program.reader.read_line(&mut line) {
        Ok(_) => assert!(line.contains("longer than"), "{line:?}"),
        // The answer is lost where the connection was reset under it.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert_eq!(other.ask(r#"{"name": "x", "value": 1}"#), json!({"sequence": 1}));
    log.stop();
}

#[test]
fn a_program_that_never_reads_is_held_up_and_holds_up_nobody() {
    let (_dir, path, log) = start();
    let mut deaf = Program::connect(&path);
    deaf.writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let line = b"{\"name\": \"x\", \"value\": 1}\n";
    let mut sent = 0u64;
    while deaf.writer.write_all(line).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "nothing holds it up");
    }
    let before = log.readings.newest();
    assert!(before > 0 && before <= sent);
    let mut other = Program::connect(&path);
    let answer = other.ask(r#"{"name": "y", "value": 1}"#);
    assert!(answer["sequence"].as_u64() > Some(before - 1), "{answer}");
    log.stop();
}

#[test]
fn a_hundred_thousand_names_take_no_memory_of_their_own() {
    // In a process of its own: its memory is measured, and the tests beside it
    // use some too.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "socket::a_hundred_thousand_names_alone", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above"]
fn a_hundred_thousand_names_alone() {
    let (_dir, path, log) = start();
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let mut program = Program::connect(&path);
    const NAMES: u64 = 100_000;
    let mut writer = program.writer.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for n in 0..NAMES {
            writer.write_all(format!("{{\"name\": \"sensor {n}\", \"value\": {n}}}\n").as_bytes()).unwrap();
        }
    });
    for n in 1..=NAMES {
        assert_eq!(program.answer(), json!({ "sequence": n }));
    }
    sending.join().unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    log.stop();
}

#[test]
fn a_file_in_the_sockets_place_is_left_alone() {
    let (dir, _path) = place();
    let path = dir.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    assert!(socket::listen(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}
