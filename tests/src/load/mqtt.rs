//! As much of MQTT 3.1.1 (OASIS standard) as a yardstick needs: connect,
//! subscribe, publish at most once, ping.

use std::io;

use futures_util::{AsyncReadExt, AsyncWriteExt};

use crate::device::Secure;

/// Longest packet that is read, in bytes.
const MOST: usize = 64 * 1024;

/// Seconds between two signs of life, as devices of ours have them.
const KEEP_ALIVE: u16 = 90;

/// A connection that is in.
pub(super) struct Mqtt {
    stream: Secure,
    read: Vec<u8>,
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut left = body.len();
    loop {
        let low = (left % 128) as u8;
        left /= 128;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// The first packet in these bytes and its length; `None` if it is not whole.
fn first(bytes: &[u8]) -> io::Result<Option<(u8, &[u8], usize)>> {
    let (mut length, mut at) = (0usize, 1);
    loop {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            return Err(wrong("an MQTT packet of absurd length"));
        }
    }
    if length > MOST {
        return Err(wrong("an MQTT packet that is too long"));
    }
    Ok(bytes.get(at..at + length).map(|body| (bytes[0], body, at + length)))
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::other(what)
}

fn topic(number: u32) -> String {
    format!("device/{number}")
}

impl Mqtt {
    /// Says who it is, and subscribes to its own topic.
    pub(super) async fn enter(stream: Secure, number: u32) -> io::Result<Self> {
        let mut mqtt = Self { stream, read: Vec::new() };
        let name = text(&format!("device-{number}"));
        let connect = [&text("MQTT")[..], &[4, 2], &KEEP_ALIVE.to_be_bytes(), &name].concat();
        mqtt.send(0x10, &connect).await?;
        if mqtt.receive().await? != (0x20, vec![0, 0]) {
            return Err(wrong("the MQTT broker did not accept the connection"));
        }
        mqtt.send(0x82, &[&[0, 1][..], &text(&topic(number)), &[0]].concat()).await?;
        if mqtt.receive().await?.0 != 0x90 {
            return Err(wrong("the MQTT broker did not accept the subscription"));
        }
        Ok(mqtt)
    }

    /// A message to another device.
    pub(super) async fn publish(&mut self, to: u32, payload: &[u8]) -> io::Result<()> {
        self.send(0x30, &[&text(&topic(to))[..], payload].concat()).await
    }

    /// A sign of life.
    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.send(0xc0, &[]).await
    }

    /// The next message; `None` for what is none.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (kind, body) = self.receive().await?;
        if kind >> 4 != 3 {
            return Ok(None);
        }
        let length = body.get(..2).map(|head| usize::from(u16::from_be_bytes([head[0], head[1]])));
        let payload = length.and_then(|length| body.get(2 + length..));
        payload.map(|payload| Some(payload.to_vec())).ok_or_else(|| wrong("a malformed MQTT message"))
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&packet(kind, body)).await?;
        self.stream.flush().await
    }

    /// Nothing is lost when this is dropped: what was read is kept.
    async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((kind, body, length)) = first(&self.read)? {
                let packet = (kind, body.to_vec());
                self.read.drain(..length);
                return Ok(packet);
            }
            let mut chunk = [0; 2048];
            match self.stream.read(&mut chunk).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.read.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_standard() {
        // Section 2.2.3, table 2.4.
        assert_eq!(packet(0x30, &[0; 127])[..2], [0x30, 0x7f]);
        assert_eq!(packet(0x30, &[0; 128])[..3], [0x30, 0x80, 0x01]);
        assert_eq!(packet(0x30, &[0; 16_384])[..4], [0x30, 0x80, 0x80, 0x01]);
        let bytes = [packet(0x20, &[0, 0]), packet(0x30, &[7; 300])].concat();
        assert_eq!(first(&bytes).unwrap(), Some((0x20, &[0, 0][..], 4)));
        assert_eq!(first(&bytes[4..]).unwrap(), Some((0x30, &[7; 300][..], 303)));
        assert_eq!(first(&bytes[..3]).unwrap(), None);
        assert!(first(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
