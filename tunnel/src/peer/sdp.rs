//! Session descriptions (RFC 8866) as far as we look into them ourselves: bounded and screened
//! before the WebRTC engine parses what a peer wrote, and the DTLS fingerprint read from them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{
    MAX_CANDIDATES, MAX_MESSAGE,
    candidate::{self, Candidate, CandidateError},
};

/// Longest session description accepted, in bytes. Browsers write about 1 KiB plus 150 bytes for
/// each candidate, and we take at most [`MAX_CANDIDATES`] of those.
pub const MAX_SDP: usize = 16 << 10;

/// Why a session description was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Longer than [`MAX_SDP`].
    #[error("a session description of {0} bytes, the limit is {MAX_SDP}")]
    TooLong(usize),
    /// Bytes other than printable ASCII and line ends.
    #[error("a session description with a byte no description contains")]
    NotText,
    /// It must have one media section, for data channels, and nothing else.
    #[error("a session description with other media than one for data channels")]
    Media,
    /// No `a=fingerprint` line, so the DTLS handshake could be anybody's.
    #[error("a session description without a certificate fingerprint")]
    NoFingerprint,
    /// A fingerprint that is not SHA-256 with 32 bytes, or several that differ: the one that was
    /// signed must be the only one that is accepted.
    #[error("a session description with another fingerprint than one of SHA-256")]
    Fingerprint,
    /// The peer takes only smaller messages than [`MAX_MESSAGE`], or does not say.
    #[error("a session description whose max-message-size is below {MAX_MESSAGE}")]
    MessageSize,
    /// An answer leaves open which side starts the DTLS handshake (RFC 8842, section 5.3).
    #[error("an answer that does not settle who starts the handshake")]
    Setup,
    /// More than [`MAX_CANDIDATES`] usable candidates.
    #[error("a session description with more than {MAX_CANDIDATES} candidates")]
    TooManyCandidates,
    /// One of its candidates is malformed.
    #[error("a session description with {0}")]
    Candidate(#[from] CandidateError),
}

/// The SHA-256 fingerprint of the certificate the peer must present in the DTLS handshake
/// (RFC 8122, section 5).
///
/// # Errors
///
/// When there is none, one of another hash, a malformed one, or two that differ. The engine
/// accepts a certificate that matches *any* fingerprint in the description, so there must be only
/// one for a signature over it to mean anything.
pub fn fingerprint(sdp: &str) -> Result<[u8; 32], SdpError> {
    let mut found = None;
    for line in sdp.lines() {
        let Some(value) = line.strip_prefix("a=fingerprint:") else {
            continue;
        };
        let read = read_fingerprint(value).ok_or(SdpError::Fingerprint)?;
        if found.is_some_and(|found| found != read) {
            return Err(SdpError::Fingerprint);
        }
        found = Some(read);
    }
    found.ok_or(SdpError::NoFingerprint)
}

fn read_fingerprint(value: &str) -> Option<[u8; 32]> {
    let (hash, digits) = value.trim_end().split_once(' ')?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut bytes = [0; 32];
    let mut pairs = digits.split(':');
    for byte in &mut bytes {
        let pair = pairs.next()?;
        if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(bytes)
}

/// What a remote description is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Offer,
    Answer,
}

/// A remote description fit for the engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Screened {
    /// The description, with its candidates rebuilt and the useless ones left out.
    pub(super) text: String,
    /// How many candidates are left.
    pub(super) candidates: usize,
    /// The addresses of the relays among them.
    pub(super) relays: BTreeSet<SocketAddr>,
}

/// Checks a remote description.
pub(super) fn screen(kind: Kind, sdp: &str) -> Result<Screened, SdpError> {
    if sdp.len() > MAX_SDP {
        return Err(SdpError::TooLong(sdp.len()));
    }
    if !sdp.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')) {
        return Err(SdpError::NotText);
    }
    fingerprint(sdp)?;

    let mut text = String::with_capacity(sdp.len());
    let (mut media, mut candidates, mut message_size) = (0, 0, None);
    let mut relays = BTreeSet::new();
    for line in sdp.lines() {
        if let Some(section) = line.strip_prefix("m=") {
            media += 1;
            if !section.starts_with("application ") || !section.contains("webrtc-datachannel") {
                return Err(SdpError::Media);
            }
        }
        if kind == Kind::Answer && line.starts_with("a=setup:") && line.contains("actpass") {
            return Err(SdpError::Setup);
        }
        if let Some(size) = line.strip_prefix("a=max-message-size:") {
            message_size = size.trim_end().parse::<u64>().ok();
        }
        if line.starts_with("a=candidate:") {
            match candidate::read(line)? {
                Candidate::Usable(line) => {
                    candidates += 1;
                    relays.extend(candidate::relay_address(&line));
                    text.push_str("a=");
                    text.push_str(&line);
                    text.push_str("\r\n");
                }
                Candidate::Useless(why) => tracing::debug!(why, "remote candidate passed over"),
            }
            continue;
        }
        text.push_str(line);
        text.push_str("\r\n");
    }
    if media != 1 {
        return Err(SdpError::Media);
    }
    if candidates > MAX_CANDIDATES {
        return Err(SdpError::TooManyCandidates);
    }
    // 0 means any size (RFC 8841, section 6.1).
    if !message_size.is_some_and(|size| size == 0 || size >= MAX_MESSAGE as u64) {
        return Err(SdpError::MessageSize);
    }
    Ok(Screened { text, candidates, relays })
}

/// In an offer: an attempt at a direct connection in place of a relayed one that works, so that
/// neither side is to ask its relay.
const DIRECT: &str = "a=farm-tunnel-direct";

/// Whether an offer is of use only if it leads to a direct connection. Who does not know the
/// attribute passes over it (RFC 8866, section 5.13).
pub fn wants_direct(sdp: &str) -> bool {
    session_level(sdp).any(|line| line.trim_end() == DIRECT)
}

/// The lines before the first media section.
fn session_level(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.lines().take_while(|line| !line.starts_with("m="))
}

/// The offer with this wish in it, at the end of its session level.
pub(super) fn ask_for_direct(sdp: &str) -> String {
    let (session, media) = sdp.split_at(sdp.find("\nm=").map_or(sdp.len(), |end| end + 1));
    format!("{session}{DIRECT}\r\n{media}")
}

/// Our own description without the candidates no peer can use, and those it still names, in
/// canonical form.
pub(super) fn advertise(sdp: &str) -> (String, BTreeSet<String>) {
    let mut text = String::with_capacity(sdp.len());
    let mut named = BTreeSet::new();
    for line in sdp.lines() {
        if line.starts_with("a=candidate:") {
            let Some(candidate) = candidate::canonical(line) else {
                continue;
            };
            named.insert(candidate);
        }
        text.push_str(line);
        text.push_str("\r\n");
    }
    (text, named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:\
                       10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";

    fn sdp() -> String {
        format!(
            "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
             a=fingerprint:sha-256 {HEX}\r\na=group:BUNDLE 0\r\n\
             m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
             a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=sctp-port:5000\r\n\
             a=max-message-size:262144\r\na=ice-ufrag:abcd\r\n\
             a=ice-pwd:abcdefghijklmnopqrstuvwxyz\r\n\
             a=candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host\r\n\
             a=candidate:1 1 tcp 1 192.0.2.7 9 typ host tcptype active\r\n"
        )
    }

    #[test]
    fn an_offer_may_want_a_direct_connection() {
        assert!(!wants_direct(&sdp()));
        let asking = ask_for_direct(&sdp());
        assert!(wants_direct(&asking), "{asking}");
        assert_eq!(screen(Kind::Offer, &asking).map(|screened| screened.candidates), Ok(1));
        assert!(!wants_direct(&format!("{}{DIRECT}\r\n", sdp())), "that says something of the media");
    }

    #[test]
    fn a_fingerprint_is_read() {
        let expected: [u8; 32] = std::array::from_fn(|index| index as u8);
        assert_eq!(fingerprint(&sdp()), Ok(expected));
        assert_eq!(fingerprint(&sdp().to_lowercase()), Ok(expected));
        let twice = sdp().replace("a=mid:0", &format!("a=fingerprint:SHA-256 {HEX}"));
        assert_eq!(fingerprint(&twice), Ok(expected));
    }

    #[test]
    fn any_other_fingerprint_is_refused() {
        let other = HEX.replace("1F", "20");
        let second = format!("a=fingerprint:sha-256 {other}");
        for (sdp, error) in [
            (String::new(), SdpError::NoFingerprint),
            (sdp().replace("sha-256", "sha-1"), SdpError::Fingerprint),
            (sdp().replace(":1F", ""), SdpError::Fingerprint),
            (sdp().replace(":1F", ":1F:20"), SdpError::Fingerprint),
            (sdp().replace(":1F", ":+F"), SdpError::Fingerprint),
            (sdp().replace(":1F", ":1"), SdpError::Fingerprint),
            (sdp().replace("a=mid:0", &second), SdpError::Fingerprint),
        ] {
            assert_eq!(fingerprint(&sdp), Err(error), "{sdp}");
            assert!(screen(Kind::Offer, &sdp).is_err(), "{sdp}");
        }
    }

    #[test]
    fn useless_candidates_are_left_out() {
        let screened = screen(Kind::Offer, &sdp()).unwrap();
        assert_eq!(screened.candidates, 1);
        assert!(screened.text.contains("192.0.2.7 50000 typ host\r\n"));
        assert!(!screened.text.contains("tcp"));
        assert_eq!(screen(Kind::Offer, &screened.text).unwrap(), screened);
    }

    #[test]
    fn hostile_descriptions_are_refused() {
        let candidate = "a=candidate:1 1 udp 1 192.0.2.7 5 typ host\r\n";
        for (sdp, error) in [
            (sdp() + &"a=x\r\n".repeat(MAX_SDP / 5), None),
            (sdp().replace("a=mid:0", "a=mid:\0"), Some(SdpError::NotText)),
            (sdp().replace("s=-", "s=\u{e9}"), Some(SdpError::NotText)),
            (sdp().replace("m=application", "m=audio"), Some(SdpError::Media)),
            (sdp() + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", Some(SdpError::Media)),
            (sdp().replace("m=", "n="), Some(SdpError::Media)),
            (sdp().replace(":262144", ":1"), Some(SdpError::MessageSize)),
            (sdp().replace(":262144", ":many"), Some(SdpError::MessageSize)),
            (sdp().replace("a=max", "a=min"), Some(SdpError::MessageSize)),
            (sdp() + &candidate.repeat(MAX_CANDIDATES), Some(SdpError::TooManyCandidates)),
            (
                sdp() + "a=candidate:1 1 udp\r\n",
                Some(SdpError::Candidate(CandidateError::Malformed("priority"))),
            ),
        ] {
            let error = error.unwrap_or(SdpError::TooLong(sdp.len()));
            assert_eq!(screen(Kind::Offer, &sdp), Err(error), "{sdp}");
        }
    }

    #[test]
    fn an_answer_settles_the_roles() {
        assert_eq!(screen(Kind::Answer, &sdp()), Err(SdpError::Setup));
        assert!(screen(Kind::Answer, &sdp().replace("actpass", "active")).is_ok());
    }

    #[test]
    fn our_wildcard_candidates_are_not_advertised() {
        let ours = sdp() + "a=candidate:1 1 udp 1 :: 5 typ host\r\n";
        let (text, named) = advertise(&ours);
        let expected = "candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host".to_owned();
        assert_eq!(named, BTreeSet::from([expected]));
        assert!(!text.contains(" :: "));
    }

    proptest! {
        #[test]
        fn screening_never_panics(text in "[ -~\r\n]{0,400}") {
            let _ = screen(Kind::Offer, &text);
        }

        #[test]
        fn nor_does_it_on_a_damaged_description(
            at in 0..1000usize, with in "[ -~\r\n]{0,40}", cut in 0..60usize
        ) {
            let mut text = sdp();
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.replace_range(at..end, &with);
            if let Ok(screened) = screen(Kind::Offer, &text) {
                prop_assert_eq!(screen(Kind::Offer, &screened.text), Ok(screened));
            }
        }
    }
}
