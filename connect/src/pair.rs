//! Pairing with a farm.

use std::time::Duration;

use farm_protocol::broker::{Address, FromBroker, Role, Signal, ToBroker, UndeliveredReason};
use farm_protocol::codec;
use farm_protocol::id::BootId;
use farm_protocol::invitation::{Invitation, InvitationError};
use farm_protocol::keys::{KeyError, Nonce};
use farm_protocol::pairing::{MAX_NAME, PairError, check_answer, request};
use farm_protocol::signal::Payload;
use farm_tunnel::broker_socket::{
    AddressError, BrokerEvent, BrokerSocket, Brokers, Dialer, Identity, TrustError,
};
use farm_tunnel::link;
use farm_tunnel::progress::Beat;
use ring::rand::{SecureRandom, SystemRandom};

use crate::client::{Client, ClientError, FarmRecord};
use crate::slot::HeldSlot;
use crate::tunnel::trust;

/// How long pairing may take: the farm may be reconnecting just now.
const WITHIN: Duration = Duration::from_secs(30);

/// How long the broker may say that no farm has the invitation: a farm that
/// reconnects is back within 10 s.
const ABSENT_WITHIN: Duration = Duration::from_secs(12);

/// Most pairings take less than this: nothing is told before.
const QUIET: Duration = Duration::from_secs(2);

/// Before a request without an answer is repeated.
const REPEAT: Duration = Duration::from_secs(3);

/// Why pairing failed.
#[derive(Debug, thiserror::Error)]
pub enum PairFailure {
    /// The invitation.
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    /// The invitation's broker.
    #[error(transparent)]
    Broker(#[from] AddressError),
    /// A typed code says nothing of the broker.
    #[error("a typed code needs the broker's address: add --broker wss://…")]
    BrokerMissing,
    /// The device's state.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// TLS.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The farm said no, or somebody is in between.
    #[error(transparent)]
    Answer(#[from] PairError),
    /// Nobody answered in time.
    #[error("{0}; the invitation is not used up, try again")]
    NoAnswer(String),
}

/// Pairs this device, called `name`, with the farm of an invitation: a link,
/// or a typed code together with `broker`.
///
/// # Errors
/// [`PairFailure`]; the message says what to do.
pub async fn pair(
    client: &Client,
    invitation: &str,
    broker: Option<&str>,
    name: &str,
) -> Result<FarmRecord, PairFailure> {
    pair_telling(client, invitation, broker, name, |_| {}).await
}

/// The same; `tell` is told what it waits for, whenever that changes.
///
/// # Errors
/// [`PairFailure`]; the message says what to do.
pub async fn pair_telling(
    client: &Client,
    invitation: &str,
    broker: Option<&str>,
    name: &str,
    mut tell: impl FnMut(&str),
) -> Result<FarmRecord, PairFailure> {
    let (secret, pinned, broker) = match invitation.parse::<Invitation>()? {
        Invitation::Link(link) => (link.secret, Some(link.farm), link.broker),
        Invitation::Code(secret) => (secret, None, broker.ok_or(PairFailure::BrokerMissing)?.to_owned()),
    };
    let broker: Brokers = broker.parse()?;
    let slot = HeldSlot::take(client.directory())?;
    let random = SystemRandom::new();
    let mut boot = [0; BootId::LEN];
    random.fill(&mut boot).map_err(|_| KeyError::NoRandomness)?;
    let identity = Identity {
        key: client.key(),
        role: Role::Phone,
        slot: slot.slot(),
        boot: BootId::from_bytes(boot),
        name: None,
        enrollment_token: None,
    };
    let dialer = Dialer::new(broker.clone(), trust()?, None);
    let (socket, events) = BrokerSocket::start(dialer, identity, slot.start(), 0, Beat::unwatched());

    let fits = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_NAME);
    let name: String = fits.map(|(_, c)| c).collect();
    let name = name.trim();
    let ask = request(&secret, client.key().public(), slot.slot(), Nonce::generate(&random)?, name);
    let payload = codec::encode(&Payload::PairRequest(Box::new(ask.clone())))
        .map_err(|e| PairFailure::NoAnswer(e.to_string()))?;
    let send = || {
        let peer = Address::Invitation(ask.invitation);
        socket.send(ToBroker::Signal(Signal { peer, payload: payload.clone() }))
    };

    let mut trouble = format!("the broker {broker} did not answer");
    let started = std::time::Instant::now();
    let deadline = started + WITHIN;
    let mut slot = slot;
    let mut told = String::new();
    let mut absent_since = None;
    let result = loop {
        if told != trouble && std::time::Instant::now() >= started + QUIET {
            tell(&trouble);
            told.clone_from(&trouble);
        }
        let event = async { Some(events.recv().await) };
        let repeat = async {
            smol::Timer::after(REPEAT).await;
            None
        };
        let event = smol::future::or(event, repeat).await;
        let now = std::time::Instant::now();
        if now >= deadline || absent_since.is_some_and(|since| now >= since + ABSENT_WITHIN) {
            break Err(PairFailure::NoAnswer(trouble));
        }
        match event {
            None => {
                send();
            }
            Some(Err(_)) => break Err(PairFailure::NoAnswer("the link to the broker ended".to_owned())),
            Some(Ok(BrokerEvent::Online(_))) => {
                trouble = "the farm has not answered".to_owned();
                send();
            }
            Some(Ok(BrokerEvent::State(link::State::Offline { reason, .. }))) => {
                trouble = format!("the broker {broker}: {reason}");
            }
            Some(Ok(BrokerEvent::StaleEpoch(newest))) => match slot.jump_past(newest) {
                Ok(epoch) => {
                    socket.set_epoch(epoch);
                    socket.event(link::Event::Start);
                }
                Err(error) => trouble = format!("this device's state: {error}"),
            },
            Some(Ok(BrokerEvent::Message(FromBroker::Undelivered(undelivered)))) => {
                if undelivered.reason == UndeliveredReason::Offline {
                    absent_since.get_or_insert(now);
                }
                trouble = match undelivered.reason {
                    UndeliveredReason::Offline => {
                        "no farm with this invitation is at the broker: is the farm online, and the invitation fresh and typed right?"
                    }
                    _ => "the broker limits pairing attempts",
                }
                .to_owned();
            }
            Some(Ok(BrokerEvent::Message(FromBroker::Signal(signal)))) => {
                let Ok(Payload::PairAnswer(answer)) = codec::decode::<Payload>(&signal.payload) else {
                    continue;
                };
                match check_answer(&secret, &ask, pinned.as_ref(), &answer) {
                    Ok((key, name)) => break Ok(FarmRecord { key, name, broker: broker.clone() }),
                    Err(PairError::OtherRequest) => {}
                    Err(error) => break Err(error.into()),
                }
            }
            Some(Ok(_)) => {}
        }
    };
    socket.event(link::Event::Stop);
    let farm = result?;
    client.add(farm.clone())?;
    Ok(farm)
}
