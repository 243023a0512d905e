//! The names in a state directory.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Layout { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// sled's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// There when the creation of the database was finished.
    pub(crate) fn marker(&self) -> PathBuf {
        self.store().join("ok")
    }

    /// sled's log, where everything is.
    pub(crate) fn db(&self) -> PathBuf {
        self.store().join("db")
    }

    /// sled's settings.
    pub(crate) fn conf(&self) -> PathBuf {
        self.store().join("conf")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The mirror's newest generation.
    pub(crate) fn mirror(&self) -> PathBuf {
        self.root.join("vital.cbor")
    }

    /// The mirror's previous generation.
    pub(crate) fn mirror_older(&self) -> PathBuf {
        self.root.join("vital.cbor.1")
    }

    /// The mirror being written.
    pub(crate) fn mirror_new(&self) -> PathBuf {
        self.root.join("vital.cbor.new")
    }
}
