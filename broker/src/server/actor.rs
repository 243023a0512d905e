//! The task that owns the core: feeds it, and does what it asks.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use farm_protocol::broker::FromBroker;
use farm_protocol::codec;
use farm_protocol::id::FarmId;

use super::digest::Digest;
use super::herald::{Ear, News};
use super::metrics::Stock;
use super::outbox::Outbox;
use super::reactor::Alarm;
use super::relay::Relay;
use super::scribe::{Note, Notes};
use super::tally::Tally;
use super::thread::Door;
use crate::admin::{EventLine, Events, FarmDetails, FarmLine};
use crate::backup::Backup;
use crate::core::cluster::records::{self, Record};
use crate::core::counters::Counters;
use crate::core::history::Entry;
use crate::core::{Action, ConnectionId, Core, Event, Now};
use crate::register::{Enrolled, Register, RegisterError, Wire};
use crate::store;

/// Events that wait for the core. A full queue holds the sockets back.
pub(super) const QUEUE: usize = 1024;

/// Events handled before the deadlines are looked at again.
const BATCH: usize = 256;

/// Lines of the log in one answer: about 200 bytes each.
const EVENTS_AT_ONCE: usize = 1000;

/// Lines of the log that are shown with a farm.
const SHOWN_EVENTS: usize = 20;

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A device opened a WebSocket; what it is sent goes here.
    Opened(Event, ConnectionId, Outbox),
    /// Something happened.
    Event(Event),
    /// May another enrollment token be issued?
    MayIssueToken(Sender<bool>),
    /// The operator's list.
    Farms(Sender<Vec<FarmLine>>),
    /// Which farm does the operator mean: an id, its beginning, or a name?
    Find(String, Sender<Result<FarmId, String>>),
    /// All about one farm.
    Show(FarmId, Sender<Option<FarmDetails>>),
    /// The log from a number on, or its newest lines; of one farm or of all.
    Events(Option<u64>, Option<FarmId>, Sender<Events>),
    /// What a backup keeps.
    Backup(Sender<Backup>),
    /// The counters.
    Counters(Sender<Counters>),
    /// The counters, and what there is.
    Stock(Sender<(Counters, Stock)>),
    /// Say farewell to all devices, and to whoever still comes.
    ShutDown { seed: u64 },
    /// All are gone: end.
    End,
}

/// The time now.
pub(super) fn now() -> Now {
    Now { instant: Instant::now(), unix: store::unix_time() }
}

/// The actor's state.
pub(super) struct Actor {
    pub(super) core: Core,
    /// Keeps farms and tokens.
    pub(super) register: Arc<dyn Register>,
    /// To the other brokers of a cluster.
    pub(super) wire: Option<Arc<dyn Wire>>,
    pub(super) inputs: Receiver<Input>,
    /// For what the register's tasks have to report.
    pub(super) reports: Sender<Input>,
    pub(super) outboxes: BTreeMap<ConnectionId, Outbox>,
    pub(super) digest: Digest,
    pub(super) tally: Arc<Tally>,
    /// Knows what it carried for whom.
    pub(super) relay: Option<Arc<Relay>>,
    /// For the log of the farms.
    pub(super) notes: Notes,
    /// Where the store's tasks run.
    pub(super) tasks: Door,
    /// For what the operator is told of them.
    pub(super) ear: Ear,
}

impl Actor {
    /// Runs until told to end.
    pub(super) async fn run(mut self) {
        let mut set = Instant::now();
        let mut alarm = Alarm::at(set);
        loop {
            let core_due = self.core.poll_timeout().map(|(at, _)| at);
            let due = core_due.map_or(self.digest.due(), |at| at.min(self.digest.due()));
            if set != due {
                (alarm, set) = (Alarm::at(due), due);
            }
            let first = smol::future::or(async { Some(self.inputs.recv().await) }, async {
                (&mut alarm).await;
                None
            });
            match first.await {
                Some(Ok(input)) => {
                    if self.take(input).is_break() {
                        return;
                    }
                }
                // Not while `reports` is held.
                Some(Err(_)) => return,
                None => self.handle(Event::Timeout),
            }
            for _ in 0..BATCH {
                let Ok(input) = self.inputs.try_recv() else {
                    break;
                };
                if self.take(input).is_break() {
                    return;
                }
            }
            if self.digest.due() <= Instant::now() {
                self.digest.look(&self.tally.with(self.core.counters()), Instant::now());
            }
            smol::future::yield_now().await;
        }
    }

    fn take(&mut self, input: Input) -> ControlFlow<()> {
        match input {
            Input::Opened(event, connection, outbox) => {
                self.outboxes.insert(connection, outbox);
                self.handle(event);
            }
            Input::Event(event) => {
                if let Event::Closed { connection, .. } = event {
                    self.outboxes.remove(&connection);
                }
                self.handle(event);
            }
            // Where nobody waits for the answer any more, nobody misses it.
            Input::MayIssueToken(answer) => {
                let _gone = answer.try_send(self.core.may_issue_token());
            }
            Input::Farms(answer) => {
                let _gone = answer.try_send(self.farm_lines());
            }
            Input::Find(which, answer) => {
                let _gone = answer.try_send(self.find(&which));
            }
            Input::Show(farm, answer) => {
                let _gone = answer.try_send(self.show(farm));
            }
            Input::Events(from, farm, answer) => {
                let _gone = answer.try_send(self.events(from, farm));
            }
            Input::Backup(answer) => {
                let _gone = answer.try_send(self.core.backup(now()));
            }
            Input::Counters(answer) => {
                let _gone = answer.try_send(self.tally.with(self.core.counters()));
            }
            Input::Stock(answer) => {
                let _gone = answer.try_send((self.tally.with(self.core.counters()), self.stock()));
            }
            Input::ShutDown { seed } => {
                self.handle(Event::ShutDown { seed });
            }
            Input::End => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn stock(&self) -> Stock {
        let (mut farms, mut farms_online) = (0, 0);
        for farm in self.core.farms() {
            farms += 1;
            farms_online += usize::from(farm.online);
        }
        Stock { connections: self.outboxes.len(), farms, farms_online }
    }

    fn find(&self, which: &str) -> Result<FarmId, String> {
        let farms: Vec<_> = self.core.farms().collect();
        let whole = farms.iter().filter(|farm| farm.name == which || farm.id.to_string() == which);
        let mut found: Vec<_> = whole.collect();
        if found.is_empty() && !which.is_empty() {
            found = farms.iter().filter(|farm| farm.id.to_string().starts_with(which)).collect();
        }
        match found.as_slice() {
            [one] => Ok(one.id),
            [] => Err(format!("no farm is called {which:?}: `farm-broker farms` lists them")),
            many => {
                let ids: Vec<String> = many.iter().take(5).map(|farm| farm.id.to_string()).collect();
                Err(format!(
                    "{} farms are meant by {which:?}: name one by its id ({}…)",
                    many.len(),
                    ids.join(", ")
                ))
            }
        }
    }

    fn show(&self, id: FarmId) -> Option<FarmDetails> {
        let line = self.farm_lines().into_iter().find(|line| line.id == id.to_string())?;
        let past = self.core.history().of(id, line.enrolled, now().unix);
        let newest = self.core.history().newest(SHOWN_EVENTS, Some(id));
        let events = newest.into_iter().map(|(number, entry)| EventLine::of(number, &entry, &line.name));
        Some(FarmDetails {
            since: line.since.or(past.since),
            address: past.address.map(|address| address.to_string()),
            day: past.day,
            month: past.month,
            events: events.collect(),
            id: line.id,
            name: line.name,
            online: line.online,
            enrolled: line.enrolled,
            relayed_bytes: line.relayed_bytes,
        })
    }

    fn events(&self, from: Option<u64>, farm: Option<FarmId>) -> Events {
        let history = self.core.history();
        let entries: Vec<_> = match from {
            Some(from) => {
                let after = history.after(from, farm).take(EVENTS_AT_ONCE);
                after.map(|(number, entry)| (number, *entry)).collect()
            }
            None => history.newest(EVENTS_AT_ONCE, farm),
        };
        let full = entries.len() == EVENTS_AT_ONCE && from.is_some();
        let last = entries.last().map(|(number, _)| number + 1).filter(|_| full);
        let names: BTreeMap<FarmId, String> = self.core.farms().map(|farm| (farm.id, farm.name)).collect();
        let line = |(number, entry): (u64, Entry)| {
            EventLine::of(number, &entry, names.get(&entry.farm).map_or("", |name| name))
        };
        Events { events: entries.into_iter().map(line).collect(), next: last.unwrap_or(history.next()) }
    }

    fn farm_lines(&self) -> Vec<FarmLine> {
        let now = now();
        let unix_at = |at: Instant| {
            let ago = now.instant.saturating_duration_since(at);
            now.unix.saturating_sub(ago.as_secs())
        };
        self.core
            .farms()
            .map(|view| FarmLine {
                relayed_bytes: self.relay.as_ref().and_then(|relay| {
                    let account = self.core.relay_account(view.id)?;
                    Some(relay.usage(account).bytes)
                }),
                id: view.id.to_string(),
                name: view.name,
                online: view.online,
                since: view.since.map(unix_at),
                enrolled: view.enrolled,
            })
            .collect()
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(event, now());
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { connection, message } => self.send(connection, &message),
                // Dropping the outbox lets the socket send what waits and end.
                Action::Close { connection } => drop(self.outboxes.remove(&connection)),
                Action::Enroll { farm, record } => {
                    let (register, reports) = (self.register.clone(), self.reports.clone());
                    let shared = self.wire.is_some();
                    self.tasks
                        .spawn(async move {
                            let events = match register.enroll(farm, &record).await {
                                Ok(Enrolled::Kept(record)) => {
                                    // As it was kept: the engine may know a better name.
                                    let token = record.token;
                                    let kept = Record::Token(token, Some(records::Entry::Spent(record)));
                                    let kept = shared.then(|| Event::Recorded(Box::new(kept)));
                                    [kept, Some(Event::Enrolled { farm })]
                                }
                                Ok(Enrolled::Refused) => [Some(Event::EnrollmentRefused { farm }), None],
                                Err(error) => {
                                    tracing::error!(%farm, %error, "the enrollment could not be stored");
                                    [Some(Event::EnrollmentFailed { farm }), None]
                                }
                            };
                            for event in events.into_iter().flatten() {
                                // Refused only when the broker ends.
                                let _ended = reports.send(Input::Event(event)).await;
                            }
                        })
                        .detach();
                }
                Action::TellAll { message } => {
                    if let Some(wire) = &self.wire {
                        wire.tell_all(&message);
                    }
                }
                Action::Tell { broker, message } => {
                    if let Some(wire) = &self.wire {
                        wire.tell(broker, &message);
                    }
                }
                Action::Restore { record } => {
                    let register = self.register.clone();
                    self.keep_again(async move { register.restore(&record).await });
                }
                Action::RestoreRevoked { farm, at } => {
                    let register = self.register.clone();
                    self.keep_again(async move { register.revoke(farm, at).await });
                }
                Action::WriteHistory { writing } => self.notes.leave(Note::History(writing)),
                Action::MarkRun { start, until, forget } => {
                    self.notes.leave(Note::Run { start, until, forget });
                }
                Action::CloseRelay { account } => {
                    if let Some(relay) = &self.relay {
                        relay.revoke(account);
                    }
                }
                Action::Alert { alert } => self.ear.tell(News::Alert(alert)),
                Action::ForgetAlert { farm } => self.notes.leave(Note::Alert { farm, since: None }),
                Action::ForgetToken { hash } => {
                    let register = self.register.clone();
                    self.tasks
                        .spawn(async move {
                            if let Err(error) = register.remove_token(hash).await {
                                tracing::warn!(%error, "an expired enrollment token stays in the store");
                            }
                        })
                        .detach();
                }
            }
        }
    }

    /// What the engine had lost. One that fails is found lost again.
    fn keep_again(&self, kept: impl Future<Output = Result<(), RegisterError>> + Send + 'static) {
        self.tasks
            .spawn(async move {
                if let Err(error) = kept.await {
                    tracing::warn!(%error, "a record that the engine lost could not be written again");
                }
            })
            .detach();
    }

    fn send(&mut self, connection: ConnectionId, message: &FromBroker) {
        let Some(outbox) = self.outboxes.get(&connection) else {
            return;
        };
        let sent = match codec::encode(message) {
            Ok(bytes) => outbox.push(Bytes::from(bytes)).is_ok(),
            Err(error) => {
                // The core bounds all it sends well below the codec's limit.
                tracing::error!(%error, "a message could not be encoded");
                false
            }
        };
        if !sent && let Some(outbox) = self.outboxes.remove(&connection) {
            outbox.give_up();
            self.core.handle(Event::Closed { connection, slow: true }, now());
        }
    }
}
