//! What programs use: the most during something, and the little while idle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::stop::pause;
use super::table::{Figure, Unit};
use super::trouble::Trouble;
use crate::harness::Usage;

/// Between two looks at a busy program: finer than what it holds for a transfer
/// of a second, coarse enough to cost nothing.
const LOOK: Duration = Duration::from_millis(50);

/// Memory, threads and files as figures; the label of the first says which kind.
pub(super) fn figures(label: &'static str, usage: &Usage) -> Vec<Figure> {
    vec![
        Figure::new(label, usage.rss_bytes as f64 / 1e6, Unit::Megabytes),
        Figure::new("", usage.threads as f64, Unit::Threads),
        Figure::new("", usage.files as f64, Unit::Files),
    ]
}

/// Looks at programs until told to stop, and keeps the most of each.
pub(super) struct Peak {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Usage>>,
}

impl Peak {
    pub(super) fn watch(pids: &[u32]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (stop, pids) = (Arc::clone(&done), pids.to_vec());
        let thread = std::thread::spawn(move || {
            let mut most = vec![Usage::default(); pids.len()];
            while !stop.load(Ordering::SeqCst) {
                for (most, pid) in most.iter_mut().zip(&pids) {
                    // One that has ended uses nothing more.
                    let Ok(now) = Usage::of(*pid) else { continue };
                    most.rss_bytes = most.rss_bytes.max(now.rss_bytes);
                    most.threads = most.threads.max(now.threads);
                    most.files = most.files.max(now.files);
                }
                std::thread::sleep(LOOK);
            }
            most
        });
        Self { done, thread }
    }

    /// The most of each program, in the order they were given.
    pub(super) fn finish(self) -> Result<Vec<Usage>, Trouble> {
        self.done.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| Trouble::Wrong("the thread that looks at programs died".to_owned()))
    }
}

/// CPU time of some programs so far, ended threads included.
pub(super) fn cpu(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| Usage::of(*pid).ok()).map(|usage| usage.cpu).sum()
}

/// What a program used over a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quiet {
    /// Times a second that a thread was woken.
    pub(super) wakeups: f64,
    /// Share of one core, percent.
    pub(super) cpu: f64,
}

/// Looks at programs over `window` without touching them.
pub(super) fn quiet(pids: &[u32], window: Duration) -> Result<Vec<Quiet>, Trouble> {
    let look = |pid: &u32| Threads::of(*pid).map_err(Trouble::io("reading what an idle program uses"));
    let start = Instant::now();
    let before = pids.iter().map(look).collect::<Result<Vec<_>, _>>()?;
    pause(window)?;
    let after = pids.iter().map(look).collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(before.iter().zip(&after).map(|(before, after)| after.since(before, seconds)).collect())
}

/// Counters of each thread: those of a whole process go back when a thread ends.
#[derive(Default)]
struct Threads(BTreeMap<String, Counters>);

#[derive(Clone, Copy, Default)]
struct Counters {
    wakeups: u64,
    nanoseconds: u64,
}

impl Counters {
    /// What the kernel tells of the thread in this directory of `/proc`.
    fn of(task: &Path) -> std::io::Result<Self> {
        let status = std::fs::read_to_string(task.join("status"))?;
        // Nanoseconds on a CPU come first (proc(5)); `stat` has steps of 10 ms,
        // a whole budget of 0.1 % over ten seconds.
        let times = std::fs::read_to_string(task.join("schedstat"))?;
        Ok(Self {
            wakeups: status.lines().find_map(voluntary).unwrap_or(0),
            nanoseconds: times.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0),
        })
    }
}

impl Threads {
    fn of(pid: u32) -> std::io::Result<Self> {
        let mut threads = Self::default();
        for task in std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
            let task = task?;
            match Counters::of(&task.path()) {
                Ok(counters) => {
                    threads.0.insert(task.file_name().to_string_lossy().into_owned(), counters);
                }
                // A thread may end between the listing and the look, or amid the look.
                Err(_) if !task.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(threads)
    }

    fn since(&self, earlier: &Self, seconds: f64) -> Quiet {
        let mut used = Counters::default();
        for (thread, now) in &self.0 {
            let before = earlier.0.get(thread).copied().unwrap_or_default();
            used.wakeups += now.wakeups.saturating_sub(before.wakeups);
            used.nanoseconds += now.nanoseconds.saturating_sub(before.nanoseconds);
        }
        Quiet { wakeups: used.wakeups as f64 / seconds, cpu: used.nanoseconds as f64 / 1e9 / seconds * 100.0 }
    }
}

/// Times that the thread went to sleep by itself, as often as it was woken.
fn voluntary(line: &str) -> Option<u64> {
    line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(of: &[(&str, u64, u64)]) -> Threads {
        let counters = |(name, wakeups, nanoseconds): &(&str, u64, u64)| {
            ((*name).to_owned(), Counters { wakeups: *wakeups, nanoseconds: *nanoseconds })
        };
        Threads(of.iter().map(counters).collect())
    }

    #[test]
    fn threads_that_come_and_go_are_counted_right() {
        let before = threads(&[("1", 10, 0), ("2", 1_000, 5_000_000_000)]);
        let after = threads(&[("1", 15, 10_000_000), ("3", 5, 10_000_000)]);
        assert_eq!(after.since(&before, 10.0), Quiet { wakeups: 1.0, cpu: 0.2 });
    }

    #[test]
    fn a_program_that_works_is_seen() {
        let pid = std::process::id();
        let before = Threads::of(pid).unwrap();
        let peak = Peak::watch(&[pid]);
        std::thread::sleep(Duration::from_millis(10));
        let most = peak.finish().unwrap();
        assert!(most[0].rss_bytes > 500_000 && most[0].threads > 1, "{most:?}");
        let used = Threads::of(pid).unwrap().since(&before, 1.0);
        assert!(used.wakeups > 0.0 && used.cpu > 0.0, "{used:?}");
    }
}
