//! Fault injection: forces failures on purpose, for demos and tests.
//!
//! Off unless somebody asks. [`Faults::wrap`] puts itself between a session and
//! its connection and takes messages away where the network would have: the
//! engine below stays up, which is just what makes such a failure hard to
//! notice. What is sent reliably is held back while the fault lasts, as a
//! transport that goes on repeating would deliver it afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use farm_protocol::codec;
use farm_protocol::ping::Ping;

use crate::peer::{Carrier, Channel, Path, PeerError};

/// How long a fault lasts unless it is said: longer than a watched carrier
/// takes to notice it, and the lab's one-way loss.
pub const USUAL: Duration = Duration::from_secs(10);

/// The longest fault: one that is forgotten must end by itself.
pub const LONGEST: Duration = Duration::from_secs(600);

/// With [`Fault::NetworkDown`] the word that the network is back comes this
/// much after it is: an address is there before anybody is told.
pub const NETWORK_FIRST: Duration = Duration::from_millis(20);

/// A failure that can be forced on a running tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing gets through, either way, and nobody says so: the power is cut
    /// at the other end, or a NAT forgot its mapping.
    Blackhole,
    /// What we send is lost; what the other side sends arrives.
    LossOut,
    /// What the other side sends is lost; what we send arrives.
    LossIn,
    /// Pings stay unanswered while everything else works.
    NoPongs,
    /// The carriers are closed under the session.
    CloseCarrier,
    /// The link to the broker breaks and can't be made.
    BrokerLost,
    /// The address seems to have changed.
    AddressChange,
    /// The device seems to have no network: no address, no broker, no way out.
    NetworkDown,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Blackhole,
        Self::LossOut,
        Self::LossIn,
        Self::NoPongs,
        Self::CloseCarrier,
        Self::BrokerLost,
        Self::AddressChange,
        Self::NetworkDown,
    ];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::LossOut => "loss-out",
            Self::LossIn => "loss-in",
            Self::NoPongs => "no-pongs",
            Self::CloseCarrier => "close-carrier",
            Self::BrokerLost => "broker-lost",
            Self::AddressChange => "address-change",
            Self::NetworkDown => "network-down",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault")]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

/// Until when each kind of message is taken away.
#[derive(Debug, Default, Clone, Copy)]
struct Until {
    sent: Option<Instant>,
    received: Option<Instant>,
    pongs: Option<Instant>,
}

/// The faults of one program. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Until>>);

impl Faults {
    /// Begins a fault on the messages of every wrapped carrier, present and
    /// to come. The kinds that are none (see [`Fault`]) change nothing here.
    pub fn begin(&self, fault: Fault, lasting: Duration) {
        let until = Some(Instant::now() + lasting.min(LONGEST));
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Fault::Blackhole | Fault::NetworkDown => (state.sent, state.received) = (until, until),
            Fault::LossOut => state.sent = until,
            Fault::LossIn => state.received = until,
            Fault::NoPongs => state.pongs = until,
            Fault::CloseCarrier | Fault::BrokerLost | Fault::AddressChange => {}
        }
    }

    /// A carrier that is subject to these faults.
    pub fn wrap(&self, carrier: Arc<dyn Carrier>) -> Arc<dyn Carrier> {
        Arc::new(Faulty { carrier, faults: self.clone() })
    }

    fn until(&self) -> Until {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `which` lasts.
    async fn over(&self, which: impl Fn(Until) -> Option<Instant>) {
        while let Some(until) = which(self.until()).filter(|until| *until > Instant::now()) {
            smol::Timer::at(until).await;
        }
    }
}

fn is_on(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

struct Faulty {
    carrier: Arc<dyn Carrier>,
    faults: Faults,
}

impl Faulty {
    /// Whether this message is lost on its way out.
    fn loses(&self, channel: Channel, message: &Bytes) -> bool {
        let until = self.faults.until();
        let is_pong = || matches!(codec::decode::<Ping>(message), Ok(Ping::Pong(_)));
        channel == Channel::Ping && (is_on(until.sent) || is_on(until.pongs) && is_pong())
    }
}

#[async_trait]
impl Carrier for Faulty {
    async fn send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
        if self.loses(channel, &message) {
            return Ok(());
        }
        self.faults.over(|until| until.sent).await;
        self.carrier.send(channel, message).await
    }

    async fn try_send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
        if self.loses(channel, &message) {
            return Ok(());
        }
        if is_on(self.faults.until().sent) {
            return Err(PeerError::Full);
        }
        self.carrier.try_send(channel, message).await
    }

    async fn recv(&self, channel: Channel) -> Option<Bytes> {
        loop {
            let message = self.carrier.recv(channel).await?;
            if !is_on(self.faults.until().received) {
                return Some(message);
            }
            if channel.is_reliable() {
                self.faults.over(|until| until.received).await;
                return Some(message);
            }
        }
    }

    async fn path(&self) -> Option<Path> {
        self.carrier.path().await
    }

    fn set_watched(&self, watched: bool) {
        self.carrier.set_watched(watched);
    }

    fn receiver_holds(&self, bytes: u32) {
        self.carrier.receiver_holds(bytes);
    }

    async fn close(&self) {
        // The close itself would be lost.
        self.faults.over(|until| until.sent).await;
        self.carrier.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it is told, at once.
    struct Echo(async_channel::Sender<(Channel, Bytes)>, async_channel::Receiver<(Channel, Bytes)>);

    #[async_trait]
    impl Carrier for Echo {
        async fn send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
            self.0.send((channel, message)).await.map_err(|_| PeerError::NotOpen)
        }
        async fn try_send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
            self.send(channel, message).await
        }
        async fn recv(&self, _: Channel) -> Option<Bytes> {
            self.1.recv().await.ok().map(|(_, message)| message)
        }
        async fn path(&self) -> Option<Path> {
            None
        }
        fn set_watched(&self, _: bool) {}
        fn receiver_holds(&self, _: u32) {}
        async fn close(&self) {}
    }

    fn ping(ping: Ping) -> Bytes {
        codec::encode(&ping).unwrap().into()
    }

    #[test]
    fn names_are_distinct_and_read_back() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("flood".parse::<Fault>().is_err());
    }

    #[test]
    fn pings_are_lost_and_the_rest_waits_until_it_is_over() {
        smol::block_on(async {
            let (sender, receiver) = async_channel::unbounded();
            let faults = Faults::default();
            let carrier = faults.wrap(Arc::new(Echo(sender, receiver.clone())));
            faults.begin(Fault::NoPongs, LONGEST);
            carrier.try_send(Channel::Ping, ping(Ping::Pong(1))).await.unwrap();
            assert!(receiver.is_empty(), "a pong got through");
            carrier.try_send(Channel::Ping, ping(Ping::Ping(1))).await.unwrap();
            assert_eq!(receiver.len(), 1, "only pongs are lost");
            receiver.recv().await.unwrap();

            let (start, lasting) = (Instant::now(), Duration::from_millis(100));
            faults.begin(Fault::Blackhole, lasting);
            carrier.try_send(Channel::Ping, ping(Ping::Ping(2))).await.unwrap();
            assert!(receiver.is_empty(), "a ping got through");
            carrier.send(Channel::Data, Bytes::from_static(b"late")).await.unwrap();
            assert!(start.elapsed() >= lasting, "data got through");
            assert_eq!(carrier.recv(Channel::Data).await.unwrap(), "late", "data was lost for good");
        });
    }
}
