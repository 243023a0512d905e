//! Arbitrary messages, within the limits of the schema.

use bytes::Bytes;
use farm_protocol::broker::*;
use farm_protocol::control::{self, Absence, AbsenceReason, Attention, Control, GoodbyeReason, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::{Frame, MAX_OFFSET, MAX_TARGET, ResetReason, StreamState};
use farm_protocol::id::{BootId, FarmId, InvitationId, PhoneId, SessionId, Slot};
use farm_protocol::keys::{DeviceKey, Mac, Nonce, PublicKey, Signature};
use farm_protocol::pairing::{PairAnswer, PairRefused, PairRequest};
use farm_protocol::ping::Ping;
use farm_protocol::readings::{
    Answer, Clock, Follow, Gap, GapReason, MAX_UNIT, Newest, Reading, Request, check_name, check_unit,
};
use farm_protocol::relay::{MAX_CREDENTIAL, MAX_HOST, Relay};
use farm_protocol::service::{self, Service, ServiceKind};
use farm_protocol::signal::{Content, OfferRefused, Payload, PeerSignal, Signed};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed};

use crate::message::Message;

/// Every reason there is, each exactly once.
pub(crate) const REFUSED: [RefusedReason; 10] = [
    RefusedReason::NotEnrolled,
    RefusedReason::BadToken,
    RefusedReason::BadSignature,
    RefusedReason::WrongBrokerName,
    RefusedReason::StaleEpoch,
    RefusedReason::Superseded,
    RefusedReason::ProtocolError,
    RefusedReason::Limit,
    RefusedReason::Revoked,
    RefusedReason::Other,
];
pub(crate) const UNDELIVERED: [UndeliveredReason; 3] =
    [UndeliveredReason::Offline, UndeliveredReason::Limit, UndeliveredReason::Other];
pub(crate) const OFFER_REFUSED: [OfferRefused; 6] = [
    OfferRefused::OtherBoot,
    OfferRefused::StaleEpoch,
    OfferRefused::NotPaired,
    OfferRefused::Limit,
    OfferRefused::BadDescription,
    OfferRefused::Other,
];
pub(crate) const PAIR_REFUSED: [PairRefused; 8] = [
    PairRefused::UnknownInvitation,
    PairRefused::Expired,
    PairRefused::Used,
    PairRefused::WrongProof,
    PairRefused::TooManyTries,
    PairRefused::TooManyPhones,
    PairRefused::Malformed,
    PairRefused::Other,
];
pub(crate) const GOODBYE: [GoodbyeReason; 7] = [
    GoodbyeReason::Superseded,
    GoodbyeReason::Stopping,
    GoodbyeReason::Revoked,
    GoodbyeReason::SessionEnded,
    GoodbyeReason::TakenOver,
    GoodbyeReason::ProtocolError,
    GoodbyeReason::Other,
];
pub(crate) const RESET: [ResetReason; 9] = [
    ResetReason::Aborted,
    ResetReason::UnknownService,
    ResetReason::ServiceUnavailable,
    ResetReason::Restarted,
    ResetReason::Expired,
    ResetReason::Limit,
    ResetReason::SessionEnded,
    ResetReason::ProtocolError,
    ResetReason::Other,
];
pub(crate) const GAP: [GapReason; 3] = [GapReason::Pruned, GapReason::Damaged, GapReason::Other];
pub(crate) const CLOCK: [Clock; 4] = [Clock::Set, Clock::Corrected, Clock::Guessed, Clock::Other];

/// The same cases at every run, unless PROPTEST_CASES or PROPTEST_RNG_SEED
/// ask for others.
pub(crate) fn config(cases: u32) -> Config {
    let asked = Config::default();
    Config {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => asked.cases,
            None => cases,
        },
        rng_seed: match asked.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            seed => seed,
        },
        failure_persistence: None,
        ..asked
    }
}

macro_rules! bytes_of {
    ($($name:ident: $type:ident),+) => {$(
        fn $name() -> impl Strategy<Value = $type> {
            any::<[u8; $type::LEN]>().prop_map($type::from_bytes)
        }
    )+};
}
bytes_of!(
    farm_id: FarmId,
    phone_id: PhoneId,
    boot: BootId,
    invitation_id: InvitationId,
    public_key: PublicKey,
    nonce: Nonce,
    mac: Mac
);

fn signature() -> impl Strategy<Value = Signature> {
    (any::<[u8; 32]>(), any::<[u8; 32]>())
        .prop_map(|(a, b)| Signature::from_bytes([a, b].concat().try_into().unwrap()))
}

/// Small, large, and the borders of CBOR's integer forms.
fn safe() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..=MAX_OFFSET,
        (0u32..=53, 0u64..3).prop_map(|(bits, off)| ((1u64 << bits).saturating_sub(off)).min(MAX_OFFSET)),
    ]
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (0..=Epoch::MAX_STARTS, 0u8..3)
        .prop_map(|(starts, turns)| (0..turns).fold(Epoch::of_start(starts), |epoch, _| epoch.next()))
}

fn slot() -> impl Strategy<Value = Slot> {
    select(Slot::all().collect::<Vec<_>>())
}

/// Text of any script, cut to `max` bytes.
fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max.min(80)).prop_map(move |chars| {
        let mut out = String::new();
        for c in chars {
            if out.len() + c.len_utf8() <= max {
                out.push(c);
            }
        }
        out
    })
}

fn role() -> impl Strategy<Value = Role> {
    select(vec![Role::Farm, Role::Phone])
}

fn session() -> impl Strategy<Value = SessionId> {
    (phone_id(), slot()).prop_map(|(phone, slot)| SessionId { phone, slot })
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        farm_id().prop_map(Address::Farm),
        session().prop_map(Address::Phone),
        invitation_id().prop_map(Address::Invitation),
    ]
}

fn routed() -> impl Strategy<Value = Signal> {
    (address(), vec(any::<u8>(), 0..300)).prop_map(|(peer, payload)| Signal { peer, payload })
}

fn authenticate() -> impl Strategy<Value = Authenticate> {
    (
        (role(), public_key(), slot(), boot(), epoch(), text(MAX_TEXT)),
        (signature(), option::of(signature()), option::of(text(MAX_TEXT)), option::of(text(MAX_TEXT))),
    )
        .prop_map(
            |((role, key, slot, boot, epoch, broker), (signature, presence, enrollment_token, name))| {
                Authenticate {
                    role,
                    key,
                    slot,
                    boot,
                    epoch,
                    broker,
                    signature,
                    presence,
                    enrollment_token,
                    name,
                }
            },
        )
}

pub(crate) fn to_broker() -> BoxedStrategy<ToBroker> {
    prop_oneof![
        authenticate().prop_map(|m| ToBroker::Authenticate(Box::new(m))),
        (vec(phone_id(), 0..20), vec(invitation_id(), 0..=MAX_INVITATIONS), vec(phone_id(), 0..=MAX_FORMER))
            .prop_map(|(phones, invitations, former)| {
                ToBroker::Access(Access { phones, invitations, former })
            }),
        (any::<u32>(), epoch(), option::of(signature())).prop_map(|(sequence, epoch, presence)| {
            ToBroker::Heartbeat(Heartbeat { sequence, epoch, presence })
        }),
        routed().prop_map(ToBroker::Signal),
        vec(farm_id(), 0..20).prop_map(|farms| ToBroker::Watch(Watch { farms })),
        Just(ToBroker::Goodbye),
    ]
    .boxed()
}

fn presence_state() -> impl Strategy<Value = PresenceState> {
    (any::<bool>(), boot(), epoch(), signature(), safe()).prop_map(
        |(online, boot, epoch, proof, since_seconds)| PresenceState {
            online,
            boot,
            epoch,
            proof,
            since_seconds,
        },
    )
}

fn relay() -> impl Strategy<Value = Relay> {
    let some_text = |most| text(most).prop_filter("not empty", |text| !text.is_empty());
    let port = || option::of(any::<u16>());
    (
        option::of(some_text(MAX_HOST)),
        (port(), port(), port()),
        some_text(MAX_CREDENTIAL),
        some_text(MAX_CREDENTIAL),
        any::<u32>(),
    )
        .prop_map(|(host, (udp, tcp, tls), username, credential, seconds)| Relay {
            host,
            udp,
            tcp,
            tls,
            username,
            credential,
            seconds,
        })
}

pub(crate) fn from_broker() -> BoxedStrategy<FromBroker> {
    prop_oneof![
        nonce().prop_map(|nonce| FromBroker::Challenge(Challenge { nonce })),
        (text(60), any::<u16>(), option::of(any::<u16>()), option::of(relay()), safe()).prop_map(
            |(observed, heartbeat_seconds, stun_port, relay, time)| {
                FromBroker::Welcome(Welcome { observed, heartbeat_seconds, stun_port, relay, time })
            }
        ),
        (select(REFUSED.to_vec()), option::of(epoch()))
            .prop_map(|(reason, newest)| FromBroker::Refused(Refused { reason, newest })),
        (any::<u32>(), option::of(relay())).prop_map(|(sequence, relay)| {
            FromBroker::HeartbeatAnswer(HeartbeatAnswer { sequence, relay })
        }),
        (farm_id(), option::of(presence_state()))
            .prop_map(|(farm, state)| FromBroker::Presence(Presence { farm, state })),
        routed().prop_map(FromBroker::Signal),
        (address(), select(UNDELIVERED.to_vec()))
            .prop_map(|(peer, reason)| FromBroker::Undelivered(Undelivered { peer, reason })),
        any::<u32>().prop_map(|milliseconds| FromBroker::RetryAfter(RetryAfter { milliseconds })),
    ]
    .boxed()
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        (nonce(), boot(), boot(), text(200)).prop_map(|(nonce, phone_boot, farm_boot, sdp)| {
            Content::Offer { nonce, phone_boot, farm_boot, sdp }
        }),
        (nonce(), text(200)).prop_map(|(nonce, sdp)| Content::Answer { nonce, sdp }),
        text(120).prop_map(|candidate| Content::Candidate { candidate }),
        (nonce(), select(OFFER_REFUSED.to_vec()), boot(), epoch()).prop_map(
            |(nonce, reason, farm_boot, newest)| Content::Refused { nonce, reason, farm_boot, newest }
        ),
        Just(Content::Goodbye {}),
    ]
}

pub(crate) fn peer_signal() -> BoxedStrategy<PeerSignal> {
    (role(), farm_id(), session(), epoch(), content())
        .prop_map(|(from, farm, session, epoch, content)| PeerSignal { from, farm, session, epoch, content })
        .boxed()
}

fn signed() -> impl Strategy<Value = Signed> {
    let key = DeviceKey::from_seed([1; 32]).unwrap();
    peer_signal().prop_map(move |signal| signal.sign(&key).unwrap())
}

fn pair_request() -> impl Strategy<Value = PairRequest> {
    (invitation_id(), public_key(), slot(), nonce(), text(64), mac()).prop_map(
        |(invitation, phone, slot, nonce, name, mac)| PairRequest {
            invitation,
            phone,
            slot,
            nonce,
            name,
            mac,
        },
    )
}

fn pair_answer() -> impl Strategy<Value = PairAnswer> {
    prop_oneof![
        (public_key(), nonce(), nonce(), text(64), mac(), signature()).prop_map(
            |(farm, farm_nonce, nonce, name, mac, signature)| PairAnswer::Accepted {
                farm,
                farm_nonce,
                nonce,
                name,
                mac,
                signature,
            }
        ),
        (nonce(), select(PAIR_REFUSED.to_vec()))
            .prop_map(|(nonce, reason)| PairAnswer::Refused { nonce, reason }),
    ]
}

pub(crate) fn payload() -> BoxedStrategy<Payload> {
    prop_oneof![
        signed().prop_map(Payload::Signed),
        pair_request().prop_map(|m| Payload::PairRequest(Box::new(m))),
        pair_answer().prop_map(|m| Payload::PairAnswer(Box::new(m))),
    ]
    .boxed()
}

fn stream_state() -> impl Strategy<Value = StreamState> {
    (any::<u32>(), safe(), safe()).prop_map(|(stream, received, credit)| StreamState {
        stream,
        received,
        credit,
    })
}

fn offered() -> impl Strategy<Value = Service> {
    ("[a-z0-9]{1,9}(-[a-z0-9]{1,9}){0,2}", select(vec![ServiceKind::Http, ServiceKind::Tcp])).prop_map(
        |(name, kind)| {
            service::check_name(&name).unwrap();
            Service { name, kind }
        },
    )
}

/// Every reason for a farm's absence.
pub(crate) const ABSENCE: [AbsenceReason; 3] =
    [AbsenceReason::NoPower, AbsenceReason::NoNetwork, AbsenceReason::Other];

fn absence() -> impl Strategy<Value = Absence> {
    (0..=MAX_OFFSET, any::<u32>(), select(ABSENCE.to_vec())).prop_map(|(at, lasted, why)| Absence {
        at,
        lasted,
        why,
    })
}

pub(crate) fn control() -> BoxedStrategy<Control> {
    prop_oneof![
        (session(), epoch(), boot(), vec(stream_state(), 0..10), any::<bool>(), any::<Option<u32>>())
            .prop_map(|(session, epoch, boot, streams, watched, burst)| {
                Control::Hello(Hello { session, epoch, boot, streams, watched, burst })
            }),
        (
            text(64),
            vec(offered(), 0..8),
            vec((any::<[u8; PhoneId::LEN]>(), text(64)), 0..8),
            vec(absence(), 0..control::MAX_ABSENCES)
        )
            .prop_map(|(name, services, phones, absences)| {
                let phones = (phones.into_iter())
                    .map(|(id, name)| (PhoneId::from_bytes(id), name))
                    .map(|(id, name)| control::PairedPhone { id, name })
                    .collect();
                Control::Farm(control::Farm { name, services, phones, absences })
            }),
        any::<bool>().prop_map(|watched| Control::Attention(Attention { watched })),
        select(GOODBYE.to_vec()).prop_map(|reason| Control::Goodbye(control::Goodbye { reason })),
    ]
    .boxed()
}

pub(crate) fn frame() -> BoxedStrategy<Frame> {
    let target = text(MAX_TARGET).prop_filter("not empty", |target| !target.is_empty());
    let stream = any::<u32>;
    prop_oneof![
        (stream(), target, safe()).prop_map(|(stream, target, credit)| Frame::Open {
            stream,
            target,
            credit,
        }),
        (stream(), safe(), vec(any::<u8>(), 1..300)).prop_map(|(stream, offset, bytes)| Frame::Data {
            stream,
            offset: offset.min(MAX_OFFSET - bytes.len() as u64),
            bytes: Bytes::from(bytes),
        }),
        (stream(), safe(), safe()).prop_map(|(stream, received, credit)| Frame::Ack {
            stream,
            received,
            credit,
        }),
        (stream(), safe())
            .prop_map(|(stream, offset)| Frame::Fin { stream, offset: offset.min(MAX_OFFSET - 1) }),
        (stream(), select(RESET.to_vec())).prop_map(|(stream, reason)| Frame::Reset { stream, reason }),
    ]
    .boxed()
}

pub(crate) fn ping() -> BoxedStrategy<Ping> {
    prop_oneof![any::<u32>().prop_map(Ping::Ping), any::<u32>().prop_map(Ping::Pong),].boxed()
}

fn reading() -> impl Strategy<Value = Reading> {
    let name = "[\\p{L}0-9][\\p{L}0-9_.:/-]{0,12}( [a-z]{1,4})?"
        .prop_filter("short", |name: &String| check_name(name).is_ok());
    let unit = "[a-zA-Z°%/]{1,6}"
        .prop_filter("short", |unit: &String| unit.len() <= MAX_UNIT && check_unit(unit).is_ok());
    let value = prop_oneof![
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        any::<i32>().prop_map(|tenths| f64::from(tenths) / 10.0),
    ];
    (safe(), safe(), select(CLOCK.to_vec()), name, value, option::of(unit)).prop_map(
        |(sequence, time, clock, name, value, unit)| Reading { sequence, time, clock, name, value, unit },
    )
}

pub(crate) fn readings_request() -> BoxedStrategy<Request> {
    (safe(), any::<bool>()).prop_map(|(after, live)| Request::Follow(Follow { after, live })).boxed()
}

pub(crate) fn readings_answer() -> BoxedStrategy<Answer> {
    prop_oneof![
        vec(reading(), 1..20).prop_map(Answer::Readings),
        (safe(), safe(), select(GAP.to_vec())).prop_map(|(first, last, reason)| Answer::Gap(Gap {
            first,
            last,
            reason
        })),
        safe().prop_map(|newest| Answer::CaughtUp(Newest { newest })),
        safe().prop_map(|newest| Answer::Behind(Newest { newest })),
    ]
    .boxed()
}

/// A message of any kind: the kind's name and the bytes.
pub(crate) fn any_message() -> BoxedStrategy<(&'static str, Vec<u8>)> {
    fn bytes<T: Message + 'static>(strategy: BoxedStrategy<T>) -> BoxedStrategy<(&'static str, Vec<u8>)> {
        strategy.prop_map(|m| (T::NAME, m.write().unwrap())).boxed()
    }
    prop_oneof![
        bytes(to_broker()),
        bytes(from_broker()),
        bytes(payload()),
        bytes(peer_signal()),
        bytes(control()),
        bytes(frame()),
        bytes(ping()),
        bytes(readings_request()),
        bytes(readings_answer()),
    ]
    .boxed()
}
