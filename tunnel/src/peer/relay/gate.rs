//! When a relay is asked, and by which transport.
//!
//! A relayed path is the second choice, and TURN over a stream the third. The relay is not asked
//! before a direct path has had its time: most connections never make an allocation, so an idle
//! one holds none. TCP or TLS to the relay is opened only where UDP does not reach it. Who knows
//! from the connection before that it needs them waits for neither.
//!
//! Pure: it is told what happened, and says what may be sent.

use std::time::{Duration, Instant};

/// How long a direct path has, from when the offering side knows both descriptions: a check across
/// an LTE link and back is 100-200 ms.
pub(in super::super) const PATIENCE: Duration = Duration::from_millis(300);

/// The same for the answering side: its answer has to travel first, and one relay is enough for a
/// path, so that it asks its own only where the other's came to nothing.
pub(in super::super) const PATIENCE_ANSWERING: Duration = Duration::from_millis(600);

/// How long an answer by UDP has before a stream is tried beside it, where UDP to the server
/// works: two repetitions of the request (after 200 and 400 ms) and a round trip.
const STREAM_PATIENCE: Duration = Duration::from_millis(800);

/// How messages reach the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Via {
    /// As datagrams.
    Udp,
    /// On a TCP or TLS connection.
    Stream,
}

/// What can be had, and what is known from before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// The relay speaks UDP.
    pub(super) udp: bool,
    /// The relay speaks TCP or TLS.
    pub(super) stream: bool,
    /// No direct path is to be waited for.
    pub(super) at_once: bool,
    /// UDP did not reach it last time.
    pub(super) stream_at_once: bool,
}

/// One connection's gate.
#[derive(Debug)]
pub(super) struct Gate {
    terms: Terms,
    /// When it opens, unless a path is found before.
    opens: Option<Instant>,
    open: bool,
    /// A path was found without the relay.
    shut: bool,
    /// The server was heard by UDP, about anything.
    udp_works: bool,
    /// The relay answered by UDP.
    answered: bool,
    /// When a stream is tried.
    stream_at: Option<Instant>,
    stream: bool,
}

impl Gate {
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        Self {
            terms,
            opens: terms.at_once.then_some(now),
            open: false,
            shut: false,
            udp_works: false,
            answered: false,
            stream_at: None,
            stream: false,
        }
    }

    /// Both descriptions are known: checks of direct paths begin, and have this long.
    pub(super) fn described(&mut self, patience: Duration, now: Instant) {
        self.opens.get_or_insert(now + patience);
    }

    /// ICE found a path. Where the relay was not asked yet, it never is.
    pub(super) fn path_found(&mut self) {
        self.shut |= !self.open;
    }

    /// The server answered something by UDP.
    pub(super) fn udp_works(&mut self) {
        self.udp_works = true;
    }

    /// The relay answered.
    pub(super) fn answered(&mut self, via: Via) {
        self.answered |= via == Via::Udp;
    }

    /// Whether messages may leave.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a stream is to be used beside datagrams.
    pub(super) fn wants_stream(&self) -> bool {
        self.stream
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.shut {
            None
        } else if !self.open {
            self.opens
        } else {
            self.stream_at.filter(|_| !self.stream && !self.answered)
        }
    }

    /// Takes the passing of time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !self.shut && !self.open && due(self.opens) {
            self.open = true;
            let silent = !self.terms.udp || !self.udp_works || self.terms.stream_at_once;
            let patience = if silent { Duration::ZERO } else { STREAM_PATIENCE };
            self.stream_at = self.terms.stream.then(|| now + patience);
        }
        self.stream |= self.open && !self.answered && due(self.stream_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Terms = Terms { udp: true, stream: true, at_once: false, stream_at_once: false };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Lets time pass to the next deadline: when it was.
    fn next(gate: &mut Gate) -> Option<Instant> {
        let at = gate.poll_timeout()?;
        gate.handle_timeout(at);
        assert!(gate.poll_timeout().is_none_or(|next| next > at), "{gate:?} is still due");
        Some(at)
    }

    #[test]
    fn a_direct_path_that_is_found_in_time_asks_no_relay() {
        let start = Instant::now();
        let mut gate = Gate::new(BOTH, start);
        assert_eq!(gate.poll_timeout(), None, "an offer may wait long for its answer");
        gate.described(PATIENCE, start);
        gate.path_found();
        assert_eq!(gate.poll_timeout(), None);
        gate.handle_timeout(start + ms(10_000));
        assert!(!gate.is_open() && !gate.wants_stream());
    }

    #[test]
    fn the_relay_is_asked_after_a_while_and_by_udp_where_that_works() {
        let start = Instant::now();
        let mut gate = Gate::new(BOTH, start);
        gate.described(PATIENCE, start);
        gate.udp_works();
        assert_eq!(next(&mut gate), Some(start + PATIENCE));
        assert!(gate.is_open() && !gate.wants_stream());
        gate.answered(Via::Udp);
        assert_eq!(gate.poll_timeout(), None);
        // A path found by now may be the relay's.
        gate.path_found();
        assert!(gate.is_open());
    }

    #[test]
    fn a_stream_is_tried_where_the_relay_is_silent() {
        let start = Instant::now();
        let mut gate = Gate::new(BOTH, start);
        gate.described(PATIENCE, start);
        gate.udp_works();
        next(&mut gate);
        assert_eq!(next(&mut gate), Some(start + PATIENCE + STREAM_PATIENCE));
        assert!(gate.wants_stream());
        assert_eq!(gate.poll_timeout(), None);
    }

    #[test]
    fn and_at_once_where_the_server_was_never_heard_by_udp() {
        let start = Instant::now();
        for terms in [BOTH, Terms { udp: false, ..BOTH }, Terms { stream_at_once: true, ..BOTH }] {
            let mut gate = Gate::new(terms, start);
            gate.described(PATIENCE, start);
            if terms.stream_at_once || !terms.udp {
                gate.udp_works();
            }
            assert_eq!(next(&mut gate), Some(start + PATIENCE));
            assert!(gate.is_open() && gate.wants_stream(), "{terms:?}");
        }
        let mut gate = Gate::new(Terms { stream: false, ..BOTH }, start);
        gate.described(PATIENCE, start);
        next(&mut gate);
        assert_eq!((gate.wants_stream(), gate.poll_timeout()), (false, None));
    }

    #[test]
    fn who_knows_that_a_relay_is_needed_does_not_wait() {
        let start = Instant::now();
        let mut gate = Gate::new(Terms { at_once: true, ..BOTH }, start);
        assert_eq!(next(&mut gate), Some(start));
        assert!(gate.is_open());
    }
}
