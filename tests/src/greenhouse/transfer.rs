//! Large bodies: downloads in pieces, uploads straight into a hash.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use ring::digest;

use super::content::{self, MAX_MEGABYTES, MEGABYTE};
use crate::harness::hex;

/// Largest upload, bytes: as large as the largest download. Nothing of it is kept.
pub(super) const MAX_UPLOAD: u64 = MAX_MEGABYTES as u64 * MEGABYTE;

/// What a path below `/download/` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Download {
    /// `<n>MB.bin`.
    Content { megabytes: u32 },
    /// `<n>MB.bin.sha256`.
    Digest { megabytes: u32 },
}

impl Download {
    /// Reads the name after `/download/`; None when there is no such file.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (file, digest) = match name.strip_suffix(".sha256") {
            Some(file) => (file, true),
            None => (name, false),
        };
        let digits = file.strip_suffix("MB.bin")?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let megabytes = digits.parse().ok().filter(|n| plain && *n <= MAX_MEGABYTES)?;
        Some(if digest { Self::Digest { megabytes } } else { Self::Content { megabytes } })
    }
}

/// Digests already computed, at most one per possible name.
#[derive(Default)]
pub(super) struct Digests(smol::lock::Mutex<BTreeMap<u32, String>>);

impl Digests {
    /// The SHA-256 of `<megabytes>MB.bin`; the first asker waits for it
    /// (0.5–1 s a gigabyte), and one is computed at a time.
    pub(super) async fn of(&self, megabytes: u32) -> String {
        let mut known = self.0.lock().await;
        if let Some(digest) = known.get(&megabytes) {
            return digest.clone();
        }
        let length = u64::from(megabytes) * MEGABYTE;
        let digest = smol::unblock(move || content::sha256(length)).await;
        known.insert(megabytes, digest.clone());
        digest
    }
}

/// The bytes `offset..end` of every download (they all begin alike).
pub(super) struct Pieces {
    /// Next byte to send.
    pub(super) offset: u64,
    /// One past the last.
    pub(super) end: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.offset >= self.end {
            return Poll::Ready(None);
        }
        let piece = content::piece(self.offset, self.end - self.offset);
        self.offset += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.offset))
    }
}

/// Why an upload was not taken.
#[derive(Debug)]
pub(super) enum UploadError {
    /// Longer than [`MAX_UPLOAD`].
    TooLong,
    /// The connection or the framing broke.
    Broken(hyper::Error),
}

/// Reads an upload to its end: its length and SHA-256.
pub(super) async fn receive(mut body: Incoming) -> Result<(u64, String), UploadError> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut length = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(UploadError::Broken)?;
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            if length > MAX_UPLOAD {
                return Err(UploadError::TooLong);
            }
            hash.update(data);
        }
    }
    Ok((length, hex(hash.finish().as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads() {
        let content = |megabytes| Some(Download::Content { megabytes });
        for (name, expected) in [
            ("1MB.bin", content(1)),
            ("100MB.bin", content(100)),
            ("4096MB.bin", content(4_096)),
            ("7MB.bin.sha256", Some(Download::Digest { megabytes: 7 })),
            ("4097MB.bin", None),
            ("0MB.bin", None),
            ("01MB.bin", None),
            ("+1MB.bin", None),
            ("MB.bin", None),
            ("99999999999MB.bin", None),
            ("1MB.bin/", None),
        ] {
            assert_eq!(Download::named(name), expected, "{name}");
        }
    }
}
