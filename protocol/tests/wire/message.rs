//! Every kind of message, for the tests that go over all of them.

use std::fmt::Debug;

use bytes::Bytes;
use farm_protocol::broker::{FromBroker, ToBroker};
use farm_protocol::codec::{self, CodecError};
use farm_protocol::control::Control;
use farm_protocol::frame::Frame;
use farm_protocol::ping::Ping;
use farm_protocol::readings;
use farm_protocol::signal::{Payload, PeerSignal};

/// What stands in an envelope of its own.
pub(crate) trait Message: Sized + Clone + PartialEq + Debug {
    /// The body's rule in the schema; the message's is `NAME-message`.
    const NAME: &'static str;

    fn write(&self) -> Result<Vec<u8>, CodecError>;
    fn read(bytes: &[u8]) -> Result<Self, CodecError>;
}

macro_rules! messages {
    ($($type:ty = $name:literal),+) => {$(
        impl Message for $type {
            const NAME: &'static str = $name;

            fn write(&self) -> Result<Vec<u8>, CodecError> {
                codec::encode(self)
            }

            fn read(bytes: &[u8]) -> Result<Self, CodecError> {
                codec::decode(bytes)
            }
        }
    )+};
}

messages! {
    ToBroker = "to-broker",
    FromBroker = "from-broker",
    Payload = "payload",
    PeerSignal = "peer-signal",
    Control = "control",
    Ping = "ping",
    readings::Request = "readings-request",
    readings::Answer = "readings-answer"
}

impl Message for Frame {
    const NAME: &'static str = "frame";

    fn write(&self) -> Result<Vec<u8>, CodecError> {
        self.encode()
    }

    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode(&Bytes::copy_from_slice(bytes))
    }
}

/// One kind, its type forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Reads, writes again, and checks that this is read as the same.
    pub(crate) rewrite: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

impl Kind {
    const fn of<T: Message>() -> Self {
        Self { name: T::NAME, rewrite: rewrite::<T> }
    }

    pub(crate) fn named(name: &str) -> Self {
        *KINDS
            .iter()
            .find(|kind| kind.name == name)
            .unwrap_or_else(|| panic!("no kind of message is called {name:?}"))
    }
}

pub(crate) const KINDS: [Kind; 9] = [
    Kind::of::<ToBroker>(),
    Kind::of::<FromBroker>(),
    Kind::of::<Payload>(),
    Kind::of::<PeerSignal>(),
    Kind::of::<Control>(),
    Kind::of::<Frame>(),
    Kind::of::<Ping>(),
    Kind::of::<readings::Request>(),
    Kind::of::<readings::Answer>(),
];

fn rewrite<T: Message>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    let message = T::read(bytes)?;
    let again = message.write().unwrap_or_else(|e| panic!("{message:?} was read, but can't be written: {e}"));
    assert_eq!(T::read(&again).unwrap(), message, "written otherwise than read");
    Ok(again)
}
