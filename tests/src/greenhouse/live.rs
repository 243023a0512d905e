//! The one greenhouse all visitors share, brought up to the second whenever
//! somebody looks; with nobody looking it costs nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use jpeg_encoder::EncodingError;

use super::camera;
use super::climate::{Climate, Readings};

/// Shared by all connections.
pub(super) struct Live {
    climate: Mutex<Climate>,
    /// Seconds the farm's clock is ahead of UTC.
    utc_offset: i64,
    /// The newest picture and its second, so that many viewers cost one drawing.
    picture: smol::lock::Mutex<Option<(Readings, Bytes)>>,
}

impl Live {
    pub(super) fn new(utc_offset: i64) -> Self {
        Self {
            climate: Mutex::new(Climate::new(local_seconds(utc_offset))),
            utc_offset,
            picture: smol::lock::Mutex::new(None),
        }
    }

    /// Runs `act` on the greenhouse as it is now, then takes the readings.
    pub(super) fn act(&self, act: impl FnOnce(&mut Climate)) -> Readings {
        let now = local_seconds(self.utc_offset);
        // A panic while holding the lock would be a bug in arithmetic; the
        // numbers are still numbers.
        let mut climate = self.climate.lock().unwrap_or_else(PoisonError::into_inner);
        climate.advance_to(now);
        act(&mut climate);
        climate.readings()
    }

    /// The readings now.
    pub(super) fn readings(&self) -> Readings {
        self.act(|_| ())
    }

    /// The picture now.
    pub(super) async fn picture(&self) -> Result<Bytes, EncodingError> {
        let readings = self.readings();
        let mut newest = self.picture.lock().await;
        if let Some((drawn, bytes)) = &*newest
            && *drawn == readings
        {
            return Ok(bytes.clone());
        }
        let wanted = readings.clone();
        let bytes = Bytes::from(smol::unblock(move || camera::jpeg(&wanted)).await?);
        *newest = Some((readings, bytes.clone()));
        Ok(bytes)
    }
}

/// Seconds since 1970 on a clock `offset` seconds ahead of UTC.
fn local_seconds(offset: i64) -> u64 {
    since_epoch().as_secs().saturating_add_signed(offset)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Waits for the next whole second, when there is something new to see.
pub(super) async fn next_second() {
    let into = u64::from(since_epoch().subsec_micros());
    // 2 ms late on purpose: a timer may fire early by its resolution, and the
    // same second would be sent twice.
    smol::Timer::after(Duration::from_micros(1_002_000 - into)).await;
}
