//! A stream of small echo requests: whether data flows, 20 times a second.
//!
//! They go over one forwarded connection, so that one answered late shows how
//! long the stream stood still; when that connection is reset, over a new one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::LabError;
use crate::lab::namespace::Handle;

/// Between two requests: the resolution of what is measured.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);
/// Between two tries to connect again.
const AGAIN: Duration = Duration::from_millis(20);
/// One request: its number.
const LENGTH: usize = 8;

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// When each request was sent, by its number.
    sent: Vec<Instant>,
    /// Which were answered when, in the order of their answers.
    answered: Vec<(usize, Instant)>,
    /// When a connection ended, and why.
    pub(crate) resets: Vec<(Instant, String)>,
    /// Answers that were not the next one.
    pub(crate) wrong: u64,
}

impl Record {
    /// The first answer after `reference` to a request sent after `made`.
    pub(crate) fn answered_after(&self, made: Instant, reference: Instant) -> Option<Instant> {
        let counts = |(number, at): &&(usize, Instant)| *at >= reference && self.sent[*number] >= made;
        self.answered.iter().find(counts).map(|(_, at)| *at)
    }

    /// The longest time without an answer from `start` on, until now.
    pub(crate) fn longest_gap(&self, start: Instant, now: Instant) -> Duration {
        let answers = self.answered.iter().map(|(_, at)| *at).filter(|at| *at >= start);
        let mut last = start;
        let mut longest = Duration::ZERO;
        for at in answers.chain([now]) {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        longest
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> usize {
        self.answered.len()
    }
}

/// Requests under way; they end when this is dropped.
pub(crate) struct Pings {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pings {
    /// Begins, through the forward at this address in the phone's namespace.
    pub(crate) fn start(phone: Handle, forward: SocketAddr) -> Result<Self, LabError> {
        let record = Arc::new(Mutex::new(Record::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut pinger = Pinger { forward, record: record.clone(), stop: stop.clone() };
        let (entered, has_entered) = std::sync::mpsc::sync_channel(1);
        let work = move || {
            // The receiver waits below.
            let _ = entered.send(phone.enter());
            pinger.run();
        };
        let thread = std::thread::Builder::new().name("pings".to_owned()).spawn(work);
        let pings = Self { record, stop, thread: Some(thread.map_err(LabError::io("starting pings"))?) };
        has_entered.recv().map_err(|_| LabError::Wrong("the pings' thread died".to_owned()))??;
        Ok(pings)
    }

    /// What has happened so far.
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Pinger {
    forward: SocketAddr,
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
}

impl Pinger {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.converse() {
                self.record().resets.push((Instant::now(), error.to_string()));
                std::thread::sleep(AGAIN);
            }
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Over one connection, until it ends.
    fn converse(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.forward)?;
        stream.set_nodelay(true)?;
        let mut next_answer = self.record().sent.len();
        let mut partial = Vec::new();
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= due {
                let number = {
                    let mut record = self.record();
                    record.sent.push(now);
                    record.sent.len() - 1
                };
                stream.write_all(&(number as u64).to_be_bytes())?;
                due = (due + INTERVAL).max(now);
            }
            let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(wait))?;
            let mut buffer = [0; 1024];
            let length = match stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            partial.extend_from_slice(&buffer[..length]);
            let whole = partial.len() / LENGTH * LENGTH;
            let mut record = self.record();
            for bytes in partial.drain(..whole).collect::<Vec<_>>().chunks_exact(LENGTH) {
                let number = bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
                if number == next_answer && number < record.sent.len() {
                    record.answered.push((number, now));
                } else {
                    record.wrong += 1;
                }
                next_answer = number.wrapping_add(1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_says() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let record = Record {
            sent: (0..6).map(|n| at(50 * n)).collect(),
            answered: vec![(0, at(1)), (1, at(51)), (2, at(300)), (3, at(300)), (4, at(301)), (5, at(302))],
            ..Record::default()
        };
        // Sent before the fault at 110 ms and answered late: no sign of recovery by itself.
        assert_eq!(record.answered_after(at(110), at(110)), Some(at(300)));
        assert_eq!(record.answered_after(at(160), at(301)), Some(at(301)));
        assert_eq!(record.answered_after(at(300), at(300)), None);
        assert_eq!(record.longest_gap(at(20), at(310)), Duration::from_millis(249));
        assert_eq!(record.longest_gap(at(302), at(1_302)), Duration::from_secs(1));
    }
}
