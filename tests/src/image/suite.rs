//! The scenarios, one box after the other, and their table.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::card::Card;
use super::cut::{Chance, replay};
use super::guest::{BOOT, Guest, Machine};
use super::world::World;
use super::{ImageError, doing};
use crate::harness::{temp_dir, until};

/// Still active so long after the boot: what starts late must not end it.
const LATER: Duration = Duration::from_secs(30);

/// The unit's `WatchdogSec`, and what systemd and the start add.
const WEDGED: f64 = 30.0 + 1.0;

/// What the box says on its console when all is well.
const WELL: &str = "Broker:  connected";

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The image.
    pub image: PathBuf,
    /// Power cuts.
    pub cuts: u32,
    /// Every scenario, not only what shows that the image is sound.
    pub all: bool,
    /// For what is left to chance.
    pub seed: u64,
}

/// The table as it grows.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String, String, bool)>,
}

impl Table {
    fn row(&mut self, what: &str, measured: String, goal: &str, good: bool) {
        println!(
            "{}  {what}: {measured}{}",
            if good { "ok  " } else { "MISS" },
            if goal.is_empty() { String::new() } else { format!(" (goal: {goal})") }
        );
        self.rows.push((what.to_owned(), measured, goal.to_owned(), good));
    }

    fn seconds(&mut self, what: &str, time: Duration, goal: f64) {
        let seconds = time.as_secs_f64();
        self.row(what, format!("{seconds:.1} s"), &format!("{goal:.0} s"), seconds <= goal);
    }

    fn markdown(&self) -> String {
        let mut text = "| | measured | goal |\n|---|---|---|\n".to_owned();
        for (what, measured, goal, good) in &self.rows {
            let miss = if *good { "" } else { ": **MISS**" };
            let _ = writeln!(text, "| {what} | {measured} | {goal}{miss} |");
        }
        text
    }
}

/// Runs everything; says whether all goals were kept.
///
/// # Errors
/// [`ImageError`] where a scenario could not be brought to its end.
pub fn perform(plan: &Plan) -> Result<bool, ImageError> {
    let dir = temp_dir()?;
    let mut world = World::start(dir.path())?;
    let mut table = Table::default();
    let mut card = Card::flash(&plan.image, dir.path().join("card.img"))?;
    let machine = Machine::of(&card, dir.path(), world.key(), 2222)?;

    // As Windows' editor saves it.
    let config = format!("\u{feff}{}", world.config(&world.broker.enroll()?).replace('\n', "\r\n"));
    card.put("farm-agent.toml", config.as_bytes())?;
    let guest = machine.start(&card, None, None)?;
    first_boot(&guest, &mut world, &mut table)?;
    guest.cut()?;
    let report = card.report()?;
    let told = report.contains("Farm id:") && report.contains("Broker:  connected");
    table.row("the report on the card", if told { "farm id, broker".to_owned() } else { report }, "", told);

    let guest = machine.start(&card, None, None)?;
    let (online, _) = guest.says(WELL)?;
    table.seconds("power to broker, second boot", online, 60.0);
    let tunnel = world.serves()?.saturating_duration_since(guest.started);
    table.seconds("power to a file through the tunnel", tunnel, 60.0);
    faults(&guest, &mut world, &mut table, plan.all)?;
    if plan.all {
        hang(&guest, &mut world, &mut table)?;
    }
    guest.cut()?;

    cuts(plan, &machine, &mut card, &mut world, &mut table, dir.path())?;
    if plan.all {
        mistakes(&machine, &card, &world, &mut table, dir.path())?;
    }
    println!("\n{}", table.markdown());
    Ok(table.rows.iter().all(|row| row.3))
}

fn first_boot(guest: &Guest<'_>, world: &mut World, table: &mut Table) -> Result<(), ImageError> {
    let (online, _) = guest.says(WELL)?;
    table.seconds("power to broker, first boot", online, 90.0);
    let (_, link) = guest.says("#v=1&")?;
    let began = Instant::now();
    world.phone.pair(&link)?;
    table.row(
        "paired with the invitation on the console",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
        "",
        true,
    );
    world.serves()?;
    let boot = guest.started.elapsed();
    table.row(
        "a file with its checksum through the tunnel",
        format!("{:.1} s after power", boot.as_secs_f64()),
        "",
        true,
    );

    // Not later than it must be: the boot is over for systemd, too.
    let began = Instant::now();
    std::thread::sleep(LATER);
    let state = guest.run("systemctl show farm-agent -p ActiveState -p NRestarts -p MainPID; systemctl --failed --no-legend; grep VmRSS /proc/$(systemctl show -P MainPID farm-agent)/status; cat /sys/fs/cgroup/system.slice/farm-agent.service/memory.current")?;
    let good =
        state.contains("ActiveState=active") && state.contains("NRestarts=0") && !state.contains("failed");
    table.row(
        "still active, never restarted, no failed unit",
        format!("{:.0} s after the first file", began.elapsed().as_secs_f64()),
        "30 s",
        good,
    );
    if !good {
        println!("{state}");
    }
    let kib = state
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let kib = kib.ok_or_else(|| ImageError::Wrong(format!("no VmRSS in {state}")))?;
    table.row(
        "the agent's memory, one session",
        format!("{:.1} MB", kib * 1024.0 / 1e6),
        "12 MB",
        kib * 1024.0 <= 12e6,
    );
    println!("{}", guest.run("systemd-analyze; systemd-analyze blame | head -n 12; dmesg | grep -a 'farm: '; df -h / /data /boot/firmware; free -m")?);
    Ok(())
}

/// Seconds from the end of the agent to its READY, by systemd's own clock.
fn back(guest: &Guest<'_>, restarts: u32) -> Result<f64, ImageError> {
    let show = "systemctl show farm-agent -p NRestarts -p ActiveState -p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic; cat /proc/uptime";
    let mut last = String::new();
    let (ready, _) = until("the agent's restart", BOOT, || {
        last = guest.run(show).unwrap_or_default();
        let number = |name: &str| last.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok());
        let restarted = number("NRestarts=").is_some_and(|count| count >= f64::from(restarts));
        let active = last.contains("ActiveState=active");
        let ready = number("ActiveEnterTimestampMonotonic=").map(|us| us / 1e6);
        ready.filter(|_| restarted && active)
    })
    .map_err(|error| ImageError::Wrong(format!("{error}: {last}")))?;
    Ok(ready)
}

fn faults(guest: &Guest<'_>, world: &mut World, table: &mut Table, all: bool) -> Result<(), ImageError> {
    let uptime =
        |text: &str| text.lines().last().and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    let mut restarts = 1;
    let mut judge = |name: &str, said: String, goal: f64, table: &mut Table| -> Result<(), ImageError> {
        let began = uptime(&said).ok_or_else(|| ImageError::Wrong(format!("no time in {said:?}")))?;
        let took = back(guest, restarts)? - began;
        restarts += 1;
        table.row(name, format!("{took:.1} s"), &format!("{goal} s"), took <= goal);
        Ok(())
    };
    judge(
        "kill -9 to READY",
        guest.run("systemctl kill -s KILL farm-agent; cut -d' ' -f1 /proc/uptime")?,
        1.0,
        table,
    )?;
    world.serves()?;
    let loops: &[&str] =
        if all { &["farm", "broker link", "address watch", "readings", "own readings"] } else { &["farm"] };
    for name in loops {
        let command =
            format!("farm-agent debug fault wedge '{name}' --for 300 >/dev/null; cut -d' ' -f1 /proc/uptime");
        judge(&format!("loop wedged ({name}) to READY"), guest.run(&command)?, WEDGED, table)?;
        world.serves()?;
    }
    Ok(())
}

/// The whole system hangs: the hardware's watchdog starts it again.
fn hang(guest: &Guest<'_>, world: &mut World, table: &mut Table) -> Result<(), ImageError> {
    {
        let (name, command) = ("kernel panic", "echo c >/proc/sysrq-trigger");
        let mark = guest.process.mark();
        let began = Instant::now();
        let _end = guest.spawn(command)?;
        guest.says_since(mark, WELL)?;
        world.serves()?;
        table.seconds(&format!("{name} to a file through the tunnel"), began.elapsed(), 90.0);
    }
    Ok(())
}

fn cuts(
    plan: &Plan,
    machine: &Machine,
    card: &mut Card,
    world: &mut World,
    table: &mut Table,
    dir: &std::path::Path,
) -> Result<(), ImageError> {
    let mut chance = Chance::new(plan.seed);
    let (mut survived, mut unflushed, mut lost, mut writes) = (0, 0, 0, 0);
    let mut times = Vec::new();
    let mut known: Vec<(u64, String)> = Vec::new();
    for cut in 1..=plan.cuts {
        let log = dir.join("writes.log");
        // Every third cut hits a boot; its writes count with the next ones.
        let early = cut % 3 == 0;
        let before = card.copy_to(dir.join(format!("card-{cut}.img")))?;
        let guest = machine.start(card, Some(&log), None)?;
        let outcome = if early {
            let moment = Duration::from_millis(chance.below(40_000));
            std::thread::sleep(moment);
            Ok(())
        } else {
            served(&guest, world, &mut known).map(|tunnel| {
                times.push(tunnel);
                // Readings and the event log are written meanwhile.
                std::thread::sleep(Duration::from_millis(chance.below(15_000)));
            })
        };
        let after = guest.cut()?;
        let replayed = replay(&log, &before, &mut chance)?;
        unflushed += replayed.unflushed;
        lost += replayed.lost;
        writes += replayed.writes;
        let old = std::mem::replace(card, before);
        doing("removing a card", std::fs::remove_file(old.path()))?;
        match outcome {
            Ok(()) => {
                survived += 1;
                println!(
                    "      cut {cut} of {} after {:.1} s ({}): {} writes, {} flushes; of {} after the last flush {} lost",
                    plan.cuts,
                    after.as_secs_f64(),
                    if early { "in the boot" } else { "at work" },
                    replayed.writes,
                    replayed.flushes,
                    replayed.unflushed,
                    replayed.lost
                );
            }
            Err(error) => println!("MISS  cut {cut}, seed {}: {error}", plan.seed),
        }
    }
    // The last cut must be survived, too.
    let guest = machine.start(card, None, None)?;
    let last = served(&guest, world, &mut known);
    guest.cut()?;
    if let Err(error) = &last {
        println!("MISS  after the last cut, seed {}: {error}", plan.seed);
    }
    let good = survived == plan.cuts && last.is_ok();
    let survived = if last.is_ok() { survived } else { survived.saturating_sub(1) };
    table.row(
        "power cuts after which the same phone is served, nothing lost",
        format!(
            "{survived} of {} ({writes} writes, {lost} of {unflushed} after the last flush lost)",
            plan.cuts
        ),
        "all",
        good,
    );
    times.extend(last.ok());
    if let Some(worst) = times.iter().max() {
        table.seconds("power to tunnel after a cut, worst", *worst, 60.0);
    }
    Ok(())
}

/// Waits until the phone is served, and sees that the farm still has every
/// reading that the phone has been told of.
fn served(
    guest: &Guest<'_>,
    world: &mut World,
    known: &mut Vec<(u64, String)>,
) -> Result<Duration, ImageError> {
    let tunnel = world.serves()?.saturating_duration_since(guest.started);
    let now = world.readings()?;
    let missing: Vec<u64> =
        known.iter().filter(|(number, _)| !now.iter().any(|(n, _)| n == number)).map(|(n, _)| *n).collect();
    if !missing.is_empty() {
        return Err(ImageError::Wrong(format!("readings {missing:?} were acknowledged and are gone")));
    }
    *known = now;
    Ok(tunnel)
}

/// One thing that goes wrong, and what the box says then.
#[derive(Default)]
struct Mistake<'a> {
    name: &'a str,
    /// The config on the card, where it is another one.
    config: Option<&'a str>,
    /// The state partition is noise.
    spoil: bool,
    /// What the box's clock says.
    clock: Option<&'a str>,
    wanted: &'a str,
}

/// What goes wrong at an installer's hands: what the box says, on its console
/// and on the card.
fn mistakes(
    machine: &Machine,
    good: &Card,
    world: &World,
    table: &mut Table,
    dir: &std::path::Path,
) -> Result<(), ImageError> {
    let fresh = |name: &str| good.copy_to(dir.join(format!("{name}.img")));
    let config = world.config("");
    let away = config.replace(":8443", ":8444");
    let typo = config.replace("broker =", "brokr =");
    let mistakes = [
        Mistake { name: "a typo", config: Some(&typo), wanted: "line 2", ..Mistake::default() },
        Mistake {
            name: "a broker that is away",
            config: Some(&away),
            wanted: "not connected to",
            ..Mistake::default()
        },
        Mistake {
            name: "a spoilt state partition",
            spoil: true,
            wanted: "has been made anew",
            ..Mistake::default()
        },
        Mistake {
            name: "a clock in 1970",
            clock: Some("1970-01-01T00:00:10"),
            wanted: WELL,
            ..Mistake::default()
        },
    ];
    for Mistake { name, config: text, spoil, clock, wanted } in mistakes {
        let card = fresh("mistake")?;
        if let Some(text) = text {
            card.put("farm-agent.toml", text.as_bytes())?;
        }
        if spoil {
            card.spoil_state()?;
        }
        let guest = machine.start(&card, None, clock)?;
        let said = guest.says(wanted);
        // For the card to be written.
        std::thread::sleep(Duration::from_secs(3));
        guest.cut()?;
        let report = card.report()?;
        let good = said.is_ok() && report.contains(wanted);
        let words = report.lines().find(|line| line.contains(wanted)).unwrap_or(&report).trim().to_owned();
        table.row(name, words, "", good);
        if text.is_some() {
            // Corrected, it heals.
            card.put("farm-agent.toml", config.as_bytes())?;
            let guest = machine.start(&card, None, None)?;
            let healed = guest.says(WELL);
            guest.cut()?;
            table.row(&format!("{name}, corrected"), "connected".to_owned(), "", healed.is_ok());
        }
    }
    Ok(())
}
