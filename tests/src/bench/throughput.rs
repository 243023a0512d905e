//! Downloads from the greenhouse: through the tunnel, through other tunnels and
//! directly, in turns, so that whatever else the machine does hits all alike.
//! Every download is hashed while it arrives and checked.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::part::{Part, Repeat};
use super::peers::Peer;
use super::sample::Sample;
use super::scale::Scale;
use super::table::{Row, Unit};
use super::trouble::Trouble;
use super::usage::{self, Peak};
use super::world::{World, end};
use crate::greenhouse::content;
use crate::harness::http::{self, Request};
use crate::harness::{HarnessError, ending};

/// Downloads at once.
const STREAMS: usize = 8;
/// Silence after which a download is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// One way to the greenhouse, and what was measured of it.
struct Way {
    name: &'static str,
    address: SocketAddr,
    pids: Vec<u32>,
    alone: Sample,
    together: Sample,
    fairness: Sample,
    /// CPU seconds of its programs for each gigabyte.
    work: Sample,
    /// Why it is no longer asked.
    failed: Option<String>,
}

impl Way {
    fn new(name: &'static str, address: SocketAddr, pids: Vec<u32>) -> Self {
        let sample = Sample::default;
        Self {
            name,
            address,
            pids,
            alone: sample(),
            together: sample(),
            fairness: sample(),
            work: sample(),
            failed: None,
        }
    }

    fn turn(&mut self, files: &Files) -> Result<(), Trouble> {
        let (before, mut bytes) = (usage::cpu(&self.pids), files.alone.length());
        let done = files.alone.download(self.address)?;
        self.alone.push(done.megabytes_per_second());

        let (took, times) = together(self.address, &files.among)?;
        let all = files.among.length() * STREAMS as u64;
        bytes += all;
        self.together.push(all as f64 / 1e6 / took.as_secs_f64());
        let fastest = times.iter().min().copied().unwrap_or_default();
        let slowest = times.iter().max().copied().unwrap_or_default();
        self.fairness.push(fastest.as_secs_f64() / slowest.as_secs_f64());
        let work = usage::cpu(&self.pids).saturating_sub(before);
        self.work.push(work.as_secs_f64() / (bytes as f64 / 1e9));
        Ok(())
    }

    fn row(&self, name: &str, sample: &Sample, unit: Unit) -> Row {
        match &self.failed {
            Some(reason) if sample.is_empty() => Row::missing(name, reason),
            Some(reason) => Row::spread(name, sample, unit).remark(Some(format!("then failed: {reason}"))),
            None => Row::spread(name, sample, unit),
        }
    }
}

struct Files {
    alone: File,
    among: File,
}

/// A download and what must come of it.
pub(super) struct File {
    megabytes: u32,
    sha256: String,
}

impl File {
    pub(super) fn of(megabytes: u32) -> Self {
        Self { megabytes, sha256: content::sha256(u64::from(megabytes) * content::MEGABYTE) }
    }

    fn length(&self) -> u64 {
        u64::from(self.megabytes) * content::MEGABYTE
    }

    pub(super) fn download(&self, address: SocketAddr) -> Result<http::Response, Trouble> {
        let path = format!("/download/{}MB.bin", self.megabytes);
        let response = Request::get(&path).patience(PATIENCE).send(address)?;
        if response.status != 200 || response.sha256 != self.sha256 {
            let (status, length) = (response.status, response.length);
            let text = format!("{path} came with status {status}, {length} bytes and a wrong checksum");
            return Err(Trouble::Wrong(text));
        }
        Ok(response)
    }
}

/// Downloads at the same time: how long all took, and each.
fn together(address: SocketAddr, file: &File) -> Result<(Duration, Vec<Duration>), Trouble> {
    let ready = Barrier::new(STREAMS + 1);
    std::thread::scope(|scope| {
        let download = || {
            ready.wait();
            file.download(address).map(|response| response.total)
        };
        let threads: Vec<_> = (0..STREAMS).map(|_| scope.spawn(download)).collect();
        ready.wait();
        let start = Instant::now();
        let died = |_| Trouble::Wrong("a download's thread died".to_owned());
        let times = threads.into_iter().map(|thread| thread.join().map_err(died)?);
        let times = times.collect::<Result<Vec<_>, Trouble>>()?;
        Ok((start.elapsed(), times))
    })
}

pub(super) fn measure(world: &World, peers: &[Peer], scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let forward = world.to_greenhouse()?;
    let pids = [world.agent()?.pid(), forward.process.pid(), world.broker()?.pid()];
    let mut ways = vec![Way::new("tunnel", forward.address, pids[..2].to_vec())];
    for peer in peers {
        if let Ok(running) = &peer.running {
            ways.push(Way::new(peer.name, running.address, running.pids()));
        }
    }
    ways.push(Way::new("plain TCP", world.greenhouse_address, Vec::new()));
    let files = Files { alone: File::of(scale.alone), among: File::of(scale.among) };
    // The first request of each digest makes the greenhouse compute it.
    files.alone.download(world.greenhouse_address)?;
    files.among.download(world.greenhouse_address)?;

    let mut most = Vec::new();
    let mut rounds = Repeat::new(scale.rounds, scale.share * 3 / 2);
    while rounds.next() {
        for way in ways.iter_mut().filter(|way| way.failed.is_none()) {
            let peak = (way.name == "tunnel").then(|| Peak::watch(&pids));
            way.failed = way.turn(&files).err().map(|error| error.to_string());
            most.extend(peak.map(Peak::finish).transpose()?);
            if ending() {
                return Err(HarnessError::Ending.into());
            }
        }
    }
    end(&forward)?;

    let remark = rounds.remark("rounds");
    report(&ways, peers, remark, part);
    for (at, name) in ["agent, busy", "connect, busy", "broker, busy"].into_iter().enumerate() {
        let most = most.iter().map(|turn: &Vec<_>| turn[at]).max_by_key(|usage| usage.rss_bytes);
        if let Some(most) = most {
            part.push(Row::new(name, usage::figures("RSS at most", &most)));
        }
    }
    Ok(())
}

fn report(ways: &[Way], peers: &[Peer], remark: Option<String>, part: &mut Part) {
    type Of = fn(&Way) -> &Sample;
    let kinds: [(&str, Of); 2] = [("1 stream", |way| &way.alone), ("8 streams", |way| &way.together)];
    for (kind, of) in kinds {
        for way in ways {
            let row = way.row(&format!("{}, {kind}", way.name), of(way), Unit::Rate);
            part.push(if way.failed.is_none() { row.remark(remark.clone()) } else { row });
        }
        for peer in peers {
            if let Err(reason) = &peer.running {
                part.push(Row::missing(format!("{}, {kind}", peer.name), &reason.to_string()));
            }
        }
        let dumbpipe = ways.iter().find(|way| way.name == "dumbpipe");
        let name = format!("tunnel ÷ dumbpipe, {kind}");
        part.push(match dumbpipe {
            Some(dumbpipe) => Row::spread(name, &of(&ways[0]).divided_by(of(dumbpipe)), Unit::Ratio),
            None => Row::missing(name, "dumbpipe does not run"),
        });
    }
    for way in ways {
        part.push(way.row(&format!("{}, 8: slowest ÷ fastest", way.name), &way.fairness, Unit::Ratio));
    }
    for way in ways.iter().filter(|way| !way.pids.is_empty()) {
        part.push(way.row(&format!("{}, both programs", way.name), &way.work, Unit::Work));
    }
}
