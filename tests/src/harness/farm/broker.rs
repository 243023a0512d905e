//! `farm-broker` as its operator handles it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Daemon, PATIENCE, Place, make_dir};
use crate::harness::{HarnessError, run};

/// A broker with its state directory.
pub struct Broker {
    /// The program.
    pub daemon: Daemon,
    place: Place,
    state: PathBuf,
    listen: SocketAddr,
}

impl Broker {
    /// A broker that will listen on `listen`, not running yet.
    ///
    /// # Errors
    /// When the state directory can't be made.
    pub fn new(place: Place, state: &Path, listen: SocketAddr) -> Result<Self, HarnessError> {
        make_dir(state)?;
        let arguments = vec![
            "serve".into(),
            "--listen".into(),
            listen.to_string().into(),
            "--state".into(),
            state.into(),
        ];
        Ok(Self {
            daemon: Daemon::new(place.clone(), "farm-broker", arguments, |line| {
                line.text.contains("listening")
            }),
            place,
            state: state.to_owned(),
            listen,
        })
    }

    /// The URL for agents and phones.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.listen)
    }

    /// A fresh enrollment token.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn enroll(&self) -> Result<String, HarnessError> {
        let mut command = self.place.command("farm-broker")?;
        command.args(["enroll", "--state"]).arg(&self.state);
        let done = run("farm-broker enroll", &mut command, PATIENCE)?;
        let token = done.stdout.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(HarnessError::Unexpected {
                name: "farm-broker enroll".to_owned(),
                expected: "a token alone",
                got: done.stdout,
            });
        }
        Ok(token.to_owned())
    }
}
