//! What both ends of a TLS 1.3 connection alone know, from the library that
//! has it: its interface without buffers exports nothing, but its key log gives
//! the one secret that exporters are derived from, and no other is asked for.

use std::cell::Cell;

use farm_protocol::channel::{Channel, EXPORTER_LABEL};
use futures_rustls::rustls::KeyLog;
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// Bytes of SHA-256, the hash of all ciphers of TLS 1.3 that are spoken here.
const HASH: usize = 32;

/// What the library calls it.
const LABEL: &str = "EXPORTER_SECRET";

thread_local! {
    /// Of the handshake that this thread did last, until somebody takes it.
    static SECRET: Cell<Option<[u8; HASH]>> = const { Cell::new(None) };
}

/// Keeps the secret of the handshake that is being done.
#[derive(Debug)]
pub(super) struct Exporter;

impl KeyLog for Exporter {
    fn will_log(&self, label: &str) -> bool {
        label == LABEL
    }

    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == LABEL {
            SECRET.set(secret.try_into().ok());
        }
    }
}

/// What both ends know, if a handshake on this thread came that far since this
/// was asked last.
pub(super) fn take() -> Option<Channel> {
    SECRET.take().map(|secret| Channel::from_bytes(export(&secret, EXPORTER_LABEL)))
}

/// TLS-Exporter of RFC 8446 section 7.5, with an empty context.
fn export(secret: &[u8; HASH], label: &[u8]) -> [u8; HASH] {
    let empty = digest(&SHA256, &[]);
    let derived = expand_label(secret, label, empty.as_ref());
    expand_label(&derived, b"exporter", empty.as_ref())
}

/// HKDF-Expand-Label (RFC 8446 section 7.1) to the length of the hash, which is
/// one round of HKDF-Expand (RFC 5869 section 2.3).
fn expand_label(secret: &[u8; HASH], label: &[u8], context: &[u8]) -> [u8; HASH] {
    const PREFIX: &[u8] = b"tls13 ";
    let length = |bytes: usize| u8::try_from(bytes).expect("labels and hashes are short");
    let info = [
        &[0, length(HASH)][..],
        &[length(PREFIX.len() + label.len())],
        PREFIX,
        label,
        &[length(context.len())],
        context,
        &[1],
    ]
    .concat();
    let mut out = [0; HASH];
    out.copy_from_slice(sign(&Key::new(HMAC_SHA256, secret), &info).as_ref());
    out
}
