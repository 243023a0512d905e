//! Several brokers over NATS JetStream: the shell around [`crate::core::cluster`].
//!
//! Farms and tokens are kept in a replicated stream and mirrored into memory;
//! what brokers tell each other goes over plain NATS subjects.

mod mirror;
mod nats;
mod register;
mod stream;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_channel::{Receiver, Sender};
use async_trait::async_trait;
use farm_store::Store;

pub use self::nats::{Credentials, CredentialsError, ServerAddress};

use self::mirror::Mirror;
use self::nats::{Client, Message, Runner, Status};
use self::register::NatsRegister;
use self::stream::Stream;
use crate::core::Event;
use crate::core::cluster::Membership;
use crate::core::cluster::message::{BrokerId, MessageError, PeerMessage};
use crate::register::{Engine, Register, Wire};

/// Messages of other brokers that wait for the core; more hold NATS back.
const INBOX: usize = 4096;

/// Runs of brokers of another version that are named in the log.
const STRANGERS: usize = 32;

/// The subscription by which records are delivered, see [`NatsEngine::new`].
const DELIVERED: usize = 2;

/// What the operator decides.
#[derive(Debug)]
pub struct ClusterOptions {
    /// NATS's servers: one after another is tried.
    pub servers: Vec<ServerAddress>,
    /// What they are shown.
    pub credentials: Credentials,
    /// The records' bucket, and the beginning of the subjects.
    pub bucket: String,
    /// On how many of NATS's nodes each record is kept.
    pub replicas: usize,
    /// Who this broker is among the others.
    pub membership: Membership,
}

/// A cluster over NATS.
pub struct NatsEngine {
    membership: Membership,
    client: Client,
    status: Receiver<Status>,
    peers: Receiver<Message>,
    delivered: Receiver<Message>,
    stream: Stream,
    register: NatsRegister,
    wire: Subjects,
    connection: Runner,
}

impl NatsEngine {
    /// Does nothing before it runs.
    pub fn new(options: ClusterOptions) -> Self {
        let ClusterOptions { servers, credentials, bucket, replicas, membership } = options;
        let id = membership.id.to_string();
        let (said, peers) = async_channel::bounded(INBOX);
        let (deliver, delivered) = async_channel::bounded(INBOX);
        let subscriptions = vec![
            (format!("{bucket}.all"), said.clone()),
            (format!("{bucket}.to.{id}"), said),
            (format!("_INBOX.{id}.w.0"), deliver),
        ];
        let (client, status, connection) = Client::new(servers, credentials, &id, subscriptions);
        let stream = Stream::new(client.clone(), &bucket, replicas);
        let register = NatsRegister::new(stream.clone());
        let wire = Subjects { client: client.clone(), bucket };
        Self { membership, client, status, peers, delivered, stream, register, wire, connection }
    }
}

/// Carries messages by subjects: one for all, one for each broker.
#[derive(Clone)]
struct Subjects {
    client: Client,
    bucket: String,
}

impl Subjects {
    fn publish(&self, subject: &str, message: &PeerMessage) {
        match message.encode() {
            Ok(bytes) => self.client.publish(subject, &bytes),
            // The core bounds all it says well below the codec's limit.
            Err(error) => tracing::error!(%error, "a message to other brokers could not be encoded"),
        }
    }
}

impl Wire for Subjects {
    fn tell_all(&self, message: &PeerMessage) {
        self.publish(&format!("{}.all", self.bucket), message);
    }

    fn tell(&self, broker: BrokerId, message: &PeerMessage) {
        self.publish(&format!("{}.to.{broker}", self.bucket), message);
    }
}

#[async_trait]
impl Engine for NatsEngine {
    fn membership(&self) -> Membership {
        self.membership.clone()
    }

    fn register(&self) -> Arc<dyn Register> {
        Arc::new(self.register.clone())
    }

    fn wire(&self) -> Arc<dyn Wire> {
        Arc::new(self.wire.clone())
    }

    async fn run(self: Box<Self>, events: Sender<Event>, store: Store) {
        let Self { status, peers, delivered, stream, register, client, connection, .. } = *self;
        let (subscription, told) = (DELIVERED, events.clone());
        let mirror = Mirror { stream, register, delivered, subscription, events: told, store };
        let told = smol::future::zip(watch(status, events.clone(), client), listen(peers, events));
        let work = smol::future::zip(told, mirror.run());
        smol::future::zip(connection.run(), work).await;
    }
}

/// Reports whether NATS is there.
async fn watch(status: Receiver<Status>, events: Sender<Event>, client: Client) {
    let mut there = None;
    while let Ok(status) = status.recv().await {
        let up = matches!(status, Status::Up(_));
        match &status {
            Status::Up(server) => tracing::info!(server, "connected to NATS"),
            // The first only: each server is tried again and again.
            Status::Down(why) if there != Some(false) => {
                let lost = client.lost();
                tracing::warn!(
                    why,
                    lost,
                    "no connection to NATS: known farms keep working, other brokers' are as last known"
                );
            }
            Status::Down(why) => tracing::debug!(why, "still no connection to NATS"),
        }
        if there.replace(up) != Some(up) && events.send(Event::Engine { there: up }).await.is_err() {
            return;
        }
    }
}

/// Hands on what other brokers say.
async fn listen(peers: Receiver<Message>, events: Sender<Event>) {
    let mut strangers = BTreeSet::new();
    while let Ok(message) = peers.recv().await {
        let event = match PeerMessage::decode(&message.payload) {
            Ok(message) => Event::Peer(Box::new(message)),
            Err(error) => {
                let from = match &error {
                    MessageError::Version { from, .. } => Some(*from),
                    MessageError::Codec(_) => None,
                };
                // Once for each that comes, not for each of its messages.
                if strangers.len() < STRANGERS && strangers.insert(from) {
                    tracing::warn!(%error, "a message of another broker can't be read: are all of the same version?");
                }
                Event::PeerUnreadable
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
