//! Follows the engine's records, and copies them to the broker's own store:
//! what a start without the engine knows the farms from.

use std::collections::BTreeSet;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use farm_protocol::id::FarmId;
use farm_store::Store;
use smol::Timer;

use super::nats::Message;
use super::register::NatsRegister;
use super::stream::{Identity, Position, Stream, StreamError};
use crate::core::Event;
use crate::core::cluster::records::{Entry, Record, SCHEMA};
use crate::core::enrollment::FarmRecord;
use crate::store;

/// Between two tries to follow.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Records copied at once.
const COPY_AT_ONCE: usize = 128;

pub(super) struct Mirror {
    pub(super) stream: Stream,
    pub(super) register: NatsRegister,
    pub(super) delivered: Receiver<Message>,
    /// The subscription that `delivered` is of.
    pub(super) subscription: usize,
    pub(super) events: Sender<Event>,
    pub(super) store: Store,
}

/// Why it has to begin to follow again.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("something was missed")]
    Gap,
    #[error("the broker ends")]
    Over,
}

/// How far it has come.
#[derive(Default)]
struct Progress {
    /// In this stream.
    identity: Option<Identity>,
    /// Up to this write.
    sequence: u64,
    /// Counts consumers, for subjects of their own.
    consumers: u64,
    /// All that it has seen in the stream's first reading, until that is whole.
    seen: Option<Seen>,
}

#[derive(Default)]
struct Seen {
    farms: BTreeSet<FarmId>,
    revoked: BTreeSet<FarmId>,
    schema: bool,
}

impl Mirror {
    /// Follows for ever.
    pub(super) async fn run(self) {
        let mut progress = Progress::default();
        let mut failing = false;
        loop {
            let client = self.stream.client().clone();
            if client.is_up() {
                match self.follow(&mut progress, &mut failing).await {
                    Lost::Over => return,
                    lost if !failing && client.is_up() => {
                        failing = true;
                        tracing::warn!(%lost, "the records in NATS can't be followed; what is known stays known");
                    }
                    lost => tracing::debug!(%lost, "the records in NATS can't be followed"),
                }
            }
            Timer::after(AGAIN_AFTER).await;
        }
    }

    async fn follow(&self, progress: &mut Progress, failing: &mut bool) -> Lost {
        match self.try_follow(progress, failing).await {
            Ok(never) => never,
            Err(lost) => lost,
        }
    }

    async fn try_follow(&self, progress: &mut Progress, failing: &mut bool) -> Result<Lost, Lost> {
        let (identity, last) = self.stream.ensure().await?;
        let same = progress.identity.as_ref() == Some(&identity) && last >= progress.sequence;
        if !same || progress.seen.is_some() {
            if progress.identity.is_some() && !same {
                tracing::warn!("NATS has other records than before: what it lost is written again");
            }
            *progress = Progress {
                consumers: progress.consumers,
                seen: Some(Seen::default()),
                ..Progress::default()
            };
            progress.identity = Some(identity);
        }
        progress.consumers += 1;
        // A subject of its own for each consumer, by its full name: a server
        // does not begin where only a wildcard fits.
        let deliver = format!("{}.w.{}", self.stream.client().inbox(), progress.consumers);
        self.stream.client().resubscribe(self.subscription, &deliver);
        let (consumer, pending) = self.stream.follow(&deliver, progress.sequence).await?;
        if std::mem::take(failing) {
            tracing::info!("following the records in NATS again");
        }
        if pending == 0 {
            self.whole(progress).await?;
        }
        let mut delivered = 0;
        let mut copies = Vec::new();
        loop {
            let message = match self.delivered.try_recv() {
                Ok(message) => message,
                Err(_) => {
                    self.copy(&mut copies).await;
                    self.next().await?
                }
            };
            if message.headers.status == Some(100) {
                if message.subject != deliver {
                    // Of a consumer before.
                    continue;
                }
                self.answer_flow(&message);
                if message.headers.get("Nats-Last-Consumer").is_some_and(|last| last != delivered.to_string())
                {
                    return Err(Lost::Gap);
                }
                continue;
            }
            let position = message.reply.as_deref().and_then(Position::of);
            let Some(position) = position.filter(|position| position.consumer == consumer) else { continue };
            if position.delivered != delivered + 1 {
                return Err(Lost::Gap);
            }
            delivered = position.delivered;
            progress.sequence = position.sequence;
            self.take(&message, progress, &mut copies).await?;
            if copies.len() >= COPY_AT_ONCE {
                self.copy(&mut copies).await;
            }
            if position.pending == 0 {
                self.copy(&mut copies).await;
                self.whole(progress).await?;
            }
        }
    }

    async fn next(&self) -> Result<Message, Lost> {
        let next = async { self.delivered.recv().await.map_err(|_| Lost::Over) };
        let silent = async {
            Timer::after(Stream::SILENT).await;
            Err(Lost::Silent(Stream::SILENT))
        };
        smol::future::or(next, silent).await
    }

    /// A server that waits for us says where to answer.
    fn answer_flow(&self, message: &Message) {
        let stalled = message.headers.get("Nats-Consumer-Stalled");
        if let Some(to) = message.reply.as_deref().or(stalled) {
            self.stream.client().publish(to, b"");
        }
    }

    async fn take(
        &self,
        message: &Message,
        progress: &mut Progress,
        copies: &mut Vec<Record>,
    ) -> Result<(), Lost> {
        let Some(key) = self.stream.key(&message.subject) else { return Ok(()) };
        let deleted = message.payload.is_empty() || message.headers.get("KV-Operation").is_some();
        let record = match Record::decode(key, (!deleted).then_some(&message.payload)) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a record in NATS is left alone");
                return Ok(());
            }
        };
        if let Some(seen) = &mut progress.seen {
            match &record {
                Record::Token(_, Some(Entry::Spent(record))) => {
                    seen.farms.insert(FarmId::of(&record.key));
                }
                Record::Revoked(farm, _) => {
                    seen.revoked.insert(*farm);
                }
                Record::Schema(_) => seen.schema = true,
                Record::Token(..) => {}
            }
        }
        if let Record::Schema(version) = &record {
            self.register.set_schema(*version);
        }
        if matches!(record, Record::Token(_, Some(Entry::Spent(_))) | Record::Revoked(..)) {
            copies.push(record.clone());
        }
        self.events.send(Event::Recorded(Box::new(record))).await.map_err(|_| Lost::Over)
    }

    /// All that there is was read.
    async fn whole(&self, progress: &mut Progress) -> Result<(), Lost> {
        if progress.seen.as_ref().is_some_and(|seen| !seen.schema) {
            match self.stream.write(&Record::Schema(SCHEMA), 0).await {
                Ok(()) | Err(StreamError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(seen) = progress.seen.take() else { return Ok(()) };
        tracing::info!(farms = seen.farms.len(), "the records in NATS are here");
        let Seen { farms, revoked, .. } = seen;
        self.events.send(Event::RecordsWhole { farms, revoked }).await.map_err(|_| Lost::Over)
    }

    /// To the broker's own store. A failure costs nothing while NATS is there.
    async fn copy(&self, copies: &mut Vec<Record>) {
        if copies.is_empty() {
            return;
        }
        let (mut farms, mut revoked): (Vec<FarmRecord>, Vec<(FarmId, u64)>) = (Vec::new(), Vec::new());
        for record in copies.drain(..) {
            match record {
                Record::Token(_, Some(Entry::Spent(record))) => farms.push(record),
                Record::Revoked(farm, at) => revoked.push((farm, at)),
                Record::Token(..) | Record::Schema(_) => {}
            }
        }
        if let Err(error) = store::copy(&self.store, &farms, &revoked).await {
            tracing::error!(%error, "farms could not be copied to the broker's own store: a start without NATS would not know them");
        }
    }
}
