//! The handle that programs use.

use std::{
    ops::{ControlFlow, RangeBounds},
    path::Path,
    sync::Arc,
};

use async_channel::{Receiver, Sender};
use serde::de::DeserializeOwned;

use crate::{
    batch::Batch,
    bring_up::{Options, bring_up},
    directory::Claim,
    engine::Caution,
    error::{Error, OpenError},
    failure::Failure,
    key::Key,
    report::{Alarm, Counters, OpenReport},
    restart,
    shared::{Counts, Shared},
    table::{RawRange, Table},
    vital::Vital,
    writer::{Request, Writer},
};

/// Opens the store in the state directory `path`, creating it if need be.
///
/// Whatever power cuts or a worn card left there, this comes back with a
/// working store, or with an error that says what a person has to do; nothing
/// is ever wiped. Read [`OpenReport::alarms`].
///
/// Blocks, 20–50 ms as a rule, up to [`Options::lock_wait`] when a store of
/// this process has just been dropped: not on an executor's thread.
///
/// # Errors
/// See [`OpenError`]; [`OpenError::may_pass`] tells whether to try again.
pub fn open(path: &Path, options: Options) -> Result<(Store, OpenReport), OpenError> {
    if !restart::is_ready() {
        return Err(OpenError::PanicsEndTheProgram { path: path.to_path_buf() });
    }
    let claim = Claim::take(path, options.lock_wait)?;
    let up = bring_up(claim.layout(), &options, Caution::default(), restart::take_orders())?;
    let report = up.report.clone();
    let (shared, requests) = Writer::start(claim, options, up)?;
    Ok((Store { shared, requests }, report))
}

/// An open store. Clones are cheap and share it; when the last one is dropped
/// the store closes in the background, what was queued is still written.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    requests: Sender<Request>,
}

impl Store {
    /// Makes a batch durable: when this returns `Ok`, no power cut loses it.
    ///
    /// Batches that wait at the same time share one fsync. Where the queue is
    /// full this waits for room. Dropping the future once it was polled may or
    /// may not commit the batch.
    ///
    /// # Errors
    /// [`Error::NotCommitted`]: it may or may not be there after the database
    /// has been opened again; [`Error::Unavailable`], [`Error::VitalFull`],
    /// [`Error::Closed`]: it is not there.
    pub async fn commit(&self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (request, answer) = commit_request(batch);
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
        answer.recv().await.unwrap_or(Err(Error::Closed))
    }

    /// [`Store::commit`] for threads that may block.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (request, answer) = commit_request(batch);
        self.requests.send_blocking(request).map_err(|_| Error::Closed)?;
        answer.recv_blocking().unwrap_or(Err(Error::Closed))
    }

    /// The value under a key.
    ///
    /// Records of ordinary tables may show a moment before their commit is
    /// durable: what must not be lost after it was shown to others should be
    /// read up to the newest key that was acknowledged. Vital records show
    /// when they are durable, and also while the database is unavailable.
    ///
    /// # Errors
    /// When the record is damaged or not of the table's type, or the database
    /// is unavailable.
    pub fn get<K: Key, V: DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let raw = table.raw_key(key)?;
        let stored = if table.is_vital() {
            self.check_open()?;
            self.shared.vital().raw_get(&raw).map(<[u8]>::to_vec)
        } else {
            self.shared.engine()?.get(&raw).map_err(|failure| self.read_failed(&failure))?
        };
        stored
            .map(|stored| table.unseal(&raw, &stored))
            .transpose()
            .inspect_err(|error| self.note_damage(error))
    }

    /// The first `limit` records whose keys are in `range`, in order. Damaged
    /// values are left out, counted and alarmed.
    ///
    /// # Errors
    /// When a record is not of the table's type, or the database is
    /// unavailable.
    pub fn range<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        range: impl RangeBounds<K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.collect(table, &table.raw_range(&range), false, limit)
    }

    /// The last `limit` records whose keys are in `range`, last one first.
    /// Otherwise as [`Store::range`].
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn range_back<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        range: impl RangeBounds<K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.collect(table, &table.raw_range(&range), true, limit)
    }

    /// The first `limit` records whose keys begin with the bytes of `prefix`:
    /// the first part of a pair, or the beginning of a string. Otherwise as
    /// [`Store::range`].
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn prefix<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Key,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.collect(table, &table.raw_prefix(prefix), false, limit)
    }

    /// The record with the smallest key.
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn first<K: Key, V: DeserializeOwned>(&self, table: &Table<K, V>) -> Result<Option<(K, V)>, Error> {
        Ok(self.range(table, .., 1)?.pop())
    }

    /// The record with the largest key.
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn last<K: Key, V: DeserializeOwned>(&self, table: &Table<K, V>) -> Result<Option<(K, V)>, Error> {
        Ok(self.range_back(table, .., 1)?.pop())
    }

    /// A copy of all vital records.
    pub fn vital(&self) -> Vital {
        self.shared.vital().clone()
    }

    /// Why the database can't be used at the moment, and what to do about it;
    /// `None` while it can. The store keeps trying to open it again.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// Alarms since the last call (those of the open are in its report).
    pub fn take_alarms(&self) -> Vec<Alarm> {
        self.shared.take_alarms()
    }

    /// What the store has done since it was opened.
    pub fn counters(&self) -> Counters {
        self.shared.counts.read()
    }

    /// Estimate of the bytes handed to the disk since the store was opened:
    /// see [`Counters::bytes_written`].
    pub fn bytes_written(&self) -> u64 {
        self.counters().bytes_written
    }

    /// Closes the database and opens it again: that frees the pages that sled
    /// keeps of what was written and read, a few MB after many. Gives whether it was
    /// done: not while somebody reads, or the database is unavailable.
    ///
    /// Commits and reads in the meantime wait, 20–50 ms as a rule. An open may
    /// write a megabyte: not often.
    pub async fn rest(&self) -> bool {
        let (reply, answer) = async_channel::bounded(1);
        // Where sending or the answer fails the writer has ended.
        self.requests.send(Request::Rest { reply }).await.is_ok() && answer.recv().await.unwrap_or(false)
    }

    /// Writes what is queued, closes the database and waits until it is
    /// released, so that it can be opened again at once. Other handles get
    /// [`Error::Closed`] from then on.
    pub async fn close(self) {
        let (reply, answer) = async_channel::bounded(1);
        // Where sending or the answer fails the writer has ended: closed too.
        if self.requests.send(Request::Close { reply }).await.is_ok() {
            let _ended = answer.recv().await;
        }
    }

    /// [`Store::close`] for threads that may block.
    pub fn close_blocking(self) {
        let (reply, answer) = async_channel::bounded(1);
        if self.requests.send_blocking(Request::Close { reply }).is_ok() {
            let _ended = answer.recv_blocking();
        }
    }

    fn collect<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        range: &RawRange,
        backwards: bool,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let mut found = Vec::new();
        let mut failed = None;
        let visitor = |raw: &[u8], stored: &[u8]| {
            if found.len() >= limit {
                return ControlFlow::Break(());
            }
            let record = table.read_key(raw).and_then(|key| Ok((key, table.unseal(raw, stored)?)));
            match record {
                Ok(record) => found.push(record),
                Err(error @ Error::Damaged { .. }) => self.note_damage(&error),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        if table.is_vital() {
            self.check_open()?;
            visit_vital(&self.shared.vital(), range, backwards, visitor);
        } else {
            self.shared
                .engine()?
                .visit(range, backwards, visitor)
                .map_err(|failure| self.read_failed(&failure))?;
        }
        failed.map_or(Ok(found), Err)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.shared.is_closed() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// What a failed read means: damage makes the writer look at everything.
    fn read_failed(&self, failure: &Failure) -> Error {
        if let Failure::Damaged(_) = failure {
            // A full queue means that commits are under way: they, or the
            // next read, will tell.
            let _queued = self.requests.try_send(Request::Inspect);
        }
        Error::Unavailable { why: failure.text() }
    }

    fn note_damage(&self, error: &Error) {
        if let Error::Damaged { table } = error {
            Counts::add(&self.shared.counts.damaged_values, 1);
            self.shared.raise(Alarm::ValueDamaged { table });
        }
    }
}

fn commit_request(batch: Batch) -> (Request, Receiver<Result<(), Error>>) {
    let (reply, answer) = async_channel::bounded(1);
    (Request::Commit { batch, reply }, answer)
}

fn visit_vital(
    vital: &Vital,
    range: &RawRange,
    backwards: bool,
    mut visitor: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) {
    let mut records = vital.raw_range(range);
    while let Some((raw, stored)) = if backwards { records.next_back() } else { records.next() } {
        if visitor(raw, stored).is_break() {
            break;
        }
    }
}
