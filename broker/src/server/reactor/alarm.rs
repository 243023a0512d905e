//! Times to wake at. To set one costs the kernel nothing, unless it is earlier
//! than all others: the thread sets its clock to the earliest before it waits,
//! and leaves it there when that one is no longer wanted, so that it is set once
//! for many waits.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use super::{Reactor, locked};

/// All of one thread.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    set: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    /// What the clock stands at, until it strikes.
    clock: Option<Instant>,
}

impl Alarms {
    /// What the clock is to be set to, if it must be.
    pub(super) fn needed(&mut self) -> Option<Instant> {
        let (&(earliest, _), _) = self.set.first_key_value()?;
        if self.clock.is_some_and(|at| at <= earliest) {
            return None;
        }
        self.clock = Some(earliest);
        self.clock
    }

    /// The clock could not be set.
    pub(super) fn clock_failed(&mut self) {
        self.clock = None;
    }

    /// The clock struck.
    pub(super) fn take_due(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        self.clock = None;
        while let Some(first) = self.set.first_entry()
            && first.key().0 <= now
        {
            wakers.push(first.remove());
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

/// Ready at its time. It is set by the thread that polls it first.
#[derive(Debug)]
pub(in crate::server) struct Alarm {
    at: Option<Instant>,
    set: Option<Set>,
}

#[derive(Debug)]
struct Set {
    reactor: Arc<Reactor>,
    key: (Instant, u64),
    waker: Waker,
}

impl Alarm {
    pub(in crate::server) fn at(at: Instant) -> Self {
        Self { at: Some(at), set: None }
    }

    pub(in crate::server) fn after(duration: Duration) -> Self {
        // Out of the clock's range: never.
        Self { at: Instant::now().checked_add(duration), set: None }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        if let Some(set) = &mut self.set {
            if !set.waker.will_wake(cx.waker()) {
                set.waker.clone_from(cx.waker());
                locked(&set.reactor.alarms).set.insert(set.key, set.waker.clone());
            }
            return Poll::Pending;
        }
        let (reactor, waker) = (Reactor::current(), cx.waker().clone());
        let mut alarms = locked(&reactor.alarms);
        let key = (at, alarms.next);
        alarms.next += 1;
        alarms.set.insert(key, waker.clone());
        drop(alarms);
        self.set = Some(Set { reactor, key, waker });
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(Set { reactor, key, .. }) = &self.set {
            locked(&reactor.alarms).set.remove(key);
        }
    }
}

impl Sleep for Alarm {}

/// Alarms for hyper.
#[derive(Debug)]
pub(in crate::server) struct AlarmTimer;

impl Timer for AlarmTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Alarm::after(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Alarm::at(deadline))
    }
}
