//! The app's files, in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::header::HeaderValue;

/// Most files of an app.
pub const MAX_FILES: usize = 256;

/// Largest file, in bytes.
pub const MAX_FILE: u64 = 4 << 20;

/// Most bytes of all files together: they stay in memory, unpacked and packed.
pub const MAX_TOTAL: u64 = 16 << 20;

/// How deep directories may nest.
const MAX_DEPTH: usize = 4;

/// Why a directory can't be served.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or directory can't be read.
    #[error("the app's {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large to be ours.
    #[error(
        "the app in {} is larger than an app of ours: is it the right directory?", .0.display()
    )]
    TooLarge(PathBuf),
    /// It has no `index.html`.
    #[error("there is no app in {} (no index.html): `make app` builds it", .0.display())]
    NoApp(PathBuf),
}

/// One file.
pub(super) struct File {
    pub(super) content_type: &'static str,
    pub(super) tag: HeaderValue,
    pub(super) plain: Bytes,
    /// The same, with gzip, where the build made one.
    pub(super) packed: Option<Bytes>,
}

/// All files by their path, which begins with `/`.
pub(super) struct Files(BTreeMap<String, File>);

impl Files {
    pub(super) fn read(directory: &Path) -> Result<Self, FilesError> {
        let mut raw = BTreeMap::new();
        let mut total = 0;
        collect(directory, directory, MAX_DEPTH, &mut raw, &mut total)?;
        if !raw.contains_key("/index.html") {
            return Err(FilesError::NoApp(directory.to_owned()));
        }
        let files = raw.iter().filter(|(path, _)| !path.ends_with(".gz")).map(|(path, plain)| {
            let packed = raw.get(&format!("{path}.gz")).cloned();
            let file =
                File { content_type: content_type(path), tag: tag(plain), plain: plain.clone(), packed };
            (path.clone(), file)
        });
        Ok(Self(files.collect()))
    }

    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.0.get(path)
    }
}

fn collect(
    root: &Path,
    directory: &Path,
    depth: usize,
    files: &mut BTreeMap<String, Bytes>,
    total: &mut u64,
) -> Result<(), FilesError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FilesError::Read { path, source }
    };
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let about = std::fs::metadata(&path).map_err(failed(&path))?;
        if about.is_dir() {
            if depth == 0 {
                return Err(FilesError::TooLarge(root.to_owned()));
            }
            collect(root, &path, depth - 1, files, total)?;
            continue;
        }
        *total += about.len();
        if about.len() > MAX_FILE || *total > MAX_TOTAL || files.len() >= MAX_FILES {
            return Err(FilesError::TooLarge(root.to_owned()));
        }
        // A name that is not UTF-8 is none of ours.
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
        files.insert(format!("/{name}"), std::fs::read(&path).map_err(failed(&path))?.into());
    }
    Ok(())
}

fn tag(content: &[u8]) -> HeaderValue {
    let hash = ring::digest::digest(&ring::digest::SHA256, content);
    let text: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("\"{text}\"")).expect("hexadecimal in quotes is a header")
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
