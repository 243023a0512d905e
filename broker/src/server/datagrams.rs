//! The thread of datagrams: answers STUN, and carries what the relay's clients
//! and their peers send to each other.
//!
//! It waits for its sockets itself. Handed on by the runtime, every packet that
//! comes alone wakes two threads, looks at its socket twice and has the wait
//! for it armed anew: together as much work as relaying it.

mod watched;

use std::convert::Infallible;
use std::io::{self, PipeWriter};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use farm_protocol::stun::is_binding;

use super::relay::{Packet, RECEIVED, Relay};
use super::stun::Desk;
use watched::Source;
pub(super) use watched::Watched;

/// Datagrams of one socket after which the others have their turn.
const BATCH: u32 = 64;

/// Rest after an error, so that one that stays does not take the processor.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// What it serves.
pub(super) struct Served {
    /// Where clients ask and speak, nonblocking, and who answers STUN there.
    pub(super) clients: Option<(Arc<UdpSocket>, Desk)>,
    /// Takes what is no binding request, and what peers send.
    pub(super) relay: Option<Arc<Relay>>,
}

/// The thread.
pub(super) struct Datagrams {
    /// Closed to end it.
    running: PipeWriter,
    ended: Receiver<Infallible>,
}

impl Datagrams {
    /// Starts it. `guard` is dropped when it ends.
    pub(super) fn start(
        watched: Arc<Watched>,
        served: Served,
        guard: impl Send + 'static,
    ) -> io::Result<Self> {
        let (end, running) = io::pipe()?;
        watched.add_end(&end)?;
        if let Some((clients, _)) = &served.clients {
            watched.add_clients(clients)?;
        }
        let (alive, ended) = async_channel::bounded(1);
        std::thread::Builder::new().name("datagrams".to_owned()).spawn(move || {
            let _held: (Sender<Infallible>, _, _) = (alive, guard, end);
            served.run(&watched);
        })?;
        Ok(Self { running, ended })
    }

    /// Ends it; its sockets are closed then, as far as they are its own.
    pub(super) async fn stop(self) {
        drop(self.running);
        // Nobody ever sends here: this returns when the thread has ended.
        let _ended = self.ended.recv().await;
    }
}

impl Served {
    /// Until it is time to end.
    fn run(mut self, watched: &Watched) {
        let mut packet: Packet = [0; size_of::<Packet>()];
        let mut sources = Vec::new();
        loop {
            if let Err(error) = watched.wait(&mut sources)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::debug!(%error, "sockets can't be waited for");
                std::thread::sleep(AFTER_ERROR);
            }
            for source in sources.drain(..) {
                match (source, &self.relay) {
                    (Source::End, _) => return,
                    (Source::Clients, _) => self.take(&mut packet),
                    // One of each: a peer that floods has its turn like others.
                    (Source::Peers(id), Some(relay)) => relay.receive(id, &mut packet),
                    (Source::Peers(_), None) => {}
                }
            }
        }
    }

    /// Takes what has come from clients, up to [`BATCH`] datagrams.
    fn take(&mut self, packet: &mut Packet) {
        let Some((clients, desk)) = &mut self.clients else { return };
        for _ in 0..BATCH {
            let (length, source) = match clients.recv_from(&mut packet[RECEIVED]) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // About an earlier datagram (ICMP); each is told once.
                Err(error) => {
                    tracing::debug!(%error, "a datagram did not arrive");
                    continue;
                }
            };
            let bytes = &packet[RECEIVED][..length];
            match &self.relay {
                Some(relay) if !is_binding(bytes) => relay.datagram(source, packet, length),
                _ => {
                    if let Some(answer) = desk.respond(bytes, source, Instant::now())
                        && let Err(error) = clients.send_to(&answer, source)
                    {
                        tracing::debug!(%error, "a STUN answer was not sent");
                    }
                }
            }
        }
    }
}
