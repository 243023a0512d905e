//! A box: qemu with a card in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::card::Card;
use super::{ImageError, doing};
use crate::harness::{Line, Process, run};

/// Emulated, on a loaded machine: a boot takes one minute where nothing else
/// runs. The goals are judged by the suite.
pub(super) const BOOT: Duration = Duration::from_secs(400);

/// One command by SSH: emulated cryptography takes seconds.
const COMMAND: Duration = Duration::from_secs(120);

/// What a running box is made from.
pub(super) struct Machine {
    /// Kernel, RAM disk and command line of the card, taken off it.
    dir: PathBuf,
    /// The private key for the box.
    key: PathBuf,
    /// Where the box's SSH is reached.
    port: u16,
    command_line: String,
}

impl Machine {
    /// Takes from the card what a Pi's firmware would load.
    pub(super) fn of(card: &Card, dir: &Path, key: PathBuf, port: u16) -> Result<Self, ImageError> {
        for name in ["kernel8.img", "initramfs8", "cmdline.txt"] {
            card.take(name, &dir.join(name))?;
        }
        let mut gunzip = Command::new("sh");
        gunzip.arg("-c").arg(r#"gzip -dc <"$0/kernel8.img" >"$0/kernel""#).arg(dir);
        run("gzip", &mut gunzip, COMMAND)?;
        let text =
            doing("reading the kernel's command line", std::fs::read_to_string(dir.join("cmdline.txt")))?;
        // The last console is the one that programs write to.
        let command_line = format!("{} console=ttyAMA0", text.trim());
        Ok(Self { dir: dir.to_owned(), key, port, command_line })
    }

    /// Gives it power. `log` is where every write to the card is recorded;
    /// `clock` another time than this machine's.
    pub(super) fn start(
        &self,
        card: &Card,
        log: Option<&Path>,
        clock: Option<&str>,
    ) -> Result<Guest<'_>, ImageError> {
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args([
            "-M",
            "virt",
            "-cpu",
            "cortex-a53",
            "-smp",
            "2",
            "-m",
            "512",
            "-nographic",
            "-nodefaults",
        ]);
        qemu.args(["-serial", "stdio", "-accel", "tcg,thread=multi"]);
        qemu.arg("-kernel").arg(self.dir.join("kernel")).arg("-initrd").arg(self.dir.join("initramfs8"));
        qemu.args(["-append", &self.command_line]);
        qemu.arg("-blockdev").arg(format!("driver=file,node-name=card,filename={}", card.path().display()));
        let drive = match log {
            None => "card",
            Some(log) => {
                doing("making the log of writes", std::fs::write(log, b""))?;
                qemu.arg("-blockdev").arg(format!("driver=file,node-name=log,filename={}", log.display()));
                qemu.args([
                    "-blockdev",
                    "driver=blklogwrites,node-name=logged,file=card,log=log,log-sector-size=512,log-super-update-interval=1",
                ]);
                "logged"
            }
        };
        qemu.args(["-device", &format!("virtio-blk-device,drive={drive}")]);
        let forward = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.port);
        qemu.args(["-netdev", &forward, "-device", "virtio-net-device,netdev=net"]);
        // The watchdog that systemd feeds; a Pi has its own.
        qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        qemu.args(["-rtc", &format!("base={}", clock.unwrap_or("utc"))]);
        let process = Process::spawn("qemu", &mut qemu)?;
        Ok(Guest { machine: self, process, started: Instant::now() })
    }
}

/// A box with power.
pub(super) struct Guest<'a> {
    machine: &'a Machine,
    /// qemu; its lines are the box's console.
    pub(super) process: Process,
    /// When it got power.
    pub(super) started: Instant,
}

impl Guest<'_> {
    /// Waits until the console says it; how long after power that was.
    pub(super) fn says(&self, words: &str) -> Result<(Duration, String), ImageError> {
        self.says_since(0, words)
    }

    /// The same, of what it says from `mark` on.
    pub(super) fn says_since(&self, mark: u64, words: &str) -> Result<(Duration, String), ImageError> {
        let wanted = |line: &Line| line.text.contains(words);
        let line = self.process.wait_for_line_since(mark, words, BOOT, wanted)?;
        Ok((line.at.saturating_duration_since(self.started), line.text.trim().to_owned()))
    }

    /// Runs a command in the box, as root by SSH, with the key on the card.
    pub(super) fn run(&self, command: &str) -> Result<String, ImageError> {
        Ok(run("ssh", &mut self.ssh(command), COMMAND)?.stdout)
    }

    /// Starts a command that ends the box, or never ends.
    pub(super) fn spawn(&self, command: &str) -> Result<Process, ImageError> {
        Ok(Process::spawn("ssh", &mut self.ssh(command))?)
    }

    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-q",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        ssh.args([
            "-o",
            "ConnectTimeout=60",
            "-o",
            "ConnectionAttempts=5",
            "-p",
            &self.machine.port.to_string(),
        ]);
        ssh.arg("-i").arg(&self.machine.key).arg("root@127.0.0.1").arg(command);
        ssh
    }

    /// Cuts the power.
    pub(super) fn cut(self) -> Result<Duration, ImageError> {
        let after = self.started.elapsed();
        self.process.kill()?;
        Ok(after)
    }
}
