//! A small HTTP/1.1 client that measures: one request per connection, bodies
//! hashed as they stream, the longest silence noted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Hasher;
use crate::greenhouse::content;

mod framing;

use framing::{Framing, Head};

/// Bytes of a body that are kept for looking at; the rest is only hashed.
const KEPT: usize = 1 << 20;
/// Bytes read at once.
const READ: usize = 256 * 1024;
/// Silence after which an exchange is given up, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong in an exchange.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection could not be made.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, ended early or fell silent.
    #[error("{path} broke after {received} bytes of the body: {source}")]
    Broken {
        /// What was asked for.
        path: String,
        /// Bytes of the body that had arrived.
        received: u64,
        /// What happened.
        source: io::Error,
    },
}

/// A body to send.
#[derive(Clone, Debug)]
pub enum Body {
    /// None.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes of the greenhouse's download content.
    Content(u64),
}

/// A request being put together.
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Body,
    patience: Duration,
}

/// An answer whose body has passed.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// Length of the body, bytes.
    pub length: u64,
    /// SHA-256 of the body, hex.
    pub sha256: String,
    /// The first megabyte (MiB) of the body.
    pub body: Vec<u8>,
    /// From the start of connecting to the first byte of the head.
    pub first_byte: Duration,
    /// From the start of connecting to the end of the body.
    pub total: Duration,
    /// The longest time without a byte, after the first one.
    pub longest_gap: Duration,
}

impl Response {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The kept part of the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Megabytes (1,000,000 bytes) a second over the whole exchange.
    #[must_use]
    pub fn megabytes_per_second(&self) -> f64 {
        self.length as f64 / 1e6 / self.total.as_secs_f64().max(1e-9)
    }
}

/// Fetches `path`.
///
/// # Errors
/// When the exchange fails; any status is an answer.
pub fn get(address: SocketAddr, path: &str) -> Result<Response, HttpError> {
    Request::get(path).send(address)
}

impl Request {
    /// GET `path`.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path, Body::Empty)
    }

    /// HEAD `path`.
    pub fn head(path: &str) -> Self {
        Self::new("HEAD", path, Body::Empty)
    }

    /// POST `body` to `path`.
    pub fn post(path: &str, body: Body) -> Self {
        Self::new("POST", path, body)
    }

    fn new(method: &'static str, path: &str, body: Body) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body, patience: PATIENCE }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks for the bytes from `start` to before `end`.
    pub fn range(self, start: u64, end: u64) -> Self {
        let value = format!("bytes={start}-{}", end.saturating_sub(1));
        self.header("Range", &value)
    }

    /// Gives up after so much silence (default 30 s).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes the exchange and hashes the body.
    ///
    /// # Errors
    /// When it fails; any status is an answer.
    pub fn send(&self, address: SocketAddr) -> Result<Response, HttpError> {
        self.send_with(address, |_| ControlFlow::Continue(()))
    }

    /// Makes the exchange, showing each piece of the body to `look` as it
    /// arrives; `look` may end it, as one must with an endless stream.
    ///
    /// # Errors
    /// When it fails; any status is an answer.
    pub fn send_with(
        &self,
        address: SocketAddr,
        mut look: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Response, HttpError> {
        let start = Instant::now();
        let mut stream = TcpStream::connect_timeout(&address, self.patience)
            .map_err(|source| HttpError::Connect { address, source })?;
        let mut received = Received::new(start);
        let head = self.exchange(&mut stream, address, &mut received, &mut look).map_err(|source| {
            HttpError::Broken { path: self.path.clone(), received: received.length, source }
        })?;
        Ok(Response {
            status: head.status,
            headers: head.headers,
            length: received.length,
            sha256: received.hasher.finish(),
            body: received.kept,
            first_byte: received.first.unwrap_or(start).duration_since(start),
            total: start.elapsed(),
            longest_gap: received.longest_gap,
        })
    }

    fn exchange(
        &self,
        stream: &mut TcpStream,
        address: SocketAddr,
        received: &mut Received,
        look: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<Head> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        self.write(stream, address)?;
        let (head, mut rest) = read_head(stream, received)?;
        let mut framing = Framing::of(&head, self.method == "HEAD")?;
        let mut buffer = vec![0; READ];
        loop {
            let ended = framing.feed(&rest, &mut |piece| {
                received.take(piece);
                look(piece)
            })?;
            if ended.is_break() {
                return Ok(head);
            }
            let read = receive(stream, &mut buffer)?;
            if read == 0 {
                framing.end()?;
                return Ok(head);
            }
            received.arrived();
            rest.clear();
            rest.extend_from_slice(&buffer[..read]);
        }
    }

    fn write(&self, stream: &mut TcpStream, address: SocketAddr) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", self.method, self.path);
        head.push_str("Connection: close\r\n");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = match &self.body {
            Body::Empty => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Content(length) => *length,
        };
        if self.method == "POST" {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        match &self.body {
            Body::Empty => Ok(()),
            Body::Bytes(bytes) => stream.write_all(bytes),
            Body::Content(length) => {
                let mut offset = 0;
                while offset < *length {
                    let piece = content::piece(offset, length - offset);
                    stream.write_all(&piece)?;
                    offset += piece.len() as u64;
                }
                Ok(())
            }
        }
    }
}

/// What is known of a body while it passes.
struct Received {
    length: u64,
    hasher: Hasher,
    kept: Vec<u8>,
    first: Option<Instant>,
    last: Instant,
    longest_gap: Duration,
}

impl Received {
    fn new(start: Instant) -> Self {
        Self {
            length: 0,
            hasher: Hasher::new(),
            kept: Vec::new(),
            first: None,
            last: start,
            longest_gap: Duration::ZERO,
        }
    }

    fn arrived(&mut self) {
        let now = Instant::now();
        if self.first.is_some() {
            self.longest_gap = self.longest_gap.max(now - self.last);
        }
        self.first.get_or_insert(now);
        self.last = now;
    }

    fn take(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.hasher.update(piece);
        let room = KEPT - self.kept.len();
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

/// Reads the head; also what came of the body with it.
fn read_head(stream: &mut TcpStream, received: &mut Received) -> io::Result<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = receive(stream, &mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.arrived();
        bytes.extend_from_slice(&buffer[..read]);
        if let Some((head, length)) = Head::parse(&bytes)? {
            bytes.drain(..length);
            return Ok((head, bytes));
        }
    }
}

/// A read whose timeout says so, instead of "resource temporarily unavailable".
fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "silence"));
            }
            result => return result,
        }
    }
}
