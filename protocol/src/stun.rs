//! STUN binding (RFC 8489), the little that is needed: asking the broker for
//! one's reflexive address, and answering that question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const MAGIC: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;

/// Largest datagram that is looked at, in bytes (RFC 8489 section 6.1: keep
/// below the path's MTU).
pub const MAX_PACKET: usize = 548;

/// Ties an answer to its question.
pub type TransactionId = [u8; 12];

fn header(kind: u16, length: u16, transaction: &TransactionId) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + usize::from(length));
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(transaction);
    out
}

/// Kind, transaction and attributes of a well-formed STUN packet.
fn parse(packet: &[u8]) -> Option<(u16, TransactionId, &[u8])> {
    let (head, attributes) = packet.split_at_checked(HEADER)?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let transaction = head[8..].try_into().ok()?;
    (packet.len() <= MAX_PACKET
        && kind & 0xc000 == 0
        && head[4..8] == MAGIC.to_be_bytes()
        && length == attributes.len()
        && length % 4 == 0)
        .then_some((kind, transaction, attributes))
}

/// Whether a packet says that it is about a binding: a request, a keepalive or
/// somebody's answer.
pub fn is_binding(packet: &[u8]) -> bool {
    packet.first_chunk().is_some_and(|kind| u16::from_be_bytes(*kind) & !0x0110 == BINDING_REQUEST)
}

/// A binding request: 20 bytes.
pub fn binding_request(transaction: &TransactionId) -> Vec<u8> {
    header(BINDING_REQUEST, 0, transaction)
}

/// Answers a binding request from `source`; `None` for everything else. The
/// answer is at most 44 bytes for at least 20: of no use for amplification.
pub fn answer(packet: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let (kind, transaction, _) = parse(packet)?;
    if kind != BINDING_REQUEST {
        return None;
    }
    let mut mask = MAGIC.to_be_bytes().to_vec();
    mask.extend_from_slice(&transaction);
    let (family, address) = match source.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut out = header(BINDING_SUCCESS, 8 + address.len() as u16, &transaction);
    out.extend_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    out.extend_from_slice(&(4 + address.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, family]);
    out.extend_from_slice(&(source.port() ^ (MAGIC >> 16) as u16).to_be_bytes());
    out.extend(address.iter().zip(&mask).map(|(byte, mask)| byte ^ mask));
    Some(out)
}

/// Our address as the answerer saw it, if `packet` answers `transaction`.
pub fn mapped_address(packet: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let (kind, answered, mut attributes) = parse(packet)?;
    if kind != BINDING_SUCCESS || answered != *transaction {
        return None;
    }
    while let Some((head, rest)) = attributes.split_at_checked(4) {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        if kind == XOR_MAPPED_ADDRESS {
            return unmask(value, transaction);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn unmask(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let (head, address) = value.split_at_checked(4)?;
    let port = u16::from_be_bytes([head[2], head[3]]) ^ (MAGIC >> 16) as u16;
    let mask = MAGIC.to_be_bytes().into_iter().chain(*transaction);
    let plain: Vec<u8> = address.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip = match head[1] {
        1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&plain[..]).ok()?)),
        2 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&plain[..]).ok()?)),
        _ => return None,
    };
    (address.len() == plain.len()).then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_5769_section_2_2_address() {
        // The XOR-MAPPED-ADDRESS of the RFC's sample IPv4 response.
        let transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
        let mut packet = header(BINDING_SUCCESS, 12, &transaction);
        packet.extend_from_slice(&[0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(mapped_address(&packet, &transaction), Some("192.0.2.1:32853".parse().unwrap()));
    }

    #[test]
    fn only_requests_are_answered() {
        let transaction = [1; 12];
        let source = "198.51.100.7:4000".parse().unwrap();
        let response = answer(&binding_request(&transaction), source).unwrap();
        assert_eq!(answer(&response, source), None, "two responders must not talk to each other");
        assert_eq!(mapped_address(&response, &[2; 12]), None, "another question's answer");
    }

    proptest! {
        #[test]
        fn answers_round_trip(ip: IpAddr, port: u16, transaction: [u8; 12]) {
            let source = SocketAddr::new(ip, port);
            let response = answer(&binding_request(&transaction), source).unwrap();
            let expected = SocketAddr::new(ip.to_canonical(), port);
            prop_assert_eq!(mapped_address(&response, &transaction), Some(expected));
        }

        #[test]
        fn any_packet_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..600), mut head: [u8; 20]) {
            let source = "127.0.0.1:1".parse().unwrap();
            let _ = answer(&packet, source);
            head[4..8].copy_from_slice(&MAGIC.to_be_bytes());
            let framed = [&head[..], &packet].concat();
            let _ = answer(&framed, source);
            let _ = mapped_address(&framed, &head[8..].try_into().unwrap());
        }
    }
}
