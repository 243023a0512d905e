//! `farm-agent card`: between the installer, who has only the card and a
//! laptop, and the box. Takes the config from the card's boot partition, and
//! writes back how the farm stands and an invitation for the first phone.
//!
//! It runs beside the agent, as root, in the card's image only.

mod files;
mod light;
mod pace;
pub mod picture;
pub mod report;
pub mod take;
mod wifi;
mod words;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use self::pace::Pace;
use self::report::{Invitation, Mood, View};
use self::take::{Taken, take};
use self::words::Silence;
use crate::config::MAX_FILE;
use crate::control_socket::{Reply, Request, ask};
use crate::farm::wall_time;
use crate::status::Status;
use crate::watchdog::notify;

/// The installer's file, on the boot partition.
const CONFIG: &str = "farm-agent.toml";
/// What is written back beside it.
const STATUS: &str = "farm-status.txt";
/// The QR code beside it.
const PICTURE: &str = "farm-invitation.bmp";
/// The last good config, and the invitation that is on the card.
const FORMER: &str = "farm-agent.toml";
const INVITATION: &str = "invitation.json";
/// Where the image says what it is.
const IMAGE: &str = "/etc/farm-image";

/// Largest file of our own that is read, in bytes.
const MAX_OWN: u64 = 64 * 1024;

/// Size of the picture's file, in bytes: written whole and in place, like the
/// report. A link of 200 bytes needs 34 kB.
const PICTURE_SIZE: usize = 64 * 1024;

/// Between two looks at the file and at the agent: soon enough for somebody
/// who waits at the box, cheap enough for ever (a read from memory, a question
/// on a socket).
const LOOK: Duration = Duration::from_secs(5);

/// The first minutes are watched more closely.
const LOOK_EARLY: Duration = Duration::from_secs(1);
const EARLY: Duration = Duration::from_secs(300);

/// How long the card's invitation is good for, in seconds: it is read on
/// another computer, with the box switched off, and used on another day.
const VALID: u64 = 7 * 24 * 3600;

/// Directories and files.
#[derive(Debug, Clone)]
pub struct Places {
    /// The boot partition.
    pub boot: PathBuf,
    /// What lasts until the power goes: the config for the agent and others.
    pub run: PathBuf,
    /// What lasts.
    pub keep: PathBuf,
    /// The agent's state directory, where it can be asked.
    pub state: PathBuf,
    /// Where the report is shown.
    pub console: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            boot: "/boot/firmware".into(),
            run: "/run/farm-card".into(),
            keep: "/data/card".into(),
            state: "/var/lib/farm-agent".into(),
            console: "/dev/console".into(),
        }
    }
}

/// Why it can't work at all; everything else is tried again.
#[derive(Debug, thiserror::Error)]
#[error("can't write to {path}: {source}")]
pub struct CardError {
    path: PathBuf,
    source: io::Error,
}

/// Runs until it is ended.
///
/// # Errors
/// [`CardError`] where not even the directory for the agent's config is there.
pub fn run(places: &Places) -> Result<(), CardError> {
    let fail = |source| CardError { path: places.run.clone(), source };
    std::fs::create_dir_all(&places.run).map_err(fail)?;
    let start = Instant::now();
    let mut card = Card::new(places, start);
    loop {
        card.config().map_err(fail)?;
        if card.round == 0 {
            notify(&[NotifyState::Ready]);
        }
        card.report(Instant::now());
        card.round += 1;
        notify(&[NotifyState::Watchdog]);
        std::thread::sleep(if start.elapsed() < EARLY { LOOK_EARLY } else { LOOK });
    }
}

struct Card<'a> {
    places: &'a Places,
    round: u64,
    read: Option<Result<Vec<u8>, String>>,
    taken: Option<Taken>,
    image: String,
    invitation: Option<Invitation>,
    written: Option<String>,
    mood: Option<Mood>,
    silence: Silence,
    pace: Pace,
}

impl<'a> Card<'a> {
    fn new(places: &'a Places, now: Instant) -> Self {
        let image = std::fs::read_to_string(IMAGE).unwrap_or_default();
        let image = image.lines().find_map(|line| line.strip_prefix("VERSION=")).unwrap_or_default();
        let image = image.trim_matches('"').to_owned();
        let invitation = files::read(&places.keep.join(INVITATION), MAX_OWN).ok();
        let invitation = invitation.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let pace = Pace::new(now);
        let (read, taken, written, mood, silence) = (None, None, None, None, Silence::default());
        Self { places, round: 0, read, taken, image, invitation, written, mood, silence, pace }
    }

    /// Takes the config, when it is another one than before.
    fn config(&mut self) -> io::Result<()> {
        let read = files::read(&self.places.boot.join(CONFIG), MAX_FILE).map_err(|error| error.to_string());
        if self.read.as_ref() == Some(&read) {
            return Ok(());
        }
        let former = std::fs::read_to_string(self.places.keep.join(FORMER)).ok();
        let card = read.as_deref().map_err(String::as_str);
        let taken = take(card, former.as_deref(), Path::new(CONFIG));
        match &taken.problem {
            Some(problem) => tracing::error!(problem, "the config on the card"),
            None => tracing::info!("the config on the card is good"),
        }
        let path = self.places.run.join(CONFIG);
        files::replace(&path, taken.config.as_bytes(), 0o640)?;
        files::for_agent(&path);
        if taken.problem.is_none() && former.as_deref() != Some(&taken.config) {
            let kept = files::replace(&self.places.keep.join(FORMER), taken.config.as_bytes(), 0o600);
            kept.unwrap_or_else(|error| tracing::error!(%error, "the good config can't be kept"));
        }
        self.settings(&taken)?;
        let first = self.taken.replace(taken).is_none();
        self.read = Some(read);
        if !first {
            service(&["restart", "farm-agent.service"]);
            service(&["try-restart", "farm-wifi@*.service"]);
            service(&["start", "farm-ssh.service"]);
        }
        Ok(())
    }

    /// What others than the agent need to know.
    fn settings(&self, taken: &Taken) -> io::Result<()> {
        let good = taken.good.as_ref();
        let wifi = good.and_then(|good| good.wifi.as_ref()).map(wifi::supplicant);
        let key = good.and_then(|good| good.ssh_key.as_ref()).map(|key| format!("{key}\n"));
        for (name, content) in [("wpa_supplicant.conf", wifi), ("authorized_keys", key)] {
            let path = self.places.run.join(name);
            match content {
                Some(content) => files::replace(&path, content.as_bytes(), 0o600)?,
                None => match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Writes and shows how things stand, when that has changed.
    fn report(&mut self, now: Instant) {
        let agent = match self.ask_status() {
            Some(status) => {
                self.silence.over();
                self.invite(&status);
                Ok(status)
            }
            None => Err(self.silence.goes_on(now, words::last)),
        };
        let Some(taken) = &self.taken else { return };
        let boot = std::fs::read_to_string(self.places.run.join("boot.txt")).unwrap_or_default();
        let view = View {
            taken,
            boot: &boot,
            agent: agent.as_ref().map_err(Option::as_deref),
            invitation: self.invitation.as_ref(),
            image: &self.image,
        };
        let mood = view.mood();
        if self.mood.replace(mood) != Some(mood) {
            light::show(mood);
        }
        let text = view.text();
        if self.written.as_ref() == Some(&text) || !self.pace.take(now) {
            return;
        }
        let code = self.invitation.as_ref();
        let mut picture = code.and_then(|i| picture::bitmap(&i.link).ok()).unwrap_or_default();
        picture.resize(PICTURE_SIZE, 0);
        let file = view.file();
        if let Err(error) = files::write_boot(&self.places.boot, &[(STATUS, &file), (PICTURE, &picture)]) {
            tracing::error!(%error, "the report can't be written to the card");
        }
        let code = code.and_then(|i| picture::blocks(&i.link).ok()).unwrap_or_default();
        // Nobody may be looking, or there may be no console.
        let console = std::fs::OpenOptions::new().write(true).open(&self.places.console);
        let _ = console.and_then(|mut console| write!(console, "\n{code}\n{text}\n"));
        self.written = Some(text);
    }

    /// None while it does not answer: the path and the advice of that error
    /// are for somebody who is logged in.
    fn ask_status(&self) -> Option<Status> {
        let mut status = None;
        let asked = ask(&self.places.state, &Request::Status { watch: false }, |reply| {
            if let Reply::Status(told) = reply {
                status = Some(*told);
            }
            false
        });
        if let Err(error) = asked {
            tracing::debug!(%error, "the agent does not answer");
        }
        status
    }

    /// Sees to it that a farm without phones has a good invitation on the card,
    /// and one with phones none.
    fn invite(&mut self, status: &Status) {
        let path = self.places.keep.join(INVITATION);
        if status.phones > 0 {
            if self.invitation.take().is_some() {
                let _ = std::fs::remove_file(&path);
            }
            return;
        }
        // Without the broker's word the clock may be years behind, and the
        // invitation void as soon as it is set right.
        let good = self.invitation.as_ref().is_some_and(|i| i.expires > wall_time());
        if good || status.broker.state != "online" {
            return;
        }
        let mut made = None;
        let asked = ask(&self.places.state, &Request::Invite { valid_seconds: Some(VALID) }, |reply| {
            if let Reply::Invitation(invitation) = reply {
                made = Some(invitation);
            }
            false
        });
        match (asked, made) {
            (Ok(()), Some(made)) => {
                let expires = wall_time() + made.valid_seconds;
                let invitation = Invitation { link: made.link, code: made.code, expires };
                let text = serde_json::to_vec(&invitation).unwrap_or_default();
                if let Err(error) = files::replace(&path, &text, 0o600) {
                    tracing::error!(%error, "the invitation can't be kept");
                }
                self.invitation = Some(invitation);
            }
            (Err(error), _) => tracing::error!(%error, "no invitation for the card"),
            (Ok(()), None) => tracing::error!("no invitation for the card"),
        }
    }
}

/// Has systemd do something, where there is one.
fn service(arguments: &[&str]) {
    let done = Command::new("systemctl").arg("--no-block").args(arguments).output();
    if let Err(error) = done {
        tracing::debug!(%error, ?arguments, "systemctl");
    }
}
