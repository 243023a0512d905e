//! What every part of the world shares: the clock, the randomness, the
//! network, the schedule and the story.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use farm_broker::core::ConnectionId;
use farm_protocol::broker::{FromBroker, ToBroker};
use farm_protocol::ping::Ping;
use farm_tunnel::carrier::CarrierId;

use super::carrier::{Peer, PeerId};
use super::mutation::Mutation;
use super::net::{Endpoint, Net};
use super::pipe::{Parcel, Pipe, PipeId, Sink};
use super::rng::Rng;
use super::story::Story;
use super::traffic::Plan;

/// The one reading of a clock: the zero of all virtual times.
static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Seconds since 1970 at virtual time 0.
const UNIX: u64 = 1_790_000_000;

/// Which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeId {
    /// By its place among the farms.
    Farm(usize),
    /// By its place among the phones.
    Phone(usize),
}

/// Something that will happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// A device's timers.
    Wake(NodeId),
    /// The broker's.
    BrokerWake,
    /// A pipe tries to send.
    Tick(PipeId),
    /// A pipe delivers.
    Arrive(PipeId),
    /// A try to reach the broker.
    Dial(ConnectionId, usize),
    /// TCP, TLS and the WebSocket are set up.
    Dialed(ConnectionId),
    /// They are not.
    DialFailed(ConnectionId, &'static str),
    /// A device's message reaches a slow broker's core.
    ToBroker(ConnectionId, ToBroker),
    /// A message of the broker's, delayed or repeated by mischief.
    FromBroker(ConnectionId, Box<FromBroker>),
    /// A ping reaches the end of a carrier.
    Ping(PeerId, Ping),
    /// Connectivity checks.
    Ice(PeerId),
    /// The channels of one end are open.
    PeerOpen(PeerId),
    /// One end learns its public address.
    Reflexive(PeerId),
    /// ICE's consent check.
    Consent(PeerId),
    /// One end closes.
    ClosePeer(PeerId),
    /// The other end hears of it.
    PeerGone(PeerId),
    /// A carrier's engine is ready.
    Built(NodeId, u64, CarrierId),
    /// A STUN probe reaches the broker.
    Probe(NodeId, u64, u64),
    /// Its answer.
    ProbeAnswer(NodeId, u64, u64, std::net::SocketAddr),
    /// Netlink tells of a local address.
    Netlink(NodeId, IpAddr, bool),
    /// A fault begins.
    Fault(usize),
    /// A fault ends.
    Mend(usize),
    /// A program on a phone opens a stream.
    Traffic(usize),
    /// A hostile actor acts.
    Mischief,
    /// All faults end.
    Heal,
    /// Everything must be well by now.
    Judge,
}

#[derive(Debug)]
struct Entry(Reverse<(Instant, u64)>, Event);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// A device's WebSocket to the broker.
#[derive(Debug, Clone, Copy)]
pub struct Conn {
    /// Whose.
    pub node: NodeId,
    /// Which run of its process.
    pub run: u64,
    /// The device's end.
    pub device: Endpoint,
    /// The broker's end.
    pub broker: Endpoint,
    /// To the broker and from it.
    pub pipes: Option<(PipeId, PipeId)>,
}

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When.
    pub at: Duration,
}

/// Counts for the summary, and for judging that runs are worth something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Events handled.
    pub events: u64,
    /// Carriers that became live at a phone.
    pub carriers: u64,
    /// Attempts at a direct carrier beside a relayed one.
    pub upgrades: u64,
    /// Streams that ended well at both ends.
    pub streams: u64,
    /// Streams that were reset for a stated reason.
    pub resets: u64,
    /// Bytes that programs read and compared.
    pub bytes: u64,
    /// Faults.
    pub faults: u64,
    /// Signals that were not believed.
    pub unbelieved: u64,
    /// The longest time to live after the healing.
    pub slowest: Duration,
}

/// See the module.
pub struct Ctx {
    /// Virtual time.
    pub now: Instant,
    /// The seed's randomness.
    pub rng: Rng,
    /// The network.
    pub net: Net,
    queue: BinaryHeap<Entry>,
    serial: u64,
    /// Every reliable channel, one direction each.
    pub pipes: BTreeMap<PipeId, Pipe>,
    /// Every end of a carrier.
    pub peers: BTreeMap<PeerId, Peer>,
    /// Every connection to the broker that the devices know.
    pub conns: BTreeMap<ConnectionId, Conn>,
    next: u64,
    /// What the programs mean to do with each stream.
    pub plans: Vec<Plan>,
    /// What happened.
    pub story: Story,
    /// A deliberate defect.
    pub mutation: Option<Mutation>,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// How far the broker's wall clock is off, in seconds.
    pub wall: i64,
    /// Counts.
    pub stats: Stats,
    /// All faults are over.
    pub healed: Option<Instant>,
}

impl Ctx {
    /// An empty world at virtual time 0.
    pub fn new(seed: u64, record: bool, mutation: Option<Mutation>) -> Self {
        Self {
            now: *ZERO,
            rng: Rng::new(seed),
            net: Net::default(),
            queue: BinaryHeap::new(),
            serial: 0,
            pipes: BTreeMap::new(),
            peers: BTreeMap::new(),
            conns: BTreeMap::new(),
            next: 0,
            plans: Vec::new(),
            story: Story::new(record),
            mutation,
            violation: None,
            wall: 0,
            stats: Stats::default(),
            healed: None,
        }
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - *ZERO
    }

    /// The moment at a virtual time.
    pub fn at(elapsed: Duration) -> Instant {
        *ZERO + elapsed
    }

    /// The broker's wall clock.
    pub fn unix(&self) -> u64 {
        (UNIX + self.elapsed().as_secs()).saturating_add_signed(self.wall)
    }

    /// A number that no other thing of this run has.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Lets an event happen at a time.
    pub fn schedule(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.queue.push(Entry(Reverse((at.max(self.now), self.serial)), event));
    }

    /// The next event; time moves on to it.
    pub fn next_event(&mut self) -> Option<Event> {
        let Entry(Reverse((at, serial)), event) = self.queue.pop()?;
        self.now = at;
        self.stats.events += 1;
        self.story.stir(at - *ZERO, serial);
        Some(event)
    }

    /// Tells the story.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.elapsed();
        self.story.note(at, what);
    }

    /// An invariant does not hold. Only the first is kept.
    pub fn violate(&mut self, invariant: &'static str, what: String) {
        if self.violation.is_none() {
            let at = self.elapsed();
            self.story.note(at, || format!("VIOLATION {invariant}: {what}"));
            self.violation = Some(Violation { invariant, what, at });
        }
    }

    /// Whether this defect is built in.
    pub fn is_mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// A new pipe.
    pub fn pipe(&mut self, from: Endpoint, to: Endpoint, sink: Sink) -> PipeId {
        let id = self.number();
        let pipe = Pipe::new(from, to, sink, self.now, &mut self.rng);
        self.pipes.insert(id, pipe);
        id
    }

    /// Sends a parcel.
    pub fn push(&mut self, pipe: PipeId, parcel: Parcel) {
        if let Some(p) = self.pipes.get_mut(&pipe)
            && p.push(parcel)
        {
            self.schedule(self.now, Event::Tick(pipe));
        }
    }

    /// What was sent and has not arrived, in bytes.
    pub fn outstanding(&self, pipe: PipeId) -> u64 {
        self.pipes.get(&pipe).map_or(0, Pipe::outstanding)
    }
}
