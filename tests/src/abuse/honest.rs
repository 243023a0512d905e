//! Honest farms and phones beside the hostile traffic: each says its heartbeats,
//! phones signal their farms, and how long that takes is all that counts.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use farm_protocol::broker::{Access, Address, FromBroker, Signal, ToBroker, Watch};
use futures_util::future::join_all;
use smol::Timer;

use crate::bench::sample::Sample;
use crate::device::{Device, DeviceError, Link, Target, loopback};

/// Pairs of a farm and its phone.
pub(super) const PAIRS: u64 = 8;

/// Between two messages of one device: a hundred times what real ones send, and
/// a fifth of what they may.
const EVERY: Duration = Duration::from_millis(100);

/// The second byte of their addresses.
const NET: u8 = 1;

/// What they noticed.
#[derive(Default)]
struct Notes {
    heartbeats: Vec<(Instant, Duration)>,
    signals: Vec<(Instant, Duration)>,
    /// Connections that ended, with why.
    lost: Vec<String>,
    /// Signals of strangers that reached a farm.
    strangers: u64,
    ended: bool,
}

/// The honest devices, running on a thread of their own.
pub(super) struct Honest {
    notes: Arc<Mutex<Notes>>,
    thread: Option<JoinHandle<()>>,
    /// The first farm, for attackers to look for.
    pub(super) first: farm_protocol::id::FarmId,
}

/// What was noticed in a span of time.
pub(super) struct Noticed {
    pub(super) heartbeats: Sample,
    pub(super) signals: Sample,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Honest {
    /// Lets them in, each farm with its token, and keeps them talking.
    pub(super) fn start(target: Target, tokens: Vec<String>) -> std::io::Result<Self> {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let (shared, epoch) = (notes.clone(), Instant::now());
        let thread = std::thread::Builder::new().name("honest".to_owned()).spawn(move || {
            let devices = tokens.into_iter().enumerate().flat_map(|(n, token)| {
                let at = |role, token| Place {
                    role,
                    number: n as u64,
                    from: loopback(NET, (n * 2 + usize::from(token_is_none(&token))) as u32),
                    token,
                    epoch,
                };
                [at(Role::Farm, Some(token)), at(Role::Phone, None)]
            });
            let all = devices.map(|place| place.live(&target, &shared)).collect::<Vec<_>>();
            let ended = async {
                while !lock(&shared).ended {
                    Timer::after(EVERY).await;
                }
            };
            smol::block_on(smol::future::or(ended, async {
                join_all(all).await;
            }));
        })?;
        Ok(Self { notes, thread: Some(thread), first: Device::farm(0).farm_id() })
    }

    /// What was noticed between two moments.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Noticed {
        let notes = lock(&self.notes);
        let sample = |list: &[(Instant, Duration)]| {
            let mut sample = Sample::default();
            list.iter()
                .filter(|(at, _)| (from..to).contains(at))
                .for_each(|(_, took)| sample.push_time(*took));
            sample
        };
        Noticed { heartbeats: sample(&notes.heartbeats), signals: sample(&notes.signals) }
    }

    /// Connections lost so far, the last reason, and signals of strangers.
    pub(super) fn harm(&self) -> (usize, Option<String>, u64) {
        let notes = lock(&self.notes);
        (notes.lost.len(), notes.lost.last().cloned(), notes.strangers)
    }

    /// How many signals came so far: all pairs talk when it grows by theirs.
    pub(super) fn signals(&self) -> usize {
        lock(&self.notes).signals.len()
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        lock(&self.notes).ended = true;
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn token_is_none(token: &Option<String>) -> bool {
    token.is_none()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Farm,
    Phone,
}

/// One device.
struct Place {
    role: Role,
    number: u64,
    from: Ipv4Addr,
    token: Option<String>,
    /// Times in signals count from here.
    epoch: Instant,
}

impl Place {
    async fn live(self, target: &Target, notes: &Mutex<Notes>) {
        loop {
            let Err(error) = self.talk(target, notes).await;
            lock(notes).lost.push(format!("{} {}: {error}", self.name(), self.number));
            Timer::after(EVERY).await;
        }
    }

    fn name(&self) -> &'static str {
        match self.role {
            Role::Farm => "farm",
            Role::Phone => "phone",
        }
    }

    /// Until it is thrown out, which must not happen.
    async fn talk(
        &self,
        target: &Target,
        notes: &Mutex<Notes>,
    ) -> Result<std::convert::Infallible, DeviceError> {
        let (farm, phone) = (Device::farm(self.number), Device::phone(self.number));
        let mut link = Link::connect(target, self.from).await?;
        let (me, word) = match self.role {
            Role::Farm => {
                (&farm, ToBroker::Access(Access { phones: vec![phone.phone_id()], ..Access::default() }))
            }
            Role::Phone => (&phone, ToBroker::Watch(Watch { farms: vec![farm.farm_id()] })),
        };
        link.enter(me, self.token.as_deref()).await?;
        link.send(&word).await?;
        let mut asked = Vec::new();
        let mut due = Instant::now() + EVERY.mul_f64(self.number as f64 / PAIRS as f64);
        loop {
            let event = smol::future::or(async { Some(link.listen().await) }, async {
                Timer::at(due).await;
                None
            });
            match event.await {
                None => {
                    // What comes late is late: the next is due when it would have been.
                    due += EVERY;
                    asked.push(Instant::now());
                    link.send(&me.heartbeat(asked.len() as u32 - 1)).await?;
                    if self.role == Role::Phone {
                        let micros = self.epoch.elapsed().as_micros() as u64;
                        let payload = micros.to_be_bytes().to_vec();
                        let peer = Address::Farm(farm.farm_id());
                        link.send(&ToBroker::Signal(Signal { peer, payload })).await?;
                    }
                }
                Some(told) => {
                    let now = Instant::now();
                    match told? {
                        FromBroker::HeartbeatAnswer(answer) => {
                            if let Some(sent) = asked.get(answer.sequence as usize) {
                                lock(notes).heartbeats.push((*sent, now - *sent));
                            }
                        }
                        FromBroker::Signal(signal) => self.heard(&signal, &phone, now, notes),
                        FromBroker::Undelivered(_) | FromBroker::Presence(_) => {}
                        other => return Err(DeviceError::Unexpected(format!("{other:?}"))),
                    }
                }
            }
        }
    }

    fn heard(&self, signal: &Signal, phone: &Device, now: Instant, notes: &Mutex<Notes>) {
        let mut notes = lock(notes);
        let sent = <[u8; 8]>::try_from(&signal.payload[..]).map(u64::from_be_bytes);
        match sent {
            Ok(micros) if signal.peer == Address::Phone(phone.session()) => {
                let sent = self.epoch + Duration::from_micros(micros);
                notes.signals.push((sent, now.saturating_duration_since(sent)));
            }
            _ => notes.strangers += 1,
        }
    }
}
