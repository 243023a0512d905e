//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use farm_tunnel::display::Display;
use farm_tunnel::fault::USUAL;
use farm_tunnel::words::utc;
use lexopt::prelude::*;

use crate::card::{self, picture};
use crate::control_socket::{InvitationReply, PhoneReply, Reply, Request, ask};
use crate::logging;
use crate::memory;
use crate::readings::block::Sample;
use crate::readings::socket;
use crate::run::{RunOptions, run};

const DEFAULT_STATE: &str = "/var/lib/farm-agent";
const DEFAULT_CONFIG: &str = "/etc/farm-agent.toml";

/// Days of the outage report unless they are said.
const DAYS: u32 = 30;

const HELP: &str = "\
farm-agent: lets the farm's paired phones reach its services, peer to peer.

Usage:
  farm-agent run [--config FILE]        run (under systemd, usually)
  farm-agent invite [--json]            make an invitation for one phone: link, QR code, code to type
  farm-agent phones [--json]            list the paired phones
  farm-agent revoke PHONE               remove a phone: its id, a beginning of it, or its name
  farm-agent status [--json] [--watch]  how the farm stands
  farm-agent record NAME VALUE [--unit U]
                                        keep a reading for the phones; prints its number once it is durable
  farm-agent outages [--json] [--days N]
                                        past outages, and how available the farm was
  farm-agent card [--boot DIR] [--run DIR] [--keep DIR] [--console FILE]
                                        in the card's image: take the installer's config from the boot
                                        partition, write back how the farm stands
  farm-agent debug fault KIND [--for SECONDS]
                                        fail on purpose; needs fault_injection = true
                                        under [debug] in the config

Options:
  --state DIR     where the farm's state is kept (default /var/lib/farm-agent)
  --config FILE   the config (default /etc/farm-agent.toml)
  --help, --version

FARM_LOG=error|warn|info|debug sets what is logged. SIGHUP reads the config again.
Exit status: 0 done, 1 failed, 2 misused.";

enum Command {
    Run,
    Card(card::Places),
    Invite,
    Phones,
    Revoke(String),
    Status,
    Record(socket::Line),
    Outages,
    Fault { kind: String, on: Option<String> },
}

struct Parsed {
    command: Command,
    state: PathBuf,
    config: PathBuf,
    json: bool,
    watch: bool,
    seconds: f64,
    days: u32,
}

/// Runs the command line `arguments` (without the program's name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match parse(arguments) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-agent: {error}; see farm-agent --help");
            return ExitCode::from(2);
        }
    };
    match execute(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Parsed>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut words, mut json, mut watch) = (Vec::new(), false, false);
    let (mut seconds, mut days) = (USUAL.as_secs_f64(), DAYS);
    let (mut state, mut config) = (PathBuf::from(DEFAULT_STATE), PathBuf::from(DEFAULT_CONFIG));
    let mut unit = None;
    let mut places = card::Places::default();
    loop {
        // A value below zero looks like an option.
        if let ["record", _] = words.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && let Some(mut raw) = parser.try_raw_args()
            && let Some(value) = raw.next_if(|next| next.to_str().is_some_and(|t| t.parse::<f64>().is_ok()))
        {
            words.push(value.string()?);
        }
        let Some(argument) = parser.next()? else { break };
        match argument {
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Long("version") | Short('V') => {
                println!("farm-agent {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Long("state") => state = parser.value()?.into(),
            Long("boot") => places.boot = parser.value()?.into(),
            Long("run") => places.run = parser.value()?.into(),
            Long("keep") => places.keep = parser.value()?.into(),
            Long("console") => places.console = parser.value()?.into(),
            Long("config") => config = parser.value()?.into(),
            Long("json") => json = true,
            Long("watch") => watch = true,
            Long("unit") => unit = Some(parser.value()?.string()?),
            Long("days") => days = parser.value()?.parse()?,
            Long("for") => seconds = parser.value()?.parse()?,
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = match words[..] {
        ["run"] => Command::Run,
        ["card"] => Command::Card(card::Places { state: state.clone(), ..places }),
        ["invite"] => Command::Invite,
        ["phones"] => Command::Phones,
        ["revoke", phone] => Command::Revoke(phone.to_owned()),
        ["revoke"] => return Err("revoke needs a phone: see farm-agent phones".into()),
        ["status"] => Command::Status,
        ["record", name, value] => {
            let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
            Command::Record(socket::Line { name: name.to_owned(), value, unit })
        }
        ["record", ..] => return Err("record needs a name and a value".into()),
        ["outages"] => Command::Outages,
        ["debug", "fault", "wedge", on] => {
            Command::Fault { kind: "wedge".to_owned(), on: Some(on.to_owned()) }
        }
        ["debug", "fault", kind] => Command::Fault { kind: kind.to_owned(), on: None },
        ["debug", ..] => return Err("debug needs: fault KIND, or fault wedge LOOP".into()),
        [] => return Err("a command is missing".into()),
        _ => return Err(format!("unknown command: {}", words.join(" ")).into()),
    };
    Ok(Some(Parsed { command, state, config, json, watch, seconds, days }))
}

fn execute(parsed: Parsed) -> Result<(), Box<dyn std::error::Error>> {
    let Parsed { command, state, config, json, watch, seconds, days } = parsed;
    let request = match command {
        Command::Run => {
            logging::start();
            memory::set_up();
            return Ok(farm_tunnel::executor::run(run(RunOptions { config, state }))?);
        }
        Command::Card(places) => {
            logging::start();
            return Ok(card::run(&places)?);
        }
        Command::Record(line) => return record(&state, line, json),
        Command::Invite => Request::Invite { valid_seconds: None },
        Command::Phones => Request::Phones {},
        Command::Revoke(phone) => Request::Revoke { phone },
        Command::Status => Request::Status { watch },
        Command::Outages => Request::Outages { days },
        Command::Fault { kind, on } => Request::Fault { kind, on, seconds },
    };
    let mut shown = Ok(());
    let mut display = Display::default();
    ask(&state, &request, |reply| {
        shown = match &reply {
            Reply::Status(status) if watch && !json => {
                let now = utc(crate::farm::wall_time());
                let shown = display.show(&mut std::io::stdout(), &status.block(), &status.line(), &now);
                shown.map_err(Into::into)
            }
            _ => show(reply, json),
        };
        watch && shown.is_ok()
    })?;
    shown
}

fn record(state: &std::path::Path, line: socket::Line, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    // Told here, since JSON has no words for NaN and infinity.
    Sample::new(line.name.clone(), line.value, line.unit.clone())?;
    let sequence = socket::record(state, &line)?;
    let text =
        if json { serde_json::to_string(&socket::Reply::Sequence(sequence))? } else { sequence.to_string() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn show(reply: Reply, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    let text = match &reply {
        Reply::Invitation(invitation) if json => serde_json::to_string(invitation)?,
        Reply::Phones(phones) if json => serde_json::to_string(phones)?,
        Reply::Status(status) if json => serde_json::to_string(status)?,
        Reply::Invitation(invitation) => show_invitation(invitation)?,
        Reply::Phones(phones) if phones.is_empty() => {
            "no paired phones: make an invitation with `farm-agent invite`".to_owned()
        }
        Reply::Phones(phones) => phones.iter().map(show_phone).collect::<Vec<_>>().join("\n"),
        Reply::Revoked(phone) => format!("revoked {} ({})", phone.name, phone.id),
        Reply::Status(status) => status.block(),
        Reply::Outages(report) if json => serde_json::to_string(report)?,
        Reply::Outages(report) => report.text("this farm"),
        Reply::Done(what) => what.clone(),
        Reply::Error(problem) => return Err(problem.clone().into()),
    };
    // Through a pipe that is closed early this is an error, not a panic.
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn show_invitation(invitation: &InvitationReply) -> Result<String, Box<dyn std::error::Error>> {
    let picture = picture::blocks(&invitation.link)?;
    Ok(format!(
        "{picture}\nInvitation to {}, good for {} minutes and one phone.\nScan the code, or open:\n  {}\nor type:\n  {}",
        invitation.farm_name,
        invitation.valid_seconds / 60,
        invitation.link,
        invitation.code
    ))
}

fn show_phone(phone: &PhoneReply) -> String {
    let connected = if phone.connected { "connected" } else { "away" };
    format!("{}  {connected:<9}  {}", phone.id, phone.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Parsed>, lexopt::Error> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn misuse_is_told_from_failure() {
        for bad in [&["fly"][..], &[], &["revoke"], &["run", "--nonsense"], &["status", "extra"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
        let record = |words: &[&str]| match parsed(words).unwrap().unwrap().command {
            Command::Record(line) => line,
            _ => panic!("{words:?}"),
        };
        for words in
            [&["record", "air", "-5.5", "--unit", "°C"][..], &["record", "--unit", "°C", "air", "-5.5"]]
        {
            let line = record(words);
            assert_eq!((line.name.as_str(), line.value, line.unit.as_deref()), ("air", -5.5, Some("°C")));
        }
        for bad in [&["record"][..], &["record", "a"], &["record", "a", "much"], &["record", "a", "1", "2"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
        let good = parsed(&["status", "--json", "--state", "/x"]).unwrap().unwrap();
        assert!(good.json && good.state == std::path::Path::new("/x"));
    }
}
