//! The engine's part of a carrier: finds a path by connectivity checks once
//! both ends know of each other, opens the channels, and dies in silence with
//! its path.

use std::time::{Duration, Instant};

use farm_protocol::ping::Ping;
use farm_tunnel::carrier::CarrierId;
use farm_tunnel::peer::PathKind;
use farm_tunnel::recovery::Ways;

use super::ctx::{Ctx, Event, NodeId};
use super::net::{BROKER, Endpoint, Fate, Nat};
use super::pipe::{Parcel, PipeId, Sink};

/// Numbers the ends of carriers.
pub type PeerId = u64;

/// Between two rounds of connectivity checks.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Rounds before a pair of candidates is given up: 5 s, as the engine is configured.
const CHECKS: u16 = 50;

/// ICE's consent check and its limit, as the engine is configured.
const CONSENT_EVERY: Duration = Duration::from_secs(60);
const CONSENT_LOST: Duration = Duration::from_secs(200);

/// The send window: bytes on their way at which a sender waits.
pub const SEND_WINDOW: u64 = 128 * 1024;

/// How far an end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It looks for a path.
    Checking,
    /// There is a path; the handshakes are under way.
    Handshake,
    /// The channels are open.
    Open,
    /// Closed here.
    Closed,
}

/// One end of a carrier in its engine.
#[derive(Debug)]
pub struct Peer {
    /// Whose.
    pub owner: NodeId,
    /// Which run of its process.
    pub run: u64,
    /// Which carrier.
    pub id: CarrierId,
    /// Its socket.
    pub end: Endpoint,
    /// The other end, once its description came.
    pub partner: Option<PeerId>,
    /// A usable address of the other end is known.
    knows: bool,
    /// Its own description names a usable address.
    tells: bool,
    /// How far it has come.
    pub state: PeerState,
    /// Its channels: control and data.
    pub pipes: Option<(PipeId, PipeId)>,
    tries: u16,
    consent: Instant,
    fortune: Fortune,
}

/// What becomes of a search for a path besides what the network decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fortune {
    /// A direct path is found.
    Direct,
    /// A direct one is not found in time, and the relay's is taken.
    Relayed,
    /// There is no direct one, and no other is wanted.
    Hopeless,
}

/// Share of ordinary connections that come up relayed, and of attempts at a
/// direct one in their place that come to nothing.
const RELAYED: f64 = 0.3;
const HOPELESS: f64 = 0.5;

/// The text that stands for a session description.
pub fn sdp(peer: PeerId) -> String {
    format!("peer {peer}")
}

/// The text that stands for a candidate.
pub fn candidate(peer: PeerId) -> String {
    format!("candidate:{peer}")
}

impl Ctx {
    /// A new end. Its public address comes later as a candidate, or is known
    /// at once.
    pub fn new_peer(&mut self, owner: NodeId, run: u64, host: usize, id: CarrierId) -> PeerId {
        let peer = self.number();
        let end = self.net.endpoint(host);
        let tells = self.net.hosts[host].nat == Nat::Open || self.rng.chance(0.3);
        let state = PeerState::Checking;
        let new = Peer {
            owner,
            run,
            id,
            end,
            partner: None,
            knows: false,
            tells,
            state,
            pipes: None,
            tries: 0,
            consent: self.now,
            fortune: Fortune::Direct,
        };
        self.peers.insert(peer, new);
        if !tells {
            let there = self.net.delay(host, BROKER, &mut self.rng);
            let back = self.net.delay(BROKER, host, &mut self.rng);
            self.schedule(self.now + there + back, Event::Reflexive(peer));
        }
        peer
    }

    /// Which ways the connection may take that this end begins.
    pub fn take_ways(&mut self, peer: PeerId, ways: Ways) {
        let fortune = match ways {
            Ways::DirectOnly if self.rng.chance(HOPELESS) => Fortune::Hopeless,
            Ways::DirectOnly => Fortune::Direct,
            Ways::RelayOnly => Fortune::Relayed,
            Ways::Any if self.rng.chance(RELAYED) => Fortune::Relayed,
            Ways::Any => Fortune::Direct,
        };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.fortune = fortune;
        }
    }

    /// The path that the connection takes which this end began. (Packets take the
    /// same one: what is tried here is what the ends make of it.)
    pub fn peer_path(&self, peer: PeerId) -> PathKind {
        match self.peers.get(&peer).map(|peer| peer.fortune) {
            Some(Fortune::Relayed) => PathKind::Relayed,
            _ => PathKind::Direct,
        }
    }

    /// Whether the end's own STUN request was answered.
    pub fn learns_reflexive(&mut self, peer: PeerId) -> bool {
        let Some(p) = self.peers.get(&peer) else { return false };
        let broker = self.net.endpoint(BROKER);
        p.state == PeerState::Checking && self.net.connects_both_ways(&p.end, &broker)
    }

    /// The other side's description came: `false` for nonsense.
    pub fn describe(&mut self, peer: PeerId, sdp: &str) -> bool {
        let Some(other) = sdp.strip_prefix("peer ").and_then(|n| n.parse::<PeerId>().ok()) else {
            return false;
        };
        let tells = self.peers.get(&other).is_some_and(|o| o.tells);
        let Some(p) = self.peers.get_mut(&peer) else { return false };
        if p.partner.is_none() {
            p.partner = Some(other);
            p.knows |= tells;
            self.schedule(self.now, Event::Ice(peer));
        }
        true
    }

    /// A candidate of the other side's came.
    pub fn candidate(&mut self, peer: PeerId, line: &str) {
        let other = line.strip_prefix("candidate:").and_then(|n| n.parse::<PeerId>().ok());
        if let Some(p) = self.peers.get_mut(&peer) {
            p.knows |= other.is_some();
        }
    }

    /// A round of connectivity checks.
    pub fn ice(&mut self, peer: PeerId) {
        let Some(p) = self.peers.get_mut(&peer) else { return };
        if p.state != PeerState::Checking || p.tries >= CHECKS {
            return;
        }
        p.tries += 1;
        if let Some(other) = p.partner
            && self.finds_path(peer, other)
        {
            return self.handshake(peer, other);
        }
        self.schedule(self.now + CHECK_EVERY, Event::Ice(peer));
    }

    fn finds_path(&mut self, a: PeerId, b: PeerId) -> bool {
        let (Some(x), Some(y)) = (self.peers.get(&a), self.peers.get(&b)) else { return false };
        let mutual = y.partner == Some(a) && y.state == PeerState::Checking;
        let open = |p: &Peer| self.net.hosts[p.end.host].nat == Nat::Open;
        // One behind a router is heard only by whom it sends to; one with a
        // public address learns the other's from its checks.
        let known = (x.knows || (open(x) && y.knows)) && (y.knows || (open(y) && x.knows));
        let hopeless = [x, y].iter().any(|end| end.fortune == Fortune::Hopeless);
        if !(mutual && known) || hopeless {
            return false;
        }
        let (from, to) = (x.end, y.end);
        let there = self.net.fate(&from, &to, false, &mut self.rng);
        let back = self.net.fate(&to, &from, false, &mut self.rng);
        matches!((there, back), (Fate::Arrives(_), Fate::Arrives(_)))
    }

    fn handshake(&mut self, a: PeerId, b: PeerId) {
        for (peer, other) in [(a, b), (b, a)] {
            let (Some(from), Some(to)) =
                (self.peers.get(&peer).map(|p| p.end), self.peers.get(&other).map(|p| p.end))
            else {
                return;
            };
            let pipes = (self.pipe(from, to, Sink::Peer(other)), self.pipe(from, to, Sink::Peer(other)));
            // Three round trips: DTLS and SCTP.
            let mut opens = self.now;
            for _ in 0..3 {
                opens += self.net.delay(from.host, to.host, &mut self.rng) * 2;
            }
            if let Some(p) = self.peers.get_mut(&peer) {
                p.state = PeerState::Handshake;
                p.pipes = Some(pipes);
                p.tries = 0;
            }
            self.schedule(opens, Event::PeerOpen(peer));
        }
    }

    /// The handshakes are done, if their packets passed. Says whether the
    /// channels are open now.
    pub fn peer_opens(&mut self, peer: PeerId) -> bool {
        let Some(p) = self.peers.get(&peer) else { return false };
        let other = p.partner.and_then(|other| self.peers.get(&other));
        let passes = other.is_some_and(|o| {
            matches!(o.state, PeerState::Handshake | PeerState::Open)
                && self.net.connects_both_ways(&p.end, &o.end)
        });
        let times = other.map_or(1, |o| self.net.times(&p.end, &o.end));
        let loss = self.net.hosts[p.end.host].loss;
        let lost = (0..times).all(|_| self.rng.chance(loss));
        let now = self.now;
        let Some(p) = self.peers.get_mut(&peer) else { return false };
        if p.state != PeerState::Handshake {
            return false;
        }
        if passes && !lost {
            p.state = PeerState::Open;
            p.consent = now;
            self.schedule(now + CONSENT_EVERY, Event::Consent(peer));
            return true;
        }
        p.tries += 1;
        if p.tries < 30 {
            // A retransmission of the handshake.
            self.schedule(now + Duration::from_secs(1), Event::PeerOpen(peer));
        }
        false
    }

    /// ICE's own check of an open end; says whether it gives up.
    pub fn consent(&mut self, peer: PeerId) -> bool {
        let Some(p) = self.peers.get(&peer).filter(|p| p.state == PeerState::Open) else { return false };
        let passes = self.peer_path_works(peer);
        let silent = self.now.saturating_duration_since(p.consent);
        let now = self.now;
        if let Some(p) = self.peers.get_mut(&peer)
            && passes
        {
            p.consent = now;
        }
        if !passes && silent >= CONSENT_LOST {
            return true;
        }
        self.schedule(now + CONSENT_EVERY, Event::Consent(peer));
        false
    }

    /// Whether packets could pass both ways between this end and its partner,
    /// which has it open as well.
    pub fn peer_path_works(&self, peer: PeerId) -> bool {
        let p = self.peers.get(&peer);
        let other = p.and_then(|p| p.partner).and_then(|other| self.peers.get(&other));
        let (Some(p), Some(o)) = (p, other) else { return false };
        p.state == PeerState::Open
            && o.state == PeerState::Open
            && self.net.connects_both_ways(&p.end, &o.end)
    }

    /// Sends a message on a reliable channel, if it is open.
    pub fn peer_push(&mut self, peer: PeerId, parcel: Parcel) -> bool {
        let Some(p) = self.peers.get(&peer).filter(|p| p.state == PeerState::Open) else { return false };
        let Some((control, data)) = p.pipes else { return false };
        let pipe = if matches!(parcel, Parcel::Frame(_)) { data } else { control };
        self.push(pipe, parcel);
        true
    }

    /// Whether the data channel takes more.
    pub fn peer_has_room(&self, peer: PeerId) -> bool {
        let pipes = self.peers.get(&peer).and_then(|p| p.pipes);
        pipes.is_some_and(|(_, data)| self.outstanding(data) < SEND_WINDOW)
    }

    /// Sends a ping or its answer, once.
    pub fn peer_ping(&mut self, peer: PeerId, ping: Ping) {
        let Some(p) = self.peers.get(&peer).filter(|p| p.state == PeerState::Open) else { return };
        let Some(other) = p.partner else { return };
        let Some(to) = self.peers.get(&other).map(|o| o.end) else { return };
        let from = p.end;
        if let Fate::Arrives(delay) = self.net.fate(&from, &to, false, &mut self.rng) {
            self.schedule(self.now + delay, Event::Ping(other, ping));
        }
    }

    /// Closes an end. The other one hears of it if a packet passes.
    pub fn close_peer(&mut self, peer: PeerId) {
        let Some(p) = self.peers.get_mut(&peer).filter(|p| p.state != PeerState::Closed) else { return };
        let was_open = p.state == PeerState::Open;
        p.state = PeerState::Closed;
        let (from, partner) = (p.end, p.partner);
        if let Some((control, data)) = p.pipes {
            // What is on its way still arrives; what waits does not leave.
            for pipe in [control, data] {
                if let Some(pipe) = self.pipes.get_mut(&pipe) {
                    pipe.cut();
                }
            }
        }
        let Some(to) = partner.and_then(|other| self.peers.get(&other)).map(|o| o.end) else { return };
        if was_open
            && let Some(other) = partner
            && let Fate::Arrives(delay) = self.net.fate(&from, &to, false, &mut self.rng)
        {
            self.schedule(self.now + delay, Event::PeerGone(other));
        }
    }

    /// The process that owned them died: its ends say nothing more.
    pub fn kill_peers(&mut self, owner: NodeId, run: u64) {
        for peer in self.peers.values_mut().filter(|p| p.owner == owner && p.run == run) {
            peer.state = PeerState::Closed;
        }
    }
}
