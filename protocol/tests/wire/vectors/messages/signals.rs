//! Between a phone and a farm, through the broker.

use farm_protocol::broker::Role;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{InvitationId, Slot};
use farm_protocol::keys::Mac;
use farm_protocol::pairing::{PairAnswer, PairRequest};
use farm_protocol::signal::{Content, MAX_SDP, Payload, PeerSignal};
use serde_json::{Value as Json, json};

use super::{Case, add, reasons, signature};
use crate::message::Message;
use crate::notation::h;
use crate::strategies;
use crate::vectors::fixtures::*;

/// What stands around the content of a signal from `from`.
fn signal(from: Role, epoch: Epoch, content: Content) -> PeerSignal {
    PeerSignal { from, farm: farm_id(), session: session(1), epoch, content }
}

fn signal_by_hand(from: &str, epoch: u64, content: Json) -> Json {
    json!({
        "from": from,
        "farm": h(farm_id().as_bytes()),
        "session": {"phone": h(phone_id().as_bytes()), "slot": 1},
        "epoch": epoch,
        "content": content,
    })
}

const SDP: &str = "v=0\r\ns=-\r\nt=0 0\r\na=setup:actpass\r\n";

pub(crate) fn offer() -> PeerSignal {
    let content = Content::Offer {
        nonce: nonce(0x40),
        phone_boot: phone_boot(),
        farm_boot: farm_boot(),
        sdp: SDP.to_owned(),
    };
    signal(Role::Phone, epoch(), content)
}

pub(crate) fn answer() -> PeerSignal {
    let content = Content::Answer { nonce: nonce(0x40), sdp: SDP.to_owned() };
    signal(Role::Farm, epoch(), content)
}

pub(super) fn signals(out: &mut Vec<Case>) {
    let offered = json!({"offer": {
        "nonce": h(count::<16>(0x40)),
        "phone_boot": h(count::<16>(0xb0)),
        "farm_boot": h(count::<16>(0xa0)),
        "sdp": SDP,
    }});
    add(out, "offer", offer(), signal_by_hand("phone", EPOCH, offered));
    let answered = json!({"answer": {"nonce": h(count::<16>(0x40)), "sdp": SDP}});
    add(out, "answer", answer(), signal_by_hand("farm", EPOCH, answered));
    let largest = Content::Answer { nonce: nonce(0x40), sdp: "x".repeat(MAX_SDP) };
    let by_hand = json!({"answer": {"nonce": h(count::<16>(0x40)), "sdp": "(16384*x)"}});
    add(
        out,
        "answer, largest",
        signal(Role::Farm, Epoch::MAX, largest),
        signal_by_hand("farm", MOST, by_hand),
    );
    let line = "candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host";
    let candidate = Content::Candidate { candidate: line.to_owned() };
    add(
        out,
        "candidate",
        signal(Role::Phone, epoch(), candidate),
        signal_by_hand("phone", EPOCH, json!({"candidate": {"candidate": line}})),
    );
    reasons(out, "refused", &strategies::OFFER_REFUSED, |reason, text| {
        let content =
            Content::Refused { nonce: nonce(0x40), reason, farm_boot: farm_boot(), newest: epoch() };
        let by_hand = json!({"refused": {
            "nonce": h(count::<16>(0x40)),
            "reason": text,
            "farm_boot": h(count::<16>(0xa0)),
            "newest": EPOCH,
        }});
        (signal(Role::Farm, Epoch::default(), content), signal_by_hand("farm", 0, by_hand))
    });
    add(
        out,
        "goodbye",
        signal(Role::Phone, epoch(), Content::Goodbye {}),
        signal_by_hand("phone", EPOCH, json!({"goodbye": {}})),
    );

    let signed = offer().sign(&phone()).unwrap();
    let body = h(offer().write().unwrap());
    let by_hand = json!({"signed": {"body": body, "signature": h(signed.signature.as_bytes())}});
    add(out, "signed", Payload::Signed(signed), by_hand);
}

pub(super) fn pairing(out: &mut Vec<Case>) {
    for (name, text) in [("pair_request", "Anna's phone"), ("pair_request, no name", "")] {
        let request = PairRequest {
            invitation: InvitationId::from_bytes(count(0x20)),
            phone: phone().public(),
            slot: Slot::new(5).unwrap(),
            nonce: nonce(0x50),
            name: text.to_owned(),
            mac: Mac::from_bytes(count(0x60)),
        };
        add(
            out,
            name,
            Payload::PairRequest(Box::new(request)),
            json!({"pair_request": {
                "invitation": h(count::<16>(0x20)),
                "phone": h(phone().public().as_bytes()),
                "slot": 5,
                "nonce": h(count::<16>(0x50)),
                "name": text,
                "mac": h(count::<32>(0x60)),
            }}),
        );
    }
    let accepted = PairAnswer::Accepted {
        farm: farm().public(),
        farm_nonce: nonce(0x70),
        nonce: nonce(0x50),
        name: "North field".to_owned(),
        mac: Mac::from_bytes(count(0x60)),
        signature: signature(0x80),
    };
    add(
        out,
        "pair_answer, accepted",
        Payload::PairAnswer(Box::new(accepted)),
        json!({"pair_answer": {"accepted": {
            "farm": h(farm().public().as_bytes()),
            "farm_nonce": h(count::<16>(0x70)),
            "nonce": h(count::<16>(0x50)),
            "name": "North field",
            "mac": h(count::<32>(0x60)),
            "signature": h(count::<64>(0x80)),
        }}}),
    );
    reasons(out, "pair_answer, refused", &strategies::PAIR_REFUSED, |reason, text| {
        let answer = PairAnswer::Refused { nonce: nonce(0x50), reason };
        (
            Payload::PairAnswer(Box::new(answer)),
            json!({"pair_answer": {"refused": {"nonce": h(count::<16>(0x50)), "reason": text}}}),
        )
    });
}
