//! A crew: some thousands of devices in one process, told what to do by lines
//! on its standard input, answering each with a line of JSON.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::FarmId;
use farm_tunnel::backoff::{Backoff, Jitter};
use serde_json::{Value, json};
use smol::lock::Semaphore;
use smol::{LocalExecutor, Timer};

use super::line::{Heard, Kind, Line};
use crate::bench::sample::Sample;
use crate::device::{DeviceError, Target, loopback};

/// Devices of one process that shake hands at once: more of them would only
/// wait for its one thread.
const AT_ONCE: usize = 64;

/// Devices that share an address.
const PER_ADDRESS: u32 = 32;

/// As the broker asks for it.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Bytes of a signal: an offer without candidates.
const PAYLOAD: usize = 1024;

/// An answer that has not come after this never will.
const SETTLED: Duration = Duration::from_secs(2);

/// What a crew is told at its start.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Who they are.
    pub kind: Kind,
    /// The first device's number.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// The server.
    pub address: SocketAddr,
    /// Its certificate.
    pub certificate: PathBuf,
    /// The second byte of their addresses.
    pub net: u8,
}

/// What one device is told.
#[derive(Clone, Copy)]
enum Task {
    Signal,
    NextEpoch,
}

struct Crew {
    orders: Orders,
    target: Target,
    dialing: Semaphore,
    inside: Cell<u32>,
    failures: Cell<u64>,
    why: RefCell<String>,
    started: Instant,
    latencies: RefCell<Sample>,
    /// When each farm said its newest epoch.
    said: RefCell<BTreeMap<FarmId, (Epoch, Instant)>>,
    tasks: RefCell<Vec<Sender<Task>>>,
}

/// Runs until standard input ends.
///
/// # Errors
/// When the server's certificate can't be read.
pub fn run(orders: Orders) -> std::io::Result<()> {
    let target = Target::new(orders.address, &orders.certificate)?;
    let (line, lines) = async_channel::unbounded();
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        for text in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line.try_send(text).is_err() {
                return;
            }
        }
    })?;
    let crew = Rc::new(Crew {
        orders,
        target,
        dialing: Semaphore::new(AT_ONCE),
        inside: Cell::new(0),
        failures: Cell::new(0),
        why: RefCell::default(),
        started: Instant::now(),
        latencies: RefCell::default(),
        said: RefCell::default(),
        tasks: RefCell::default(),
    });
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        while let Ok(text) = lines.recv().await {
            let answer = crew.obey(&text, &executor).await;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{answer}")?;
            out.flush()?;
        }
        Ok(())
    }))
}

impl Crew {
    async fn obey(self: &Rc<Self>, text: &str, executor: &Rc<LocalExecutor<'static>>) -> Value {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
        match words.first() {
            Some(&"connect") => {
                let begun = self.tasks.borrow().len() as u32;
                for n in begun..number(1).min(self.orders.count) {
                    let (task, tasks) = async_channel::bounded(64);
                    self.tasks.borrow_mut().push(task);
                    executor.spawn(self.clone().live(n, tasks)).detach();
                }
                self.count()
            }
            Some(&"count") => self.count(),
            Some(&"signals") => {
                self.measure(number(1), Duration::from_secs(number(2).into()), Task::Signal, 0).await
            }
            Some(&"presence") => {
                self.measure(number(1), Duration::from_secs(number(2).into()), Task::NextEpoch, 2).await
            }
            Some(&"fan") => self.fan(number(1)).await,
            _ => json!({ "error": format!("not understood: {text}") }),
        }
    }

    fn count(&self) -> Value {
        json!({
            "inside": self.inside.get(),
            "failures": self.failures.get(),
            "why": *self.why.borrow(),
        })
    }

    /// Gives a task to one device after the other, evenly spread over the time.
    /// Those that send are the odd ones, those that show themselves the even.
    async fn measure(&self, rate: u32, lasts: Duration, task: Task, from: u32) -> Value {
        self.latencies.take();
        let senders: Vec<_> = {
            let tasks = self.tasks.borrow();
            let first = match task {
                Task::Signal => 1,
                Task::NextEpoch => from,
            };
            tasks.iter().skip(first as usize).step_by(2).cloned().collect()
        };
        let (start, mut given) = (Instant::now(), 0u32);
        if senders.is_empty() || rate == 0 {
            return json!({ "error": "nobody is there to send" });
        }
        while start.elapsed() < lasts {
            let sender = &senders[given as usize % senders.len()];
            // A device that is away or overwhelmed leaves it out: it is missed below.
            let _full = sender.try_send(task);
            given += 1;
            Timer::at(start + Duration::from_secs_f64(f64::from(given) / f64::from(rate))).await;
        }
        Timer::after(SETTLED).await;
        self.result(u64::from(given))
    }

    /// The first farm shows itself anew to all phones, so many times.
    async fn fan(&self, times: u32) -> Value {
        self.latencies.take();
        let Some(first) = self.tasks.borrow().first().cloned() else {
            return json!({ "error": "nobody is there" });
        };
        for _ in 0..times {
            let _full = first.try_send(Task::NextEpoch);
            // Faster than this the broker holds presence back.
            Timer::after(Duration::from_millis(1100)).await;
        }
        Timer::after(SETTLED).await;
        let watchers = (self.tasks.borrow().len() as u32 / 2).min(super::line::MOST_PHONES);
        self.result(u64::from(times * watchers))
    }

    fn result(&self, expected: u64) -> Value {
        let sample = self.latencies.borrow();
        json!({
            "expected": expected,
            "came": sample.len(),
            "p50": sample.quantile(0.5),
            "p99": sample.quantile(0.99),
            "max": sample.max(),
        })
    }

    async fn live(self: Rc<Self>, n: u32, tasks: Receiver<Task>) {
        let number = self.orders.first + n;
        let mut backoff =
            Backoff::new(Duration::from_millis(250), Duration::from_secs(8), Jitter::new(number.into()));
        loop {
            let error = match self.dial(n).await {
                Ok(line) => {
                    self.inside.set(self.inside.get() + 1);
                    let Err(error) = self.talk(line, number, &tasks).await;
                    self.inside.set(self.inside.get() - 1);
                    backoff.reset();
                    error
                }
                Err(error) => error,
            };
            let wait = match error {
                DeviceError::RetryAfter(told) => told,
                other => {
                    self.failures.set(self.failures.get() + 1);
                    *self.why.borrow_mut() = format!("device {number}: {other}");
                    backoff.next_delay()
                }
            };
            Timer::after(wait).await;
        }
    }

    async fn dial(&self, n: u32) -> Result<Line, DeviceError> {
        let _turn = self.dialing.acquire().await;
        let from = loopback(self.orders.net, n / PER_ADDRESS);
        let (first, count) = (self.orders.first, self.orders.count);
        self.orders.kind.connect(&self.target, from, first + n, (first, count)).await
    }

    /// Until the connection ends.
    async fn talk(
        &self,
        mut line: Line,
        number: u32,
        tasks: &Receiver<Task>,
    ) -> Result<std::convert::Infallible, DeviceError> {
        enum Next {
            Heard(Result<Heard, DeviceError>),
            Task(Task),
            Heartbeat,
        }
        let mut due = Instant::now() + Jitter::new(number.into()).up_to(HEARTBEAT);
        loop {
            let heard = async { Next::Heard(line.next().await) };
            let task = async {
                match tasks.recv().await {
                    Ok(task) => Next::Task(task),
                    // Only at the end of all.
                    Err(_) => std::future::pending().await,
                }
            };
            let late = async {
                Timer::at(due).await;
                Next::Heartbeat
            };
            let next = smol::future::or(heard, smol::future::or(task, late)).await;
            match next {
                Next::Heard(heard) => self.heard(heard?),
                Next::Task(Task::Signal) => {
                    let mut payload = vec![0; PAYLOAD];
                    let micros = self.started.elapsed().as_micros() as u64;
                    payload[..8].copy_from_slice(&micros.to_be_bytes());
                    line.send(payload).await?;
                }
                Next::Task(Task::NextEpoch) => {
                    let now = Instant::now();
                    if let Some((farm, epoch)) = line.next_epoch().await? {
                        self.said.borrow_mut().insert(farm, (epoch, now));
                    }
                }
                Next::Heartbeat => {
                    due += HEARTBEAT;
                    line.heartbeat().await?;
                }
            }
        }
    }

    fn heard(&self, heard: Heard) {
        match heard {
            Heard::Payload(payload) => {
                if let Some(Ok(head)) = payload.get(..8).map(<[u8; 8]>::try_from) {
                    let sent = Duration::from_micros(u64::from_be_bytes(head));
                    self.latencies.borrow_mut().push_time(self.started.elapsed().saturating_sub(sent));
                }
            }
            Heard::Presence(farm, epoch) => {
                if let Some((said, at)) = self.said.borrow().get(&farm)
                    && *said == epoch
                {
                    self.latencies.borrow_mut().push_time(at.elapsed());
                }
            }
            Heard::Other => {}
        }
    }
}
