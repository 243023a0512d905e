//! The mirror: the vital records and the high-water mark in a checksummed CBOR
//! file of two generations, so that they outlive the database.

use std::{
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use crate::{
    codec,
    error::{Doing, OpenError},
    files,
    layout::Layout,
    meta::Meta,
    vital::{MAX_VITAL_BYTES, Vital},
};

/// Version of the file's own format.
const FORMAT: u32 = 1;

/// The largest mirror read: what the largest vital tables take, and as much
/// again for the encoding of very small records.
const MAX_FILE_BYTES: u64 = 2 * MAX_VITAL_BYTES as u64 + 4096;

/// What a mirror holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) meta: Meta,
    pub(crate) vital: Vital,
}

/// What was found on the disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The newest readable generation.
    pub(crate) best: Option<Mirror>,
    /// Generations that are damaged, or missing where one must be.
    pub(crate) damaged: Vec<(PathBuf, String)>,
}

/// The file: an envelope around the encoded body and its checksum.
#[derive(Serialize, Deserialize)]
struct Envelope<B> {
    format: u32,
    crc32: u32,
    body: B,
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Deserialize<'de>"))]
struct Body<B> {
    schema: u32,
    commit: u64,
    vital_commit: u64,
    records: Vec<(B, B)>,
}

enum Generation {
    Whole(Mirror),
    Damaged(String),
    Missing,
}

/// Looks for the newest whole generation. Changes nothing.
pub(crate) fn find(layout: &Layout) -> Result<Found, OpenError> {
    let mut found = Found::default();
    // An interrupted write may have moved the newest generation away already;
    // the one that was to replace it was complete by then.
    let candidates = match read(&layout.mirror())? {
        Generation::Missing => match read(&layout.mirror_new())? {
            whole @ Generation::Whole(_) => (layout.mirror_new(), whole),
            _ => (layout.mirror(), Generation::Missing),
        },
        other => (layout.mirror(), other),
    };
    let older = (layout.mirror_older(), read(&layout.mirror_older())?);
    let nothing = matches!(candidates.1, Generation::Missing) && matches!(older.1, Generation::Missing);
    if let Generation::Missing = candidates.1
        && !nothing
    {
        found.damaged.push((candidates.0.clone(), "missing".to_owned()));
    }
    for (path, generation) in [candidates, older] {
        match generation {
            Generation::Whole(mirror) => {
                let newest = found.best.get_or_insert_with(|| mirror.clone());
                if mirror.meta.commit > newest.meta.commit {
                    *newest = mirror;
                }
            }
            Generation::Damaged(why) => found.damaged.push((path, why)),
            Generation::Missing => {}
        }
    }
    Ok(found)
}

/// Writes a new generation, the newest becomes the older one. Durable when it
/// returns; gives the bytes written.
pub(crate) fn write(layout: &Layout, meta: &Meta, vital: &Vital) -> Result<u64, OpenError> {
    let contents = encode(meta, vital).map_err(|why| OpenError::Io {
        doing: "encoding",
        path: layout.mirror(),
        source: io::Error::new(ErrorKind::InvalidData, why),
    })?;
    let (new, newest) = (layout.mirror_new(), layout.mirror());
    files::write_synced(&new, &contents).doing("writing", &new)?;
    if files::is_there(&newest).doing("looking at", &newest)? {
        std::fs::rename(&newest, layout.mirror_older()).doing("renaming", &newest)?;
    }
    // Both renames are in one directory, whose fsync makes them durable.
    files::rename_synced(&new, &newest).doing("renaming", &new)?;
    Ok(contents.len() as u64)
}

/// Moves a damaged generation out of the way, so that `write` does not let it
/// take the place of a whole one. Kept under another name for a look at it.
pub(crate) fn set_aside(path: &Path) -> Result<(), OpenError> {
    let mut to = path.as_os_str().to_owned();
    to.push(".damaged");
    if files::is_there(path).doing("looking at", path)? {
        files::rename_synced(path, Path::new(&to)).doing("renaming", path)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Generation, OpenError> {
    let mut contents = Vec::new();
    let result =
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents));
    Ok(match result {
        Ok(_) => match decode(&contents) {
            Ok(mirror) => Generation::Whole(mirror),
            Err(why) => Generation::Damaged(why),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Generation::Missing,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(OpenError::from_io("reading", path, e));
        }
        // A sector that can't be read: this generation is lost, and it is
        // redundant. No reason not to start.
        Err(e) => Generation::Damaged(format!("unreadable: {e}")),
    })
}

fn encode(meta: &Meta, vital: &Vital) -> Result<Vec<u8>, String> {
    let body = codec::encode(&Body {
        schema: meta.schema,
        commit: meta.commit,
        vital_commit: meta.vital_commit,
        records: vital.iter().map(|(raw, stored)| (Bytes::new(raw), Bytes::new(stored))).collect(),
    })?;
    wrap(&body)
}

fn wrap(body: &[u8]) -> Result<Vec<u8>, String> {
    codec::encode(&Envelope { format: FORMAT, crc32: crc32fast::hash(body), body: Bytes::new(body) })
}

fn decode(contents: &[u8]) -> Result<Mirror, String> {
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err("too large".to_owned());
    }
    let envelope: Envelope<ByteBuf> = codec::decode(contents)?;
    if envelope.crc32 != crc32fast::hash(&envelope.body) {
        return Err("its checksum does not hold".to_owned());
    }
    if envelope.format != FORMAT {
        return Err(format!("unknown format {}", envelope.format));
    }
    // The checksum is of the body; the decoder takes more than one spelling of
    // what is around it (a byte string for a text), and a flip is a flip.
    if wrap(&envelope.body)? != contents {
        return Err("its envelope is not as it was written".to_owned());
    }
    let body: Body<ByteBuf> = codec::decode(&envelope.body)?;
    let mut vital = Vital::default();
    for (raw, stored) in body.records {
        vital.set(raw.into_vec(), Some(stored.into_vec()));
    }
    Ok(Mirror {
        meta: Meta { schema: body.schema, commit: body.commit, vital_commit: body.vital_commit },
        vital,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mirror(commit: u64) -> Mirror {
        let mut vital = Vital::default();
        vital.set(b"vphones\0a".to_vec(), Some(vec![commit as u8; 40]));
        Mirror { meta: Meta { schema: 2, commit, vital_commit: commit }, vital }
    }

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        (dir, layout)
    }

    fn put(layout: &Layout, mirror: &Mirror) {
        write(layout, &mirror.meta, &mirror.vital).unwrap();
    }

    #[test]
    fn the_newest_generation_is_found_and_the_older_kept() {
        let (_dir, layout) = layout();
        assert!(find(&layout).unwrap().best.is_none());
        for commit in 1..=3 {
            put(&layout, &mirror(commit));
            let found = find(&layout).unwrap();
            assert_eq!(found.best, Some(mirror(commit)));
            assert!(found.damaged.is_empty());
        }
        fs::remove_file(layout.mirror()).unwrap();
        let found = find(&layout).unwrap();
        assert_eq!(found.best, Some(mirror(2)));
        assert_eq!(found.damaged.len(), 1, "a vanished generation is reported");
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_the_older_generation_serves() {
        let (_dir, layout) = layout();
        put(&layout, &mirror(1));
        put(&layout, &mirror(2));
        let whole = fs::read(layout.mirror()).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(layout.mirror(), &flipped).unwrap();
            let found = find(&layout).unwrap();
            assert_eq!(found.best, Some(mirror(1)), "bit {bit}");
            assert_eq!(found.damaged.len(), 1, "bit {bit}");
        }
        for len in 0..whole.len() {
            fs::write(layout.mirror(), &whole[..len]).unwrap();
            assert_eq!(find(&layout).unwrap().best, Some(mirror(1)), "cut to {len}");
        }
        // Set aside, it can't push the whole one out.
        set_aside(&layout.mirror()).unwrap();
        put(&layout, &mirror(3));
        assert_eq!(find(&layout).unwrap().best, Some(mirror(3)));
        assert!(find(&layout).unwrap().damaged.is_empty());
        fs::remove_file(layout.mirror()).unwrap();
        assert_eq!(find(&layout).unwrap().best, Some(mirror(1)));
    }

    #[test]
    fn an_interrupted_write_is_no_damage() {
        let (_dir, layout) = layout();
        put(&layout, &mirror(1));
        let old = fs::read(layout.mirror()).unwrap();
        put(&layout, &mirror(2));
        // Before the renames, torn.
        fs::write(layout.mirror_new(), &old[..old.len() / 2]).unwrap();
        assert_eq!(find(&layout).unwrap().best, Some(mirror(2)));
        assert!(find(&layout).unwrap().damaged.is_empty());
        // Between the renames.
        fs::rename(layout.mirror(), layout.mirror_older()).unwrap();
        fs::write(layout.mirror_new(), encode(&mirror(3).meta, &mirror(3).vital).unwrap()).unwrap();
        assert_eq!(find(&layout).unwrap().best, Some(mirror(3)));
        assert!(find(&layout).unwrap().damaged.is_empty());
        put(&layout, &mirror(4));
        assert_eq!(find(&layout).unwrap().best, Some(mirror(4)));
    }

    #[test]
    fn hostile_lengths_take_no_memory() {
        let (_dir, layout) = layout();
        // An array that claims 2^40 entries.
        fs::write(layout.mirror(), [0x9b, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap();
        assert!(find(&layout).unwrap().best.is_none());
    }
}
