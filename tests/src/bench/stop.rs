//! The ends of a run that come from outside: a signal, or its time limit.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use async_signal::{Signal, Signals};
use futures_util::StreamExt;

use crate::harness::{HarnessError, end_all, ending};

/// Between two looks whether the run is to end, in [`pause`].
const LOOK: Duration = Duration::from_millis(50);

static REACHED: AtomicBool = AtomicBool::new(false);

/// Calls `stop` at every SIGINT, SIGTERM and SIGHUP from now on.
pub(crate) fn on_signal(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            smol::block_on(async {
                while let Some(Ok(_)) = signals.next().await {
                    stop();
                }
            });
        })
        .map(drop)
}

/// Whether the time limit of the run was reached.
pub(crate) fn bound_reached() -> bool {
    REACHED.load(Ordering::SeqCst)
}

/// The time limit of a run: when it is reached, every program is ended, and what
/// waits for one of them is told so.
pub(crate) struct Bound(Sender<()>);

impl Bound {
    pub(crate) fn set(after: Duration) -> Self {
        let (lifted, lift) = channel();
        std::thread::spawn(move || {
            if lift.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                REACHED.store(true, Ordering::SeqCst);
                end_all();
            }
        });
        Self(lifted)
    }

    /// The run is over: says whether the limit was reached before.
    pub(crate) fn lift(self) -> bool {
        // Nobody listens any more after the limit.
        let _ = self.0.send(());
        bound_reached()
    }
}

/// Lets time pass, for what can only be measured over time.
pub(crate) fn pause(duration: Duration) -> Result<(), HarnessError> {
    let end = std::time::Instant::now() + duration;
    loop {
        if ending() {
            return Err(HarnessError::Ending);
        }
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}
