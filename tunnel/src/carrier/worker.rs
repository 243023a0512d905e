//! One carrier's task: greets, moves frames, pings, obeys.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farm_protocol::codec;
use farm_protocol::control::{Control, Goodbye, GoodbyeReason, Hello};
use farm_protocol::frame::{Frame, StreamState};
use farm_protocol::id::BootId;
use farm_protocol::ping::Ping;

use super::conduct::{Action, Data, Greeting, Supervision};
use super::{COMMANDS, CarrierId, Command, Condition, Note, Setup};
use crate::health;
use crate::peer::{self, Channel, LostReason, Path, PeerError, PeerEvent};
use crate::progress::Beat;
use crate::session::streams::Outgoing;
use crate::stream::Streams;

/// For a goodbye to leave before the carrier is closed: a round trip of a
/// slow link. Nobody waits for it.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);

/// Between two looks at the path that ICE has chosen: it changes only with a
/// better candidate.
const PATH_INTERVAL: Duration = Duration::from_secs(30);

/// The second look: by then the other side has told of the relay whose checks
/// came first.
const PATH_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    id: CarrierId,
    boot: BootId,
    watched: bool,
    streams: Streams,
    peer: Arc<dyn peer::Carrier>,
    notes: async_channel::Sender<(CarrierId, Note)>,
    condition: Arc<Mutex<Option<Condition>>>,
    /// Data was sent and may wait for its acknowledgement.
    busy: AtomicBool,
    became_busy: (async_channel::Sender<()>, async_channel::Receiver<()>),
    /// Frames that came.
    heard: AtomicU64,
}

/// What wakes the supervision.
enum Wake {
    Event(Option<PeerEvent>),
    Command(Option<Command>),
    Ping(Heard),
    Timeout,
    Busy,
    Path(Option<Path>),
    Asked,
}

/// What was heard on the ping channel.
#[derive(Debug, Clone, Copy)]
enum Heard {
    Ping,
    Pong(u32),
}

/// Why a worker's part ended.
enum End {
    /// Our owner closed it.
    Closed(GoodbyeReason),
    /// Something is wrong with the carrier or the other side.
    Lost(String),
}

impl Worker {
    /// Keeps what it needs of the setup, and gives back what [`Self::run`] takes.
    pub(super) fn new(
        setup: Setup,
        condition: Arc<Mutex<Option<Condition>>>,
    ) -> (Self, async_channel::Receiver<PeerEvent>, Beat) {
        let worker = Self {
            id: setup.id,
            boot: setup.boot,
            watched: setup.watched,
            streams: setup.streams,
            peer: setup.peer,
            notes: setup.notes,
            condition,
            busy: AtomicBool::new(false),
            became_busy: async_channel::bounded(1),
            heard: AtomicU64::new(0),
        };
        (worker, setup.events, setup.beat)
    }

    pub(super) async fn run(
        mut self,
        events: async_channel::Receiver<PeerEvent>,
        commands: async_channel::Receiver<Command>,
        beat: Beat,
    ) {
        let end = match self.open(&events, &commands, &beat).await {
            Ok(()) => self.work(&events, &commands, &beat).await,
            Err(end) => end,
        };
        if let End::Closed(reason) = end
            && ends_session(reason)
        {
            let until = async {
                smol::Timer::after(GOODBYE_WITHIN).await;
            };
            smol::future::or(self.tell_resets(), until).await;
        }
        self.streams.lost(self.id.epoch);
        match end {
            End::Closed(reason) => {
                let goodbye = async {
                    // Best effort: the other side may be unreachable.
                    let _ = self.say(&Control::Goodbye(Goodbye { reason })).await;
                    // The engine needs a moment to put it on the wire.
                    smol::Timer::after(Duration::from_millis(20)).await;
                };
                smol::future::or(goodbye, async {
                    smol::Timer::after(GOODBYE_WITHIN).await;
                })
                .await;
            }
            End::Lost(why) => self.note(Note::Lost(why)).await,
        }
        self.peer.close().await;
    }

    /// The streams of an ended session were reset, each with its reason, and
    /// this carrier is the last that can say so.
    async fn tell_resets(&self) {
        while let Outgoing::Frame(frame) = self.streams.next_frame(self.id.epoch) {
            // Acknowledgements and the like, nobody needs any more.
            if let Frame::Reset { .. } = frame
                && let Ok(message) = frame.encode()
                && self.peer.send(Channel::Data, Bytes::from(message)).await.is_err()
            {
                return;
            }
        }
    }

    async fn note(&self, note: Note) {
        // The owner has gone: it wants no reports.
        let _ = self.notes.send((self.id, note)).await;
    }

    /// Until the channels are open.
    async fn open(
        &mut self,
        events: &async_channel::Receiver<PeerEvent>,
        commands: &async_channel::Receiver<Command>,
        beat: &Beat,
    ) -> Result<(), End> {
        enum Next {
            Event(Option<PeerEvent>),
            Command(Option<Command>),
            Asked,
        }
        loop {
            let event = async { Next::Event(events.recv().await.ok()) };
            let command = async { Next::Command(commands.recv().await.ok()) };
            let asked = async {
                beat.asked().await;
                Next::Asked
            };
            match smol::future::or(smol::future::or(event, command), asked).await {
                Next::Event(Some(PeerEvent::Opened)) => return Ok(()),
                Next::Event(Some(PeerEvent::Candidate(line))) => self.note(Note::Candidate(line)).await,
                Next::Event(Some(PeerEvent::GatheringDone)) | Next::Asked => {}
                Next::Event(Some(PeerEvent::Lost(reason))) => return Err(End::Lost(reason.to_string())),
                Next::Event(None) => return Err(End::Lost(LostReason::Engine.to_string())),
                Next::Command(Some(Command::Watched(watched))) => self.watched = watched,
                Next::Command(Some(Command::Close(reason))) => return Err(End::Closed(reason)),
                Next::Command(Some(_)) => {}
                Next::Command(None) => return Err(End::Closed(GoodbyeReason::Superseded)),
            }
        }
    }

    async fn work(
        &self,
        events: &async_channel::Receiver<PeerEvent>,
        commands: &async_channel::Receiver<Command>,
        beat: &Beat,
    ) -> End {
        let Some(streams) = self.streams.greet(self.id.epoch) else {
            return End::Closed(GoodbyeReason::Superseded);
        };
        let hello = Hello {
            session: self.id.session,
            epoch: self.id.epoch,
            boot: self.boot,
            streams,
            watched: self.watched,
            burst: None,
        };
        let hello = Control::Hello(hello);
        if let Err(error) = self.say(&hello).await {
            return End::Lost(error.to_string());
        }
        self.note(Note::Opened).await;
        let (heard, pings) = async_channel::bounded(COMMANDS);
        let (attached, attach) = async_channel::bounded(1);
        let supervise = self.supervise(events, commands, &attached, &pings, beat);
        let parts = smol::future::or(
            smol::future::or(self.read_control(&hello), self.read_ping(&heard)),
            smol::future::or(self.read_data(), self.write_data(&attach)),
        );
        smol::future::or(supervise, parts).await
    }

    async fn say(&self, control: &Control) -> Result<(), PeerError> {
        match codec::encode(control) {
            Ok(message) => self.peer.send(Channel::Control, Bytes::from(message)).await,
            Err(error) => {
                tracing::error!(%error, "a control message could not be encoded");
                Err(PeerError::TooLarge(codec::MAX_MESSAGE))
            }
        }
    }

    /// Hands on what the other side says; `ours` is the hello that was sent.
    async fn read_control(&self, ours: &Control) -> End {
        let mut greeting = Greeting::default();
        while let Some(message) = self.peer.recv(Channel::Control).await {
            let (again, note) = match codec::decode::<Control>(&message) {
                Ok(control) => greeting.take(control),
                Err(error) => return End::Lost(format!("the other side sent nonsense: {error}")),
            };
            if again && let Err(error) = self.say(ours).await {
                return End::Lost(error.to_string());
            }
            if let Some(Note::Hello(Hello { burst: Some(burst), .. })) = &note {
                self.peer.receiver_holds(*burst);
                self.streams.receiver_holds(*burst);
            }
            if let Some(note) = note {
                self.note(note).await;
            }
        }
        End::Lost(LostReason::ClosedByPeer.to_string())
    }

    async fn read_data(&self) -> End {
        while let Some(message) = self.peer.recv(Channel::Data).await {
            let frame = match Frame::decode(&message) {
                Ok(frame) => frame,
                Err(error) => return End::Lost(format!("the other side sent nonsense: {error}")),
            };
            self.heard.fetch_add(1, Ordering::Relaxed);
            if let Err(violation) = self.streams.frame(self.id.epoch, frame) {
                return End::Lost(violation.to_string());
            }
        }
        End::Lost(LostReason::ClosedByPeer.to_string())
    }

    async fn write_data(&self, attach: &async_channel::Receiver<Vec<StreamState>>) -> End {
        // The sender lives as long as this future.
        if let Ok(streams) = attach.recv().await
            && let Err(violation) = self.streams.resume(self.id.epoch, &streams)
        {
            return End::Lost(violation.to_string());
        }
        loop {
            match self.streams.next_frame(self.id.epoch) {
                Outgoing::Frame(frame) => {
                    let message = match frame.encode() {
                        Ok(message) => message,
                        Err(error) => return End::Lost(format!("a frame could not be encoded: {error}")),
                    };
                    if !self.busy.swap(true, Ordering::Relaxed) {
                        // Full: the supervision knows already.
                        let _ = self.became_busy.0.try_send(());
                    }
                    if let Err(error) = self.peer.send(Channel::Data, Bytes::from(message)).await {
                        return End::Lost(error.to_string());
                    }
                }
                Outgoing::Idle(until) => {
                    let timer = async {
                        match until {
                            Some(when) => {
                                smol::Timer::at(when).await;
                            }
                            None => std::future::pending().await,
                        }
                    };
                    smol::future::or(self.streams.work(), timer).await;
                }
                // Its close is on the way.
                Outgoing::Superseded => std::future::pending().await,
            }
        }
    }

    /// Answers pings at once, and hands on what was heard.
    async fn read_ping(&self, heard: &async_channel::Sender<Heard>) -> End {
        while let Some(message) = self.peer.recv(Channel::Ping).await {
            let what = match codec::decode::<Ping>(&message) {
                Ok(Ping::Ping(number)) => {
                    self.ping(Ping::Pong(number)).await;
                    Heard::Ping
                }
                Ok(Ping::Pong(number)) => Heard::Pong(number),
                Err(error) => return End::Lost(format!("the other side sent nonsense: {error}")),
            };
            // Full: a flood, of which the monitor needs no more.
            let _ = heard.try_send(what);
        }
        End::Lost(LostReason::ClosedByPeer.to_string())
    }

    async fn ping(&self, ping: Ping) {
        if let Ok(message) = codec::encode(&ping) {
            // No room: the ping is lost, as pings may be.
            let _ = self.peer.try_send(Channel::Ping, Bytes::from(message)).await;
        }
    }

    /// Drives the health monitor and obeys the owner.
    async fn supervise(
        &self,
        events: &async_channel::Receiver<PeerEvent>,
        commands: &async_channel::Receiver<Command>,
        attached: &async_channel::Sender<Vec<StreamState>>,
        pings: &async_channel::Receiver<Heard>,
        beat: &Beat,
    ) -> End {
        let mut supervision = Supervision::new(self.watched, Instant::now());
        self.peer.set_watched(self.watched);
        let mut path = self.peer.path().await;
        let mut path_at = Instant::now() + PATH_AGAIN;
        if let Some(path) = path {
            self.note(Note::Path(path.kind)).await;
        }
        loop {
            beat.pass().await;
            if let Some(end) = self.obey(&mut supervision).await {
                return end;
            }
            let now = Instant::now();
            self.show(supervision.state(now), path);
            let due = supervision.poll_timeout().unwrap_or(now + PATH_INTERVAL);
            let wake = self.wake(events, commands, pings, due, path_at, beat).await;
            let now = Instant::now();
            match wake {
                Wake::Timeout => {
                    let heard = self.heard.load(Ordering::Relaxed);
                    let owed = supervision.is_looking() && self.streams.is_waiting_for_acks();
                    supervision.handle_timeout(Data { heard, owed }, now);
                    self.busy.store(supervision.is_looking(), Ordering::Relaxed);
                }
                Wake::Ping(Heard::Ping) => supervision.handle(health::Event::PingReceived, now),
                Wake::Ping(Heard::Pong(number)) => {
                    supervision.handle(health::Event::PingAnswered(number), now);
                    if let Some(rtt) = supervision.state(now).rtt {
                        self.streams.set_round_trip_time(rtt);
                    }
                }
                Wake::Busy => supervision.sent(self.heard.load(Ordering::Relaxed), now),
                Wake::Path(found) => {
                    let kind = found.map(|path| path.kind);
                    if let Some(kind) = kind.filter(|_| kind != path.map(|path| path.kind)) {
                        self.note(Note::Path(kind)).await;
                    }
                    path = found;
                    path_at = now + PATH_INTERVAL;
                }
                Wake::Asked | Wake::Event(Some(PeerEvent::Opened | PeerEvent::GatheringDone)) => {}
                Wake::Event(Some(PeerEvent::Candidate(line))) => self.note(Note::Candidate(line)).await,
                Wake::Event(Some(PeerEvent::Lost(reason))) => return End::Lost(reason.to_string()),
                Wake::Event(None) => return End::Lost(LostReason::Engine.to_string()),
                Wake::Command(None) => return End::Closed(GoodbyeReason::Superseded),
                Wake::Command(Some(Command::Close(reason))) => return End::Closed(reason),
                Wake::Command(Some(Command::Attach(streams))) => {
                    // Once per carrier; a second one is the owner's mistake.
                    let _ = attached.try_send(streams);
                }
                Wake::Command(Some(Command::Watched(watched))) => {
                    self.peer.set_watched(watched);
                    supervision.handle(health::Event::Attention { watched }, now);
                }
                Wake::Command(Some(Command::Suspect)) => {
                    supervision.handle(health::Event::NetworkChanged, now);
                }
                Wake::Command(Some(Command::Send(control))) => {
                    if let Err(error) = self.say(&control).await {
                        return End::Lost(error.to_string());
                    }
                }
            }
        }
    }

    async fn wake(
        &self,
        events: &async_channel::Receiver<PeerEvent>,
        commands: &async_channel::Receiver<Command>,
        pings: &async_channel::Receiver<Heard>,
        due: Instant,
        path_at: Instant,
        beat: &Beat,
    ) -> Wake {
        let event = async { Wake::Event(events.recv().await.ok()) };
        let command = async { Wake::Command(commands.recv().await.ok()) };
        let ping = async {
            match pings.recv().await {
                Ok(heard) => Wake::Ping(heard),
                // The reader lives beside us.
                Err(_) => std::future::pending().await,
            }
        };
        let busy = async {
            // We hold the sender ourselves.
            let _ = self.became_busy.1.recv().await;
            Wake::Busy
        };
        let timer = async {
            smol::Timer::at(due).await;
            Wake::Timeout
        };
        let path = async {
            smol::Timer::at(path_at).await;
            Wake::Path(self.peer.path().await)
        };
        let asked = async {
            beat.asked().await;
            Wake::Asked
        };
        let outside = smol::future::or(smol::future::or(event, command), smol::future::or(ping, busy));
        smol::future::or(outside, smol::future::or(smol::future::or(timer, path), asked)).await
    }

    /// Does what the supervision says; an end where the carrier is dead.
    async fn obey(&self, supervision: &mut Supervision) -> Option<End> {
        while let Some(action) = supervision.poll_action() {
            match action {
                Action::Send(ping) => self.ping(ping).await,
                Action::Dead(why) => return Some(End::Lost(why)),
                Action::Grade(grade) => tracing::debug!(?grade, session = %self.id.session, "quality"),
            }
        }
        None
    }

    fn show(&self, health: health::Snapshot, path: Option<Path>) {
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = Some(Condition { health, path });
    }
}

/// Whether the session is over with the carrier that is left for this reason.
fn ends_session(reason: GoodbyeReason) -> bool {
    use GoodbyeReason::{Revoked, SessionEnded, Stopping, TakenOver};
    matches!(reason, Revoked | SessionEnded | Stopping | TakenOver)
}
