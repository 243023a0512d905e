//! Tells the operator's webhook which farms are away or back. Decides nothing:
//! see [`Delivery`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use async_channel::{Receiver, Sender, TrySendError};
use smol::Timer;
use smol::future::or;

use super::scribe::{Note, Notes};
use super::tally::Tally;
use super::webhook::Webhook;
use crate::core::alerts::Alert;
use crate::core::alerts::delivery::{Delivery, Outcome};

/// What waits for the herald to take it into its own queue, which is bounded
/// as well: it takes at once.
const QUEUE: usize = 256;

/// What the herald is told.
#[derive(Debug)]
pub(super) enum News {
    /// To be told on.
    Alert(Box<Alert>),
    /// To whom, from now on.
    Webhook(Option<Box<Webhook>>),
}

/// The end that news are given to.
#[derive(Debug, Clone)]
pub(super) struct Ear(Sender<News>);

impl Ear {
    /// Tells it, without waiting.
    pub(super) fn tell(&self, news: News) {
        if let Err(TrySendError::Full(_)) = self.0.try_send(news) {
            tracing::error!("an alert is lost: more come at once than are taken");
        }
    }
}

/// The herald.
pub(super) struct Herald {
    news: Receiver<News>,
    webhook: Option<Box<Webhook>>,
    delivery: Delivery,
    /// For what outlives the broker: who was told of.
    notes: Notes,
    tally: Arc<Tally>,
    /// Whether the last try failed.
    failing: bool,
}

/// A herald, and who tells it.
pub(super) fn hire(webhook: Option<Box<Webhook>>, notes: Notes, tally: Arc<Tally>) -> (Ear, Herald) {
    let (sender, news) = async_channel::bounded(QUEUE);
    let delivery = Delivery::default();
    (Ear(sender), Herald { news, webhook, delivery, notes, tally, failing: false })
}

/// A try that is under way.
type Sending = Pin<Box<dyn Future<Output = (Alert, Result<(), (Outcome, String)>)> + Send>>;

enum Woken {
    Told(News),
    Tried(Alert, Result<(), (Outcome, String)>),
    Due,
    Over,
}

impl Herald {
    /// Delivers until nobody tells it anything any more.
    pub(super) async fn run(mut self) {
        let mut sending: Option<Sending> = None;
        loop {
            if sending.is_none()
                && let Some(webhook) = &self.webhook
                && let Some(alert) = self.delivery.poll(Instant::now()).cloned()
            {
                let webhook = webhook.clone();
                sending = Some(Box::pin(async move {
                    let told = webhook.post(alert.clone()).await;
                    (alert, told)
                }));
            }
            self.show();
            let due = self.delivery.poll_timeout().filter(|_| self.webhook.is_some());
            let told = async { self.news.recv().await.map_or(Woken::Over, Woken::Told) };
            let tried = async {
                match &mut sending {
                    Some(sending) => {
                        let (alert, told) = sending.await;
                        Woken::Tried(alert, told)
                    }
                    None => std::future::pending().await,
                }
            };
            let due = async {
                match due {
                    Some((at, _)) => drop(Timer::at(at).await),
                    None => std::future::pending().await,
                }
                Woken::Due
            };
            match or(told, or(tried, due)).await {
                Woken::Told(News::Alert(alert)) => self.delivery.push(*alert, Instant::now()),
                Woken::Told(News::Webhook(webhook)) => {
                    self.webhook = webhook;
                    match self.webhook {
                        Some(_) => self.delivery.start_over(),
                        None => self.delivery.give_up(),
                    }
                }
                Woken::Tried(alert, told) => {
                    sending = None;
                    self.tried(&alert, told);
                }
                Woken::Due => {}
                Woken::Over => return,
            }
        }
    }

    fn tried(&mut self, alert: &Alert, told: Result<(), (Outcome, String)>) {
        let host = self.webhook.as_ref().map_or("", |webhook| webhook.host());
        let outcome = match told {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(host, "alerts are delivered again");
                }
                Outcome::Delivered
            }
            Err((Outcome::Refused, why)) => {
                tracing::error!(host, why, "an alert was refused and is given up: correct `url` in [alerts]");
                Outcome::Refused
            }
            Err((outcome, why)) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(host, why, "an alert could not be delivered: it is tried again");
                }
                outcome
            }
        };
        self.delivery.done(outcome, Instant::now());
        if outcome != Outcome::Failed {
            self.notes.leave(Note::Alert { farm: alert.farm, since: alert.told() });
        }
    }

    fn show(&self) {
        let counts = self.delivery.counts();
        self.tally.alerts_sent.set(counts.sent);
        self.tally.alerts_failed.set(counts.failed);
        self.tally.alerts_dropped.set(counts.dropped);
    }
}
