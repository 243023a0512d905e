//! The task that keeps a connection.

use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_util::io::{ReadHalf, WriteHalf};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use smol::Timer;

use super::dial::{Credentials, DialError, Dialed, ServerAddress, Stream, dial};
use super::wire::{self, Message, Parser, Said};
use super::{Shared, Status};

/// A server that has not let us in within this time is not there: servers are
/// near, and the next one is.
const DIAL_WITHIN: Duration = Duration::from_secs(2);

/// How often a silent server is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A server of which nothing came for this long is gone: the other brokers
/// take this one for gone after [`LEASE`], so it must have found another
/// server by then.
///
/// [`LEASE`]: crate::core::cluster::LEASE
const SILENT: Duration = Duration::from_millis(2500);

/// Rests after a round in which no server let us in: doubled up to the last.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Bytes written at once, at least one frame.
const WRITE: usize = 64 * 1024;

/// The subscription of the inbox; those of the owner follow.
const INBOX: u64 = 0;

/// The number of the owner's subscription.
pub(super) fn id_of(index: usize) -> u64 {
    INBOX + 1 + index as u64
}

/// Keeps a client connected.
pub(crate) struct Runner {
    pub(super) servers: Vec<ServerAddress>,
    pub(super) credentials: Credentials,
    pub(super) shared: Arc<Shared>,
    pub(super) outgoing: Receiver<Vec<u8>>,
    pub(super) status: Sender<Status>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] wire::Malformed),
    #[error("it closes: {0}")]
    Closed(String),
    #[error("nothing came of it for {0:?}")]
    Silent(Duration),
    #[error("the owner is gone")]
    Over,
}

impl Runner {
    /// Runs until the owner is gone.
    pub(crate) async fn run(self) {
        let (mut rest, mut failed) = (REST.0, 0);
        for server in self.servers.iter().cycle() {
            let dialed = smol::future::or(dial(server, &self.credentials), async {
                Timer::after(DIAL_WITHIN).await;
                Err(DialError::Io(io::ErrorKind::TimedOut.into()))
            });
            let why = match dialed.await {
                Ok(dialed) => {
                    (rest, failed) = (REST.0, 0);
                    match self.keep(server, dialed).await {
                        Ended::Over => return,
                        ended => ended.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            if self.status.send(Status::Down(format!("{server}: {why}"))).await.is_err() {
                return;
            }
            failed += 1;
            if failed >= self.servers.len() {
                Timer::after(rest).await;
                (rest, failed) = ((rest * 2).min(REST.1), 0);
            }
        }
    }

    async fn keep(&self, server: &ServerAddress, dialed: Dialed) -> Ended {
        let Dialed { stream, parser, info } = dialed;
        let (reader, mut writer) = stream.split();
        // What waited is older than what its receivers know by now.
        while self.outgoing.try_recv().is_ok() {}
        let (answers, pongs) = async_channel::bounded(4);
        let name = format!("{server} ({} {})", info.server_name, info.version);
        let begun = async {
            writer.write_all(&wire::subscribe(&format!("{}.r.*", self.shared.inbox), INBOX)).await?;
            for (index, subscription) in self.shared.subscriptions.iter().enumerate() {
                let subscribe = wire::subscribe(&subscription.subject(), id_of(index));
                writer.write_all(&subscribe).await?;
            }
            writer.flush().await?;
            Ok::<_, io::Error>(())
        };
        if let Err(error) = begun.await {
            return error.into();
        }
        self.shared.up.store(true, Ordering::Relaxed);
        if self.status.send(Status::Up(name)).await.is_err() {
            return Ended::Over;
        }
        let read = self.read(reader, parser, answers);
        let ended = smol::future::or(read, self.write(writer, pongs)).await;
        self.shared.up.store(false, Ordering::Relaxed);
        // Their askers are told by the end of their channels.
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
        match ended {
            Ok(never) => never,
            Err(ended) => ended,
        }
    }

    async fn read(
        &self,
        mut reader: ReadHalf<Box<dyn Stream>>,
        mut parser: Parser,
        answers: Sender<Vec<u8>>,
    ) -> Result<Ended, Ended> {
        let mut buffer = vec![0; READ];
        let mut heard = Instant::now();
        loop {
            while let Some(said) = parser.next()? {
                match said {
                    Said::Message(message) => self.hand_out(message).await?,
                    // Full: it was answered a moment ago.
                    Said::Ping => drop(answers.try_send(b"PONG\r\n".to_vec())),
                    Said::Error(why) => return Err(Ended::Closed(why)),
                    Said::Info(_) | Said::Pong | Said::Ok => {}
                }
            }
            let read = async { reader.read(&mut buffer).await.map(Some) };
            let silent = async {
                Timer::after(PING_EVERY).await;
                Ok(None)
            };
            match smol::future::or(read, silent).await? {
                Some(0) => return Err(Ended::Closed("end of the connection".to_owned())),
                Some(read) => {
                    heard = Instant::now();
                    parser.feed(&buffer[..read]);
                }
                None if heard.elapsed() >= SILENT => return Err(Ended::Silent(SILENT)),
                None => drop(answers.try_send(b"PING\r\n".to_vec())),
            }
        }
    }

    async fn hand_out(&self, message: Message) -> Result<(), Ended> {
        if message.subscription == INBOX {
            let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(asker) = number.and_then(|number: u64| pending.remove(&number)) {
                // It may have given up this moment.
                let _gone = asker.try_send(message);
            }
            return Ok(());
        }
        let index = usize::try_from(message.subscription - INBOX - 1).unwrap_or(usize::MAX);
        match self.shared.subscriptions.get(index) {
            // A receiver that is behind holds the connection back.
            Some(subscription) => subscription.receiver.send(message).await.map_err(|_| Ended::Over),
            None => Ok(()),
        }
    }

    async fn write(
        &self,
        mut writer: WriteHalf<Box<dyn Stream>>,
        answers: Receiver<Vec<u8>>,
    ) -> Result<Ended, Ended> {
        loop {
            let answer = async { answers.recv().await.ok() };
            let frame = async { self.outgoing.recv().await.ok() };
            let Some(mut bytes) = smol::future::or(answer, frame).await else {
                return Err(Ended::Over);
            };
            while bytes.len() < WRITE
                && let Ok(more) = self.outgoing.try_recv()
            {
                bytes.extend_from_slice(&more);
            }
            writer.write_all(&bytes).await?;
            writer.flush().await?;
        }
    }
}
