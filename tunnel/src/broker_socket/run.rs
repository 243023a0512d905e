//! Runs a [`Link`] against real sockets and a real clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farm_protocol::broker::{
    Claim, FromBroker, Heartbeat, Refused, RefusedReason, Role, ToBroker, Welcome, presence_proof,
};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, Slot};
use farm_protocol::keys::DeviceKey;

use super::conversation::{Report, Speaker, converse};
use super::dial::Dialer;
use crate::address_watch::is_ours;
use crate::link::{Action, Event, Link, Snapshot, SocketEvent, SocketId, State};
use crate::progress::Beat;

/// Messages that wait for the socket. More than this means that it is stuck,
/// which a heartbeat will find.
const OUTGOING: usize = 64;

/// Reports and commands that wait for the link.
const INBOX: usize = 128;

/// Why a link breaks that is told to.
const INJECTED: &str = "fault injection";

/// Who a device is to the broker.
#[derive(Clone)]
pub struct Identity {
    /// Its key.
    pub key: Arc<DeviceKey>,
    /// Its role.
    pub role: Role,
    /// Which program on the phone; 0 for a farm.
    pub slot: Slot,
    /// This run.
    pub boot: BootId,
    /// A farm's name, for the operator's list.
    pub name: Option<String>,
    /// A farm's one-time token.
    pub enrollment_token: Option<String>,
}

/// What the owner is told.
#[derive(Debug)]
pub enum BrokerEvent {
    /// The link changed its state.
    State(State),
    /// The broker let the device in: say what it must know anew.
    Online(Welcome),
    /// Presence, a signal, or an undelivered one.
    Message(FromBroker),
    /// The broker knows a newer epoch of this device than ours: take one
    /// past it with [`BrokerSocket::set_epoch`], then [`Event::Start`].
    StaleEpoch(Epoch),
    /// Another program with the same key and slot took our place at the
    /// broker: a copy of this device's state is in use elsewhere.
    Superseded,
}

enum Command {
    Link(Event),
    Epoch(Epoch),
    Send(ToBroker),
    Break(Duration),
}

/// A running link. The task ends when this and its clones are dropped.
#[derive(Clone)]
pub struct BrokerSocket {
    commands: async_channel::Sender<Command>,
    state: Arc<Mutex<Snapshot>>,
}

impl BrokerSocket {
    /// Starts connecting, for ever. `seed` spreads the retries of many devices.
    /// `beat` answers the watchdog; it is polled beside the work.
    pub fn start(
        dialer: Dialer,
        identity: Identity,
        epoch: Epoch,
        seed: u64,
        beat: Beat,
    ) -> (Self, async_channel::Receiver<BrokerEvent>) {
        let (commands, incoming) = async_channel::bounded(INBOX);
        let (events, told) = async_channel::bounded(INBOX);
        let (reports, reported) = async_channel::bounded(INBOX);
        let link = Link::new(seed, Instant::now()).among(dialer.brokers());
        let state = Arc::new(Mutex::new(link.state()));
        let runner = Runner {
            link,
            dialer,
            identity,
            epoch,
            claimed_epoch: None,
            told_epoch: None,
            current: None,
            broken_until: None,
            reports,
            events,
            state: state.clone(),
        };
        crate::executor::spawn(runner.run(incoming, reported, beat)).detach();
        let socket = Self { commands, state };
        socket.event(Event::Start);
        (socket, told)
    }

    /// Sends a message if the link is online and not choked; says whether it
    /// was taken. Delivery is never certain: what matters is repeated by
    /// those who wait for an answer.
    pub fn send(&self, message: ToBroker) -> bool {
        self.commands.try_send(Command::Send(message)).is_ok()
    }

    /// Tells the link what happened around it.
    pub fn event(&self, event: Event) {
        if self.commands.try_send(Command::Link(event)).is_err() {
            tracing::warn!("the broker link is too busy for an event");
        }
    }

    /// The device's newest epoch, told to the broker at once.
    pub fn set_epoch(&self, epoch: Epoch) {
        if self.commands.try_send(Command::Epoch(epoch)).is_err() {
            tracing::warn!("the broker link is too busy for a new epoch");
        }
    }

    /// Fault injection: the connection breaks, and none can be made for that long.
    pub fn break_for(&self, lasting: Duration) {
        if self.commands.try_send(Command::Break(lasting)).is_err() {
            tracing::warn!("the broker link is too busy for a fault");
        }
    }

    /// How the link stands.
    pub fn state(&self) -> Snapshot {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Runner {
    link: Link,
    dialer: Dialer,
    identity: Identity,
    epoch: Epoch,
    /// The epoch with which this socket asked to be let in.
    claimed_epoch: Option<Epoch>,
    /// The epoch that the broker has the farm's proof for, on this socket.
    told_epoch: Option<Epoch>,
    current: Option<(SocketId, async_channel::Sender<ToBroker>)>,
    /// Fault injection: until then no connection can be made.
    broken_until: Option<Instant>,
    reports: async_channel::Sender<(SocketId, Report)>,
    events: async_channel::Sender<BrokerEvent>,
    state: Arc<Mutex<Snapshot>>,
}

enum Step {
    Command(Option<Command>),
    Report(SocketId, Report),
    Timeout,
    Asked,
}

impl Runner {
    async fn run(
        mut self,
        commands: async_channel::Receiver<Command>,
        reported: async_channel::Receiver<(SocketId, Report)>,
        beat: Beat,
    ) {
        loop {
            beat.pass().await;
            let deadline = self.link.poll_timeout().map(|(when, _)| when);
            let timer = async {
                match deadline {
                    Some(when) => {
                        smol::Timer::at(when).await;
                        Step::Timeout
                    }
                    None => std::future::pending().await,
                }
            };
            let commanded = async { Step::Command(commands.recv().await.ok()) };
            let report = async {
                match reported.recv().await {
                    Ok((socket, report)) => Step::Report(socket, report),
                    // We hold a sender ourselves.
                    Err(_) => std::future::pending().await,
                }
            };
            let asked = async {
                beat.asked().await;
                Step::Asked
            };
            let step =
                smol::future::or(smol::future::or(commanded, report), smol::future::or(timer, asked)).await;
            let now = Instant::now();
            match step {
                Step::Command(Some(command)) => self.command(command, now),
                Step::Command(None) => return,
                Step::Report(socket, report) => self.report(socket, report, now).await,
                Step::Timeout => self.link.handle_timeout(now),
                Step::Asked => continue,
            }
            self.act().await;
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = self.link.state();
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Link(event) => {
                if matches!(event, Event::NetworkChanged(_)) {
                    self.drop_stranded(now);
                }
                self.link.handle(event, now);
            }
            Command::Epoch(epoch) => {
                self.epoch = epoch;
                self.link.handle(Event::AddressChanged, now);
            }
            Command::Break(lasting) => {
                self.broken_until = Some(now + lasting);
                if let Some((socket, _)) = self.current.take() {
                    let event = SocketEvent::Closed(INJECTED.to_owned());
                    self.link.handle(Event::Socket(socket, event), now);
                }
            }
            Command::Send(message) => {
                let sent = self.link.is_online()
                    && self.current.as_ref().is_some_and(|(_, out)| out.try_send(message).is_ok());
                if !sent {
                    tracing::debug!("a message for the broker was dropped: the link is not online");
                }
            }
        }
    }

    /// A connection whose own address is gone can carry nothing any more; TCP
    /// would take its time to find out.
    fn drop_stranded(&mut self, now: Instant) {
        let stranded = self.dialer.local().is_some_and(|local| !is_ours(local));
        if let Some((socket, _)) = self.current.as_ref().filter(|_| stranded && self.link.is_online()) {
            let closed = SocketEvent::Closed("its local address is gone".to_owned());
            self.link.handle(Event::Socket(*socket, closed), now);
        }
    }

    async fn report(&mut self, socket: SocketId, report: Report, now: Instant) {
        if self.current.as_ref().is_none_or(|(current, _)| *current != socket) {
            return;
        }
        let mut online = None;
        let event = match report {
            Report::Opened => SocketEvent::Opened,
            Report::Failed(why) => SocketEvent::Failed(why),
            Report::Closed(why) => SocketEvent::Closed(why),
            Report::Welcomed(welcome) => {
                // Not the newest: that may have changed since we asked to be let in.
                self.told_epoch = self.claimed_epoch;
                let heartbeat_interval = Duration::from_secs(u64::from(welcome.heartbeat_seconds));
                welcome.relay.iter().for_each(|relay| self.dialer.hold_relay(relay.clone()));
                online = Some(welcome);
                SocketEvent::Welcomed { heartbeat_interval }
            }
            Report::Refused(refused) => self.refused(refused).await,
            Report::Message(FromBroker::HeartbeatAnswer(answer)) => {
                answer.relay.into_iter().for_each(|relay| self.dialer.hold_relay(relay));
                SocketEvent::HeartbeatAnswered { sequence: answer.sequence, address_changed: false }
            }
            Report::Message(FromBroker::RetryAfter(after)) => {
                SocketEvent::RetryAfter(Duration::from_millis(u64::from(after.milliseconds)))
            }
            Report::Message(message) => {
                self.tell(BrokerEvent::Message(message)).await;
                SocketEvent::Received
            }
        };
        self.link.handle(Event::Socket(socket, event), now);
        if let Some(welcome) = online {
            // After the link took it, so that what the owner says is sent.
            self.act().await;
            self.tell(BrokerEvent::Online(welcome)).await;
        }
    }

    async fn refused(&mut self, refused: Refused) -> SocketEvent {
        if let (RefusedReason::StaleEpoch, Some(newest)) = (refused.reason, refused.newest) {
            self.tell(BrokerEvent::StaleEpoch(newest)).await;
        }
        if refused.reason == RefusedReason::Superseded {
            self.tell(BrokerEvent::Superseded).await;
        }
        SocketEvent::Refused {
            permanent: !refused.reason.is_temporary(),
            explanation: refused.reason.explanation().to_owned(),
        }
    }

    async fn act(&mut self) {
        while let Some(action) = self.link.poll_action() {
            match action {
                Action::Connect(socket) => self.connect(socket),
                // Dropping the queue ends the conversation at any stage, and
                // lets what is queued leave first.
                Action::Close { .. } => self.current = None,
                Action::SendHeartbeat { sequence, cause, .. } => {
                    tracing::debug!(sequence, cause = cause.name(), "heartbeat");
                    self.heartbeat(sequence);
                }
                Action::Goodbye(_) => self.put(ToBroker::Goodbye),
                Action::Changed(state) => self.tell(BrokerEvent::State(state)).await,
            }
        }
    }

    fn connect(&mut self, socket: SocketId) {
        let (out, outgoing) = async_channel::bounded(OUTGOING);
        self.claimed_epoch = Some(self.epoch);
        let dialer = self.dialer.aim_at(self.link.broker());
        let speaker = Speaker {
            key: self.identity.key.clone(),
            claim: Claim {
                role: self.identity.role,
                slot: self.identity.slot,
                boot: self.identity.boot,
                epoch: self.epoch,
                broker: dialer.broker().authority(),
            },
            name: self.identity.name.clone(),
            enrollment_token: self.identity.enrollment_token.clone(),
        };
        if self.broken_until.is_some_and(|until| Instant::now() < until) {
            // Our own queue: it has room, or the link is lost anyway.
            let _ = self.reports.try_send((socket, Report::Failed(INJECTED.to_owned())));
            self.current = Some((socket, out));
            return;
        }
        crate::executor::spawn(converse(socket, dialer, speaker, outgoing, self.reports.clone())).detach();
        self.current = Some((socket, out));
    }

    fn heartbeat(&mut self, sequence: u32) {
        let is_new = self.told_epoch != Some(self.epoch);
        let presence = (self.identity.role == Role::Farm && is_new).then(|| {
            let key = &self.identity.key;
            presence_proof(key, FarmId::of(&key.public()), self.identity.boot, self.epoch)
        });
        self.told_epoch = Some(self.epoch);
        self.put(ToBroker::Heartbeat(Heartbeat { sequence, epoch: self.epoch, presence }));
    }

    fn put(&self, message: ToBroker) {
        if let Some((_, out)) = &self.current
            && out.try_send(message).is_err()
        {
            tracing::debug!("the broker socket is choked");
        }
    }

    async fn tell(&self, event: BrokerEvent) {
        // The owner has gone: the commands will close next.
        let _ = self.events.send(event).await;
    }
}
