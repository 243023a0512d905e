//! Keeping sled's thread pool asleep.
//!
//! sled keeps seven threads for good, and each looks for work once a second
//! besides being told of it: seven wakeups a second for an idle farm, where all
//! of the agent may have two. The interval can't be set, but the kernel lets a
//! thread say how late its timers may be, and its child threads inherit that.
//! Being told of work is no timer: commits are not later by it.

use std::time::Duration;

use nix::{libc::c_ulong, sys::prctl};

/// How late the pool's timers may be. Measured: 7 wakeups/s without, 0.05/s
/// with it.
const SLACK: Duration = Duration::from_secs(30);

/// While it lives, threads started by this thread have lazy timers; so has the
/// thread itself: nothing may sleep in between.
#[derive(Debug)]
pub(crate) struct LazyTimers;

impl LazyTimers {
    pub(crate) fn new() -> Self {
        // On 32 bits this is 4 s, and the pool wakes up 1.4 times a second.
        let nanoseconds = c_ulong::try_from(SLACK.as_nanos()).unwrap_or(c_ulong::MAX);
        if let Err(e) = prctl::set_timerslack(nanoseconds) {
            // Costs wakeups, nothing else.
            tracing::debug!(error = %e, "could not make the database's timers lazy");
        }
        LazyTimers
    }
}

impl Drop for LazyTimers {
    fn drop(&mut self) {
        // 0: back to the thread's default.
        if let Err(e) = prctl::set_timerslack(0) {
            tracing::debug!(error = %e, "could not reset the timers");
        }
    }
}
