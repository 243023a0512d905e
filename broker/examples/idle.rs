//! Measures the broker's memory per idle connection, and how fast devices
//! come back: `cargo run --release -p farm-broker --example idle -- [COUNT]`.
//!
//! Starts a broker in a process of its own, connects COUNT phones (2000)
//! and prints its resident memory before and after. Needs as many open files.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{ClientRequestBuilder, Message};
use farm_broker::core::Limits;
use farm_broker::core::bucket::Rate;
use farm_broker::server::inherited::Inherited;
use farm_broker::server::listen::StunListen;
use farm_broker::server::relay::RelayOptions;
use farm_broker::server::site::NoSite;
use farm_broker::server::{Options, RelayChoice, Server};
use farm_protocol::broker::{Authenticate, Claim, FromBroker, Role, ToBroker};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, Slot};
use farm_protocol::keys::DeviceKey;
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL, codec};
use futures_util::StreamExt;
use smol::net::TcpStream;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connections that are being made at once.
const AT_ONCE: usize = 64;

/// Let the allocator and the executor come to rest.
const REST: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        Some(count) => measure(count.parse()?),
        None => measure(2000),
    }
}

/// The broker's process: ends when its standard input does.
fn serve() -> Result<()> {
    let state = tempfile::TempDir::new()?;
    let many = Rate::per_second(100_000, 100_000);
    let limits = Limits {
        connections: 100_000,
        connections_per_address: 100_000,
        handshakes: many,
        handshakes_per_address: many,
        ..Limits::default()
    };
    smol::block_on(async {
        let server = Server::start(Options {
            inherited: Inherited::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            stun: StunListen::Off,
            tls: None,
            redirect: None,
            metrics: None,
            authority: None,
            state: state.path().to_owned(),
            names: BTreeSet::new(),
            origins: BTreeSet::new(),
            trusted_proxies: Vec::new(),
            limits,
            relay: RelayChoice::Embedded(RelayOptions::default(), None),
            cluster: None,
            alerts: None,
            site: Arc::new(NoSite),
        })
        .await?;
        println!("{}", server.address());
        smol::unblock(|| std::io::stdin().read_to_end(&mut Vec::new())).await?;
        server.stop().await;
        Ok(())
    })
}

fn measure(count: usize) -> Result<()> {
    let mut broker = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let out = broker.stdout.as_mut().ok_or("no output of the broker")?;
    BufReader::new(out).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse()?;
    let warm = smol::block_on(connect_all(address, 0..10))?;
    std::thread::sleep(REST);
    let before = resident_kib(&broker)?;
    let started = Instant::now();
    let held = smol::block_on(connect_all(address, 10..count + 10))?;
    let took = started.elapsed();
    std::thread::sleep(REST);
    let after = resident_kib(&broker)?;
    let each = (after.saturating_sub(before)) as f64 / count as f64;
    let rate = count as f64 / took.as_secs_f64();
    println!("{count} phones in {took:.2?} ({rate:.0}/s), clients in one process beside it");
    println!("broker resident: {before} KiB before, {after} KiB with them: {each:.2} KiB each");
    drop((warm, held));
    drop(broker.stdin.take());
    broker.wait()?;
    Ok(())
}

fn resident_kib(broker: &Child) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

async fn connect_all(
    address: SocketAddr,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<WebSocketStream<TcpStream>>> {
    let connected: Vec<Result<_>> = futures_util::stream::iter(numbers)
        .map(|number| connect(address, number))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    connected.into_iter().collect()
}

async fn connect(address: SocketAddr, number: usize) -> Result<WebSocketStream<TcpStream>> {
    let uri = format!("ws://{address}{CONNECT_PATH}").parse()?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let config = WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0);
    let stream = TcpStream::connect(address).await?;
    let (mut stream, _) = async_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    let FromBroker::Challenge(challenge) = next(&mut stream).await? else {
        return Err("no challenge".into());
    };
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let claim = Claim {
        role: Role::Phone,
        slot: Slot::default(),
        boot: BootId::from_bytes([1; 16]),
        epoch: Epoch::of_start(1),
        broker: address.to_string(),
    };
    let claim = Authenticate::sign(&DeviceKey::from_seed(seed)?, &challenge.nonce, claim);
    let message = codec::encode(&ToBroker::Authenticate(Box::new(claim)))?;
    stream.send(Message::binary(message)).await?;
    match next(&mut stream).await? {
        FromBroker::Welcome(_) => Ok(stream),
        other => Err(format!("not welcomed: {other:?}").into()),
    }
}

async fn next(stream: &mut WebSocketStream<TcpStream>) -> Result<FromBroker> {
    let message = stream.next().await.ok_or("the broker closed")??;
    Ok(codec::decode(&message.into_data())?)
}
