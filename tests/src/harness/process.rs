//! One running program: its lines, its signals, its end.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::lines::{Line, Lines, NoLine, Source, left};
use super::{HarnessError, Usage};

/// The environment variable that names a directory in which all that programs
/// print is kept, a file for each.
pub const LOGS: &str = "FARM_LOGS";
/// Lines of output an error carries.
const TAIL: usize = 20;

struct Running {
    child: Child,
    status: Option<ExitStatus>,
}

struct Shared {
    pid: Pid,
    running: Mutex<Running>,
    ended: Condvar,
    lines: Lines,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        // The lock keeps the program from being reaped, so its id is still its own.
        let running = self.lock();
        if running.status.is_some() {
            return Ok(());
        }
        match kill(self.pid, signal) {
            Err(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }
}

/// Every program started and not yet dropped, for [`end_all`].
static STARTED: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static ENDING: AtomicBool = AtomicBool::new(false);

/// Kills every program this process has started through [`Process`] and lets no
/// new one start: whatever waits for one of them is told so at once. For a
/// program that was told to stop while busy.
pub fn end_all() {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    ENDING.store(true, Ordering::SeqCst);
    for shared in started.iter().filter_map(Weak::upgrade) {
        // One that can't be killed is tried again when it is dropped.
        let _ = shared.signal(Signal::SIGKILL);
    }
}

/// Whether [`end_all`] was called.
#[must_use]
pub fn ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// A program started by us. It is killed when dropped.
pub struct Process {
    name: String,
    pid: u32,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A program that has run to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed, lines joined by `\n`.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs a program to its end, which must come within `within` and be a success.
///
/// # Errors
/// When it can't be started, ends with a failure, or is too slow (it is killed then).
pub fn run(name: &str, command: &mut Command, within: Duration) -> Result<Finished, HarnessError> {
    let mut process = Process::spawn(name, command)?;
    let status = process.wait(within)?;
    if !status.success() {
        return Err(process.failed(&format!("failed ({status})")));
    }
    process.finish_reading();
    Ok(Finished { status, stdout: process.joined(Source::Stdout), stderr: process.joined(Source::Stderr) })
}

impl Process {
    /// Starts a program with its output collected and without input.
    ///
    /// # Errors
    /// When it can't be started, or [`end_all`] was called.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self, HarnessError> {
        let io = |doing: &str, source| HarnessError::Io { doing: format!("{doing} {name}"), source };
        // Held over the start, so that no program slips past `end_all`.
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if ending() {
            return Err(HarnessError::Ending);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| io("starting", source))?;
        let pid = child.id();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let shared = Arc::new(Shared {
            pid: Pid::from_raw(pid.cast_signed()),
            running: Mutex::new(Running { child, status: None }),
            ended: Condvar::new(),
            lines: Lines::new(2),
        });
        started.retain(|other| other.strong_count() > 0);
        started.push(Arc::downgrade(&shared));
        drop(started);
        // From here on `process` kills the program if a thread can't be made.
        let mut process =
            Self { name: name.to_owned(), pid, shared: Arc::clone(&shared), threads: Vec::with_capacity(3) };
        let (out, err, end) = (Arc::clone(&shared), Arc::clone(&shared), shared);
        let (first, second) = (copy(name, pid)?, copy(name, pid)?);
        process.thread(move || out.lines.collect(Source::Stdout, stdout, first))?;
        process.thread(move || err.lines.collect(Source::Stderr, stderr, second))?;
        process.thread(move || reap(&end))?;
        Ok(process)
    }

    fn thread(&mut self, work: impl FnOnce() + Send + 'static) -> Result<(), HarnessError> {
        let thread = std::thread::Builder::new()
            .name(format!("{} output", self.name))
            .spawn(work)
            .map_err(|source| HarnessError::Io { doing: format!("watching {}", self.name), source })?;
        self.threads.push(thread);
        Ok(())
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.lock().status.is_none()
    }

    /// What it uses now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage, HarnessError> {
        Usage::of(self.pid)
            .map_err(|source| HarnessError::Io { doing: format!("reading what {} uses", self.name), source })
    }

    /// The lines it printed lately, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lines.all()
    }

    /// The newest line that `wanted` accepts.
    #[must_use]
    pub fn newest_line(&self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        self.shared.lines.newest(wanted)
    }

    /// A mark for [`Process::wait_for_line_since`]: lines printed from now on.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.shared.lines.next()
    }

    /// Waits for a line, also among those already printed.
    ///
    /// # Errors
    /// When it ends, or none comes `within`.
    pub fn wait_for_line(
        &self,
        what: &str,
        within: Duration,
        wanted: impl FnMut(&Line) -> bool,
    ) -> Result<Line, HarnessError> {
        self.wait_for_line_since(0, what, within, wanted)
    }

    /// Waits for a line printed after `mark`.
    ///
    /// # Errors
    /// When it ends, or none comes `within`.
    pub fn wait_for_line_since(
        &self,
        mark: u64,
        what: &str,
        within: Duration,
        wanted: impl FnMut(&Line) -> bool,
    ) -> Result<Line, HarnessError> {
        let deadline = Instant::now() + within;
        self.shared.lines.wait(mark, deadline, wanted).map_err(|reason| match reason {
            NoLine::Late => self.failed(&format!("no line with {what} within {within:?}")),
            NoLine::Ended => self.failed(&format!("ended without a line with {what}")),
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended `within`.
    pub fn wait(&self, within: Duration) -> Result<ExitStatus, HarnessError> {
        let deadline = Instant::now() + within;
        let mut running = self.shared.lock();
        loop {
            if let Some(status) = running.status {
                return Ok(status);
            }
            let Some(left) = left(deadline) else {
                drop(running);
                return Err(self.failed(&format!("did not end within {within:?}")));
            };
            running = self.shared.ended.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal; a program that has ended gets none.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), HarnessError> {
        self.shared.signal(signal).map_err(|errno| HarnessError::Io {
            doing: format!("sending {signal} to {}", self.name),
            source: errno.into(),
        })
    }

    /// Pulls the plug: SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(&self) -> Result<ExitStatus, HarnessError> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to end: SIGTERM, and waits `within` for its end.
    ///
    /// # Errors
    /// When it is still there afterwards.
    pub fn terminate(&self, within: Duration) -> Result<ExitStatus, HarnessError> {
        self.signal(Signal::SIGTERM)?;
        self.wait(within)
    }

    /// Its newest lines, for a message.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.lines();
        let from = lines.len().saturating_sub(TAIL);
        let texts: Vec<_> = lines[from..].iter().map(|line| format!("  {}", line.text)).collect();
        texts.join("\n")
    }

    /// An error about this program, with its newest lines.
    #[must_use]
    pub fn failed(&self, problem: &str) -> HarnessError {
        HarnessError::Program { name: self.name.clone(), problem: problem.to_owned(), output: self.tail() }
    }

    fn joined(&self, source: Source) -> String {
        let lines = self.lines();
        let texts: Vec<_> =
            lines.iter().filter(|line| line.source == source).map(|line| line.text.as_str()).collect();
        texts.join("\n")
    }

    /// Waits until all it has printed was read; only after its end.
    fn finish_reading(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to be told. The readers are not joined: a grandchild
        // could hold the pipes open for ever.
        let _ = self.kill();
    }
}

/// Where a program's lines are copied to besides the ring.
fn copy(name: &str, pid: u32) -> Result<Box<dyn Write + Send>, HarnessError> {
    let Some(dir) = std::env::var_os(LOGS) else {
        return Ok(Box::new(std::io::sink()));
    };
    let path = Path::new(&dir).join(format!("{}-{pid}.log", name.replace([' ', '/'], "_")));
    let file = File::options().create(true).append(true).open(&path);
    let file =
        file.map_err(|source| HarnessError::Io { doing: format!("writing {}", path.display()), source })?;
    Ok(Box::new(file))
}

/// Waits for the end without taking the status, then takes it under the lock:
/// so a signal can never hit another program that got the same id.
fn reap(shared: &Shared) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(shared.pid), ended) == Err(Errno::EINTR) {}
    let mut running = shared.lock();
    running.status = running.child.wait().ok();
    shared.ended.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_arrive_and_the_exit_code_too() {
        let process = Process::spawn("sh", &mut shell("echo out; echo err >&2; exit 7")).unwrap();
        let line = process.wait_for_line("err", SOON, |l| l.text == "err").unwrap();
        assert_eq!(line.source, Source::Stderr);
        assert_eq!(process.wait(SOON).unwrap().code(), Some(7));
        assert!(!process.is_running());
        process.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn an_end_without_the_line_is_told_at_once_with_the_output() {
        let process = Process::spawn("sh", &mut shell("echo only this")).unwrap();
        let start = Instant::now();
        let error =
            process.wait_for_line("something else", SOON, |l| l.text == "else").unwrap_err().to_string();
        assert!(start.elapsed() < SOON / 2);
        assert!(error.contains("only this") && error.contains("something else"), "{error}");
    }

    #[test]
    fn a_mark_skips_what_was_printed_before() {
        let script = "echo tick; trap 'echo tick; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let process = Process::spawn("sh", &mut shell(script)).unwrap();
        process.wait_for_line("ready", SOON, |l| l.text == "ready").unwrap();
        let mark = process.mark();
        process.signal(Signal::SIGTERM).unwrap();
        let tick = process.wait_for_line_since(mark, "tick", SOON, |l| l.text == "tick").unwrap();
        assert_eq!(tick.number, 2);
        assert!(process.wait(SOON).unwrap().success());
    }

    #[test]
    fn what_is_dropped_is_gone() {
        let process = Process::spawn("sleep", Command::new("sleep").arg("600")).unwrap();
        let pid = process.pid();
        assert!(process.is_running() && process.usage().is_ok());
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_slow_program_is_killed_and_named() {
        let error = run("slow", Command::new("sleep").arg("600"), Duration::from_millis(50));
        assert!(error.unwrap_err().to_string().starts_with("slow: did not end"));
        let done = run("fine", &mut shell("echo a; echo b; echo c >&2"), SOON).unwrap();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("a\nb", "c"));
    }
}
