//! Other tunnels that are there, leading to the same greenhouse over loopback:
//! dumbpipe (peer to peer, QUIC) and rathole (relayed TCP).

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use super::trouble::Trouble;
use crate::harness::http::{self, Request};
use crate::harness::{HarnessError, Process, free_port, until};

/// For one to start: dumbpipe waits up to 5 s at each end for a relay that it
/// does not need here.
const START_WITHIN: Duration = Duration::from_secs(15);
/// One try while it starts.
const TRY: Duration = Duration::from_secs(2);

/// Another tunnel to the greenhouse.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Where it listens and what runs, or why it is not there.
    pub(super) running: Result<Running, Trouble>,
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    programs: Vec<Process>,
}

impl Running {
    pub(super) fn pids(&self) -> Vec<u32> {
        self.programs.iter().map(Process::pid).collect()
    }
}

/// Tunnels on their way up.
pub(super) struct Starting(Vec<JoinHandle<Peer>>);

type Start = fn(&Path, SocketAddr, &Path) -> Result<Running, Trouble>;

impl Starting {
    /// Starts what is in `$PATH`, leading to `target`; files go into `dir`.
    pub(super) fn begin(target: SocketAddr, dir: &Path) -> Result<Self, Trouble> {
        let all: [(&'static str, Start); 2] = [("dumbpipe", dumbpipe), ("rathole", rathole)];
        let mut threads = Vec::new();
        for (name, start) in all {
            let dir = dir.to_owned();
            let work = move || {
                let running = in_path(name)
                    .ok_or_else(|| Trouble::Wrong(format!("{name} is not in $PATH")))
                    .and_then(|program| start(&program, target, &dir));
                Peer { name, running }
            };
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            threads.push(thread.map_err(Trouble::io("starting a thread"))?);
        }
        Ok(Self(threads))
    }

    /// Waits until each is up or has failed.
    pub(super) fn finish(self) -> Vec<Peer> {
        // A panic there was already reported by the panic hook.
        self.0.into_iter().filter_map(|thread| thread.join().ok()).collect()
    }
}

/// A program's file, if it is in `$PATH`.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(executable)
}

fn dumbpipe(program: &Path, target: SocketAddr, _: &Path) -> Result<Running, Trouble> {
    let command = |verb: &str, option: &str, address: SocketAddr| {
        let mut command = Command::new(program);
        command.args([verb, option, &address.to_string()]);
        // Bound to loopback, so that no other path can be chosen.
        command.args(["--ipv4-addr", "127.0.0.1:0", "--ipv6-addr", "[::1]:0"]);
        command
    };
    let listener = Process::spawn("dumbpipe listen-tcp", &mut command("listen-tcp", "--host", target))?;
    let line = listener.wait_for_line("a ticket", START_WITHIN, |line| ticket(&line.text).is_some())?;
    let ticket = ticket(&line.text).ok_or_else(|| listener.failed("no ticket"))?.to_owned();
    let address = free_port()?;
    let mut connect = command("connect-tcp", "--addr", address);
    let connector = Process::spawn("dumbpipe connect-tcp", connect.arg(ticket))?;
    up(address, vec![listener, connector])
}

/// The ticket in the command that dumbpipe recommends.
fn ticket(line: &str) -> Option<&str> {
    line.trim().strip_prefix("dumbpipe connect-tcp ")?.split_whitespace().last()
}

fn rathole(program: &Path, target: SocketAddr, dir: &Path) -> Result<Running, Trouble> {
    let (meeting, address) = (free_port()?, free_port()?);
    let configs = [
        (
            "--server",
            format!(
                "[server]\nbind_addr = \"{meeting}\"\ndefault_token = \"bench\"\n\
                 [server.services.greenhouse]\nbind_addr = \"{address}\"\n"
            ),
        ),
        (
            "--client",
            format!(
                "[client]\nremote_addr = \"{meeting}\"\ndefault_token = \"bench\"\n\
                 [client.services.greenhouse]\nlocal_addr = \"{target}\"\n"
            ),
        ),
    ];
    let mut programs = Vec::new();
    for (role, config) in configs {
        let path = dir.join(format!("rathole{role}.toml"));
        std::fs::write(&path, config).map_err(Trouble::io("writing rathole's configuration"))?;
        programs.push(Process::spawn("rathole", Command::new(program).arg(role).arg(&path))?);
    }
    up(address, programs)
}

/// Waits until the greenhouse answers through it.
fn up(address: SocketAddr, programs: Vec<Process>) -> Result<Running, Trouble> {
    let answers = || {
        if let Some(ended) = programs.iter().find(|program| !program.is_running()) {
            return Some(Err(ended.failed("ended")));
        }
        let response: http::Response = Request::get("/").patience(TRY).send(address).ok()?;
        (response.status == 200).then_some(Ok(()))
    };
    let (result, _) = until("an answer through it", START_WITHIN, answers)?;
    let () = result.map_err(|error: HarnessError| Trouble::from(error))?;
    Ok(Running { address, programs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_found() {
        assert_eq!(ticket("dumbpipe connect-tcp endpointabc"), Some("endpointabc"));
        assert_eq!(ticket("Forwarding incoming requests to '127.0.0.1:1'."), None);
    }

    #[test]
    fn programs_are_found_and_others_not() {
        assert!(in_path("sh").is_some());
        assert!(in_path("no-such-program-at-all").is_none());
    }
}
