//! The one record the store keeps about itself, written with every group.

use crate::codec;

/// Its raw key: after those of all tables, so that where a group is not written
/// atomically this record comes last. If it is there, all of its group is.
pub(crate) const META_KEY: &[u8] = b"z";

const BYTES: usize = 4 + 8 + 8;

/// Where a store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// Schema of the data.
    pub(crate) schema: u32,
    /// Number of the newest group commit.
    pub(crate) commit: u64,
    /// Number of the newest one that changed a vital table. Two copies of the
    /// vital records with the same number are equal, or one is damaged.
    pub(crate) vital_commit: u64,
}

impl Meta {
    pub(crate) fn seal(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(BYTES);
        value.extend_from_slice(&self.schema.to_be_bytes());
        value.extend_from_slice(&self.commit.to_be_bytes());
        value.extend_from_slice(&self.vital_commit.to_be_bytes());
        codec::seal(META_KEY, &value)
    }

    pub(crate) fn unseal(stored: &[u8]) -> Option<Self> {
        let value = codec::unseal(META_KEY, stored)?;
        let (schema, value) = value.split_first_chunk()?;
        let (commit, value) = value.split_first_chunk()?;
        Some(Meta {
            schema: u32::from_be_bytes(*schema),
            commit: u64::from_be_bytes(*commit),
            vital_commit: u64::from_be_bytes(value.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back() {
        let meta = Meta { schema: 3, commit: u64::MAX - 1, vital_commit: 1 << 40 };
        assert_eq!(Meta::unseal(&meta.seal()), Some(meta));
        assert_eq!(Meta::unseal(&codec::seal(META_KEY, &[0; BYTES - 1])), None);
        assert_eq!(Meta::unseal(&codec::seal(META_KEY, &[0; BYTES + 1])), None);
    }
}
