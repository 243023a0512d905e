//! The program that is cut off: opens the state as the agent does, records
//! readings and changes vital records, and announces each before it begins and
//! after it was acknowledged. It announces with one `write` a line:
//!
//! | line | meaning |
//! |---|---|
//! | `farm ID` | the farm's identity, once it is durable |
//! | `submit VALUE` | a reading of this value is about to be recorded |
//! | `record NUMBER VALUE` | it is durable, under this number |
//! | `seal VALUE` | the vital record is about to become this |
//! | `sealed VALUE` | it is durable |

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_agent::readings::block::Sample;
use farm_agent::readings::handle::{Readings, Settings};
use farm_agent::readings::log::Limits;
use farm_agent::readings::writer;
use farm_agent::state::State;
use farm_store::{Alarm, Batch, Error, Store, Table};
use farm_tunnel::clock::Clock;
use farm_tunnel::executor::spawn;
use farm_tunnel::progress::Beat;

use crate::Failure;
use crate::random::Random;

/// A vital record that changes all the time, as epochs and phones do.
pub const SEAL: Table<(), u64> = Table::vital("powercut-seal");

/// The name of every reading; its value tells which it is.
pub const NAME: &str = "powercut";

/// Any time will do: it only names what is moved aside.
const WALL_TIME: u64 = 1_790_000_000;

/// How the log is kept here: no pacing, and nothing is pruned.
#[must_use]
pub fn settings() -> Settings {
    let limits = Limits { bytes: 256_000_000, age: Duration::from_secs(400 * 86_400) };
    Settings { limits, interval: Duration::ZERO }
}

/// An agent's state and its running log.
pub struct Session {
    /// The identity.
    pub farm: String,
    /// The log.
    pub readings: Readings,
    /// The store.
    pub store: Store,
    /// What opening found wrong.
    pub alarms: Vec<Alarm>,
    state: State,
    log: smol::Task<()>,
}

impl Session {
    /// Opens the state as the agent does.
    ///
    /// # Errors
    /// When the agent would not start.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let (state, report) = State::open(dir, WALL_TIME)?;
        let store = state.store().clone();
        let opened = writer::open(&store, &report, Clock::new(), settings())?;
        let readings = opened.readings.clone();
        let log = spawn(opened.run(Beat::unwatched()));
        Ok(Self { farm: state.farm().to_string(), readings, store, alarms: report.alarms, state, log })
    }

    /// Records readings of these values together; gives the first's number.
    ///
    /// # Errors
    /// When they were not acknowledged.
    pub async fn record(&self, values: impl IntoIterator<Item = u64>) -> Result<u64, Failure> {
        Ok(self.readings.record(samples(values)?).await?)
    }

    /// Changes the vital record.
    ///
    /// # Errors
    /// When that was not acknowledged.
    pub async fn seal(&self, value: u64) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(&SEAL, &(), &value)?;
        self.store.commit(batch).await
    }

    /// Ends in good order.
    pub async fn close(self) {
        self.readings.stop().await;
        self.log.await;
        self.state.close().await;
        self.store.close().await;
    }

    /// Lets go without a word, as a crash does.
    pub async fn abandon(self) {
        self.log.cancel().await;
        self.state.close().await;
        self.store.close().await;
    }
}

/// Readings that tell which they are.
///
/// # Errors
/// Never, for values below 2^53.
pub fn samples(values: impl IntoIterator<Item = u64>) -> Result<Vec<Sample>, Failure> {
    let sample = |value| Sample::new(NAME.to_owned(), value as f64, None);
    Ok(values.into_iter().map(sample).collect::<Result<_, _>>()?)
}

/// Announces, a line at a time.
#[derive(Clone)]
struct Announcer(Arc<Mutex<File>>);

impl Announcer {
    fn say(&self, line: &str) -> Result<(), Failure> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }
}

/// Works until `rounds` are done (0: for ever), in sessions of which some end
/// in good order and some do not; with `rests` the store rests in some.
///
/// # Errors
/// When something was not acknowledged that should have been.
pub async fn run(
    dir: &Path,
    announcements: &Path,
    seed: u64,
    rounds: usize,
    first: u64,
    rests: bool,
) -> Result<(), Failure> {
    let file = OpenOptions::new().create(true).append(true).open(announcements)?;
    let announcer = Announcer(Arc::new(Mutex::new(file)));
    let mut random = Random::new(seed);
    let (mut value, mut done) = (first, 0);
    loop {
        let session = Session::open(dir)?;
        announcer.say(&format!("farm {}", session.farm))?;
        for _ in 0..random.between(20, 120) {
            match random.below(12) {
                0 => {
                    announcer.say(&format!("seal {value}"))?;
                    session.seal(value).await?;
                    announcer.say(&format!("sealed {value}"))?;
                    value += 1;
                }
                // Some at once, which share commits.
                1..=3 => {
                    let count = random.between(2, 12) as u64;
                    let mut waiting = Vec::new();
                    for value in value..value + count {
                        announcer.say(&format!("submit {value}"))?;
                        waiting.push((value, session.readings.submit(samples([value])?).await?));
                    }
                    if random.below(4) == 0 && rests {
                        // Whether it is done or somebody reads.
                        let _done = session.store.rest().await;
                    }
                    for (value, answer) in waiting {
                        let number = answer.recv().await??;
                        announcer.say(&format!("record {number} {value}"))?;
                    }
                    value += count;
                }
                _ => {
                    announcer.say(&format!("submit {value}"))?;
                    let number = session.record([value]).await?;
                    announcer.say(&format!("record {number} {value}"))?;
                    value += 1;
                }
            }
            done += 1;
            if done == rounds {
                return Ok(());
            }
        }
        if random.below(3) == 0 {
            session.abandon().await;
        } else {
            session.close().await;
        }
    }
}
