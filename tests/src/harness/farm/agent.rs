//! `farm-agent` as the farmer handles it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::watch::{Watch, json};
use super::{Daemon, PATIENCE, Place, make_dir};
use crate::harness::{HarnessError, run};

/// What goes into `farm-agent.toml`.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The farm's name.
    pub name: String,
    /// The broker's URL.
    pub broker: String,
    /// The one-time token of the first start.
    pub enrollment_token: Option<String>,
    /// What the phone may reach.
    pub services: Vec<Service>,
}

/// One `[[services]]` entry.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `http` or `tcp`.
    pub kind: &'static str,
    /// `ADDRESS:PORT`.
    pub address: String,
}

impl Service {
    /// A web page.
    #[must_use]
    pub fn http(name: &str, address: &str) -> Self {
        Self::new(name, "http", address)
    }

    /// Anything else over TCP.
    #[must_use]
    pub fn tcp(name: &str, address: &str) -> Self {
        Self::new(name, "tcp", address)
    }

    fn new(name: &str, kind: &'static str, address: &str) -> Self {
        Self { name: name.to_owned(), kind, address: address.to_owned() }
    }
}

impl AgentConfig {
    fn toml(&self) -> String {
        // A JSON string is a TOML basic string (both escape with a backslash).
        let quoted = |text: &str| Value::from(text).to_string();
        let mut out = format!("name = {}\nbroker = {}\n", quoted(&self.name), quoted(&self.broker));
        if let Some(token) = &self.enrollment_token {
            out.push_str(&format!("enrollment_token = {}\n", quoted(token)));
        }
        for service in &self.services {
            out.push_str(&format!(
                "\n[[services]]\nname = {}\nkind = {}\naddress = {}\n",
                quoted(&service.name),
                quoted(service.kind),
                quoted(&service.address)
            ));
        }
        out
    }
}

/// An agent with its configuration and state directory.
pub struct Agent {
    /// The program.
    pub daemon: Daemon,
    /// Commands to it.
    pub control: AgentControl,
    config: PathBuf,
}

impl Agent {
    /// An agent whose files lie in `dir`, not running yet.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn new(place: Place, dir: &Path, config: &AgentConfig) -> Result<Self, HarnessError> {
        let (path, state) = (dir.join("farm-agent.toml"), dir.join("state"));
        make_dir(&state)?;
        let arguments = vec![
            "run".into(),
            "--config".into(),
            path.clone().into(),
            "--state".into(),
            state.clone().into(),
        ];
        let agent = Self {
            daemon: Daemon::new(place.clone(), "farm-agent", arguments, |line| line.text.contains("ready")),
            control: AgentControl { place, state },
            config: path,
        };
        agent.configure(config)?;
        Ok(agent)
    }

    /// Writes the configuration anew.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn configure(&self, config: &AgentConfig) -> Result<(), HarnessError> {
        std::fs::write(&self.config, config.toml()).map_err(|source| HarnessError::Io {
            doing: format!("writing {}", self.config.display()),
            source,
        })
    }
}

/// The farmer's commands to an agent, running or not.
#[derive(Clone)]
pub struct AgentControl {
    place: Place,
    state: PathBuf,
}

impl AgentControl {
    /// A fresh pairing link.
    ///
    /// # Errors
    /// When the command fails or has no `link`.
    pub fn invite(&self) -> Result<String, HarnessError> {
        let answer = self.ask(["invite", "--json"])?;
        let link = answer["link"].as_str();
        link.map(str::to_owned).ok_or_else(|| HarnessError::Unexpected {
            name: "farm-agent invite".to_owned(),
            expected: "an object with a link",
            got: answer.to_string(),
        })
    }

    /// `farm-agent status --json`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn status(&self) -> Result<Value, HarnessError> {
        self.ask(["status", "--json"])
    }

    /// `farm-agent status --json --watch`, running until dropped.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn watch(&self) -> Result<Watch, HarnessError> {
        let mut command = self.command(["status", "--json", "--watch"])?;
        Watch::start("farm-agent status --watch", &mut command)
    }

    /// Any command that answers in JSON, e.g. `["phones", "--json"]`.
    ///
    /// # Errors
    /// When the command fails or prints no JSON.
    pub fn ask<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Value, HarnessError> {
        let mut command = self.command(arguments)?;
        json("farm-agent", &run("farm-agent", &mut command, PATIENCE)?.stdout)
    }

    /// A command on the agent's state.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command, HarnessError> {
        let mut command = self.place.command("farm-agent")?;
        command.args(arguments).arg("--state").arg(&self.state);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_the_documented_one() {
        let config = AgentConfig {
            name: "North \"field\"".to_owned(),
            broker: "ws://127.0.0.1:1".to_owned(),
            enrollment_token: Some("abc".to_owned()),
            services: vec![Service::http("greenhouse", "127.0.0.1:8080")],
        };
        let expected = "name = \"North \\\"field\\\"\"\nbroker = \"ws://127.0.0.1:1\"\n\
            enrollment_token = \"abc\"\n\n[[services]]\nname = \"greenhouse\"\n\
            kind = \"http\"\naddress = \"127.0.0.1:8080\"\n";
        assert_eq!(config.toml(), expected);
    }
}
