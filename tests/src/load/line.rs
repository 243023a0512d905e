//! One connection of a crew: to our broker, or to a yardstick.

use std::io;
use std::net::Ipv4Addr;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::ClientRequestBuilder;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use farm_protocol::broker::{
    Access, Address, FromBroker, Heartbeat, Signal, ToBroker, Watch, presence_proof,
};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::FarmId;
use futures_util::StreamExt;

use super::mqtt::Mqtt;
use crate::device::{Device, DeviceError, Link, Message, Secure, Target};

/// What a crew speaks, and who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Farms of ours.
    Agents,
    /// Farms of ours, each followed by its phone.
    Pairs,
    /// MQTT clients.
    Mqtt,
    /// WebSocket clients of a server that sends messages on.
    WebSocket,
}

/// Most phones that one farm lists.
pub(super) const MOST_PHONES: u32 = 256;

/// What was heard.
pub(super) enum Heard {
    /// A payload for this device.
    Payload(Vec<u8>),
    /// A farm is in this epoch.
    Presence(FarmId, Epoch),
    /// Anything else.
    Other,
}

/// A connection that is in.
pub(super) enum Line {
    Ours { link: Box<Link>, device: Box<Device>, sequence: u32, peer: Option<Address> },
    Mqtt { mqtt: Box<Mqtt>, peer: u32 },
    WebSocket { stream: Box<WebSocketStream<Secure>> },
}

impl Kind {
    /// The device of this number: even ones are farms, odd ones their phones,
    /// where there are pairs.
    pub(super) fn device(self, number: u32) -> Device {
        match self {
            Self::Pairs if number % 2 == 1 => Device::phone(u64::from(number)),
            _ => Device::farm(u64::from(number)),
        }
    }

    /// The number of the device that this one sends to.
    pub(super) fn peer(number: u32) -> u32 {
        number ^ 1
    }

    /// Connects one device of a crew that begins with `first` and has `count`.
    pub(super) async fn connect(
        self,
        target: &Target,
        from: Ipv4Addr,
        number: u32,
        (first, count): (u32, u32),
    ) -> Result<Line, DeviceError> {
        match self {
            Self::Agents | Self::Pairs => {
                let device = self.device(number);
                let (mut link, _) = Link::join(target, from, &device).await?;
                let peer = self.word(&mut link, number, (first, count)).await?;
                Ok(Line::Ours { link: Box::new(link), device: Box::new(device), sequence: 0, peer })
            }
            Self::Mqtt => {
                let mqtt = Mqtt::enter(target.tls(from).await?, number).await?;
                Ok(Line::Mqtt { mqtt: Box::new(mqtt), peer: Self::peer(number) })
            }
            Self::WebSocket => {
                let secure = target.tls(from).await?;
                let uri = format!("wss://{}/{number}", target.name()).parse().map_err(io::Error::other)?;
                let config = WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0);
                let request = ClientRequestBuilder::new(uri);
                let upgraded = async_tungstenite::client_async_with_config(request, secure, Some(config));
                Ok(Line::WebSocket { stream: Box::new(upgraded.await?.0) })
            }
        }
    }

    /// What a device says once it is in, and whom it sends to.
    async fn word(
        self,
        link: &mut Link,
        number: u32,
        (first, count): (u32, u32),
    ) -> Result<Option<Address>, DeviceError> {
        if self == Self::Agents {
            link.send(&ToBroker::Access(Access::default())).await?;
            return Ok(None);
        }
        if number % 2 == 1 {
            let farm = |number| Self::Pairs.device(number).farm_id();
            let own = farm(number - 1);
            let mut farms = vec![own];
            if number / 2 - first / 2 < MOST_PHONES {
                farms.push(farm(first));
            }
            link.send(&ToBroker::Watch(Watch { farms })).await?;
            return Ok(Some(Address::Farm(own)));
        }
        // The first farm is watched by all.
        let phones: Vec<u32> = match number == first {
            true => (0..(count / 2).min(MOST_PHONES)).map(|pair| first + pair * 2 + 1).collect(),
            false => vec![number + 1],
        };
        let phones = phones.into_iter().map(|phone| Self::Pairs.device(phone).phone_id()).collect();
        link.send(&ToBroker::Access(Access { phones, ..Access::default() })).await?;
        Ok(None)
    }
}

impl Line {
    /// Whether it has somebody to send to.
    pub(super) async fn send(&mut self, payload: Vec<u8>) -> Result<(), DeviceError> {
        match self {
            Self::Ours { link, peer: Some(peer), .. } => {
                link.send(&ToBroker::Signal(Signal { peer: *peer, payload })).await
            }
            Self::Ours { .. } => Ok(()),
            Self::Mqtt { mqtt, peer } => Ok(mqtt.publish(*peer, &payload).await?),
            Self::WebSocket { stream } => Ok(stream.send(Message::binary(payload)).await?),
        }
    }

    /// A sign of life.
    pub(super) async fn heartbeat(&mut self) -> Result<(), DeviceError> {
        match self {
            Self::Ours { link, device, sequence, .. } => {
                *sequence += 1;
                link.send(&device.heartbeat(*sequence)).await
            }
            Self::Mqtt { mqtt, .. } => Ok(mqtt.ping().await?),
            Self::WebSocket { stream } => Ok(stream.send(Message::Ping(Vec::new().into())).await?),
        }
    }

    /// A farm says that its addresses changed: its next epoch.
    pub(super) async fn next_epoch(&mut self) -> Result<Option<(FarmId, Epoch)>, DeviceError> {
        let Self::Ours { link, device, sequence, .. } = self else { return Ok(None) };
        *sequence += 1;
        device.epoch = device.epoch.next();
        let (farm, epoch) = (device.farm_id(), device.epoch);
        let presence = Some(presence_proof(&device.key, farm, device.boot, epoch));
        link.send(&ToBroker::Heartbeat(Heartbeat { sequence: *sequence, epoch, presence })).await?;
        Ok(Some((farm, epoch)))
    }

    /// The next thing heard, whenever it comes.
    pub(super) async fn next(&mut self) -> Result<Heard, DeviceError> {
        match self {
            Self::Ours { link, .. } => match link.listen().await? {
                FromBroker::Signal(signal) => Ok(Heard::Payload(signal.payload)),
                FromBroker::Presence(presence) => Ok(presence
                    .state
                    .map_or(Heard::Other, |state| Heard::Presence(presence.farm, state.epoch))),
                FromBroker::HeartbeatAnswer(_) | FromBroker::Undelivered(_) => Ok(Heard::Other),
                other => Err(crate::device::unexpected(other)),
            },
            Self::Mqtt { mqtt, .. } => Ok(mqtt.next().await?.map_or(Heard::Other, Heard::Payload)),
            Self::WebSocket { stream } => match stream.next().await {
                Some(Ok(Message::Binary(payload))) => Ok(Heard::Payload(payload.to_vec())),
                Some(Ok(Message::Close(_))) | None => Err(DeviceError::Closed),
                Some(Ok(_)) => Ok(Heard::Other),
                Some(Err(error)) => Err(error.into()),
            },
        }
    }
}
