//! The operator's desk: answers the admin socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;
use farm_protocol::base32;
use farm_protocol::id::FarmId;
use futures_util::io::BufReader;
use futures_util::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use ring::rand::{SecureRandom, SystemRandom};
use smol::Timer;
use smol::lock::Semaphore;
use smol::net::unix::{UnixListener, UnixStream};

use super::actor::Input;
use super::thread::Door;
use crate::admin::{Answer, MAX_REQUEST, Request, VALID_SECONDS, socket_path};
use crate::core::Event;
use crate::core::enrollment::{TOKEN_BYTES, TokenHash, TokenRecord, presentable};
use crate::register::Register;
use crate::store;

/// Operators at once.
const SEATS: usize = 8;

/// A request must be there, and its answer taken, within this time.
const WITHIN: Duration = Duration::from_secs(10);

/// Why the admin socket can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't open the admin socket {}: {source}; is the path short enough (107 bytes) and writable?", .path.display())]
pub struct DeskError {
    /// The socket.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Answers operators.
pub(super) struct Desk {
    pub(super) inputs: Sender<Input>,
    pub(super) register: Arc<dyn Register>,
    /// Where operators are attended to.
    pub(super) tasks: Door,
}

/// Opens the socket with mode 0600 from its first moment. What is there is
/// left over from a dead broker: the caller holds the state directory's lock.
pub(super) fn open(state: &Path) -> Result<UnixListener, DeskError> {
    let path = socket_path(state);
    let opened = open_at(&path);
    opened.map_err(|source| DeskError { path, source })
}

fn open_at(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let fd: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // Linux gives the file the mode that the socket has when it is bound.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(SEATS as i32)?)?;
    UnixListener::try_from(StdListener::from(fd))
}

impl Desk {
    /// Answers for ever.
    pub(super) async fn serve(self, listener: UnixListener) {
        let tasks = self.tasks.clone();
        let desk = Arc::new(self);
        let seats = Arc::new(Semaphore::new(SEATS));
        loop {
            let seat = seats.acquire_arc().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let desk = desk.clone();
                    tasks
                        .spawn(async move {
                            let _seat = seat;
                            let served = smol::future::or(desk.attend(stream), async {
                                Timer::after(WITHIN).await;
                                Err(io::ErrorKind::TimedOut.into())
                            });
                            if let Err(error) = served.await {
                                tracing::debug!(%error, "an operator's connection failed");
                            }
                        })
                        .detach();
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket accepts nobody at the moment");
                    Timer::after(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Requests of one operator, until the stream ends.
    async fn attend(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader);
        loop {
            let mut line = String::new();
            if (&mut reader).take(MAX_REQUEST).read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let answer = match serde_json::from_str(&line) {
                Ok(request) => self.answer(request).await,
                Err(error) => Answer::Error(format!("not a request: {error}")),
            };
            let mut bytes = serde_json::to_vec(&answer)?;
            bytes.push(b'\n');
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            if !line.ends_with('\n') {
                return Ok(());
            }
        }
    }

    async fn answer(&self, request: Request) -> Answer {
        let answer = match request {
            Request::Enroll { name, valid_seconds } => return self.enroll(name, valid_seconds).await,
            Request::Show { farm } => return self.show(farm).await,
            Request::Events { from, farm } => return self.events(from, farm).await,
            Request::Revoke { farm } => return self.revoke(farm).await,
            Request::Farms {} => self.ask(Input::Farms).await.map(Answer::Farms),
            Request::Backup {} => {
                let backup = self.ask(Input::Backup).await;
                backup.map(|backup| Answer::Backup(Box::new(backup)))
            }
            Request::Counters {} => {
                let counters = self.ask(Input::Counters).await;
                counters.map(|counters| Answer::Counters(Box::new(counters)))
            }
        };
        answer.unwrap_or_else(ending)
    }

    async fn enroll(&self, name: Option<String>, valid_seconds: u64) -> Answer {
        if !VALID_SECONDS.contains(&valid_seconds) {
            let (least, most) = VALID_SECONDS.into_inner();
            return Answer::Error(format!(
                "a token is valid for {least} to {most} seconds, not {valid_seconds}"
            ));
        }
        match self.ask(Input::MayIssueToken).await {
            None => return ending(),
            Some(false) => {
                return Answer::Error(
                    "too many open enrollment tokens: use some, or wait for them to expire".into(),
                );
            }
            Some(true) => {}
        }
        let mut token = [0; TOKEN_BYTES];
        if SystemRandom::new().fill(&mut token).is_err() {
            return Answer::Error("the operating system gave no randomness".into());
        }
        let hash = TokenHash::of(&token);
        let record = TokenRecord {
            name: name.map(|name| presentable(&name)).filter(|name| !name.is_empty()),
            expires: store::unix_time() + valid_seconds,
        };
        // Durable before it is shown, and known before it can be used.
        if let Err(error) = self.register.add_token(hash, &record).await {
            return Answer::Error(format!("the token could not be stored: {error}"));
        }
        let event = Input::Event(Event::TokenIssued { hash, token: record });
        if self.inputs.send(event).await.is_err() {
            return ending();
        }
        Answer::Token(base32::encode(&token))
    }

    async fn find(&self, which: String) -> Result<FarmId, Answer> {
        match self.ask(|answer| Input::Find(which, answer)).await {
            Some(found) => found.map_err(Answer::Error),
            None => Err(ending()),
        }
    }

    async fn show(&self, which: String) -> Answer {
        let farm = match self.find(which).await {
            Ok(farm) => farm,
            Err(answer) => return answer,
        };
        match self.ask(|answer| Input::Show(farm, answer)).await {
            Some(Some(details)) => Answer::Farm(Box::new(details)),
            Some(None) => Answer::Error(format!("{farm} is gone")),
            None => ending(),
        }
    }

    async fn events(&self, from: Option<u64>, which: Option<String>) -> Answer {
        let farm = match which {
            Some(which) => match self.find(which).await {
                Ok(farm) => Some(farm),
                Err(answer) => return answer,
            },
            None => None,
        };
        let events = self.ask(|answer| Input::Events(from, farm, answer)).await;
        events.map_or_else(ending, Answer::Events)
    }

    async fn revoke(&self, which: String) -> Answer {
        let farm = match self.find(which).await {
            Ok(farm) => farm,
            Err(answer) => return answer,
        };
        // Durable before it is told, and before the farm is.
        if let Err(error) = self.register.revoke(farm, store::unix_time()).await {
            return Answer::Error(format!("{farm} is not revoked, that could not be stored: {error}"));
        }
        if self.inputs.send(Input::Event(Event::Revoked { farm })).await.is_err() {
            return ending();
        }
        Answer::Revoked(farm.to_string())
    }

    /// Asks the actor; `None` when the broker is ending.
    async fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Input) -> Option<T> {
        let (answer, answered) = async_channel::bounded(1);
        self.inputs.send(question(answer)).await.ok()?;
        answered.recv().await.ok()
    }
}

fn ending() -> Answer {
    Answer::Error("the broker is shutting down: try again when it is back".into())
}
