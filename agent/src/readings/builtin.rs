//! The agent's own readings: how the device and its links are doing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farm_tunnel::progress::Beat;

use super::block::Sample;
use super::handle::Readings;
use crate::clocks::since_boot;
use crate::control_socket::{Asked, Reply, Request};
use crate::status::Status;

/// The first ones come soon after a start, when links have come up.
const FIRST_AFTER: Duration = Duration::from_secs(20);

/// Until the clock is set it is looked at this often: the readings made until
/// then become right as soon as it is.
const CLOCK_EVERY: Duration = Duration::from_secs(30);

/// Takes them until dropped: all of one moment in one commit, which every
/// `interval` costs the card about 8 KB.
pub struct Builtin {
    /// Where they go.
    pub readings: Readings,
    /// How often; `None` for never.
    pub interval: async_channel::Receiver<Option<Duration>>,
    /// Whom to ask about the links.
    pub ask: async_channel::Sender<Asked>,
    /// On the card that is measured.
    pub state: PathBuf,
}

impl Builtin {
    /// Runs.
    pub async fn run(self, beat: Beat) {
        let mut interval = self.interval.recv().await.ok().flatten();
        let mut traffic = Traffic::default();
        let mut due = since_boot() + FIRST_AFTER;
        loop {
            beat.pass().await;
            if !self.readings.clock().now().trusted {
                self.readings.clock_changed();
            }
            let now = since_boot();
            if interval.is_some() && now >= due {
                self.take(&mut traffic).await;
            }
            if let Some(every) = interval
                && now >= due
            {
                due = now + every;
            }
            let left = interval.map_or(Duration::MAX, |_| due.saturating_sub(since_boot()));
            let untrusted = !self.readings.clock().now().trusted;
            let left = if untrusted { left.min(CLOCK_EVERY) } else { left };
            let timer = async {
                if left == Duration::MAX {
                    std::future::pending::<()>().await;
                }
                smol::Timer::after(left).await;
                None
            };
            let changed = async {
                match self.interval.recv().await {
                    Ok(changed) => Some(changed),
                    Err(_) => std::future::pending().await,
                }
            };
            let asked = async {
                beat.asked().await;
                None
            };
            if let Some(changed) = smol::future::or(changed, smol::future::or(timer, asked)).await {
                interval = changed;
                due = since_boot();
            }
        }
    }

    async fn take(&self, traffic: &mut Traffic) {
        let mut samples = Vec::new();
        let mut add = |name, value: Option<f64>, unit| {
            if let Some(sample) = value.and_then(|value| Sample::own(name, value, unit).ok()) {
                samples.push(sample);
            }
        };
        add("cpu_temperature", cpu_temperature(), Some("°C"));
        add("uptime", Some(since_boot().as_secs() as f64), Some("s"));
        add("disk_free", disk_free(&self.state), Some("MB"));
        let day = self.readings.clock().now().time.as_secs() / 86_400;
        add(
            "traffic_today",
            interface_bytes().map(|bytes| megabytes(traffic.of_day(day, bytes))),
            Some("MB"),
        );
        if let Some(status) = self.status().await {
            add("broker_rtt", status.broker.rtt_ms, Some("ms"));
            // The best of the phones' links: what the farm's own line can do.
            let best = status.sessions.iter().filter(|s| s.path.rtt_ms.is_some()).min_by(|a, b| {
                a.path.rtt_ms.unwrap_or(f64::MAX).total_cmp(&b.path.rtt_ms.unwrap_or(f64::MAX))
            });
            add("link_rtt", best.and_then(|s| s.path.rtt_ms), Some("ms"));
            add("link_loss", best.and_then(|s| s.path.loss).map(|loss| f64::from(loss) * 100.0), Some("%"));
        }
        if let Err(error) = self.readings.record(samples).await {
            tracing::debug!(%error, "the agent's own readings");
        }
    }

    async fn status(&self) -> Option<Status> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask.send(Asked { request: Request::Status { watch: false }, reply }).await.ok()?;
        match answer.recv().await {
            Ok(Reply::Status(status)) => Some(*status),
            _ => None,
        }
    }
}

fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e4).round() / 100.0
}

/// The hottest zone that the kernel shows, degrees.
fn cpu_temperature() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?;
    let thousandths = zones
        .flatten()
        .filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone"))
        .filter_map(|zone| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<i64>().ok())
        .max()?;
    Some((thousandths as f64 / 100.0).round() / 10.0)
}

/// Free space of the file system that holds the state, for its owner.
fn disk_free(state: &Path) -> Option<f64> {
    let found = nix::sys::statvfs::statvfs(state).ok()?;
    Some(megabytes(found.blocks_available().saturating_mul(found.fragment_size())))
}

/// Bytes of all network interfaces but loopback, both directions, since boot.
fn interface_bytes() -> Option<u64> {
    let interfaces = fs::read_dir("/sys/class/net").ok()?;
    let read = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of = |interface: fs::DirEntry| {
        let statistics = interface.path().join("statistics");
        Some(read(statistics.join("rx_bytes"))? + read(statistics.join("tx_bytes"))?)
    };
    Some(interfaces.flatten().filter(|i| i.file_name() != "lo").filter_map(of).sum())
}

/// Bytes since midnight (UTC), or since the start of the agent if that was
/// later, by counters that may begin anew.
#[derive(Debug, Default)]
struct Traffic {
    day: Option<u64>,
    before: u64,
    today: u64,
}

impl Traffic {
    fn of_day(&mut self, day: u64, counter: u64) -> u64 {
        // A modem that was plugged in again counts from 0.
        let more = counter.checked_sub(self.before).unwrap_or(counter);
        match self.day {
            Some(known) if known == day => self.today += more,
            Some(_) => self.today = more,
            None => self.today = 0,
        }
        self.day = Some(day);
        self.before = counter;
        self.today
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_of_a_day_begins_anew_each_day() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.of_day(5, 1000), 0, "what was before is not of this run");
        assert_eq!(traffic.of_day(5, 1500), 500);
        assert_eq!(traffic.of_day(5, 100), 600, "the counter began anew");
        assert_eq!(traffic.of_day(6, 300), 200);
        assert_eq!(traffic.of_day(6, 300), 200);
    }

    #[test]
    fn this_machine_has_a_disk_and_a_network() {
        assert!(disk_free(Path::new("/")).is_some_and(|free| free > 0.0));
        assert!(interface_bytes().is_some());
    }
}
