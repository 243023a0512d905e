//! Farms and phones at the brokers, by the programs' own link: each has the list
//! of brokers, each phone watches one farm and says something to it ten times a
//! second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farm_protocol::broker::{Access, Address, FromBroker, Role, Signal, ToBroker, Watch};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, PhoneId, Slot};
use farm_protocol::keys::DeviceKey;
use farm_tunnel::broker_socket::{BrokerEvent, BrokerSocket, Brokers, Dialer, Identity, Trust};
use farm_tunnel::link::State;
use farm_tunnel::progress::Beat;
use smol::{Task, Timer};

use crate::harness::HarnessError;

/// Between two signals of one phone.
const SIGNAL_EVERY: Duration = Duration::from_millis(100);

/// A device's link, and how it stands.
pub(super) struct Member {
    dialer: Dialer,
    /// The first of its brokers.
    home: String,
    socket: BrokerSocket,
    up: Arc<AtomicBool>,
    /// When it was lost last.
    lost: Arc<Mutex<Option<Instant>>>,
    /// The longest time without one since the last look.
    longest: Arc<Mutex<Duration>>,
    _task: Task<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key for the device of this number.
pub(super) fn key(role: Role, number: u64) -> Result<Arc<DeviceKey>, HarnessError> {
    let mut seed = [if role == Role::Farm { 0xfb } else { 0x1f }; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let key = DeviceKey::from_seed(seed).map_err(|e| failed(&e))?;
    Ok(Arc::new(key))
}

pub(super) fn failed(why: &dyn std::fmt::Display) -> HarnessError {
    HarnessError::Io { doing: "making a device".to_owned(), source: std::io::Error::other(why.to_string()) }
}

impl Member {
    /// Begins to connect to the first of these brokers that lets it in.
    pub(super) fn start(
        role: Role,
        key: Arc<DeviceKey>,
        brokers: &str,
        token: Option<String>,
        mut heard: impl FnMut(&BrokerSocket, Option<FromBroker>) + Send + 'static,
    ) -> Result<Self, HarnessError> {
        let brokers: Brokers = brokers.parse().map_err(|e| failed(&e))?;
        let home = brokers.first().to_string();
        let trust = Trust::public().map_err(|e| failed(&e))?;
        let dialer = Dialer::new(brokers, trust, None);
        let seed = u64::from(key.public().as_bytes()[0]);
        let identity = Identity {
            key,
            role,
            slot: Slot::default(),
            boot: BootId::from_bytes([1; 16]),
            name: None,
            enrollment_token: token,
        };
        let (socket, events) =
            BrokerSocket::start(dialer.clone(), identity, Epoch::of_start(1), seed, Beat::unwatched());
        let (up, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None::<Instant>)));
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let (seen, gone, gap, link) = (up.clone(), lost.clone(), longest.clone(), socket.clone());
        let task = smol::spawn(async move {
            while let Ok(event) = events.recv().await {
                match event {
                    BrokerEvent::Online(_) => {
                        if let Some(since) = lock(&gone).take() {
                            let mut longest = lock(&gap);
                            *longest = (*longest).max(since.elapsed());
                        }
                        seen.store(true, Ordering::SeqCst);
                        heard(&link, None);
                    }
                    BrokerEvent::State(State::Online) => {}
                    BrokerEvent::State(_) => {
                        if seen.swap(false, Ordering::SeqCst) {
                            *lock(&gone) = Some(Instant::now());
                        }
                    }
                    BrokerEvent::Message(message) => heard(&link, Some(message)),
                    BrokerEvent::StaleEpoch(_) | BrokerEvent::Superseded => {}
                }
            }
        });
        Ok(Self { dialer, home, socket, up, lost, longest, _task: task })
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// The broker that it is at, or tries.
    pub(super) fn broker(&self) -> String {
        self.dialer.broker().to_string()
    }

    /// Leaves its broker for the next, unless it is at the first of its list.
    fn go_on_towards_home(&self) -> bool {
        let home = self.home == self.broker();
        if !home {
            self.socket.break_for(Duration::ZERO);
        }
        home
    }

    /// The longest time without a broker since the last look.
    pub(super) fn longest_gap(&self) -> Duration {
        let now = lock(&self.lost).map_or(Duration::ZERO, |since| since.elapsed());
        std::mem::take(&mut *lock(&self.longest)).max(now)
    }
}

/// A farm and a phone that watches it.
pub(super) struct Pair {
    pub(super) farm: Member,
    pub(super) phone: Member,
    view: Arc<View>,
    _signals: Task<()>,
}

/// What the two know of each other.
#[derive(Default)]
struct View {
    farm_is_shown: AtomicBool,
    /// Nanoseconds since the crew began, of the newest signal that came.
    delivered: AtomicU64,
    undelivered: AtomicU64,
}

/// All pairs, and how long their signals took.
pub(super) struct Crew {
    pub(super) pairs: Vec<Pair>,
    began: Instant,
    latencies: Arc<Mutex<Latencies>>,
}

/// Of signals between devices at one broker, and at two.
#[derive(Default)]
pub(super) struct Latencies {
    pub(super) same: Vec<Duration>,
    pub(super) across: Vec<Duration>,
}

/// The list of brokers, beginning at another one.
pub(super) fn from(urls: &[String], first: usize) -> String {
    let mut urls = urls.to_vec();
    let by = first % urls.len();
    urls.rotate_left(by);
    urls.join(",")
}

impl Crew {
    /// So many pairs, spread over the brokers in all combinations.
    pub(super) fn start(urls: &[String], tokens: Vec<String>) -> Result<Self, HarnessError> {
        let (began, latencies) = (Instant::now(), Arc::new(Mutex::new(Latencies::default())));
        let mut pairs = Vec::with_capacity(tokens.len());
        for (number, token) in tokens.into_iter().enumerate() {
            pairs.push(pair(urls, number, token, began, &latencies)?);
        }
        Ok(Self { pairs, began, latencies })
    }

    /// What is not as it should be with every device at a broker, but none at
    /// `dead`, every farm shown as there, and every phone heard since then.
    pub(super) fn wrong(&self, dead: Option<&str>, since: Instant) -> Option<String> {
        let since = u64::try_from(since.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        self.pairs.iter().enumerate().find_map(|(number, pair)| {
            for (who, member) in [("farm", &pair.farm), ("phone", &pair.phone)] {
                if !member.is_up() || dead == Some(member.broker().as_str()) {
                    return Some(format!("{who} {number} is not at a broker"));
                }
            }
            if !pair.view.farm_is_shown.load(Ordering::SeqCst) {
                return Some(format!("phone {number} is not shown its farm"));
            }
            (pair.view.delivered.load(Ordering::SeqCst) < since)
                .then(|| format!("phone {number} does not reach its farm"))
        })
    }

    /// Has every device leave its broker for the next, unless it is at its
    /// first. Whether all are.
    pub(super) fn go_on_towards_home(&self) -> bool {
        let members = self.pairs.iter().flat_map(|pair| [&pair.farm, &pair.phone]);
        members.filter(|member| !member.go_on_towards_home()).count() == 0
    }

    /// Signals that were returned to their phones.
    pub(super) fn undelivered(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.view.undelivered.load(Ordering::Relaxed)).sum()
    }

    /// The longest time that any device was without a broker, since the last look.
    pub(super) fn longest_gap(&self) -> Duration {
        let gaps = self.pairs.iter().flat_map(|pair| [pair.farm.longest_gap(), pair.phone.longest_gap()]);
        gaps.max().unwrap_or_default()
    }

    /// What was measured since the last look.
    pub(super) fn latencies(&self) -> Latencies {
        std::mem::take(&mut *lock(&self.latencies))
    }
}

fn pair(
    urls: &[String],
    number: usize,
    token: String,
    began: Instant,
    latencies: &Arc<Mutex<Latencies>>,
) -> Result<Pair, HarnessError> {
    let (farm_key, phone_key) = (key(Role::Farm, number as u64)?, key(Role::Phone, number as u64)?);
    let farm_id = FarmId::of(&farm_key.public());
    let phone_id = PhoneId::of(&phone_key.public());
    let view = Arc::new(View::default());

    let (seen, all) = (view.clone(), latencies.clone());
    let at = Arc::new(Mutex::new((String::new(), String::new())));
    let places = at.clone();
    let farm =
        Member::start(Role::Farm, farm_key, &from(urls, number), Some(token), move |link, message| {
            let Some(message) = message else {
                let access = Access { phones: vec![phone_id], ..Access::default() };
                link.send(ToBroker::Access(access));
                return;
            };
            if let FromBroker::Signal(Signal { payload, .. }) = message
                && let Ok(sent) = <[u8; 8]>::try_from(payload)
            {
                let sent = u64::from_be_bytes(sent);
                let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                seen.delivered.fetch_max(sent, Ordering::SeqCst);
                let took = Duration::from_nanos(now.saturating_sub(sent));
                let (farm_at, phone_at) = lock(&places).clone();
                let mut all = lock(&all);
                if farm_at == phone_at { all.same.push(took) } else { all.across.push(took) }
            }
        })?;
    let seen = view.clone();
    let phone = Member::start(
        Role::Phone,
        phone_key,
        &from(urls, number / urls.len()),
        None,
        move |link, message| match message {
            None => {
                link.send(ToBroker::Watch(Watch { farms: vec![farm_id] }));
            }
            Some(FromBroker::Presence(presence)) => {
                let online = presence.state.is_some_and(|state| state.online);
                seen.farm_is_shown.store(online, Ordering::SeqCst);
            }
            Some(FromBroker::Undelivered(_)) => {
                seen.undelivered.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
        },
    )?;
    let (socket, farm_dialer, phone_dialer) =
        (phone.socket.clone(), farm.dialer.clone(), phone.dialer.clone());
    let signals = smol::spawn(async move {
        loop {
            Timer::after(SIGNAL_EVERY).await;
            *lock(&at) = (farm_dialer.broker().to_string(), phone_dialer.broker().to_string());
            let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let signal = Signal { peer: Address::Farm(farm_id), payload: now.to_be_bytes().to_vec() };
            socket.send(ToBroker::Signal(signal));
        }
    });
    Ok(Pair { farm, phone, view, _signals: signals })
}
