//! systemd's watchdog, fed by progress.
//!
//! A timer that pings systemd proves that timers work. Here every loop that
//! matters is asked (see [`farm_tunnel::progress`]), and only when all have
//! answered is systemd told. A loop that hangs answers nothing, and systemd
//! restarts the agent.

use std::time::{Duration, Instant};

use farm_tunnel::progress::Progress;
use sd_notify::NotifyState;

/// Length of a round where systemd sets no time: rounds then only find hung
/// loops for the log.
const DEFAULT_ROUND: Duration = Duration::from_secs(30);

/// Asks all loops in rounds, and feeds systemd the moment that the last has
/// answered: what hangs right after its answer is found when systemd's time is
/// over, and not a round later. Runs until dropped.
pub async fn feed(progress: Progress) {
    let interval = sd_notify::watchdog_enabled();
    // sd_watchdog_enabled(3) recommends half the time; a third leaves room
    // for a loop that answers late in its round.
    let pause = interval.map_or(DEFAULT_ROUND, |time| time / 3);
    let mut hung: Vec<&'static str> = Vec::new();
    for round in 1u64.. {
        let next = Instant::now() + pause;
        progress.ask(round);
        let now_hung = progress.answers(round, pause).await;
        if now_hung.is_empty() {
            if interval.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
        } else if now_hung != hung {
            tracing::error!(loops = ?now_hung, "no progress: systemd is not told that all is well");
        }
        hung = now_hung;
        smol::Timer::at(next).await;
    }
}

/// Tells systemd; without systemd a no-op, and a failure is only worth a note.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
