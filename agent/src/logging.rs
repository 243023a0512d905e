//! Logs on standard error: transitions, not noise, and never a storm.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

/// Lines per minute that are written; more are counted. A farm in good order
/// writes a few an hour; one with a flapping modem some dozens a minute.
pub const MAX_LINES_PER_MINUTE: u32 = 120;

const MINUTE: Duration = Duration::from_secs(60);

/// Starts logging. The level is `error`, `warn`, `info` (default) or `debug`
/// in the environment variable `FARM_LOG`.
pub fn start() {
    let level = match std::env::var("FARM_LOG").as_deref() {
        Ok("error") => Level::ERROR,
        Ok("warn") => Level::WARN,
        Ok("debug") => Level::DEBUG,
        Ok("trace") => Level::TRACE,
        _ => Level::INFO,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false);
    let log = log.with_writer(Limited::new(MAX_LINES_PER_MINUTE));
    // A second start in one process (tests) keeps the first one.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal has its own clock.
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}

/// Standard error with a limit.
struct Limited {
    most: u32,
    state: Mutex<Window>,
}

struct Window {
    began: Instant,
    written: u32,
    held_back: u32,
}

impl Limited {
    fn new(most: u32) -> Self {
        Self { most, state: Mutex::new(Window { began: Instant::now(), written: 0, held_back: 0 }) }
    }

    /// Whether a line may be written, and how many were held back in the
    /// window before.
    fn admit(&self, now: Instant) -> (bool, u32) {
        let mut window = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missed = 0;
        if now.saturating_duration_since(window.began) >= MINUTE {
            missed = window.held_back;
            *window = Window { began: now, written: 0, held_back: 0 };
        }
        if window.written < self.most {
            window.written += 1;
            (true, missed)
        } else {
            window.held_back += 1;
            (false, missed)
        }
    }
}

/// One line on its way.
struct Line(bool);

impl Write for Line {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.0 { io::stderr().write(buffer) } else { Ok(buffer.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Limited {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        let (admitted, missed) = self.admit(Instant::now());
        if missed > 0 {
            // Nowhere to report that standard error is gone.
            let _ = writeln!(io::stderr(), "{missed} log lines were held back in the last minute");
        }
        Line(admitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_and_counted() {
        let limited = Limited::new(3);
        let start = Instant::now();
        let admitted = (0..10).filter(|_| limited.admit(start).0).count();
        assert_eq!(admitted, 3);
        assert_eq!(limited.admit(start + MINUTE), (true, 7));
    }
}
