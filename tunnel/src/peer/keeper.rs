//! The task that belongs to each connection: it passes on what the engine reports, notices the
//! end, and closes the engine's connection in every case, because one that is merely dropped
//! leaves its driver running for ever.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_channel::{Receiver, Sender};
use futures_util::{FutureExt, select_biased};
use webrtc::{
    data_channel::{DataChannel, DataChannelEvent},
    peer_connection::{PeerConnection, RTCIceCandidateType},
};

use super::{
    KnownPath, LostReason, MAX_CANDIDATES, PeerEvent, candidate,
    handler::{MAX_SIGNALS, Signal},
    lane::wake_driver,
    path::selected,
    relay::Relay,
    runtime::{DriverRuntime, KEEPER},
};

/// Events a connection can ever report: its candidates, that they are all, that it is open, that
/// it is lost. So a queue of this size is never full, and nothing is dropped or waits.
pub(super) const MAX_EVENTS: usize = MAX_CANDIDATES + 3;

/// From the first path to open channels. The engine retries a DTLS handshake every second and
/// gives up after 8, and only one side says so: a certificate that is not the described one looks
/// like silence.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);

/// How long a close waits at most until the peer has what was sent before it: an
/// acknowledgement may be held back for 200 ms (RFC 9260, section 6.2), and a
/// goodbye that is lost costs the other end a second.
const FLUSH_WITHIN: Duration = Duration::from_millis(300);

/// The turns after which it is written: one that was under way, and one that saw it.
const TURNS_TO_WRITE: usize = 2;

/// What the connection's owners share with its keeper.
#[derive(Default)]
pub(super) struct Status {
    /// Set once, when the connection has ended.
    pub(super) lost: OnceLock<LostReason>,
    /// Set when all channels are open.
    pub(super) opened: AtomicBool,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// ICE looks for a path.
    Seeking,
    /// There is one; DTLS and SCTP are being agreed.
    Handshaking,
    Open,
}

/// One connection's keeper.
pub(super) struct Keeper {
    pub(super) connection: Arc<dyn PeerConnection>,
    pub(super) runtime: Arc<DriverRuntime>,
    /// A data channel of our own that carries nothing, whose opening and closing tell those of
    /// the connection: a remote close shows nowhere else, and the other channels' events belong
    /// to their readers.
    pub(super) sentinel: Arc<dyn DataChannel>,
    /// Where goodbyes are said; its events are its reader's.
    pub(super) control: Arc<dyn DataChannel>,
    pub(super) status: Arc<Status>,
    pub(super) signals: Receiver<Signal>,
    pub(super) failures: Receiver<LostReason>,
    /// From the owners: the candidates already in the session description. Closed when the last
    /// owner is gone or asks for the end.
    pub(super) advertised: Receiver<BTreeSet<String>>,
    pub(super) events: Sender<PeerEvent>,
    pub(super) open_within: Duration,
    pub(super) relay: Option<Relay>,
    pub(super) known_path: KnownPath,
    /// Dropped with the keeper: the connection is closed.
    pub(super) closed: Sender<()>,
}

impl Keeper {
    pub(super) async fn run(self) {
        let lost = self.watch().await;
        // Told first: closing may take 100 ms.
        match lost {
            Some(reason) => {
                tracing::info!(%reason, "peer connection lost");
                let _ = self.status.lost.set(reason);
                self.tell(PeerEvent::Lost(reason));
            }
            None => {
                tracing::debug!("peer connection closed");
                let _ = self.status.lost.set(LostReason::ClosedHere);
                self.flush().await;
            }
        }
        self.runtime.wake_senders();
        self.events.close();
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "closing a peer connection");
        }
        self.relay.iter().for_each(Relay::close);
        drop(self.closed);
    }

    /// For the connections that follow: what this one's path needed.
    async fn remember_path(&self) {
        if let Some(pair) = selected(&*self.connection).await {
            let ours = self.relay.as_ref().filter(|_| pair.local.typ == RTCIceCandidateType::Relay);
            self.known_path.opened(ours.and_then(Relay::via));
        }
    }

    /// Sees to it that what was sent before the close, a goodbye mostly, arrives. Closing drops
    /// what the driver has not written. And where the peer's driver finds the message and the end
    /// at once in its socket, it tells the end first, which drops the message: so the end waits
    /// until the message is acknowledged.
    async fn flush(&self) {
        let written = async {
            for _ in 0..TURNS_TO_WRITE {
                let turn = self.runtime.turn();
                if wake_driver(&*self.sentinel).await.is_err() {
                    return;
                }
                self.runtime.after_turn(turn, KEEPER).await;
            }
            loop {
                let turn = self.runtime.turn();
                if !matches!(self.control.outstanding_bytes().await, Ok(1..)) {
                    return;
                }
                self.runtime.after_turn(turn, KEEPER).await;
            }
        };
        let patience = async {
            smol::Timer::after(FLUSH_WITHIN).await;
        };
        smol::future::or(written, patience).await;
    }

    /// Until the connection ends: why, or `None` when its owners want it closed.
    async fn watch(&self) -> Option<LostReason> {
        let mut deadline = smol::Timer::after(self.open_within);
        let mut phase = Phase::Seeking;
        let mut advertised = None;
        let mut held = Vec::new();
        let mut candidates = 0;
        loop {
            select_biased! {
                told = self.advertised.recv().fuse() => match told {
                    Ok(named) => {
                        for candidate in held.drain(..) {
                            self.offer_candidate(candidate, &named, &mut candidates);
                        }
                        advertised = Some(named);
                    }
                    Err(_) => return None,
                },
                reason = self.failures.recv().fuse() => {
                    return Some(reason.unwrap_or(LostReason::Engine));
                }
                event = self.sentinel.poll().fuse() => match event {
                    Some(DataChannelEvent::OnOpen) => {
                        self.status.opened.store(true, Ordering::Release);
                        self.runtime.set_open();
                        deadline = smol::Timer::never();
                        phase = Phase::Open;
                        self.remember_path().await;
                        tracing::info!("peer connection open");
                        self.tell(PeerEvent::Opened);
                    }
                    Some(DataChannelEvent::OnClose) => return Some(LostReason::ClosedByPeer),
                    Some(DataChannelEvent::OnMessage(_)) => {
                        return Some(LostReason::Violation("it wrote where nothing is written"));
                    }
                    Some(_) => {}
                    None if phase == Phase::Handshaking => return Some(LostReason::Handshake),
                    None => return Some(LostReason::Engine),
                },
                signal = self.signals.recv().fuse() => match signal {
                    Ok(Signal::Candidate(candidate)) => match &advertised {
                        Some(named) => self.offer_candidate(candidate, named, &mut candidates),
                        None if held.len() < MAX_SIGNALS => held.push(candidate),
                        None => {}
                    },
                    Ok(Signal::Path) if phase == Phase::Seeking => {
                        self.relay.iter().for_each(Relay::path_found);
                        deadline = smol::Timer::after(HANDSHAKE_WITHIN);
                        phase = Phase::Handshaking;
                    }
                    Ok(Signal::Path) => {}
                    Ok(Signal::GatheringDone) => self.tell(PeerEvent::GatheringDone),
                    Err(_) => return Some(LostReason::Engine),
                },
                _ = (&mut deadline).fuse() => {
                    return Some(match phase {
                        Phase::Handshaking => LostReason::Handshake,
                        _ => LostReason::NeverOpened,
                    });
                }
            }
        }
    }

    /// Reports a candidate unless the session description names it already.
    fn offer_candidate(&self, text: String, named: &BTreeSet<String>, told: &mut usize) {
        match candidate::canonical(&text) {
            Some(canonical) if !named.contains(&canonical) && *told < MAX_CANDIDATES => {
                *told += 1;
                self.tell(PeerEvent::Candidate(text));
            }
            _ => {}
        }
    }

    fn tell(&self, event: PeerEvent) {
        // Full cannot be (see `MAX_EVENTS`); closed means that nobody wants to know.
        let _ = self.events.try_send(event);
    }
}
