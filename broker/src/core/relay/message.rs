//! STUN messages (RFC 8489) as far as TURN needs them, from bytes that may be
//! hostile and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::hmac;

/// The STUN header, in bytes.
pub const HEADER: usize = 20;
/// The head of an attribute, and of ChannelData, in bytes.
pub const SHORT_HEADER: usize = 4;
/// A MESSAGE-INTEGRITY, in bytes: HMAC-SHA1.
const INTEGRITY: usize = 20;
/// Most peers that one CreatePermission names. Devices name one; the room for
/// what is read from one packet is bounded by this.
const MOST_PEERS: usize = 16;
/// Most attributes of a kind we don't know that are named in the answer.
const MOST_UNKNOWN: usize = 8;

const COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

/// Attribute types.
pub mod attribute {
    #![allow(missing_docs)]
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    pub const LIFETIME: u16 = 0x000d;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const EVEN_PORT: u16 = 0x0018;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// From here on a reader may skip what it does not know.
    pub const OPTIONAL: u16 = 0x8000;
}

/// What is asked or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Method {
    /// Which address do you see?
    Binding = 0x001,
    /// Open an allocation.
    Allocate = 0x003,
    /// Prolong or end it.
    Refresh = 0x004,
    /// To a peer, without a channel.
    Send = 0x006,
    /// From a peer, without a channel.
    Data = 0x007,
    /// Let a peer's packets in.
    CreatePermission = 0x008,
    /// Give a peer a number.
    ChannelBind = 0x009,
}

impl Method {
    fn read(number: u16) -> Option<Self> {
        [
            Self::Binding,
            Self::Allocate,
            Self::Refresh,
            Self::Send,
            Self::Data,
            Self::CreatePermission,
            Self::ChannelBind,
        ]
        .into_iter()
        .find(|method| *method as u16 == number)
    }
}

/// Which side of an exchange a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Class {
    /// Wants an answer.
    Request = 0x000,
    /// Wants none.
    Indication = 0x010,
    /// It was done.
    Success = 0x100,
    /// It was not.
    Error = 0x110,
}

/// Ties an answer to its question.
pub type TransactionId = [u8; 12];

/// A message with the attributes that a TURN server looks at. Of one that
/// occurs twice the first counts (RFC 8489 section 14), and what follows the
/// integrity does not.
#[derive(Debug)]
pub struct Message<'a> {
    /// What is asked.
    pub method: Method,
    /// Request or indication; a server is sent nothing else.
    pub class: Class,
    /// Of the exchange.
    pub transaction: TransactionId,
    /// USERNAME.
    pub username: Option<&'a str>,
    /// REALM.
    pub realm: Option<&'a [u8]>,
    /// NONCE.
    pub nonce: Option<&'a [u8]>,
    /// REQUESTED-TRANSPORT's protocol number.
    pub transport: Option<u8>,
    /// REQUESTED-ADDRESS-FAMILY's number.
    pub family: Option<u8>,
    /// EVEN-PORT: whether the next port is to be kept, too.
    pub even_port: Option<bool>,
    /// LIFETIME, in seconds.
    pub lifetime: Option<u32>,
    /// CHANNEL-NUMBER.
    pub channel: Option<u16>,
    /// XOR-PEER-ADDRESS.
    pub peers: Vec<SocketAddr>,
    /// Where DATA's value is in the packet.
    pub data: Option<std::ops::Range<usize>>,
    /// Types that a server must know and we don't.
    pub unknown: Vec<u16>,
    packet: &'a [u8],
    integrity: Option<usize>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What a message's type says, if it is one of ours.
fn kind(packet: &[u8]) -> Option<(Method, Class)> {
    let kind = u16_at(packet, 0).filter(|kind| kind & 0xc000 == 0)?;
    // RFC 8489 section 5: the class's two bits stand among the method's.
    let method = (kind & 0x000f) | ((kind & 0x00e0) >> 1) | ((kind & 0x3e00) >> 2);
    let class = match kind & 0x0110 {
        0x000 => Class::Request,
        0x010 => Class::Indication,
        0x100 => Class::Success,
        _ => Class::Error,
    };
    Some((Method::read(method)?, class))
}

impl<'a> Message<'a> {
    /// Reads a packet; `None` if it is no well-formed STUN message of a method
    /// that TURN has.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let (method, class) = kind(packet)?;
        let length = usize::from(u16_at(packet, 2)?);
        if packet.get(4..8)? != COOKIE || packet.len() != HEADER + length || length % 4 != 0 {
            return None;
        }
        let mut message = Self {
            method,
            class,
            transaction: *packet.get(8..)?.first_chunk()?,
            username: None,
            realm: None,
            nonce: None,
            transport: None,
            family: None,
            even_port: None,
            lifetime: None,
            channel: None,
            peers: Vec::new(),
            data: None,
            unknown: Vec::new(),
            packet,
            integrity: None,
        };
        let mut at = HEADER;
        while at < packet.len() && message.integrity.is_none() {
            let (kind, length) = (u16_at(packet, at)?, usize::from(u16_at(packet, at + 2)?));
            let start = at + SHORT_HEADER;
            let value = packet.get(start..start + length)?;
            message.take(kind, value, at)?;
            at = start + length.next_multiple_of(4);
        }
        Some(message)
    }

    /// `None` where an attribute's value can't be.
    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Option<()> {
        use attribute as a;
        match kind {
            a::USERNAME => drop(self.username.get_or_insert(std::str::from_utf8(value).ok()?)),
            a::REALM => drop(self.realm.get_or_insert(value)),
            a::NONCE => drop(self.nonce.get_or_insert(value)),
            a::MESSAGE_INTEGRITY => self.integrity = (value.len() == INTEGRITY).then_some(at),
            a::REQUESTED_TRANSPORT => drop(self.transport.get_or_insert(first_of_four(value)?)),
            a::REQUESTED_ADDRESS_FAMILY => drop(self.family.get_or_insert(first_of_four(value)?)),
            a::EVEN_PORT => drop(self.even_port.get_or_insert(value.first()? & 0x80 != 0)),
            a::LIFETIME => drop(self.lifetime.get_or_insert(u32::from_be_bytes(value.try_into().ok()?))),
            a::CHANNEL_NUMBER => {
                let number = (value.len() == 4).then(|| u16_at(value, 0)).flatten()?;
                self.channel.get_or_insert(number);
            }
            a::XOR_PEER_ADDRESS => {
                (self.peers.len() < MOST_PEERS).then_some(())?;
                self.peers.push(read_address(value, &self.transaction)?);
            }
            a::DATA => {
                let start = at + SHORT_HEADER;
                self.data.get_or_insert(start..start + value.len());
            }
            kind if kind < a::OPTIONAL && self.unknown.len() < MOST_UNKNOWN => self.unknown.push(kind),
            _ => {}
        }
        // One of another length is none, and must not pass for absent.
        (kind != a::MESSAGE_INTEGRITY || self.integrity.is_some()).then_some(())
    }

    /// Whether somebody vouches for it at all.
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether its MESSAGE-INTEGRITY was made with this key (RFC 8489 section
    /// 14.5). Takes the same time wherever it differs.
    pub fn verify(&self, key: &hmac::Key) -> bool {
        let Some(at) = self.integrity else {
            return false;
        };
        // As if the message ended with this attribute.
        let length = (at + SHORT_HEADER + INTEGRITY - HEADER) as u16;
        let covered = [&self.packet[..2], &length.to_be_bytes(), &self.packet[4..at]].concat();
        let mac = &self.packet[at + SHORT_HEADER..][..INTEGRITY];
        hmac::verify(key, &covered, mac).is_ok()
    }
}

fn first_of_four(value: &[u8]) -> Option<u8> {
    (value.len() == 4).then(|| value[0])
}

fn mask(transaction: &TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE);
    mask[4..].copy_from_slice(transaction);
    mask
}

fn read_address(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let port = u16_at(value, 2)? ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let mask = mask(transaction);
    let ip = match (value[1], value.len()) {
        (1, 8) => {
            let bits: [u8; 4] = std::array::from_fn(|at| value[4 + at] ^ mask[at]);
            IpAddr::V4(Ipv4Addr::from(bits))
        }
        (2, 20) => {
            let bits: [u8; 16] = std::array::from_fn(|at| value[4 + at] ^ mask[at]);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// An address as XOR-…-ADDRESS carries it: its bytes and how many they are.
fn written_address(address: SocketAddr, transaction: &TransactionId) -> ([u8; 20], usize) {
    let mask = mask(transaction);
    let mut value = [0; 20];
    let port = address.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    value[2..4].copy_from_slice(&port.to_be_bytes());
    let mut put = |family: u8, octets: &[u8]| {
        value[1] = family;
        for (at, octet) in octets.iter().enumerate() {
            value[4 + at] = octet ^ mask[at];
        }
        4 + octets.len()
    };
    let length = match address.ip().to_canonical() {
        IpAddr::V4(ip) => put(1, &ip.octets()),
        IpAddr::V6(ip) => put(2, &ip.octets()),
    };
    (value, length)
}

/// Writes a message.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    transaction: TransactionId,
}

impl Writer {
    /// A message without attributes.
    pub fn new(method: Method, class: Class, transaction: TransactionId) -> Self {
        let number = method as u16;
        let kind = (number & 0x000f) | ((number & 0x0070) << 1) | ((number & 0x0f80) << 2) | class as u16;
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&COOKIE);
        bytes.extend_from_slice(&transaction);
        Self { bytes, transaction }
    }

    /// Adds an attribute, padded.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn with_address(self, kind: u16, address: SocketAddr) -> Self {
        let (value, length) = written_address(address, &self.transaction);
        self.with(kind, &value[..length])
    }

    /// The message, with a MESSAGE-INTEGRITY where there is a key.
    pub fn finish(mut self, key: Option<&hmac::Key>) -> Vec<u8> {
        let Some(key) = key else {
            self.set_length(self.bytes.len() - HEADER);
            return self.bytes;
        };
        self.set_length(self.bytes.len() - HEADER + SHORT_HEADER + INTEGRITY);
        let mac = hmac::sign(key, &self.bytes);
        self.with(attribute::MESSAGE_INTEGRITY, mac.as_ref()).bytes
    }

    fn set_length(&mut self, length: usize) {
        self.bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// Writes, right before `data.start`, the head of a Data indication that
/// carries `data`, and its padding behind. Gives where the whole is.
pub fn frame_indication(
    buffer: &mut [u8],
    data: std::ops::Range<usize>,
    peer: SocketAddr,
    transaction: TransactionId,
) -> std::ops::Range<usize> {
    let (address, length) = written_address(peer, &transaction);
    let start = data.start - (HEADER + SHORT_HEADER + length + SHORT_HEADER);
    let padded = data.start + data.len().next_multiple_of(4);
    let kind = Method::Data as u16 | Class::Indication as u16;
    let parts: [&[u8]; 9] = [
        &kind.to_be_bytes(),
        &((padded - start - HEADER) as u16).to_be_bytes(),
        &COOKIE,
        &transaction,
        &attribute::XOR_PEER_ADDRESS.to_be_bytes(),
        &(length as u16).to_be_bytes(),
        &address[..length],
        &attribute::DATA.to_be_bytes(),
        &(data.len() as u16).to_be_bytes(),
    ];
    let mut at = start;
    for part in parts {
        buffer[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    buffer[data.end..padded].fill(0);
    start..padded
}

/// Writes, right before `data.start`, the head of ChannelData that carries
/// `data`; padded behind on a stream (RFC 8656 section 12.5).
pub fn frame_channel(
    buffer: &mut [u8],
    data: std::ops::Range<usize>,
    channel: u16,
    is_stream: bool,
) -> std::ops::Range<usize> {
    let start = data.start - SHORT_HEADER;
    buffer[start..start + 2].copy_from_slice(&channel.to_be_bytes());
    buffer[start + 2..start + 4].copy_from_slice(&(data.len() as u16).to_be_bytes());
    let end = if is_stream { data.start + data.len().next_multiple_of(4) } else { data.end };
    buffer[data.end..end].fill(0);
    start..end
}

/// How long the frame is that begins a stream's bytes (RFC 8656 section
/// 12.5), once its first 4 bytes are there. `None`: neither STUN nor
/// ChannelData.
pub fn frame_length(head: [u8; 4]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    match head[0] >> 6 {
        0 if length % 4 == 0 => Some(HEADER + length),
        1 => Some(SHORT_HEADER + length.next_multiple_of(4)),
        _ => None,
    }
}

/// Channel and data of ChannelData; `None` if it is none.
pub fn read_channel(packet: &[u8]) -> Option<(u16, std::ops::Range<usize>)> {
    let channel = u16_at(packet, 0).filter(|number| number >> 14 == 1)?;
    let end = SHORT_HEADER + usize::from(u16_at(packet, 2)?);
    // Over UDP what follows may be padding; shorter than it says is damaged.
    (end <= packet.len()).then_some((channel, SHORT_HEADER..end))
}
