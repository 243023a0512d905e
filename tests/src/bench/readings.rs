//! The agent's readings: how fast they are durable, what they cost the card,
//! and how soon the log serves again. An agent of its own, without a broker.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::part::Part;
use super::sample::Sample;
use super::scale::Scale;
use super::stop::pause;
use super::table::{Figure, Row, Unit};
use super::trouble::Trouble;
use crate::harness::farm::{Agent, AgentConfig, Place};
use crate::harness::run;

/// Programs that record at the same time.
const WRITERS: u64 = 100;

/// Durable readings a second of all of them together: milliseconds for so many.
const MANY: u64 = 2000;
const MANY_WITHIN: f64 = 1000.0;

/// Readings stored when memory and the restart are measured.
const STORED: u64 = 100_000;

/// The agent gives the memory of a burst back when nobody has recorded for 3 s.
const CALM: Duration = Duration::from_secs(6);

/// Restart to serving, milliseconds.
const RESTART_WITHIN: f64 = 1000.0;

/// Memory with [`STORED`] readings, megabytes.
const MEMORY: f64 = 12.0;

/// Written in a day in which nobody records, megabytes.
const IDLE_DAY: f64 = 5.0;

/// Single readings, one after the other.
const SINGLES: usize = 150;

/// The agent's own readings: in the configuration that is measured, and as
/// they come by default, so many a day.
const OWN_SECONDS: u64 = 10;
const OWN_A_DAY: f64 = 288.0;

/// What a usual card of 32 GB is rated for, terabytes written.
const CARD: f64 = 30.0;

const DAY: f64 = 86_400.0;

/// The peer: SQLite as it is recommended for durable records, through Python's
/// own module. Prints the times in milliseconds, then the bytes written.
const SQLITE: &str = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=wal'); db.execute('pragma synchronous=full')
db.execute('create table reading (n integer primary key, t integer, name text, value real, unit text)')
written = lambda: int(open('/proc/self/io').read().split('write_bytes:')[1].split()[0])
before = written()
for n in range(int(sys.argv[2])):
    start = time.perf_counter()
    db.execute('insert into reading (t, name, value, unit) values (?, ?, ?, ?)', (1790000000000 + n, 'soil moisture', 23.5 + n, '%'))
    print((time.perf_counter() - start) * 1000)
print(written() - before)
";

pub(super) fn measure(dir: &Path, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let place = dir.join("readings");
    std::fs::create_dir_all(&place).map_err(Trouble::io("making a directory"))?;
    let mut agent = start(&place)?;
    // First: the commits that are free after some quiet are spent later.
    single(&agent, &place, part)?;
    if scale.unwatched {
        days(&agent, &place, part)?;
    } else {
        part.push(Row::missing("card: what a day costs", "it takes a minute more than --quick has"));
    }
    many(&agent, &place, part)?;

    let at_once = rss(&agent)?;
    pause(CALM)?;
    let row = Row::new(
        format!("agent with 100,000 readings, {} s after the last", CALM.as_secs()),
        vec![Figure::new("RSS", rss(&agent)?, Unit::Megabytes).at_most(MEMORY)],
    );
    part.push(row.remark(Some(format!("{at_once:.1} MB right after it"))));
    let mut times = Sample::default();
    for _ in 0..3 {
        agent.daemon.kill()?;
        let begun = Instant::now();
        agent.daemon.start()?;
        Sensor::connect(&place)?.record(1)?;
        times.push_time(begun.elapsed());
    }
    part.push(
        Row::spread("kill -9 to the next durable reading, 100,000 stored", &times, Unit::Milliseconds)
            .at_most(RESTART_WITHIN),
    );
    part.push(Row::new(
        "agent after that restart",
        vec![Figure::new("RSS", rss(&agent)?, Unit::Megabytes).at_most(MEMORY)],
    ));
    agent.daemon.terminate()?;
    Ok(())
}

/// What the agent has in memory, megabytes.
fn rss(agent: &Agent) -> Result<f64, Trouble> {
    Ok(agent.daemon.process()?.usage()?.rss_bytes as f64 / 1e6)
}

fn days(agent: &Agent, place: &Path, part: &mut Part) -> Result<(), Trouble> {
    let own = own(agent, place)?;
    let daily = own * OWN_A_DAY / 1e6;
    let idle = Figure::new("", daily, Unit::DailyMegabytes).at_most(IDLE_DAY);
    let remark = format!("{:.1} KB each 5 minutes; {}", own / 1e3, years(daily));
    part.push(Row::new("card: nobody records, a day", vec![idle]).remark(Some(remark)));
    paced(agent, place, part)
}

fn start(place: &Path) -> Result<Agent, Trouble> {
    let config = AgentConfig {
        name: "Readings".to_owned(),
        // Nobody listens there.
        broker: "ws://127.0.0.1:1".to_owned(),
        enrollment_token: None,
        services: Vec::new(),
    };
    let mut agent = Agent::new(Place::here(), place, &config)?;
    let path = place.join("farm-agent.toml");
    let more = format!("\n[readings]\ninterval_seconds = {OWN_SECONDS}\n");
    let text = std::fs::read_to_string(&path).map_err(Trouble::io("reading the config"))? + &more;
    std::fs::write(&path, text).map_err(Trouble::io("writing the config"))?;
    agent.daemon.start()?;
    Ok(agent)
}

/// Bytes that the program has dirtied: what the kernel hands to the card,
/// without the file system's own journal.
fn written(agent: &Agent) -> Result<f64, Trouble> {
    let path = format!("/proc/{}/io", agent.daemon.process()?.pid());
    let text = std::fs::read_to_string(path).map_err(Trouble::io("reading the agent's counters"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    value.ok_or_else(|| Trouble::Wrong("the kernel counts no bytes".to_owned()))
}

fn years(megabytes_a_day: f64) -> String {
    let years = CARD * 1e6 / megabytes_a_day / 365.0;
    match years {
        over if over > 100.0 => format!("a card rated {CARD} TB lasts over 100 years"),
        years => format!("a card rated {CARD} TB lasts {years:.0} years"),
    }
}

/// Bytes for one commit of the agent's own readings, all else included.
fn own(agent: &Agent, place: &Path) -> Result<f64, Trouble> {
    // The first come 20 s after the start, then they come evenly.
    pause(Duration::from_secs(22))?;
    let mut sensor = Sensor::connect(place)?;
    sensor.record(0)?;
    let before = written(agent)?;
    let rounds = 3;
    pause(Duration::from_secs(rounds * OWN_SECONDS))?;
    Ok((written(agent)? - before) / rounds as f64)
}

fn single(agent: &Agent, place: &Path, part: &mut Part) -> Result<(), Trouble> {
    let mut sensor = Sensor::connect(place)?;
    let mut times = Sample::default();
    let before = written(agent)?;
    for value in 0..SINGLES {
        let begun = Instant::now();
        sensor.record(value as u64)?;
        times.push_time(begun.elapsed());
    }
    let each = (written(agent)? - before) / SINGLES as f64 / 1e3;
    let row = Row::times("a durable reading, one after the other", &times, ("p99", 0.99));
    part.push(row.remark(Some(format!("{each:.1} KB written each, through the socket"))));

    let mut python = Command::new("python3");
    python.args(["-c", SQLITE]).arg(place.join("sqlite.db")).arg(SINGLES.to_string());
    let name = "… SQLite (WAL, FULL), by Python";
    let Ok(done) = run("python3", &mut python, Duration::from_secs(60)) else {
        part.push(Row::missing(name, "python3 with its sqlite3 module is needed"));
        return Ok(());
    };
    let mut lines: Vec<f64> = done.stdout.lines().filter_map(|line| line.parse().ok()).collect();
    let bytes = lines.pop().unwrap_or(f64::NAN) / SINGLES as f64 / 1e3;
    let mut times = Sample::default();
    lines.into_iter().for_each(|time| times.push(time));
    let row = Row::times(name, &times, ("p99", 0.99));
    part.push(row.remark(Some(format!("{bytes:.1} KB written each, in the program itself"))));
    Ok(())
}

/// Readings at an even pace, as sensors send them: what a day of that costs.
fn paced(agent: &Agent, place: &Path, part: &mut Part) -> Result<(), Trouble> {
    // A burst of commits is free at first: spent in the first two.
    let seconds = 20;
    for (name, a_second) in
        [("card: 1 reading a second, a day", 1u64), ("card: 100 readings a second, a day", 100)]
    {
        let mut sensor = Sensor::connect(place)?;
        let before = written(agent)?;
        let begun = Instant::now();
        for n in 0..seconds * a_second {
            sensor.send(n)?;
            let due = begun + Duration::from_secs_f64((n + 1) as f64 / a_second as f64);
            pause(due.saturating_duration_since(Instant::now()))?;
            // What has come meanwhile; nobody waits.
            if n % a_second == a_second - 1 {
                for _ in 0..a_second {
                    sensor.answer()?;
                }
            }
        }
        let bytes = (written(agent)? - before) / begun.elapsed().as_secs_f64();
        let daily = bytes * DAY / 1e6;
        let each = bytes / a_second as f64 / 1e3;
        part.push(
            Row::new(name, vec![Figure::new("", daily, Unit::DailyMegabytes)])
                .remark(Some(format!("{each:.2} KB each; {}", years(daily)))),
        );
    }
    Ok(())
}

fn many(agent: &Agent, place: &Path, part: &mut Part) -> Result<(), Trouble> {
    let before = written(agent)?;
    let begun = Instant::now();
    let newest = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(move || {
                    let mut sensor = Sensor::connect(place)?;
                    let mut count = 0u64;
                    while count < STORED / WRITERS {
                        sensor.record(count)?;
                        count += 1;
                    }
                    Ok::<u64, Trouble>(count)
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap_or(Ok(0))).sum::<Result<u64, Trouble>>()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let each = (written(agent)? - before) / newest as f64 / 1e3;
    let row = Row::new(
        "100 programs that wait for each: 2,000 readings",
        vec![
            Figure::new("", seconds * 1e3 * MANY as f64 / newest as f64, Unit::Milliseconds)
                .at_most(MANY_WITHIN),
        ],
    );
    part.push(row.remark(Some(format!(
        "{:.0} durable readings/s, {each:.2} KB written each",
        newest as f64 / seconds
    ))));
    Ok(())
}

/// A program at the farm that records.
struct Sensor {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Sensor {
    fn connect(place: &Path) -> Result<Self, Trouble> {
        let path: PathBuf = place.join("state/readings.sock");
        let writer = UnixStream::connect(path).map_err(Trouble::io("connecting to the readings"))?;
        writer.set_read_timeout(Some(Duration::from_secs(20))).map_err(Trouble::io("a timeout"))?;
        let reader = BufReader::new(writer.try_clone().map_err(Trouble::io("a second handle"))?);
        Ok(Self { writer, reader })
    }

    fn send(&mut self, value: u64) -> Result<(), Trouble> {
        let line = format!("{{\"name\": \"soil moisture\", \"value\": {value}.5, \"unit\": \"%\"}}\n");
        self.writer.write_all(line.as_bytes()).map_err(Trouble::io("recording"))
    }

    fn answer(&mut self) -> Result<(), Trouble> {
        let mut line = String::new();
        self.reader.read_line(&mut line).map_err(Trouble::io("waiting for an answer"))?;
        if line.contains("sequence") { Ok(()) } else { Err(Trouble::Wrong(format!("not recorded: {line}"))) }
    }

    fn record(&mut self, value: u64) -> Result<(), Trouble> {
        self.send(value)?;
        self.answer()
    }
}
