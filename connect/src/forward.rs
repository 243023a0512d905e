//! Forwards a local port to a service of a farm.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use farm_protocol::frame::ResetReason;
use farm_tunnel::mux::MAX_STREAMS;
use farm_tunnel::pump::pump;
use smol::net::{TcpListener, TcpStream};

use crate::tunnel::Tunnel;

/// After a failed accept (out of descriptors): others may finish meanwhile.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A local port that leads to a service.
pub struct Forward {
    listener: TcpListener,
    tunnel: Tunnel,
    service: String,
}

impl Forward {
    /// Listens; connections are accepted once [`Forward::run`] runs.
    ///
    /// # Errors
    /// Where the port is taken or not allowed.
    pub async fn bind(tunnel: &Tunnel, service: &str, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self { listener, tunnel: tunnel.clone(), service: service.to_owned() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Forwards for ever, whatever the farm does: while it is away,
    /// connections wait.
    pub async fn run(self) {
        let places = std::sync::Arc::new(smol::lock::Semaphore::new(MAX_STREAMS));
        loop {
            // Beyond the limit the backlog of the socket holds callers back.
            let place = places.acquire_arc().await;
            let local = match self.listener.accept().await {
                Ok((local, _)) => local,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    smol::Timer::after(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let (tunnel, service) = (self.tunnel.clone(), self.service.clone());
            farm_tunnel::executor::spawn(async move {
                carry(&tunnel, &service, local).await;
                drop(place);
            })
            .detach();
        }
    }
}

async fn carry(tunnel: &Tunnel, service: &str, local: TcpStream) {
    let _attention = tunnel.attend();
    let stream = match tunnel.open(service) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(service, %error, "a connection was refused"),
    };
    // A program must not wait for a farm that will never answer.
    let not_paired = async {
        tunnel.not_paired().await;
        stream.reset(ResetReason::SessionEnded);
        std::future::pending().await
    };
    match smol::future::or(pump(&stream, local), not_paired).await {
        Ok(moved) => {
            tracing::debug!(service, sent = moved.sent, received = moved.received, "connection done");
        }
        Err(farm_tunnel::pump::PumpError::Reset(
            reason @ (ResetReason::UnknownService | ResetReason::ServiceUnavailable),
        )) => tracing::warn!(service, reason = reason.explanation(), "a connection was refused"),
        Err(_) if tunnel.is_not_paired() => {
            tracing::warn!(service, "the farm no longer knows this device: pair again");
        }
        Err(error) => tracing::info!(service, %error, "a connection ended early"),
    }
}
