//! Local commands: invite, phones, revoke, status.

use std::time::Instant;

use farm_protocol::id::PhoneId;
use farm_protocol::invitation::{Link, Secret, VALID_SECONDS};
use farm_protocol::keys::KeyError;
use farm_tunnel::session::farm::Event;

use super::carriers::Slot;
use super::{Farm, wall_time};
use crate::control_socket::{Asked, InvitationReply, PhoneReply, Reply, Request};
use crate::state::{PhoneRecord, StateError};
use crate::status::{BrokerStatus, PathStatus, SessionStatus, Status};

/// The longest that an invitation is good for, in seconds: the one that the
/// card's image writes to the card, where whoever reads it holds the whole farm.
const LONGEST_VALID: u64 = 7 * 24 * 3600;

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
enum LocalError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Fault(#[from] super::fault::FaultError),
    #[error("no paired phone has the id or name {0:?}: see `farm-agent phones`")]
    NoSuchPhone(String),
    #[error("{0:?} fits several phones: use more of the id")]
    Ambiguous(String),
}

impl Farm {
    pub(super) async fn local(&mut self, asked: Asked) {
        let reply = match &asked.request {
            Request::Invite { valid_seconds } => {
                let seconds = valid_seconds.unwrap_or(VALID_SECONDS).clamp(1, LONGEST_VALID);
                self.invite(seconds).await.map(Reply::Invitation)
            }
            Request::Phones {} => self.phones().map(Reply::Phones),
            Request::Revoke { phone } => self.revoke(phone).await.map(Reply::Revoked),
            Request::Outages { days } => {
                Ok(Reply::Outages(Box::new(self.history.report(*days, Instant::now()))))
            }
            Request::Fault { kind, on, seconds } => {
                self.fault(kind, on.as_deref(), *seconds).map(Reply::Done).map_err(LocalError::from)
            }
            Request::Status { .. } => self.status().map(|s| Reply::Status(Box::new(s))),
        };
        let reply = reply.unwrap_or_else(|error| Reply::Error(error.to_string()));
        // The client may have gone.
        let _ = asked.reply.try_send(reply);
    }

    async fn invite(&mut self, seconds: u64) -> Result<InvitationReply, LocalError> {
        let now = wall_time();
        let (link, code) = (Secret::for_link(&self.random)?, Secret::for_code(&self.random)?);
        self.state.invite(link.clone(), code.clone(), now, seconds).await?;
        self.tell_access();
        tracing::info!("an invitation was made");
        let text = Link {
            app: self.config.app.clone(),
            broker: self.config.broker.to_string(),
            farm: self.key.public(),
            secret: link,
        };
        Ok(InvitationReply {
            link: text.to_string(),
            code: code.code().unwrap_or_default(),
            valid_seconds: seconds,
            farm_name: self.config.name.clone(),
        })
    }

    fn reply_of(&self, id: PhoneId, record: PhoneRecord) -> PhoneReply {
        let connected = (self.lifecycle.snapshot().iter()).any(|s| s.session.phone == id && s.live.is_some());
        PhoneReply { id: id.to_string(), name: record.name, paired: record.paired, connected }
    }

    fn phones(&self) -> Result<Vec<PhoneReply>, LocalError> {
        Ok(self.state.phones()?.into_iter().map(|(id, record)| self.reply_of(id, record)).collect())
    }

    async fn revoke(&mut self, wanted: &str) -> Result<PhoneReply, LocalError> {
        let phones = self.state.phones()?;
        let mut fitting = phones.into_iter().filter(|(id, record)| {
            (!wanted.is_empty() && id.to_string().starts_with(wanted)) || record.name == wanted
        });
        let (id, record) = fitting.next().ok_or_else(|| LocalError::NoSuchPhone(wanted.to_owned()))?;
        if fitting.next().is_some() {
            return Err(LocalError::Ambiguous(wanted.to_owned()));
        }
        let reply = self.reply_of(id, record);
        self.state.revoke(id).await?;
        self.tell_access();
        tracing::info!(name = reply.name, "a phone was revoked");
        self.lifecycle.handle(Event::Revoked(id), Instant::now());
        self.act(None);
        self.tell_info();
        Ok(reply)
    }

    fn status(&self) -> Result<Status, LocalError> {
        let now = Instant::now();
        let names = self.state.phones()?;
        let name_of = |phone| {
            names.iter().find(|(id, _)| *id == phone).map(|(_, r)| r.name.clone()).unwrap_or_default()
        };
        let sessions = self
            .lifecycle
            .snapshot()
            .into_iter()
            .map(|s| {
                let runtime = self.sessions.get(&s.session);
                let slot = s.live.and_then(|epoch| runtime?.carriers.get(&epoch));
                let condition = match slot {
                    Some(Slot::Running { carrier, .. }) => carrier.condition(),
                    _ => None,
                };
                SessionStatus {
                    session: s.session.to_string(),
                    phone: name_of(s.session.phone),
                    state: match (s.live, s.connecting) {
                        (Some(_), _) => "live",
                        (None, true) => "connecting",
                        (None, false) => "parked",
                    }
                    .to_owned(),
                    streams: runtime.map_or(0, |r| r.streams.count()),
                    buffered_bytes: runtime.map_or(0, |r| r.streams.buffered_bytes()),
                    path: condition.as_ref().map(PathStatus::new).unwrap_or_default(),
                }
            })
            .collect();
        Ok(Status {
            name: self.config.name.clone(),
            farm: self.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.duration_since(self.started).as_secs(),
            starts: self.epoch.starts(),
            broker: BrokerStatus::new(self.dialer.broker().to_string(), &self.broker.state(), now),
            public_address: self.public_address.map(|a| a.to_string()),
            services: self.config.services.iter().map(|s| s.service.name.clone()).collect(),
            phones: names.len(),
            sessions,
            alarms: self.alarms.clone(),
            counters: self.counters.snapshot(),
        })
    }
}
