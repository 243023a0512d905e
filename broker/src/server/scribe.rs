//! Writes the log of the farms to the store, in order, beside the core.

use async_channel::{Receiver, Sender, TrySendError};
use farm_protocol::id::FarmId;
use farm_store::Store;

use crate::core::history::Writing;
use crate::store;

/// What waits to be written: 256 changes each. A disk that hangs longer costs
/// the log the rest, and nobody else anything.
const QUEUE: usize = 256;

/// One thing to write.
#[derive(Debug)]
pub(super) enum Note {
    /// Changes of farms.
    History(Box<Writing>),
    /// The broker runs since `start` until now.
    Run { start: u64, until: u64, forget: Vec<u64> },
    /// Of which absence of a farm the operator was told, if of any.
    Alert { farm: FarmId, since: Option<u64> },
}

/// The end of who has something to write.
#[derive(Debug, Clone)]
pub(super) struct Notes(Sender<Note>);

/// The end that writes.
#[derive(Debug)]
pub(super) struct Scribe {
    notes: Receiver<Note>,
    store: Store,
}

/// A queue and who works it off.
pub(super) fn hire(store: Store) -> (Notes, Scribe) {
    let (sender, notes) = async_channel::bounded(QUEUE);
    (Notes(sender), Scribe { notes, store })
}

impl Notes {
    /// Leaves a note, without waiting.
    pub(super) fn leave(&self, note: Note) {
        if let Err(TrySendError::Full(_)) = self.0.try_send(note) {
            tracing::error!("the log of the farms has a gap: the disk does not keep up");
        }
    }
}

impl Scribe {
    /// Writes until the core has ended and all is written.
    pub(super) async fn run(self) {
        let mut failing = false;
        while let Ok(note) = self.notes.recv().await {
            let written = match &note {
                Note::History(writing) => store::write_history(&self.store, writing).await,
                Note::Run { start, until, forget } => {
                    store::mark_run(&self.store, *start, *until, forget).await
                }
                Note::Alert { farm, since } => store::mark_alert(&self.store, *farm, *since).await,
            };
            match written {
                Ok(()) => failing = false,
                Err(_) if failing => {}
                Err(error) => {
                    failing = true;
                    tracing::error!(%error, "the log of the farms has a gap: it could not be written");
                }
            }
        }
    }
}
