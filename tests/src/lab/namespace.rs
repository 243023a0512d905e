//! Network namespaces: made, entered, configured, and taken away again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

use super::LabError;
use crate::harness::farm::Place;
use crate::harness::{HarnessError, run};

/// A configuration command is done in milliseconds; it may wait for the
/// kernel's lock.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where iproute2 keeps the handles of namespaces.
const HANDLES: &str = "/run/netns";
/// Where iproute2 looks for files that replace those of /etc in a namespace.
const FILES: &str = "/etc/netns";
/// All names begin so; the process id follows.
const PREFIX: &str = "farmlab";

/// Why the lab can't run on this machine, for the user.
#[must_use]
pub fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let tools = [("ip", "iproute2"), ("nft", "nftables"), ("conntrack", "conntrack")];
    for (program, package) in tools {
        if Command::new(program).arg("--version").output().is_err() {
            return Some(format!("{program} is missing: apt-get install {package}"));
        }
    }
    let probe = format!("{PREFIX}-{}-probe", std::process::id());
    match Namespace::make(&probe).and_then(|namespace| namespace.nft("add table ip probe")) {
        Ok(()) => None,
        Err(error) => Some(format!("this machine makes no network namespaces: {error}")),
    }
}

/// A host of the lab. Removed when dropped.
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// A name of this process's own; `lab` tells several labs apart.
    pub(super) fn name_for(lab: u32, host: &str) -> String {
        format!("{PREFIX}-{}-{lab}-{host}", std::process::id())
    }

    /// Makes it, with loopback up.
    pub(super) fn make(name: &str) -> Result<Self, LabError> {
        command("ip", &["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where programs run in it.
    pub(super) fn place(&self) -> Place {
        Place::namespace(&self.name)
    }

    /// An `ip` command in it, words separated by spaces.
    pub(super) fn ip(&self, words: &str) -> Result<(), LabError> {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split_whitespace());
        command("ip", &arguments)
    }

    /// A ruleset for nftables, applied as one transaction.
    pub(super) fn nft(&self, script: &str) -> Result<(), LabError> {
        command("ip", &["netns", "exec", &self.name, "nft", script])
    }

    /// The standard output of a program run in it.
    pub(super) fn output(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        Ok(run(program, &mut command, PATIENCE)?.stdout)
    }

    /// Forgets every connection that its NAT knows.
    pub(super) fn forget_connections(&self) -> Result<(), LabError> {
        command("ip", &["netns", "exec", &self.name, "conntrack", "--flush"])
    }

    /// Lets it forward packets.
    pub(super) fn forward(&self) -> Result<(), LabError> {
        self.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .map_err(LabError::io("switching forwarding on"))
    }

    /// Gives it a file in place of one of /etc.
    pub(super) fn etc(&self, file: &str, content: &str) -> Result<(), LabError> {
        let dir = Path::new(FILES).join(&self.name);
        let write = || {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join(file), content)
        };
        write().map_err(LabError::io(&format!("writing {}", dir.join(file).display())))
    }

    /// Runs something on a thread inside: sockets it makes belong there, and
    /// stay there wherever they are used.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let handle = self.handle();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                handle.enter()?;
                Ok(work())
            });
            inside.join().map_err(|_| LabError::Wrong("a thread in a namespace died".to_owned()))?
        })
    }

    /// For threads that enter by themselves.
    pub(super) fn handle(&self) -> Handle {
        Handle(Path::new(HANDLES).join(&self.name))
    }
}

/// The way into a namespace.
#[derive(Clone)]
pub(super) struct Handle(PathBuf);

impl Handle {
    /// Moves the calling thread inside, for good.
    pub(super) fn enter(&self) -> Result<(), LabError> {
        let enter = || -> io::Result<()> { Ok(setns(File::open(&self.0)?, CloneFlags::CLONE_NEWNET)?) };
        enter().map_err(LabError::io(&format!("entering {}", self.0.display())))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    // Not through the harness, which starts nothing once it was told to end.
    // What can't be removed is taken by the next lab's sweep.
    let _ = Command::new("ip").args(["netns", "del", name]).output();
    let _ = fs::remove_dir_all(Path::new(FILES).join(name));
}

/// Takes away what labs have left that were killed.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir(HANDLES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name);
        }
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<(), LabError> {
    match run(program, Command::new(program).args(arguments), PATIENCE) {
        Ok(_) => Ok(()),
        Err(HarnessError::Program { problem, output, .. }) => {
            // nft repeats the whole script under each error.
            let said: Vec<_> =
                output.lines().map(str::trim).filter(|line| line.starts_with("Error")).collect();
            let said = if said.is_empty() { output.trim().to_owned() } else { said.join("; ") };
            Err(LabError::Wrong(format!("{program} {} {problem}: {said}", arguments.join(" "))))
        }
        Err(error) => Err(error.into()),
    }
}
