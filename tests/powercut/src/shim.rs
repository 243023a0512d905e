//! Builds the recorder (`shim.c`) and starts programs under it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shim.c");

/// The built recorder.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
}

/// What the recorder is to do.
#[derive(Debug, Clone, Default)]
pub struct Orders<'a> {
    /// The directory whose files count.
    pub dir: &'a str,
    /// Where the record goes.
    pub record: Option<&'a Path>,
    /// The file to which the program announces.
    pub announcements: Option<&'a Path>,
    /// Leave out fsyncs of files whose path ends so.
    pub unsync: Option<&'a str>,
    /// `CALL:AFTER:TIMES:ERRNO`.
    pub fail: Option<&'a str>,
}

impl Shim {
    /// Builds it into `dir` with the system's C compiler.
    ///
    /// # Errors
    /// When there is none, or it refuses.
    pub fn build(dir: &Path) -> Result<Self, Failure> {
        let library = dir.join("powercut.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let output = Command::new(&compiler)
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(SOURCE)
            .args(["-ldl", "-lpthread"])
            .output()
            .map_err(|e| format!("{compiler}: {e}: a C compiler is needed (apt-get install gcc)"))?;
        if !output.status.success() {
            return Err(format!("{compiler}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(Self { library })
    }

    /// Puts a program under the recorder.
    pub fn preload(&self, command: &mut Command, orders: &Orders<'_>) {
        command.envs(self.environment(orders));
    }

    /// What a program needs in its environment for that. Paths that are not
    /// UTF-8 are left out.
    #[must_use]
    pub fn environment(&self, orders: &Orders<'_>) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.to_str().map(str::to_owned);
        let all = [
            ("LD_PRELOAD", path(&self.library)),
            ("POWERCUT_DIR", Some(orders.dir.to_owned())),
            ("POWERCUT_LOG", orders.record.and_then(path)),
            ("POWERCUT_ACKS", orders.announcements.and_then(path)),
            ("POWERCUT_UNSYNC", orders.unsync.map(str::to_owned)),
            ("POWERCUT_FAIL", orders.fail.map(str::to_owned)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
