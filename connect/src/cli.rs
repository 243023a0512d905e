//! The command line.

mod readings;

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_signal::{Signal, Signals};
use farm_tunnel::display::Display;
use farm_tunnel::words::utc;
use futures_util::StreamExt;
use lexopt::prelude::*;
use serde_json::json;
use tracing::Level;

use crate::client::Client;
use crate::forward::Forward;
use crate::pair::pair_telling;
use crate::tunnel::Tunnel;

const HELP: &str = "\
farm-connect: reaches a farm's services from this computer, peer to peer.

Usage:
  farm-connect pair LINK [--name NAME]              pair with a farm, by its invitation
  farm-connect pair CODE --broker URL               the same, by a typed code
  farm-connect farms [--json]                       list the paired farms
  farm-connect status FARM [--json] [--watch]       how the tunnel to a farm stands
  farm-connect outages FARM [--json] [--days N]     past outages, and how available it was
  farm-connect forward FARM SERVICE [--listen ADDR] let a local port lead to a service
  farm-connect readings FARM [--since N] [--json] [--follow]
                                                    what the farm has recorded since the last time

FARM is a farm's name, its id, or the beginning of its id.

Options:
  --since N       every reading after number N, 0 for all that the farm has;
                  what comes next time stays as it is
  --follow        go on with new readings
  --listen ADDR   where forward listens (default 127.0.0.1:0, any free port)
  --name NAME     what the farm's owner sees this device as (default: this computer's name)
  --state DIR     where this device's state is kept
                  (default $XDG_DATA_HOME/farm-connect or ~/.local/share/farm-connect)
  --help, --version

FARM_LOG=error|warn|info|debug sets what is logged (default warn).
FARM_BROKER_CA names a PEM file with the broker's own certificate authority,
or FARM_BROKER_KEY is the broker's key itself (sha256/…, as it logs it).
Exit status: 0 done, 1 failed, 2 misused.";

/// How long `status` without --watch waits for a live tunnel before it tells
/// what it has.
const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// Between two lines of `status --watch` while nothing changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How soon `status --watch` sees a change.
const WATCH_LOOK: Duration = Duration::from_millis(100);

/// Days of the outage report unless they are said.
const DAYS: u32 = 30;

enum Command {
    Pair { invitation: String, broker: Option<String>, name: Option<String> },
    Farms,
    Status(String),
    Outages(String),
    Forward { farm: String, service: String, listen: SocketAddr },
    Readings(readings::Wanted),
}

struct Parsed {
    command: Command,
    state: PathBuf,
    json: bool,
    watch: bool,
    days: u32,
}

type Failure = Box<dyn std::error::Error>;

/// Runs the command line `arguments` (without the program's name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match parse(arguments) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-connect: {error}; see farm-connect --help");
            return ExitCode::from(2);
        }
    };
    start_log();
    match farm_tunnel::executor::run(execute(parsed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-connect: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    let level = match std::env::var("FARM_LOG").as_deref() {
        Ok("error") => Level::ERROR,
        Ok("info") => Level::INFO,
        Ok("debug") => Level::DEBUG,
        Ok("trace") => Level::TRACE,
        _ => Level::WARN,
    };
    // A second start in one process (tests) keeps the first one.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Parsed>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut words, mut json, mut watch) = (Vec::new(), false, false);
    let mut days = DAYS;
    let (mut state, mut name, mut broker, mut listen) = (None, None, None, None);
    let (mut since, mut follow) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Long("version") | Short('V') => {
                println!("farm-connect {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Long("state") => state = Some(PathBuf::from(parser.value()?)),
            Long("name") => name = Some(parser.value()?.string()?),
            Long("broker") => broker = Some(parser.value()?.string()?),
            Long("listen") => listen = Some(parser.value()?.parse::<SocketAddr>()?),
            Long("json") => json = true,
            Long("watch") => watch = true,
            Long("since") => since = Some(parser.value()?.parse::<u64>()?),
            Long("follow") => follow = true,
            Long("days") => days = parser.value()?.parse()?,
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = match words[..] {
        ["pair", invitation] => Command::Pair { invitation: invitation.to_owned(), broker, name },
        ["pair"] => return Err("pair needs an invitation: a link or a code".into()),
        ["farms"] => Command::Farms,
        ["status", farm] => Command::Status(farm.to_owned()),
        ["forward", farm, service] => Command::Forward {
            farm: farm.to_owned(),
            service: service.to_owned(),
            listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
        },
        ["readings", farm] => {
            Command::Readings(readings::Wanted { farm: farm.to_owned(), since, follow, json })
        }
        ["outages", farm] => Command::Outages(farm.to_owned()),
        ["outages"] | ["status"] | ["readings"] | ["forward"] | ["forward", _] => {
            return Err(format!("{} needs more words", words[0]).into());
        }
        [] => return Err("a command is missing".into()),
        _ => return Err(format!("unknown command: {}", words.join(" ")).into()),
    };
    let state = match state.or_else(default_state) {
        Some(state) => state,
        None => return Err("neither HOME nor XDG_DATA_HOME is set: name a directory with --state".into()),
    };
    Ok(Some(Parsed { command, state, json, watch, days }))
}

fn default_state() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")))?;
    Some(data.join("farm-connect"))
}

fn device_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "a computer".to_owned())
}

/// A pipe that is closed early is an error, not a panic.
fn print(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn execute(parsed: Parsed) -> Result<(), Failure> {
    let Parsed { command, state, json, watch, days } = parsed;
    let client = Client::open(&state)?;
    match command {
        Command::Pair { invitation, broker, name } => {
            let name = name.unwrap_or_else(device_name);
            let tell = |waits: &str| eprintln!("farm-connect: still trying: {waits}");
            let farm = pair_telling(&client, &invitation, broker.as_deref(), &name, tell).await?;
            print(&if json {
                json!({ "name": farm.name, "farm": farm.id().to_string() }).to_string()
            } else {
                format!("paired with {} ({})", farm.name, farm.id())
            })
        }
        Command::Farms => farms(&client, json),
        Command::Outages(farm) => {
            let farm = client.find(&farm)?;
            let report = client.outages(&farm, days);
            print(&if json {
                serde_json::to_string(&report)?
            } else {
                format!("{}, as seen from this computer\n{}", farm.name, report.text("this computer"))
            })
        }
        Command::Status(farm) => status(&client, &farm, json, watch).await,
        Command::Readings(wanted) => readings::readings(&client, &wanted).await,
        Command::Forward { farm, service, listen } => forward(&client, &farm, &service, listen).await,
    }
}

fn farms(client: &Client, json: bool) -> Result<(), Failure> {
    let farms = client.farms();
    if json {
        let list: Vec<_> = farms
            .iter()
            .map(|f| json!({ "name": f.name, "farm": f.id().to_string(), "broker": f.broker.to_string() }))
            .collect();
        return print(&serde_json::to_string(&list)?);
    }
    if farms.is_empty() {
        return print("no paired farms: pair with `farm-connect pair LINK`");
    }
    farms.iter().try_for_each(|f| print(&format!("{}  {}  {}", f.id(), f.broker, f.name)))
}

fn wall_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Ends on SIGTERM and SIGINT.
async fn stopped() {
    match Signals::new([Signal::Term, Signal::Int]) {
        Ok(mut signals) => {
            signals.next().await;
        }
        Err(error) => {
            tracing::warn!(%error, "signals can't be caught: the farm is not told when this ends");
            std::future::pending().await
        }
    }
}

async fn status(client: &Client, farm: &str, json: bool, watch: bool) -> Result<(), Failure> {
    let tunnel = Tunnel::start(client, &client.find(farm)?)?;
    let _attention = tunnel.attend();
    let show = async {
        if !watch {
            tunnel.wait_live(STATUS_WITHIN).await;
            // Path and round trip come with the first answered ping.
            smol::Timer::after(Duration::from_millis(50)).await;
        }
        let (mut display, mut shown) = (Display::default(), None);
        while let Some(status) = tunnel.status().await {
            let now = Instant::now();
            let line = status.line();
            let due =
                shown.as_ref().is_none_or(|(at, former)| now >= *at + WATCH_INTERVAL || *former != line);
            if due && json {
                print(&serde_json::to_string(&status)?)?;
            } else if due && watch {
                display.show(&mut std::io::stdout(), &status.block(), &line, &utc(wall_time()))?;
            } else if due {
                print(&status.block())?;
            }
            if due {
                shown = Some((now, line));
            }
            if !watch {
                break;
            }
            smol::Timer::after(WATCH_LOOK).await;
        }
        Ok(())
    };
    until_stopped(&tunnel, show).await
}

async fn forward(client: &Client, farm: &str, service: &str, listen: SocketAddr) -> Result<(), Failure> {
    let farm = client.find(farm)?;
    let tunnel = Tunnel::start(client, &farm)?;
    let forward = Forward::bind(&tunnel, service, listen)
        .await
        .map_err(|e| format!("can't listen on {listen}: {e}; choose another with --listen"))?;
    print(&format!("forwarding {} to {service} of {}", forward.local_address()?, farm.name))?;
    smol::future::or(forward.run(), stopped()).await;
    leave(&tunnel).await;
    Ok(())
}

/// Works until done or stopped, then leaves the farm.
async fn until_stopped(
    tunnel: &Tunnel,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let result = smol::future::or(work, async {
        stopped().await;
        Ok(())
    })
    .await;
    leave(tunnel).await;
    result
}

/// Tells the farm, so that it need not keep the session.
async fn leave(tunnel: &Tunnel) {
    tunnel.stop().await;
    // For the goodbye to leave.
    smol::Timer::after(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misuse_is_told_from_failure() {
        let parsed = |words: &[&str]| parse(words.iter().map(OsString::from));
        for bad in [&["fly"][..], &[], &["pair"], &["forward", "x"], &["farms", "--nonsense"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
        let good = parsed(&["forward", "Farm", "ssh", "--listen", "127.0.0.1:2222", "--state", "/x"]);
        assert!(matches!(good.unwrap().unwrap().command, Command::Forward { .. }));
    }
}
