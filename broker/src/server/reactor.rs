//! What one thread's tasks wait for: its sockets, its alarms, and what other
//! threads wake.
//!
//! The thread waits for its sockets itself, between two rounds of its tasks.
//! Waited for by the runtime's own thread, every message that comes alone wakes
//! two threads and costs a dozen system calls: that was more than half of what
//! an idle device cost the broker. The kernel tells of each socket once when it
//! has become readable or writable (edge-triggered), so nothing is armed anew:
//! a message is one wait, one read and one write.
//!
//! [`Stream`], [`Listener`] and [`Alarm`] belong to the thread that polls them.

mod alarm;
mod listener;
mod source;
mod stream;

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use slab::Slab;

use alarm::Alarms;
pub(super) use alarm::{Alarm, AlarmTimer};
pub(super) use listener::Listener;
use source::Source;
pub(super) use stream::Stream;

/// Sockets that are told of at once.
const AT_ONCE: usize = 256;

/// Rest after an error of the wait, so that one that stays does not take the
/// processor.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// The key of what other threads wake this one by; sockets are numbered from 0.
const WAKEUP: u64 = u64::MAX;

/// The key of the clock that the alarms are set at.
const CLOCK: u64 = u64::MAX - 1;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Reactor>>> = const { RefCell::new(None) };
}

/// One thread's.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    wakeup: OwnedFd,
    clock: OwnedFd,
    /// The thread waits, or is about to.
    sleeping: AtomicBool,
    /// There is something to do besides sockets and alarms.
    notified: AtomicBool,
    /// By their keys. A key is used again, so a socket may be told what was
    /// meant for the one before: it is tried in vain then, once.
    sources: Mutex<Slab<Arc<Source>>>,
    alarms: Mutex<Alarms>,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wakeup = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: it need not be read.
        epoll::add(&epoll, &wakeup, EventData::new_u64(WAKEUP), EventFlags::IN | EventFlags::ET)?;
        let clock =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &clock, EventData::new_u64(CLOCK), EventFlags::IN | EventFlags::ET)?;
        Ok(Arc::new(Self {
            epoll,
            wakeup,
            clock,
            sleeping: AtomicBool::new(false),
            notified: AtomicBool::new(false),
            sources: Mutex::default(),
            alarms: Mutex::default(),
        }))
    }

    /// The reactor of this thread.
    fn current() -> Arc<Self> {
        CURRENT.with_borrow(Option::clone).expect("polled on one of the broker's own threads")
    }

    /// Runs a future on this thread, and waits here for all that it needs.
    pub(super) fn block_on<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        CURRENT.set(Some(self.clone()));
        let mut future = pin!(future);
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let mut wakers = Vec::new();
        let done = loop {
            self.notified.store(false, Ordering::SeqCst);
            if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
                break done;
            }
            if let Err(error) = self.wait(&mut wakers)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "sockets can't be waited for");
                std::thread::sleep(AFTER_ERROR);
            }
            for waker in wakers.drain(..) {
                waker.wake();
            }
        };
        CURRENT.set(None);
        done
    }

    /// Waits until there is something to do; gives who is to be woken.
    fn wait(&self, wakers: &mut Vec<Waker>) -> io::Result<()> {
        let earlier = locked(&self.alarms).needed();
        if let Some(due) = earlier {
            self.set_clock(due.saturating_duration_since(Instant::now()))
                .inspect_err(|_| locked(&self.alarms).clock_failed())?;
        }
        // Said before it is looked whether somebody woke it: whoever does later
        // sees it, see `wake_by_ref`.
        self.sleeping.store(true, Ordering::SeqCst);
        let timeout = self.notified.load(Ordering::SeqCst).then_some(Timespec::default());
        let mut events = [const { MaybeUninit::uninit() }; AT_ONCE];
        let waited = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref());
        self.sleeping.store(false, Ordering::SeqCst);
        let (events, _) = waited?;
        let sources = locked(&self.sources);
        for event in events.iter() {
            match event.data.u64() {
                WAKEUP => {}
                CLOCK => locked(&self.alarms).take_due(Instant::now(), wakers),
                key => {
                    if let Some(source) = usize::try_from(key).ok().and_then(|key| sources.get(key)) {
                        source.happened(event.flags, wakers);
                    }
                }
            }
        }
        Ok(())
    }

    fn set_clock(&self, after: Duration) -> io::Result<()> {
        // Zero would stop it.
        let it_value = timespec(after.max(Duration::from_nanos(1)));
        let time = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }

    /// Watches a socket that is nonblocking.
    fn watch(&self, socket: impl AsFd) -> io::Result<Arc<Source>> {
        let source = {
            let mut sources = locked(&self.sources);
            let place = sources.vacant_entry();
            let source = Arc::new(Source::new(place.key()));
            place.insert(source).clone()
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let key = EventData::new_u64(source.key as u64);
        if let Err(error) = epoll::add(&self.epoll, socket, key, flags) {
            self.forget(&source);
            return Err(error.into());
        }
        Ok(source)
    }

    /// Of a socket that is going to be closed.
    fn forget(&self, source: &Source) {
        locked(&self.sources).remove(source.key);
    }

    /// Of a socket that another thread goes on with.
    fn release(&self, source: &Source, socket: impl AsFd) -> io::Result<()> {
        self.forget(source);
        Ok(epoll::delete(&self.epoll, socket)?)
    }
}

impl Wake for Reactor {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.notified.swap(true, Ordering::SeqCst) && self.sleeping.load(Ordering::SeqCst) {
            // Refused only if the counter is full: then it is readable already.
            let _full = rustix::io::write(&self.wakeup, &1u64.to_ne_bytes());
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timespec(duration: Duration) -> Timespec {
    // A time that no clock reaches is as good as any other such.
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests;
