//! What a program uses, from /proc (proc(5)).

use std::io;
use std::path::Path;
use std::time::Duration;

/// Clock ticks a second in /proc, on every Linux we run on (USER_HZ).
const TICKS: u64 = 100;

/// A look at one process. Counters run from its start: subtract two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in RAM, bytes.
    pub rss_bytes: u64,
    /// CPU time of all its threads, in steps of 10 ms.
    pub cpu: Duration,
    /// Times its living threads went to sleep by themselves: the wake-ups.
    pub voluntary_switches: u64,
    /// Times they were pushed aside.
    pub involuntary_switches: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Bytes it caused to be written to storage.
    pub written_bytes: u64,
}

impl Usage {
    /// Looks at a process of ours (or any, as root).
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> io::Result<Self> {
        let proc = Path::new("/proc").join(pid.to_string());
        let status = std::fs::read_to_string(proc.join("status"))?;
        let mut usage = Self {
            rss_bytes: field(&status, "VmRSS") * 1024,
            cpu: cpu(&std::fs::read_to_string(proc.join("stat"))?)?,
            written_bytes: field(&std::fs::read_to_string(proc.join("io"))?, "write_bytes"),
            files: std::fs::read_dir(proc.join("fd"))?.count() as u64,
            ..Self::default()
        };
        // The process's own file counts its first thread only.
        for task in std::fs::read_dir(proc.join("task"))? {
            // A thread may end between the listing and the look.
            if let Ok(status) = std::fs::read_to_string(task?.path().join("status")) {
                usage.threads += 1;
                usage.voluntary_switches += field(&status, "voluntary_ctxt_switches");
                usage.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches");
            }
        }
        Ok(usage)
    }
}

/// The number after `name:`, 0 when there is none (a kernel without that count).
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// utime + stime, fields 14 and 15; the name before them may contain anything.
fn cpu(stat: &str) -> io::Result<Duration> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "no CPU time in /proc/PID/stat");
    let (_, after) = stat.rsplit_once(')').ok_or_else(broken)?;
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (Some(user), Some(system)) = (ticks(), ticks()) else {
        return Err(broken());
    };
    Ok(Duration::from_millis((user + system) * 1_000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_use_something_ourselves() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 500_000, "{usage:?}");
        assert!(usage.threads >= 1 && usage.files >= 3, "{usage:?}");
        assert!(usage.voluntary_switches > 0, "{usage:?}");
    }

    #[test]
    fn fields_are_found_whatever_the_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu(stat).unwrap(), Duration::from_secs(3));
        assert!(cpu("7 (a) S 1").is_err());
        let status = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t5\nVmRSS:\t  12 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches"), 5);
        assert_eq!(field(status, "VmRSS"), 12);
        assert_eq!(field(status, "absent"), 0);
    }
}
