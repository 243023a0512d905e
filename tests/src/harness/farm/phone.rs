//! `farm-connect`, the phone's desktop twin, as its user handles it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::watch::{Watch, json};
use super::{PATIENCE, Place, address_in, make_dir};
use crate::harness::{HarnessError, Process, Source, run};

/// A phone with its state directory.
#[derive(Clone)]
pub struct Phone {
    place: Place,
    state: PathBuf,
}

impl Phone {
    /// A phone that knows nobody.
    ///
    /// # Errors
    /// When the state directory can't be made.
    pub fn new(place: Place, state: &Path) -> Result<Self, HarnessError> {
        make_dir(state)?;
        Ok(Self { place, state: state.to_owned() })
    }

    /// Pairs with the farm of an invitation.
    ///
    /// # Errors
    /// When it is refused or takes too long.
    pub fn pair(&self, link: &str) -> Result<(), HarnessError> {
        let mut command = self.command(["pair", link])?;
        run("farm-connect pair", &mut command, PATIENCE).map(drop)
    }

    /// Opens a local port to a service. It listens whatever the farm does; the
    /// first connection through it may have to wait for the tunnel.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn forward(&self, farm: &str, service: &str) -> Result<Forward, HarnessError> {
        self.forward_on(farm, service, "127.0.0.1:0")
    }

    /// The same on a given address.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn forward_on(&self, farm: &str, service: &str, listen: &str) -> Result<Forward, HarnessError> {
        let mut command = self.command(["forward", farm, service, "--listen", listen])?;
        Forward::start(&mut command)
    }

    /// `farm-connect status FARM --json`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn status(&self, farm: &str) -> Result<Value, HarnessError> {
        self.ask(["status", farm, "--json"])
    }

    /// `farm-connect status FARM --json --watch`, running until dropped.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn watch(&self, farm: &str) -> Result<Watch, HarnessError> {
        let mut command = self.command(["status", farm, "--json", "--watch"])?;
        Watch::start("farm-connect status --watch", &mut command)
    }

    /// Any command of the phone's that answers in JSON, e.g. `["farms", "--json"]`.
    ///
    /// # Errors
    /// When the command fails or prints no JSON.
    pub fn ask<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Value, HarnessError> {
        let mut command = self.command(arguments)?;
        let done = run("farm-connect", &mut command, PATIENCE)?;
        json("farm-connect", &done.stdout)
    }

    /// A command of the phone's on its state.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command, HarnessError> {
        let mut command = self.place.command("farm-connect")?;
        command.args(arguments).arg("--state").arg(&self.state);
        Ok(command)
    }
}

/// A running forward.
pub struct Forward {
    /// The program.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Forward {
    /// Starts a forward by this command.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start(command: &mut Command) -> Result<Self, HarnessError> {
        let process = Process::spawn("farm-connect forward", command)?;
        let line = process.wait_for_line("its address", PATIENCE, |line| {
            line.source == Source::Stdout && address_in(&line.text).is_some()
        })?;
        let address = address_in(&line.text).ok_or_else(|| process.failed("no address"))?;
        Ok(Self { process, address })
    }
}
