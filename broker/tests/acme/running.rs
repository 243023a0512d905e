//! The program, and what it logs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Orders take a few seconds; the first after a failure comes 5 s later.
const PATIENCE: Duration = Duration::from_secs(60);

type Log = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A broker in a process of its own; killed when dropped.
pub(crate) struct Running {
    child: Child,
    log: Log,
}

impl Running {
    pub(crate) fn start(config: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_farm-broker"))
            .args(["serve", "--config", config])
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        let (reader, shared) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                shared.0.lock().unwrap().push(line);
                shared.1.notify_all();
            }
        });
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
        let running = Self { child, log };
        assert!(read.unwrap() > 0, "it did not start: {:?}", running.log.0.lock().unwrap());
        running
    }

    /// The first line that has this in it.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {part:?} in {lines:#?}");
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// How many lines have this in them.
    pub(crate) fn lines(&self, part: &str) -> usize {
        self.log.0.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
