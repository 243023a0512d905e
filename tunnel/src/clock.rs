//! Time on a device without a clock of its own.
//!
//! A Raspberry Pi without a battery starts in 1970, or at the time of its last
//! shutdown, until the network has told it better. So there is a floor that
//! time can't be below: the newest of the program's build, what was stored
//! last, and the broker's word. [`Timekeeper`] is the pure core, [`Clock`] the
//! handle on it that reads the system's clocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When this program was built, in seconds since 1970.
pub const BUILD_TIME: Duration = Duration::from_secs(parse(env!("FARM_BUILD_TIME")));

/// A clock further ahead of the build than this is wrong (30 years): no card
/// lives that long, and a certificate that is judged by such a clock has
/// always expired.
pub const MOST_AHEAD: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The device's clock and the broker's may be this far apart and still agree:
/// a message's way, and a broker that is a little off.
const AGREEMENT: Duration = Duration::from_secs(60);

/// The time, and what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Since 1970. Never below the floor.
    pub time: Duration,
    /// The device's own clock was right: set from the network or a battery,
    /// or it agrees with the broker's.
    pub trusted: bool,
}

/// Decides what time it is. Pure: both clocks are arguments, the wall clock
/// since 1970, the monotonic one since any fixed moment.
#[derive(Debug, Clone)]
pub struct Timekeeper {
    /// Build and storage: time is not before the one, at the other.
    floor: (Duration, Duration),
    /// The broker's word, and when it came.
    told: Option<(Duration, Duration)>,
    synchronized: bool,
}

impl Timekeeper {
    /// With the build's time as the floor.
    pub fn new(built: Duration, monotonic: Duration) -> Self {
        Self { floor: (built, monotonic), told: None, synchronized: false }
    }

    /// A time that has been stored when it was trusted.
    pub fn stored(&mut self, time: Duration, monotonic: Duration) {
        if time > self.floor_at(monotonic) && time <= self.ceiling() {
            self.floor = (time, monotonic);
        }
    }

    /// The broker's word. It counts for this run only and is never stored: a
    /// broker that lies must not be able to spoil the clock for the next one.
    pub fn told(&mut self, time: Duration, monotonic: Duration) {
        if time >= self.floor_at(monotonic) && time <= self.ceiling() {
            self.told = Some((time, monotonic));
        }
    }

    /// Whether the operating system says that its clock is set.
    pub fn synchronized(&mut self, synchronized: bool) {
        self.synchronized = synchronized;
    }

    /// What time it is.
    pub fn now(&self, wall: Duration, monotonic: Duration) -> Stamp {
        let floor = self.floor_at(monotonic);
        let told = self.told.map(|(time, at)| time + monotonic.saturating_sub(at));
        let possible = wall >= floor && wall <= self.ceiling();
        let agrees = told.is_some_and(|told| told.abs_diff(wall) <= AGREEMENT);
        if possible && (self.synchronized || agrees) {
            return Stamp { time: wall, trusted: true };
        }
        let floor = told.map_or(floor, |told| told.max(floor));
        let time = if possible { wall.max(floor) } else { floor };
        Stamp { time, trusted: false }
    }

    fn floor_at(&self, monotonic: Duration) -> Duration {
        self.floor.0 + monotonic.saturating_sub(self.floor.1)
    }

    fn ceiling(&self) -> Duration {
        self.floor.0 + MOST_AHEAD
    }
}

/// A handle on the program's one [`Timekeeper`]; clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    keeper: Arc<Mutex<Timekeeper>>,
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// With the build's time as the floor.
    pub fn new() -> Self {
        let keeper = Timekeeper::new(BUILD_TIME, Duration::ZERO);
        Self { keeper: Arc::new(Mutex::new(keeper)), started: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Stamp {
        // Before 1970: as good as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.lock().now(wall, self.started.elapsed())
    }

    /// See [`Timekeeper::stored`].
    pub fn stored(&self, time: Duration) {
        self.lock().stored(time, self.started.elapsed());
    }

    /// See [`Timekeeper::told`].
    pub fn told(&self, time: Duration) {
        self.lock().told(time, self.started.elapsed());
    }

    /// See [`Timekeeper::synchronized`].
    pub fn synchronized(&self, synchronized: bool) {
        self.lock().synchronized(synchronized);
    }

    fn lock(&self) -> MutexGuard<'_, Timekeeper> {
        // Nothing panics while holding it.
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decimal digits to a number, at compile time.
const fn parse(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (mut value, mut at) = (0, 0);
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_digit(), "the build's time is not a number");
        value = value * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: Duration = Duration::from_secs(1_790_000_000);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn keeper() -> Timekeeper {
        Timekeeper::new(BUILT, s(100))
    }

    #[test]
    fn without_a_clock_time_goes_on_from_the_floor() {
        let mut keeper = keeper();
        assert_eq!(keeper.now(s(0), s(100)), Stamp { time: BUILT, trusted: false });
        assert_eq!(keeper.now(s(7), s(130)), Stamp { time: BUILT + s(30), trusted: false });
        keeper.stored(BUILT + s(1000), s(200));
        assert_eq!(keeper.now(s(9), s(205)).time, BUILT + s(1005));
        keeper.stored(BUILT, s(210));
        assert_eq!(keeper.now(s(9), s(210)).time, BUILT + s(1010), "the floor never sinks");
        keeper.told(BUILT + s(5000), s(300));
        assert_eq!(keeper.now(s(9), s(301)), Stamp { time: BUILT + s(5001), trusted: false });
    }

    #[test]
    fn a_set_clock_is_believed_and_an_absurd_one_is_not() {
        let mut keeper = keeper();
        let wall = BUILT + s(86_400);
        assert_eq!(keeper.now(wall, s(100)), Stamp { time: wall, trusted: false }, "nobody vouches for it");
        keeper.synchronized(true);
        assert_eq!(keeper.now(wall, s(100)), Stamp { time: wall, trusted: true });
        let year_2100 = s(4_102_444_800);
        for absurd in [s(0), BUILT - s(1), year_2100, Duration::MAX] {
            assert_eq!(keeper.now(absurd, s(100)), Stamp { time: BUILT, trusted: false }, "{absurd:?}");
        }
    }

    #[test]
    fn a_clock_that_agrees_with_the_broker_is_trusted_and_one_behind_it_is_not() {
        let mut keeper = keeper();
        keeper.told(BUILT + s(1000), s(100));
        assert!(keeper.now(BUILT + s(1030), s(110)).trusted);
        let behind = keeper.now(BUILT + s(10), s(110));
        assert_eq!(behind, Stamp { time: BUILT + s(1010), trusted: false });
        // A synchronized clock is right, whatever the broker says.
        keeper.synchronized(true);
        assert_eq!(keeper.now(BUILT + s(10), s(110)), Stamp { time: BUILT + s(10), trusted: true });
    }

    #[test]
    fn nobody_moves_the_clock_by_decades() {
        let mut keeper = keeper();
        keeper.told(s(4_102_444_800), s(100));
        keeper.stored(s(4_102_444_800), s(100));
        assert_eq!(keeper.now(s(0), s(100)).time, BUILT);
    }

    #[test]
    fn the_build_has_a_time() {
        assert!(BUILD_TIME > s(1_700_000_000));
        assert!(Clock::new().now().time >= BUILD_TIME);
    }
}
