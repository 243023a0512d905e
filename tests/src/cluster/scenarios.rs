//! What happens to the cluster, and what must come of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use farm_broker::admin::{self, Answer, Request};
use farm_protocol::codec;
use farm_tunnel::backoff::Jitter;

use super::crew::failed;
use super::enrolling::{Enrolling, token};
use super::world::{BROKERS, RIGHT_WITHIN, World};
use super::{Options, Report};
use crate::bench::stop::pause;
use crate::harness::farm::PATIENCE;
use crate::harness::{HarnessError, until};

/// Signals between two brokers may take so much longer than at one, at p99.
const ACROSS_ADDS: Duration = Duration::from_millis(5);

/// A tunnel whose echo takes longer than this has noticed something: thirty
/// times what one takes on a busy machine, a fifth of what finds a dead carrier.
const UNNOTICED: Duration = Duration::from_millis(600);

/// A device whose broker died is at another one within this time.
const MOVED_WITHIN: Duration = Duration::from_secs(2);

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// How much longer signals take between two brokers.
pub(super) fn latency(world: &World, options: &Options, report: &mut Report) -> Result<(), HarnessError> {
    world.crew.latencies();
    pause(if options.quick { Duration::from_secs(4) } else { Duration::from_secs(20) })?;
    let mut measured = world.crew.latencies();
    measured.same.sort_unstable();
    measured.across.sort_unstable();
    let figures = |sorted: &[Duration]| {
        let (p50, p99) = (percentile(sorted, 50), percentile(sorted, 99));
        (format!("{} signals, p50 {}, p99 {}", sorted.len(), ms(p50), ms(p99)), p99)
    };
    let ((same, same_p99), (across, across_p99)) = (figures(&measured.same), figures(&measured.across));
    let adds = across_p99.saturating_sub(same_p99);
    report.row("signals at one broker", same, None);
    let enough = measured.same.len() >= 100 && measured.across.len() >= 100;
    let wrong = (adds > ACROSS_ADDS && !options.quick || !enough)
        .then(|| format!("adds {} at p99, {} are allowed", ms(adds), ms(ACROSS_ADDS)));
    report.row("signals between two brokers", format!("{across}: adds {} at p99", ms(adds)), wrong);
    Ok(())
}

/// After something died: how long until presence was right, and who noticed.
fn after(
    world: &World,
    what: &str,
    dead: Option<&str>,
    since: Instant,
    report: &mut Report,
) -> Result<(), HarnessError> {
    let right = world.right_again(dead, since, RIGHT_WITHIN)?;
    let (gap, tunnel) = (world.crew.longest_gap(), world.tunnel());
    let mut problems = Vec::new();
    let right = right.unwrap_or_else(|wrong| {
        problems.push(format!("not right after {RIGHT_WITHIN:?}: {wrong}"));
        RIGHT_WITHIN
    });
    if gap > MOVED_WITHIN {
        problems.push(format!("a device was without a broker for {gap:.1?}"));
    }
    let slowest = tunnel.unwrap_or_else(|broken| {
        problems.push(broken);
        Duration::ZERO
    });
    if slowest > UNNOTICED {
        problems.push(format!("an echo through the tunnel took {slowest:.1?}"));
    }
    let text = format!(
        "right after {:.2} s; longest without a broker {:.2} s; slowest echo in the tunnel {}",
        right.as_secs_f64(),
        gap.as_secs_f64(),
        ms(slowest)
    );
    report.row(what, text, (!problems.is_empty()).then(|| problems.join("; ")));
    Ok(())
}

/// One broker is killed, and comes back.
pub(super) fn kill_broker(
    world: &mut World,
    number: usize,
    what: &str,
    report: &mut Report,
) -> Result<(), HarnessError> {
    let url = world.brokers[number].url();
    let since = Instant::now();
    world.broker(number).kill()?;
    after(world, what, Some(&url), since, report)?;
    world.broker(number).start()?;
    world.spread()
}

/// One node of NATS is killed, and comes back.
pub(super) fn kill_node(
    world: &mut World,
    number: usize,
    what: &str,
    report: &mut Report,
) -> Result<(), HarnessError> {
    let since = Instant::now();
    world.nodes[number].kill()?;
    after(world, what, None, since, report)?;
    world.nodes[number].start()?;
    world.nodes[number].wait_until_whole()?;
    Ok(())
}

/// Brokers and nodes are killed at random, while farms enroll.
pub(super) fn random_kills(
    world: &mut World,
    options: &Options,
    report: &mut Report,
) -> Result<(), HarnessError> {
    let mut random = Jitter::new(options.seed);
    world.enrolling = Some(Enrolling::start(world.urls(), world.states.clone())?);
    for kill in 1..=options.kills {
        let millis = random.up_to(Duration::from_millis(5999)).as_millis();
        let victim = usize::try_from(millis / 1000).unwrap_or(0);
        let which = victim % BROKERS;
        if victim < BROKERS {
            kill_broker(world, which, &format!("kill {kill}: broker b{}", which + 1), report)?;
        } else {
            let name = format!("kill {kill}: NATS node {}", world.nodes[which].name());
            kill_node(world, which, &name, report)?;
        }
    }
    Ok(())
}

/// Every farm that was let in is known to every broker.
pub(super) fn nothing_is_lost(world: &mut World, report: &mut Report) -> Result<(), HarnessError> {
    let Some(enrolling) = world.enrolling.take() else { return Ok(()) };
    let (acknowledged, waited) = enrolling.acknowledged();
    drop(enrolling);
    let wanted: Vec<String> = acknowledged.iter().map(ToString::to_string).collect();
    let mut missing = Vec::new();
    for state in &world.states {
        let all_there = until("a broker to know all farms", RIGHT_WITHIN, || {
            let Ok(Answer::Farms(farms)) = admin::ask(state, &Request::Farms {}) else { return None };
            missing = wanted.iter().filter(|farm| !farms.iter().any(|f| f.id == **farm)).cloned().collect();
            missing.is_empty().then_some(())
        });
        if all_there.is_err() {
            break;
        }
    }
    let text = format!(
        "{} farms were let in, {waited} times one had to wait; lost: {}",
        wanted.len(),
        missing.len()
    );
    let wrong = (!missing.is_empty() || wanted.is_empty()).then(|| format!("lost: {}", missing.join(", ")));
    report.row("acknowledged farms", text, wrong);
    Ok(())
}

/// All of NATS is away: what is known goes on, what is new waits.
pub(super) fn engine_away(
    world: &mut World,
    options: &Options,
    report: &mut Report,
) -> Result<(), HarnessError> {
    let lasts = if options.quick { Duration::from_secs(5) } else { Duration::from_secs(60) };
    world.crew.longest_gap();
    for node in &mut world.nodes {
        node.kill()?;
    }
    let began = Instant::now();
    let mut problems = Vec::new();
    let told = token(&world.states[0]).err().unwrap_or_else(|| {
        problems.push("a token was issued without NATS".to_owned());
        String::new()
    });
    if !told.contains("have to wait") {
        problems.push(format!("the operator is told {told:?}"));
    }
    // A farm that is known comes back to its broker meanwhile.
    world.agent.daemon.terminate()?;
    world.agent.daemon.start()?;
    let agent = &world.agent;
    let (_, back) = until("a known farm to be let in without NATS", PATIENCE, || {
        (agent.control.status().ok()?["broker"]["state"] == "online").then_some(())
    })?;
    pause(lasts.saturating_sub(began.elapsed()))?;
    let gap = world.crew.longest_gap();
    if gap > Duration::ZERO {
        problems.push(format!("a device was without a broker for {gap:.1?}"));
    }
    let text = format!(
        "for {:.0} s; a known farm that restarted was in after {:.2} s; longest without a broker {:.2} s; \
         the operator is told: {told}",
        began.elapsed().as_secs_f64(),
        back.as_secs_f64(),
        gap.as_secs_f64()
    );
    report.row("NATS is away", text, (!problems.is_empty()).then(|| problems.join("; ")));
    for node in &mut world.nodes {
        node.start()?;
    }
    for node in &world.nodes {
        node.wait_until_whole()?;
    }
    let since = Instant::now();
    let (_, issued) = until("a token after NATS is back", PATIENCE, || token(&world.states[0]).ok())?;
    // The agent's restart ended the stream: as it must, with a stated reason.
    let right = world.right_again(None, since, RIGHT_WITHIN)?;
    let wrong = right.as_ref().err().cloned();
    let right = right.unwrap_or(RIGHT_WITHIN);
    let text =
        format!("a token after {:.2} s, all right after {:.2} s", issued.as_secs_f64(), right.as_secs_f64());
    report.row("NATS is back", text, wrong);
    Ok(())
}

/// One broker after another is restarted in order, as an upgrade does it.
pub(super) fn rolling_upgrade(
    world: &mut World,
    options: &Options,
    report: &mut Report,
) -> Result<(), HarnessError> {
    for number in 0..if options.quick { 1 } else { BROKERS } {
        let since = Instant::now();
        world.broker(number).terminate()?;
        world.broker(number).start()?;
        after(world, &format!("upgrade of b{}", number + 1), None, since, report)?;
        world.spread()?;
    }
    Ok(())
}

/// The records are of another version, as a newer broker would leave them.
pub(super) fn other_schema(world: &mut World, report: &mut Report) -> Result<(), HarnessError> {
    let mut problems = Vec::new();
    put_schema(world, 2)?;
    let refused = until("the brokers to refuse to write", RIGHT_WITHIN, || {
        token(&world.states[0]).err().filter(|told| told.contains("version 2"))
    });
    let told = match refused {
        Ok((told, _)) => told,
        Err(error) => {
            problems.push(error.to_string());
            String::new()
        }
    };
    if let Some(wrong) = world
        .crew
        .wrong(None, Instant::now().checked_sub(Duration::from_secs(2)).unwrap_or_else(Instant::now))
    {
        problems.push(wrong);
    }
    put_schema(world, 1)?;
    until("tokens again", RIGHT_WITHIN, || token(&world.states[0]).ok())?;
    report.row("records of a newer version", told, (!problems.is_empty()).then(|| problems.join("; ")));
    Ok(())
}

/// By hand: what a broker of another version would write.
fn put_schema(world: &World, version: u16) -> Result<(), HarnessError> {
    let value = codec::encode(&version).map_err(|e| failed(&e))?;
    let io = |source| HarnessError::Io { doing: "writing to NATS by hand".to_owned(), source };
    let mut stream = TcpStream::connect(world.nodes[0].clients).map_err(io)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    let head = format!("CONNECT {{\"verbose\":false}}\r\nPUB $KV.farm-tunnel.schema {}\r\n", value.len());
    stream.write_all(head.as_bytes()).map_err(io)?;
    stream.write_all(&value).map_err(io)?;
    stream.write_all(b"\r\nPING\r\n").map_err(io)?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while !said.windows(6).any(|part| part == b"PONG\r\n") {
        match stream.read(&mut buffer).map_err(io)? {
            0 => return Err(io(std::io::ErrorKind::UnexpectedEof.into())),
            read => said.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(())
}
