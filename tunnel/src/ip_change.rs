//! IP change detector: several witnesses, one verdict.
//!
//! Netlink sees local addresses come and go at once, but knows nothing of a
//! public address that changes behind the router. For that there is a STUN
//! probe to the broker, which also keeps the NAT mapping of its socket open,
//! and the address that the broker saw when the WebSocket was opened.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A change of address is a burst of netlink messages (address gone, link
/// down, link up, address there): wait until it has settled. Others wait
/// 250 ms to 2 s; local changes are to be noticed within 100 ms at the median.
pub const DEBOUNCE: Duration = Duration::from_millis(50);

/// However long a burst goes on, a verdict falls this long after its first
/// message: a flapping link must not hide a change.
pub const DEBOUNCE_AT_MOST: Duration = Duration::from_millis(250);

/// Between probes while the link to the broker is down. A NAT may forget a UDP
/// mapping after 30 s (RFC 4787 REQ-5 asks for 2 minutes, cheap routers and LTE
/// gateways give 30 s).
pub const PROBE_INTERVAL: Duration = Duration::from_secs(20);

/// Between probes while the link to the broker is up: its TCP connection
/// breaks with the public address, and its signs of life show that within 20 s
/// (see `broker_socket`). At 108 bytes each, 31 KB a day instead of 467.
pub const VOUCHED_PROBE_INTERVAL: Duration = Duration::from_secs(300);

/// After a longer pause another port of the same public address is no news:
/// the NAT may just have forgotten the probe's own mapping.
pub const MAPPING_LASTS: Duration = Duration::from_secs(25);

/// Between repeats of an unanswered probe: above the round trip of a slow
/// LTE link.
pub const PROBE_REPEAT: Duration = Duration::from_millis(700);

/// Unanswered probes in a row that count as lost. At 30 % loss each way a
/// probe fails with 0.51; five in a row with 3.5 %, in which case the next
/// round sets it right 20 s later.
pub const PROBE_TRIES: u32 = 5;

/// Between repeats of a probe while the path is suspect: somebody waits for it
/// to come back, and on average half of this is lost before that is seen.
pub const SUSPECT_REPEAT: Duration = Duration::from_millis(250);

/// Unanswered probes of a suspect path that count as lost: above the round
/// trip of a slow LTE link, as [`PROBE_REPEAT`].
pub const SUSPECT_TRIES: u32 = 3;

/// Quick repeats of one suspicion: 60 s. A hand-over, a tunnel under a hill or
/// a rebooting router are over by then.
pub const SUSPECT_QUICK: u32 = 240;

/// Between further repeats, until [`SUSPECT_AT_MOST`].
pub const SUSPECT_SLOW_REPEAT: Duration = Duration::from_secs(1);

/// Repeats of one suspicion, 300 s in all: as long as a session is kept. Over
/// a path that is gone they cost nothing; where only the answers are lost,
/// 50 KB.
pub const SUSPECT_AT_MOST: u32 = SUSPECT_QUICK + 240;

/// How a change was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Witness {
    /// The device's own addresses changed (netlink).
    Local,
    /// The broker's STUN answer shows another public address or mapping.
    Probe,
    /// The broker saw another public address on a new connection.
    BrokerEcho,
}

impl Witness {
    /// For logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "netlink",
            Self::Probe => "STUN probe",
            Self::BrokerEcho => "broker echo",
        }
    }
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The address changed: everything bound to the old one is suspect.
    Changed(Witness),
    /// There is no address any more.
    Offline,
    /// There is an address again.
    Online,
    /// Probes go unanswered: the path to the broker, or its UDP port, is gone.
    ProbeLost,
    /// Probes that were lost are answered again. What was sent meanwhile over
    /// TCP may lie in its timers for as long as the path was away.
    PathBack,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A usable local address came.
    AddressUp(IpAddr),
    /// A local address went.
    AddressDown(IpAddr),
    /// The broker answers probes here; `None` where it doesn't.
    ProbeTarget(bool),
    /// The answer to the newest probe.
    ProbeAnswered(SocketAddr),
    /// The address that the broker saw on a new connection.
    BrokerEcho(IpAddr),
    /// Whether the link to the broker is up: it witnesses the address, too.
    Vouched(bool),
    /// Something else makes the path suspect (pings unanswered): probe now, and
    /// quickly until one is answered.
    Suspect,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a STUN probe.
    Probe,
    /// Tell.
    Verdict(Verdict),
}

/// Why something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A burst of local changes has settled.
    Settled,
    /// The next probe.
    Probe,
    /// A probe was not answered.
    ProbeRepeat,
}

#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prober {
    Off,
    Waiting { next: Instant },
    Asked { tries: u32, repeat: Instant, suspect: bool },
}

/// The detector.
#[derive(Debug)]
pub struct Detector {
    addresses: BTreeSet<IpAddr>,
    /// What the last verdict was about; `None` until the first look is over.
    settled: Option<BTreeSet<IpAddr>>,
    burst: Option<Burst>,
    reflexive: Option<SocketAddr>,
    answered_at: Option<Instant>,
    vouched: bool,
    echo: Option<IpAddr>,
    prober: Prober,
    lost_told: bool,
    actions: VecDeque<Action>,
}

impl Detector {
    /// For a watcher that tells the present addresses first: what it says in
    /// the first moment is no change.
    pub fn starting(now: Instant) -> Self {
        let mut detector = Self::new([]);
        detector.settled = None;
        detector.burst = Some(Burst { first: now, last: now });
        detector
    }

    /// With the addresses that the device has now.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: BTreeSet<_> = addresses.into_iter().filter(|a| is_usable(*a)).collect();
        Self {
            settled: Some(addresses.clone()),
            addresses,
            burst: None,
            reflexive: None,
            answered_at: None,
            vouched: false,
            echo: None,
            prober: Prober::Off,
            lost_told: false,
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::AddressUp(address) if is_usable(address) => {
                if self.addresses.insert(address) {
                    self.local_change(now);
                }
            }
            Event::AddressDown(address) => {
                if self.addresses.remove(&address) {
                    self.local_change(now);
                }
            }
            Event::AddressUp(_) => {}
            Event::ProbeTarget(true) => self.probe(now),
            Event::ProbeTarget(false) => self.prober = Prober::Off,
            Event::ProbeAnswered(address) => self.answered(address, now),
            Event::BrokerEcho(address) => {
                let former = self.echo.replace(address);
                // What a probe has shown already is no news.
                let told = self.reflexive.is_some_and(|reflexive| reflexive.ip() == address);
                if !told && former.is_some_and(|former| former != address) {
                    self.changed(Witness::BrokerEcho);
                }
            }
            Event::Vouched(vouched) => {
                let lost = std::mem::replace(&mut self.vouched, vouched) && !vouched;
                if lost && matches!(self.prober, Prober::Waiting { .. }) {
                    self.probe(now);
                }
            }
            Event::Suspect => {
                // One that is under way goes on; the next suspicion renews it.
                if !matches!(self.prober, Prober::Off | Prober::Asked { suspect: true, .. }) {
                    self.prober = Prober::Asked { tries: 1, repeat: now + SUSPECT_REPEAT, suspect: true };
                    self.actions.push_back(Action::Probe);
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Due)> {
        let burst =
            self.burst.as_ref().map(|b| ((b.last + DEBOUNCE).min(b.first + DEBOUNCE_AT_MOST), Due::Settled));
        let probe = match self.prober {
            Prober::Off => None,
            Prober::Waiting { next } => Some((next, Due::Probe)),
            Prober::Asked { repeat, .. } => Some((repeat, Due::ProbeRepeat)),
        };
        burst.into_iter().chain(probe).min_by_key(|(when, _)| *when)
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((when, due)) = self.poll_timeout()
            && when <= now
        {
            match due {
                Due::Settled => self.settle(now),
                Due::Probe => self.probe(now),
                Due::ProbeRepeat => self.repeat(now),
            }
        }
    }

    /// The usable local addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }

    /// The public address and mapping that the last probe showed.
    pub fn reflexive(&self) -> Option<SocketAddr> {
        self.reflexive
    }

    fn local_change(&mut self, now: Instant) {
        match &mut self.burst {
            Some(burst) => burst.last = now,
            None => self.burst = Some(Burst { first: now, last: now }),
        }
    }

    fn settle(&mut self, now: Instant) {
        self.burst = None;
        let Some(former) = self.settled.replace(self.addresses.clone()) else { return };
        if self.addresses == former {
            return;
        }
        let was_offline = former.is_empty();
        let verdict = if self.addresses.is_empty() {
            Verdict::Offline
        } else if was_offline {
            Verdict::Online
        } else {
            Verdict::Changed(Witness::Local)
        };
        self.actions.push_back(Action::Verdict(verdict));
        // What the probe knew belongs to the former address: the next answer
        // is the new truth, not one more change.
        self.reflexive = None;
        self.echo = None;
        if self.prober != Prober::Off && !self.addresses.is_empty() {
            self.probe(now);
        }
    }

    fn changed(&mut self, witness: Witness) {
        self.actions.push_back(Action::Verdict(Verdict::Changed(witness)));
    }

    fn probe(&mut self, now: Instant) {
        self.prober = Prober::Asked { tries: 1, repeat: now + PROBE_REPEAT, suspect: false };
        self.actions.push_back(Action::Probe);
    }

    fn repeat(&mut self, now: Instant) {
        let Prober::Asked { tries, suspect, .. } = self.prober else {
            return;
        };
        let (lost, at_most, next) = match suspect {
            false => (PROBE_TRIES, PROBE_TRIES, PROBE_REPEAT),
            true if tries < SUSPECT_QUICK => (SUSPECT_TRIES, SUSPECT_AT_MOST, SUSPECT_REPEAT),
            true => (SUSPECT_TRIES, SUSPECT_AT_MOST, SUSPECT_SLOW_REPEAT),
        };
        if tries >= lost && !std::mem::replace(&mut self.lost_told, true) {
            self.actions.push_back(Action::Verdict(Verdict::ProbeLost));
        }
        if tries < at_most {
            self.prober = Prober::Asked { tries: tries + 1, repeat: now + next, suspect };
            self.actions.push_back(Action::Probe);
        } else {
            self.prober = Prober::Waiting { next: now + self.interval() };
        }
    }

    fn answered(&mut self, address: SocketAddr, now: Instant) {
        if !matches!(self.prober, Prober::Asked { .. }) {
            return;
        }
        self.prober = Prober::Waiting { next: now + self.interval() };
        let back = std::mem::take(&mut self.lost_told);
        let fresh = self.answered_at.replace(now).is_some_and(|at| now < at + MAPPING_LASTS);
        let former = self.reflexive.replace(address).filter(|former| *former != address);
        let moved = former.is_some_and(|former| former.ip() != address.ip());
        // The broker's echo may have told already.
        let told = moved && self.echo == Some(address.ip());
        if former.is_some() && !told && (moved || fresh) {
            self.changed(Witness::Probe);
        }
        if back {
            self.actions.push_back(Action::Verdict(Verdict::PathBack));
        }
    }

    fn interval(&self) -> Duration {
        if self.vouched { VOUCHED_PROBE_INTERVAL } else { PROBE_INTERVAL }
    }
}

/// Whether a peer could be reached from or through this address: loopback
/// and link-local ones say nothing about the way to the internet.
pub fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 7));
    const LTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 64, 3, 9));

    fn drain(detector: &mut Detector) -> Vec<Action> {
        std::iter::from_fn(|| detector.poll_action()).collect()
    }

    fn pass(detector: &mut Detector, now: &mut Instant, time: Duration) {
        let end = *now + time;
        while let Some((when, _)) = detector.poll_timeout().filter(|(when, _)| *when <= end) {
            *now = when;
            detector.handle_timeout(when);
        }
        *now = end;
    }

    #[test]
    fn a_burst_is_one_verdict() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::AddressDown(HOME), now);
        detector.handle(Event::AddressUp(LTE), now + Duration::from_millis(20));
        pass(&mut detector, &mut now, Duration::from_millis(69));
        assert_eq!(drain(&mut detector), [], "not settled yet");
        pass(&mut detector, &mut now, Duration::from_millis(1));
        assert_eq!(drain(&mut detector), [Action::Verdict(Verdict::Changed(Witness::Local))]);
        assert_eq!(detector.poll_timeout(), None);
    }

    #[test]
    fn what_is_there_at_the_start_is_no_change() {
        let mut now = Instant::now();
        let mut detector = Detector::starting(now);
        detector.handle(Event::AddressUp(HOME), now);
        pass(&mut detector, &mut now, DEBOUNCE_AT_MOST);
        assert_eq!(drain(&mut detector), []);
        let mut detector = Detector::starting(now);
        pass(&mut detector, &mut now, DEBOUNCE_AT_MOST);
        detector.handle(Event::AddressUp(HOME), now);
        pass(&mut detector, &mut now, DEBOUNCE_AT_MOST);
        assert_eq!(drain(&mut detector), [Action::Verdict(Verdict::Online)], "an address after boot is news");
    }

    #[test]
    fn an_address_that_comes_back_is_no_change() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::AddressDown(HOME), now);
        detector.handle(Event::AddressUp(HOME), now);
        pass(&mut detector, &mut now, DEBOUNCE_AT_MOST);
        assert_eq!(drain(&mut detector), []);
    }

    #[test]
    fn a_flapping_link_cannot_hide_a_change() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        for n in 0..20 {
            let event = if n % 2 == 0 { Event::AddressUp(LTE) } else { Event::AddressDown(LTE) };
            detector.handle(event, now);
            pass(&mut detector, &mut now, Duration::from_millis(30));
        }
        assert!(!drain(&mut detector).is_empty());
    }

    #[test]
    fn loss_and_return_of_the_last_address_are_told_apart() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::AddressDown(HOME), now);
        pass(&mut detector, &mut now, DEBOUNCE);
        assert_eq!(drain(&mut detector), [Action::Verdict(Verdict::Offline)]);
        detector.handle(Event::AddressUp(LTE), now);
        pass(&mut detector, &mut now, DEBOUNCE);
        assert_eq!(drain(&mut detector), [Action::Verdict(Verdict::Online)]);
    }

    #[test]
    fn a_change_behind_the_router_is_seen_by_the_probe() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::ProbeTarget(true), now);
        detector.handle(Event::ProbeAnswered("198.51.100.7:4000".parse().unwrap()), now);
        assert_eq!(drain(&mut detector), [Action::Probe]);
        pass(&mut detector, &mut now, PROBE_INTERVAL);
        detector.handle(Event::ProbeAnswered("198.51.100.7:4000".parse().unwrap()), now);
        assert_eq!(drain(&mut detector), [Action::Probe], "the same address is no news");
        detector.handle(Event::Suspect, now);
        detector.handle(Event::ProbeAnswered("203.0.113.9:4000".parse().unwrap()), now);
        assert_eq!(drain(&mut detector), [Action::Probe, Action::Verdict(Verdict::Changed(Witness::Probe))]);
        detector.handle(Event::BrokerEcho("203.0.113.9".parse().unwrap()), now);
        assert_eq!(drain(&mut detector), [], "the same change, seen by another witness");
    }

    #[test]
    fn a_suspect_path_is_probed_until_it_is_back() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        let seen: SocketAddr = "198.51.100.7:4000".parse().unwrap();
        detector.handle(Event::ProbeTarget(true), now);
        detector.handle(Event::ProbeAnswered(seen), now);
        pass(&mut detector, &mut now, Duration::from_secs(3));
        drain(&mut detector);
        // Whenever it comes back within a minute, the next probe is near.
        detector.handle(Event::Suspect, now);
        detector.handle(Event::Suspect, now);
        assert_eq!(drain(&mut detector), [Action::Probe], "one at a time");
        pass(&mut detector, &mut now, SUSPECT_REPEAT * SUSPECT_TRIES);
        assert!(drain(&mut detector).contains(&Action::Verdict(Verdict::ProbeLost)));
        pass(&mut detector, &mut now, Duration::from_secs(50));
        let (next, due) = detector.poll_timeout().unwrap();
        assert!(due == Due::ProbeRepeat && next <= now + SUSPECT_REPEAT, "{due:?}");
        let sent = drain(&mut detector);
        assert!(sent.iter().all(|action| *action == Action::Probe), "told once: {sent:?}");
        detector.handle(Event::ProbeAnswered(seen), now);
        assert_eq!(drain(&mut detector), [Action::Verdict(Verdict::PathBack)]);
        assert_eq!(detector.poll_timeout(), Some((now + PROBE_INTERVAL, Due::Probe)), "calm again");
        // A suspicion that was wrong costs one probe.
        detector.handle(Event::Suspect, now);
        detector.handle(Event::ProbeAnswered(seen), now);
        assert_eq!(drain(&mut detector), [Action::Probe]);
        // One that is never answered ends.
        detector.handle(Event::Suspect, now);
        pass(&mut detector, &mut now, Duration::from_secs(301));
        let probes = drain(&mut detector).len();
        assert!(probes <= SUSPECT_AT_MOST as usize + 2, "{probes}");
        pass(&mut detector, &mut now, Duration::from_secs(300));
        assert!(drain(&mut detector).len() < 100);
    }

    #[test]
    fn unanswered_probes_are_told_once() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::ProbeTarget(true), now);
        pass(&mut detector, &mut now, Duration::from_secs(300));
        let actions = drain(&mut detector);
        let told = actions.iter().filter(|a| matches!(a, Action::Verdict(_))).count();
        assert_eq!(told, 1);
        assert!(actions.len() < 100, "no storm: {}", actions.len());
    }

    #[test]
    fn a_local_change_is_not_told_twice_when_the_probe_sees_it_too() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::ProbeTarget(true), now);
        detector.handle(Event::ProbeAnswered("198.51.100.7:4000".parse().unwrap()), now);
        detector.handle(Event::AddressUp(LTE), now);
        pass(&mut detector, &mut now, DEBOUNCE);
        detector.handle(Event::ProbeAnswered("203.0.113.9:1".parse().unwrap()), now);
        let verdicts: Vec<_> =
            drain(&mut detector).into_iter().filter(|a| matches!(a, Action::Verdict(_))).collect();
        assert_eq!(verdicts, [Action::Verdict(Verdict::Changed(Witness::Local))]);
    }

    #[test]
    fn the_broker_sees_a_change_on_a_new_connection() {
        let now = Instant::now();
        let mut detector = Detector::new([HOME]);
        detector.handle(Event::BrokerEcho("198.51.100.7".parse().unwrap()), now);
        detector.handle(Event::BrokerEcho("198.51.100.7".parse().unwrap()), now);
        assert_eq!(drain(&mut detector), []);
        detector.handle(Event::BrokerEcho("203.0.113.9".parse().unwrap()), now);
        assert_eq!(drain(&mut detector), [Action::Verdict(Verdict::Changed(Witness::BrokerEcho))]);
    }

    #[test]
    fn a_link_that_is_up_saves_probes_and_its_loss_asks_at_once() {
        let mut now = Instant::now();
        let mut detector = Detector::new([HOME]);
        let (here, other_port) = ("198.51.100.7:4000".parse().unwrap(), "198.51.100.7:4001".parse().unwrap());
        detector.handle(Event::Vouched(true), now);
        detector.handle(Event::ProbeTarget(true), now);
        detector.handle(Event::ProbeAnswered(here), now);
        drain(&mut detector);
        pass(&mut detector, &mut now, VOUCHED_PROBE_INTERVAL - Duration::from_secs(1));
        assert_eq!(drain(&mut detector), []);
        detector.handle(Event::Vouched(false), now);
        assert_eq!(drain(&mut detector), [Action::Probe]);
        // The NAT has forgotten the probe's mapping meanwhile.
        detector.handle(Event::ProbeAnswered(other_port), now);
        assert_eq!(drain(&mut detector), []);
        pass(&mut detector, &mut now, PROBE_INTERVAL);
        detector.handle(Event::ProbeAnswered(here), now);
        let forgotten = [Action::Probe, Action::Verdict(Verdict::Changed(Witness::Probe))];
        assert_eq!(drain(&mut detector), forgotten, "within 25 s it is news");
    }

    #[test]
    fn probe_and_echo_tell_one_change_once() {
        let now = Instant::now();
        let (old, new) =
            ("198.51.100.7:4000".parse().unwrap(), "203.0.113.9:4000".parse::<SocketAddr>().unwrap());
        for probe_first in [true, false] {
            let mut detector = Detector::new([HOME]);
            detector.handle(Event::BrokerEcho(SocketAddr::ip(&old)), now);
            detector.handle(Event::ProbeTarget(true), now);
            detector.handle(Event::ProbeAnswered(old), now);
            detector.handle(Event::Suspect, now);
            let mut events = [Event::ProbeAnswered(new), Event::BrokerEcho(new.ip())];
            if !probe_first {
                events.reverse();
            }
            events.into_iter().for_each(|event| detector.handle(event, now));
            let told = drain(&mut detector).into_iter().filter(|a| matches!(a, Action::Verdict(_))).count();
            assert_eq!(told, 1, "probe first: {probe_first}");
        }
    }
}
