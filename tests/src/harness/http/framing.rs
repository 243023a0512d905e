//! Where a head ends and a body ends (RFC 9112 sections 2, 6 and 7), without I/O.

use std::io;
use std::ops::ControlFlow;

/// Longest head taken, bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Longest line between chunks, bytes.
const MAX_CHUNK_LINE: usize = 4_096;

/// A response's first line and headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// The head at the start of `bytes` and its length, None while incomplete.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if bytes.len() > MAX_HEAD { Err(broken("the head is too long")) } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let http = first.next().is_some_and(|version| version.starts_with("HTTP/1."));
        let status = first.next().and_then(|code| code.parse().ok());
        let Some(status) = status.filter(|_| http) else {
            return Err(broken("not an HTTP/1 answer"));
        };
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some((Self { status, headers }, end + 4)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How the end of a body is known, and how much of it is still to come.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Until the connection ends.
    UntilEnd,
}

#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Bytes left of the current chunk.
    left: u64,
    /// The line being read between chunks.
    line: Vec<u8>,
    /// Whether a chunk's data was just read and its line end is due.
    line_end_due: bool,
    /// Whether the last chunk was seen; trailers follow, then an empty line.
    trailers: bool,
}

impl Framing {
    /// The framing of the body after `head`.
    pub(super) fn of(head: &Head, answer_to_head: bool) -> io::Result<Self> {
        if answer_to_head || matches!(head.status, 100..200 | 204 | 304) {
            return Ok(Self::Length(0));
        }
        if head.header("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
            return Ok(Self::Chunks(Chunks::default()));
        }
        match head.header("content-length") {
            Some(length) => {
                length.parse().map(Self::Length).map_err(|_| broken("Content-Length is not a number"))
            }
            None => Ok(Self::UntilEnd),
        }
    }

    /// Takes bytes from the connection and passes those of the body on; Break
    /// when the body is complete or `look` has seen enough.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        look: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        match self {
            Self::UntilEnd if bytes.is_empty() => Ok(ControlFlow::Continue(())),
            Self::UntilEnd => Ok(look(bytes)),
            Self::Length(left) => {
                if !bytes.is_empty() && *left > 0 && split(&mut bytes, left, look).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                Ok(if *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            }
            Self::Chunks(chunks) => chunks.feed(bytes, look),
        }
    }

    /// The connection has ended: is that the end of the body?
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Self::UntilEnd | Self::Length(0) => Ok(()),
            Self::Length(_) | Self::Chunks(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Chunks {
    fn feed(
        &mut self,
        mut bytes: &[u8],
        look: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        while !bytes.is_empty() {
            if self.left > 0 {
                if split(&mut bytes, &mut self.left, look).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                self.line_end_due = self.left == 0;
                continue;
            }
            let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
                self.line.extend_from_slice(bytes);
                if self.line.len() > MAX_CHUNK_LINE {
                    return Err(broken("the line before a chunk is too long"));
                }
                return Ok(ControlFlow::Continue(()));
            };
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if self.line()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A whole line between chunks.
    fn line(&mut self) -> io::Result<ControlFlow<()>> {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if self.trailers {
            return Ok(if line.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        }
        if std::mem::take(&mut self.line_end_due) {
            return if line.is_empty() {
                Ok(ControlFlow::Continue(()))
            } else {
                Err(broken("a chunk is longer than announced"))
            };
        }
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(|_| broken("not a chunk size"))?;
        self.trailers = self.left == 0;
        Ok(ControlFlow::Continue(()))
    }
}

/// Shows at most `left` of `bytes` and takes them off both.
fn split(
    bytes: &mut &[u8],
    left: &mut u64,
    look: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let take = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    let (piece, rest) = bytes.split_at(take);
    *bytes = rest;
    *left -= take as u64;
    look(piece)
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().unwrap().0
    }

    /// Feeds `body` in pieces of `step` bytes; the body seen, and whether it was complete.
    fn read(head: &Head, body: &[u8], step: usize) -> io::Result<(Vec<u8>, bool)> {
        let mut framing = Framing::of(head, false)?;
        let mut seen = Vec::new();
        for piece in body.chunks(step) {
            let flow = framing.feed(piece, &mut |bytes| {
                seen.extend_from_slice(bytes);
                ControlFlow::Continue(())
            })?;
            if flow.is_break() {
                return Ok((seen, true));
            }
        }
        Ok((seen, framing.end().is_ok()))
    }

    #[test]
    fn bodies_are_the_same_in_any_pieces() {
        let chunked = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let body = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: 1\r\n\r\n";
        let plain = head("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n");
        let open = head("HTTP/1.1 200 OK\r\n\r\n");
        for step in 1..body.len() {
            let hello = (b"hello world".to_vec(), true);
            assert_eq!(read(&chunked, body, step).unwrap(), hello, "step {step}");
            assert_eq!(read(&plain, b"hello world", step).unwrap(), hello);
            assert_eq!(read(&open, b"hello world", step).unwrap(), hello);
        }
    }

    #[test]
    fn an_early_end_is_noticed() {
        let chunked = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(!read(&chunked, b"5\r\nhello\r\n", 3).unwrap().1);
        assert!(!read(&chunked, b"5\r\nhel", 3).unwrap().1);
        let plain = head("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n");
        assert!(!read(&plain, b"hello worl", 4).unwrap().1);
        assert!(read(&chunked, b"5\r\nhello!\r\n", 64).is_err());
        assert!(read(&chunked, b"zz\r\n", 64).is_err());
    }

    #[test]
    fn heads() {
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\nA: b\r\n").unwrap(), None);
        assert!(Head::parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(Head::parse(&vec![b'a'; MAX_HEAD + 1]).is_err());
        let (parsed, length) = Head::parse(b"HTTP/1.0 404 Gone\r\nX-Y:  z \r\n\r\nbody").unwrap().unwrap();
        assert_eq!((parsed.status, length), (404, 31));
        assert_eq!(parsed.header("x-y"), Some("z"));
    }
}
