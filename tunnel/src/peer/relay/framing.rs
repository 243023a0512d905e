//! TURN messages on a stream: where one ends and the next begins (RFC 8656, sections 3.1 and 12.5).
//!
//! STUN messages say how long they are, and are whole multiples of 4 bytes; channel data says so
//! too, and is padded to 4 bytes here, but not in datagrams.

/// Bytes before the body of a STUN message (RFC 8489, section 5).
const STUN_HEADER: usize = 20;

/// Bytes before the body of channel data.
const CHANNEL_HEADER: usize = 4;

/// What comes is no TURN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay sent something else than TURN")]
pub(super) struct NotTurn;

/// How long a message is that begins with these bytes, without padding.
fn length(head: [u8; 4]) -> Result<usize, NotTurn> {
    let body = usize::from(u16::from_be_bytes([head[2], head[3]]));
    match head[0] >> 6 {
        0 => Ok(STUN_HEADER + body),
        1 => Ok(CHANNEL_HEADER + body),
        _ => Err(NotTurn),
    }
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A datagram as it goes on a stream, appended to `stream`.
pub(super) fn append(stream: &mut Vec<u8>, datagram: &[u8]) -> Result<(), NotTurn> {
    let head = datagram.first_chunk().ok_or(NotTurn)?;
    let length = length(*head)?;
    // What follows in the datagram is its padding, if any.
    stream.extend_from_slice(datagram.get(..length).ok_or(NotTurn)?);
    stream.resize(stream.len() + padded(length) - length, 0);
    Ok(())
}

/// Cuts a stream into messages. Holds at most one unfinished message, which has 64 KiB at most,
/// and what was pushed last.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    held: Vec<u8>,
    /// Bytes of it that were given out.
    taken: usize,
}

impl Cutter {
    /// Takes what was read. Before the next push everything whole is to be taken out.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..std::mem::take(&mut self.taken));
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message, without padding.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, NotTurn> {
        let rest = &self.held[self.taken..];
        let Some(head) = rest.first_chunk() else { return Ok(None) };
        let length = length(*head)?;
        if rest.len() < padded(length) {
            return Ok(None);
        }
        self.taken += padded(length);
        Ok(Some(&rest[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Longest message: the longest body there can be, its header and padding.
    const LONGEST: usize = STUN_HEADER + 65_536;

    fn stun(body: usize) -> Vec<u8> {
        let mut message = vec![0, 1];
        message.extend_from_slice(&(body as u16).to_be_bytes());
        message.resize(STUN_HEADER + body, 7);
        message
    }

    fn channel(body: usize) -> Vec<u8> {
        let mut message = vec![0x40, 0];
        message.extend_from_slice(&(body as u16).to_be_bytes());
        message.resize(CHANNEL_HEADER + body, 9);
        message
    }

    #[test]
    fn channel_data_is_padded_and_its_padding_in_a_datagram_is_not_doubled() {
        let mut stream = Vec::new();
        append(&mut stream, &channel(5)).unwrap();
        assert_eq!(stream.len(), 12);
        let mut with_padding = channel(5);
        with_padding.resize(12, 0);
        append(&mut stream, &with_padding).unwrap();
        assert_eq!(stream.len(), 24);
        let mut cutter = Cutter::default();
        cutter.push(&stream);
        for _ in 0..2 {
            assert_eq!(cutter.next(), Ok(Some(&channel(5)[..])));
        }
        assert_eq!(cutter.next(), Ok(None));
    }

    #[test]
    fn what_is_no_turn_is_refused() {
        // DTLS, QUIC, HTTP; and a message shorter than it says.
        for bad in [&[22, 254, 253, 0][..], &[0xc0; 8], b"HTTP/1.1 400", &[0x40, 0, 0], &stun(8)[..24]] {
            let mut stream = Vec::new();
            let refused = append(&mut stream, bad).is_err();
            assert!(refused || bad[0] >> 6 == 1, "{bad:?}");
        }
        let mut cutter = Cutter::default();
        cutter.push(&[0x80, 0, 0, 0]);
        assert_eq!(cutter.next(), Err(NotTurn));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            bodies in prop::collection::vec((any::<bool>(), 0usize..300), 0..20),
            cuts in prop::collection::vec(1usize..200, 1..200),
        ) {
            let messages: Vec<_> = bodies.iter()
                .map(|&(is_stun, body)| if is_stun { stun(body / 4 * 4) } else { channel(body) })
                .collect();
            let mut stream = Vec::new();
            messages.iter().for_each(|message| append(&mut stream, message).unwrap());
            let (mut cutter, mut out, mut at) = (Cutter::default(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if at == stream.len() {
                    break;
                }
                let end = (at + cut).min(stream.len());
                cutter.push(&stream[at..end]);
                at = end;
                while let Some(message) = cutter.next().unwrap() {
                    out.push(message.to_vec());
                }
            }
            prop_assert_eq!(out, messages);
        }

        #[test]
        fn nothing_makes_it_hold_more_than_a_message(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut cutter = Cutter::default();
            for piece in bytes.chunks(100) {
                cutter.push(piece);
                loop {
                    match cutter.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(NotTurn) => return Ok(()),
                    }
                }
                prop_assert!(cutter.held.len() <= LONGEST + 100);
            }
        }
    }
}
