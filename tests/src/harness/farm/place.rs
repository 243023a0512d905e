//! Where a program runs: here, or in a network namespace of a lab.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::time::{ClockId, clock_gettime};

use crate::harness::{HarnessError, binary};

/// A host of the test network.
#[derive(Clone, Debug, Default)]
pub struct Place {
    namespace: Option<String>,
    environment: Vec<(&'static str, &'static str)>,
    boot: Option<PathBuf>,
}

/// Where the kernel tells its starts apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether [`Place::rebooted`] works here; else why not.
#[must_use]
pub fn cannot_reboot() -> Option<String> {
    let tried =
        Command::new("unshare").args(["--mount", "--time", "--boottime=1", "--fork", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

impl Place {
    /// This machine's own network.
    #[must_use]
    pub fn here() -> Self {
        Self::default()
    }

    /// A network namespace made with `ip netns add`; needs root.
    #[must_use]
    pub fn namespace(name: &str) -> Self {
        Self { namespace: Some(name.to_owned()), ..Self::default() }
    }

    /// The same place, where programs get an environment variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// The same place after the machine was started anew just now: another start
    /// of the kernel by its own word, and time counted from here. Needs root, and
    /// a kernel with time namespaces: see [`cannot_reboot`]. `boot` is a file with
    /// what the kernel is to call this start.
    #[must_use]
    pub fn rebooted(mut self, boot: &Path) -> Self {
        self.boot = Some(boot.to_owned());
        self
    }

    /// A command that runs one of our programs there. `ip netns exec` replaces
    /// itself by the program, so the process id is the program's.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn command(&self, program: &str) -> Result<Command, HarnessError> {
        let path = binary(program)?;
        let mut command = match &self.namespace {
            None if self.boot.is_some() => self.after_reboot(path),
            None => Command::new(path),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(path);
                command
            }
        };
        command.envs(self.environment.iter().copied());
        Ok(command)
    }

    /// The program is a child of `unshare`, and dies with it.
    fn after_reboot(&self, program: PathBuf) -> Command {
        let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec());
        let script = format!("mount --bind \"$0\" {BOOT_ID} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--time", &format!("--boottime=-{uptime}"), "--fork", "--kill-child=KILL"]);
        command.args(["sh", "-c", &script]).args(&self.boot).arg(program);
        command
    }
}
