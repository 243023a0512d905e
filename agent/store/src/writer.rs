//! The one writer: a thread that gathers waiting batches into a group, makes
//! it durable with one fsync, and answers all of them. It also notices
//! failures, lets go of the database and opens it again.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};

use crate::{
    batch::Batch,
    bring_up::{Options, Up, bring_up},
    directory::Claim,
    engine::{self, Caution, Engine, PAGE_BYTES},
    error::{Error, OpenError},
    failure::Failure,
    group::{Group, MAX_GROUP_BATCHES},
    meta::Meta,
    mirror,
    restart::Orders,
    shared::{Access, Counts, Shared},
    vital::Vital,
};

/// The mirror's high-water mark may be this many group commits old; so many
/// ordinary commits a damaged tail can lose unnoticed (vital ones none, and
/// none after a close). Each mirror write costs about 12 KB on the card, 64
/// groups at least 260 KB: 5 % more.
const MIRROR_EVERY: u64 = 64;

/// After the first failure the database is opened again at once, then after
/// this, doubled each time ...
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// ... up to this: each open may write half a megabyte, and 30 s is soon
/// enough to notice that space was freed.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How often damage met while reading may make it read everything.
const INSPECT_EVERY: Duration = Duration::from_secs(60);

/// What handles ask for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Make a batch durable, then answer.
    Commit { batch: Batch, reply: Sender<Result<(), Error>> },
    /// A read met damage: look at everything.
    Inspect,
    /// Close the database and open it again; answer whether that was done.
    Rest { reply: Sender<bool> },
    /// Finish, release the directory, then answer.
    Close { reply: Sender<()> },
}

/// What the writer does next.
enum Next {
    Handle(Request),
    TryAgain,
    /// No handle is left.
    End,
}

#[derive(Debug)]
enum State {
    Up(Arc<Engine>),
    Down { caution: Caution, next_try: Instant },
}

pub(crate) struct Writer {
    claim: Claim,
    options: Options,
    started: Instant,
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    /// Met while gathering a group, not part of it.
    pending: Option<Request>,
    state: State,
    meta: Meta,
    /// The commit that the mirror knows of.
    mirrored: u64,
    /// Failures since the last successful commit.
    failures: u32,
    inspected: Option<Instant>,
}

impl Writer {
    /// Starts the thread and gives the handles' side of it. It ends when all
    /// senders are gone or one asks it to.
    pub(crate) fn start(
        claim: Claim,
        options: Options,
        up: Up,
    ) -> Result<(Arc<Shared>, Sender<Request>), OpenError> {
        let root = claim.layout().root().to_path_buf();
        let (sender, requests) = async_channel::bounded(MAX_GROUP_BATCHES);
        let engine = Arc::new(up.engine);
        let shared = Arc::new(Shared::new(Arc::clone(&engine), up.vital));
        let writer = Writer {
            claim,
            options,
            started: Instant::now(),
            shared: Arc::clone(&shared),
            requests,
            pending: None,
            state: State::Up(engine),
            meta: up.meta,
            mirrored: up.mirrored,
            failures: 0,
            inspected: None,
        };
        thread::Builder::new()
            .name("farm-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| OpenError::from_io("starting the writer of", &root, e))?;
        Ok((shared, sender))
    }

    fn run(mut self) {
        let closer = loop {
            match self.next() {
                Next::Handle(Request::Commit { batch, reply }) => self.commit(batch, reply),
                Next::Handle(Request::Inspect) => self.inspect(),
                Next::Handle(Request::Rest { reply }) => {
                    let done = self.rest();
                    // Whoever asked may have stopped waiting.
                    let _received = reply.try_send(done);
                }
                Next::Handle(Request::Close { reply }) => break Some(reply),
                Next::TryAgain => self.try_again(),
                Next::End => break None,
            }
        };
        self.shut_down();
        if let Some(reply) = closer {
            // Whoever asked may have stopped waiting.
            let _received = reply.try_send(());
        }
    }

    fn next(&mut self) -> Next {
        if let Some(request) = self.pending.take() {
            return Next::Handle(request);
        }
        let received = match self.state {
            State::Up(_) => self.requests.recv_blocking(),
            State::Down { next_try, .. } => {
                let waited = smol::future::block_on(smol::future::or(
                    async { Some(self.requests.recv().await) },
                    async {
                        smol::Timer::at(next_try).await;
                        None
                    },
                ));
                match waited {
                    Some(received) => received,
                    None => return Next::TryAgain,
                }
            }
        };
        received.map_or(Next::End, Next::Handle)
    }

    fn commit(&mut self, batch: Batch, reply: Sender<Result<(), Error>>) {
        let State::Up(engine) = &self.state else {
            let why = self.shared.trouble().unwrap_or_default();
            answer(&reply, Err(Error::Unavailable { why }));
            return;
        };
        let engine = Arc::clone(engine);
        let (group, replies) = self.gather(batch, reply);
        if group.is_empty() {
            return;
        }
        let outcome = self.write(&engine, &group);
        drop(engine);
        let answered = match outcome {
            Ok(()) => {
                self.failures = 0;
                Counts::add(&self.shared.counts.batches, replies.len() as u64);
                Ok(())
            }
            Err(failure) => {
                let why = failure.text();
                self.go_down(&failure);
                Err(Error::NotCommitted { why })
            }
        };
        for reply in &replies {
            answer(reply, answered.clone());
        }
    }

    /// Gathers what is waiting, without waiting for more: while one group is
    /// on its way to the disk, the next one queues up by itself.
    fn gather(
        &mut self,
        batch: Batch,
        reply: Sender<Result<(), Error>>,
    ) -> (Group, Vec<Sender<Result<(), Error>>>) {
        let vital = self.shared.vital();
        let mut group = Group::after(&self.meta, &vital);
        let mut replies = Vec::new();
        let mut add = |group: &mut Group, batch, reply| match group.add(batch, &vital) {
            Ok(()) => replies.push(reply),
            Err(refused) => answer(&reply, Err(refused)),
        };
        add(&mut group, batch, reply);
        while group.has_room() {
            match self.requests.try_recv() {
                Ok(Request::Commit { batch, reply }) => add(&mut group, batch, reply),
                Ok(other) => {
                    self.pending = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        (group, replies)
    }

    /// Database first, then the mirror: so a mirror that is ahead of the
    /// database always means that the database has lost something.
    fn write(&mut self, engine: &Engine, group: &Group) -> Result<(), Failure> {
        let counts = &self.shared.counts;
        let meta = group.meta();
        let bytes = engine.commit(group.writes(), group.is_atomic())?;
        Counts::add(&counts.groups, 1);
        Counts::add(&counts.bytes_written, bytes);
        let changes_vital = meta.vital_commit != self.meta.vital_commit;
        if changes_vital {
            let mut vital = self.shared.vital().clone();
            vital.apply(group.writes());
            self.write_mirror(&meta, &vital)?;
            *self.shared.vital_mut() = vital;
        } else if meta.commit - self.mirrored >= MIRROR_EVERY {
            let vital = self.shared.vital().clone();
            self.write_mirror(&meta, &vital)?;
        }
        self.meta = meta;
        Ok(())
    }

    fn write_mirror(&mut self, meta: &Meta, vital: &Vital) -> Result<(), Failure> {
        let bytes = mirror::write(self.claim.layout(), meta, vital).map_err(|e| match e {
            OpenError::Io { source, .. } => Failure::Io(source),
            other => Failure::Io(io::Error::other(other.to_string())),
        })?;
        self.mirrored = meta.commit;
        let counts = &self.shared.counts;
        Counts::add(&counts.mirror_writes, 1);
        // The file's pages, and the directory's for the renames.
        Counts::add(&counts.bytes_written, bytes.next_multiple_of(PAGE_BYTES) + PAGE_BYTES);
        Ok(())
    }

    /// Brings the mirror's high-water mark up to the newest commit.
    fn update_mirror(&mut self) -> Result<(), Failure> {
        if self.mirrored == self.meta.commit {
            return Ok(());
        }
        let vital = self.shared.vital().clone();
        let meta = self.meta;
        self.write_mirror(&meta, &vital)
            .inspect_err(|failure| tracing::warn!(why = failure.text(), "could not write the mirror"))
    }

    /// Lets go of the database. What failed is never tried again on the same
    /// handle: after a failed fsync the kernel would claim success.
    fn go_down(&mut self, failure: &Failure) {
        let why = failure.text();
        tracing::error!(why, "the store failed, it will be opened again");
        let caution =
            Caution { distrust_cache: true, read_everything: matches!(failure, Failure::Damaged(_)) };
        self.set_down(caution, why);
    }

    fn set_down(&mut self, caution: Caution, why: String) {
        let why = self.plan_next_try(caution, why);
        self.shared.set_access(Access::Down(why));
    }

    /// What readers are to be told.
    fn plan_next_try(&mut self, caution: Caution, why: String) -> String {
        let next_try = Instant::now() + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down { caution, next_try };
        why
    }

    fn try_again(&mut self) {
        let State::Down { caution, .. } = self.state else {
            return;
        };
        let up = self
            .claim
            .probe()
            .and_then(|()| bring_up(self.claim.layout(), &self.options_now(), caution, Orders::Nothing));
        match up {
            Ok(up) => self.adopt(up),
            Err(e) => {
                let why = e.to_string();
                if self.shared.trouble().as_ref() != Some(&why) {
                    tracing::warn!(error = why, "the store can't be opened yet");
                }
                self.set_down(caution, why);
            }
        }
    }

    fn adopt(&mut self, up: Up) {
        let engine = self.take_over(up);
        Counts::add(&self.shared.counts.reopens, 1);
        self.shared.set_access(Access::Open(engine));
        tracing::info!(commits = self.meta.commit, "the store is open again");
    }

    /// What readers are to be given.
    fn take_over(&mut self, up: Up) -> Arc<Engine> {
        let engine = Arc::new(up.engine);
        self.meta = up.meta;
        self.mirrored = up.mirrored;
        *self.shared.vital_mut() = up.vital;
        for alarm in up.report.alarms {
            self.shared.raise(alarm);
        }
        self.state = State::Up(Arc::clone(&engine));
        engine
    }

    /// A close and an open, as at a restart, but for the readers, who wait.
    fn rest(&mut self) -> bool {
        if !matches!(self.state, State::Up(_)) || self.update_mirror().is_err() {
            return false;
        }
        let fresh = State::Down { caution: Caution::default(), next_try: Instant::now() };
        drop(std::mem::replace(&mut self.state, fresh));
        let shared = Arc::clone(&self.shared);
        let exchanged = shared.exchange(|engine| {
            let failed = engine.close().inspect_err(|failure| {
                tracing::warn!(why = failure.text(), "the store failed while resting")
            });
            // All that was acknowledged had reached the disk before.
            let caution = Caution { distrust_cache: failed.is_err(), ..Caution::default() };
            match bring_up(self.claim.layout(), &self.options_now(), caution, Orders::Nothing) {
                Ok(up) => Access::Open(self.take_over(up)),
                Err(e) => {
                    tracing::error!(error = %e, "the store closed to rest and can't be opened yet");
                    Access::Down(self.plan_next_try(caution, e.to_string()))
                }
            }
        });
        match exchanged {
            Ok(()) => matches!(self.state, State::Up(_)),
            Err(engine) => {
                if let Some(engine) = engine {
                    self.state = State::Up(engine);
                }
                false
            }
        }
    }

    fn options_now(&self) -> Options {
        Options { wall_time: self.options.wall_time + self.started.elapsed().as_secs(), ..self.options }
    }

    fn inspect(&mut self) {
        let recently = self.inspected.is_some_and(|last| last.elapsed() < INSPECT_EVERY);
        if recently || !matches!(self.state, State::Up(_)) {
            return;
        }
        self.inspected = Some(Instant::now());
        self.go_down(&Failure::Damaged("a read met damage".to_owned()));
    }

    fn shut_down(mut self) {
        self.requests.close();
        if matches!(self.state, State::Up(_)) {
            // Without it only the high-water mark is older than it could be.
            let _warned = self.update_mirror();
        }
        self.state = State::Down { caution: Caution::default(), next_try: Instant::now() };
        self.shared.set_access(Access::Closed);
        if !engine::wait_released(self.claim.layout(), self.options.lock_wait) {
            tracing::warn!("the database engine did not let go of its file");
        }
    }
}

fn answer(reply: &Sender<Result<(), Error>>, result: Result<(), Error>) {
    // Whoever asked may have stopped waiting.
    let _received = reply.try_send(result);
}

/// How long to wait after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_BACKOFF.saturating_mul(1 << doublings.min(16)).min(MAX_BACKOFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_starts_at_once_and_is_bounded() {
        let seconds: Vec<u64> = (0..8).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }
}
