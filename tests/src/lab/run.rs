//! One run: a fresh world, traffic, the fault, and what became of it.

use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::scenario::{Length, Marks, Stage, Traffic};
use super::timeline::Timeline;
use super::traffic::{Download, Pings, Session};
use super::world::{SOON, World};
use super::{LabError, Scenario, Streams, Topology};
use crate::harness::until;

/// The download, megabytes: the goals speak of 10 and more.
const MEGABYTES: u32 = 12;
/// As fast as it can, bytes a second.
const UNPACED: u64 = u32::MAX as u64;
/// Traffic before the fault: enough for round trips to be known and for data
/// to be on its way at every moment.
const WARM: Duration = Duration::from_millis(1_500);
/// After this without an answer the tunnel has not recovered.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The same for the rest of a download over a slow and lossy link.
const GIVE_UP_SLOW: Duration = Duration::from_secs(300);
/// After the recovery: what breaks again now counts.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs a scenario once.
///
/// # Errors
/// When the lab or a program fails otherwise than the fault explains.
pub fn run(
    scenario: &'static Scenario,
    topology: &'static Topology,
    length: Length,
    seed: u64,
) -> Result<Outcome, LabError> {
    let mut world = World::start(topology)?;
    let traffic = match scenario.traffic {
        Traffic::All => Some(Running::start(&world, scenario.span)?),
        Traffic::None => None,
    };
    let marks = (scenario.act)(&mut Stage { world: &mut world, length, seed })?;
    let mut outcome = Outcome {
        scenario,
        topology,
        seed,
        noticed: None,
        sign: None,
        recovered: marks.recovered,
        gap: Duration::ZERO,
        registered: None,
        lost: 0,
        checksum: true,
        problems: marks.problems.clone(),
        timeline: Vec::new(),
    };
    match traffic {
        Some(running) => running.finish(&world, &marks, &mut outcome)?,
        None => {
            if let Err(problem) = world.session().map(drop) {
                outcome.problems.push(format!("no new stream: {problem}"));
            }
        }
    }
    check_sessions(&world, &mut outcome);
    let timeline = Timeline::of(&world, marks.fault);
    if let Some((after, sign)) = timeline.noticed() {
        (outcome.noticed, outcome.sign) = (Some(after), Some(sign));
    }
    if let (Some(back), Some(at)) = (marks.broker_back, timeline.registered()) {
        outcome.registered = Some(at.saturating_duration_since(back));
    }
    outcome.timeline = marks.story.iter().cloned().chain(timeline.lines()).collect();
    Ok(outcome)
}

/// The traffic of a run.
struct Running {
    session: Session,
    download: Download,
    pings: Pings,
}

impl Running {
    fn start(world: &World, span: Duration) -> Result<Self, LabError> {
        // Some of it is left after the fault.
        let rate = f64::from(MEGABYTES) * 1e6 / (span + 2 * WARM).as_secs_f64();
        let running = Self {
            session: world.session()?,
            download: world.download(MEGABYTES, rate as u64)?,
            pings: Pings::start(
                world.network.host(super::network::End::Phone).handle(),
                world.echo_address(),
            )?,
        };
        let start = Instant::now();
        until("traffic flows", SOON, || {
            let flows = running.pings.record().answers() > 10 && running.download.received() > 0;
            (flows && start.elapsed() >= WARM).then_some(())
        })?;
        if running.download.is_over() {
            return Err(LabError::Wrong("the download was over before the fault".to_owned()));
        }
        Ok(running)
    }

    /// Waits for the recovery and judges what came through.
    fn finish(mut self, world: &World, marks: &Marks, outcome: &mut Outcome) -> Result<(), LabError> {
        let answered = || self.pings.record().answered_after(marks.made, marks.healed);
        match until("an answer", GIVE_UP, answered) {
            // Where nothing may break there is nothing to recover from.
            Ok(_) if outcome.scenario.goals.recovered.is_none() => {}
            Ok((at, _)) => outcome.recovered = Some(at.saturating_duration_since(marks.healed)),
            Err(crate::harness::HarnessError::Timeout { .. }) => {
                outcome.problems.push(format!("no answer within {} s", GIVE_UP.as_secs()));
            }
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(SETTLE);
        let survives = outcome.scenario.streams == Streams::Survive;
        {
            let record = self.pings.record();
            outcome.gap = record.longest_gap(marks.fault, Instant::now());
            outcome.lost += 8 * record.wrong;
            if survives && let Some((at, why)) = record.resets.first() {
                let after = at.saturating_duration_since(marks.fault).as_secs_f64();
                outcome.problems.push(format!("the ping stream ended after {after:.1} s: {why}"));
            }
        }
        match (self.session.key(), survives) {
            (Err(problem), true) => outcome.problems.push(format!("the idle session is lost: {problem}")),
            (Ok(()), false) if !ends_lately(outcome) => {
                outcome.problems.push("the idle session outlived its sockets' program".to_owned());
            }
            _ => {}
        }
        let patience = if outcome.topology.is_fast() { GIVE_UP } else { GIVE_UP_SLOW };
        let downloaded = self.download.finish(patience)?;
        if survives {
            outcome.lost += downloaded.lost;
            outcome.checksum = downloaded.right;
            if let Some(broken) = downloaded.broken {
                outcome.problems.push(format!("the download: {broken}"));
            }
            return Ok(());
        }
        if let Some(broken) = downloaded.broken.filter(|broken| broken.contains("stuck")) {
            outcome.problems.push(format!("the download hangs instead of ending: {broken}"));
        }
        match world.session() {
            Ok(_) => {
                let again = world.download(MEGABYTES, UNPACED)?.finish(patience)?;
                (outcome.checksum, outcome.lost) = (again.right, outcome.lost + again.lost);
            }
            Err(problem) => outcome.problems.push(format!("no new stream: {problem}")),
        }
        Ok(())
    }
}

/// Whether a scenario's streams may, but need not, end.
fn ends_lately(outcome: &Outcome) -> bool {
    outcome.scenario.name == "twins"
}

/// No session may be left over, and each must live.
fn check_sessions(world: &World, outcome: &mut Outcome) {
    let seen = until("two live sessions and no other", SOON, || {
        let status = world.agent_status().ok()?;
        let sessions = status["sessions"].as_array()?;
        let live = sessions.iter().filter(|session| session["state"] == "live").count();
        (live == 2 && sessions.len() == 2).then_some(())
    });
    if seen.is_err() {
        let sessions = world.agent_status().map_or_else(|e| e.to_string(), |s| s["sessions"].to_string());
        outcome.problems.push(format!("not two live sessions at the farm but {sessions}"));
    }
}
