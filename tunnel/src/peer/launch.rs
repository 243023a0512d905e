//! Making a connection: the engine with our settings, the agreed channels, the keeper.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8},
    },
};

use async_channel::{Receiver, Sender, bounded};
use webrtc::{
    data_channel::{DataChannel, RTCDataChannelInit},
    peer_connection::{PeerConnection, PeerConnectionBuilder},
};

use super::{
    Channel, LostReason, PeerConfig, PeerError, PeerEvent, engine,
    handler::{Handler, MAX_SIGNALS},
    keeper::{Keeper, MAX_EVENTS, Status},
    lane::{Lane, wake_driver},
    relay::Relay,
    resolve,
    runtime::{DIRECT_TURNS, DriverRuntime},
    settings,
};
use crate::recovery::Ways;

/// Id of the keeper's channel: one that neither side uses. Opening an agreed channel sends
/// nothing, so the peer need not know of it.
const SENTINEL_ID: u16 = 1023;

/// A connection that is made and has a keeper, before anything is negotiated.
pub(super) struct Launched {
    pub(super) connection: Arc<dyn PeerConnection>,
    /// By [`Channel::id`].
    pub(super) lanes: [Lane; 3],
    pub(super) runtime: Arc<DriverRuntime>,
    pub(super) status: Arc<Status>,
    pub(super) events: Receiver<PeerEvent>,
    /// To the keeper. Closing it, or dropping it, closes the connection.
    pub(super) keeper: Sender<BTreeSet<String>>,
    /// Tells the keeper what a reader saw.
    pub(super) failures: Sender<LostReason>,
    /// Closed when the first candidates are known.
    pub(super) gathered: Receiver<()>,
    /// Closed when the connection is closed.
    pub(super) closed: Receiver<()>,
}

/// Makes a connection.
///
/// In a task of its own: a caller that loses interest halfway must not leave an engine running
/// without a keeper.
pub(super) async fn launch(config: PeerConfig) -> Result<Launched, PeerError> {
    let (done, result) = bounded(1);
    crate::executor::spawn(async move {
        // Nobody to tell: dropping what was launched closes it.
        let _ = done.send(make(config).await).await;
    })
    .detach();
    result.recv().await.unwrap_or(Err(PeerError::Lost(LostReason::Engine)))
}

async fn make(config: PeerConfig) -> Result<Launched, PeerError> {
    let mut servers = resolve::resolve(&config.ice_servers).await?;
    let turns = Arc::new(AtomicU8::new(DIRECT_TURNS));
    let relay = config
        .relay
        .clone()
        .filter(|_| config.ways != Ways::DirectOnly)
        .map(|server| Relay::new(server, config.ways, config.known_path.relay(), Arc::clone(&turns)));
    servers.extend(relay.as_ref().map(Relay::as_ice_server));
    let runtime = Arc::new(DriverRuntime::new(relay.clone(), config.known_path.loss.clone(), turns));
    let (signals, heard) = bounded(MAX_SIGNALS);
    let (failures, failed) = bounded(1);
    let (first, gathered) = bounded(1);
    let handler =
        Handler { signals, failures: failures.clone(), gathered: first, path: AtomicBool::new(false) };
    let connection: Arc<dyn PeerConnection> = Arc::new(
        PeerConnectionBuilder::new()
            .with_configuration(settings::configuration(&config, &servers))
            .with_setting_engine(settings::engine(&config))
            .with_runtime(Arc::clone(&runtime) as _)
            .with_handler(Arc::new(handler))
            .with_udp_addrs(bind_addresses(&config))
            .build()
            .await
            .map_err(engine("make a connection"))?,
    );
    let opened = open_channels(&*connection).await;
    let (lanes, sentinel) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = connection.close().await;
            return Err(error);
        }
    };

    let status = Arc::new(Status::default());
    let control = Arc::clone(&lanes[usize::from(Channel::Control.id())].1);
    let lanes = lanes.map(|(kind, channel)| {
        Lane::new(kind, channel, Arc::clone(&runtime), Arc::clone(&status), config.tuning)
    });
    let (keeper, advertised) = bounded(1);
    let (told, events) = bounded(MAX_EVENTS);
    let (end, closed) = bounded(1);
    let task = Keeper {
        connection: Arc::clone(&connection),
        runtime: Arc::clone(&runtime),
        sentinel,
        control,
        status: Arc::clone(&status),
        signals: heard,
        failures: failed,
        advertised,
        events: told,
        open_within: config.open_within,
        relay,
        known_path: config.known_path,
        closed: end,
    };
    crate::executor::spawn(task.run()).detach();
    Ok(Launched { connection, lanes, runtime, status, events, keeper, failures, gathered, closed })
}

/// The channels by [`Channel::id`], and the keeper's.
type Channels = ([(Channel, Arc<dyn DataChannel>); 3], Arc<dyn DataChannel>);

/// Opens the agreed channels, before the first offer so that it describes them.
async fn open_channels(connection: &dyn PeerConnection) -> Result<Channels, PeerError> {
    let open = async |label: &str, id, reliable: bool| {
        let init = RTCDataChannelInit {
            ordered: reliable,
            max_retransmits: (!reliable).then_some(0),
            negotiated: Some(id),
            ..RTCDataChannelInit::default()
        };
        let channel =
            connection.create_data_channel(label, Some(init)).await.map_err(engine("open a channel"))?;
        wake_driver(&*channel).await?;
        Ok::<_, PeerError>(channel)
    };
    let ours = async |kind: Channel| {
        Ok::<_, PeerError>((kind, open(kind.label(), kind.id(), kind.is_reliable()).await?))
    };
    let [control, ping, data] = Channel::ALL;
    let channels = [ours(control).await?, ours(ping).await?, ours(data).await?];
    Ok((channels, open("", SENTINEL_ID, true).await?))
}

fn bind_addresses(config: &PeerConfig) -> Vec<SocketAddr> {
    if config.local_addresses.is_empty() {
        // The engine expands each into the addresses of all interfaces.
        vec![SocketAddr::from(([0; 4], 0)), SocketAddr::from(([0; 16], 0))]
    } else {
        config.local_addresses.clone()
    }
}
