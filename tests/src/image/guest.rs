//! A box: qemu with a card in it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::card::Card;
use super::{ImageError, doing, wrong};
use crate::harness::{Line, Process, run, until};

/// Emulated, on a loaded machine: a boot takes one minute where nothing else
/// runs. The goals are judged by the suite.
pub(super) const BOOT: Duration = Duration::from_secs(400);

/// One command by SSH: emulated cryptography takes seconds, and some commands
/// wait for a watchdog.
const COMMAND: Duration = Duration::from_secs(600);

/// What happened is in the card's report soon after: it is looked at every
/// second, at least at first.
pub(super) const REPORTED: Duration = Duration::from_secs(300);

/// For qemu itself to do as it is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a running box is made from.
#[derive(Clone)]
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

    /// Gives it power.
    pub(super) fn start(&self, card: &Card, start: Start<'_>) -> Result<Guest, ImageError> {
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args("-M virt -cpu cortex-a53 -smp 2 -m 512 -nographic -nodefaults".split(' '));
        qemu.args("-serial stdio -accel tcg,thread=multi".split(' '));
        qemu.arg("-kernel").arg(self.dir.join("kernel")).arg("-initrd").arg(self.dir.join("initramfs8"));
        qemu.args(["-append", &self.command_line]);
        qemu.arg("-blockdev").arg(format!("driver=file,node-name=card,filename={}", card.path().display()));
        let drive = match start.log {
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
        qemu.args(["-netdev", &forward, "-device", "virtio-net-device,netdev=net,id=cable"]);
        // The watchdog that systemd feeds; a Pi has its own.
        qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        qemu.args(["-rtc", &format!("base={}", start.clock.unwrap_or("utc"))]);
        let monitor = self.dir.join("monitor");
        qemu.arg("-monitor").arg(format!("unix:{},server,nowait", monitor.display()));
        let process = Process::spawn("qemu", &mut qemu)?;
        let guest = Guest { machine: self.clone(), monitor, process, started: Instant::now() };
        if start.unplugged {
            guest.order("set_link cable off")?;
        }
        Ok(guest)
    }
}

/// What is special about a start.
#[derive(Clone, Copy, Default)]
pub(super) struct Start<'a> {
    /// Where every write to the card is recorded.
    pub(super) log: Option<&'a Path>,
    /// What the box's clock says, where it is not this machine's time.
    pub(super) clock: Option<&'a str>,
    /// Without the network's cable.
    pub(super) unplugged: bool,
}

/// A box with power.
pub(super) struct Guest {
    machine: Machine,
    monitor: PathBuf,
    /// qemu; its lines are the box's console.
    pub(super) process: Process,
    /// When it got power.
    pub(super) started: Instant,
}

impl Guest {
    /// Plugs the network's cable in.
    pub(super) fn plug_in(&self) -> Result<(), ImageError> {
        self.order("set_link cable on")
    }

    /// Has qemu do something, by its monitor's socket.
    fn order(&self, words: &str) -> Result<(), ImageError> {
        let connected = until("qemu's monitor", PATIENCE, || UnixStream::connect(&self.monitor).ok());
        let (mut monitor, _) = connected?;
        doing("telling qemu", monitor.write_all(format!("{words}\n").as_bytes()))?;
        // It prompts when it starts, and again when it has obeyed.
        let (mut said, mut piece) = (String::new(), [0; 512]);
        doing("hearing qemu", monitor.set_read_timeout(Some(PATIENCE)))?;
        while said.matches("(qemu) ").count() < 2 {
            let read = doing("hearing qemu", monitor.read(&mut piece))?;
            said.push_str(&String::from_utf8_lossy(&piece[..read]));
            if read == 0 {
                return Err(wrong(format!("qemu's monitor ended: {said}")));
            }
        }
        Ok(())
    }

    /// Processor time that qemu has used.
    pub(super) fn cpu(&self) -> Option<Duration> {
        self.process.usage().ok().map(|usage| usage.cpu)
    }

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
        let options = "-q -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o ConnectTimeout=60 -o ConnectionAttempts=5 -p";
        ssh.args(options.split_whitespace()).arg(self.machine.port.to_string());
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
