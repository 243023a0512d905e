//! The one task that writes: gathers waiting readings, makes them durable
//! together, and only then answers, each with its number. It also prunes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use farm_protocol::id::BootId;
use farm_store::{Alarm, Batch, OpenReport, Store};
use farm_tunnel::aside::aside;
use farm_tunnel::clock::Clock;
use farm_tunnel::progress::Beat;

use super::block::{Moment, Recorded, Sample};
use super::handle::{Answered, Readings, RecordError, Request, Settings, Shown, not_read};
use super::log::{Found, Group, Log};
use super::pace::{ENOUGH, Pace};
use super::query;
use super::rest::Rest;
use super::tables::{BLOCKS, BOOTS, BootRecord, FIRST, HOLES, RESERVED, TIME};
use crate::clocks::{Stamper, boot_id};
use crate::memory;

/// Requests that wait for the writer; whoever has more waits.
const REQUESTS: usize = 512;

/// A commit holds at most this, in bytes of readings: below the store's 64 KiB
/// with what stands around them.
const MAX_GROUP_BYTES: usize = 44 << 10;

/// How often the trusted time is stored, with a commit that is due anyway: a
/// clock that starts from it is at most this much older than the power cut.
const STORE_TIME_EVERY: Duration = Duration::from_secs(300);

/// How often old readings are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// A log that was opened, before it runs.
pub struct Opened {
    /// The handle.
    pub readings: Readings,
    writer: Writer,
}

/// Opens the log in an open store. Blocks on the disk, a few milliseconds
/// however much is stored.
///
/// # Errors
/// When the store is not available.
pub fn open(
    store: &Store,
    report: &OpenReport,
    clock: Clock,
    settings: Settings,
) -> Result<Opened, farm_store::Error> {
    let lost = report.alarms.iter().any(|alarm| {
        matches!(
            alarm,
            Alarm::Quarantined { .. }
                | Alarm::Unfinished { .. }
                | Alarm::DatabaseMissing
                | Alarm::TailLost { .. }
        )
    });
    let last = store.last(&BLOCKS)?.map_or(1, |(first, block)| first + block.entries.len() as u64);
    // A hole that was written down is not to be taken for another one.
    let left_out = store.last(&HOLES)?.map_or(1, |(_, hole)| hole.last + 1);
    let end = store.get(&FIRST, &())?.unwrap_or(1).max(last).max(left_out);
    let reserved = store.get(&RESERVED, &())?.unwrap_or(0);
    let log = Log::start(Found { end, reserved, lost }, settings.limits);
    if let Some(time) = store.get(&TIME, &())? {
        clock.stored(Duration::from_millis(time));
    }
    crate::clocks::look(&clock);

    let id = boot_id();
    let (boot, known) = match store.last(&BOOTS)? {
        Some((number, record)) if *record.id == *id.as_bytes() => (number, Some(record)),
        Some((number, _)) => (number + 1, None),
        None => (1, None),
    };
    let shown = Arc::new(Shown::default());
    shown.newest.store(log.newest(), Ordering::Release);
    shown.given.store(log.given(), Ordering::Release);
    let (requests, requested) = async_channel::bounded(REQUESTS);
    let stamper = Stamper { clock, boot };
    let readings =
        Readings { requests, shown: shown.clone(), stamper: stamper.clone(), store: store.clone() };
    let counting = async_channel::bounded(1);
    let writer = Writer {
        log,
        pace: Pace::new(settings.interval, Instant::now()),
        rest: Rest::new(Instant::now()),
        store: store.clone(),
        requests: requested,
        waiting: VecDeque::new(),
        stamper,
        boot: Boot { id, known },
        time_stored: None,
        prune_at: Instant::now() + PRUNE_EVERY,
        counted: counting.1,
        count: counting.0,
        shown,
        failing: false,
    };
    Ok(Opened { readings, writer })
}

impl Opened {
    /// Runs the log until [`Readings::stop`], or all handles are gone.
    pub async fn run(self, beat: Beat) {
        let Self { readings, writer } = self;
        drop(readings);
        writer.run(&beat).await;
    }
}

struct Boot {
    id: BootId,
    /// As it is stored.
    known: Option<BootRecord>,
}

struct Writer {
    log: Log,
    pace: Pace,
    rest: Rest,
    store: Store,
    requests: async_channel::Receiver<Request>,
    /// Taken from the queue, not in a group yet.
    waiting: VecDeque<Request>,
    stamper: Stamper,
    boot: Boot,
    time_stored: Option<Instant>,
    prune_at: Instant,
    count: async_channel::Sender<u64>,
    counted: async_channel::Receiver<u64>,
    shown: Arc<Shown>,
    /// The last commit failed: only changes of this are logged.
    failing: bool,
}

/// What wakes the writer.
enum Wake {
    Request(Option<Request>),
    Counted(u64),
    Ready,
    Prune,
    Rest,
    Asked,
}

/// Readings of one commit and who waits for them.
#[derive(Default)]
struct Gathered {
    recorded: Vec<Recorded>,
    replies: Vec<(u64, async_channel::Sender<Answered>)>,
}

impl Writer {
    async fn run(mut self, beat: &Beat) {
        self.count();
        if self.log.has_holes() {
            // So that phones are told of what was lost before more is recorded.
            self.commit(Gathered::default()).await;
        }
        loop {
            beat.pass().await;
            let ready = (self.has_records()).then(|| self.pace.ready_at(Instant::now()));
            match self.wake(ready, beat).await {
                Wake::Request(Some(request)) => {
                    self.waiting.push_back(request);
                    // What came at the same time belongs to the same commit.
                    while self.waiting.len() < REQUESTS
                        && let Ok(request) = self.requests.try_recv()
                    {
                        self.waiting.push_back(request);
                    }
                }
                Wake::Request(None) => return self.end().await,
                Wake::Counted(bytes) => {
                    self.log.counted(bytes);
                    self.rest.used(bytes, Instant::now());
                }
                Wake::Prune => self.prune().await,
                Wake::Rest => self.rest().await,
                Wake::Ready | Wake::Asked => {}
            }
            if let Some(reply) = self.work().await {
                self.end().await;
                // Whoever asked may have stopped waiting.
                let _ = reply.try_send(());
                return;
            }
        }
    }

    async fn wake(&self, ready: Option<Instant>, beat: &Beat) -> Wake {
        let request = async {
            if self.waiting.len() >= REQUESTS {
                return std::future::pending().await;
            }
            Wake::Request(self.requests.recv().await.ok())
        };
        let counted = async {
            match self.counted.recv().await {
                Ok(bytes) => Wake::Counted(bytes),
                Err(_) => std::future::pending().await,
            }
        };
        let ready = at(ready, Wake::Ready);
        let prune = at(Some(self.prune_at), Wake::Prune);
        let rest = at(self.rest.poll_timeout().map(|(when, _)| when), Wake::Rest);
        let asked = async {
            beat.asked().await;
            Wake::Asked
        };
        use smol::future::or;
        or(or(ready, request), or(or(asked, rest), or(counted, prune))).await
    }

    fn has_records(&self) -> bool {
        matches!(self.waiting.front(), Some(Request::Record { .. }))
    }

    /// Does what is due among what waits, in order. Gives whom to tell when it
    /// was asked to stop.
    async fn work(&mut self) -> Option<async_channel::Sender<()>> {
        loop {
            match self.waiting.front()? {
                Request::Record { .. } => {
                    let now = Instant::now();
                    let stopping = self.waiting.iter().any(|r| matches!(r, Request::Stop { .. }));
                    if self.waiting.len() < ENOUGH && !stopping && self.pace.ready_at(now) > now {
                        return None;
                    }
                    self.pace.take(now);
                    let gathered = self.gather();
                    self.commit(gathered).await;
                    if self.log.is_over() {
                        self.prune().await;
                    }
                }
                _ => match self.waiting.pop_front()? {
                    Request::Stop { reply } => return Some(reply),
                    Request::Configure(settings) => {
                        self.log.set_limits(settings.limits);
                        self.pace.set_interval(settings.interval);
                        self.prune_at = Instant::now();
                    }
                    Request::ClockChanged => {
                        crate::clocks::look(&self.stamper.clock);
                        if self.boot_record(self.stamper.now()).is_some_and(|boot| boot.began.is_some()) {
                            self.commit(Gathered::default()).await;
                        }
                    }
                    Request::Record { .. } => {}
                },
            }
        }
    }

    fn gather(&mut self) -> Gathered {
        let mut gathered = Gathered::default();
        let mut room = MAX_GROUP_BYTES;
        while let Some(Request::Record { samples, .. }) = self.waiting.front() {
            let bytes: usize = samples.iter().map(Sample::bytes).sum();
            if bytes > room && !gathered.recorded.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            if let Some(Request::Record { samples, at, reply }) = self.waiting.pop_front() {
                gathered.replies.push((gathered.recorded.len() as u64, reply));
                gathered.recorded.extend(samples.into_iter().map(|sample| Recorded { sample, at }));
            }
        }
        gathered
    }

    async fn commit(&mut self, gathered: Gathered) {
        let moment = self.stamper.now();
        let group = self.log.plan(gathered.recorded);
        let boot = self.boot_record(moment);
        let due = self.time_stored.is_none_or(|at| at.elapsed() >= STORE_TIME_EVERY);
        let time = (moment.trusted && due).then_some(moment.wall);
        let outcome = match batch(&group, self.stamper.boot, boot.as_ref(), time) {
            Ok(batch) => self.store.commit(batch).await,
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Ok(()) => {
                self.log.committed(&group);
                if boot.is_some() {
                    self.boot.known = boot;
                }
                if time.is_some() {
                    self.time_stored = Some(Instant::now());
                }
                if std::mem::take(&mut self.failing) {
                    tracing::info!("readings are recorded again");
                }
                Ok(())
            }
            Err(error) => {
                self.log.failed(&group);
                self.shown.failed.fetch_add(group.end - group.first, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "readings can't be recorded");
                }
                Err(RecordError::Store(error))
            }
        };
        self.rest.used(group.blocks.iter().map(|(_, block)| block.bytes()).sum(), Instant::now());
        if outcome.is_ok() {
            self.show();
        }
        for (at, reply) in gathered.replies {
            // Whoever asked may have gone.
            let _ = reply.try_send(outcome.clone().map(|()| group.first + at));
        }
    }

    /// Durable from here on: followers may see it.
    fn show(&self) {
        self.shown.bytes.store(self.log.bytes().unwrap_or(0), Ordering::Relaxed);
        self.shown.given.store(self.log.given(), Ordering::Release);
        self.shown.newest.store(self.log.newest(), Ordering::Release);
        let followers = self.shown.followers.lock().unwrap_or_else(PoisonError::into_inner);
        for follower in followers.iter() {
            // Full: it has a token already.
            let _ = follower.try_send(());
        }
    }

    /// What is to be stored about this boot, if it is news: that it is, or
    /// when it began.
    fn boot_record(&self, moment: Moment) -> Option<BootRecord> {
        let began = moment.trusted.then(|| moment.wall.saturating_sub(moment.monotonic));
        match &self.boot.known {
            Some(known) if known.began.is_some() || began.is_none() => None,
            _ => Some(BootRecord { id: serde_bytes::ByteArray::new(*self.boot.id.as_bytes()), began }),
        }
    }

    async fn rest(&mut self) {
        let why = self.rest.poll_timeout().map(|(_, why)| why);
        let done = self.store.rest().await;
        memory::give_back();
        self.rest.tried(done, Instant::now());
        tracing::debug!(why, done, "the database was opened anew");
    }

    async fn prune(&mut self) {
        self.prune_at = Instant::now() + PRUNE_EVERY;
        loop {
            let store = self.store.clone();
            let oldest =
                match aside("farm-read", move || query::oldest(&store)).await.unwrap_or_else(not_read) {
                    Ok(oldest) => oldest,
                    Err(error) => return tracing::warn!(%error, "old readings can't be removed now"),
                };
            let moment = self.stamper.now();
            let Some(prune) = self.log.prune(&oldest, moment.trusted.then_some(moment.wall)) else { return };
            let done = async {
                let mut batch = Batch::new();
                for first in &prune.blocks {
                    batch.remove(&BLOCKS, first)?;
                }
                batch.put(&FIRST, &(), &prune.first_kept)?;
                self.forget(&mut batch, prune.first_kept)?;
                self.store.commit(batch).await
            };
            if let Err(error) = done.await {
                return tracing::warn!(%error, "old readings can't be removed now");
            }
            self.log.pruned(&prune);
            self.shown.bytes.store(self.log.bytes().unwrap_or(0), Ordering::Relaxed);
            self.shown.pruned.fetch_add(prune.readings, Ordering::Relaxed);
            tracing::info!(
                readings = prune.readings,
                before = prune.first_kept,
                "the oldest readings were removed"
            );
        }
    }

    /// Holes and boots that only pruned readings were about.
    fn forget(&self, batch: &mut Batch, first_kept: u64) -> Result<(), farm_store::Error> {
        const AT_ONCE: usize = 128;
        for (first, hole) in self.store.range(&HOLES, ..first_kept, AT_ONCE)? {
            if hole.last < first_kept {
                batch.remove(&HOLES, &first)?;
            }
        }
        let kept = self.store.range(&BLOCKS, first_kept.., 1)?.pop();
        let boot = kept.map_or(self.stamper.boot, |(_, block)| block.start.boot);
        for (number, _) in self.store.range(&BOOTS, ..boot, AT_ONCE)? {
            batch.remove(&BOOTS, &number)?;
        }
        Ok(())
    }

    /// Counts in the background what was there at the start.
    fn count(&self) {
        let (store, end, count) = (self.store.clone(), self.log.given() + 1, self.count.clone());
        farm_tunnel::executor::spawn(async move {
            match aside("farm-read", move || query::measure(&store, end)).await.unwrap_or_else(not_read) {
                // The writer has ended.
                Ok(bytes) => drop(count.try_send(bytes)),
                Err(error) => {
                    tracing::warn!(%error, "stored readings can't be counted: none is removed for size")
                }
            }
        })
        .detach();
    }

    async fn end(mut self) {
        self.requests.close();
        while self.has_records() {
            let gathered = self.gather();
            self.commit(gathered).await;
        }
        let Some(next) = self.log.close() else { return };
        let mut batch = Batch::new();
        let put = batch.put(&RESERVED, &(), &next).map(drop);
        let done = match put {
            Ok(()) => self.store.commit(batch).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the next start leaves some numbers out");
        }
    }
}

/// A timer, where there is a time.
async fn at(when: Option<Instant>, wake: Wake) -> Wake {
    match when {
        Some(when) => drop(smol::Timer::at(when).await),
        None => std::future::pending().await,
    }
    wake
}

fn batch(
    group: &Group,
    boot_number: u32,
    boot: Option<&BootRecord>,
    time: Option<u64>,
) -> Result<Batch, farm_store::Error> {
    let mut batch = Batch::new();
    for (first, block) in &group.blocks {
        batch.put(&BLOCKS, first, block)?;
    }
    for (first, hole) in &group.holes {
        batch.put(&HOLES, first, hole)?;
    }
    if let Some(reserved) = group.reserve {
        batch.put(&RESERVED, &(), &reserved)?;
    }
    if let Some(boot) = boot {
        batch.put(&BOOTS, &boot_number, boot)?;
    }
    if let Some(time) = time {
        batch.put(&TIME, &(), &time)?;
    }
    Ok(batch)
}
