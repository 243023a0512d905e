//! The cleanup manager: what is overdue is closed, what is gone is forgotten.

use std::time::{Duration, Instant};

use super::event::{ConnectionId, Now};
use super::timers::Timer;
use super::{Core, Phase, limits, retry_after};

/// Connections whose time may have come are looked at together: each by itself
/// would wake the broker half as often again as all heartbeats do.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Core {
    /// Does everything whose time has come.
    pub(super) fn run_due(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.instant) {
            match timer {
                Timer::Connection(connection) => self.connection_due(connection, now),
                Timer::Device(device) => {
                    if self.states.forget_if_away(device, now.instant) {
                        self.counters.forgotten_devices += 1;
                    }
                }
                Timer::Announce(farm) => self.announce(farm, now),
                Timer::Absence(farm) => self.absence_due(farm, now),
                Timer::Tokens => self.forget_expired_tokens(now),
                Timer::History => self.write_history(now),
                Timer::Run => self.mark_run(now),
                Timer::Returned => self.note_who_did_not_return(now),
                Timer::Beat => self.beat(now),
                Timer::Peer(broker) => self.peer_due(broker, now),
                Timer::SayAll => self.say_all(now),
                Timer::Places => self.forget_places(now),
            }
        }
    }

    fn connection_due(&mut self, connection: ConnectionId, now: Now) {
        let Some(opened) = self.connections.get(&connection) else {
            return;
        };
        match opened.phase {
            Phase::Challenged(_) => {
                self.counters.unauthenticated += 1;
                // Without a word: it may be an honest device on a bad path or
                // asleep, and a refusal would keep it away for a minute.
                self.close(connection, None, now);
            }
            Phase::Enrolling(_) => {
                let message = retry_after(limits::ENROLL_AGAIN_AFTER);
                self.close(connection, Some(message), now);
            }
            Phase::In(_) => {
                // The timer is not moved at each message, only when it fires.
                let stale_at = opened.heard + limits::STALE_AFTER;
                if stale_at > now.instant {
                    self.timers.arm(Timer::Connection(connection), self.look_at(stale_at, now.instant));
                } else {
                    self.counters.stale_connections += 1;
                    self.close(connection, None, now);
                }
            }
        }
    }

    /// When to look at a connection that is stale then unless it says something:
    /// earlier, with others, or at that time.
    pub(super) fn look_at(&self, stale_at: Instant, now: Instant) -> Instant {
        let since = stale_at.saturating_duration_since(self.started);
        let early = Duration::from_nanos((since.as_nanos() % LOOK_EVERY.as_nanos()) as u64);
        let together = stale_at.checked_sub(early).unwrap_or(stale_at);
        if together > now { together } else { stale_at }
    }
}
