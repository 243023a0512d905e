//! A client of NATS on smol: the part of the protocol that brokers need.
//!
//! One connection to one of several servers; when it is gone, the next one is
//! tried at once. What is published while there is none is lost, as on any
//! network, and whoever asked something is told so.

mod dial;
mod run;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
pub use dial::{Credentials, CredentialsError, ServerAddress};
pub(crate) use run::Runner;
pub(crate) use wire::Message;

/// Messages that wait to be written; more are lost. All that 10,000 devices
/// make a broker say at once.
const OUTGOING: usize = 16 * 1024;

/// Requests that wait for their answers.
const MAX_PENDING: usize = 4096;

/// Whether there is a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// There is, with this server.
    Up(String),
    /// There is none, or no more.
    Down(String),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// There is no connection, or it broke: whether the request came through
    /// is not known.
    #[error("there is no connection to NATS")]
    Down,
    /// Nobody there is responsible.
    #[error("NATS has nobody who answers: is JetStream on, and do most of its nodes run?")]
    NoResponders,
    /// No answer within this time.
    #[error("NATS did not answer within {0:?}: do most of its nodes run?")]
    Late(Duration),
    /// Too many wait already.
    #[error("too many requests wait for NATS")]
    Full,
}

/// To one of the servers, while its [`Runner`] runs.
#[derive(Clone)]
pub(crate) struct Client(Arc<Shared>);

struct Shared {
    frames: Sender<Vec<u8>>,
    up: AtomicBool,
    next: AtomicU64,
    pending: Mutex<HashMap<u64, Sender<Message>>>,
    inbox: String,
    lost: AtomicU64,
    subscriptions: Vec<Subscription>,
}

struct Subscription {
    subject: Mutex<String>,
    receiver: Sender<Message>,
}

impl Subscription {
    fn subject(&self) -> String {
        self.subject.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// A client, and what connects it for ever while it runs. `id` makes the inbox this client's own; each subject
    /// of `subscriptions` is subscribed with every server.
    pub(crate) fn new(
        servers: Vec<ServerAddress>,
        credentials: Credentials,
        id: &str,
        subscriptions: Vec<(String, Sender<Message>)>,
    ) -> (Self, Receiver<Status>, Runner) {
        let (frames, outgoing) = async_channel::bounded(OUTGOING);
        let (status, told) = async_channel::bounded(16);
        let shared = Arc::new(Shared {
            frames,
            up: AtomicBool::new(false),
            next: AtomicU64::new(0),
            pending: Mutex::default(),
            inbox: format!("_INBOX.{id}"),
            lost: AtomicU64::new(0),
            subscriptions: subscriptions
                .into_iter()
                .map(|(subject, receiver)| Subscription { subject: Mutex::new(subject), receiver })
                .collect(),
        });
        let runner = run::Runner { servers, credentials, shared: shared.clone(), outgoing, status };
        (Self(shared), told, runner)
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Relaxed)
    }

    /// A subject below which nobody else answers.
    pub(crate) fn inbox(&self) -> &str {
        &self.0.inbox
    }

    /// Messages that were not even written.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Has a subscription get what is published on another subject.
    pub(crate) fn resubscribe(&self, index: usize, subject: &str) {
        let Some(subscription) = self.0.subscriptions.get(index) else { return };
        subject.clone_into(&mut subscription.subject.lock().unwrap_or_else(PoisonError::into_inner));
        let id = run::id_of(index);
        let frame = [wire::unsubscribe(id), wire::subscribe(subject, id)].concat();
        // Full or without a connection: the next connection does it.
        let _later = self.0.frames.try_send(frame);
    }

    /// Publishes, if it can, without waiting.
    pub(crate) fn publish(&self, subject: &str, payload: &[u8]) {
        let taken =
            self.is_up() && self.0.frames.try_send(wire::publish(subject, None, None, payload)).is_ok();
        if !taken {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn request(
        &self,
        subject: &str,
        header: Option<(&str, &str)>,
        payload: &[u8],
        within: Duration,
    ) -> Result<Message, RequestError> {
        if !self.is_up() {
            return Err(RequestError::Down);
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = async_channel::bounded(1);
        {
            let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.len() >= MAX_PENDING {
                return Err(RequestError::Full);
            }
            pending.insert(number, answer);
        }
        let _mine = Pending(&self.0, number);
        let reply = format!("{}.r.{number}", self.0.inbox);
        let frame = wire::publish(subject, Some(&reply), header, payload);
        let asked = async {
            self.0.frames.send(frame).await.map_err(|_| RequestError::Down)?;
            // The sender is dropped when the connection breaks.
            answered.recv().await.map_err(|_| RequestError::Down)
        };
        let late = async {
            smol::Timer::after(within).await;
            Err(RequestError::Late(within))
        };
        let message = smol::future::or(asked, late).await?;
        if message.headers.status == Some(503) { Err(RequestError::NoResponders) } else { Ok(message) }
    }
}

/// A request that waits; when it is given up, nobody waits for it any more.
struct Pending<'a>(&'a Shared, u64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
