//! The thread that all tasks run on.
//!
//! smol's own executor polls the reactor from its threads, which compete for
//! it with the reactor's own thread: after each event the loser wakes ten more
//! times within 20 ms before it gives up (async-io's backoff). On an idle
//! agent that was nine tenths of all wake-ups. Here only the reactor's thread
//! waits for the operating system, and tasks run on one thread that does
//! nothing else: so agent and client call neither `smol::block_on` nor
//! `smol::spawn`, each of which brings a second thread to the reactor.

use std::future::{Future, pending};
use std::sync::Once;

use smol::future::block_on;
use smol::{Executor, Task};

static EXECUTOR: Executor<'static> = Executor::new();

/// Done once somebody runs the tasks.
static RUNS: Once = Once::new();

/// Runs a program: `main` and every task on the calling thread, until `main`
/// is done. To be called once, before anything is spawned; a library leaves it
/// to [`spawn`] to find a thread.
pub fn run<T>(main: impl Future<Output = T>) -> T {
    RUNS.call_once(|| {});
    block_on(EXECUTOR.run(main))
}

/// Starts a task. One that panics ends alone, and whoever awaits it panics; in a
/// program built with `panic = "abort"` it ends the program. It is cancelled when
/// its handle is dropped: detach it.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    RUNS.call_once(|| {
        let thread = std::thread::Builder::new().name("farm-tasks".to_owned());
        thread.spawn(run_for_ever).map(drop).expect("a process may start one thread");
    });
    EXECUTOR.spawn(future)
}

fn run_for_ever() {
    block_on(EXECUTOR.run(pending::<()>()));
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_task_that_panics_ends_alone() {
        let broken = spawn(async { panic!("as the test wants") });
        assert!(catch_unwind(AssertUnwindSafe(|| block_on(broken))).is_err());
        assert_eq!(block_on(spawn(async { 7 })), 7, "the others go on");
    }

    #[test]
    fn timers_and_sockets_work() {
        let waited = spawn(async {
            let listener = smol::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (_stream, accepted) =
                smol::future::zip(smol::net::TcpStream::connect(address), listener.accept()).await;
            smol::Timer::after(std::time::Duration::from_millis(1)).await;
            accepted.is_ok()
        });
        assert!(block_on(waited));
    }
}
