//! Forwards the streams of a session to the services of the config, and to
//! nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_protocol::frame::ResetReason;
use farm_protocol::id::SessionId;
use farm_tunnel::pump::pump;
use farm_tunnel::stream::Incoming;
use smol::net::TcpStream;

use crate::config::{ServiceAddress, ServiceConfig};
use crate::counters::{Count, Counters};
use crate::readings::delivery;
use crate::readings::handle::Readings;

/// For a service to accept a connection: it is on this machine or in the same
/// building. Three SYNs (at 0, 1 and 3 s) have gone out by then.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The services that are forwarded now; replaced when the config is.
#[derive(Clone, Default)]
pub struct Services {
    by_name: Arc<Mutex<BTreeMap<String, ServiceAddress>>>,
}

impl Services {
    /// From a config.
    pub fn new(services: &[ServiceConfig]) -> Self {
        let table = Self::default();
        table.replace(services);
        table
    }

    /// Takes over a new config: open streams go on, new ones follow it.
    pub fn replace(&self, services: &[ServiceConfig]) {
        *self.by_name.lock().unwrap_or_else(PoisonError::into_inner) =
            services.iter().map(|s| (s.service.name.clone(), s.address.clone())).collect();
    }

    fn find(&self, name: &str) -> Option<ServiceAddress> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Serves a session's streams until it ends.
pub async fn serve(
    session: SessionId,
    incoming: async_channel::Receiver<Incoming>,
    services: Services,
    readings: Readings,
    counters: Counters,
) {
    while let Ok(incoming) = incoming.recv().await {
        let (services, counters, readings) = (services.clone(), counters.clone(), readings.clone());
        farm_tunnel::executor::spawn(async move {
            if incoming.target == farm_protocol::readings::TARGET {
                deliver(session, incoming, &readings).await;
            } else {
                forward(session, incoming, &services, &counters).await;
            }
        })
        .detach();
    }
}

async fn deliver(session: SessionId, incoming: Incoming, readings: &Readings) {
    if let Err(error) = delivery::serve(&incoming.stream, readings).await {
        tracing::debug!(%session, %error, "readings were not delivered to the end");
    }
}

async fn forward(session: SessionId, incoming: Incoming, services: &Services, counters: &Counters) {
    let Incoming { stream, target } = incoming;
    let Some(address) = services.find(&target) else {
        counters.add(Count::UnknownService);
        tracing::info!(%session, "a phone asked for a service that is not in the config");
        return stream.reset(ResetReason::UnknownService);
    };
    let connect = TcpStream::connect((address.host.as_str(), address.port));
    let timeout = async {
        smol::Timer::after(CONNECT_WITHIN).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    let local = match smol::future::or(connect, timeout).await {
        Ok(local) => local,
        Err(error) => {
            counters.add(Count::ServiceUnavailable);
            tracing::info!(%session, service = target, %error, "the service does not answer");
            return stream.reset(ResetReason::ServiceUnavailable);
        }
    };
    counters.add(Count::StreamsForwarded);
    match pump(&stream, local).await {
        Ok(moved) => {
            tracing::debug!(%session, service = target, sent = moved.sent, received = moved.received, "stream done");
        }
        Err(error) => tracing::debug!(%session, service = target, %error, "stream ended early"),
    }
}
