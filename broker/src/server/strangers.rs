//! The thread that serves strangers: it accepts sockets, shakes hands, answers
//! requests for pages and STUN. A flood of any of these is work for this thread
//! alone. The kernel shares the processor between it and the one that serves
//! devices, and lets the one that slept first: who is in hardly notices who
//! wants in, even on a single core.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_channel::Sender;
use smol::{Executor, Task};

/// The thread; it ends when this is dropped, with all that runs on it.
pub(super) struct Strangers {
    executor: Arc<Executor<'static>>,
    /// Dropped at the end.
    _running: Sender<Infallible>,
}

/// Starts tasks on that thread.
#[derive(Clone)]
pub(super) struct Door(Arc<Executor<'static>>);

impl Strangers {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let executor = Arc::new(Executor::new());
        let (running, ended) = async_channel::bounded::<Infallible>(1);
        let on_thread = executor.clone();
        std::thread::Builder::new().name("strangers".to_owned()).spawn(move || {
            // Only sleeps while there is nothing to do: the events of sockets are
            // waited for by the other threads, which devices depend on as well.
            smol::future::block_on(on_thread.run(async {
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
        let strangers = Strangers::start().unwrap();
        let name = strangers.door().spawn(async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(smol::block_on(name).as_deref(), Some("strangers"));
    }
}
