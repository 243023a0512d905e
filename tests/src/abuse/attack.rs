//! The hostile side: one attack, in a process of its own that has one core,
//! against one broker, for a bounded time.

mod device;
mod flood;
mod guess;
mod http;
mod socket;
mod stun;
mod tls;
mod turn;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use farm_protocol::id::FarmId;
use serde::{Deserialize, Serialize};
use smol::{LocalExecutor, Timer};

use super::plan::ATTACKS;
use crate::device::{Target, loopback};
use crate::sim::rng::Rng;

/// The second byte of the addresses that attacks come from; honest devices
/// have others.
const HOSTILE_NET: u8 = 66;

/// An attack that is not done by then ends anyway.
const MOST_MORE: Duration = Duration::from_secs(10);

/// Between two looks whether the time is over.
const LOOK: Duration = Duration::from_millis(20);

/// What the hostile process is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Which attack, see [`super::plan`].
    pub attack: String,
    /// The broker.
    pub address: SocketAddr,
    /// Its certificate.
    pub certificate: PathBuf,
    /// How long.
    pub lasts: Duration,
    /// For what is random.
    pub seed: u64,
    /// A farm that does not know the attackers.
    pub farm: FarmId,
    /// Attackers with a farm of their own at this broker: its token.
    pub token: Option<String>,
}

/// What the hostile process has to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was sent, and how often.
    pub sent: BTreeMap<String, u64>,
    /// What came of it; what must not come is [`Report::breach`].
    pub saw: BTreeMap<String, f64>,
    /// What must never happen and did.
    pub breach: Option<String>,
}

/// An attack under way. Everything runs on one thread.
struct Field {
    orders: Orders,
    target: Target,
    until: Instant,
    rng: RefCell<Rng>,
    next: Cell<u32>,
    done: Cell<u64>,
    at_least: Cell<u64>,
    report: RefCell<Report>,
}

impl Field {
    /// Whether it is time to end: not before what the attack is about was
    /// done, on a slow machine either.
    fn over(&self) -> bool {
        let now = Instant::now();
        now >= self.until && self.done.get() >= self.at_least.get() || now >= self.until + MOST_MORE
    }

    /// So many have to be sent whatever time that takes, within reason.
    fn at_least(&self, count: u64) {
        self.at_least.set(count);
    }

    fn sent(&self, what: &str, count: u64) {
        self.done.set(self.done.get() + count);
        *self.report.borrow_mut().sent.entry(what.to_owned()).or_default() += count;
    }

    fn saw(&self, what: &str, value: f64) {
        self.report.borrow_mut().saw.insert(what.to_owned(), value);
    }

    fn count(&self, what: &str) {
        *self.report.borrow_mut().saw.entry(what.to_owned()).or_default() += 1.0;
    }

    fn breach(&self, what: impl Into<String>) {
        self.report.borrow_mut().breach.get_or_insert(what.into());
    }

    fn draw(&self) -> u64 {
        self.rng.borrow_mut().draw()
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    fn bytes(&self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect()
    }

    /// A number that no other attacker of this run has.
    fn number(&self) -> u32 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// Which of the attacks this is.
    fn attack(&self) -> usize {
        ATTACKS.iter().position(|attack| attack.name == self.orders.attack).unwrap_or_default()
    }

    /// One and the same address for every second attacker, one of so many for
    /// the others: limits per address are met, and those for all as well.
    fn crowded(&self, of: u32) -> Ipv4Addr {
        let number = self.number();
        // Another one for each attack: what one has used up the next must not meet.
        let one = 60_000 + self.attack() as u32;
        loopback(HOSTILE_NET, if number.is_multiple_of(2) { one } else { number / 2 % of })
    }

    /// One of so many addresses.
    fn address(&self, of: u32) -> Ipv4Addr {
        loopback(HOSTILE_NET, self.number() % of)
    }
}

/// Does something again and again, by so many attackers at once, until the time
/// is over. What an attacker has in hand then is dropped.
async fn crowd(field: &Rc<Field>, attackers: u32, mut once: impl AsyncFnMut(Rc<Field>) + Clone + 'static) {
    let executor = Rc::new(LocalExecutor::new());
    for _ in 0..attackers {
        let (field, mut once) = (field.clone(), once.clone());
        executor
            .spawn(async move {
                while !field.over() {
                    once(field.clone()).await;
                    // One that fails at once must not keep the others from their turn.
                    smol::future::yield_now().await;
                }
            })
            .detach();
    }
    // Keeps the closure's type from being needed after the loop.
    let _ = &mut once;
    smol::future::or(executor.run(std::future::pending::<()>()), async {
        while !field.over() {
            Timer::after(LOOK).await;
        }
    })
    .await;
}

/// Waits for a while, or until the time is over.
async fn rest(field: &Field, duration: Duration) {
    let end = Instant::now() + duration;
    while !field.over() && Instant::now() < end {
        Timer::at(end.min(Instant::now() + LOOK)).await;
    }
}

/// Runs one attack to its end.
///
/// # Errors
/// When it can't begin; that the broker fends it off is none.
pub fn run(orders: Orders) -> std::io::Result<Report> {
    super::cores::take_the_one_left()?;
    let target = Target::new(orders.address, &orders.certificate)?;
    let field = Rc::new(Field {
        until: Instant::now() + orders.lasts,
        rng: RefCell::new(Rng::new(orders.seed)),
        target,
        orders,
        next: Cell::new(0),
        done: Cell::new(0),
        at_least: Cell::new(0),
        report: RefCell::default(),
    });
    let name = field.orders.attack.clone();
    smol::block_on(async {
        match name.as_str() {
            "tls-garbage" => tls::garbage(&field).await,
            "tls-half-open" => tls::half_open(&field).await,
            "tls-handshakes" => tls::handshakes(&field).await,
            "http-heads" => http::heads(&field).await,
            "websocket-heads" => http::websocket_heads(&field).await,
            "slow-loris" => http::slow(&field).await,
            "requests" => http::requests(&field).await,
            "origins" => http::origins(&field).await,
            "frames" => socket::frames(&field).await,
            "states" => socket::states(&field).await,
            "vanishing" => socket::vanishing(&field).await,
            "never-reading" => device::never_reading(&field).await,
            "flapping" => device::flapping(&field).await,
            "flood-heartbeats" => flood::heartbeats(&field).await,
            "flood-signals" => flood::signals(&field).await,
            "flood-watches" => flood::watches(&field).await,
            "flood-access" => flood::access(&field).await,
            "flood-pings" => flood::pings(&field).await,
            "pairing-guesses" => guess::pairing(&field).await,
            "token-guesses" => guess::tokens(&field).await,
            "enumeration" => guess::enumeration(&field).await,
            "stun-flood" => stun::flood(&field),
            "turn-floods" => turn::floods(&field).await,
            "turn-credentials" => turn::wrong_credentials(&field).await,
            "turn-peers-inside" => turn::peers_inside(&field).await,
            "turn-unbound" => turn::unbound(&field).await,
            "turn-reflection" => turn::reflection(&field),
            other => return Err(std::io::Error::other(format!("there is no attack {other:?}"))),
        }
        Ok(())
    })?;
    Ok(field.report.take())
}
