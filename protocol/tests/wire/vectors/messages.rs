//! `messages.json`: every message, with optional fields and without, at its
//! smallest and at its largest.

use bytes::Bytes;
use farm_protocol::broker::*;
use farm_protocol::control::{self, Attention, Control, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::{Frame, MAX_OFFSET, MAX_PAYLOAD, StreamState};
use farm_protocol::id::{InvitationId, PhoneId, Slot};
use farm_protocol::keys::{Mac, Signature};
use farm_protocol::pairing::{PairAnswer, PairRequest};
use farm_protocol::ping::Ping;
use farm_protocol::service::{Service, ServiceKind};
use farm_protocol::signal::{Content, MAX_SDP, Payload, PeerSignal};
use serde_json::{Value as Json, json};

use super::fixtures::*;
use crate::message::Message;
use crate::notation::{h, hex};
use crate::strategies;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) value: Json,
}

pub(super) fn file() -> Json {
    cases()
        .into_iter()
        .map(|case| {
            json!({
                "name": case.name,
                "type": case.kind,
                "hex": hex(&case.bytes),
                "value": case.value,
            })
        })
        .collect()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    to_broker(&mut out);
    from_broker(&mut out);
    signals(&mut out);
    pairing(&mut out);
    control(&mut out);
    frames(&mut out);
    pings(&mut out);
    out
}

/// The same message twice: as the code has it, and by hand.
fn add<T: Message>(out: &mut Vec<Case>, name: &str, message: T, body: Json) {
    out.push(Case {
        name: format!("{}: {name}", T::NAME),
        kind: T::NAME,
        bytes: message.write().unwrap(),
        value: json!([1, body]),
    });
}

/// One case for each reason, with its text.
fn reasons<T: Message, R: Copy + serde::Serialize>(
    out: &mut Vec<Case>,
    name: &str,
    all: &[R],
    make: impl Fn(R, &Json) -> (T, Json),
) {
    for reason in all {
        let text = serde_json::to_value(reason).unwrap();
        let (message, body) = make(*reason, &text);
        let name = format!("{name}, reason {}", text.as_str().unwrap());
        add(out, &name, message, body);
    }
}

fn signature(first: u8) -> Signature {
    Signature::from_bytes(count(first))
}

fn claim(role: Role, slot: u8, epoch: Epoch) -> Claim {
    Claim {
        role,
        slot: Slot::new(slot).unwrap(),
        boot: match role {
            Role::Farm => farm_boot(),
            Role::Phone => phone_boot(),
        },
        epoch,
        broker: "broker.example.org".to_owned(),
    }
}

fn to_broker(out: &mut Vec<Case>) {
    let first = Authenticate {
        enrollment_token: Some("4ZP2-9KQM".to_owned()),
        name: Some("Северное поле".to_owned()),
        ..Authenticate::sign(&farm(), &nonce(0x10), claim(Role::Farm, 0, epoch()))
    };
    let again = Authenticate::sign(&farm(), &nonce(0x10), claim(Role::Farm, 0, Epoch::MAX));
    let phone = Authenticate::sign(&phone(), &nonce(0x10), claim(Role::Phone, 7, Epoch::default()));
    add(
        out,
        "authenticate, a farm's first start",
        ToBroker::Authenticate(Box::new(first.clone())),
        json!({"authenticate": {
            "role": "farm",
            "key": h(first.key.as_bytes()),
            "slot": 0,
            "boot": h(count::<16>(0xa0)),
            "epoch": EPOCH,
            "broker": "broker.example.org",
            "signature": h(first.signature.as_bytes()),
            "presence": h(first.presence.unwrap().as_bytes()),
            "enrollment_token": "4ZP2-9KQM",
            "name": "Северное поле",
        }}),
    );
    add(
        out,
        "authenticate, a farm at the last epoch",
        ToBroker::Authenticate(Box::new(again.clone())),
        json!({"authenticate": {
            "role": "farm",
            "key": h(again.key.as_bytes()),
            "slot": 0,
            "boot": h(count::<16>(0xa0)),
            "epoch": MOST,
            "broker": "broker.example.org",
            "signature": h(again.signature.as_bytes()),
            "presence": h(again.presence.unwrap().as_bytes()),
        }}),
    );
    add(
        out,
        "authenticate, a phone",
        ToBroker::Authenticate(Box::new(phone.clone())),
        json!({"authenticate": {
            "role": "phone",
            "key": h(phone.key.as_bytes()),
            "slot": 7,
            "boot": h(count::<16>(0xb0)),
            "epoch": 0,
            "broker": "broker.example.org",
            "signature": h(phone.signature.as_bytes()),
        }}),
    );
    add(
        out,
        "access, nobody",
        ToBroker::Access(Access::default()),
        json!({"access": {"phones": [], "invitations": []}}),
    );
    let invitation = InvitationId::from_bytes(count(0x20));
    add(
        out,
        "access",
        ToBroker::Access(Access {
            phones: vec![phone_id(), PhoneId::from_bytes(count(0x30))],
            invitations: vec![invitation],
        }),
        json!({"access": {
            "phones": [h(phone_id().as_bytes()), h(count::<20>(0x30))],
            "invitations": [h(count::<16>(0x20))],
        }}),
    );
    add(
        out,
        "access, as many as allowed",
        ToBroker::Access(Access {
            phones: vec![phone_id(); MAX_PHONES],
            invitations: vec![invitation; MAX_INVITATIONS],
        }),
        json!({"access": {
            "phones": vec![h(phone_id().as_bytes()); 256],
            "invitations": vec![h(count::<16>(0x20)); 8],
        }}),
    );
    let heartbeat = |sequence, epoch, presence| ToBroker::Heartbeat(Heartbeat { sequence, epoch, presence });
    add(out, "heartbeat", heartbeat(0, epoch(), None), json!({"heartbeat": {"n": 0, "e": EPOCH}}));
    add(
        out,
        "heartbeat, largest, new epoch",
        heartbeat(u32::MAX, Epoch::MAX, Some(signature(1))),
        json!({"heartbeat": {"n": 4_294_967_295u32, "e": MOST, "p": h(count::<64>(1))}}),
    );
    for (name, peer, by_hand) in [
        ("to a farm", Address::Farm(farm_id()), json!({"farm": h(farm_id().as_bytes())})),
        (
            "to a phone",
            Address::Phone(session(3)),
            json!({"phone": {"phone": h(phone_id().as_bytes()), "slot": 3}}),
        ),
        ("to an invitation", Address::Invitation(invitation), json!({"invitation": h(count::<16>(0x20))})),
    ] {
        add(
            out,
            &format!("signal {name}"),
            ToBroker::Signal(Signal { peer, payload: vec![0xf6] }),
            json!({"signal": {"peer": by_hand, "payload": "h'f6'"}}),
        );
    }
    add(
        out,
        "signal, largest",
        ToBroker::Signal(Signal { peer: Address::Farm(farm_id()), payload: vec![0xab; MAX_SIGNAL] }),
        json!({"signal": {"peer": {"farm": h(farm_id().as_bytes())}, "payload": "h'(24576*ab)'"}}),
    );
    add(out, "watch, nothing", ToBroker::Watch(Watch::default()), json!({"watch": {"farms": []}}));
    add(
        out,
        "watch",
        ToBroker::Watch(Watch { farms: vec![farm_id()] }),
        json!({"watch": {"farms": [h(farm_id().as_bytes())]}}),
    );
    add(out, "goodbye", ToBroker::Goodbye, json!("goodbye"));
}

fn from_broker(out: &mut Vec<Case>) {
    add(
        out,
        "challenge",
        FromBroker::Challenge(Challenge { nonce: nonce(0x10) }),
        json!({"challenge": {"nonce": h(count::<16>(0x10))}}),
    );
    add(
        out,
        "welcome",
        FromBroker::Welcome(Welcome {
            observed: "198.51.100.7:40312".to_owned(),
            heartbeat_seconds: 60,
            stun_port: Some(3478),
            time: 1_795_305_600,
        }),
        json!({"welcome": {
            "observed": "198.51.100.7:40312",
            "heartbeat_seconds": 60,
            "stun_port": 3478,
            "time": 1_795_305_600,
        }}),
    );
    add(
        out,
        "welcome, no STUN, largest numbers",
        FromBroker::Welcome(Welcome {
            observed: "[2001:db8::7]:65535".to_owned(),
            heartbeat_seconds: u16::MAX,
            stun_port: None,
            time: MOST,
        }),
        json!({"welcome": {
            "observed": "[2001:db8::7]:65535",
            "heartbeat_seconds": 65_535,
            "time": MOST,
        }}),
    );
    reasons(out, "refused", &strategies::REFUSED, |reason, text| {
        (FromBroker::Refused(Refused { reason, newest: None }), json!({"refused": {"reason": text}}))
    });
    add(
        out,
        "refused, with the newest epoch",
        FromBroker::Refused(Refused { reason: RefusedReason::StaleEpoch, newest: Some(epoch()) }),
        json!({"refused": {"reason": "stale_epoch", "newest": EPOCH}}),
    );
    add(
        out,
        "heartbeat_answer",
        FromBroker::HeartbeatAnswer(HeartbeatAnswer { sequence: 24 }),
        json!({"heartbeat_answer": {"n": 24}}),
    );
    add(
        out,
        "presence, not known here",
        FromBroker::Presence(Presence { farm: farm_id(), state: None }),
        json!({"presence": {"farm": h(farm_id().as_bytes())}}),
    );
    for (name, online, epoch, number, since_seconds) in
        [("online", true, epoch(), EPOCH, 0), ("offline, largest numbers", false, Epoch::MAX, MOST, MOST)]
    {
        let proof = presence_proof(&farm(), farm_id(), farm_boot(), epoch);
        add(
            out,
            &format!("presence, {name}"),
            FromBroker::Presence(Presence {
                farm: farm_id(),
                state: Some(PresenceState { online, boot: farm_boot(), epoch, proof, since_seconds }),
            }),
            json!({"presence": {
                "farm": h(farm_id().as_bytes()),
                "state": {
                    "online": online,
                    "boot": h(count::<16>(0xa0)),
                    "epoch": number,
                    "proof": h(proof.as_bytes()),
                    "since_seconds": since_seconds,
                },
            }}),
        );
    }
    add(
        out,
        "signal from a phone",
        FromBroker::Signal(Signal { peer: Address::Phone(session(0)), payload: Vec::new() }),
        json!({"signal": {
            "peer": {"phone": {"phone": h(phone_id().as_bytes()), "slot": 0}},
            "payload": "h''",
        }}),
    );
    reasons(out, "undelivered", &strategies::UNDELIVERED, |reason, text| {
        (
            FromBroker::Undelivered(Undelivered { peer: Address::Farm(farm_id()), reason }),
            json!({"undelivered": {"peer": {"farm": h(farm_id().as_bytes())}, "reason": text}}),
        )
    });
    add(
        out,
        "retry_after",
        FromBroker::RetryAfter(RetryAfter { milliseconds: u32::MAX }),
        json!({"retry_after": {"milliseconds": 4_294_967_295u32}}),
    );
}

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

pub(super) const SDP: &str = "v=0\r\ns=-\r\nt=0 0\r\na=setup:actpass\r\n";

pub(super) fn offer() -> PeerSignal {
    let content = Content::Offer {
        nonce: nonce(0x40),
        phone_boot: phone_boot(),
        farm_boot: farm_boot(),
        sdp: SDP.to_owned(),
    };
    signal(Role::Phone, epoch(), content)
}

pub(super) fn answer() -> PeerSignal {
    let content = Content::Answer { nonce: nonce(0x40), sdp: SDP.to_owned() };
    signal(Role::Farm, epoch(), content)
}

fn signals(out: &mut Vec<Case>) {
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

fn pairing(out: &mut Vec<Case>) {
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

fn control(out: &mut Vec<Case>) {
    add(
        out,
        "hello, no streams",
        Control::Hello(Hello {
            session: session(0),
            epoch: epoch(),
            boot: farm_boot(),
            streams: Vec::new(),
            watched: false,
        }),
        json!({"hello": {
            "session": {"phone": h(phone_id().as_bytes()), "slot": 0},
            "epoch": EPOCH,
            "boot": h(count::<16>(0xa0)),
            "streams": [],
            "watched": false,
        }}),
    );
    let state = |stream, received, credit| StreamState { stream, received, credit };
    add(
        out,
        "hello, with streams",
        Control::Hello(Hello {
            session: session(7),
            epoch: Epoch::MAX,
            boot: phone_boot(),
            streams: vec![state(1, 0, 262_144), state(u32::MAX, MAX_OFFSET - 1, MAX_OFFSET)],
            watched: true,
        }),
        json!({"hello": {
            "session": {"phone": h(phone_id().as_bytes()), "slot": 7},
            "epoch": MOST,
            "boot": h(count::<16>(0xb0)),
            "streams": [
                {"s": 1, "r": 0, "c": 262_144},
                {"s": 4_294_967_295u32, "r": MOST - 1, "c": MOST},
            ],
            "watched": true,
        }}),
    );
    add(
        out,
        "farm, no services",
        Control::Farm(control::Farm { name: String::new(), services: Vec::new() }),
        json!({"farm": {"name": "", "services": []}}),
    );
    let service = |name: &str, kind| Service { name: name.to_owned(), kind };
    add(
        out,
        "farm",
        Control::Farm(control::Farm {
            name: "North field".to_owned(),
            services: vec![service("greenhouse", ServiceKind::Http), service("ssh", ServiceKind::Tcp)],
        }),
        json!({"farm": {"name": "North field", "services": [
            {"name": "greenhouse", "kind": "http"},
            {"name": "ssh", "kind": "tcp"},
        ]}}),
    );
    for watched in [true, false] {
        add(
            out,
            &format!("attention, {watched}"),
            Control::Attention(Attention { watched }),
            json!({"attention": {"watched": watched}}),
        );
    }
    reasons(out, "goodbye", &strategies::GOODBYE, |reason, text| {
        (Control::Goodbye(control::Goodbye { reason }), json!({"goodbye": {"reason": text}}))
    });
}

fn frames(out: &mut Vec<Case>) {
    let open = |stream, target: &str, credit| Frame::Open { stream, target: target.to_owned(), credit };
    let data = |stream, offset, bytes| Frame::Data { stream, offset, bytes };
    let ack = |stream, received, credit| Frame::Ack { stream, received, credit };
    add(out, "open", open(1, "greenhouse", 262_144), json!({"open": [1, "greenhouse", 262_144]}));
    add(
        out,
        "open, largest",
        open(u32::MAX, &"a".repeat(64), MAX_OFFSET),
        json!({"open": [4_294_967_295u32, "(64*a)", MOST]}),
    );
    add(out, "data, one byte", data(1, 0, Bytes::from_static(b"G")), json!({"data": [1, 0, "h'47'"]}));
    add(
        out,
        "data, largest, up to the last offset",
        data(u32::MAX, MAX_OFFSET - MAX_PAYLOAD as u64, Bytes::from(vec![0; MAX_PAYLOAD])),
        json!({"data": [4_294_967_295u32, MOST - 61_440, "h'(61440*00)'"]}),
    );
    add(out, "ack", ack(1, 1, 262_145), json!({"ack": [1, 1, 262_145]}));
    add(
        out,
        "ack, largest",
        ack(u32::MAX, MAX_OFFSET, MAX_OFFSET),
        json!({"ack": [4_294_967_295u32, MOST, MOST]}),
    );
    let fin = |stream, offset| Frame::Fin { stream, offset };
    add(out, "fin, nothing sent", fin(1, 0), json!({"fin": [1, 0]}));
    add(out, "fin, largest", fin(u32::MAX, MAX_OFFSET - 1), json!({"fin": [4_294_967_295u32, MOST - 1]}));
    reasons(out, "reset", &strategies::RESET, |reason, text| {
        (Frame::Reset { stream: 1, reason }, json!({"reset": [1, text]}))
    });
}

fn pings(out: &mut Vec<Case>) {
    for number in [0, 23, 24, 255, 256, 65_535, 65_536, u32::MAX] {
        add(out, &format!("ping {number}"), Ping::Ping(number), json!({"ping": number}));
    }
    add(out, "pong", Ping::Pong(7), json!({"pong": 7}));
}
