//! NATS's client protocol as bytes: what a server says, and what it is told.
//!
//! Text lines and counted payloads, as in the protocol's public description
//! (docs.nats.io, "Client Protocol"); only what is needed here.

use std::fmt::Write as _;

use serde::Deserialize;

/// Longest line that a server may send, in bytes: its greeting names itself
/// and up to some dozens of others.
const MAX_LINE: usize = 32 * 1024;

/// Largest payload that a server may send, in bytes: twice what brokers write.
pub(super) const MAX_PAYLOAD: usize = 256 * 1024;

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Info {
    #[serde(default)]
    pub(super) server_name: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) headers: bool,
    #[serde(default)]
    pub(super) tls_required: bool,
}

/// A message's headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    /// What the server itself says: 503 where nobody listens, 100 for a beat.
    pub(crate) status: Option<u16>,
    fields: Vec<(String, String)>,
}

impl Headers {
    /// The first header of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("a header that is no text"))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"));
        let first = first.ok_or(Malformed("headers that do not begin with their version"))?;
        let status = first.split_whitespace().next().and_then(|status| status.parse().ok());
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Self { status, fields: fields.collect() })
    }
}

/// A message of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    /// Which subscription it is for.
    pub(super) subscription: u64,
    pub(crate) reply: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) payload: Vec<u8>,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Info(Box<Info>),
    Message(Message),
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// A server that does not speak the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the NATS server sent {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes bytes as they come and gives what they say.
#[derive(Debug, Default)]
pub(super) struct Parser {
    bytes: Vec<u8>,
    /// Of them, what is dealt with.
    done: usize,
}

impl Parser {
    /// Takes in what was read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.done == self.bytes.len() {
            self.bytes.clear();
            self.done = 0;
        } else if self.done > MAX_PAYLOAD {
            self.bytes.drain(..self.done);
            self.done = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing is left of what was read.
    pub(super) fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    /// The next thing that has come as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Said>, Malformed> {
        let rest = &self.bytes[self.done..];
        let Some(end) = rest.windows(2).take(MAX_LINE).position(|two| two == b"\r\n") else {
            let long = rest.len() > MAX_LINE;
            return if long { Err(Malformed("a line without an end")) } else { Ok(None) };
        };
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| Malformed("a line that is no text"))?;
        let (verb, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let after = end + 2;
        let (said, taken) = match verb.to_ascii_uppercase().as_str() {
            "MSG" | "HMSG" => match message(verb.len() == 4, arguments, &rest[after..])? {
                Some((message, length)) => (Said::Message(message), after + length),
                None => return Ok(None),
            },
            "INFO" => {
                let info = serde_json::from_str(arguments).map_err(|_| Malformed("no proper INFO"))?;
                (Said::Info(Box::new(info)), after)
            }
            "PING" => (Said::Ping, after),
            "PONG" => (Said::Pong, after),
            "+OK" => (Said::Ok, after),
            "-ERR" => (Said::Error(arguments.trim().trim_matches('\'').to_owned()), after),
            _ => return Err(Malformed("what is no word of its protocol")),
        };
        self.done += taken;
        Ok(Some(said))
    }
}

/// `subject sid [reply] [headers] total`, then the payload and a line's end.
fn message(with_headers: bool, arguments: &str, rest: &[u8]) -> Result<Option<(Message, usize)>, Malformed> {
    let bad = Malformed("a message's line with other parts than it has");
    let mut parts: Vec<&str> = arguments.split_ascii_whitespace().collect();
    let mut number = || parts.pop().and_then(|n| n.parse::<usize>().ok()).ok_or(bad);
    let total = number()?;
    let head = if with_headers { number()? } else { 0 };
    if total > MAX_PAYLOAD || head > total {
        return Err(Malformed("a message of impossible size"));
    }
    let (subject, subscription, reply) = match parts.as_slice() {
        [subject, subscription] => (subject, subscription, None),
        [subject, subscription, reply] => (subject, subscription, Some((*reply).to_owned())),
        _ => return Err(bad),
    };
    let subscription = subscription.parse().map_err(|_| bad)?;
    let Some(body) = rest.get(..total + 2) else { return Ok(None) };
    if &body[total..] != b"\r\n" {
        return Err(Malformed("a message that does not end where it said"));
    }
    let headers = if with_headers { Headers::parse(&body[..head])? } else { Headers::default() };
    let payload = body[head..total].to_vec();
    let subject = (*subject).to_owned();
    Ok(Some((Message { subject, subscription, reply, headers, payload }, total + 2)))
}

/// A message to publish.
pub(super) fn publish(
    subject: &str,
    reply: Option<&str>,
    header: Option<(&str, &str)>,
    payload: &[u8],
) -> Vec<u8> {
    let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
    let mut out = String::new();
    let mut head = String::new();
    let written = match header {
        Some((name, value)) => {
            head = format!("NATS/1.0\r\n{name}: {value}\r\n\r\n");
            write!(out, "HPUB {subject} {reply}{} {}\r\n", head.len(), head.len() + payload.len())
        }
        None => write!(out, "PUB {subject} {reply}{}\r\n", payload.len()),
    };
    written.expect("a string takes all");
    let mut out = out.into_bytes();
    out.reserve(head.len() + payload.len() + 2);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// A subscription.
pub(super) fn subscribe(subject: &str, id: u64) -> Vec<u8> {
    format!("SUB {subject} {id}\r\n").into_bytes()
}

/// The end of a subscription.
pub(super) fn unsubscribe(id: u64) -> Vec<u8> {
    format!("UNSUB {id}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(parser: &mut Parser) -> Vec<Said> {
        std::iter::from_fn(|| parser.next().unwrap()).collect()
    }

    const STREAM: &[u8] = b"INFO {\"server_name\":\"n1\",\"version\":\"2.9.10\",\"headers\":true,\"x\":[1]}\r\n\
        PING\r\n+OK\r\nMSG a.b 7 5\r\nhello\r\nMSG a.c 7 _INBOX.1 0\r\n\r\n\
        HMSG r.1 2 31 33\r\nNATS/1.0 503 nobody\r\nA: b c\r\n\r\nhi\r\n-ERR 'Authorization Violation'\r\nPONG\r\n";

    #[test]
    fn a_stream_is_the_same_in_any_pieces() {
        let mut whole = Parser::default();
        whole.feed(STREAM);
        let expected = all(&mut whole);
        assert_eq!(expected.len(), 8);
        assert!(whole.is_empty());
        let Said::Message(message) = &expected[5] else { panic!("{expected:?}") };
        assert_eq!((message.headers.status, message.headers.get("a")), (Some(503), Some("b c")));
        assert_eq!(message.payload, b"hi");
        assert_eq!(expected[6], Said::Error("Authorization Violation".to_owned()));
        let mut pieces = Parser::default();
        let mut said = Vec::new();
        for byte in STREAM {
            pieces.feed(std::slice::from_ref(byte));
            said.extend(all(&mut pieces));
        }
        assert_eq!(said, expected);
    }

    #[test]
    fn nonsense_is_an_error_and_bounded() {
        for bad in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"MSG a 1 99999999\r\n",
            b"MSG a 1\r\n",
            b"MSG a x 1\r\nx\r\n",
            b"HMSG a 1 9 3\r\n",
            b"MSG a 1 1\r\nxyz\r\n",
            b"HMSG a 1 4 4\r\nabcd\r\n",
            b"INFO {\r\n",
            &[b'x'; MAX_LINE + 3],
        ] {
            let mut parser = Parser::default();
            parser.feed(bad);
            assert!(parser.next().is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn what_is_published_is_counted() {
        assert_eq!(publish("a.b", None, None, b"hello"), b"PUB a.b 5\r\nhello\r\n");
        assert_eq!(
            publish("a", Some("r.1"), Some(("N", "4")), b"hi"),
            b"HPUB a r.1 18 20\r\nNATS/1.0\r\nN: 4\r\n\r\nhi\r\n"
        );
        assert_eq!(subscribe("a.>", 3), b"SUB a.> 3\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = Parser::default();
            parser.feed(&bytes);
            while let Ok(Some(_)) = parser.next() {}
        }
    }
}
