//! The two threads that do the work, and how tasks get to run on them.
//!
//! *Strangers* accepts sockets, shakes hands and answers requests for pages: a
//! flood of any of these is work for this thread alone. *Devices* has the core
//! and the sockets of all that are in. Datagrams have a third, see
//! [`super::datagrams`]. The kernel shares the processor between them, and lets
//! the one that slept first: who is in hardly notices who wants in, even on a
//! single core.
//!
//! Each waits for its own sockets and alarms, see [`super::reactor`]. What else
//! there is (the admin socket, NATS, a webhook) is waited for by the runtime's
//! own thread, and by it alone: with `smol::spawn` or `smol::block_on` anywhere
//! in the program other threads would wait for it, too, and they take that from
//! each other again and again with hundreds of wake-ups a second.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_channel::Sender;
use smol::{Executor, Task};

use super::reactor::Reactor;

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
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let executor = Arc::new(Executor::new());
        let (running, ended) = async_channel::bounded::<Infallible>(1);
        let on_thread = executor.clone();
        let reactor = Reactor::new()?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            reactor.block_on(on_thread.run(async {
                // Nobody ever sends here.
                let _dropped = ended.recv().await;
            }));
        })?;
        Ok(Self { executor, _running: running })
    }

    /// A way to start tasks on it.
    pub(super) fn door(&self) -> Door {
        Door(self.executor.clone())
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
    use super::*;

    #[test]
    fn its_tasks_run_on_its_thread() {
        let thread = Thread::start("strangers").unwrap();
        let name = thread.door().spawn(async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(smol::block_on(name).as_deref(), Some("strangers"));
    }
}
