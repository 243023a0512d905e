//! One broker, honest devices, a tunnel, and one attack after the other.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::honest::{Honest, PAIRS};
use super::plan::Attack;
use super::relayed::Relayed;
use super::row::{Change, Course, Latency, Row};
use super::tunnel::Tunnel;
use super::{Options, Report};
use crate::bench::stop;
use crate::bench::trouble::Trouble;
use crate::device::{Broker, Figures};
use crate::harness::farm::PATIENCE;
use crate::harness::{Process, Usage, binary, temp_dir, until};

/// Time for a hostile process to start and, its time over, to end.
const SLACK: Duration = Duration::from_secs(20);

/// Between two looks at the broker during an attack.
const LOOK: Duration = Duration::from_millis(200);

/// Attackers that are gone must have left nothing after this: the longest
/// deadline of a connection that is no device yet.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Descriptors that come and go by themselves: the store's, a collector's.
const LOOSE_FILES: u64 = 8;

/// Most memory at any time, and most that may be left behind by one attack: what
/// the allocator keeps for the next one.
const MOST_MEGABYTES: u64 = 160;

/// An echo through the tunnel that takes longer was held up by the attack; on
/// a machine with one core to spare and four programs waiting for it.
const SLOWEST_ECHO: Duration = Duration::from_secs(2);

/// Relayed packets that may be lost during an attack, as a share: what a mobile
/// link loses, and what a tunnel repeats without its user noticing.
const MOST_LOST: f64 = 0.02;

struct Siege<'a> {
    options: &'a Options,
    broker: Broker,
    honest: Honest,
    tunnel: Tunnel,
    relayed: Relayed,
}

/// Starts all of it and gives each attack's row to `show`.
pub(super) fn run(options: &Options, attacks: &[&Attack], show: &mut impl FnMut(Row)) -> Result<(), Trouble> {
    let dir = temp_dir()?;
    let mut broker = Broker::new(dir.path(), "")?;
    broker.daemon.start()?;
    let tokens = (0..PAIRS).map(|_| broker.token()).collect::<Result<Vec<_>, _>>()?;
    let honest = Honest::start(broker.target()?, tokens).map_err(Trouble::io("starting honest devices"))?;
    until("all honest pairs to talk", PATIENCE, || (honest.signals() > PAIRS as usize * 10).then_some(()))?;
    let tunnel = Tunnel::open(&broker, dir.path())?;
    let relayed =
        Relayed::start(broker.target()?, broker.token()?).map_err(Trouble::io("starting a relayed farm"))?;
    let siege = Siege { options, broker, honest, tunnel, relayed };
    for attack in attacks {
        show(siege.withstand(attack, dir.path())?);
    }
    Ok(())
}

impl Siege<'_> {
    fn withstand(&self, attack: &Attack, dir: &Path) -> Result<Row, Trouble> {
        let process = self.broker.daemon.process()?;
        let calm_since = Instant::now();
        stop::pause(self.options.each)?;
        let (figures, before) = (self.broker.figures()?, process.usage()?);
        let (lost, _, strangers) = self.honest.harm();
        let (echoes, _, _) = self.tunnel.look();

        let began = Instant::now();
        let (report, peak) = self.attack(attack, dir, process)?;
        let ended = Instant::now();

        let mut problems: Vec<String> = report.breach.iter().cloned().collect();
        let after = self.settled(process, &before, attack.leaves, &mut problems)?;
        let now = self.broker.figures()?;
        let counted = grown(attack, &figures, &now, &mut problems);
        let (lost_now, why, strangers_now) = self.honest.harm();
        if lost_now > lost {
            problems.push(format!(
                "{} honest connections were lost, the last one by: {}",
                lost_now - lost,
                why.unwrap_or_default()
            ));
        }
        if strangers_now > strangers {
            problems.push(format!("{} signals of strangers reached a farm", strangers_now - strangers));
        }
        let (echoes_now, slowest, broken) = self.tunnel.look();
        if let Some(broken) = broken {
            problems.push(format!("the tunnel broke: {broken}"));
        } else if echoes_now == echoes || slowest > SLOWEST_ECHO {
            problems.push(format!("the tunnel was held up: slowest echo {} ms", slowest.as_millis()));
        }
        let (calm, during) = (self.honest.between(calm_since, began), self.honest.between(began, ended));
        let change = |before, during| Change { before: Latency::of(before), during: Latency::of(during) };
        let heartbeats = change(&calm.heartbeats, &during.heartbeats);
        let signals = change(&calm.signals, &during.signals);
        let (smooth, carried) = (self.relayed.between(calm_since, began), self.relayed.between(began, ended));
        let relayed = change(&smooth.took, &carried.took);
        if let Some(broken) = carried.broken {
            problems.push(format!("the relayed farm's way broke: {broken}"));
        }
        if self.options.judge_latency && carried.lost as f64 > carried.sent as f64 * MOST_LOST {
            problems.push(format!("{} of {} relayed packets were lost", carried.lost, carried.sent));
        }
        if self.options.judge_latency && relayed.is_noticed() {
            problems.push("the relayed farm noticed: more than doubled".to_owned());
        }
        if self.options.judge_latency && (heartbeats.is_noticed() || signals.is_noticed()) {
            problems.push("honest devices noticed: more than doubled".to_owned());
        }
        let megabytes = |usage: &Usage| usage.rss_bytes / 1_000_000;
        let memory =
            Course { before: megabytes(&before), peak: peak.rss_bytes / 1_000_000, after: megabytes(&after) };
        let files = Course { before: before.files, peak: peak.files, after: after.files };
        if memory.peak > MOST_MEGABYTES {
            problems.push(format!("memory over {MOST_MEGABYTES} MB"));
        }
        Ok(Row {
            name: attack.name,
            sent: sent(&report, ended - began),
            counted,
            latency: Some((heartbeats, signals)),
            relayed: Some((relayed, carried.lost, carried.sent)),
            use_of: Some((memory, files)),
            problems,
        })
    }

    /// Lets the hostile process do its work, and sees what it costs the broker.
    fn attack(&self, attack: &Attack, dir: &Path, broker: &Process) -> Result<(Report, Usage), Trouble> {
        let mut command = Command::new(binary("abuse")?);
        command
            .args(["--attack", attack.name, "--broker", &self.broker.address.to_string()])
            .args(["--farm", &self.honest.first.to_string(), "--seed", &self.options.seed.to_string()])
            .args(["--seconds", &self.options.each.as_secs_f64().to_string()])
            .arg("--certificate")
            .arg(dir.join("cert.der"));
        if attack.has_farm {
            command.args(["--token", &self.broker.token()?]);
        }
        let hostile = Process::spawn(attack.name, &mut command)?;
        let mut peak = broker.usage()?;
        let deadline = Instant::now() + self.options.each + SLACK;
        while hostile.is_running() && Instant::now() < deadline {
            stop::pause(LOOK)?;
            let usage = broker.usage()?;
            peak.rss_bytes = peak.rss_bytes.max(usage.rss_bytes);
            peak.files = peak.files.max(usage.files);
        }
        if !hostile.wait(Duration::ZERO)?.success() {
            return Err(hostile.failed("failed").into());
        }
        let line = hostile.wait_for_line("its report", PATIENCE, |line| line.text.starts_with('{'))?;
        let report = serde_json::from_str(&line.text)
            .map_err(|error| Trouble::Wrong(format!("{}: {error} in {}", attack.name, line.text)))?;
        Ok((report, peak))
    }

    /// Waits until the broker has let go of what the attackers had.
    fn settled(
        &self,
        process: &Process,
        before: &Usage,
        leaves: u64,
        problems: &mut Vec<String>,
    ) -> Result<Usage, Trouble> {
        let back = until("descriptors to come back", BACK_WITHIN, || {
            let usage = process.usage().ok()?;
            (usage.files <= before.files + LOOSE_FILES + leaves).then_some(usage)
        });
        if let Ok((usage, _)) = back {
            return Ok(usage);
        }
        // An error where it is gone.
        let usage = process.usage()?;
        problems.push(format!("{} descriptors were not given back", usage.files - before.files));
        Ok(usage)
    }
}

/// What the attackers sent, and what they saw.
fn sent(report: &Report, took: Duration) -> String {
    let sent = report
        .sent
        .iter()
        .map(|(what, count)| format!("{count} {what} ({:.0}/s)", *count as f64 / took.as_secs_f64()));
    let saw = report.saw.iter().map(|(what, value)| format!("{what} {value:.0}"));
    sent.chain(saw).collect::<Vec<_>>().join(", ")
}

/// The counters that grew, as they must.
fn grown(attack: &Attack, before: &Figures, after: &Figures, problems: &mut Vec<String>) -> String {
    let growth = |name: &str| {
        let value = |figures: &Figures| figures.get(name).copied().unwrap_or_default();
        value(after) - value(before)
    };
    for name in attack.counted {
        if growth(name) <= 0.0 {
            problems.push(format!("{name} did not grow"));
        }
    }
    let names = after.keys().filter(|name| {
        name.starts_with("limit_") || name.starts_with("refused_") || attack.counted.contains(&name.as_str())
    });
    let grown = names.filter(|name| growth(name) > 0.0);
    grown
        .map(|name| format!("{} +{}", name.trim_end_matches("_total"), growth(name)))
        .collect::<Vec<_>>()
        .join(", ")
}
