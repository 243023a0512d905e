//! Keys as bytes whose order is the order of the values, so that ranges and
//! `last` work on the typed key.

/// A key of a [`Table`](crate::Table).
///
/// `write` must preserve order: for any two keys, comparing their bytes gives
/// the same answer as comparing the keys.
pub trait Key: Sized {
    /// Appends the key's bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a key from exactly these bytes, `None` when they are not one.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// A key that always has the same length, so that it can come first in a pair.
pub trait FixedKey: Key {
    /// Its length in bytes.
    const WIDTH: usize;
}

/// The key of a table with one record.
impl Key for () {
    fn write(&self, _out: &mut Vec<u8>) {}

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

macro_rules! unsigned_key {
    ($($type:ty),*) => {$(
        impl Key for $type {
            fn write(&self, out: &mut Vec<u8>) {
                // Big-endian: the most significant byte decides first.
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_be_bytes)
            }
        }

        impl FixedKey for $type {
            const WIDTH: usize = size_of::<$type>();
        }
    )*};
}

unsigned_key!(u8, u16, u32, u64);

impl<const N: usize> Key for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl<const N: usize> FixedKey for [u8; N] {
    const WIDTH: usize = N;
}

impl Key for String {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// Ordered by the first part, then by the second; the first has a fixed width
/// so that no two pairs share their bytes.
impl<A: FixedKey, B: Key> Key for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (first, second) = bytes.split_at_checked(A::WIDTH)?;
        Some((A::read(first)?, B::read(second)?))
    }
}

impl<A: FixedKey, B: FixedKey> FixedKey for (A, B) {
    const WIDTH: usize = A::WIDTH + B::WIDTH;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of<K: Key>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.write(&mut out);
        out
    }

    fn check<K: Key + Ord + std::fmt::Debug>(a: &K, b: &K) {
        assert_eq!(a.cmp(b), bytes_of(a).cmp(&bytes_of(b)), "{a:?} {b:?}");
        assert_eq!(K::read(&bytes_of(a)).as_ref(), Some(a));
    }

    proptest! {
        #[test]
        fn bytes_keep_the_order_and_read_back(
            numbers in any::<(u64, u64)>(),
            arrays in any::<([u8; 5], [u8; 5])>(),
            texts in any::<(String, String)>(),
            pairs in any::<((u16, String), (u16, String))>(),
        ) {
            check(&numbers.0, &numbers.1);
            check(&arrays.0, &arrays.1);
            check(&texts.0, &texts.1);
            check(&pairs.0, &pairs.1);
        }
    }

    #[test]
    fn wrong_lengths_are_not_keys() {
        assert_eq!(u64::read(&[0; 7]), None);
        assert_eq!(<[u8; 2]>::read(&[0; 3]), None);
        assert_eq!(<(u32, u8)>::read(&[0; 4]), None);
        assert_eq!(<(u32, u8)>::read(&[0; 3]), None);
        assert_eq!(<()>::read(&[0]), None);
        assert_eq!(String::read(&[0xff]), None);
    }
}
