//! Who a device is: its signature over the challenge, and a place in the
//! connection state DB.

use farm_protocol::broker::{
    Authenticate, FromBroker, MAX_TEXT, PresenceState, Refused, RefusedReason, Role, Welcome,
};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId};
use farm_protocol::keys::{KeyError, Nonce, PublicKey, Signature};

use super::connection_state::{DeviceId, Verdict};
use super::event::{Claimed, ConnectionId, Now};
use super::presence::Proof;
use super::timers::Timer;
use super::{Core, Device, Phase, limits, refused};

/// Epochs from here on don't fit a JavaScript number and are nobody's.
const EPOCH_END: u64 = 1 << 53;

/// What an authenticated device said of itself.
#[derive(Debug, Clone)]
pub(super) struct Entrant {
    pub(super) key: PublicKey,
    pub(super) boot: BootId,
    pub(super) epoch: Epoch,
    /// A farm's.
    pub(super) presence: Option<Proof>,
    pub(super) name: Option<String>,
}

/// Whether a farm really says this of its boot and epoch. Phones check it
/// too; the broker does so that it never hands on what they would refuse.
pub(super) fn verify_presence(
    key: &PublicKey,
    (boot, epoch): (BootId, Epoch),
    proof: Signature,
) -> Result<(), KeyError> {
    let state = PresenceState { online: true, boot, epoch, proof, since_seconds: 0 };
    state.verify(key)
}

impl Core {
    /// The first message of a connection.
    pub(super) fn authenticate(
        &mut self,
        connection: ConnectionId,
        nonce: Nonce,
        claim: Authenticate,
        now: Now,
    ) {
        let presence = match self.check(&claim, |claim| claim.verify(&nonce)) {
            Ok(presence) => presence,
            Err(reason) => {
                match reason {
                    RefusedReason::WrongBrokerName => self.counters.refused_wrong_name += 1,
                    RefusedReason::BadSignature => self.counters.refused_bad_signature += 1,
                    _ => self.counters.refused_protocol += 1,
                }
                return self.refuse(connection, reason, now);
            }
        };
        let entrant =
            Entrant { key: claim.key, boot: claim.boot, epoch: claim.epoch, presence, name: claim.name };
        match claim.role {
            Role::Phone => {
                let session = SessionId { phone: PhoneId::of(&claim.key), slot: claim.slot };
                self.admit(connection, DeviceId::Phone(session), entrant, now);
            }
            Role::Farm => {
                let farm = FarmId::of(&claim.key);
                if self.enrollment.revoked.contains_key(&farm) {
                    self.counters.refused_revoked += 1;
                    return self.refuse(connection, RefusedReason::Revoked, now);
                }
                if self.farms.is_enrolled(farm) {
                    self.admit(connection, DeviceId::Farm(farm), entrant, now);
                } else {
                    let token = claim.enrollment_token.as_deref();
                    self.enroll(connection, farm, entrant, token, now);
                }
            }
        }
    }

    /// Lets in who proved its key with its request. `false`: it is to be asked
    /// as ever, by a challenge: whoever is not known yet, and who proved nothing,
    /// perhaps because TLS ends before this broker.
    pub(super) fn enter_by_claim(&mut self, connection: ConnectionId, claimed: Claimed, now: Now) -> bool {
        let Claimed { channel, claim } = claimed;
        let id = match claim.role {
            Role::Phone => DeviceId::Phone(SessionId { phone: PhoneId::of(&claim.key), slot: claim.slot }),
            Role::Farm => DeviceId::Farm(FarmId::of(&claim.key)),
        };
        if let DeviceId::Farm(farm) = id
            && (!self.farms.is_enrolled(farm) || self.enrollment.revoked.contains_key(&farm))
        {
            return false;
        }
        let Ok(presence) = self.check(&claim, |claim| claim.verify_for_channel(&channel)) else {
            self.counters.claims_unproved += 1;
            return false;
        };
        self.counters.claims += 1;
        let entrant =
            Entrant { key: claim.key, boot: claim.boot, epoch: claim.epoch, presence, name: claim.name };
        self.admit(connection, id, entrant, now);
        true
    }

    /// Gives a farm's word on its presence.
    fn check(
        &self,
        claim: &Authenticate,
        verify: impl Fn(&Authenticate) -> Result<(), KeyError>,
    ) -> Result<Option<Proof>, RefusedReason> {
        let texts = [Some(&claim.broker), claim.enrollment_token.as_ref(), claim.name.as_ref()];
        let fits = texts.into_iter().flatten().all(|text| text.len() <= MAX_TEXT);
        let slot_fits = claim.role == Role::Phone || claim.slot.number() == 0;
        if !fits || !slot_fits || claim.epoch.number() >= EPOCH_END {
            return Err(RefusedReason::ProtocolError);
        }
        let names = &self.settings.names;
        if !names.is_empty() && !names.contains(&claim.broker) {
            return Err(RefusedReason::WrongBrokerName);
        }
        verify(claim).map_err(|_| RefusedReason::BadSignature)?;
        if claim.role != Role::Farm {
            return Ok(None);
        }
        let proof = claim.presence.ok_or(RefusedReason::ProtocolError)?;
        if self.presence_can_wait(FarmId::of(&claim.key)) {
            return Ok(Some(Proof::Unchecked(proof)));
        }
        verify_presence(&claim.key, (claim.boot, claim.epoch), proof)
            .map_err(|_| RefusedReason::BadSignature)?;
        Ok(Some(Proof::Checked(proof)))
    }

    /// Whether nobody is told of this farm now: no phone, no other broker.
    fn presence_can_wait(&self, farm: FarmId) -> bool {
        self.cluster.is_none() && self.farms.is_enrolled(farm) && self.watchers.of(farm).next().is_none()
    }

    /// A farm's presence is about to be told to a phone that may know it. A
    /// farm whose own word on it does not hold is sent away.
    pub(super) fn check_presence(&mut self, farm: FarmId, now: Now) {
        let key = self.farms.record(farm).map(|record| record.key);
        let Some((key, seen)) = key.zip(self.farms.seen_mut(farm)) else { return };
        let Proof::Unchecked(proof) = seen.proof else { return };
        if verify_presence(&key, (seen.boot, seen.epoch), proof).is_ok() {
            seen.proof = Proof::Checked(proof);
            return;
        }
        seen.proof = Proof::Wrong;
        self.counters.refused_bad_signature += 1;
        if let Some(connection) = self.states.connection_of(DeviceId::Farm(farm)) {
            self.refuse(connection, RefusedReason::BadSignature, now);
        }
    }

    /// Gives an authenticated device its place, or the reason why not.
    pub(super) fn admit(&mut self, connection: ConnectionId, id: DeviceId, entrant: Entrant, now: Now) {
        let here = self.states.judge(id, entrant.boot, entrant.epoch);
        let elsewhere = self.judge_elsewhere(id, (entrant.boot, entrant.epoch));
        if let (Verdict::Stale(newest), _) | (_, Verdict::Stale(newest)) = (here, elsewhere) {
            self.counters.refused_stale_epoch += 1;
            let message =
                FromBroker::Refused(Refused { reason: RefusedReason::StaleEpoch, newest: Some(newest) });
            return self.close(connection, Some(message), now);
        }
        if self.states.is_older_connection(id, entrant.boot, connection) {
            // What its device wrote before it gave the connection up: late, not new.
            return self.close(connection, None, now);
        }
        let Some(opened) = self.connections.get_mut(&connection) else {
            return;
        };
        opened.phase = Phase::In(Box::new(Device::new(id)));
        opened.heard = now.instant;
        let observed = opened.observed;
        let run = (entrant.boot, entrant.epoch);
        let former = self.states.enter(id, run, connection, now.instant);
        self.take_turn(id);
        self.timers.disarm(Timer::Device(id));
        let look_at = self.look_at(now.instant + limits::STALE_AFTER, now.instant);
        self.timers.arm(Timer::Connection(connection), look_at);
        if let Some(former) = former {
            self.counters.superseded += 1;
            self.close(former, Some(refused(RefusedReason::Superseded)), now);
        }
        self.counters.welcomed += 1;
        let relay = self.relay_credentials(connection, now);
        let welcome = FromBroker::Welcome(Welcome {
            observed: observed.to_string(),
            heartbeat_seconds: limits::HEARTBEAT.as_secs() as u16,
            stun_port: self.settings.stun_port,
            relay,
            time: now.unix,
        });
        self.send(connection, welcome);
        if let (DeviceId::Farm(farm), Some(proof)) = (id, entrant.presence) {
            self.farm_came(farm, run, proof, observed.ip(), now.instant, now);
        }
        self.claim(id, now);
    }
}
