//! Connection lifecycle: a *session* is one phone program's relation with one
//! farm; a *carrier* is one WebRTC connection. A session outlives its
//! carriers, and the newest authenticated epoch wins at once.
//!
//! [`farm`] is the farm's side: it judges offers, attaches carriers to
//! sessions, parks sessions that lost theirs, and cleans up. [`phone`] is the
//! phone's side: it decides when to try, gives every step a deadline and
//! never gives up. [`streams`] moves a session's streams from carrier to carrier.

use std::time::Duration;

pub mod farm;
pub mod phone;
pub mod streams;

/// How long a session without a carrier keeps its streams: the user's bound
/// for stale connections. A phone that drives through a valley is back by then.
pub const PARKED_FOR: Duration = Duration::from_secs(300);

/// From an accepted offer to open channels. ICE and DTLS need a few round
/// trips; 10 s cover a 2 s satellite-like path with losses, and a stuck
/// attempt must not hold memory for longer.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// From open channels to the other side's hello: one round trip, with room
/// for one SCTP retransmission (1 s minimum) on a lossy path, twice.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(3);

/// From an offer to its answer, both ways through the broker: two broker hops
/// of an LTE round trip each, and the farm's gathering. Past this the offer
/// counts as lost.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(4);
