//! The agent's local control socket: `STATE/control.sock`, one JSON object a
//! line each way. The agent's own commands use it; file permissions guard it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use smol::net::unix::{UnixListener, UnixStream};

use farm_tunnel::history::Report;

use crate::status::Status;

/// Name of the socket in the state directory.
pub const SOCKET: &str = "control.sock";

/// Longest line either way, in bytes: a status with every session.
const MAX_LINE: u64 = 256 * 1024;

/// Local programs at once.
const MAX_CLIENTS: usize = 16;

/// How long a silent client may hold its place.
const IDLE: Duration = Duration::from_secs(30);

/// Between two status lines of a watching client while nothing changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a watching client sees a change.
const WATCH_LOOK: Duration = Duration::from_millis(100);

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    // Braces, since serde lets a variant without them have any fields.
    /// Makes an invitation.
    Invite {
        /// Seconds that it is good for; minutes unless said.
        #[serde(default)]
        valid_seconds: Option<u64>,
    },
    /// The paired phones.
    Phones {},
    /// Removes a phone: its id, a beginning of it, or its name.
    Revoke {
        /// Which.
        phone: String,
    },
    /// How things stand.
    Status {
        /// Again every second until the client goes.
        #[serde(default)]
        watch: bool,
    },
    /// Past outages, and how available the farm was.
    Outages {
        /// How many days back.
        days: u32,
    },
    /// Fails on purpose, where the config allows it.
    Fault {
        /// A [`farm_tunnel::fault::Fault`], `wedge` or `crash`.
        kind: String,
        /// For `wedge`: which loop.
        #[serde(default, rename = "loop")]
        on: Option<String>,
        /// How long it lasts.
        seconds: f64,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Invite`].
    Invitation(InvitationReply),
    /// To [`Request::Phones`].
    Phones(Vec<PhoneReply>),
    /// To [`Request::Revoke`]: the phone that was removed.
    Revoked(PhoneReply),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Outages`].
    Outages(Box<Report>),
    /// To [`Request::Fault`]: what was done.
    Done(String),
    /// It could not be done: what, and what to do.
    Error(String),
}

/// A new invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationReply {
    /// The link, also for a QR code.
    pub link: String,
    /// The same to type.
    pub code: String,
    /// Seconds that it is good for.
    pub valid_seconds: u64,
    /// The farm's name.
    pub farm_name: String,
}

/// A paired phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhoneReply {
    /// Its id.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// When it was paired, seconds since 1970 by the farm's clock.
    pub paired: u64,
    /// Whether it is connected now.
    pub connected: bool,
}

/// A request and where its answer goes.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Takes one answer.
    pub reply: async_channel::Sender<Reply>,
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "no agent is running with the state directory {path} ({source}): start it with `farm-agent run --state {path}`, or name the right one with --state"
    )]
    NotRunning {
        /// The state directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket can't be made.
    #[error("can't open the control socket {path}: {source}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The conversation broke.
    #[error("the agent did not answer: {0}")]
    Broken(#[from] std::io::Error),
    /// The agent is of another version.
    #[error("the agent's answer is not understood ({0}): is it of another version?")]
    Answer(#[from] serde_json::Error),
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
}

/// Opens the socket. The store's lock is held by then, so a socket that is
/// already there is a leftover.
///
/// # Errors
/// [`ControlError::Listen`].
pub fn listen(state: &Path) -> Result<UnixListener, ControlError> {
    let path = state.join(SOCKET);
    let fail = |source| ControlError::Listen { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
    }
    let listener = UnixListener::bind(&path).map_err(fail)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// Accepts clients for ever; each request goes to `asked`.
pub async fn serve(listener: UnixListener, asked: async_channel::Sender<Asked>) {
    let places = std::sync::Arc::new(smol::lock::Semaphore::new(MAX_CLIENTS));
    let mut incoming = listener.incoming();
    while let Some(client) = incoming.next().await {
        let Ok(client) = client else {
            // Out of descriptors: give others the time to finish.
            smol::Timer::after(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = places.try_acquire_arc() else {
            continue;
        };
        let asked = asked.clone();
        farm_tunnel::executor::spawn(async move {
            // A client that goes away in the middle is no event.
            let _ = serve_client(client, &asked).await;
            drop(place);
        })
        .detach();
    }
}

async fn serve_client(client: UnixStream, asked: &async_channel::Sender<Asked>) -> std::io::Result<()> {
    let mut writer = client.clone();
    let mut reader = BufReader::new(client);
    loop {
        let mut line = String::new();
        let read = async { (&mut reader).take(MAX_LINE).read_line(&mut line).await };
        let idle = async {
            smol::Timer::after(IDLE).await;
            Ok(0)
        };
        if smol::future::or(read, idle).await? == 0 {
            return Ok(());
        }
        let request = match serde_json::from_str::<Request>(&line) {
            Ok(request) => request,
            Err(e) => {
                write_line(&mut writer, &Reply::Error(format!("not a request: {e}"))).await?;
                return Ok(());
            }
        };
        let watch = matches!(request, Request::Status { watch: true });
        let mut shown: Option<(Instant, Option<String>)> = None;
        loop {
            let (reply, answer) = async_channel::bounded(1);
            let gone = || std::io::Error::other("the agent is stopping");
            asked.send(Asked { request: request.clone(), reply }).await.map_err(|_| gone())?;
            let answer = answer.recv().await.map_err(|_| gone())?;
            let line = match &answer {
                Reply::Status(status) if watch => Some(status.line()),
                _ => None,
            };
            let now = Instant::now();
            let due =
                shown.as_ref().is_none_or(|(at, former)| now >= *at + WATCH_INTERVAL || *former != line);
            if due {
                write_line(&mut writer, &answer).await?;
                shown = Some((now, line));
            }
            if !watch {
                break;
            }
            smol::Timer::after(WATCH_LOOK).await;
        }
    }
}

async fn write_line(writer: &mut UnixStream, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Asks the running agent and hands each answer to `each`, which says whether
/// to go on waiting for more.
///
/// # Errors
/// [`ControlError`].
pub fn ask(state: &Path, request: &Request, mut each: impl FnMut(Reply) -> bool) -> Result<(), ControlError> {
    use std::io::{BufRead, Write};
    let mut socket = std::os::unix::net::UnixStream::connect(state.join(SOCKET))
        .map_err(|source| ControlError::NotRunning { path: state.to_owned(), source })?;
    // An agent that hangs is restarted by its watchdog; nobody waits for ever.
    socket.set_read_timeout(Some(IDLE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    for answer in std::io::BufReader::new(socket).lines() {
        match serde_json::from_str(&answer?)? {
            Reply::Error(problem) => return Err(ControlError::Refused(problem)),
            reply => {
                if !each(reply) {
                    return Ok(());
                }
            }
        }
    }
    Err(ControlError::Broken(std::io::ErrorKind::UnexpectedEof.into()))
}
