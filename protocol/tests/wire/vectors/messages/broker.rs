//! Between a device and the broker.

use farm_protocol::broker::*;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{InvitationId, PhoneId, Slot};
use farm_protocol::relay::{MAX_CREDENTIAL, MAX_HOST, Relay};
use serde_json::json;

use super::{Case, add, reasons, signature};
use crate::notation::h;
use crate::strategies;
use crate::vectors::fixtures::*;

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

pub(super) fn to_broker(out: &mut Vec<Case>) {
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
            former: Vec::new(),
        }),
        json!({"access": {
            "phones": [h(phone_id().as_bytes()), h(count::<20>(0x30))],
            "invitations": [h(count::<16>(0x20))],
        }}),
    );
    add(
        out,
        "access, with a former phone",
        ToBroker::Access(Access { former: vec![phone_id()], ..Access::default() }),
        json!({"access": {"phones": [], "invitations": [], "former": [h(phone_id().as_bytes())]}}),
    );
    add(
        out,
        "access, as many as allowed",
        ToBroker::Access(Access {
            phones: vec![phone_id(); MAX_PHONES],
            invitations: vec![invitation; MAX_INVITATIONS],
            former: vec![phone_id(); MAX_FORMER],
        }),
        json!({"access": {
            "phones": vec![h(phone_id().as_bytes()); 256],
            "invitations": vec![h(count::<16>(0x20)); 8],
            "former": vec![h(phone_id().as_bytes()); 32],
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

pub(super) fn from_broker(out: &mut Vec<Case>) {
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
            relay: None,
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
            relay: None,
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
        FromBroker::HeartbeatAnswer(HeartbeatAnswer { sequence: 24, relay: None }),
        json!({"heartbeat_answer": {"n": 24}}),
    );
    relays(out);
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

fn relays(out: &mut Vec<Case>) {
    let (username, credential) = ("1795309200:3q2-7wAAAAA", "hJ8ijFpF2YqY6UbYXUdR6Y7mQ5A=");
    add(
        out,
        "welcome, with the broker's own relay",
        FromBroker::Welcome(Welcome {
            observed: "198.51.100.7:40312".to_owned(),
            heartbeat_seconds: 60,
            stun_port: Some(3478),
            relay: Some(Relay {
                host: None,
                udp: Some(3478),
                tcp: None,
                tls: Some(443),
                username: username.to_owned(),
                credential: credential.to_owned(),
                seconds: 3600,
            }),
            time: 1_795_305_600,
        }),
        json!({"welcome": {
            "observed": "198.51.100.7:40312",
            "heartbeat_seconds": 60,
            "stun_port": 3478,
            "relay": {
                "udp": 3478, "tls": 443, "username": username, "credential": credential, "seconds": 3600,
            },
            "time": 1_795_305_600,
        }}),
    );
    let (host, long) = ("h".repeat(MAX_HOST), "x".repeat(MAX_CREDENTIAL));
    add(
        out,
        "heartbeat_answer, with another host's relay, largest and longest",
        FromBroker::HeartbeatAnswer(HeartbeatAnswer {
            sequence: u32::MAX,
            relay: Some(Relay {
                host: Some(host.clone()),
                udp: Some(u16::MAX),
                tcp: Some(u16::MAX),
                tls: Some(u16::MAX),
                username: long.clone(),
                credential: long.clone(),
                seconds: u32::MAX,
            }),
        }),
        json!({"heartbeat_answer": {
            "n": u32::MAX,
            "relay": {
                "host": host, "udp": u16::MAX, "tcp": u16::MAX, "tls": u16::MAX,
                "username": long, "credential": long, "seconds": u32::MAX,
            },
        }}),
    );
}
