//! Measures a peer connection on loopback: how fast it opens, how much it carries, whether it
//! stalls, whether it leaks.
//!
//! ```text
//! peer_throughput open [RUNS]             offer to open, both peers in this process
//! peer_throughput matrix [MIB]            one-way transfers: message size, send and receive window
//! peer_throughput bulk SIZE SEND_KIB RECEIVE_KIB MIB [CREDIT_KIB]
//! peer_throughput cycles [COUNT]          open and close again and again
//! peer_throughput idle [SECONDS]          what an open connection costs that carries nothing
//! ```
//!
//! The far side of a transfer is a second process, as in life; `SAME=1` puts it into this one.
//! `SMOL_THREADS` sets the executor's threads.
//! `WIRE=40,100,0` puts a wire between the peers: 40 ms each way, 100 Mbit/s, no loss; `WIRE=40,100,50`
//! loses every 50th packet.

mod wire;

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use async_channel::Receiver;
use bytes::Bytes;
use farm_tunnel::peer::{Channel, Peer, PeerConfig, PeerEvent, Tuning};
use wire::{Quality, Wire};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: f64 = (1 << 20) as f64;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is measured in one transfer.
#[derive(Clone, Copy)]
struct Bulk {
    size: usize,
    send_window: usize,
    receive_window: u32,
    total: usize,
    /// Bytes the sender may be ahead of what the receiver has confirmed; 0 is no bound.
    credit: usize,
}

fn main() -> Outcome<()> {
    // A task like any other: on the thread of the drivers, unless there are more.
    smol::block_on(smol::spawn(run(std::env::args().skip(1).collect())))
}

async fn run(arguments: Vec<String>) -> Outcome<()> {
    let number = |index: usize, default: usize| arguments.get(index).map_or(Ok(default), |text| text.parse());
    match arguments.first().map_or("", String::as_str) {
        "open" => open(number(1, 50)?).await,
        "bulk" => {
            let bulk = Bulk {
                size: number(1, 16 << 10)?,
                send_window: number(2, 128)? << 10,
                receive_window: u32::try_from(number(3, 1024)? << 10)?,
                total: number(4, 256)? << 20,
                credit: number(5, 0)? << 10,
            };
            measure(bulk).await
        }
        "matrix" => matrix(number(1, 128)? << 20).await,
        "idle" => idle(number(1, 30)? as u64).await,
        "cycles" => cycles(number(1, 1000)?).await,
        "far-side" => far_side(u32::try_from(number(1, 0)?)?, number(2, 0)?).await,
        _ => Err("say open, bulk, matrix, cycles or idle; the source explains them".into()),
    }
}

fn config(send_window: Option<usize>, window: Option<u32>) -> PeerConfig {
    let default = Tuning::default();
    PeerConfig {
        local_addresses: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tuning: Tuning {
            send_window: send_window.unwrap_or(default.send_window),
            receive_window: window.or(default.receive_window),
        },
        ..PeerConfig::default()
    }
}

async fn opened(events: &Receiver<PeerEvent>) -> Outcome<()> {
    loop {
        match events.recv().await? {
            PeerEvent::Opened => return Ok(()),
            PeerEvent::Lost(reason) => return Err(reason.into()),
            _ => {}
        }
    }
}

/// Two connected peers in this process.
async fn pair() -> Outcome<(Peer, Peer)> {
    let (near, near_events, offer) = Peer::offer(config(None, None)).await?;
    let (far, far_events, answer) = Peer::answer(config(None, None), &offer).await?;
    near.accept_answer(&answer).await?;
    opened(&near_events).await?;
    opened(&far_events).await?;
    Ok((near, far))
}

async fn open(runs: usize) -> Outcome<()> {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        let (near, far) = pair().await?;
        times.push(start.elapsed());
        near.close().await;
        far.close().await;
    }
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("offer to open, {runs} runs: p50 {:.1} ms, p95 {:.1} ms, max {:.1} ms", at(50), at(95), at(100));
    Ok(())
}

async fn matrix(total: usize) -> Outcome<()> {
    for receive_window in [1 << 20, 2 << 20, 4 << 20] {
        for send_window in [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20] {
            for size in [16 << 10, 32 << 10, 60_000, 64 << 10] {
                let bulk = Bulk { size, send_window, receive_window, total, credit: 0 };
                measure(bulk).await?;
            }
        }
    }
    Ok(())
}

async fn measure(bulk: Bulk) -> Outcome<()> {
    let config = config(Some(bulk.send_window), Some(bulk.receive_window));
    let (peer, events, offer) = Peer::offer(config.clone()).await?;
    let wire = match quality()? {
        Some(quality) => Some(Wire::new(quality).await?),
        None => None,
    };
    let offer = match &wire {
        Some(wire) => wire.to_far(&offer)?,
        None => offer,
    };
    let (mut child, mut local) = (None, None);
    let answer = if std::env::var_os("SAME").is_some() {
        let (far, _, answer) = Peer::answer(config, &offer).await?;
        local = Some(smol::spawn(receive(far, bulk.credit)));
        answer
    } else {
        let mut far = Command::new(std::env::current_exe()?)
            .args(["far-side", &bulk.receive_window.to_string(), &bulk.credit.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = far.stdin.take().ok_or("the far side has no input")?;
        writeln!(input, "{}", offer.replace("\r\n", "|"))?;
        input.flush()?;
        let mut answer = String::new();
        let output = far.stdout.take().ok_or("the far side has no output")?;
        BufReader::new(output).read_line(&mut answer)?;
        child = Some(far);
        answer.trim_end().replace('|', "\r\n")
    };
    let answer = match &wire {
        Some(wire) => wire.to_near(&answer)?,
        None => answer,
    };
    peer.accept_answer(&answer).await?;
    opened(&events).await?;

    let round_trips = Arc::new(Mutex::new(Vec::new()));
    let pings =
        smol::spawn(smol::future::zip(ping(peer.clone()), pong(peer.clone(), Arc::clone(&round_trips))));
    let message = Bytes::from(vec![7; bulk.size]);
    let (start, busy) = (Instant::now(), cpu());
    let (mut sent, mut confirmed) = (0, 0);
    while sent < bulk.total {
        while bulk.credit > 0 && sent + bulk.size > confirmed + bulk.credit {
            confirmed = number(&peer.recv(Channel::Control).await.ok_or("lost")?)?;
        }
        // As a mux would: a message of its own, not a shared one.
        peer.send(Channel::Data, Bytes::copy_from_slice(&message)).await?;
        sent += bulk.size;
    }
    peer.send(Channel::Data, Bytes::new()).await?;
    let report = loop {
        let message = peer.recv(Channel::Control).await.ok_or("lost")?;
        if let Some(report) = Report::read(&message) {
            break report;
        }
    };
    let took = start.elapsed().as_secs_f64();
    let busy = cpu() - busy;
    let far = if child.is_some() { report.busy } else { 0.0 };
    pings.cancel().await;
    let mut round_trips = std::mem::take(&mut *round_trips.lock().map_err(|_| "poisoned")?);
    round_trips.sort_by(f64::total_cmp);
    let round_trip = |percent: usize| round_trips.get(round_trips.len().saturating_sub(1) * percent / 100);
    let mib = report.bytes as f64 / MIB;
    println!(
        "message {:>5} B, windows {:>4} KiB and {} MiB{}: {:>6.1} MiB/s, longest gap {:>6.1} ms, \
         {:>4.0} MiB per second of processor time (near {:>3.0} %, far {:>3.0} %), ping p50 {:>5.1} max {:>5.1} ms{}",
        bulk.size,
        bulk.send_window >> 10,
        bulk.receive_window >> 20,
        if bulk.credit > 0 { format!(", credit {} KiB", bulk.credit >> 10) } else { String::new() },
        mib / took,
        report.gap,
        mib / (busy + far),
        busy / took * 100.0,
        far / took * 100.0,
        round_trip(50).unwrap_or(&0.0),
        round_trip(100).unwrap_or(&0.0),
        if report.bytes == sent { "" } else { " BYTES MISSING" },
    );
    peer.close().await;
    if let Some(child) = &mut child {
        child.wait()?;
    }
    if let Some(local) = local {
        local.await;
    }
    Ok(())
}

fn quality() -> Outcome<Option<Quality>> {
    let Ok(text) = std::env::var("WIRE") else { return Ok(None) };
    let fields: Vec<f64> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let [one_way, mbit, loss] = fields[..] else { return Err("WIRE is MS,MBIT,LOSS".into()) };
    Ok(Some(Quality {
        one_way: Duration::from_secs_f64(one_way / 1e3),
        bytes_per_second: mbit * 1e6 / 8.0,
        loss: loss as u64,
    }))
}

/// The far side in a process of its own: offer in, answer out, then it receives.
async fn far_side(window: u32, credit: usize) -> Outcome<()> {
    let mut offer = String::new();
    std::io::stdin().read_line(&mut offer)?;
    let offer = offer.trim_end().replace('|', "\r\n");
    let (peer, _, answer) = Peer::answer(config(None, Some(window)), &offer).await?;
    println!("{}", answer.replace("\r\n", "|"));
    receive(peer, credit).await;
    Ok(())
}

/// Pings every 50 ms.
async fn ping(peer: Peer) {
    loop {
        smol::Timer::after(Duration::from_millis(50)).await;
        let now = STARTED.elapsed().as_secs_f64().to_le_bytes();
        // Full: the one before has not left yet, and will tell how long it took.
        let _ = peer.try_send(Channel::Ping, Bytes::copy_from_slice(&now)).await;
    }
}

/// Notes how many ms each answer took.
async fn pong(peer: Peer, round_trips: Arc<Mutex<Vec<f64>>>) {
    while let Some(pong) = peer.recv(Channel::Ping).await {
        let Ok(then) = pong[..].try_into().map(f64::from_le_bytes) else { continue };
        if let Ok(mut round_trips) = round_trips.lock() {
            round_trips.push((STARTED.elapsed().as_secs_f64() - then) * 1e3);
        }
    }
}

/// What the receiver reports at the end.
struct Report {
    bytes: usize,
    /// Longest time between two messages, in ms.
    gap: f64,
    /// Seconds of its process's time.
    busy: f64,
}

impl Report {
    fn read(message: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(message).ok()?.split(' ');
        let mut field = || fields.next()?.parse::<f64>().ok();
        let (bytes, gap, busy) = (field()?, field()?, field()?);
        Some(Self { bytes: bytes as usize, gap, busy })
    }
}

/// Receives until the empty message, reports, and waits for the end.
async fn receive(peer: Peer, credit: usize) {
    let (mut bytes, mut unconfirmed, mut gap) = (0, 0, Duration::ZERO);
    let (mut last, mut busy) = (Instant::now(), cpu());
    let echo = peer.clone();
    let echo = smol::spawn(async move {
        while let Some(ping) = echo.recv(Channel::Ping).await {
            let _ = echo.try_send(Channel::Ping, ping).await;
        }
    });
    while let Some(message) = peer.recv(Channel::Data).await {
        if bytes == 0 {
            busy = cpu();
        } else {
            gap = gap.max(last.elapsed());
        }
        last = Instant::now();
        bytes += message.len();
        unconfirmed += message.len();
        let report = if message.is_empty() {
            format!("{bytes} {} {}", gap.as_secs_f64() * 1e3, cpu() - busy)
        } else if credit > 0 && unconfirmed >= credit / 4 {
            unconfirmed = 0;
            bytes.to_string()
        } else {
            continue;
        };
        if peer.send(Channel::Control, report.into()).await.is_err() {
            break;
        }
    }
    peer.close().await;
    echo.await;
}

async fn cycles(count: usize) -> Outcome<()> {
    for done in 0..=count {
        if done % (count / 5).max(1) == 0 {
            println!("{done} cycles: {} KiB RSS, {} descriptors", rss()?, descriptors()?);
        }
        let (near, far) = pair().await?;
        near.close().await;
        drop(far);
    }
    Ok(())
}

/// Nobody watches, nothing is sent: how often does a process with one end of it wake up?
async fn idle(seconds: u64) -> Outcome<()> {
    let quiet = PeerConfig { watched: false, ..config(None, None) };
    for (name, config) in [("watched", config(None, None)), ("unwatched", quiet)] {
        let (near, near_events, offer) = Peer::offer(config.clone()).await?;
        let (far, far_events, answer) = Peer::answer(config, &offer).await?;
        near.accept_answer(&answer).await?;
        opened(&near_events).await?;
        opened(&far_events).await?;
        smol::Timer::after(Duration::from_secs(5)).await;
        let (busy, woken) = (cpu(), woken()?);
        smol::Timer::after(Duration::from_secs(seconds)).await;
        println!(
            "{name}: {:.1} wake-ups a second, {:.2} % of a core, both ends together",
            (self::woken()? - woken) as f64 / seconds as f64,
            (cpu() - busy) / seconds as f64 * 100.0
        );
        near.close().await;
        far.close().await;
    }
    Ok(())
}

/// How often the threads of this process went to sleep.
fn woken() -> Outcome<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.ok_or("no context switches")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn number(message: &Bytes) -> Outcome<usize> {
    Ok(std::str::from_utf8(message)?.parse()?)
}

fn rss() -> Outcome<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

fn descriptors() -> Outcome<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Seconds of processor time this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
