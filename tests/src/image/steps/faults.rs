//! What systemd and the hardware's watchdog are there for.

use std::fmt;
use std::time::{Duration, Instant};

use crate::image::guest::Guest;
use crate::image::suite::{Bench, WELL};
use crate::image::{ImageError, wrong};

/// From the kill to READY, in seconds.
const KILLED: f64 = 1.0;

/// The unit's `WatchdogSec`, and what systemd and the start add, in seconds.
const WEDGED: f64 = 30.0 + 1.0;

/// The agent's own part of it, in seconds; the rest is systemd's.
const STARTED: f64 = 0.5;

/// So many, of which the middle one counts: the emulator shares its machine.
const KILLS: usize = 5;

/// Ends with the program's process.
pub(in crate::image) fn kill(bench: &mut Bench) -> Result<(), ImageError> {
    let (guest, world, table) = bench.on()?;
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        kills.push(back(guest, "kill -9 $pid", 2)?);
        println!("      {}", kills[kills.len() - 1]);
    }
    let middle = |part: fn(&Back) -> Duration| {
        let mut parts: Vec<Duration> = kills.iter().map(part).collect();
        parts.sort();
        parts[KILLS / 2]
    };
    let what = format!("kill -9 to READY, middle of {KILLS}");
    table.seconds(&what, middle(|back| back.took), KILLED);
    table.seconds("of it the agent's part, from its exec on", middle(|back| back.agents), STARTED);
    let steps = "journalctl --unit farm-agent --boot --no-pager --output short-monotonic --lines 12";
    println!("{}", guest.run(steps)?);
    let began = Instant::now();
    world.serves()?;
    table.row("the same phone served after it", format!("{:.1} s", began.elapsed().as_secs_f64()), "", true);
    // Else each fault of a year would add to the pause after the next.
    let faults = guest.run(
        "n() { systemctl show -P NRestarts farm-agent; }; before=$(n); systemctl start farm-agent-calm; \
         echo $before $(n) $(systemctl is-active farm-agent-calm.timer)",
    )?;
    let faults = faults.trim();
    table.row(
        "faults that systemd counts, before and after an hour",
        faults,
        "1 0 active",
        faults == "1 0 active",
    );
    Ok(())
}

/// One loop hangs.
pub(in crate::image) fn wedge_one(bench: &mut Bench) -> Result<(), ImageError> {
    hangs(bench, "farm")
}

/// Every loop that the agent has, one after the other.
pub(in crate::image) fn wedge(bench: &mut Bench) -> Result<(), ImageError> {
    let (guest, ..) = bench.on()?;
    let answer = guest.run("farm-agent debug fault wedge '?' 2>&1 || true")?;
    let names = answer.trim().rsplit_once(": ").ok_or_else(|| wrong(format!("no loops in {answer:?}")))?.1;
    // A carrier that hangs is replaced by the farm's loop; the agent need not end.
    for name in names.split(", ").filter(|name| *name != "carrier") {
        hangs(bench, name)?;
    }
    Ok(())
}

fn hangs(bench: &mut Bench, name: &str) -> Result<(), ImageError> {
    let (guest, world, table) = bench.on()?;
    let back = back(guest, &format!("farm-agent debug fault wedge '{name}' --for 300 >/dev/null"), 25)?;
    let what = format!("loop wedged ({name}) to READY");
    table.seconds(&what, back.took, WEDGED);
    world.serves()?;
    Ok(())
}

/// A fault that is over, by the box's own clock.
struct Back {
    /// From the end of the fault's command to READY.
    took: Duration,
    /// Of it: until systemd began to start the agent again.
    noticed: Duration,
    /// Of it: from there until the agent was executed, confined.
    confined: Duration,
    /// Of it: the rest.
    agents: Duration,
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { took, noticed, confined, agents } = self;
        write!(
            f,
            "READY after {took:.2?}: start begun {noticed:.2?}, confined {confined:.2?}, agent {agents:.2?}"
        )
    }
}

/// Waits until `fault` is over. Nothing is asked of the busy box for the first
/// `quiet` seconds. Faults before it are forgotten, as they are after an hour.
fn back(guest: &Guest, fault: &str, quiet: u32) -> Result<Back, ImageError> {
    let said = guest.run(&format!(
        "systemctl start farm-agent-calm; pid=$(systemctl show -P MainPID farm-agent); n=$(systemctl show -P NRestarts farm-agent); \
         {fault}; read now rest </proc/uptime; sleep {quiet}; \
         until [ $(systemctl show -P NRestarts farm-agent) -gt $n ] && systemctl -q is-active farm-agent; \
         do sleep 1; done; at() {{ systemctl show -P $1Monotonic farm-agent; }}; \
         echo $now $(at ExecMainStartTimestamp) $(at ExecMainHandoffTimestamp) $(at ActiveEnterTimestamp)"
    ))?;
    let mut numbers = said.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    let mut next = |unit: f64| Duration::try_from_secs_f64(numbers.next()? / unit).ok();
    let (Some(fault), Some(begun), Some(executed), Some(ready)) =
        (next(1.0), next(1e6), next(1e6), next(1e6))
    else {
        return Err(wrong(format!("no times in {said:?}")));
    };
    Ok(Back {
        took: ready.saturating_sub(fault),
        noticed: begun.saturating_sub(fault),
        confined: executed.saturating_sub(begun),
        agents: ready.saturating_sub(executed),
    })
}

/// The kernel panics and starts the box again by itself.
pub(in crate::image) fn panic(bench: &mut Bench) -> Result<(), ImageError> {
    // Ten seconds (`panic=10`), and a boot.
    restarts(bench, "kernel panic to a file through the tunnel", "echo c >/proc/sysrq-trigger", 90.0)
}

/// A kernel that neither works nor starts again: the hardware does it, after
/// `RuntimeWatchdogSec`. (A busy loop of the highest priority would not do: the
/// kernel leaves the others a twentieth of the time, enough for systemd.)
pub(in crate::image) fn hang(bench: &mut Bench) -> Result<(), ImageError> {
    let (guest, _, table) = bench.on()?;
    let dog = guest.run("cd /sys/class/watchdog/watchdog0 && echo $(cat identity state timeout)")?;
    let dog = dog.trim().to_owned();
    table.row("the hardware's watchdog", dog.clone(), "active", dog.contains(" active "));
    let stop = "echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger";
    restarts(bench, "hung kernel to a file through the tunnel", stop, 120.0)
}

fn restarts(bench: &mut Bench, what: &str, command: &str, goal: f64) -> Result<(), ImageError> {
    let (guest, world, table) = bench.on()?;
    let mark = guest.process.mark();
    let began = Instant::now();
    let end = guest.spawn(command)?;
    guest.says_since(mark, WELL)?;
    world.serves()?;
    table.seconds(what, Duration::from_secs_f64(began.elapsed().as_secs_f64()), goal);
    // The shell that did it hung with the box.
    end.kill()?;
    Ok(())
}
