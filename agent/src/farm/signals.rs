//! Signals from phones: verified before anything else looks at them.

use std::time::Instant;

use farm_protocol::broker::{Address, Role};
use farm_protocol::codec;
use farm_protocol::id::{PhoneId, SessionId};
use farm_protocol::pairing::{PairAnswer, PairRefused, PairRequest};
use farm_protocol::signal::{Content, Expected, OfferRefused, Payload, PeerSignal, Signed};
use farm_tunnel::session::farm::Event;

use super::carriers::{Context, Offer};
use super::{Farm, wall_time};
use crate::counters::Count;
use crate::state::{PhoneRecord, StateError};

impl Farm {
    pub(super) async fn signal(&mut self, from: Address, payload: &[u8]) {
        let Address::Phone(session) = from else {
            return self.counters.add(Count::MalformedSignals);
        };
        match codec::decode::<Payload>(payload) {
            Ok(Payload::Signed(signed)) => self.signed(session, &signed),
            Ok(Payload::PairRequest(request)) => self.pair(session, &request).await,
            Ok(Payload::PairAnswer(_)) => self.counters.add(Count::MalformedSignals),
            Err(error) => {
                self.counters.add(Count::MalformedSignals);
                tracing::debug!(%error, "a signal could not be read");
            }
        }
    }

    fn signed(&mut self, session: SessionId, signed: &Signed) {
        let phone = match self.state.phone(session.phone) {
            Ok(Some(phone)) => phone,
            // Nothing of a stranger's is answered: the broker should have
            // dropped it, and an answer would tell that the farm is here.
            Ok(None) => return self.unpaired(session, signed),
            Err(error) => return tracing::error!(%error, "the paired phones can't be read"),
        };
        let expected = Expected { key: &phone.key, from: Role::Phone, farm: self.id, session };
        match signed.open(expected) {
            Ok(signal) => self.peer_signal(signal),
            Err(error) => {
                self.counters.add(Count::UnbelievedSignals);
                tracing::info!(%session, %error, "a signal was not believed");
            }
        }
    }

    /// A phone that is not paired. One that was, and proves it, is told so; a
    /// stranger learns nothing.
    fn unpaired(&mut self, session: SessionId, signed: &Signed) {
        self.counters.add(Count::StrangersSignals);
        let phone = match self.state.revoked_phone(session.phone) {
            Ok(Some(phone)) => phone,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "the revoked phones can't be read"),
        };
        let expected = Expected { key: &phone.key, from: Role::Phone, farm: self.id, session };
        let Ok(PeerSignal { epoch, content: Content::Offer { nonce, .. }, .. }) = signed.open(expected)
        else {
            return;
        };
        let now = Instant::now();
        if self.farewells.ready_at(now) > now {
            return self.counters.add(Count::OffersOverLimit);
        }
        self.farewells.take(now);
        tracing::debug!(%session, "a revoked phone is told that it is not paired");
        let reason = OfferRefused::NotPaired;
        self.say(session, epoch, Content::Refused { nonce, reason, farm_boot: self.boot, newest: epoch });
    }

    fn peer_signal(&mut self, signal: PeerSignal) {
        let PeerSignal { session, epoch, content, .. } = signal;
        let now = Instant::now();
        match content {
            Content::Offer { nonce, phone_boot, farm_boot, sdp } => {
                self.lifecycle.handle(Event::Offer { session, epoch, phone_boot, farm_boot }, now);
                self.act(Some(Context::Offer(Offer { nonce, sdp })));
            }
            Content::Candidate { candidate } => self.candidate(session, epoch, candidate),
            Content::Goodbye {} => {
                self.lifecycle.handle(Event::Ended(session, epoch), now);
                self.act(None);
            }
            // `open` lets phones say nothing else.
            Content::Answer { .. } | Content::Refused { .. } => {}
        }
    }

    async fn pair(&mut self, session: SessionId, request: &PairRequest) {
        let answer = if PhoneId::of(&request.phone) != session.phone || request.slot != session.slot {
            // The answer goes to whoever asked; it must be the phone itself.
            Err(PairRefused::Malformed)
        } else {
            self.judge(request).await
        };
        let answer = answer.unwrap_or_else(|reason| {
            self.counters.add(Count::PairingsRefused);
            tracing::info!(reason = reason.explanation(), "a pairing was refused");
            PairAnswer::Refused { nonce: request.nonce, reason }
        });
        self.send_payload(session, &Payload::PairAnswer(Box::new(answer)));
    }

    async fn judge(&mut self, request: &PairRequest) -> Result<PairAnswer, PairRefused> {
        let unusable = |error: StateError| match error {
            StateError::TooManyPhones => PairRefused::TooManyPhones,
            other => {
                tracing::error!(error = %other, "a pairing could not be stored");
                PairRefused::Other
            }
        };
        let now = wall_time();
        let record = self.state.invitation(request.invitation).map_err(unusable)?;
        let mut record = record.ok_or(PairRefused::UnknownInvitation)?;
        let verdict = record.open.judge(request, now);
        let phone = verdict.ok().map(|id| {
            let name = request.name.trim().to_owned();
            (id, PhoneRecord { key: request.phone, name, paired: now })
        });
        let farm_nonce = self.nonce().ok_or(PairRefused::Other)?;
        self.state.judged(&record, phone.clone()).await.map_err(unusable)?;
        verdict?;
        self.counters.add(Count::PairingsAccepted);
        if let Some((_, phone)) = &phone {
            tracing::info!(name = phone.name, "a phone was paired");
        }
        // Before the answer: the phone's first offer must not be dropped.
        self.tell_access();
        self.tell_info();
        Ok(record.open.accept(request, &self.key, farm_nonce, &self.config.name))
    }
}
