//! An honest farm and its phone that reach each other through the broker's
//! relay only: packets to and fro all the time, and how long each takes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use farm_broker::core::relay::message::Method;
use farm_protocol::broker::{FromBroker, ToBroker};
use farm_protocol::relay::Relay;

use crate::bench::sample::Sample;
use crate::device::turn::Turn;
use crate::device::{Device, Link, Target, loopback};

/// Between two packets.
const EVERY: Duration = Duration::from_millis(20);

/// A packet that is not there by then is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Permissions and channels are asked for again well within their 5 and 10 min.
const RENEW_EVERY: Duration = Duration::from_secs(60);

const CHANNEL: u16 = 0x4000;

/// The number of the honest farm that is relayed.
const FARM: u64 = 7 << 40;

#[derive(Default)]
struct Notes {
    /// When each packet was sent, and how long it took.
    packets: Vec<(Instant, Option<Duration>)>,
    broken: Option<String>,
    ended: bool,
}

/// The two, on a thread of their own.
pub(super) struct Relayed {
    notes: Arc<Mutex<Notes>>,
    thread: Option<JoinHandle<()>>,
}

/// What they noticed in a span of time.
pub(super) struct Carried {
    pub(super) took: Sample,
    pub(super) sent: usize,
    pub(super) lost: usize,
    /// Why nothing goes any more.
    pub(super) broken: Option<String>,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relayed {
    /// Enrolls the farm by its token, and begins.
    pub(super) fn start(target: Target, token: String) -> std::io::Result<Self> {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let shared = notes.clone();
        let address = target.address;
        let relay = smol::block_on(credentials(&target, &token, FARM)).map_err(std::io::Error::other)?;
        let (mut one, mut other) = joined(address, &relay).map_err(std::io::Error::other)?;
        let thread = std::thread::Builder::new().name("relayed".to_owned()).spawn(move || {
            if let Err(error) = talk(&mut one, &mut other, &shared) {
                lock(&shared).broken = Some(error);
            }
        })?;
        Ok(Self { notes, thread: Some(thread) })
    }

    /// What was noticed between two moments.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Carried {
        let notes = lock(&self.notes);
        let mut carried = Carried { took: Sample::default(), sent: 0, lost: 0, broken: notes.broken.clone() };
        for (_, took) in notes.packets.iter().filter(|(at, _)| (from..to).contains(at)) {
            carried.sent += 1;
            match took {
                Some(took) => carried.took.push_time(*took),
                None => carried.lost += 1,
            }
        }
        carried
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        lock(&self.notes).ended = true;
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// What the broker gives a farm of this number, which is enrolled by the token.
pub(super) async fn credentials(target: &Target, token: &str, number: u64) -> Result<Relay, String> {
    let farm = Device::farm(number);
    let mut link = Link::connect(target, loopback(1, 200)).await.map_err(|error| error.to_string())?;
    let welcome = link.enter(&farm, Some(token)).await.map_err(|error| error.to_string())?;
    // It leaves in order: credentials outlive a connection.
    let _gone = link.send(&ToBroker::Goodbye).await;
    while let Ok(told) = link.listen().await {
        if matches!(told, FromBroker::Refused(_)) {
            break;
        }
    }
    welcome.relay.ok_or_else(|| "the broker told of no relay".to_owned())
}

/// Two allocations that let each other in.
fn joined(server: SocketAddr, relay: &Relay) -> Result<(Turn, Turn), String> {
    let client = |number| Turn::new(loopback(1, number), server, relay).map_err(|error| error.to_string());
    let (mut one, mut other) = (client(201)?, client(202)?);
    let wrong = |code: u16| format!("the relay answered {code}");
    let at_one = one.allocate().map_err(wrong)?;
    let at_other = other.allocate().map_err(wrong)?;
    one.bind(CHANNEL, at_other).map_err(wrong)?;
    other.bind(CHANNEL, at_one).map_err(wrong)?;
    one.socket().set_nonblocking(true).map_err(|error| error.to_string())?;
    Ok((one, other))
}

/// Packets from one to the other, each with its number.
fn talk(one: &mut Turn, other: &mut Turn, notes: &Mutex<Notes>) -> Result<(), String> {
    let mut due = Instant::now();
    let mut renew = due + RENEW_EVERY;
    let mut bytes = [0; 2048];
    loop {
        if lock(notes).ended {
            return Ok(());
        }
        let now = Instant::now();
        if now >= renew {
            renew = now + RENEW_EVERY;
            // Nobody waits for the answers: the next ones come in time.
            for client in [&mut *one, &mut *other] {
                let request = client.request(Method::Refresh, &|writer| writer);
                let _lost = client.socket().send(&request);
            }
        }
        if now >= due {
            due += EVERY;
            let number = {
                let mut notes = lock(notes);
                notes.packets.push((now, None));
                notes.packets.len() as u64 - 1
            };
            let mut data = [0x5a; 200];
            data[..8].copy_from_slice(&number.to_be_bytes());
            one.send(CHANNEL, &data);
        }
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        other.socket().set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        if let Ok(length) = other.socket().recv(&mut bytes) {
            let now = Instant::now();
            let is_channels = length >= 12 && bytes[..2] == CHANNEL.to_be_bytes();
            let number = <[u8; 8]>::try_from(&bytes[4..12]).ok().map(u64::from_be_bytes);
            let mut notes = lock(notes);
            let packet = number
                .filter(|_| is_channels)
                .and_then(|number| notes.packets.get_mut(usize::try_from(number).ok()?));
            if let Some((sent, took)) = packet
                && now - *sent < LOST_AFTER
            {
                *took = Some(now - *sent);
            }
        }
        // What the relay answers to the one that sends.
        while one.socket().recv(&mut bytes).is_ok() {}
    }
}
