//! What an idle farm costs: bytes on the wire, by kind of flow, and what the
//! programs do while the network is gone.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::namespace::{Namespace, sweep};
use super::network::End;
use super::world::{SOON, World};
use super::{LabError, Topology};
use crate::harness::{Process, Usage, until};

/// After the last stream has ended the tunnel is watched for 30 s more, and rests
/// 240 s after that.
const QUIET_AFTER: Duration = Duration::from_secs(280);
/// The budget of an unwatched agent, bytes a day.
const BUDGET: f64 = 1e6;
/// Kinds of flows at the farm's interface, and what nftables matches them by
/// (`$` is the farm's side of the port: `dport` going out, `sport` coming in).
const KINDS: [(&str, &str); 5] = [
    ("broker_tcp", "tcp $ 8443"),
    ("stun", "udp $ 8443"),
    ("dns", "meta l4proto { tcp, udp } th $ 53"),
    ("peer_udp", "meta l4proto udp"),
    ("other", "meta l4proto != 255"),
];
/// While the network is gone: what `docs/operations.md` promises of the log.
const LINES_A_MINUTE: f64 = 120.0;

/// Measures for `minutes` each, and says whether the budgets are kept.
///
/// # Errors
/// When the lab fails.
pub fn idle(topology: &Topology, minutes: f64) -> Result<(String, bool), LabError> {
    sweep();
    let span = Duration::from_secs_f64(minutes * 60.0);
    let world = World::start(topology)?;
    let farm = world.network.host(End::Farm);
    count_flows(farm)?;
    let mut out = format!(
        "Bytes of IP packets at the farm's interface, headers included, over {minutes} min, as a day:\n\n\
         | | broker TCP | STUN | DNS | peer UDP | other | a day | budget |\n|---|---|---|---|---|---|---|---|\n"
    );
    let mut good = true;
    let mut row = |name: &str, budget: bool| -> Result<(), LabError> {
        std::thread::sleep(QUIET_AFTER);
        farm.nft("reset counters")?;
        let start = Instant::now();
        std::thread::sleep(span);
        let day = 86_400.0 / start.elapsed().as_secs_f64();
        let bytes = flows(farm)?.map(|bytes| bytes as f64 * day);
        let total: f64 = bytes.iter().sum();
        let kept = !budget || total <= BUDGET;
        good &= kept;
        let verdict = match (budget, kept) {
            (false, _) => "–",
            (true, true) => "1 MB: ok",
            (true, false) => "1 MB: **MISS**",
        };
        let cells: Vec<_> = bytes.iter().map(|bytes| format!("{:.0} kB", bytes / 1e3)).collect();
        // Writing to a string can't fail.
        let _ = writeln!(out, "| {name} | {} | {:.2} MB | {verdict} |", cells.join(" | "), total / 1e6);
        Ok(())
    };
    // Somebody's terminal is open: watched for as long as it is.
    let session = world.session()?;
    row("a phone with an open stream", false)?;
    drop(session);
    row("two unwatched sessions", true)?;
    world.page_forward.process.terminate(SOON)?;
    row("one unwatched session", true)?;
    world.echo_forward.process.terminate(SOON)?;
    let gone = |status: Value| status["sessions"].as_array()?.is_empty().then_some(());
    until("no session is left", SOON, || world.agent_status().ok().and_then(gone))?;
    row("no session", true)?;
    Ok((out, good))
}

/// Cuts the farm and the phone off for `minutes`, while a stream waits, and
/// says what the programs do meanwhile.
///
/// # Errors
/// When the lab fails.
pub fn gone(topology: &Topology, minutes: f64) -> Result<(String, bool), LabError> {
    sweep();
    let span = Duration::from_secs_f64(minutes * 60.0);
    let world = World::start(topology)?;
    let mut session = world.session()?;
    world.network.drop_packets(
        &["iifname phone", "oifname phone", "iifname farm", "oifname farm"].map(str::to_owned),
    )?;
    let agent = world.farm.agent.daemon.process()?;
    let programs: [(&str, &Process); 2] =
        [("farm-agent", agent), ("farm-connect", &world.echo_forward.process)];
    let look = || -> Result<Vec<(Usage, u64)>, LabError> {
        programs.iter().map(|(_, process)| Ok((process.usage()?, process.mark()))).collect()
    };
    let (before, start) = (look()?, Instant::now());
    std::thread::sleep(span);
    let (after, seconds) = (look()?, start.elapsed().as_secs_f64());
    let mut out = format!(
        "{minutes} min without any network, a stream waiting:\n\n\
         | program | CPU | wakeups a second | lines a minute | |\n|---|---|---|---|---|\n"
    );
    let mut good = true;
    for ((name, _), ((before, first), (after, last))) in programs.iter().zip(before.iter().zip(&after)) {
        let cpu = (after.cpu - before.cpu).as_secs_f64() / seconds;
        let wakeups = (after.voluntary_switches.saturating_sub(before.voluntary_switches)) as f64 / seconds;
        let lines = (last - first) as f64 * 60.0 / seconds;
        // A hundredth of a core and 50 wakeups a second: far from a storm, and
        // what probing four times a second with its timers may take.
        let kept = cpu <= 0.01 && wakeups <= 50.0 && lines <= LINES_A_MINUTE;
        good &= kept;
        let verdict = if kept { "ok" } else { "**STORM**" };
        let _ = writeln!(out, "| {name} | {:.2} % | {wakeups:.1} | {lines:.0} | {verdict} |", cpu * 100.0);
    }
    let healed = Instant::now();
    world.network.drop_packets(&[])?;
    let answered = session.key();
    good &= answered.is_ok();
    let _ = writeln!(
        out,
        "\nThe stream that waited: {} after {:.2} s.",
        answered.map_or_else(|problem| problem, |()| "answered".to_owned()),
        healed.elapsed().as_secs_f64()
    );
    Ok((out, good))
}

/// Counts what passes the farm's own interface.
fn count_flows(farm: &Namespace) -> Result<(), LabError> {
    let mut script = "add table ip flows; \
        add chain ip flows leaving { type filter hook output priority 0; }; \
        add chain ip flows arriving { type filter hook input priority 0; }"
        .to_owned();
    for (kind, _) in KINDS {
        script += &format!("; add counter ip flows {kind}");
    }
    for (chain, interface, port) in [("leaving", "oifname", "dport"), ("arriving", "iifname", "sport")] {
        for (kind, matches) in KINDS {
            let matches = matches.replace('$', port);
            script +=
                &format!("; add rule ip flows {chain} {interface} eth0 {matches} counter name {kind} accept");
        }
    }
    farm.nft(&script)
}

fn flows(farm: &Namespace) -> Result<[u64; KINDS.len()], LabError> {
    let text = farm.output("nft", &["-j", "list", "counters"])?;
    let wrong = || LabError::Wrong(format!("nft counted nothing: {text}"));
    let counters: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    let all = counters["nftables"].as_array().ok_or_else(wrong)?;
    let mut bytes = [0; KINDS.len()];
    for (kind, (name, _)) in bytes.iter_mut().zip(KINDS) {
        let counter = all.iter().find(|entry| entry["counter"]["name"] == name).ok_or_else(wrong)?;
        *kind = counter["counter"]["bytes"].as_u64().ok_or_else(wrong)?;
    }
    Ok(bytes)
}
