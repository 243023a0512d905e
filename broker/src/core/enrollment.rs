//! Which farms may use this broker: enrolled ones, and those that bring a
//! one-time token.

use std::collections::BTreeMap;
use std::time::Duration;

use farm_protocol::base32;
use farm_protocol::id::FarmId;
use farm_protocol::keys::PublicKey;
use serde::{Deserialize, Serialize};

use super::authentication::Entrant;
use super::connection_state::DeviceId;
use super::event::{Action, ConnectionId, Now};
use super::timers::Timer;
use super::{Core, Phase, limits, refused, retry_after};
use farm_protocol::broker::RefusedReason;

/// Bytes of randomness in a token.
pub const TOKEN_BYTES: usize = 20;

/// How long a token is good for unless the operator says otherwise.
pub const TOKEN_LASTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest name of a farm that is kept, in characters: fits a terminal line.
pub const MAX_NAME: usize = 64;

/// How often expired tokens are looked for. Use checks the expiry anyway.
const TOKEN_SWEEP: Duration = Duration::from_secs(3600);

/// SHA-256 of a token's bytes. The token itself is kept nowhere: who reads
/// the store can't enroll a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token's bytes.
    pub fn of(token: &[u8; TOKEN_BYTES]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token).as_ref());
        Self(hash)
    }

    /// The hash of a token as a person has it: Crockford's base 32, in any
    /// case. `None` for text that can't be a token.
    pub fn of_text(token: &str) -> Option<Self> {
        let bytes = base32::decode(token.trim())?;
        Some(Self::of(&bytes.try_into().ok()?))
    }
}

/// What is stored of an open token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The name that the operator gives the farm.
    pub name: Option<String>,
    /// Good until then, seconds since 1970.
    pub expires: u64,
}

/// What is stored of an enrolled farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmRecord {
    /// Its public key.
    pub key: PublicKey,
    /// The operator's name for it, else its own.
    pub name: String,
    /// When it was enrolled, seconds since 1970.
    pub enrolled: u64,
    /// The token that it used.
    pub token: TokenHash,
}

/// A name fit to be shown on a terminal: without control characters and of
/// bounded length.
pub fn presentable(name: &str) -> String {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    shown.trim().to_owned()
}

/// Open tokens and the enrollments that the store is working on.
#[derive(Debug, Default)]
pub(super) struct Enrollment {
    pub(super) tokens: BTreeMap<TokenHash, TokenRecord>,
    pub(super) pending: BTreeMap<FarmId, Pending>,
    /// Farms that the operator wants to see no more, and since when.
    pub(super) revoked: BTreeMap<FarmId, u64>,
}

/// An enrollment that is being made durable.
#[derive(Debug)]
pub(super) struct Pending {
    record: FarmRecord,
    /// The farm's newest connection, waiting for its welcome.
    waiting: Option<ConnectionId>,
}

impl Core {
    /// Whether one more token may be issued; the operator's mistakes are
    /// bounded too.
    pub fn may_issue_token(&self) -> bool {
        self.enrollment.tokens.len() < self.settings.limits.tokens
    }

    pub(super) fn token_issued(&mut self, hash: TokenHash, token: TokenRecord, now: Now) {
        self.enrollment.tokens.insert(hash, token);
        self.timers.arm(Timer::Tokens, now.instant + TOKEN_SWEEP);
    }

    /// Farms that were revoked in earlier runs. Once, after [`Core::new`].
    pub fn keep_out(&mut self, revoked: impl IntoIterator<Item = (FarmId, u64)>) {
        self.enrollment.revoked.extend(revoked);
    }

    /// A farm is to be seen no more: whoever has its key is told so.
    pub(super) fn revoked(&mut self, farm: FarmId, now: Now) {
        if self.enrollment.revoked.insert(farm, now.unix).is_some() && !self.farms.is_enrolled(farm) {
            return;
        }
        if let Some(connection) = self.states.connection_of(DeviceId::Farm(farm)) {
            self.close(connection, Some(refused(RefusedReason::Revoked)), now);
        }
        let name = self.farms.record(farm).map_or("", |record| record.name.as_str());
        tracing::info!(%farm, name, "farm revoked");
        if let Some(account) = self.relay_account(farm) {
            self.actions.push_back(Action::CloseRelay { account });
            self.renew_phones_credentials();
        }
        self.forget_absence(farm);
        self.farms.remove(farm);
        self.announce(farm, now);
        self.forget_history(farm, now);
    }

    /// An authenticated farm that is not enrolled: only a good token helps.
    pub(super) fn enroll(
        &mut self,
        connection: ConnectionId,
        farm: FarmId,
        entrant: Entrant,
        token: Option<&str>,
        now: Now,
    ) {
        let Some(token) = token else {
            if !self.knows_all_farms() {
                return self.close(connection, Some(retry_after(limits::ENROLL_AGAIN_AFTER)), now);
            }
            self.counters.refused_not_enrolled += 1;
            return self.refuse(connection, RefusedReason::NotEnrolled, now);
        };
        let Some(network) = self.connections.get(&connection).map(|c| c.network) else {
            return;
        };
        if !self.token_guesses.has_one(&network, now.instant) {
            self.counters.limit_token_guesses += 1;
            return self.refuse(connection, RefusedReason::Limit, now);
        }
        let Some(record) = self.redeem(farm, token, &entrant, now) else {
            self.token_guesses.take(network, now.instant);
            self.counters.refused_bad_token += 1;
            return self.refuse(connection, RefusedReason::BadToken, now);
        };
        if self.farms.enrolled() + self.enrollment.pending.len() >= self.settings.limits.farms {
            self.counters.limit_farms += 1;
            return self.refuse(connection, RefusedReason::Limit, now);
        }
        self.await_enrollment(connection, farm, entrant, record, now);
    }

    /// What would be stored if this token is good for this farm.
    fn redeem(&self, farm: FarmId, token: &str, entrant: &Entrant, now: Now) -> Option<FarmRecord> {
        let hash = TokenHash::of_text(token)?;
        let known = match self.enrollment.tokens.get(&hash) {
            Some(known) => known,
            // Another broker may have issued it this moment: the engine knows.
            None if self.cluster.is_some() => &TokenRecord { name: None, expires: u64::MAX },
            None => return None,
        };
        let taken_by_another = self
            .enrollment
            .pending
            .iter()
            .any(|(other, pending)| *other != farm && pending.record.token == hash);
        if known.expires <= now.unix || taken_by_another {
            return None;
        }
        let name = known.name.as_deref().or(entrant.name.as_deref());
        Some(FarmRecord {
            key: entrant.key,
            name: presentable(name.unwrap_or_default()),
            enrolled: now.unix,
            token: hash,
        })
    }

    fn await_enrollment(
        &mut self,
        connection: ConnectionId,
        farm: FarmId,
        entrant: Entrant,
        record: FarmRecord,
        now: Now,
    ) {
        let former = match self.enrollment.pending.get_mut(&farm) {
            Some(pending) => pending.waiting.replace(connection),
            None => {
                self.actions.push_back(Action::Enroll { farm, record: record.clone() });
                let waiting = Some(connection);
                self.enrollment.pending.insert(farm, Pending { record, waiting });
                None
            }
        };
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.phase = Phase::Enrolling(Box::new(entrant));
        }
        self.timers.arm(Timer::Connection(connection), now.instant + limits::ENROLL_WITHIN);
        if let Some(former) = former {
            self.counters.superseded += 1;
            self.close(former, Some(refused(RefusedReason::Superseded)), now);
        }
    }

    pub(super) fn enrolled(&mut self, farm: FarmId, now: Now) {
        let Some(Pending { record, waiting }) = self.enrollment.pending.remove(&farm) else {
            return;
        };
        self.counters.enrolled += 1;
        self.enrollment.tokens.remove(&record.token);
        // In a cluster the record itself has come already.
        if !self.farms.is_enrolled(farm) {
            tracing::info!(%farm, name = record.name, "farm enrolled");
            self.farms.add(farm, record);
        }
        let waiting = waiting.and_then(|connection| Some((connection, self.take_entrant(connection)?)));
        match waiting {
            Some((connection, entrant)) => self.admit(connection, DeviceId::Farm(farm), entrant, now),
            // It did not wait, and has yet to come.
            None => self.absence_begins(farm, now),
        }
    }

    pub(super) fn enrollment_failed(&mut self, farm: FarmId, now: Now) {
        let Some(pending) = self.enrollment.pending.remove(&farm) else {
            return;
        };
        self.counters.failed_enrollments += 1;
        if let Some(connection) = pending.waiting {
            self.close(connection, Some(retry_after(limits::ENROLL_AGAIN_AFTER)), now);
        }
    }

    /// The engine of the cluster does not know the token, or another farm used it.
    pub(super) fn enrollment_refused(&mut self, farm: FarmId, now: Now) {
        let Some(pending) = self.enrollment.pending.remove(&farm) else {
            return;
        };
        self.counters.refused_bad_token += 1;
        if let Some(connection) = pending.waiting {
            if let Some(network) = self.connections.get(&connection).map(|c| c.network) {
                self.token_guesses.take(network, now.instant);
            }
            self.refuse(connection, RefusedReason::BadToken, now);
        }
    }

    fn take_entrant(&mut self, connection: ConnectionId) -> Option<Entrant> {
        match &mut self.connections.get_mut(&connection)?.phase {
            Phase::Enrolling(entrant) => Some((**entrant).clone()),
            _ => None,
        }
    }

    /// A waiting connection ended; its enrollment goes on.
    pub(super) fn stop_waiting(&mut self, connection: ConnectionId) {
        for pending in self.enrollment.pending.values_mut() {
            if pending.waiting == Some(connection) {
                pending.waiting = None;
            }
        }
    }

    pub(super) fn forget_expired_tokens(&mut self, now: Now) {
        let expired = |token: &TokenRecord| token.expires <= now.unix;
        let hashes = self.enrollment.tokens.iter();
        let gone: Vec<TokenHash> =
            hashes.filter(|(_, token)| expired(token)).map(|(hash, _)| *hash).collect();
        for hash in gone {
            self.enrollment.tokens.remove(&hash);
            self.actions.push_back(Action::ForgetToken { hash });
        }
        if !self.enrollment.tokens.is_empty() {
            self.timers.arm(Timer::Tokens, now.instant + TOKEN_SWEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_be_typed_in_any_case() {
        let token = base32::encode(&[0x5a; TOKEN_BYTES]);
        let hash = TokenHash::of(&[0x5a; TOKEN_BYTES]);
        assert_eq!(TokenHash::of_text(&token), Some(hash));
        let typed = format!(" {}\n", token.to_uppercase());
        assert_eq!(TokenHash::of_text(&typed), Some(hash));
        assert_eq!(TokenHash::of_text("short"), None);
        assert_eq!(TokenHash::of_text(""), None);
    }

    #[test]
    fn a_name_can_do_nothing_to_a_terminal() {
        assert_eq!(presentable("  North\u{1b}[2J\nfield "), "North[2Jfield");
        assert_eq!(presentable(&"x".repeat(500)).len(), MAX_NAME);
    }
}
