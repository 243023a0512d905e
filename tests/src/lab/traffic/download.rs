//! A download slow enough to span a fault, and then as fast as it can.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::greenhouse::content::{self, MEGABYTE};
use crate::harness::http::{HttpError, Request};
use crate::lab::LabError;
use crate::lab::namespace::Handle;

/// Longer than any fault: a stream that is silent for so long is lost.
const PATIENCE: Duration = Duration::from_secs(400);
/// Between two looks whether the rest may come fast.
const LOOK: Duration = Duration::from_millis(20);

/// A download under way.
pub(crate) struct Download {
    megabytes: u32,
    fast: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    thread: JoinHandle<Result<Downloaded, LabError>>,
}

/// A download that is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Downloaded {
    /// Whether every byte came, and rightly.
    pub(crate) right: bool,
    /// Bytes that did not come.
    pub(crate) lost: u64,
    /// Why it ended early.
    pub(crate) broken: Option<String>,
}

impl Download {
    /// Begins to read at `rate` bytes a second.
    pub(crate) fn start(
        phone: Handle,
        forward: SocketAddr,
        megabytes: u32,
        rate: u64,
    ) -> Result<Self, LabError> {
        let fast = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let (hurry, count) = (fast.clone(), received.clone());
        let work = move || {
            phone.enter()?;
            Ok(fetch(forward, megabytes, rate, &hurry, &count))
        };
        let thread = std::thread::Builder::new().name("download".to_owned()).spawn(work);
        let thread = thread.map_err(LabError::io("starting the download"))?;
        Ok(Self { megabytes, fast, received, thread })
    }

    /// Bytes so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether it has ended already, which is too early before a fault.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets the rest come as fast as it can, and waits for it.
    pub(crate) fn finish(self, within: Duration) -> Result<Downloaded, LabError> {
        self.fast.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        while !self.thread.is_finished() {
            if Instant::now() > deadline {
                let received = self.received();
                let total = u64::from(self.megabytes) * MEGABYTE;
                let broken = format!("stuck at {received} of {total} bytes for lack of data");
                return Ok(Downloaded { right: false, lost: total - received, broken: Some(broken) });
            }
            std::thread::sleep(LOOK);
        }
        self.thread.join().map_err(|_| LabError::Wrong("the download's thread died".to_owned()))?
    }
}

fn fetch(forward: SocketAddr, megabytes: u32, rate: u64, fast: &AtomicBool, count: &AtomicU64) -> Downloaded {
    let total = u64::from(megabytes) * MEGABYTE;
    let start = Instant::now();
    let mut received = 0;
    let result = Request::get(&format!("/download/{megabytes}MB.bin")).patience(PATIENCE).send_with(
        forward,
        |piece| {
            received += piece.len() as u64;
            count.store(received, Ordering::Relaxed);
            let due = start + Duration::from_secs_f64(received as f64 / rate as f64);
            while !fast.load(Ordering::Relaxed) && Instant::now() < due {
                std::thread::sleep(LOOK);
            }
            ControlFlow::Continue(())
        },
    );
    match result {
        Ok(response) => {
            let right = response.status == 200
                && response.length == total
                && response.sha256 == content::sha256(total);
            Downloaded { right, lost: total.saturating_sub(response.length), broken: None }
        }
        Err(error) => {
            let received = match &error {
                HttpError::Broken { received, .. } => *received,
                HttpError::Connect { .. } => 0,
            };
            Downloaded { right: false, lost: total - received, broken: Some(error.to_string()) }
        }
    }
}
