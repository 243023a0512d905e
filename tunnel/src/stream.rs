//! Streams as programs use them: the shell around [`crate::mux`].
//!
//! [`Streams`] is a session's: it outlives carriers, which attach to it one
//! after the other by epoch. [`Stream`] is one connection through the tunnel;
//! its users never notice a change of carrier, only a pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::{Frame, ResetReason, StreamId, StreamState};

use crate::mux::{self, OpenError, Role, Violation};
use crate::session::streams::{Outgoing, SessionStreams};

/// Most bytes handed to a reader at once: a few frames in one write of the
/// local socket, little enough that others get their turn.
const READ_AT_ONCE: usize = 256 * 1024;

/// Why a stream gives no more bytes, or takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.explanation())]
pub struct StreamError(ResetReason);

impl StreamError {
    /// The reason, as the other end said or as was found here.
    pub fn reason(self) -> ResetReason {
        self.0
    }
}

/// All streams of a session. Clones are handles of the same session.
#[derive(Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Holds a token when there may be something to send.
    work: (async_channel::Sender<()>, async_channel::Receiver<()>),
    incoming: async_channel::Sender<Incoming>,
}

struct State {
    streams: SessionStreams,
    ends: HashMap<StreamId, End>,
    /// Streams that the other end opened, not handed out yet.
    opened: Vec<(StreamId, String)>,
}

/// A local user's end of a stream.
#[derive(Default)]
struct End {
    reader: Option<Waker>,
    writer: Option<Waker>,
    established: bool,
    /// The local user has declared its end.
    finishing: bool,
    /// The other side's end was read.
    finished: bool,
    reset: Option<ResetReason>,
}

impl End {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// A stream that the other end opened.
pub struct Incoming {
    /// The stream.
    pub stream: Stream,
    /// The service's name.
    pub target: String,
}

impl Streams {
    /// An empty session, and the streams that the other end will open.
    pub fn new(role: Role) -> (Self, async_channel::Receiver<Incoming>) {
        let (incoming, accepted) = async_channel::bounded(mux::MAX_STREAMS);
        let state = State { streams: SessionStreams::new(role), ends: HashMap::new(), opened: Vec::new() };
        let work = async_channel::bounded(1);
        let shared = Shared { state: Mutex::new(state), work, incoming };
        (Self { shared: Arc::new(shared) }, accepted)
    }

    /// Opens a stream to a service. It works at once, also while no carrier
    /// is there; what is written waits.
    ///
    /// # Errors
    /// [`OpenError`]; an ended session gives [`OpenError::Exhausted`].
    pub fn open(&self, target: &str) -> Result<Stream, OpenError> {
        let mut state = self.lock();
        let id = state.streams.open(target)?;
        state.ends.insert(id, End::default());
        self.after(state);
        Ok(Stream { id, session: self.clone() })
    }

    /// Ends the session: every stream is reset with this reason.
    pub fn end(&self, reason: ResetReason) {
        let mut state = self.lock();
        state.streams.end(reason);
        self.after(state);
        self.shared.incoming.close();
    }

    /// Bytes held for sending, for replay and for readers.
    pub fn buffered_bytes(&self) -> usize {
        self.lock().streams.mux().buffered_bytes()
    }

    /// Streams that are open.
    pub fn count(&self) -> usize {
        self.lock().streams.mux().stream_count()
    }

    /// A carrier greets: from now on only it counts. Gives what to say in the
    /// hello; `None` where a newer one is there.
    pub(crate) fn greet(&self, epoch: Epoch) -> Option<Vec<StreamState>> {
        let mut state = self.lock();
        let hello = state.streams.greet(epoch);
        self.after(state);
        hello
    }

    /// The other end's socket holds this many bytes while its program does not run.
    pub(crate) fn receiver_holds(&self, bytes: u32) {
        self.lock().streams.receiver_holds(bytes);
    }

    /// The other end's hello: sending begins.
    pub(crate) fn resume(&self, epoch: Epoch, peer: &[StreamState]) -> Result<(), Violation> {
        let mut state = self.lock();
        let result = state.streams.resume(epoch, peer, Instant::now());
        self.after(state);
        result
    }

    /// A frame came on a carrier.
    pub(crate) fn frame(&self, epoch: Epoch, frame: Frame) -> Result<(), Violation> {
        let mut state = self.lock();
        let result = state.streams.frame(epoch, frame, Instant::now());
        self.after(state);
        result
    }

    /// A carrier is gone.
    pub(crate) fn lost(&self, epoch: Epoch) {
        let mut state = self.lock();
        if state.streams.lost(epoch) {
            self.after(state);
        }
    }

    /// Whether the carrier owes an acknowledgement.
    pub(crate) fn is_waiting_for_acks(&self) -> bool {
        self.lock().streams.mux().in_flight() > 0
    }

    pub(crate) fn set_round_trip_time(&self, round_trip: Duration) {
        self.lock().streams.mux_mut().set_round_trip_time(round_trip);
    }

    pub(crate) fn next_frame(&self, epoch: Epoch) -> Outgoing {
        let mut state = self.lock();
        let next = state.streams.next_frame(epoch, Instant::now());
        self.settle(state);
        next
    }

    /// Waits until there may be something to send. One carrier at a time waits.
    pub(crate) async fn work(&self) {
        // The sender lives in the same struct.
        let _ = self.shared.work.1.recv().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock is a bug that has been reported;
        // other streams go on.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After anything that may leave events and frames behind.
    fn after(&self, state: MutexGuard<'_, State>) {
        self.settle(state);
        // Full: a token is there already.
        let _ = self.shared.work.0.try_send(());
    }

    fn settle(&self, mut state: MutexGuard<'_, State>) {
        state.take_events();
        let opened = std::mem::take(&mut state.opened);
        drop(state);
        for (id, target) in opened {
            let stream = Stream { id, session: self.clone() };
            // The channel holds as many as there can be streams; a dropped
            // stream is reset.
            let _ = self.shared.incoming.try_send(Incoming { stream, target });
        }
    }
}

impl State {
    fn take_events(&mut self) {
        while let Some(event) = self.streams.mux_mut().poll_event() {
            if let mux::Event::Opened { id, target } = event {
                self.ends.insert(id, End { established: true, ..End::default() });
                self.opened.push((id, target));
                continue;
            }
            let Some(end) = self.ends.get_mut(&event.stream()) else { continue };
            match event {
                mux::Event::Opened { .. } => {}
                mux::Event::Established { .. } => {
                    end.established = true;
                    end.wake();
                }
                mux::Event::Readable { .. } => {
                    if let Some(waker) = end.reader.take() {
                        waker.wake();
                    }
                }
                mux::Event::Writable { .. } => {
                    if let Some(waker) = end.writer.take() {
                        waker.wake();
                    }
                }
                mux::Event::Finished { .. } => {
                    end.finished = true;
                    end.wake();
                }
                mux::Event::Closed { .. } => end.wake(),
                mux::Event::Reset { reason, .. } => {
                    end.reset = Some(reason);
                    end.wake();
                }
            }
        }
    }
}

/// One connection through the tunnel. Dropping it before both directions are
/// finished resets it.
pub struct Stream {
    id: StreamId,
    session: Streams,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.id)
    }
}

impl Stream {
    /// Its number in the session, for logs.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Waits until the farm has the stream.
    ///
    /// # Errors
    /// [`StreamError`] where it was refused.
    pub async fn established(&self) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| {
            let mut state = self.session.lock();
            let Some(end) = state.ends.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
            match end {
                End { reset: Some(reason), .. } => Poll::Ready(Err(StreamError(*reason))),
                End { established: true, .. } => Poll::Ready(Ok(())),
                _ => {
                    end.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next bytes; `None` at the end of what the other side sent.
    ///
    /// # Errors
    /// [`StreamError`] where the stream was reset.
    pub async fn read(&self) -> Result<Option<Bytes>, StreamError> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut state = self.session.lock();
        if let Some(bytes) = state.streams.mux_mut().read(self.id, READ_AT_ONCE, Instant::now()) {
            self.session.after(state);
            return Poll::Ready(Ok(Some(bytes)));
        }
        // What the last read caused may stand among the events.
        state.take_events();
        let Some(end) = state.ends.get_mut(&self.id) else { return Poll::Ready(Ok(None)) };
        match end {
            End { reset: Some(reason), .. } => Poll::Ready(Err(StreamError(*reason))),
            End { finished: true, .. } => Poll::Ready(Ok(None)),
            _ => {
                end.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Writes all of `bytes`, waiting for room as needed.
    ///
    /// # Errors
    /// [`StreamError`] where the stream was reset or finished.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| {
            let mut state = self.session.lock();
            let result = match state.streams.mux_mut().write(self.id, &mut bytes) {
                Ok(_) if bytes.is_empty() => Poll::Ready(Ok(())),
                Ok(_) => {
                    // Before the events are taken: room may be among them.
                    if let Some(end) = state.ends.get_mut(&self.id) {
                        end.writer = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
                Err(_) => {
                    state.take_events();
                    let reset = state.ends.get(&self.id).and_then(|end| end.reset);
                    Poll::Ready(Err(StreamError(reset.unwrap_or(ResetReason::Aborted))))
                }
            };
            self.session.after(state);
            result
        })
        .await
    }

    /// No more bytes will be written; reading goes on.
    pub fn finish(&self) {
        let mut state = self.session.lock();
        // A stream that is over needs no end.
        let _ = state.streams.mux_mut().finish(self.id);
        if let Some(end) = state.ends.get_mut(&self.id) {
            end.finishing = true;
        }
        self.session.after(state);
    }

    /// Ends the stream at once, in both directions.
    pub fn reset(&self, reason: ResetReason) {
        let mut state = self.session.lock();
        state.streams.mux_mut().reset(self.id, reason);
        if let Some(end) = state.ends.get_mut(&self.id) {
            end.reset.get_or_insert(reason);
            end.wake();
        }
        self.session.after(state);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        let Some(end) = state.ends.remove(&self.id) else { return };
        // Finished in both directions: what is still unacknowledged is the
        // multiplexer's to deliver.
        if !(end.finished && end.finishing) {
            state.streams.mux_mut().reset(self.id, ResetReason::Aborted);
        }
        self.session.after(state);
    }
}
