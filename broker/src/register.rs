//! Where farms and tokens are kept: in the store of this broker, or, in a
//! cluster, in an engine that all brokers share. And what joins the brokers.

use std::sync::Arc;

use async_channel::Sender;
use async_trait::async_trait;
use farm_protocol::id::FarmId;
use farm_store::Store;

use crate::core::Event;
use crate::core::cluster::Membership;
use crate::core::cluster::message::{BrokerId, PeerMessage};
use crate::core::enrollment::{FarmRecord, TokenHash, TokenRecord};
use crate::store;

/// Why something is not kept. Nothing has changed then, or all of it has and
/// its answer was lost: asking for the same again is right.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The broker's own store.
    #[error(transparent)]
    Store(#[from] farm_store::Error),
    /// The engine of the cluster.
    #[error("{0}; known farms keep working, new farms and tokens have to wait")]
    Engine(String),
}

/// How an enrollment went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// It is durable, as this.
    Kept(FarmRecord),
    /// The token is no good.
    Refused,
}

/// Keeps farms and tokens. What returns is durable.
#[async_trait]
pub trait Register: Send + Sync {
    /// Keeps a farm and spends its token, both or neither.
    async fn enroll(&self, farm: FarmId, record: &FarmRecord) -> Result<Enrolled, RegisterError>;
    /// Keeps a new token.
    async fn add_token(&self, hash: TokenHash, token: &TokenRecord) -> Result<(), RegisterError>;
    /// Forgets an expired token.
    async fn remove_token(&self, hash: TokenHash) -> Result<(), RegisterError>;
    /// Keeps that a farm is revoked since `now`, seconds since 1970.
    async fn revoke(&self, farm: FarmId, now: u64) -> Result<(), RegisterError>;
    /// Keeps a farm again that was lost, unless it is there.
    async fn restore(&self, record: &FarmRecord) -> Result<(), RegisterError>;
}

/// Carries what brokers tell each other. Never waits; what can't be carried
/// is lost, which its receivers notice.
pub trait Wire: Send + Sync {
    /// To all other brokers.
    fn tell_all(&self, message: &PeerMessage);
    /// To one.
    fn tell(&self, broker: BrokerId, message: &PeerMessage);
}

/// What joins several brokers.
#[async_trait]
pub trait Engine: Send {
    /// Who this broker is among them.
    fn membership(&self) -> Membership;
    /// Keeps farms and tokens for all of them.
    fn register(&self) -> Arc<dyn Register>;
    /// Carries what they tell each other.
    fn wire(&self) -> Arc<dyn Wire>;
    /// Reports what comes, for ever: the engine's records, which are copied to
    /// the store, messages of other brokers, and whether it can be reached.
    async fn run(self: Box<Self>, events: Sender<Event>, store: Store);
}

#[async_trait]
impl Register for Store {
    async fn enroll(&self, farm: FarmId, record: &FarmRecord) -> Result<Enrolled, RegisterError> {
        store::enroll(self, farm, record).await?;
        Ok(Enrolled::Kept(record.clone()))
    }

    async fn add_token(&self, hash: TokenHash, token: &TokenRecord) -> Result<(), RegisterError> {
        Ok(store::add_token(self, hash, token).await?)
    }

    async fn remove_token(&self, hash: TokenHash) -> Result<(), RegisterError> {
        Ok(store::remove_token(self, hash).await?)
    }

    async fn revoke(&self, farm: FarmId, now: u64) -> Result<(), RegisterError> {
        Ok(store::revoke(self, farm, now).await?)
    }

    async fn restore(&self, record: &FarmRecord) -> Result<(), RegisterError> {
        Ok(store::enroll(self, FarmId::of(&record.key), record).await?)
    }
}
