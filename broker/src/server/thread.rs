//! The two threads that do the work, and how tasks get to run on them.
//!
//! *Strangers* accepts sockets, shakes hands and answers requests for pages: a
//! flood of any of these is work for this thread alone. *Devices* has the core
//! and the sockets of all that are in. Datagrams have a third, see
//! [`super::datagrams`]. The kernel shares the processor between them, and lets
//! the one that slept first. But whoever works has a time slice of some
//! milliseconds to itself, which is as long as a message of a device is late on
//! a processor that strangers keep busy. So *strangers* gives way after each
//! fraction of that: who is in hardly notices who wants in, even on a single core.
//!
//! Each waits for its own sockets and alarms, see [`super::reactor`]. What else
//! there is (the admin socket, NATS, a webhook) is waited for by the runtime's
//! own thread, and by it alone: with `smol::spawn` or `smol::block_on` anywhere
//! in the program other threads would wait for it, too, and they take that from
//! each other again and again with hundreds of wake-ups a second.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::Sender;
use smol::{Executor, Task};

use super::reactor::Reactor;

/// A thread that has tasks to do looks at its sockets and alarms this often, at
/// least: a step of a task takes 10 to 300 µs, so a flood of steps delays who
/// comes new by one or two. A look costs half a microsecond.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// How a thread stands to the others of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// As the kernel has it.
    Equal,
    /// It lets others that wait for its processor go first whenever it looks at
    /// its sockets.
    GivesWay,
}

/// A thread; it ends when this is dropped, with all that runs on it.
pub(super) struct Thread {
    executor: Arc<Executor<'static>>,
    /// Dropped at the end.
    _running: Sender<Infallible>,
}

/// Starts tasks on a thread.
#[derive(Clone)]
pub(super) struct Door(Arc<Executor<'static>>);

impl Thread {
    /// Starts it; the name is seen by the operator's tools.
    pub(super) fn start(name: &str, manners: Manners) -> io::Result<Self> {
        let executor = Arc::new(Executor::new());
        let (running, ended) = async_channel::bounded::<Infallible>(1);
        let on_thread = executor.clone();
        let reactor = Reactor::new()?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ended = async {
                // Nobody ever sends here.
                let _dropped = ended.recv().await;
            };
            reactor.block_on(smol::future::or(ended, work(&on_thread, manners)));
        })?;
        Ok(Self { executor, _running: running })
    }

    /// A way to start tasks on it.
    pub(super) fn door(&self) -> Door {
        Door(self.executor.clone())
    }
}

/// Runs tasks for ever, and lets the thread look at what it waits for in time.
async fn work(executor: &Executor<'static>, manners: Manners) {
    let mut looked = Instant::now();
    loop {
        if !executor.try_tick() {
            executor.tick().await;
            looked = Instant::now();
        } else if looked.elapsed() >= LOOK_EVERY {
            if manners == Manners::GivesWay {
                std::thread::yield_now();
            }
            smol::future::yield_now().await;
            looked = Instant::now();
        }
    }
}

impl Door {
    /// Starts a task.
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        self.0.spawn(task)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::server::reactor::Alarm;

    #[test]
    fn its_tasks_run_on_its_thread() {
        let thread = Thread::start("strangers", Manners::GivesWay).unwrap();
        let name = thread.door().spawn(async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(smol::block_on(name).as_deref(), Some("strangers"));
    }

    #[test]
    fn a_flood_of_steps_holds_up_no_alarm() {
        let thread = Thread::start("devices", Manners::Equal).unwrap();
        let door = thread.door();
        let steps = Arc::new(AtomicU32::new(0));
        let counted = steps.clone();
        let flood = door.spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
                smol::future::yield_now().await;
            }
        });
        let before = smol::block_on(door.spawn(async move {
            let before = steps.load(Ordering::Relaxed);
            Alarm::after(LOOK_EVERY).await;
            steps.load(Ordering::Relaxed) - before
        }));
        assert!(before < 20, "{before} steps were done first");
        drop(flood);
    }
}
