//! `farm-broker` as its operator handles it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Daemon, PATIENCE, Place, make_dir};
use crate::harness::{HarnessError, run};

/// Where `make app` puts the phone app in this source tree.
#[must_use]
pub fn app_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../app/dist")
}

/// A broker with its state directory.
pub struct Broker {
    /// The program.
    pub daemon: Daemon,
    place: Place,
    state: PathBuf,
    url: String,
}

impl Broker {
    /// A broker that will listen on `listen`, not running yet; the others call
    /// it by `name`, else by its address.
    ///
    /// # Errors
    /// When the state directory can't be made.
    pub fn new(
        place: Place,
        state: &Path,
        listen: SocketAddr,
        name: Option<&str>,
    ) -> Result<Self, HarnessError> {
        make_dir(state)?;
        let url = match name {
            Some(name) => format!("ws://{name}:{}", listen.port()),
            None => format!("ws://{listen}"),
        };
        let mut arguments: Vec<OsString> = vec![
            "serve".into(),
            "--listen".into(),
            listen.to_string().into(),
            "--state".into(),
            state.into(),
        ];
        let app = app_files();
        if app.join("index.html").is_file() {
            arguments.extend(["--app".into(), app.into()]);
        }
        if name.is_some() {
            arguments.extend(["--public-url".into(), url.clone().into()]);
        }
        Ok(Self {
            daemon: Daemon::new(place.clone(), "farm-broker", arguments, |line| {
                line.text.contains("listening")
            }),
            place,
            state: state.to_owned(),
            url,
        })
    }

    /// Gives it a config file, from its next start on.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn configure(&mut self, file: &Path, text: &str) -> Result<(), HarnessError> {
        std::fs::write(file, text)
            .map_err(|source| HarnessError::Io { doing: format!("writing {}", file.display()), source })?;
        self.daemon.add_arguments(["--config".into(), file.into()]);
        Ok(())
    }

    /// The URL for agents and phones.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
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
