//! The runtime each connection's driver runs on: smol, plus what the driver leaves undone.
//!
//! `webrtc` drives a connection in one task that loops: write what the protocol core has queued,
//! hand out its events and messages, then block in a `select!` on sockets, commands and a timer.
//! What the events and messages *themselves* queue (the SCTP INIT after DTLS, a reply to a
//! request) waits for the next turn of the loop, which comes with the next packet or timer: two
//! pauses of 200 ms at every connect. The driver asks its runtime for exactly one `sleep` per
//! turn, just before it blocks, so [`DriverRuntime`] makes the first sleep after every real
//! wake-up end as soon as the tasks it woke have run: one more turn, and everything queued, theirs
//! included, is on the wire.
//!
//! This leans on the driver's structure, which is why the crate is pinned and a test insists on
//! an open within 100 ms.

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use nix::sys::socket::{setsockopt, sockopt};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, SmolRuntime,
};

use super::{
    Channel,
    redundancy::Pace,
    relay::Relay,
    repeater::{KnownLoss, Repeater},
};
use crate::executor;

/// Who may wait for a turn: a sender on each channel, and the keeper.
const WAITERS: usize = Channel::ALL.len() + 1;

/// Turns granted after each real wake-up while no packet goes through a relay.
pub(super) const DIRECT_TURNS: u8 = 1;

/// The keeper's place in [`DriverRuntime::after_turn`].
pub(super) const KEEPER: usize = WAITERS - 1;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes asked for in each direction of a UDP socket. The default of 208 KiB holds about 90
/// packets (the kernel counts 2.3 KiB for each), a full send window of 768 KiB is 680, and a lost
/// tail costs a retransmission timer of 1 s.
pub(super) const SOCKET_BUFFER: usize = 2 << 20;

/// Timer wake-ups in a row, with nothing sent or received between, after which a quiet
/// connection counts as still. The driver wakes every 200 ms, so this is 0.6 s: longer than the
/// 200 ms for which an acknowledgement may be held back. What the peer has not acknowledged by
/// then is sent again at the next long sleep's end.
const STILL_AFTER: u32 = 3;

/// How long a still, unwatched connection sleeps. The ICE agent asks to be woken every 200 ms for
/// ever, whatever its timers; the budget of an idle agent is 2 wake-ups a second, of all threads
/// together. An unwatched connection has no streams, and only rare messages to send again.
const STILL_SLEEP: Duration = Duration::from_secs(5);

thread_local! {
    /// Whether this thread is polling a driver at this moment, as opposed to an application task
    /// that also sleeps through the runtime (a sender waiting for room, `close()`).
    static IN_DRIVER: Cell<bool> = const { Cell::new(false) };
}

/// One connection's runtime.
pub(super) struct DriverRuntime {
    turns: Arc<Turns>,
    repeater: Repeater,
    relay: Option<Relay>,
}

/// What a driver's sleeps have to remember between two turns of its loop.
struct Turns {
    /// Turns granted after each real wake-up: more once the relay is used.
    extra: Arc<AtomicU8>,
    /// How many of the wake-ups just before now were granted ones.
    granted: AtomicU8,
    /// Whether the last real wake-up was the timer.
    timer: AtomicBool,
    /// Real wake-ups in a row that were the timer.
    still: AtomicU32,
    /// Whether the channels are open: connectivity checks need every timer on time.
    open: AtomicBool,
    /// Whether somebody is looking: then retransmissions need theirs too.
    watched: AtomicBool,
    /// Turns taken so far, to notice one that comes between looking and waiting.
    taken: AtomicU64,
    /// Those waiting for the next turn.
    waiting: [AtomicWaker; WAITERS],
}

impl DriverRuntime {
    /// A runtime for one connection, and how many turns its relay wants (see
    /// [`super::relay::RELAYED_TURNS`]).
    pub(super) fn new(relay: Option<Relay>, known_loss: KnownLoss, extra: Arc<AtomicU8>) -> Self {
        Self {
            repeater: Repeater::new(known_loss),
            relay,
            turns: Arc::new(Turns {
                extra,
                granted: AtomicU8::new(0),
                timer: AtomicBool::new(false),
                still: AtomicU32::new(0),
                open: AtomicBool::new(false),
                watched: AtomicBool::new(true),
                taken: AtomicU64::new(0),
                waiting: Default::default(),
            }),
        }
    }

    /// The channels are open. From now on the driver may sleep long while nothing is sent or
    /// received and nobody is looking.
    pub(super) fn set_open(&self) {
        self.turns.open.store(true, Relaxed);
        self.repeater.opened();
    }

    /// Whether somebody is looking; at first somebody is.
    pub(super) fn set_watched(&self, watched: bool) {
        self.turns.watched.store(watched, Relaxed);
    }

    /// A number that changes with every turn of the driver, in which it may have processed
    /// acknowledgements.
    pub(super) fn turn(&self) -> u64 {
        self.turns.taken.load(Acquire)
    }

    /// Waits until [`turn`](Self::turn) is another than `seen`. One waiter for each
    /// channel's number, and [`KEEPER`].
    pub(super) async fn after_turn(&self, seen: u64, waiter: usize) {
        poll_fn(|cx| {
            self.turns.waiting[waiter].register(cx.waker());
            if self.turn() == seen { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Both descriptions are known: a direct path has this long before the relay is asked.
    pub(super) fn described(&self, patience: Duration) {
        self.relay.iter().for_each(|relay| relay.described(patience));
    }

    /// When a message of the data channel may be sent.
    pub(super) fn pace(&self, outstanding: usize, bytes: usize) -> Pace {
        self.repeater.pace(outstanding, bytes)
    }

    /// Makes senders look again, as after a turn: the connection has ended.
    pub(super) fn wake_senders(&self) {
        self.turns.wake_senders();
    }
}

impl fmt::Debug for DriverRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverRuntime").finish_non_exhaustive()
    }
}

/// Marks the driver's polls in [`IN_DRIVER`].
struct Driver(BoxFuture<'static, ()>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        /// Restores the mark also when the poll panics.
        struct Restore(bool);
        impl Drop for Restore {
            fn drop(&mut self) {
                IN_DRIVER.set(self.0);
            }
        }
        let _restore = Restore(IN_DRIVER.replace(true));
        self.0.as_mut().poll(cx)
    }
}

/// A driver's task. The engine wants one whose handle may be dropped while it goes on.
struct DriverTask(Mutex<Option<smol::Task<()>>>);

impl DriverTask {
    fn task(&self) -> MutexGuard<'_, Option<smol::Task<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JoinHandle for DriverTask {
    fn detach(&self) {
        if let Some(task) = self.task().take() {
            task.detach();
        }
    }

    fn abort(&self) {
        drop(self.task().take());
    }

    fn is_finished(&self) -> bool {
        self.task().as_ref().is_none_or(smol::Task::is_finished)
    }
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A sleep that ends as soon as every task that is ready has had its turn: the extra turn.
struct ExtraTurn {
    turns: Arc<Turns>,
    granted: u8,
    yielded: bool,
}

impl Future for ExtraTurn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.yielded {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Only now: had a packet ended the select first, that would be a real wake-up.
        self.turns.granted.store(self.granted, Relaxed);
        Poll::Ready(())
    }
}

impl Turns {
    fn wake_senders(&self) {
        self.taken.fetch_add(1, AcqRel);
        for sender in &self.waiting {
            sender.wake();
        }
    }

    fn sleep(self: &Arc<Self>, asked: Duration) -> BoxFuture<'static, ()> {
        self.wake_senders();
        let granted = self.granted.swap(0, Relaxed);
        if granted == 0 {
            let still = match self.timer.swap(false, Relaxed) {
                true => self.still.load(Relaxed).saturating_add(1),
                false => 0,
            };
            self.still.store(still, Relaxed);
        }
        if granted < self.extra.load(Relaxed) {
            return Box::pin(ExtraTurn { turns: Arc::clone(self), granted: granted + 1, yielded: false });
        }
        let quiet = self.open.load(Relaxed) && !self.watched.load(Relaxed);
        let long = quiet && self.still.load(Relaxed) >= STILL_AFTER;
        let duration = if long { asked.max(STILL_SLEEP) } else { asked };
        let turns = Arc::clone(self);
        Box::pin(async move {
            smol::Timer::after(duration).await;
            turns.timer.store(true, Relaxed);
        })
    }
}

/// Enlarges the socket's buffers as far as the system lets us: beyond `net.core.rmem_max` only
/// with CAP_NET_ADMIN. A smaller buffer costs throughput, never correctness.
fn enlarge_buffers(socket: &std::net::UdpSocket) {
    let forced = setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
        .and_then(|()| setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER));
    if forced.is_err() {
        let asked = setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER)
            .and_then(|()| setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER));
        if let Err(error) = asked {
            tracing::debug!(%error, "socket buffers stay at the system's default");
        }
    }
}

/// Reads `host:port` where `host` is an address. The TURN client writes IPv6 hosts without
/// brackets, so the port is whatever follows the last colon.
fn parse_address(host: &str) -> Option<SocketAddr> {
    let (address, port) = host.rsplit_once(':')?;
    let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(SocketAddr::new(address, port.parse().ok()?))
}

impl Runtime for DriverRuntime {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        Box::new(DriverTask(Mutex::new(Some(executor::spawn(Driver(future))))))
    }

    fn spawn_reactor(&self, _size: usize, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        self.spawn(future)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if IN_DRIVER.get() { self.turns.sleep(duration) } else { SmolRuntime.sleep(duration) }
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        enlarge_buffers(&socket);
        let socket = self.repeater.wrap(SmolRuntime.wrap_udp_socket(socket)?);
        Ok(match &self.relay {
            Some(relay) => relay.wrap(socket),
            None => socket,
        })
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        SmolRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, address: SocketAddr) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        SmolRuntime.connect_tcp(address)
    }

    /// Names are resolved before the connection is built (see `resolve`): the driver would stand
    /// still, timers and all, for as long as the name server is silent.
    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            parse_address(host)
                .map(|address| vec![address])
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "names are resolved beforehand"))
        })
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        SmolRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        smol::future::block_on(future);
    }

    fn name(&self) -> &'static str {
        "smol, one more turn"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// Polls one sleep as the driver would; true when it ends after it let others have their turn.
    fn at_once(runtime: &DriverRuntime, duration: Duration) -> bool {
        let mut sleep = Driver(runtime.sleep_in_driver(duration));
        let mut poll = || (&mut sleep).now_or_never().is_some();
        poll() || poll()
    }

    impl DriverRuntime {
        /// One without a relay.
        pub(in super::super) fn plain() -> Self {
            Self::new(None, KnownLoss::default(), Arc::new(AtomicU8::new(DIRECT_TURNS)))
        }

        fn sleep_in_driver(&self, duration: Duration) -> BoxFuture<'static, ()> {
            self.turns.sleep(duration)
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn every_real_wake_up_is_followed_by_the_granted_turns() {
        for expected in [1, 2] {
            let runtime = DriverRuntime::new(None, KnownLoss::default(), Arc::new(AtomicU8::new(expected)));
            for _ in 0..3 {
                for _ in 0..expected {
                    assert!(at_once(&runtime, LONG), "a turn is granted");
                }
                // The real sleep, ended early by a packet: dropped unfinished.
                assert!(!at_once(&runtime, LONG), "then the driver sleeps");
            }
        }
    }

    #[test]
    fn an_extra_turn_that_was_not_taken_is_granted_again() {
        let runtime = DriverRuntime::plain();
        // A packet was ready in the same select, so that the sleep was not polled, or only once.
        drop(runtime.sleep_in_driver(LONG));
        assert_eq!(runtime.sleep_in_driver(LONG).now_or_never(), None);
        assert!(at_once(&runtime, LONG));
    }

    #[test]
    fn only_a_still_connection_that_nobody_watches_sleeps_longer() {
        let short = Duration::ZERO;
        let turn = |runtime: &DriverRuntime| {
            assert!(at_once(runtime, short));
            smol::block_on(smol::future::or(
                runtime.sleep_in_driver(short).map(|()| true),
                smol::Timer::after(Duration::from_millis(300)).map(|_| false),
            ))
        };
        let runtime = DriverRuntime::plain();
        runtime.set_open();
        runtime.set_watched(false);
        for _ in 0..STILL_AFTER {
            assert!(turn(&runtime), "not still yet: sleeps as asked");
        }
        assert!(!turn(&runtime), "still: sleeps longer than asked");
        // That sleep was cut short, as by a packet.
        assert!(turn(&runtime), "a packet makes it lively again");

        runtime.set_watched(true);
        for _ in 0..=STILL_AFTER {
            assert!(turn(&runtime), "a watched connection sleeps as asked");
        }
    }

    #[test]
    fn addresses_are_read_with_and_without_brackets() {
        for (text, expected) in [
            ("192.0.2.1:3478", Some("192.0.2.1:3478")),
            ("[2001:db8::1]:3478", Some("[2001:db8::1]:3478")),
            ("2001:db8::1:3478", Some("[2001:db8::1]:3478")),
            ("broker.example.org:3478", None),
            ("192.0.2.1", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse_address(text), expected, "{text}");
        }
    }
}
