//! `pairing.json`: proofs of both sides, and which answers are believed.

use farm_protocol::codec;
use farm_protocol::id::Slot;
use farm_protocol::invitation::Secret;
use farm_protocol::keys::{DeviceKey, PublicKey};
use farm_protocol::pairing::{
    OpenInvitation, PairAnswer, PairError, PairRefused, PairRequest, check_answer, request,
};
use farm_protocol::signal::Payload;
use ring::hmac;
use serde_json::{Value as Json, json};

use super::fixtures::*;
use super::signatures::sign;
use crate::notation::hex;

const FARM_NAME: &str = "Северное поле";

fn mac(secret: &[u8], content: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), content).as_ref().to_vec()
}

fn payload(payload: Payload) -> String {
    hex(&codec::encode(&payload).unwrap())
}

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    for (name, bytes) in [("a link", count::<16>(0).to_vec()), ("a code", count::<10>(0xf0).to_vec())] {
        let asked = pair_request(&mut out, name, &bytes);
        pair_answer(&mut out, name, &bytes, &asked);
    }
    checks(&mut out);
    out.into()
}

fn ask(secret: &[u8]) -> PairRequest {
    let secret = Secret::from_bytes(secret).unwrap();
    request(&secret, phone().public(), Slot::new(5).unwrap(), nonce(0x50), "Anna's phone")
}

fn pair_request(out: &mut Vec<Json>, name: &str, secret: &[u8]) -> PairRequest {
    let made = ask(secret);
    let mut content = b"farm-tunnel.v1 pair request\0".to_vec();
    content.extend(made.invitation.as_bytes());
    content.extend(phone().public().as_bytes());
    content.push(5);
    content.extend(count::<16>(0x50));
    content.extend(b"Anna's phone");
    let mac = mac(secret, &content);
    assert_eq!(made.mac.as_bytes()[..], mac);
    out.push(json!({
        "name": format!("request with {name}"),
        "type": "request",
        "secret": hex(secret),
        "invitation": hex(made.invitation.as_bytes()),
        "phone": hex(phone().public().as_bytes()),
        "slot": 5,
        "nonce": hex(&count::<16>(0x50)),
        "phone_name": "Anna's phone",
        "content": hex(&content),
        "mac": hex(&mac),
        "payload": payload(Payload::PairRequest(Box::new(made.clone()))),
    }));
    made
}

fn accept(secret: &[u8], asked: &PairRequest, farm: &DeviceKey, name: &str) -> PairAnswer {
    let open =
        OpenInvitation { secret: Secret::from_bytes(secret).unwrap(), expires: 1, tries: 0, used_by: None };
    open.accept(asked, farm, nonce(0x70), name)
}

fn pair_answer(out: &mut Vec<Json>, name: &str, secret: &[u8], asked: &PairRequest) {
    let made = accept(secret, asked, &farm(), FARM_NAME);
    let PairAnswer::Accepted { mac: made_mac, signature: made_signature, .. } = &made else {
        panic!("{made:?}")
    };
    let mut content = b"farm-tunnel.v1 pair answer\0".to_vec();
    content.extend(asked.invitation.as_bytes());
    content.extend(farm().public().as_bytes());
    content.extend(phone().public().as_bytes());
    content.extend(count::<16>(0x50));
    content.extend(count::<16>(0x70));
    content.extend(FARM_NAME.bytes());
    let mac = mac(secret, &content);
    assert_eq!(made_mac.as_bytes()[..], mac);
    let transcript = [b"farm-tunnel.v1 pairing\0", &content[..]].concat();
    let signature = sign(&FARM_SEED, &transcript);
    assert_eq!(made_signature.as_bytes()[..], signature);
    out.push(json!({
        "name": format!("answer with {name}"),
        "type": "answer",
        "secret": hex(secret),
        "seed": hex(&FARM_SEED),
        "request": payload(Payload::PairRequest(Box::new(asked.clone()))),
        "farm": hex(farm().public().as_bytes()),
        "farm_nonce": hex(&count::<16>(0x70)),
        "farm_name": FARM_NAME,
        "content": hex(&content),
        "mac": hex(&mac),
        "signed": hex(&transcript),
        "signature": hex(&signature),
        "payload": payload(Payload::PairAnswer(Box::new(made))),
    }));
}

fn checks(out: &mut Vec<Json>) {
    let secret = count::<16>(0);
    let asked = ask(&secret);
    let good = accept(&secret, &asked, &farm(), FARM_NAME);
    let pinned = Some(farm().public());
    let other_nonce = PairRequest { nonce: nonce(0x51), ..asked.clone() };
    let refused = PairAnswer::Refused { nonce: asked.nonce, reason: PairRefused::Used };
    let mut renamed = good.clone();
    if let PairAnswer::Accepted { name, .. } = &mut renamed {
        name.push('!');
    }
    let cases: [(&str, Option<PublicKey>, PairAnswer, &str); 9] = [
        ("the farm of the link", pinned, good.clone(), "ok"),
        ("a code pins no key", None, good.clone(), "ok"),
        ("another farm than the link's", Some(stranger().public()), good, "forged"),
        (
            "somebody without the secret",
            None,
            accept(&count::<16>(1), &asked, &stranger(), FARM_NAME),
            "forged",
        ),
        ("renamed on the way", pinned, renamed, "forged"),
        ("a name of 65 bytes", pinned, accept(&secret, &asked, &farm(), &"n".repeat(65)), "forged"),
        (
            "another request's answer",
            pinned,
            accept(&secret, &other_nonce, &farm(), FARM_NAME),
            "other_request",
        ),
        ("refused", pinned, refused.clone(), "refused: used"),
        (
            "another request's refusal",
            pinned,
            PairAnswer::Refused { nonce: nonce(0x51), reason: PairRefused::Used },
            "other_request",
        ),
    ];
    for (name, pinned, answer, result) in cases {
        let checked = check_answer(&Secret::from_bytes(&secret).unwrap(), &asked, pinned.as_ref(), &answer);
        let found = match checked {
            Ok((key, name)) => {
                assert_eq!((key, &*name), (farm().public(), FARM_NAME));
                "ok"
            }
            Err(PairError::Forged) => "forged",
            Err(PairError::OtherRequest) => "other_request",
            Err(PairError::Refused(PairRefused::Used)) => "refused: used",
            Err(other) => panic!("{name}: {other:?}"),
        };
        assert_eq!(found, result, "{name}");
        out.push(json!({
            "name": format!("check: {name}"),
            "type": "check",
            "secret": hex(&secret),
            "request": payload(Payload::PairRequest(Box::new(asked.clone()))),
            "answer": payload(Payload::PairAnswer(Box::new(answer))),
            "pinned": pinned.map(|key| hex(key.as_bytes())),
            "result": result,
        }));
    }
}
