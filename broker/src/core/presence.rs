//! The farms: who is enrolled, in which run each was last seen, and whom it
//! lets know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use farm_protocol::broker::{Access, Presence, PresenceState};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, InvitationId, PhoneId, SessionId};
use farm_protocol::keys::Signature;

use super::bucket::Bucket;
use super::enrollment::FarmRecord;
use super::limits::EXCHANGE_LASTS;

/// Grows with every change of any farm's presence, so that a watcher's view
/// is compared by one number. 0 stands for "nothing is known".
pub(super) type Version = u64;

/// A farm's signature over its boot and epoch, for its phones. To check it is a
/// tenth of what a farm's coming costs, and most farms are looked at by nobody
/// while they are connected: it is checked before the first phone gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It holds.
    Checked(Signature),
    /// Nobody needed it yet.
    Unchecked(Signature),
    /// It does not hold: nobody gets it.
    Wrong,
}

impl Proof {
    /// What may be handed on.
    pub(super) fn checked(self) -> Option<Signature> {
        match self {
            Self::Checked(proof) => Some(proof),
            Self::Unchecked(_) | Self::Wrong => None,
        }
    }
}

/// What a farm looked like when it was last seen, since the broker started.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) online: bool,
    pub(super) boot: BootId,
    pub(super) epoch: Epoch,
    pub(super) proof: Proof,
    /// When `online` or `boot` changed last.
    pub(super) since: Instant,
    pub(super) version: Version,
    /// Where its connection comes from.
    pub(super) address: IpAddr,
    /// Sorted.
    phones: Vec<PhoneId>,
    invitations: Vec<InvitationId>,
    former: Vec<PhoneId>,
    exchanges: BTreeMap<SessionId, Instant>,
    /// Limits signals to its invitations.
    pub(super) pairing: Bucket,
    /// Limits what its watchers are sent.
    pub(super) pushes: Bucket,
}

impl Seen {
    /// Whether the farm's last word lists the phone.
    pub(super) fn lists(&self, phone: PhoneId) -> bool {
        self.phones.binary_search(&phone).is_ok()
    }

    /// Whether the farm wants to hear the phone: one that it lists, or one
    /// that it knew once and has something to tell.
    pub(super) fn hears(&self, phone: PhoneId) -> bool {
        self.lists(phone) || self.former.contains(&phone)
    }

    /// Remembers that this phone said something to the farm, so that it may
    /// be answered. At most `most` phones are remembered.
    pub(super) fn exchange(&mut self, session: SessionId, most: usize, now: Instant) {
        if self.exchanges.len() >= most && !self.exchanges.contains_key(&session) {
            let oldest = self.exchanges.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(session, _)| *session) {
                self.exchanges.remove(&oldest);
            }
        }
        self.exchanges.insert(session, now);
    }

    /// Whether the farm may send this phone something.
    pub(super) fn may_answer(&self, session: SessionId, now: Instant) -> bool {
        let exchanging = self.exchanges.get(&session);
        self.lists(session.phone) || exchanging.is_some_and(|at| now < *at + EXCHANGE_LASTS)
    }

    #[cfg(test)]
    pub(super) fn exchanges(&self) -> usize {
        self.exchanges.len()
    }
}

#[derive(Debug)]
struct Farm {
    record: FarmRecord,
    seen: Option<Box<Seen>>,
}

/// One line of the operator's list of farms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmView {
    /// Its id.
    pub id: FarmId,
    /// Its name.
    pub name: String,
    /// Whether it is connected.
    pub online: bool,
    /// When it came or went; `None` if it was not seen since the broker started.
    pub since: Option<Instant>,
    /// When it was enrolled, seconds since 1970.
    pub enrolled: u64,
}

/// All enrolled farms.
#[derive(Debug, Default)]
pub(super) struct Farms {
    farms: BTreeMap<FarmId, Farm>,
    /// Who holds an invitation; the first one to name it, while it is shown.
    invitations: BTreeMap<InvitationId, FarmId>,
    /// Which farms list a phone.
    listing: BTreeSet<(PhoneId, FarmId)>,
    /// Farms that are offline and still shown, longest away first.
    offline: BTreeSet<(Instant, FarmId)>,
    version: Version,
}

impl Farms {
    pub(super) fn add(&mut self, farm: FarmId, record: FarmRecord) {
        self.farms.insert(farm, Farm { record, seen: None });
    }

    /// A farm is no longer enrolled.
    pub(super) fn remove(&mut self, farm: FarmId) {
        self.version += 1;
        let Some(Farm { seen: Some(seen), .. }) = self.farms.remove(&farm) else { return };
        self.offline.remove(&(seen.since, farm));
        self.release(farm, &seen.invitations);
        self.unlist(farm, &seen.phones);
    }

    pub(super) fn enrolled(&self) -> usize {
        self.farms.len()
    }

    pub(super) fn is_enrolled(&self, farm: FarmId) -> bool {
        self.farms.contains_key(&farm)
    }

    pub(super) fn record(&self, farm: FarmId) -> Option<&FarmRecord> {
        self.farms.get(&farm).map(|farm| &farm.record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &FarmRecord> {
        self.farms.values().map(|farm| &farm.record)
    }

    pub(super) fn seen(&self, farm: FarmId) -> Option<&Seen> {
        self.farms.get(&farm)?.seen.as_deref()
    }

    pub(super) fn seen_mut(&mut self, farm: FarmId) -> Option<&mut Seen> {
        self.farms.get_mut(&farm)?.seen.as_deref_mut()
    }

    /// A farm is here in this run, since then if it was not; gives whether that changes what is shown.
    pub(super) fn came(
        &mut self,
        farm: FarmId,
        (boot, epoch): (BootId, Epoch),
        proof: Proof,
        address: IpAddr,
        since: Instant,
    ) -> bool {
        let Some(Farm { seen, .. }) = self.farms.get_mut(&farm) else {
            return false;
        };
        let former = seen.as_deref();
        let goes_on = former.is_some_and(|seen| seen.online && seen.boot == boot);
        if goes_on && former.is_some_and(|seen| seen.epoch == epoch && seen.address == address) {
            return false;
        }
        self.version += 1;
        match seen.as_deref_mut() {
            Some(seen) => {
                self.offline.remove(&(seen.since, farm));
                seen.since = if goes_on { seen.since } else { since };
                (seen.online, seen.boot, seen.epoch) = (true, boot, epoch);
                (seen.proof, seen.address, seen.version) = (proof, address, self.version);
            }
            None => {
                *seen = Some(Box::new(Seen {
                    online: true,
                    boot,
                    epoch,
                    proof,
                    since,
                    version: self.version,
                    address,
                    phones: Vec::new(),
                    invitations: Vec::new(),
                    former: Vec::new(),
                    exchanges: BTreeMap::new(),
                    pairing: Bucket::default(),
                    pushes: Bucket::default(),
                }));
            }
        }
        true
    }

    /// A farm's connection is gone. Gives the farm that, being away longest,
    /// is no longer shown because more than `most` are away.
    pub(super) fn went(&mut self, farm: FarmId, most: usize, now: Instant) -> Option<FarmId> {
        self.version += 1;
        let version = self.version;
        let seen = self.seen_mut(farm).filter(|seen| seen.online)?;
        (seen.online, seen.since, seen.version) = (false, now, version);
        // A farm that only roams comes back within its exchanges' time.
        seen.exchanges.retain(|_, at| now < *at + EXCHANGE_LASTS);
        self.offline.insert((now, farm));
        if self.offline.len() <= most {
            return None;
        }
        let (_, longest_away) = self.offline.pop_first()?;
        let dropped = self.farms.get_mut(&longest_away)?.seen.take()?;
        self.release(longest_away, &dropped.invitations);
        self.unlist(longest_away, &dropped.phones);
        Some(longest_away)
    }

    /// Takes a farm's word on who may reach it.
    pub(super) fn set_access(&mut self, farm: FarmId, access: Access) {
        let Access { mut phones, mut invitations, former } = access;
        phones.sort_unstable();
        phones.dedup();
        invitations.sort_unstable();
        invitations.dedup();
        let Some(seen) = self.seen_mut(farm) else {
            return;
        };
        seen.former = former;
        let unlisted = std::mem::replace(&mut seen.phones, phones.clone());
        let former = std::mem::replace(&mut seen.invitations, invitations.clone());
        self.release(farm, &former);
        self.unlist(farm, &unlisted);
        self.listing.extend(phones.into_iter().map(|phone| (phone, farm)));
        for invitation in invitations {
            self.invitations.entry(invitation).or_insert(farm);
        }
    }

    /// What a farm said last of who may reach it.
    pub(super) fn access_of(&self, farm: FarmId) -> Option<Access> {
        let seen = self.seen(farm)?;
        Some(Access {
            phones: seen.phones.clone(),
            invitations: seen.invitations.clone(),
            former: seen.former.clone(),
        })
    }

    fn release(&mut self, farm: FarmId, invitations: &[InvitationId]) {
        for invitation in invitations {
            if self.invitations.get(invitation) == Some(&farm) {
                self.invitations.remove(invitation);
            }
        }
    }

    fn unlist(&mut self, farm: FarmId, phones: &[PhoneId]) {
        for phone in phones {
            self.listing.remove(&(*phone, farm));
        }
    }

    /// A farm that lists this phone: of several always the same.
    pub(super) fn listing(&self, phone: PhoneId) -> Option<FarmId> {
        let least = (phone, FarmId::from_bytes([0; FarmId::LEN]));
        self.listing.range(least..).next().filter(|(found, _)| *found == phone).map(|(_, farm)| *farm)
    }

    /// The farm that holds an invitation.
    pub(super) fn holder(&self, invitation: InvitationId) -> Option<FarmId> {
        self.invitations.get(&invitation).copied()
    }

    /// What this phone may know: 0 for a farm that does not list it, that was
    /// not seen or that does not exist, without telling which.
    pub(super) fn version_for(&self, farm: FarmId, phone: PhoneId) -> Version {
        let seen = self.seen(farm).filter(|seen| seen.lists(phone));
        seen.map_or(0, |seen| seen.version)
    }

    /// The message to a phone that may know (`known`) or may not.
    pub(super) fn presence(&self, farm: FarmId, known: bool, now: Instant) -> Presence {
        let state = self.seen(farm).filter(|_| known).and_then(|seen| {
            Some(PresenceState {
                online: seen.online,
                boot: seen.boot,
                epoch: seen.epoch,
                proof: seen.proof.checked()?,
                since_seconds: now.saturating_duration_since(seen.since).as_secs(),
            })
        });
        Presence { farm, state }
    }

    /// All farms, for the operator.
    pub(super) fn views(&self) -> impl Iterator<Item = FarmView> {
        self.farms.iter().map(|(id, farm)| FarmView {
            id: *id,
            name: farm.record.name.clone(),
            online: farm.seen.as_ref().is_some_and(|seen| seen.online),
            since: farm.seen.as_ref().map(|seen| seen.since),
            enrolled: farm.record.enrolled,
        })
    }

    #[cfg(test)]
    pub(super) fn shown_offline(&self) -> usize {
        self.offline.len()
    }

    #[cfg(test)]
    pub(super) fn invitations(&self) -> usize {
        self.invitations.len()
    }
}
