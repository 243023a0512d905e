//! A TURN client over datagrams (RFC 8656), made beside the broker's relay: it
//! shares the writer of messages with it, and neither keys nor checks.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use farm_broker::core::relay::credentials::REALM;
use farm_broker::core::relay::message::{Class, Method, Writer, attribute as a};
use farm_protocol::relay::Relay;
use md5::{Digest, Md5};
use ring::hmac;

/// For one answer; an honest client asks again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tries of an honest client, which meets a flood.
const TRIES: usize = 40;

/// Longest answer.
const MAX_ANSWER: usize = 2048;

/// The error "no answer came".
pub const SILENCE: u16 = 0;

/// A client with its own socket.
pub struct Turn {
    socket: UdpSocket,
    username: String,
    key: hmac::Key,
    nonce: Vec<u8>,
    transaction: u64,
}

impl Turn {
    /// A client at this address, with these credentials.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn new(from: Ipv4Addr, server: SocketAddr, relay: &Relay) -> io::Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client =
            Self { socket, username: String::new(), key: key("", ""), nonce: Vec::new(), transaction: 1 };
        client.pretend(&relay.username, &relay.credential);
        Ok(client)
    }

    /// Uses other credentials from now on.
    pub fn pretend(&mut self, username: &str, credential: &str) {
        (self.username, self.key) = (username.to_owned(), key(username, credential));
    }

    /// The socket, connected to the relay.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// A request, signed once there is a nonce.
    pub fn request(&mut self, method: Method, fill: &dyn Fn(Writer) -> Writer) -> Vec<u8> {
        self.transaction += 1;
        let mut transaction = [0x77; 12];
        transaction[..8].copy_from_slice(&self.transaction.to_be_bytes());
        let mut writer = fill(Writer::new(method, Class::Request, transaction));
        if self.nonce.is_empty() {
            return writer.finish(None);
        }
        writer = writer
            .with(a::USERNAME, self.username.as_bytes())
            .with(a::REALM, REALM.as_bytes())
            .with(a::NONCE, &self.nonce);
        writer.finish(Some(&self.key))
    }

    /// Asks until an answer comes.
    ///
    /// # Errors
    /// The error's code, or [`SILENCE`].
    pub fn ask(&mut self, method: Method, fill: &dyn Fn(Writer) -> Writer) -> Result<Vec<u8>, u16> {
        for _ in 0..TRIES {
            let request = self.request(method, fill);
            // A full queue loses it.
            let _lost = self.socket.send(&request);
            let Some(answer) = self.answer_to(&request) else { continue };
            match code(&answer) {
                None => return Ok(answer),
                Some(438) => self.nonce = attribute(&answer, a::NONCE).unwrap_or_default(),
                Some(401) if self.nonce.is_empty() => {
                    self.nonce = attribute(&answer, a::NONCE).unwrap_or_default();
                }
                Some(code) => return Err(code),
            }
        }
        Err(SILENCE)
    }

    fn answer_to(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = [0; MAX_ANSWER];
        loop {
            let length = self.socket.recv(&mut bytes).ok()?;
            if length >= 20 && bytes[4..20] == request[4..20] {
                return Some(bytes[..length].to_vec());
            }
        }
    }

    /// An allocation; gives the relayed address.
    ///
    /// # Errors
    /// As [`Turn::ask`].
    pub fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let answer = self.ask(Method::Allocate, &allocate)?;
        let value = attribute(&answer, a::XOR_RELAYED_ADDRESS).ok_or(SILENCE)?;
        let [_, 1, high, low, ip @ ..] = &value[..] else { return Err(SILENCE) };
        let port = u16::from_be_bytes([high ^ answer[4], low ^ answer[5]]);
        let ip: [u8; 4] = std::array::from_fn(|at| ip.get(at).copied().unwrap_or_default() ^ answer[4 + at]);
        Ok(SocketAddr::from((ip, port)))
    }

    /// Binds a channel to a peer.
    ///
    /// # Errors
    /// As [`Turn::ask`].
    pub fn bind(&mut self, number: u16, peer: SocketAddr) -> Result<(), u16> {
        self.ask(Method::ChannelBind, &bind(number, peer)).map(drop)
    }

    /// Sends on a channel; what the kernel does not take is lost.
    pub fn send(&self, number: u16, data: &[u8]) {
        let _lost = self.socket.send(&channel_data(number, data));
    }
}

/// Fills a request for an allocation.
pub fn allocate(writer: Writer) -> Writer {
    writer.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
}

/// Fills a request for a channel.
pub fn bind(number: u16, peer: SocketAddr) -> impl Fn(Writer) -> Writer {
    move |writer| {
        let [high, low] = number.to_be_bytes();
        writer.with(a::CHANNEL_NUMBER, &[high, low, 0, 0]).with_address(a::XOR_PEER_ADDRESS, peer)
    }
}

/// Fills a request for a permission.
pub fn permit(peer: SocketAddr) -> impl Fn(Writer) -> Writer {
    move |writer| writer.with_address(a::XOR_PEER_ADDRESS, peer)
}

/// A channel's packet, as datagrams carry it.
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    [&number.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

fn key(username: &str, credential: &str) -> hmac::Key {
    let content = format!("{username}:{REALM}:{credential}");
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &Md5::digest(content))
}

fn attribute(message: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut rest = message.get(20..)?;
    while let [high, low, long, short, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*long, *short]));
        if u16::from_be_bytes([*high, *low]) == wanted {
            return value.get(..length).map(<[u8]>::to_vec);
        }
        rest = value.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The error's code, where it is an error.
pub fn code(message: &[u8]) -> Option<u16> {
    let value = attribute(message, a::ERROR_CODE)?;
    Some(u16::from(*value.get(2)?) * 100 + u16::from(*value.get(3)?))
}
