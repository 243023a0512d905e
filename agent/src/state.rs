//! What the agent keeps on its card: identity, paired phones, invitations,
//! the count of starts, and the broker's address that worked last.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use farm_protocol::broker::{MAX_FORMER, MAX_INVITATIONS, MAX_PHONES};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, InvitationId, PhoneId};
use farm_protocol::invitation::Secret;
use farm_protocol::keys::{DeviceKey, KeyError, PublicKey};
use farm_protocol::pairing::OpenInvitation;
use farm_store::{Batch, OpenReport, Options, Store, Table};
use farm_tunnel::history::{Change, MAX_SPANS, Span, Stored};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

/// The schema of the tables below.
const SCHEMA: u32 = 1;

const KEY: Table<(), Secret32> = Table::vital("identity");
const STARTS: Table<(), u64> = Table::vital("starts");
const PHONES: Table<[u8; PhoneId::LEN], PhoneRecord> = Table::vital("phones");
const REVOKED: Table<[u8; PhoneId::LEN], RevokedRecord> = Table::new("revoked");
const INVITATIONS: Table<[u8; InvitationId::LEN], InvitationRecord> = Table::new("invitations");
const HISTORY: Table<u64, Span> = Table::new("history");
const HISTORY_OPEN: Table<(), Span> = Table::new("history-open");
/// The start of the machine that the event log has heard of.
const MACHINE_START: Table<(), BootId> = Table::new("machine-start");
const BROKER_ADDRESS: Table<(), String> = Table::new("broker-address");

/// A stored private key.
#[derive(Serialize, Deserialize)]
struct Secret32(serde_bytes::ByteArray<32>);

/// An open invitation: by link or by typed code, made together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRecord {
    /// The invitation.
    pub open: OpenInvitation,
    /// The other form of the same invitation: one phone uses up both.
    pub twin: InvitationId,
}

/// A paired phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhoneRecord {
    /// Its key.
    pub key: PublicKey,
    /// What its owner calls it.
    pub name: String,
    /// When it was paired, seconds since 1970 by the farm's clock.
    pub paired: u64,
}

/// A phone that was paired once: what is needed to tell it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedRecord {
    /// Its key.
    pub key: PublicKey,
    /// Counts revocations: the lowest makes room.
    pub order: u64,
}

/// Why the state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state directory can't be opened.
    #[error(transparent)]
    Open(#[from] farm_store::OpenError),
    /// Something could not be read or made durable.
    #[error(transparent)]
    Store(#[from] farm_store::Error),
    /// The identity is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The broker claims an epoch that is not to be believed.
    #[error(
        "the broker claims a newer start of this farm that is not to be believed: does another box use this farm's key?"
    )]
    UnbelievableEpoch,
    /// The farm has as many phones as it can keep.
    #[error("the farm has {MAX_PHONES} paired phones, its limit: revoke one first")]
    TooManyPhones,
}

/// The agent's durable state. Whatever a method acknowledged survives a power cut.
pub struct State {
    store: Store,
    key: Arc<DeviceKey>,
    start: Epoch,
    /// This start has counted past somebody else's word once.
    jumped: bool,
}

impl State {
    /// Opens or creates the state, and counts this start. `wall_time` is in
    /// seconds since 1970.
    ///
    /// # Errors
    /// [`StateError`]; the message says what to do.
    pub fn open(path: &Path, wall_time: u64) -> Result<(Self, OpenReport), StateError> {
        let options = Options { schema: SCHEMA, wall_time, ..Options::default() };
        let (store, report) = farm_store::open(path, options)?;
        let mut batch = Batch::new();
        let key = match store.get(&KEY, &())? {
            Some(Secret32(seed)) => DeviceKey::from_seed(seed.into_array())?,
            None => {
                let key = DeviceKey::generate(&SystemRandom::new())?;
                batch.put(&KEY, &(), &Secret32(serde_bytes::ByteArray::new(*key.seed())))?;
                key
            }
        };
        let starts = store.get(&STARTS, &())?.unwrap_or(0) + 1;
        batch.put(&STARTS, &(), &starts)?;
        store.commit_blocking(batch)?;
        Ok((Self { store, key: Arc::new(key), start: Epoch::of_start(starts), jumped: false }, report))
    }

    /// The store, for the tables of others.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The farm's key.
    pub fn key(&self) -> Arc<DeviceKey> {
        self.key.clone()
    }

    /// The farm.
    pub fn farm(&self) -> FarmId {
        FarmId::of(&self.key.public())
    }

    /// The first epoch of this start.
    pub fn start(&self) -> Epoch {
        self.start
    }

    /// The broker knows a newer epoch than this start's: state was lost or
    /// restored from a backup. Counts past it; once per start and not absurdly
    /// far, since nothing proves the broker's word, and the count is finite.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn jump_past(&mut self, newest: Epoch) -> Result<Epoch, StateError> {
        if std::mem::replace(&mut self.jumped, true) || newest.is_absurd_after(self.start) {
            return Err(StateError::UnbelievableEpoch);
        }
        let starts = newest.starts() + 1;
        let mut batch = Batch::new();
        batch.put(&STARTS, &(), &starts)?;
        self.store.commit(batch).await?;
        self.start = Epoch::of_start(starts);
        Ok(self.start)
    }

    /// Every paired phone, in a stable order.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn phones(&self) -> Result<Vec<(PhoneId, PhoneRecord)>, StateError> {
        let records = self.store.range(&PHONES, .., MAX_PHONES)?;
        Ok(records.into_iter().map(|(id, record)| (PhoneId::from_bytes(id), record)).collect())
    }

    /// One paired phone.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn phone(&self, id: PhoneId) -> Result<Option<PhoneRecord>, StateError> {
        Ok(self.store.get(&PHONES, id.as_bytes())?)
    }

    /// Removes a phone; `false` if there was none.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub async fn revoke(&self, id: PhoneId) -> Result<bool, StateError> {
        let Some(record) = self.phone(id)? else { return Ok(false) };
        let mut batch = Batch::new();
        batch.remove(&PHONES, id.as_bytes())?;
        let mut revoked = self.revoked()?;
        revoked.sort_by_key(|(_, record)| record.order);
        let order = revoked.last().map_or(0, |(_, record)| record.order) + 1;
        let over = (revoked.len() + 1).saturating_sub(MAX_FORMER);
        for (oldest, _) in revoked.into_iter().take(over) {
            batch.remove(&REVOKED, oldest.as_bytes())?;
        }
        batch.put(&REVOKED, id.as_bytes(), &RevokedRecord { key: record.key, order })?;
        self.store.commit(batch).await?;
        Ok(true)
    }

    /// The phones that were revoked last, at most [`MAX_FORMER`].
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn revoked(&self) -> Result<Vec<(PhoneId, RevokedRecord)>, StateError> {
        let records = self.store.range(&REVOKED, .., MAX_FORMER)?;
        Ok(records.into_iter().map(|(id, record)| (PhoneId::from_bytes(id), record)).collect())
    }

    /// One revoked phone.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn revoked_phone(&self, id: PhoneId) -> Result<Option<RevokedRecord>, StateError> {
        Ok(self.store.get(&REVOKED, id.as_bytes())?)
    }

    /// Keeps a new invitation in both its forms, good from `now` (seconds
    /// since 1970) for `seconds`, and drops the void ones; also the oldest past the limit.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub async fn invite(&self, link: Secret, code: Secret, now: u64, seconds: u64) -> Result<(), StateError> {
        let mut batch = Batch::new();
        let mut kept = self.invitations()?;
        kept.sort_by_key(|(_, old)| std::cmp::Reverse(old.open.expires));
        for (place, (id, old)) in kept.into_iter().enumerate() {
            if old.open.expires <= now || place + 2 >= MAX_INVITATIONS {
                batch.remove(&INVITATIONS, id.as_bytes())?;
            }
        }
        let expires = now + seconds;
        for (secret, twin) in [(link.clone(), code.id()), (code, link.id())] {
            let id = secret.id();
            let open = OpenInvitation { secret, expires, tries: 0, used_by: None };
            batch.put(&INVITATIONS, id.as_bytes(), &InvitationRecord { open, twin })?;
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    /// The invitations that are kept, void ones included.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn invitations(&self) -> Result<Vec<(InvitationId, InvitationRecord)>, StateError> {
        let records = self.store.range(&INVITATIONS, .., 2 * MAX_INVITATIONS)?;
        Ok(records.into_iter().map(|(id, record)| (InvitationId::from_bytes(id), record)).collect())
    }

    /// One invitation.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn invitation(&self, id: InvitationId) -> Result<Option<InvitationRecord>, StateError> {
        Ok(self.store.get(&INVITATIONS, id.as_bytes())?)
    }

    /// After a judged request: the invitation as it is now and, if it let a
    /// phone in, that phone. Both or neither.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn judged(
        &self,
        invitation: &InvitationRecord,
        phone: Option<(PhoneId, PhoneRecord)>,
    ) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.put(&INVITATIONS, invitation.open.secret.id().as_bytes(), invitation)?;
        if let Some((id, record)) = phone {
            batch.remove(&INVITATIONS, invitation.twin.as_bytes())?;
            if self.phone(id)?.is_none() && self.phones()?.len() >= MAX_PHONES {
                return Err(StateError::TooManyPhones);
            }
            batch.put(&PHONES, id.as_bytes(), &record)?;
            batch.remove(&REVOKED, id.as_bytes())?;
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    /// The broker's address that worked last.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn broker_address(&self) -> Result<Option<SocketAddr>, StateError> {
        Ok(self.store.get(&BROKER_ADDRESS, &())?.and_then(|text| text.parse().ok()))
    }

    /// Remembers the broker's address for a start without DNS.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub async fn remember_broker_address(&self, address: SocketAddr) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.put(&BROKER_ADDRESS, &(), &address.to_string())?;
        self.store.commit(batch).await?;
        Ok(())
    }

    /// The event log, as it was stored.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn history(&self) -> Result<Stored, StateError> {
        let spans = self.store.range(&HISTORY, .., 2 * MAX_SPANS)?;
        Ok(Stored { spans, open: self.store.get(&HISTORY_OPEN, &())? })
    }

    /// The start of the machine that the event log has heard of.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub fn machine_start(&self) -> Result<Option<BootId>, StateError> {
        Ok(self.store.get(&MACHINE_START, &())?)
    }

    /// Stores changes of the event log, and of which start of the machine it has
    /// heard if that is another one now; all or none.
    ///
    /// # Errors
    /// [`StateError::Store`].
    pub async fn store_history(
        &self,
        changes: Vec<Change>,
        machine_start: Option<BootId>,
    ) -> Result<(), StateError> {
        let mut batch = Batch::new();
        if let Some(start) = machine_start {
            batch.put(&MACHINE_START, &(), &start)?;
        }
        for change in changes {
            match change {
                Change::Put(number, span) => batch.put(&HISTORY, &number, &span)?,
                Change::Remove(number) => batch.remove(&HISTORY, &number)?,
                Change::Open(Some(span)) => batch.put(&HISTORY_OPEN, &(), &span)?,
                Change::Open(None) => batch.remove(&HISTORY_OPEN, &())?,
            };
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Closes the store; everything acknowledged is on the card already.
    pub async fn close(self) {
        self.store.close().await;
    }
}
