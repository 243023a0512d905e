//! The command line. Exits with 0 when done, 1 when failed, 2 when misused.

#[cfg(feature = "cluster")]
mod cluster;
mod duration;
mod history;
mod list;
mod log;
mod serve;
mod size;
mod watchdog;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

use crate::admin::{self, Answer, Request};
use crate::backup;
use crate::config::{DEFAULT_STATE, Settings};
use crate::core::enrollment::TOKEN_LASTS;

const HELP: &str = "\
farm-broker: introduces farms and phones to each other

Usage:
  farm-broker serve [--config FILE] [--listen ADDR] [--state DIR] [--public-url URL]
                    [--trusted-proxy ADDR]... [--stun ADDR|off]
                    [--app DIR] [--views URL] [--log-format text|json]
  farm-broker enroll [--name NAME] [--valid DURATION] [--state DIR]
  farm-broker farms [--json] [--state DIR]
  farm-broker show FARM [--json] [--state DIR]
  farm-broker events [--farm FARM] [--json] [--follow] [--state DIR]
  farm-broker revoke FARM [--state DIR]
  farm-broker backup FILE [--state DIR]
  farm-broker restore FILE [--force] [--state DIR]

Commands:
  serve    runs the broker
  enroll   prints a one-time token that lets one farm use the running broker
  farms    lists the farms of the running broker
  show     all about one farm: its address, its availability, its log
  events   the log: which farm came, went or moved, and when
  revoke   refuses a farm from now on; its tunnels end when they need the broker
  backup   writes the farms and open tokens of the running broker to a file
  restore  puts a backup into a state directory that no broker uses

FARM is an id, its beginning, or a name.

Options:
  --config FILE         settings in TOML: the options below without the dashes,
                        with _ for -; the command line wins
  --listen ADDR         where to listen for HTTP and WebSockets (127.0.0.1:8443)
  --state DIR           the state directory (/var/lib/farm-broker)
  --public-url URL      the URL in the devices' configs, https://HOST[:PORT]: a
                        device that means another broker is refused
  --trusted-proxy ADDR  a proxy whose X-Forwarded-For is believed
  --stun ADDR|off       where to answer STUN over UDP (where --listen says)
  --app DIR             the phone app's files, from `make app` (app beside this
                        program, /usr/share/farm-broker/app)
  --views URL           where the app shows farm pages: https://*.HOST[:PORT], on
                        another domain than the app (on localhost: *.localhost)
  --log-format FORMAT   log lines for people (text), or JSON objects (json)
  --name NAME           the farm's name in the list
  --valid DURATION      how long the token is good for: 30m, 12h, 7d (7d)
  --farm FARM           the log of this farm alone
  --follow              goes on with what happens
  --force               replaces a state that is not empty
  --json                for programs; times in seconds since 1970
  -h, --help            this text
  -V, --version         the version

SIGHUP reads certificates, limits and alerts again.
FARM_BROKER_LOG sets what is logged: error, warn, info, debug, trace (info).
";

/// What the person asked for.
#[derive(Debug, PartialEq)]
enum Command {
    Help,
    Version,
    Serve { config: Option<PathBuf>, settings: Box<Settings> },
    Enroll { state: PathBuf, name: Option<String>, valid: Duration },
    Farms { state: PathBuf, json: bool },
    Show { state: PathBuf, farm: String, json: bool },
    Events { state: PathBuf, farm: Option<String>, json: bool, follow: bool },
    Revoke { state: PathBuf, farm: String },
    Backup { state: PathBuf, file: PathBuf },
    Restore { state: PathBuf, file: PathBuf, force: bool },
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            complain(&format!("{error}; see farm-broker --help"));
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn complain(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _gone = writeln!(io::stderr(), "farm-broker: {text}");
}

fn parse(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let name = match parser.next()? {
        Some(Value(value)) => Some(value.string()?),
        Some(other) => return common(other),
        None => None,
    };
    match name.as_deref() {
        Some("serve") => parse_serve(&mut parser),
        Some("enroll") => parse_enroll(&mut parser),
        Some("farms") => parse_farms(&mut parser),
        Some("show") => parse_show(&mut parser),
        Some("events") => parse_events(&mut parser),
        Some("revoke") => parse_revoke(&mut parser),
        Some("backup") => parse_backup(&mut parser),
        Some("restore") => parse_restore(&mut parser),
        Some(other) => Err(format!("{other:?} is not a command").into()),
        None => {
            Err("a command is missing: serve, enroll, farms, show, events, revoke, backup or restore".into())
        }
    }
}

fn parse_serve(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut config, mut settings) = (None, Box::new(Settings::default()));
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => config = Some(parser.value()?.into()),
            Long("listen") => settings.listen = Some(parser.value()?.parse()?),
            Long("state") => settings.state = Some(parser.value()?.into()),
            Long("public-url") => settings.public_url = Some(parser.value()?.parse()?),
            Long("trusted-proxy") => settings.trusted_proxy.push(parser.value()?.parse()?),
            Long("app") => settings.app = Some(parser.value()?.into()),
            Long("views") => settings.views = Some(parser.value()?.parse()?),
            Long("log-format") => settings.log_format = Some(parser.value()?.parse()?),
            Long("stun") => settings.stun = Some(parser.value()?.parse()?),
            other => return common(other),
        }
    }
    Ok(Command::Serve { config, settings })
}

fn parse_enroll(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut name, mut valid) = (DEFAULT_STATE.into(), None, TOKEN_LASTS);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Long("name") => name = Some(parser.value()?.string()?),
            Long("valid") => valid = parser.value()?.parse_with(duration::parse)?,
            other => return common(other),
        }
    }
    Ok(Command::Enroll { state, name, valid })
}

fn parse_farms(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut json) = (DEFAULT_STATE.into(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Long("json") => json = true,
            other => return common(other),
        }
    }
    Ok(Command::Farms { state, json })
}

fn parse_show(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut farm, mut json) = (DEFAULT_STATE.into(), None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Long("json") => json = true,
            Value(value) if farm.is_none() => farm = Some(value.string()?),
            other => return common(other),
        }
    }
    let farm = farm.ok_or("which FARM? `farm-broker farms` lists them")?;
    Ok(Command::Show { state, farm, json })
}

fn parse_events(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut farm, mut json, mut follow) = (DEFAULT_STATE.into(), None, false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Long("farm") => farm = Some(parser.value()?.string()?),
            Long("json") => json = true,
            Long("follow") => follow = true,
            other => return common(other),
        }
    }
    Ok(Command::Events { state, farm, json, follow })
}

fn parse_revoke(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut farm) = (DEFAULT_STATE.into(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Value(value) if farm.is_none() => farm = Some(value.string()?),
            other => return common(other),
        }
    }
    let farm = farm.ok_or("which FARM? `farm-broker farms` lists them")?;
    Ok(Command::Revoke { state, farm })
}

fn parse_backup(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut file) = (DEFAULT_STATE.into(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Value(value) if file.is_none() => file = Some(value.into()),
            other => return common(other),
        }
    }
    Ok(Command::Backup { state, file: file.ok_or("into which FILE?")? })
}

fn parse_restore(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut state, mut file, mut force) = (DEFAULT_STATE.into(), None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = parser.value()?.into(),
            Long("force") => force = true,
            Value(value) if file.is_none() => file = Some(value.into()),
            other => return common(other),
        }
    }
    Ok(Command::Restore { state, file: file.ok_or("from which FILE?")?, force })
}

fn common(argument: lexopt::Arg<'_>) -> Result<Command, lexopt::Error> {
    match argument {
        Short('h') | Long("help") => Ok(Command::Help),
        Short('V') | Long("version") => Ok(Command::Version),
        other => Err(other.unexpected()),
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("farm-broker ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve { config, settings } => serve::run(&serve::Sources { config, said: *settings }),
        Command::Enroll { state, name, valid } => {
            let valid_seconds = valid.as_secs();
            match admin::ask(&state, &Request::Enroll { name, valid_seconds })? {
                Answer::Token(token) => print(&format!("{token}\n")),
                other => Err(unexpected(&other)),
            }
        }
        Command::Show { state, farm, json } => match admin::ask(&state, &Request::Show { farm })? {
            Answer::Farm(farm) if json => print(&format!("{}\n", serde_json::to_string_pretty(&farm)?)),
            Answer::Farm(farm) => print(&history::farm(&farm, crate::store::unix_time())),
            other => Err(unexpected(&other)),
        },
        Command::Events { state, farm, json, follow } => history::events(&state, farm, json, follow),
        Command::Revoke { state, farm } => match admin::ask(&state, &Request::Revoke { farm })? {
            Answer::Revoked(id) => print(&format!("{id} is revoked: it is refused from now on\n")),
            other => Err(unexpected(&other)),
        },
        Command::Backup { state, file } => match admin::ask(&state, &Request::Backup {})? {
            Answer::Backup(kept) => {
                backup::write(&file, &kept)?;
                print(&kept_text(&kept, "in", &file))
            }
            other => Err(unexpected(&other)),
        },
        Command::Restore { state, file, force } => {
            let kept = backup::read(&file)?;
            backup::restore(&state, &kept, force)?;
            print(&kept_text(&kept, "restored from", &file))
        }
        Command::Farms { state, json } => match admin::ask(&state, &Request::Farms {})? {
            Answer::Farms(farms) if json => print(&format!("{}\n", serde_json::to_string_pretty(&farms)?)),
            Answer::Farms(farms) => print(&list::table(&farms, crate::store::unix_time())),
            other => Err(unexpected(&other)),
        },
    }
}

fn kept_text(kept: &backup::Backup, what: &str, file: &Path) -> String {
    let (farms, tokens, revoked) = (kept.farms.len(), kept.tokens.len(), kept.revoked.len());
    format!("{farms} farms, {tokens} open tokens, {revoked} revoked farms {what} {}\n", file.display())
}

fn unexpected(answer: &Answer) -> Box<dyn std::error::Error> {
    format!("the broker answered something else ({answer:?}): are both of the same version?").into()
}

fn print(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn commands_and_their_options() {
        let Ok(Command::Serve { config, settings }) =
            parsed("serve --config a.toml --listen 127.0.0.1:0 --trusted-proxy ::1 --stun off")
        else {
            panic!();
        };
        assert_eq!(config, Some("a.toml".into()));
        assert_eq!(settings.listen().port(), 0);
        assert_eq!(settings.trusted_proxy.len(), 1);
        assert_eq!(
            parsed("enroll --name North --valid 12h --state /s"),
            Ok(Command::Enroll {
                state: "/s".into(),
                name: Some("North".to_owned()),
                valid: Duration::from_secs(12 * 3600),
            })
        );
        assert_eq!(parsed("farms --json"), Ok(Command::Farms { state: DEFAULT_STATE.into(), json: true }));
        for help in ["--help", "-h", "serve --help", "farms -h"] {
            assert_eq!(parsed(help), Ok(Command::Help));
        }
        assert_eq!(parsed("enroll -V"), Ok(Command::Version));
    }

    #[test]
    fn misuse_is_named() {
        for (line, part) in [
            ("", "command is missing"),
            ("server", "\"server\""),
            ("serve --listen here", "\"here\""),
            ("serve --json", "--json"),
            ("serve --log-format xml", "\"xml\""),
            ("serve --public-url ftp://x", "ftp://x"),
            ("serve --views https://example.org", "https://example.org"),
            ("enroll --valid soon", "soon"),
            ("enroll extra", "extra"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
