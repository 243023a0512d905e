//! `signatures.json`: what exactly is signed, and which signals are believed.

use farm_protocol::broker::{Authenticate, Claim, Role, presence_proof};
use farm_protocol::codec;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{FarmId, SessionId, Slot};
use farm_protocol::keys::{DeviceKey, PublicKey, Purpose};
use farm_protocol::signal::{Content, Expected, MAX_CANDIDATE, MAX_SDP, PeerSignal, SignalError, Signed};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value as Json, json};

use super::fixtures::*;
use super::messages;
use crate::message::Message;
use crate::notation::hex;

/// Signs with `ring` alone.
pub(super) fn sign(seed: &[u8; 32], transcript: &[u8]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    pair.sign(transcript).as_ref().to_vec()
}

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    authenticate(&mut out);
    presence(&mut out);
    signals(&mut out);
    out.into()
}

fn authenticate(out: &mut Vec<Json>) {
    for (name, seed, key, role, slot, epoch, broker) in [
        ("a farm", FARM_SEED, farm(), Role::Farm, 0, epoch(), "broker.example.org"),
        ("a phone, with a port", PHONE_SEED, phone(), Role::Phone, 7, Epoch::MAX, "broker.example.org:8443"),
        ("a phone, IPv6", PHONE_SEED, phone(), Role::Phone, 0, Epoch::default(), "[2001:db8::1]:80"),
    ] {
        let (is_farm, boot) = match role {
            Role::Farm => (true, farm_boot()),
            Role::Phone => (false, phone_boot()),
        };
        let nonce = nonce(0x10);
        let mut transcript = b"farm-tunnel.v1 authenticate\0".to_vec();
        transcript.extend(count::<16>(0x10));
        transcript.extend(key.public().as_bytes());
        transcript.push(u8::from(!is_farm));
        transcript.push(slot);
        transcript.extend(boot.as_bytes());
        transcript.extend(epoch.number().to_be_bytes());
        transcript.extend(broker.bytes());
        let signature = sign(&seed, &transcript);
        let claim = Claim { role, slot: Slot::new(slot).unwrap(), boot, epoch, broker: broker.to_owned() };
        let made = Authenticate::sign(&key, &nonce, claim);
        assert_eq!(made.signature.as_bytes()[..], signature);
        made.verify(&nonce).unwrap();
        out.push(json!({
            "name": format!("authenticate: {name}"),
            "type": "authenticate",
            "seed": hex(&seed),
            "public_key": hex(key.public().as_bytes()),
            "nonce": hex(&count::<16>(0x10)),
            "role": if is_farm { "farm" } else { "phone" },
            "slot": slot,
            "boot": hex(boot.as_bytes()),
            "epoch": epoch.number(),
            "broker": broker,
            "signed": hex(&transcript),
            "signature": hex(&signature),
        }));
    }
}

fn presence(out: &mut Vec<Json>) {
    for (name, epoch) in [("an epoch", epoch()), ("the last epoch", Epoch::MAX)] {
        let mut transcript = b"farm-tunnel.v1 presence\0".to_vec();
        transcript.extend(farm_id().as_bytes());
        transcript.extend(farm_boot().as_bytes());
        transcript.extend(epoch.number().to_be_bytes());
        let signature = sign(&FARM_SEED, &transcript);
        let made = presence_proof(&farm(), farm_id(), farm_boot(), epoch);
        assert_eq!(made.as_bytes()[..], signature);
        out.push(json!({
            "name": format!("presence: {name}"),
            "type": "presence",
            "seed": hex(&FARM_SEED),
            "public_key": hex(farm().public().as_bytes()),
            "farm": hex(farm_id().as_bytes()),
            "boot": hex(farm_boot().as_bytes()),
            "epoch": epoch.number(),
            "signed": hex(&transcript),
            "signature": hex(&signature),
        }));
    }
}

/// Whom the opener expects, and what it makes of a signal.
struct Opener {
    key: PublicKey,
    from: Role,
    farm: FarmId,
    session: SessionId,
}

impl Opener {
    fn phones_farm() -> Self {
        Self { key: farm().public(), from: Role::Farm, farm: farm_id(), session: session(1) }
    }

    fn farms_phone() -> Self {
        Self { key: phone().public(), from: Role::Phone, ..Self::phones_farm() }
    }

    fn judge(&self, signed: &Signed) -> &'static str {
        match signed.open(Expected {
            key: &self.key,
            from: self.from,
            farm: self.farm,
            session: self.session,
        }) {
            Ok(_) => "ok",
            Err(SignalError::BadSignature(_)) => "bad_signature",
            Err(SignalError::Codec(_)) => "malformed",
            Err(SignalError::Misdirected(_)) => "misdirected",
            Err(SignalError::TooLarge(_)) => "too_large",
        }
    }
}

fn by(key: &DeviceKey, body: Vec<u8>) -> Signed {
    Signed { signature: key.sign(Purpose::Signal, &body), body }
}

fn signals(out: &mut Vec<Json>) {
    let (offer, answer) = (messages::offer(), messages::answer());
    let with = |base: &PeerSignal, content| PeerSignal { content, ..base.clone() };
    let bytes = |signal: &PeerSignal| signal.write().unwrap();
    let at_farm = Opener::farms_phone;
    let at_phone = Opener::phones_farm;
    let candidate = |len| Content::Candidate { candidate: "x".repeat(len) };
    let described = |len| Content::Answer { nonce: nonce(0x40), sdp: "x".repeat(len) };
    let mut altered = by(&phone(), bytes(&offer));
    *altered.body.last_mut().unwrap() ^= 1;
    let wrong_purpose =
        Signed { signature: phone().sign(Purpose::Authenticate, &bytes(&offer)), body: bytes(&offer) };
    let mut spaced = bytes(&offer);
    assert_eq!(spaced[..2], [0x82, 0x01]);
    spaced.splice(1..2, [0x18, 0x01]);
    for (name, signed, opener, result) in [
        ("an offer", by(&phone(), bytes(&offer)), at_farm(), "ok"),
        ("an answer", by(&farm(), bytes(&answer)), at_phone(), "ok"),
        ("a goodbye of the farm", by(&farm(), bytes(&with(&answer, Content::Goodbye {}))), at_phone(), "ok"),
        (
            "a candidate of the largest size",
            by(&phone(), bytes(&with(&offer, candidate(MAX_CANDIDATE)))),
            at_farm(),
            "ok",
        ),
        ("by a stranger", by(&stranger(), bytes(&offer)), at_farm(), "bad_signature"),
        ("altered on the way", altered, at_farm(), "bad_signature"),
        ("signed for another purpose", wrong_purpose, at_farm(), "bad_signature"),
        ("no signal", by(&phone(), vec![0x82, 0x01, 0xf6]), at_farm(), "malformed"),
        (
            "of another version",
            by(&phone(), [&[0x82, 0x02], &bytes(&offer)[2..]].concat()),
            at_farm(),
            "malformed",
        ),
        (
            "for another farm",
            by(&phone(), bytes(&offer)),
            Opener { farm: FarmId::of(&stranger().public()), ..at_farm() },
            "misdirected",
        ),
        (
            "for another slot",
            by(&phone(), bytes(&offer)),
            Opener { session: session(2), ..at_farm() },
            "misdirected",
        ),
        (
            "sent back to its sender",
            by(&phone(), bytes(&offer)),
            Opener { from: Role::Farm, ..at_farm() },
            "misdirected",
        ),
        ("an answer by a phone", by(&phone(), bytes(&with(&offer, described(1)))), at_farm(), "misdirected"),
        (
            "an offer by a farm",
            by(&farm(), bytes(&with(&answer, offer.content.clone()))),
            at_phone(),
            "misdirected",
        ),
        (
            "a candidate over the limit",
            by(&phone(), bytes(&with(&offer, candidate(MAX_CANDIDATE + 1)))),
            at_farm(),
            "too_large",
        ),
        (
            "a session description over the limit",
            by(&farm(), bytes(&with(&answer, described(MAX_SDP + 1)))),
            at_phone(),
            "too_large",
        ),
    ] {
        assert_eq!(opener.judge(&signed), result, "{name}");
        out.push(json!({
            "name": format!("open: {name}"),
            "type": "open",
            "signed": hex(&codec::encode(&farm_protocol::signal::Payload::Signed(signed.clone())).unwrap()),
            "key": hex(opener.key.as_bytes()),
            "from": opener.from,
            "farm": hex(opener.farm.as_bytes()),
            "phone": hex(opener.session.phone.as_bytes()),
            "slot": opener.session.slot.number(),
            "result": result,
        }));
    }
    let body = bytes(&offer);
    let transcript = [b"farm-tunnel.v1 signal\0", &body[..]].concat();
    let signature = sign(&PHONE_SEED, &transcript);
    let made = offer.sign(&phone()).unwrap();
    assert_eq!(made.body, body);
    assert_eq!(made.signature.as_bytes()[..], signature);
    out.push(json!({
        "name": "signal: an offer",
        "type": "signal",
        "seed": hex(&PHONE_SEED),
        "public_key": hex(phone().public().as_bytes()),
        "body": hex(&body),
        "signed": hex(&transcript),
        "signature": hex(&signature),
    }));
}
