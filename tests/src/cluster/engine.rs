//! Three real nodes of NATS on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::farm::PATIENCE;
use crate::harness::{HarnessError, Process, free_port, http, until};

/// Nodes of the engine: any one may die.
pub(super) const NODES: usize = 3;

/// One node. It keeps its ports and its files from start to start.
pub(super) struct Node {
    name: String,
    config: PathBuf,
    pub(super) clients: SocketAddr,
    monitor: SocketAddr,
    process: Option<Process>,
}

/// Whether NATS is installed.
pub(super) fn is_there() -> bool {
    Command::new("nats-server").arg("--version").output().is_ok()
}

/// All nodes, not running yet.
pub(super) fn nodes(dir: &Path) -> Result<Vec<Node>, HarnessError> {
    let routes = (0..NODES).map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<String> = routes.iter().map(|route| format!("nats://{route}")).collect();
    let node = |(number, route): (usize, &SocketAddr)| {
        let name = format!("n{}", number + 1);
        let (clients, monitor) = (free_port()?, free_port()?);
        let config = dir.join(format!("{name}.conf"));
        let text = format!(
            "server_name: {name}\nlisten: \"{clients}\"\nhttp: \"{monitor}\"\n\
             jetstream {{ store_dir: {:?}, max_memory_store: 64MB, max_file_store: 256MB }}\n\
             cluster {{ name: farm, listen: \"{route}\", routes: [{}] }}\n",
            dir.join(&name),
            all.join(", "),
        );
        std::fs::write(&config, text)
            .map_err(|source| HarnessError::Io { doing: format!("writing {}", config.display()), source })?;
        Ok(Node { name, config, clients, monitor, process: None })
    };
    routes.iter().enumerate().map(node).collect()
}

impl Node {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its URL for brokers.
    pub(super) fn url(&self) -> String {
        format!("nats://{}", self.clients)
    }

    pub(super) fn start(&mut self) -> Result<(), HarnessError> {
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(&self.config);
        self.process = Some(Process::spawn("nats-server", &mut command)?);
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<(), HarnessError> {
        if let Some(process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Waits until it has everything that the others have.
    pub(super) fn wait_until_whole(&self) -> Result<Duration, HarnessError> {
        let healthy = || {
            let answer = http::get(self.monitor, "/healthz").ok()?;
            answer.text().contains("\"ok\"").then_some(())
        };
        Ok(until(&format!("{} of NATS to have caught up", self.name), PATIENCE, healthy)?.1)
    }
}
