//! Redundant transmission: where the path is known to lose packets, each packet is sent more than
//! once.
//!
//! DTLS and SCTP mend a lost packet with timers of 1 s that double, and nothing else leaves
//! meanwhile, pings included: on a radio that loses three packets of ten the tunnel stands still
//! for a minute, and a new connection's handshake fails. A second and a third copy of each packet
//! make 3 % of that 30 %, with which both work. The receiver needs to know nothing: a record that
//! came before is dropped by DTLS (RFC 6347, section 4.1.2.6), in browsers too.
//!
//! Loss is read off the sequence numbers of the records that come, which are not encrypted. What
//! is lost on the way *to* the peer shows only there; it sends three of each then, and who hears
//! three of one sends two of each. (Two ask for nothing, so that this ends.)
//!
//! Until a connection is open nothing is known of its path, and every packet counts: each is sent
//! again after pauses in which a good path would have opened.
//!
//! Copies are bounded by [`Budget`]: should the path lose packets because it is full, they add
//! little to it. Pure: it is shown packets, and says when copies are due.

mod budget;
mod seen;

use std::time::{Duration, Instant};

use budget::Budget;
use seen::Seen;

/// While a connection opens, a packet is sent again so long after its first time. An open takes
/// five round trips: on most paths it is done before the first of these. Three repetitions leave
/// 1 % of 30 %, before the engine's own first after 1 s.
const OPENING: &[Duration] =
    &[Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500)];

/// Copies on a path that loses packets: one at once, so that nothing comes out of order, and one
/// after a pause that outlasts a short burst of losses. Later would be too late: the receiver's
/// window against replays is 64 records.
const LOSSY: &[Duration] = &[Duration::ZERO, Duration::from_millis(10)];

/// Copies for a peer that hears us badly, as far as its own repetitions tell.
const ASKED: &[Duration] = &[Duration::ZERO];

/// Arrivals of one record that say that the peer repeats because it misses ours. [`ASKED`] makes
/// two of each.
const ASKS: u8 = 1 + LOSSY.len() as u8;

/// How long copies go on after the last sign of loss. They hide the loss themselves (1 of 40
/// packets is still missed of 30 %), so it has to be long enough to see some of the rest.
const HOLD: Duration = Duration::from_secs(10);

/// Records missed among the last [`seen::WINDOW`] that begin it, ...
const MISSED: u32 = 4;

/// ... when they are one of so many: 5 %. Below, the engine's own ways suffice, and a modem's
/// volume is not spent on it.
const ONE_OF: u32 = 20;

/// Records missed that let it go on.
const STILL_MISSED: u32 = 3;

/// Unacknowledged bytes behind which the next message waits on such a path: enough for those behind
/// a lost packet to tell of it, and little that a timer of the engine's holds up.
const LOSSY_WINDOW: usize = 16 << 10;

/// When a message may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Now.
    Go,
    /// Once less is unacknowledged.
    Turn,
    /// After so long.
    Pause(Duration),
}

/// What is known of a path, and what that means for packets.
#[derive(Debug)]
pub(super) struct Redundancy {
    open: bool,
    seen: Seen,
    lossy_until: Option<Instant>,
    asked_until: Option<Instant>,
    budget: Budget,
}

impl Redundancy {
    /// For a new connection. `lossy_until` is what an earlier one on the same path found out.
    pub(super) fn new(lossy_until: Option<Instant>, now: Instant) -> Self {
        // A connection that follows one that was lost to a lossy path begins with copies: it may
        // not live for long enough to find out.
        let lossy_until = lossy_until.filter(|until| now < *until + HOLD).map(|_| now + HOLD);
        Self { open: false, seen: Seen::default(), lossy_until, asked_until: None, budget: Budget::new(now) }
    }

    /// The connection's channels are open.
    pub(super) fn opened(&mut self) {
        self.open = true;
        self.seen.forget_copies();
    }

    /// A datagram came.
    pub(super) fn received(&mut self, datagram: &[u8], now: Instant) {
        let Some(record) = record(carried(datagram)) else { return };
        let arrivals = self.seen.arrived(record);
        if self.open && arrivals >= ASKS {
            self.asked_until = Some(now + HOLD);
        }
        let (missed, of) = (self.seen.missed(), self.seen.count());
        let begins = missed >= MISSED && missed * ONE_OF >= of;
        if begins || (missed >= STILL_MISSED && self.is_lossy(now)) {
            self.lossy_until = Some(now + HOLD);
        }
    }

    /// When to send again what is sent now: so long after. Contents of several datagrams count as
    /// what the first one is.
    pub(super) fn copies(&mut self, contents: &[u8], now: Instant) -> &'static [Duration] {
        if !is_dtls(carried(contents)) {
            return &[];
        }
        let wanted = self.wanted(now);
        let affordable = self.budget.afford(wanted.len(), contents.len(), now);
        &wanted[..affordable]
    }

    /// How long a message of the data channel has to wait before it is sent while `outstanding`
    /// bytes are unacknowledged; [`Pace::Turn`] where that is until fewer are.
    pub(super) fn pace(&mut self, outstanding: usize, bytes: usize, now: Instant) -> Pace {
        let copies = self.wanted(now).len();
        if !self.open || copies == 0 {
            return Pace::Go;
        }
        if outstanding > LOSSY_WINDOW {
            return Pace::Turn;
        }
        self.budget.pause(copies, bytes, now).map_or(Pace::Go, Pace::Pause)
    }

    /// Whether a copy made while the connection opened is still of use.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Until when the path counts as one that loses packets.
    pub(super) fn lossy_until(&self) -> Option<Instant> {
        self.lossy_until
    }

    fn wanted(&self, now: Instant) -> &'static [Duration] {
        if !self.open {
            OPENING
        } else if self.is_lossy(now) {
            LOSSY
        } else if self.asked_until.is_some_and(|until| now < until) {
            ASKED
        } else {
            &[]
        }
    }

    fn is_lossy(&self, now: Instant) -> bool {
        self.lossy_until.is_some_and(|until| now < until)
    }
}

/// What a datagram carries for the peer: that of a relay in ChannelData, or in a Send or Data
/// indication (RFC 8656, sections 12.4, 11.3 and 18); any other is its own.
fn carried(datagram: &[u8]) -> &[u8] {
    const STUN_HEADER: usize = 20;
    const DATA: u16 = 0x0013;
    match datagram {
        [0x40..=0x4f, _, _, _, data @ ..] => data,
        [0x00, 0x16 | 0x17, ..] => {
            let mut attributes = datagram.get(STUN_HEADER..).unwrap_or_default();
            while let Some(([kind @ .., a, b], rest)) = attributes.split_first_chunk::<4>() {
                let length = usize::from(u16::from_be_bytes([*a, *b]));
                if *kind == DATA.to_be_bytes() {
                    return rest.get(..length).unwrap_or_default();
                }
                attributes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            &[]
        }
        _ => datagram,
    }
}

/// The first byte of DTLS (RFC 7983, section 7).
fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (20..64).contains(first))
}

/// The number of the encrypted record that this datagram is, or begins with. Those of a handshake
/// come in several numberings and are few.
fn record(datagram: &[u8]) -> Option<u64> {
    const APPLICATION_DATA: u8 = 23;
    let header: &[u8; 13] = datagram.first_chunk()?;
    let [kind, _, _, epoch @ .., _, _] = header;
    let (epoch, number) = epoch.split_first_chunk::<2>()?;
    let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (*kind == APPLICATION_DATA && u16::from_be_bytes(*epoch) == 1).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Jitter;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn packet(number: u64, length: usize) -> Vec<u8> {
        let mut packet = vec![23, 254, 253, 0, 1];
        packet.extend_from_slice(&number.to_be_bytes()[2..]);
        packet.extend_from_slice(&(length as u16).to_be_bytes());
        packet.resize(13 + length, 0);
        packet
    }

    #[test]
    fn what_a_relay_carries_is_repeated_too() {
        let (now, inner) = (Instant::now(), packet(7, 3));
        let length = (inner.len() as u16).to_be_bytes();
        let channel = [&[0x40, 0x00][..], &length, &inner].concat();
        let peer = [&[0x00, 0x12, 0, 8][..], &[0; 8]].concat();
        let data = [&[0x00, 0x13][..], &length, &inner].concat();
        let send = [&[0x00, 0x16, 0, 0][..], &[0; 16], &peer, &data].concat();
        for relayed in [&channel, &send] {
            assert_eq!(carried(relayed), inner);
            assert_eq!(Redundancy::new(None, now).copies(relayed, now), OPENING);
        }
        let check = [&[0x00, 0x16, 0, 0][..], &[0; 16], &peer, &[0x00, 0x13, 0, 4, 0, 1, 0, 0]].concat();
        let truncated = &send[..send.len() - 20];
        for other in [&check[..], truncated, &[0x00, 0x16], &[0x40], &[0x00, 0x01, 0, 0]] {
            assert_eq!(Redundancy::new(None, now).copies(other, now), &[] as &[Duration], "{other:?}");
        }
    }

    fn open(now: Instant) -> Redundancy {
        let mut redundancy = Redundancy::new(None, now);
        redundancy.opened();
        redundancy
    }

    /// The share of `count` packets, `every` apart, that a peer misses when the path loses
    /// `percent` of them, from when both know of it, and how many are sent for each.
    fn path(percent: u64, count: u64, every: Duration) -> (f64, f64, Option<Duration>) {
        let mut rng = Jitter::new(percent + 1);
        let start = Instant::now();
        let mut ends = [open(start), open(start)];
        let (mut missed, mut sent, mut known) = (0, 0, None);
        for number in 0..count {
            let now = start + every * number as u32;
            // Both talk alike, so that each tells from what it hears.
            for from in 0..2 {
                let packet = packet(number, 60);
                let times = 1 + ends[from].copies(&packet, now).len();
                let arrivals = (0..times).filter(|_| rng.next_u64() % 100 >= percent).count();
                (0..arrivals).for_each(|_| ends[1 - from].received(&packet, now));
                sent += times;
                missed += usize::from(arrivals == 0);
            }
            if ends.iter().all(|end| end.is_lossy(now)) {
                known.get_or_insert(now - start);
            }
        }
        (missed as f64 / (2 * count) as f64, sent as f64 / (2 * count) as f64, known)
    }

    #[test]
    fn three_of_ten_lost_become_three_of_a_hundred() {
        let (missed, sent, known) = path(30, 2_000, ms(20));
        assert!(missed < 0.05, "{missed} are missed");
        assert!(sent > 2.5, "{sent} are sent for each");
        assert!(known.unwrap() < ms(600), "known after {known:?}");
    }

    #[test]
    fn a_good_path_gets_no_copies_nor_one_that_loses_a_hundredth() {
        for percent in [0, 1] {
            let (_, sent, known) = path(percent, 3_000, ms(20));
            assert!(sent < 1.2, "at {percent} %: {sent} are sent for each, from {known:?}");
        }
        assert_eq!(path(0, 1_000, ms(1)).1, 1.0);
    }

    #[test]
    fn copies_end_when_the_loss_does() {
        let start = Instant::now();
        let mut redundancy = open(start);
        for number in (0..40).filter(|number| number % 3 != 0) {
            redundancy.received(&packet(number, 60), start);
        }
        assert_eq!(redundancy.copies(&packet(0, 60), start), LOSSY);
        // The window has been filled anew by then.
        for number in 40..400 {
            redundancy.received(&packet(number, 60), start);
        }
        assert_eq!(redundancy.copies(&packet(0, 60), start + HOLD - ms(1)), LOSSY);
        assert!(redundancy.copies(&packet(0, 60), start + HOLD).is_empty());
    }

    #[test]
    fn an_outage_is_no_loss() {
        let start = Instant::now();
        let mut redundancy = open(start);
        for number in (0..50).chain(100..120).chain(5_000..5_200) {
            redundancy.received(&packet(number, 60), start);
        }
        assert!(redundancy.copies(&packet(0, 60), start).is_empty());
    }

    #[test]
    fn a_peer_that_repeats_itself_is_answered_with_one_copy_which_asks_for_nothing() {
        let start = Instant::now();
        let (mut near, mut far) = (open(start), open(start));
        for _ in 0..3 {
            near.received(&packet(100, 60), start);
        }
        let copies = near.copies(&packet(0, 60), start);
        assert_eq!(copies, ASKED);
        for _ in 0..=copies.len() {
            far.received(&packet(100, 60), start);
        }
        assert!(far.copies(&packet(0, 60), start).is_empty());
        assert!(near.copies(&packet(0, 60), start + HOLD).is_empty());
    }

    #[test]
    fn opening_repeats_what_the_peer_may_have_missed_and_asks_for_nothing() {
        let start = Instant::now();
        let mut redundancy = Redundancy::new(None, start);
        assert_eq!(redundancy.copies(&packet(0, 60), start), OPENING);
        assert!(redundancy.copies(&[0, 1, 0, 0], start).is_empty(), "a STUN request has its own timer");
        for _ in 0..=OPENING.len() {
            redundancy.received(&packet(0, 60), start);
        }
        redundancy.opened();
        // The last of the peer's repetitions.
        redundancy.received(&packet(0, 60), start);
        assert!(redundancy.copies(&packet(0, 60), start).is_empty());
        let known = |until| Redundancy::new(Some(until), start + HOLD).is_lossy(start + HOLD);
        assert!(known(start + ms(1)) && !known(start));
    }

    #[test]
    fn anything_may_come() {
        let mut rng = Jitter::new(9);
        let now = Instant::now();
        let mut redundancy = open(now);
        for length in (0..40).cycle().take(5_000) {
            let mut junk: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
            if length % 2 == 0 && length >= 5 {
                junk[..5].copy_from_slice(&[23, 254, 253, 0, 1]);
            }
            redundancy.received(&junk, now);
        }
    }
}
