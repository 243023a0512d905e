//! The bytes of a download: pseudo-random, the same for everybody, different at
//! every offset, and made without copying, so that the server is never the
//! bottleneck of a measurement.

use std::sync::LazyLock;

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use crate::harness::hex;

/// One megabyte as download names count it (SI: 1,000,000 bytes).
pub const MEGABYTE: u64 = 1_000_000;
/// The largest download, megabytes.
pub const MAX_MEGABYTES: u32 = 4_096;
/// The largest piece [`piece`] gives: large enough that per-piece costs vanish,
/// small enough that a slow reader pins little.
pub const PIECE: usize = 256 * 1024;

const BLOCK: usize = 1 << 20;
/// Any odd number gives each of 2^20 consecutive blocks a rotation of its own.
const ROTATION_STEP: u64 = 0x9_E377;

/// One block of noise, twice in a row, so that every rotation of it is a slice.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x6661_726D_u64;
    let mut block = Vec::with_capacity(2 * BLOCK);
    while block.len() < BLOCK {
        // xorshift64* (Vigna 2016): plenty for bytes that only have to differ.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        block.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    block.extend_from_within(..);
    Bytes::from(block)
});

/// The bytes at `offset`, up to the end of their block, at most `most` and at
/// most [`PIECE`]; empty only when `most` is 0.
#[must_use]
pub fn piece(offset: u64, most: u64) -> Bytes {
    let block = offset / BLOCK as u64;
    let within = (offset % BLOCK as u64) as usize;
    let rotation = (block.wrapping_mul(ROTATION_STEP) % BLOCK as u64) as usize;
    let length = (BLOCK - within).min(PIECE).min(usize::try_from(most).unwrap_or(PIECE));
    let start = rotation + within;
    NOISE.slice(start..start + length)
}

/// The SHA-256 of the first `length` bytes, in hex. Reads them all: 0.5–1 s a
/// gigabyte, so not on an async executor's thread.
#[must_use]
pub fn sha256(length: u64) -> String {
    let mut hash = Context::new(&SHA256);
    let mut offset = 0;
    while offset < length {
        let bytes = piece(offset, length - offset);
        hash.update(&bytes);
        offset += bytes.len() as u64;
    }
    hex(hash.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(mut offset: u64, length: u64, step: u64) -> Vec<u8> {
        let end = offset + length;
        let mut out = Vec::new();
        while offset < end {
            let bytes = piece(offset, step.min(end - offset));
            out.extend_from_slice(&bytes);
            offset += bytes.len() as u64;
        }
        out
    }

    #[test]
    fn the_way_it_is_read_does_not_change_what_is_read() {
        let whole = read(0, 3 * BLOCK as u64, u64::MAX);
        assert_eq!(whole, read(0, 3 * BLOCK as u64, 1_000));
        assert_eq!(whole[777_777..2_777_777], read(777_777, 2_000_000, 4_093));
    }

    #[test]
    fn no_two_blocks_of_the_largest_download_are_alike() {
        let blocks = u64::from(MAX_MEGABYTES) * MEGABYTE / BLOCK as u64 + 1;
        let starts: BTreeSet<_> = (0..blocks).map(|block| piece(block * BLOCK as u64, 32)).collect();
        assert_eq!(starts.len() as u64, blocks);
    }

    #[test]
    fn the_digest_is_that_of_the_bytes() {
        let bytes = read(0, MEGABYTE + 1, 999);
        let expected = ring::digest::digest(&SHA256, &bytes);
        assert_eq!(sha256(MEGABYTE + 1), hex(expected.as_ref()));
        assert_ne!(sha256(MEGABYTE), sha256(MEGABYTE + 1));
    }
}
