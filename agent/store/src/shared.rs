//! What the handles and the writer share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    engine::Engine,
    error::Error,
    report::{Alarm, Counters},
    vital::Vital,
};

/// Alarms kept until somebody takes them; the first ones tell most.
const MAX_ALARMS: usize = 32;

/// Whether the database can be read.
#[derive(Debug)]
pub(crate) enum Access {
    Open(Arc<Engine>),
    /// Dropped after a failure, being opened again.
    Down(String),
    Closed,
}

#[derive(Debug)]
pub(crate) struct Shared {
    access: RwLock<Access>,
    vital: RwLock<Vital>,
    alarms: Mutex<Vec<Alarm>>,
    pub(crate) counts: Counts,
}

/// [`Counters`] as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) batches: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) mirror_writes: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) reopens: AtomicU64,
    pub(crate) damaged_values: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        // Only ever read for display: no ordering with anything else.
        counter.fetch_add(n, Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        Counters {
            batches: self.batches.load(Relaxed),
            groups: self.groups.load(Relaxed),
            mirror_writes: self.mirror_writes.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            reopens: self.reopens.load(Relaxed),
            damaged_values: self.damaged_values.load(Relaxed),
        }
    }
}

impl Shared {
    pub(crate) fn new(engine: Arc<Engine>, vital: Vital) -> Self {
        Shared {
            access: RwLock::new(Access::Open(engine)),
            vital: RwLock::new(vital),
            alarms: Mutex::default(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn set_access(&self, access: Access) {
        let old = {
            let mut current = self.access.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, access)
        };
        // Closing a database takes an fsync: not under the lock.
        drop(old);
    }

    /// Replaces the open database by what `replace` makes of it; whoever wants
    /// to read waits for that. Not while somebody reads: then gives it back.
    pub(crate) fn exchange(&self, replace: impl FnOnce(Engine) -> Access) -> Result<(), Option<Arc<Engine>>> {
        let mut current = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let (found, refused) = match std::mem::replace(&mut *current, Access::Closed) {
            Access::Open(engine) => match Arc::try_unwrap(engine) {
                Ok(engine) => {
                    *current = replace(engine);
                    return Ok(());
                }
                Err(engine) => (Access::Open(Arc::clone(&engine)), Some(engine)),
            },
            other => (other, None),
        };
        *current = found;
        Err(refused)
    }

    pub(crate) fn engine(&self) -> Result<Arc<Engine>, Error> {
        match &*self.access() {
            Access::Open(engine) => Ok(Arc::clone(engine)),
            Access::Down(why) => Err(Error::Unavailable { why: why.clone() }),
            Access::Closed => Err(Error::Closed),
        }
    }

    /// Why the database can't be used, `None` while it can.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.access() {
            Access::Open(_) => None,
            Access::Down(why) => Some(why.clone()),
            Access::Closed => Some(Error::Closed.to_string()),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.access(), Access::Closed)
    }

    pub(crate) fn vital(&self) -> RwLockReadGuard<'_, Vital> {
        self.vital.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn vital_mut(&self) -> RwLockWriteGuard<'_, Vital> {
        self.vital.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an alarm until it is taken; one that is there already is not
    /// repeated.
    pub(crate) fn raise(&self, alarm: Alarm) {
        let mut alarms = self.alarms();
        if alarms.len() < MAX_ALARMS && !alarms.contains(&alarm) {
            alarms.push(alarm);
        }
    }

    pub(crate) fn take_alarms(&self) -> Vec<Alarm> {
        std::mem::take(&mut *self.alarms())
    }

    fn alarms(&self) -> MutexGuard<'_, Vec<Alarm>> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }
}
