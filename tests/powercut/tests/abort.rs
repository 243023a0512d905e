//! A program that a panic ends, as the agent on the card is, with damaged
//! databases and a failing disk. See `farm-survivor`.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use farm_powercut::campaign::scratch;
use farm_powercut::random::Random;
use farm_powercut::shim::{Orders, Shim};
use farm_store::{Batch, Store};
use farm_survivor::{PHONES, READINGS, options};

/// Longer than any stalled disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// SIGABRT.
const ABORTED: i32 = 6;

/// Builds the program once, in a profile of its own: most of a minute.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("survivor");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--profile", "abort", "--package", "farm-survivor", "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("abort/farm-survivor")
    })
}

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("abort").tempdir_in(scratch()).unwrap()
}

/// One start as the program tells it.
#[derive(Debug, PartialEq)]
struct Start {
    pid: u32,
    after: String,
    alarms: Vec<String>,
    /// Where it takes commands, or why not.
    ready: Result<u16, String>,
}

struct Survivor {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Survivor {
    fn start(state: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program());
        command.arg(state).stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Survivor { child, said }
    }

    /// Starts up to the first that came to an end.
    fn starts(&mut self) -> Vec<Start> {
        let mut starts: Vec<Start> = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended: {:?}; {starts:?}", self.child.wait());
            let (what, rest) = line.trim_end_matches('\n').split_once(' ').unwrap();
            match what {
                "start" => {
                    let (pid, after) = rest.split_once(' ').unwrap();
                    let (pid, after) = (pid.parse().unwrap(), after.to_owned());
                    starts.push(Start { pid, after, alarms: Vec::new(), ready: Ok(0) });
                }
                "alarm" => starts.last_mut().unwrap().alarms.push(rest.to_owned()),
                "ready" => {
                    starts.last_mut().unwrap().ready = Ok(rest.parse().unwrap());
                    return starts;
                }
                "refused" => {
                    starts.last_mut().unwrap().ready = Err(rest.to_owned());
                    return starts;
                }
                other => panic!("{other}"),
            }
        }
    }

    fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Descriptors of databases, and of what they get instead.
    fn databases(&self) -> usize {
        fs::read_dir(self.proc("fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .filter(|open| open.ends_with("store/db") || open.starts_with("/memfd:farm-store (deleted)"))
            .count()
    }

    /// What a thread passes on to what it starts: name, signals, timers.
    fn inherited(&self) -> Vec<String> {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let mut lines: Vec<String> =
            status.lines().filter(|line| line.starts_with("Sig")).map(str::to_owned).collect();
        lines.push(fs::read_to_string(self.proc("comm")).unwrap());
        lines.push(fs::read_to_string(self.proc("timerslack_ns")).unwrap());
        lines
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn to(start: &Start) -> Self {
        let port = *start.ready.as_ref().unwrap();
        Connection(BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()))
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        let mut answer = String::new();
        assert!(self.0.read_line(&mut answer).unwrap() > 0, "{command}: the connection is gone");
        answer.trim_end_matches('\n').to_owned()
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.0.get_mut(), "{command}").unwrap();
    }
}

/// Some segments of log, two phones, two sessions: so sled has a snapshot, too.
fn written(state: &Path) {
    let put = |store: &Store, key: u64, text: &str| {
        let mut batch = Batch::new();
        batch.put(&READINGS, &key, &text.to_owned()).unwrap();
        store.commit_blocking(batch).unwrap();
    };
    for session in 0..2 {
        let (store, _) = farm_store::open(state, options()).unwrap();
        let mut phone = Batch::new();
        phone.put(&PHONES, &session, &"Ada's".to_owned()).unwrap();
        store.commit_blocking(phone).unwrap();
        for key in 0..300 {
            put(&store, key, &format!("{session} {key} ").repeat(120));
        }
        store.close_blocking();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// What a state is opened with where panics unwind.
#[derive(Debug, PartialEq)]
struct Opened {
    alarms: Vec<String>,
    phones: String,
    readings: String,
}

fn opened_unwinding(state: &Path) -> Opened {
    let (store, report) = farm_store::open(state, options()).unwrap();
    let keys = |table| {
        let records = store.range(table, .., usize::MAX).unwrap();
        records.iter().map(|(key, _): &(u64, String)| key.to_string()).collect::<Vec<_>>().join(" ")
    };
    let (phones, readings) = (keys(&PHONES), keys(&READINGS));
    store.close_blocking();
    Opened { alarms: report.alarms.iter().map(ToString::to_string).collect(), phones, readings }
}

/// Without the place, which differs, and the panic's text, which has one more.
fn kinds(alarms: &[String]) -> Vec<String> {
    alarms.iter().map(|alarm| alarm.split_once(" (").map_or(&**alarm, |(kind, _)| kind).to_owned()).collect()
}

#[test]
fn damage_that_panics_costs_what_it_costs_where_panics_unwind_and_a_pause() {
    const ENOUGH: usize = 4;
    const TRIES: usize = 400;
    let place = place();
    let good = place.path().join("good");
    written(&good);
    let files: Vec<PathBuf> = fs::read_dir(good.join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name == "db" || name.starts_with("snap.")
        })
        .map(|path| path.strip_prefix(&good).unwrap().to_owned())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let mut random = Random::new(1);
    let mut found = 0;
    for _ in 0..TRIES {
        let (bad, twin) = (place.path().join("bad"), place.path().join("twin"));
        copy(&good, &bad);
        let file = &files[random.below(2)];
        let mut bytes = fs::read(bad.join(file)).unwrap();
        let what = damage(&mut bytes, &mut random);
        let what = format!("{}: {what}", file.display());
        fs::write(bad.join(file), bytes).unwrap();
        copy(&bad, &twin);
        let expected = opened_unwinding(&twin);
        if expected.alarms.iter().any(|alarm| alarm.contains("panicked")) {
            found += 1;
            survives(&bad, &expected, &what);
        }
        fs::remove_dir_all(bad).unwrap();
        fs::remove_dir_all(twin).unwrap();
        if found == ENOUGH {
            return;
        }
    }
    panic!("only {found} of {TRIES} damages made the engine panic");
}

/// What worn cards do: a bit flips, a sector is not written or written
/// elsewhere, the end is missing.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    const SECTOR: usize = 512;
    let sectors = bytes.len().div_ceil(SECTOR);
    let range = |sector: usize| sector * SECTOR..((sector + 1) * SECTOR);
    match random.below(4) {
        0 => {
            let (byte, bit) = (random.below(bytes.len()), random.below(8));
            bytes[byte] ^= 1 << bit;
            format!("bit {bit} of byte {byte} flipped")
        }
        1 => {
            let sector = random.below(sectors);
            let end = range(sector).end.min(bytes.len());
            bytes[sector * SECTOR..end].fill(0);
            format!("sector {sector} empty")
        }
        2 => {
            let length = random.below(bytes.len());
            bytes.truncate(length);
            format!("cut to {length}")
        }
        _ => {
            // Whole segments begin with their own address.
            let unit = if sectors > 1024 { 1024 } else { 1 };
            let (from, to) = (random.below(sectors) / unit * unit, random.below(sectors) / unit * unit);
            if range(from).end <= bytes.len() && range(to).end <= bytes.len() {
                bytes.copy_within(range(from), to * SECTOR);
            }
            format!("sector {from} written to {to}")
        }
    }
}

fn survives(state: &Path, expected: &Opened, what: &str) {
    let mut survivor = Survivor::start(state, |_| {});
    let starts = survivor.starts();
    let [first, second] = &starts[..] else { panic!("{what}: {starts:?}") };
    assert_eq!((first.pid, second.pid), (survivor.child.id(), survivor.child.id()), "{what}");
    assert!(first.after.is_empty() && second.after.contains("sled"), "{what}: {starts:?}");
    assert!(second.alarms.iter().any(|alarm| alarm.contains(&second.after)), "{what}: {starts:?}");
    assert_eq!(kinds(&second.alarms), kinds(&expected.alarms), "{what}");
    let mut connection = Connection::to(second);
    assert_eq!(connection.ask("phones"), expected.phones, "{what}");
    assert_eq!(connection.ask("readings"), expected.readings, "{what}");
    assert_eq!(connection.ask("put 7000"), "done", "{what}");

    // As a start without all that, in what was passed on to it as well.
    let (descriptors, inherited) = (survivor.descriptors(), survivor.inherited());
    drop((connection, survivor));
    let mut survivor = Survivor::start(state, |_| {});
    let starts = survivor.starts();
    let [start] = &starts[..] else { panic!("{what}, started again: {starts:?}") };
    assert!(start.alarms.is_empty(), "{what}, started again: {starts:?}");
    let mut connection = Connection::to(start);
    assert!(connection.ask("readings").ends_with("7000"), "{what}, started again");
    assert_eq!((survivor.descriptors(), survivor.inherited()), (descriptors, inherited), "{what}");
}

/// With EIO = 5: a commit fails, the card stays dead for the next tries, then
/// it heals.
#[test]
fn a_failing_fsync_ends_no_connection_and_writing_goes_on_once_the_card_does() {
    for fail in ["fsync:25:1:5", "fsync:25:4:5", "fsync:40:4:5"] {
        let place = place();
        let shim = Shim::build(place.path()).unwrap();
        let state = place.path().join("state");
        let dir = state.to_str().unwrap().to_owned();
        let mut survivor = Survivor::start(&state, |command| {
            shim.preload(command, &Orders { dir: &dir, fail: Some(fail), ..Orders::default() });
        });
        let starts = survivor.starts();
        let mut connection = Connection::to(&starts[0]);
        // sled's, ours, and what sled gets when it has to let go.
        let before = survivor.databases();
        assert_eq!(before, 3, "{fail}");
        let (mut kept, mut refused) = (Vec::new(), 0);
        let begun = Instant::now();
        // Until it has failed and has come back for a while.
        for key in 0.. {
            match &*connection.ask(&format!("put {key}")) {
                "done" => kept.push(key.to_string()),
                error => {
                    assert!(error.starts_with("error "), "{fail}: {error}");
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            if refused > 0 && kept.len() > 100 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{fail}: {refused} refused: {}", connection.ask("trouble"));
        }
        let there = connection.ask("readings");
        let there: Vec<&str> = there.split(' ').collect();
        assert!(kept.iter().all(|key| there.contains(&&**key)), "{fail}: {kept:?}, {there:?}");
        assert_eq!(survivor.databases(), before, "{fail}: databases are left open");
        drop((connection, survivor));
        let found = opened_unwinding(&state);
        assert_eq!(found.alarms, [""; 0], "{fail}");
        let there: Vec<&str> = found.readings.split(' ').collect();
        assert!(kept.iter().all(|key| there.contains(&&**key)), "{fail}, opened again");
    }
}

#[test]
fn a_panic_elsewhere_costs_a_pause_and_a_row_of_them_is_the_supervisors() {
    const MOST_IN_A_ROW: usize = 5;
    let place = place();
    let state = place.path().join("state");
    let mut survivor = Survivor::start(&state, |_| {});
    for round in 0..=MOST_IN_A_ROW {
        let starts = survivor.starts();
        let [start] = &starts[..] else { panic!("{round}: {starts:?}") };
        assert_eq!((start.pid, start.after.is_empty()), (survivor.child.id(), round == 0), "{start:?}");
        assert!(start.alarms.is_empty(), "{start:?}");
        let mut connection = Connection::to(start);
        assert_eq!(connection.ask(&format!("put {round}")), "done");
        connection.tell("panic");
    }
    assert_eq!(survivor.ended().signal(), Some(ABORTED));
    assert_eq!(opened_unwinding(&state).readings, "0 1 2 3 4 5");
}

#[test]
fn a_program_that_would_not_survive_a_panic_gets_no_store() {
    let place = place();
    let state = place.path().join("state");
    let mut survivor = Survivor::start(&state, |command| {
        command.arg("unprepared");
    });
    let starts = survivor.starts();
    let [Start { ready: Err(why), .. }] = &starts[..] else { panic!("{starts:?}") };
    assert!(why.contains("restart_on_panic") && !state.exists(), "{why}");
}
