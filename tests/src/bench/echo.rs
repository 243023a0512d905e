//! Round trips of a keystroke's size through the phone's program, the tunnel,
//! the agent and a service: alone, beside a stream that takes all it can get,
//! and beside one whose reader has stopped.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::part::{Part, Repeat};
use super::sample::Sample;
use super::scale::Scale;
use super::service::{BULK, ECHO, Service};
use super::table::Row;
use super::trouble::Trouble;
use super::world::{World, end};
use crate::harness::until;

/// Bytes of one echo.
const BYTES: usize = 64;
/// For one echo, and for a stream to begin or to come to rest.
const WITHIN: Duration = Duration::from_secs(15);
/// Bytes without which a stream is not busy yet.
const BUSY: u64 = 4_000_000;
/// A stream on which nothing was sent for so long stands still: all buffers on
/// the way are full.
const STILL: Duration = Duration::from_millis(500);

pub(super) fn measure(world: &World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let echo = |name, address| {
        let mut runs = Repeat::new(scale.echoes, scale.share / 4);
        let row = Row::times(name, &echoes(address, &mut runs)?, ("p99", 0.99));
        Ok::<_, Trouble>(row.remark(runs.remark("echoes")))
    };
    let or_reason = |name, row: Result<Row, Trouble>| {
        row.unwrap_or_else(|error: Trouble| Row::missing(name, &error.to_string()))
    };
    part.push(echo("plain TCP", world.service.address())?);
    let forward = world.to_service()?;
    part.push(echo("tunnel, otherwise idle", forward.address)?);

    let name = "tunnel, beside a bulk stream";
    let row = Bulk::start(forward.address).and_then(|bulk| {
        let row = echo(name, forward.address);
        // Ended in any case: the next row must not be measured beside it.
        let rate = bulk.finish()?;
        Ok(row?.remark(Some(format!("the bulk stream had {rate:.0} MB/s meanwhile"))))
    });
    part.push(or_reason(name, row));

    let name = "tunnel, beside a stalled stream";
    let row = stall(forward.address, &world.service).and_then(|_stalled| echo(name, forward.address));
    part.push(or_reason(name, row));
    end(&forward)
}

fn connect(address: SocketAddr, kind: u8) -> Result<TcpStream, Trouble> {
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        stream.write_all(&[kind])?;
        Ok(stream)
    };
    connect().map_err(Trouble::io("connecting to the round-trip service"))
}

fn echoes(address: SocketAddr, runs: &mut Repeat) -> Result<Sample, Trouble> {
    let mut stream = connect(address, ECHO)?;
    let (mut times, mut turn) = (Sample::default(), 0_u8);
    let mut once = |times: Option<&mut Sample>| {
        turn = turn.wrapping_add(1);
        let (asked, mut answer) = ([turn; BYTES], [0; BYTES]);
        let start = Instant::now();
        let result = stream.write_all(&asked).and_then(|()| stream.read_exact(&mut answer));
        result.map_err(Trouble::io("waiting for an echo"))?;
        if answer != asked {
            return Err(Trouble::Wrong("an echo came back changed".to_owned()));
        }
        times.into_iter().for_each(|times| times.push_time(start.elapsed()));
        Ok(())
    };
    // The first waits for the tunnel and the service's connection.
    once(None)?;
    while runs.next() {
        once(Some(&mut times))?;
    }
    Ok(times)
}

/// A stream that is read as fast as it comes.
struct Bulk {
    done: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    start: Instant,
    before: u64,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Bulk {
    fn start(address: SocketAddr) -> Result<Self, Trouble> {
        let mut stream = connect(address, BULK)?;
        let (done, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&done), Arc::clone(&received));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while !stop.load(Ordering::Relaxed) {
                match stream.read(&mut buffer)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    read => count.fetch_add(read as u64, Ordering::Relaxed),
                };
            }
            Ok(())
        });
        let flows = || (received.load(Ordering::Relaxed) >= BUSY).then_some(());
        until("the bulk stream to flow", WITHIN, flows)?;
        let before = received.load(Ordering::Relaxed);
        Ok(Self { done, received, start: Instant::now(), before, thread })
    }

    /// Ends it: megabytes a second since it was busy.
    fn finish(self) -> Result<f64, Trouble> {
        let bytes = self.received.load(Ordering::Relaxed) - self.before;
        let rate = bytes as f64 / 1e6 / self.start.elapsed().as_secs_f64();
        self.done.store(true, Ordering::Relaxed);
        let result = self.thread.join().map_err(|_| Trouble::Wrong("the bulk reader died".to_owned()))?;
        result.map_err(Trouble::io("reading the bulk stream"))?;
        Ok(rate)
    }
}

/// A stream that is never read, once nothing moves on it any more.
fn stall(address: SocketAddr, service: &Service) -> Result<TcpStream, Trouble> {
    let before = service.sent();
    let stream = connect(address, BULK)?;
    let mut last = (service.sent(), Instant::now());
    let still = || {
        let sent = service.sent();
        if sent != last.0 || sent == before {
            last = (sent, Instant::now());
        }
        (last.1.elapsed() >= STILL).then_some(())
    };
    until("the unread stream to come to rest", WITHIN, still)?;
    Ok(stream)
}
