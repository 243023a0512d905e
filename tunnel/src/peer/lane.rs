//! One channel of a connection, with its send window and its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use smol::lock::Mutex;
use webrtc::{
    data_channel::{DataChannel, DataChannelEvent},
    error::Error as EngineError,
};

use super::{
    Channel, LostReason, MAX_MESSAGE, PeerError, Tuning, engine, keeper::Status, redundancy::Pace,
    runtime::DriverRuntime, window::Window,
};

/// Bytes of control messages that may be unacknowledged: two of the largest, so that one can be
/// sent while the other is on its way.
const CONTROL_WINDOW: usize = 2 * MAX_MESSAGE;

/// Bytes of pings that may be unacknowledged. A ping is under 64 bytes; when this many are on
/// their way the path is dead or drowned, and one more would only add to it.
const PING_WINDOW: usize = 4 << 10;

/// A channel.
pub(super) struct Lane {
    index: usize,
    channel: Arc<dyn DataChannel>,
    runtime: Arc<DriverRuntime>,
    status: Arc<Status>,
    /// Senders take turns, in order; the one whose turn it is may be waiting for room.
    sender: Mutex<Room>,
    /// What the peer's socket holds; 0 while it has not said.
    receiver_holds: AtomicU32,
    /// The engine's stream of events does not end with the channel: this does.
    ended: AtomicBool,
}

/// How much may be unacknowledged.
enum Room {
    Fixed(usize),
    Measured(Window),
}

impl Room {
    /// Whether a message of `bytes` may be sent while `outstanding` are unacknowledged. One larger
    /// than the room goes alone.
    fn admits(&mut self, outstanding: usize, bytes: usize) -> bool {
        match self {
            Self::Fixed(limit) => outstanding == 0 || outstanding + bytes <= *limit,
            Self::Measured(window) => {
                window.outstanding(Instant::now(), outstanding);
                window.admits(outstanding, bytes)
            }
        }
    }
}

/// What a reader got.
pub(super) enum Received {
    Message(Bytes),
    /// The end, and what it means for the connection if that is not known yet.
    End(Option<LostReason>),
}

impl Lane {
    pub(super) fn new(
        kind: Channel,
        channel: Arc<dyn DataChannel>,
        runtime: Arc<DriverRuntime>,
        status: Arc<Status>,
        tuning: Tuning,
    ) -> Self {
        let room = match kind {
            Channel::Control => Room::Fixed(CONTROL_WINDOW),
            Channel::Ping => Room::Fixed(PING_WINDOW),
            Channel::Data => Room::Measured(Window::new(tuning.send_window)),
        };
        let index = usize::from(kind.id());
        let sender = Mutex::new(room);
        let (receiver_holds, ended) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { index, channel, runtime, status, sender, receiver_holds, ended }
    }

    /// The peer's socket holds this many bytes; counts from the next message on.
    pub(super) fn receiver_holds(&self, bytes: u32) {
        self.receiver_holds.store(bytes, Ordering::Relaxed);
    }

    /// Sends, after waiting for its turn and for room.
    pub(super) async fn send(&self, message: Bytes) -> Result<(), PeerError> {
        let message = self.sendable(message)?;
        let mut room = self.sender.lock().await;
        if let Room::Measured(window) = &mut *room {
            window.receiver_holds(self.receiver_holds.load(Ordering::Relaxed) as usize);
        }
        loop {
            // Before looking, so that a turn in between is not missed.
            let turn = self.runtime.turn();
            let outstanding = self.outstanding().await?;
            let pace = match &*room {
                Room::Fixed(_) => Pace::Go,
                Room::Measured(_) => self.runtime.pace(outstanding, message.len()),
            };
            if let Pace::Pause(pause) = pace {
                smol::Timer::after(pause).await;
                self.alive()?;
                continue;
            }
            if pace == Pace::Go && room.admits(outstanding, message.len()) {
                break;
            }
            if let Room::Measured(window) = &mut *room
                && pace == Pace::Go
            {
                window.limited();
            }
            self.runtime.after_turn(turn, self.index).await;
            self.alive()?;
        }
        self.hand_over(&mut room, message).await
    }

    /// Sends if no other sender waits and there is room.
    pub(super) async fn try_send(&self, message: Bytes) -> Result<(), PeerError> {
        let message = self.sendable(message)?;
        let mut room = self.sender.try_lock().ok_or(PeerError::Full)?;
        let outstanding = self.outstanding().await?;
        if !room.admits(outstanding, message.len()) {
            return Err(PeerError::Full);
        }
        self.hand_over(&mut room, message).await
    }

    async fn hand_over(&self, room: &mut Room, message: BytesMut) -> Result<(), PeerError> {
        let length = message.len();
        self.channel.send(message).await.map_err(|error| self.unsent(error))?;
        if let Room::Measured(window) = room {
            window.sent(Instant::now(), length);
        }
        Ok(())
    }

    /// The next message, or the end.
    pub(super) async fn recv(&self) -> Received {
        if self.ended.load(Ordering::Acquire) {
            return Received::End(None);
        }
        loop {
            let reason = match self.channel.poll().await {
                Some(DataChannelEvent::OnMessage(message)) if message.data.len() <= MAX_MESSAGE => {
                    return Received::Message(message.data.freeze());
                }
                Some(DataChannelEvent::OnMessage(_)) => {
                    Some(LostReason::Violation("it sent a message longer than agreed"))
                }
                // Of one channel alone: for us the peer is gone.
                Some(DataChannelEvent::OnClose) => Some(LostReason::ClosedByPeer),
                Some(_) => continue,
                None => None,
            };
            self.ended.store(true, Ordering::Release);
            return Received::End(reason);
        }
    }

    /// Wakes the connection's driver.
    pub(super) async fn wake_driver(&self) -> Result<(), PeerError> {
        wake_driver(&*self.channel).await
    }

    async fn outstanding(&self) -> Result<usize, PeerError> {
        self.channel.outstanding_bytes().await.map_err(|error| self.unsent(error))
    }

    fn alive(&self) -> Result<(), PeerError> {
        self.status.lost.get().map_or(Ok(()), |&reason| Err(PeerError::Lost(reason)))
    }

    fn sendable(&self, message: Bytes) -> Result<BytesMut, PeerError> {
        self.alive()?;
        if message.len() > MAX_MESSAGE {
            return Err(PeerError::TooLarge(message.len()));
        }
        // Copies only when the message is shared, as with a replay buffer.
        Ok(message.into())
    }

    /// Why the engine did not take a message.
    fn unsent(&self, error: EngineError) -> PeerError {
        match error {
            EngineError::ErrDataChannelNotOpen => PeerError::NotOpen,
            // The keeper may not have heard of it yet.
            EngineError::ErrDataChannelClosed => {
                PeerError::Lost(self.status.lost.get().copied().unwrap_or(LostReason::ClosedByPeer))
            }
            error => engine("send a message")(error),
        }
    }
}

/// Wakes the connection's driver, by setting what the channel's threshold of "little is left to
/// send" is anyway: never. At its default the engine reports every time that everything was
/// sent, and 256 such reports on a channel that nobody reads stop the whole connection.
pub(super) async fn wake_driver(channel: &dyn DataChannel) -> Result<(), PeerError> {
    channel.set_buffered_amount_low_threshold(u32::MAX).await.map_err(engine("set a channel up"))
}
