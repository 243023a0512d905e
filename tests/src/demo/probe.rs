//! The one question that counts: does the greenhouse answer through the tunnel?

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::greenhouse::content;
use crate::harness::http::{self, Request};
use crate::harness::{HarnessError, until};

/// Megabytes of the throughput test.
pub(super) const MEGABYTES: u32 = 100;
/// One try's share while waiting for the tunnel to come back: short, since a
/// request that went into a dead tunnel says nothing about the living one.
const TRY: Duration = Duration::from_millis(400);
/// Silence after which a transfer is given up: the ceiling for noticing and
/// mending a failure, 30 s and 15 s.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(45);

/// What the greenhouse said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// A line about it.
    pub(super) text: String,
    /// How long it took.
    pub(super) took: Duration,
}

/// Fetches the readings.
pub(super) fn readings(forward: SocketAddr, patience: Duration) -> Option<Answer> {
    let request = Request::get("/api/readings").patience(patience);
    let response = request.send(forward).ok().filter(|r| r.status == 200)?;
    let values: Value = serde_json::from_slice(&response.body).ok()?;
    let number = |key: &str| values[key].as_f64();
    Some(Answer {
        text: format!(
            "{:.1} °C, {:.0} % humidity, CO2 {:.0} ppm, vent {:.0} %",
            number("temperature_c")?,
            number("humidity_percent")?,
            number("co2_ppm")?,
            number("vent_percent")?
        ),
        took: response.total,
    })
}

/// Fetches the page a person would see.
pub(super) fn page(forward: SocketAddr, patience: Duration) -> Result<Answer, HarnessError> {
    let response = Request::get("/").patience(patience).send(forward)?;
    let title = response.text().contains("<title>Greenhouse 1</title>");
    if response.status != 200 || !title {
        return Err(HarnessError::Unexpected {
            name: "the greenhouse's page through the tunnel".to_owned(),
            expected: "status 200 and its title",
            got: format!("status {}, {} bytes", response.status, response.length),
        });
    }
    Ok(Answer { text: format!("status 200, {} bytes", response.length), took: response.total })
}

/// Waits until the greenhouse answers: how long that took.
pub(super) fn until_answers(forward: SocketAddr, within: Duration) -> Result<Duration, HarnessError> {
    let what = "an answer of the greenhouse through the tunnel";
    until(what, within, || readings(forward, TRY)).map(|(_, took)| took)
}

/// A transfer, running or done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transfer {
    /// Bytes so far.
    pub(super) bytes: u64,
    /// Time so far.
    pub(super) took: Duration,
    /// Once done, whether the checksum was right.
    pub(super) verdict: Option<bool>,
    /// The longest time without a byte.
    pub(super) longest_gap: Duration,
}

impl Transfer {
    /// Megabytes (1,000,000 bytes) a second.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64().max(1e-6)
    }
}

/// Downloads the test file, reporting on the way. The checksum is computed here
/// from the known content, not taken from the far end.
pub(super) fn transfer(
    forward: SocketAddr,
    mut report: impl FnMut(Transfer),
) -> Result<Transfer, HarnessError> {
    let expected = content::sha256(u64::from(MEGABYTES) * content::MEGABYTE);
    let start = Instant::now();
    let (mut bytes, mut last) = (0, start);
    let request = Request::get(&format!("/download/{MEGABYTES}MB.bin")).patience(TRANSFER_PATIENCE);
    let response: http::Response = request.send_with(forward, |piece| {
        bytes += piece.len() as u64;
        if last.elapsed() > Duration::from_millis(200) {
            last = Instant::now();
            report(Transfer { bytes, took: start.elapsed(), verdict: None, longest_gap: Duration::ZERO });
        }
        ControlFlow::Continue(())
    })?;
    let done = Transfer {
        bytes: response.length,
        took: response.total,
        verdict: Some(response.status == 200 && response.sha256 == expected),
        longest_gap: response.longest_gap,
    };
    report(done.clone());
    Ok(done)
}
