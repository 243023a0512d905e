//! From nothing to the first byte of the farm's answer, each time over a tunnel
//! that did not exist before.

use std::time::{Duration, Instant};

use farm_connect::{Client, FarmRecord, Tunnel};

use super::part::{Part, Repeat};
use super::sample::Sample;
use super::scale::Scale;
use super::stop::pause;
use super::table::Row;
use super::trouble::Trouble;
use super::world::{World, end};
use crate::harness::ending;
use crate::harness::farm::{FARM, GREENHOUSE};
use crate::harness::http::Request;

/// For one tunnel; the ceiling for recovery is 15 s.
const WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at a tunnel: finer than what is told apart.
const LOOK: Duration = Duration::from_millis(1);
/// Between two tunnels: the farm hears of the end and closes the connection, so
/// that the next is not measured against that.
pub(super) const APART: Duration = Duration::from_millis(100);

const REQUEST: &[u8] = b"GET /api/readings HTTP/1.1\r\nHost: greenhouse\r\nConnection: close\r\n\r\n";

/// When what was there, since the start.
pub(super) struct Times {
    broker: Duration,
    live: Duration,
    first_byte: Duration,
}

pub(super) fn measure(world: &World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let client = Client::open(&world.phone_state)?;
    let farm = client.find(FARM)?;
    let [mut broker, mut live, mut first_byte] = [(); 3].map(|()| Sample::default());
    let mut runs = Repeat::new(scale.tunnels, scale.share);
    while runs.next() {
        let times = smol::block_on(tunnel(&client, &farm))?;
        broker.push_time(times.broker);
        live.push_time(times.live);
        first_byte.push_time(times.first_byte);
        pause(APART)?;
    }
    let tail = ("p95", 0.95);
    part.push(Row::times("broker online", &broker, tail));
    part.push(Row::times("session live", &live, tail));
    part.push(Row::times("first byte", &first_byte, tail).remark(runs.remark("tunnels")));

    let mut whole = Sample::default();
    let mut runs = Repeat::new(scale.programs, scale.share / 2);
    while runs.next() {
        let start = Instant::now();
        let forward = world.to_greenhouse()?;
        let listening = start.elapsed();
        let response = Request::get("/api/readings").patience(WITHIN).send(forward.address)?;
        if response.status != 200 {
            return Err(Trouble::Wrong(format!("the greenhouse answered with status {}", response.status)));
        }
        whole.push_time(listening + response.first_byte);
        end(&forward)?;
    }
    part.push(Row::times("first byte, with program start", &whole, tail).remark(runs.remark("starts")));
    Ok(())
}

/// Starts a tunnel, fetches the readings through it, and ends it.
pub(super) async fn tunnel(client: &Client, farm: &FarmRecord) -> Result<Times, Trouble> {
    let start = Instant::now();
    let tunnel = Tunnel::start(client, farm)?;
    let fetched = smol::future::try_zip(fetch(&tunnel), states(&tunnel));
    let late = async {
        while start.elapsed() < WITHIN && !ending() {
            smol::Timer::after(APART).await;
        }
        let status = tunnel.status().await;
        let how = status.map_or_else(|| "stopped".to_owned(), |status| status.line());
        Err(Trouble::Wrong(format!("no answer through a new tunnel within {WITHIN:?}: {how}")))
    };
    let result = smol::future::or(fetched, late).await;
    tunnel.stop().await;
    let (first_byte, (broker, live)) = result?;
    Ok(Times {
        broker: broker.duration_since(start),
        live: live.duration_since(start),
        first_byte: first_byte.duration_since(start),
    })
}

/// Asks at once, as a browser would, and says when the answer began.
async fn fetch(tunnel: &Tunnel) -> Result<Instant, Trouble> {
    let broken = |what: &dyn std::fmt::Display| Trouble::Wrong(format!("a stream of a new tunnel: {what}"));
    let stream = tunnel.open(GREENHOUSE).map_err(|e| broken(&e))?;
    stream.write(REQUEST.into()).await.map_err(|e| broken(&e))?;
    let first = stream.read().await.map_err(|e| broken(&e))?;
    let at = Instant::now();
    stream.finish();
    if !first.is_some_and(|bytes| bytes.starts_with(b"HTTP/1.1 200")) {
        return Err(broken(&"it brought something else than the greenhouse's answer"));
    }
    while stream.read().await.map_err(|e| broken(&e))?.is_some() {}
    Ok(at)
}

/// When the broker, then the session was there.
async fn states(tunnel: &Tunnel) -> Result<(Instant, Instant), Trouble> {
    let mut online = None;
    while let Some(status) = tunnel.status().await {
        if status.broker == "online" {
            online.get_or_insert_with(Instant::now);
        }
        if let Some(online) = online.filter(|_| status.state == "live") {
            return Ok((online, Instant::now()));
        }
        smol::Timer::after(LOOK).await;
    }
    Err(Trouble::Wrong("a new tunnel stopped by itself".to_owned()))
}
