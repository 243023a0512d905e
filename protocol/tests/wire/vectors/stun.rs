//! `stun.json`: the binding request and its answer (RFC 8489).

use std::net::SocketAddr;

use farm_protocol::stun::{MAX_PACKET, answer, binding_request, mapped_address};
use serde_json::{Value as Json, json};

use super::fixtures::count;
use crate::notation::hex;

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

fn packet(kind: u16, transaction: [u8; 12], attributes: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(attributes.len() as u16).to_be_bytes(), &MAGIC, &transaction, attributes]
        .concat()
}

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    answered(&mut out);
    ignored(&mut out);
    read(&mut out);
    out.into()
}

fn answered(out: &mut Vec<Json>) {
    let transaction = count(1);
    let request = packet(1, transaction, &[]);
    assert_eq!(binding_request(&transaction), request);
    // XOR by hand: port with 0x2112, addresses with the cookie and the transaction.
    for (source, attribute) in [
        ("192.0.2.1:32853", &b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"[..]),
        (
            "[::ffff:192.0.2.1]:32853",
            b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43",
        ),
        (
            "[2001:db8::1]:1",
            b"\x00\x20\x00\x14\x00\x02\x21\x13\x01\x13\xa9\xfa\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0d",
        ),
    ] {
        let made = answer(&request, source.parse().unwrap()).unwrap();
        assert_eq!(made, packet(0x0101, transaction, attribute), "{source}");
        out.push(json!({
            "name": format!("answer to {source}"),
            "type": "answer",
            "transaction": hex(&transaction),
            "request": hex(&request),
            "source": source,
            "answer": hex(&made),
        }));
    }
}

/// What nobody answers.
fn ignored(out: &mut Vec<Json>) {
    let request = packet(1, count(1), &[]);
    let mut long = request.clone();
    long[3] = 4;
    let mut cookie = request.clone();
    cookie[4] ^= 1;
    let big = packet(1, count(1), &[0; 532]);
    assert!(big.len() > MAX_PACKET);
    for (name, packet) in [
        ("nothing", Vec::new()),
        ("a header cut short", request[..19].to_vec()),
        ("a length that is not the packet's", long),
        ("a length that is no multiple of 4", packet(1, count(1), &[0; 3])),
        ("no magic cookie (RFC 3489)", cookie),
        ("an answer", packet(0x0101, count(1), &[])),
        ("an indication", packet(0x0011, count(1), &[])),
        ("no STUN but RTP", packet(0x8001, count(1), &[])),
        ("more than 548 bytes", big),
    ] {
        assert_eq!(answer(&packet, "192.0.2.1:1".parse().unwrap()), None, "{name}");
        out.push(json!({
            "name": format!("ignored: {name}"),
            "type": "ignored",
            "packet": hex(&packet),
        }));
    }
}

/// What the asker makes of a packet.
fn read(out: &mut Vec<Json>) {
    let transaction = count(1);
    let right = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
    let after = [b"\x80\x22\x00\x05vsrns\0\0\0", &right[..]].concat();
    let good: SocketAddr = "192.0.2.1:32853".parse().unwrap();
    for (name, packet, address) in [
        ("an address", packet(0x0101, transaction, right), Some(good)),
        ("an address after another, padded attribute", packet(0x0101, transaction, &after), Some(good)),
        ("another transaction", packet(0x0101, count(2), right), None),
        ("an error", packet(0x0111, transaction, right), None),
        ("a request", packet(0x0001, transaction, right), None),
        ("no address", packet(0x0101, transaction, &[]), None),
        (
            "an unknown family",
            packet(0x0101, transaction, b"\x00\x20\x00\x08\x00\x03\xa1\x47\xe1\x12\xa6\x43"),
            None,
        ),
        (
            "an IPv6 address that is too short",
            packet(0x0101, transaction, b"\x00\x20\x00\x08\x00\x02\xa1\x47\xe1\x12\xa6\x43"),
            None,
        ),
        (
            "an attribute longer than the packet",
            packet(0x0101, transaction, b"\x00\x20\x00\x0c\x00\x01\xa1\x47\xe1\x12\xa6\x43"),
            None,
        ),
    ] {
        assert_eq!(mapped_address(&packet, &transaction), address, "{name}");
        out.push(json!({
            "name": format!("read: {name}"),
            "type": "read",
            "transaction": hex(&transaction),
            "packet": hex(&packet),
            "address": address.map(|address| address.to_string()),
        }));
    }
}
