//! The agent's clocks: the time with its floor, and the time since the device
//! started, which goes on right through every jump of the other.

use std::path::Path;
use std::time::Duration;

use farm_protocol::id::BootId;
use farm_tunnel::clock::Clock;
use nix::time::{ClockId, clock_gettime};
use ring::rand::{SecureRandom, SystemRandom};

use crate::readings::block::Moment;

/// Where the kernel tells its boots apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// There while systemd-timesyncd has set the clock.
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// Says 1 where the kernel set the clock from a battery-backed one at boot.
const BATTERY: &str = "/sys/class/rtc/rtc0/hctosys";

/// This boot of the device, or this run where the kernel does not tell.
pub fn boot_id() -> BootId {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut id = [0; BootId::LEN];
    let told = digits.len() == 2 * BootId::LEN
        && id.iter_mut().zip(digits.as_bytes().chunks(2)).all(|(byte, pair)| {
            let pair = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            pair.map(|value| *byte = value).is_some()
        });
    if !told {
        // Its times are then corrected in this run only. Without randomness
        // the agent does not start.
        let _ = SystemRandom::new().fill(&mut id);
    }
    BootId::from_bytes(id)
}

/// Time since the device started, sleep included.
pub fn since_boot() -> Duration {
    // It fails only for clocks that the kernel does not have.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Asks the operating system whether its clock is set.
pub fn look(clock: &Clock) {
    let battery = std::fs::read(BATTERY).is_ok_and(|said| said.starts_with(b"1"));
    clock.synchronized(battery || Path::new(TIMESYNC).exists());
}

/// Stamps what is recorded in a boot. Clones share the clock.
#[derive(Debug, Clone)]
pub struct Stamper {
    /// The clock.
    pub clock: Clock,
    /// The number of this boot.
    pub boot: u32,
}

impl Stamper {
    /// Now, by both clocks.
    pub fn now(&self) -> Moment {
        let stamp = self.clock.now();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Moment {
            boot: self.boot,
            monotonic: milliseconds(since_boot()),
            wall: milliseconds(stamp.time),
            trusted: stamp.trusted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_id() {
        assert_eq!(boot_id(), boot_id(), "the kernel tells here");
        assert_ne!(boot_id(), BootId::from_bytes([0; BootId::LEN]));
    }

    #[test]
    fn time_goes_on() {
        let stamper = Stamper { clock: Clock::new(), boot: 1 };
        let (a, b) = (stamper.now(), stamper.now());
        assert!(a.monotonic > 0 && b.monotonic >= a.monotonic && b.wall >= a.wall);
    }
}
