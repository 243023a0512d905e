//! A reliable ordered channel over the virtual network: TCP, or SCTP within a
//! carrier. What is lost is sent again, ever more slowly.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farm_protocol::broker::{FromBroker, ToBroker};
use farm_protocol::control::Control;
use farm_protocol::frame::Frame;

use super::carrier::PeerId;
use super::net::{Endpoint, Fate, Net};
use super::rng::Rng;
use farm_broker::core::ConnectionId;

/// Numbers the pipes of a run.
pub type PipeId = u64;

/// The longest pause between two tries: SCTP's and TCP's cap (RFC 9260, RFC 6298).
const LONGEST_RTO: Duration = Duration::from_secs(60);

/// What travels.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// On a carrier's control channel.
    Control(Control),
    /// On its data channel.
    Frame(Frame),
    /// On a WebSocket.
    ToBroker(ToBroker),
    /// The other way.
    FromBroker(Box<FromBroker>),
    /// The sender closed.
    Fin,
}

impl Parcel {
    fn size(&self) -> u64 {
        match self {
            Self::Frame(Frame::Data { bytes, .. }) => bytes.len() as u64 + 90,
            Self::Frame(_) | Self::Fin => 90,
            Self::Control(_) => 300,
            Self::ToBroker(_) | Self::FromBroker(_) => 600,
        }
    }
}

/// Who gets what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// The end of a carrier.
    Peer(PeerId),
    /// The broker.
    Broker(ConnectionId),
    /// The device of a connection to the broker.
    Device(ConnectionId),
}

/// What a try came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Tick {
    /// The head left and arrives then; try the next at the second time.
    Sent(Instant, Option<Instant>),
    /// Try again then.
    Again(Instant),
    /// The other end knows no such connection.
    Reset,
    /// Nothing to send, or nobody who sends.
    Idle,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Pipe {
    /// The sending end.
    pub from: Endpoint,
    /// The receiving end.
    pub to: Endpoint,
    /// Who gets what arrives.
    pub sink: Sink,
    tcp: bool,
    queue: VecDeque<Parcel>,
    flight: VecDeque<Parcel>,
    bytes: u64,
    /// A try is scheduled.
    pub ticking: bool,
    shortest_rto: Duration,
    rto: Duration,
    last_arrival: Instant,
}

impl Pipe {
    /// An empty pipe.
    pub fn new(from: Endpoint, to: Endpoint, sink: Sink, now: Instant, rng: &mut Rng) -> Self {
        let tcp = !matches!(sink, Sink::Peer(_));
        let shortest_rto = if tcp { Duration::from_millis(200) } else { rng.ms(100, 1000) };
        Self {
            from,
            to,
            sink,
            tcp,
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            bytes: 0,
            ticking: false,
            shortest_rto,
            rto: shortest_rto,
            last_arrival: now,
        }
    }

    /// Queues a parcel; says whether a try is to be scheduled now.
    pub fn push(&mut self, parcel: Parcel) -> bool {
        self.bytes += parcel.size();
        self.queue.push_back(parcel);
        !std::mem::replace(&mut self.ticking, true)
    }

    /// What waits does not leave any more; what is on its way arrives.
    pub fn cut(&mut self) {
        self.bytes -= self.queue.drain(..).map(|parcel| parcel.size()).sum::<u64>();
    }

    /// Bytes that have not arrived.
    pub fn outstanding(&self) -> u64 {
        self.bytes
    }

    /// Tries to send the head.
    pub fn tick(&mut self, net: &Net, now: Instant, rng: &mut Rng) -> Tick {
        self.ticking = false;
        let Some(head) = self.queue.front() else { return Tick::Idle };
        if net.is_gone(&self.from) {
            return Tick::Idle;
        }
        match net.fate(&self.from, &self.to, self.tcp, rng) {
            Fate::Reset => Tick::Reset,
            Fate::Lost => {
                self.ticking = true;
                let again = now + self.rto;
                self.rto = (self.rto * 2).min(LONGEST_RTO);
                Tick::Again(again)
            }
            Fate::Arrives(delay) => {
                self.rto = self.shortest_rto;
                let rate = net.hosts[self.from.host].rate.min(net.hosts[self.to.host].rate);
                let took = Duration::from_nanos(head.size() * 1_000_000_000 / rate);
                self.last_arrival = self.last_arrival.max(now + took + delay);
                self.flight.extend(self.queue.pop_front());
                let next = (!self.queue.is_empty()).then(|| now + took);
                self.ticking = next.is_some();
                Tick::Sent(self.last_arrival, next)
            }
        }
    }

    /// The next parcel arrives.
    pub fn arrive(&mut self) -> Option<Parcel> {
        let parcel = self.flight.pop_front()?;
        self.bytes -= parcel.size();
        Some(parcel)
    }
}
