use super::*;

const MESSAGE: usize = 32 << 10;
const PACKET: usize = 1160;
const STEP: Duration = Duration::from_micros(100);

/// A path with one bottleneck: a rate, a round trip, and a queue that drops nothing but whose
/// longest length is noted. Virtual time, in steps of 0.1 ms.
struct Path {
    now: Instant,
    rate: f64,
    round_trip: Duration,
    /// Bytes waiting at the bottleneck.
    queued: f64,
    /// The sum of that over all steps, and how many.
    waited: (f64, u32),
    /// Acknowledgements on their way: when, and up to which byte.
    acks: VecDeque<(Instant, u64)>,
    sent: u64,
    passed: f64,
    acked: u64,
}

impl Path {
    fn new(mbit: f64, round_trip: Duration) -> Self {
        Self {
            now: Instant::now(),
            rate: mbit * 1e6 / 8.0,
            round_trip,
            queued: 0.0,
            waited: (0.0, 0),
            acks: VecDeque::new(),
            sent: 0,
            passed: 0.0,
            acked: 0,
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.waited = (self.waited.0 + self.queued, self.waited.1 + 1);
        let passing = self.queued.min(self.rate * STEP.as_secs_f64());
        self.queued -= passing;
        self.passed += passing;
        // Acknowledged per packet, except the last bytes of all.
        let whole = (self.passed / PACKET as f64).floor() * PACKET as f64;
        let upto = if self.queued < 1.0 { self.sent } else { whole as u64 };
        self.acks.push_back((self.now + self.round_trip, upto));
        while let Some(&(at, upto)) = self.acks.front() {
            if at > self.now {
                break;
            }
            self.acked = upto;
            self.acks.pop_front();
        }
    }

    fn outstanding(&self) -> usize {
        (self.sent - self.acked) as usize
    }

    fn send(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.queued += bytes as f64;
    }

    /// Mean length of the queue, in seconds, since last asked.
    fn mean_queue(&mut self) -> f64 {
        let (sum, steps) = std::mem::take(&mut self.waited);
        sum / f64::from(steps) / self.rate
    }

    /// Sends all it may for `time`; the share of the path's rate that was used.
    fn bulk(&mut self, window: &mut Window, time: Duration) -> f64 {
        let (end, before) = (self.now + time, self.passed);
        while self.now < end {
            window.outstanding(self.now, self.outstanding());
            while window.admits(self.outstanding(), MESSAGE) {
                self.send(MESSAGE);
                window.sent(self.now, MESSAGE);
            }
            window.limited();
            self.step();
        }
        (self.passed - before) / (self.rate * time.as_secs_f64())
    }
}

const MOST: usize = 768 << 10;

#[test]
fn the_window_fills_the_path_and_not_its_queue() {
    for (mbit, round_trip) in [(1.0, 60), (10.0, 30), (20.0, 80), (50.0, 100), (100.0, 10), (400.0, 2)] {
        let round_trip = Duration::from_millis(round_trip);
        let mut path = Path::new(mbit, round_trip);
        let mut window = Window::new(MOST);
        path.bulk(&mut window, Duration::from_secs(3));
        path.mean_queue();
        let used = path.bulk(&mut window, Duration::from_secs(20));
        let queue = path.mean_queue();
        let case = format!("{mbit} Mbit/s, {round_trip:?}: {used:.3} used, {queue:.3} s queued");
        // The window is drained once in 10 s.
        assert!(used > 0.94, "{case}");
        // Half a round trip, which is measured with one message; or a batch.
        let message = 1.1 * MESSAGE as f64 / path.rate;
        let half = (GAIN - 1.0) * round_trip.as_secs_f64() + GAIN * message;
        assert!(queue <= half.max(0.008), "{case}");
    }
}

#[test]
fn it_finds_the_rate_of_a_long_fat_path_within_a_second() {
    let mut path = Path::new(50.0, Duration::from_millis(100));
    let mut window = Window::new(MOST);
    path.bulk(&mut window, Duration::from_secs(1));
    let used = path.bulk(&mut window, Duration::from_secs(1));
    assert!(used > 0.95, "{used} used in the second second");
}

#[test]
fn it_follows_a_path_that_changes() {
    let mut path = Path::new(50.0, Duration::from_millis(40));
    let mut window = Window::new(MOST);
    path.bulk(&mut window, Duration::from_secs(5));
    // The modem's signal gets weak ...
    path.rate /= 10.0;
    path.bulk(&mut window, Duration::from_secs(5));
    path.mean_queue();
    path.bulk(&mut window, Duration::from_secs(5));
    let queue = path.mean_queue();
    assert!(queue < 0.12, "{queue} s queued after the rate fell");
    // ... and strong again, by a longer way.
    path.rate *= 10.0;
    path.round_trip = Duration::from_millis(90);
    path.bulk(&mut window, Duration::from_secs(5));
    let used = path.bulk(&mut window, Duration::from_secs(5));
    assert!(used > 0.9, "{used} used after it rose");
}

#[test]
fn a_sender_with_little_to_say_keeps_its_window() {
    let mut path = Path::new(50.0, Duration::from_millis(40));
    let mut window = Window::new(MOST);
    path.bulk(&mut window, Duration::from_secs(3));
    let before = window.limit;
    for _ in 0..100 {
        window.outstanding(path.now, path.outstanding());
        path.send(100);
        window.sent(path.now, 100);
        for _ in 0..1000 {
            path.step();
        }
    }
    window.outstanding(path.now, path.outstanding());
    assert!(window.limit >= before * 9 / 10, "{before} became {}", window.limit);
}

#[test]
fn the_bounds_hold_whatever_is_measured() {
    let start = Instant::now();
    for most in [1, 4096, MOST] {
        let mut window = Window::new(most);
        let mut now = start;
        for step in 0..10_000u64 {
            let bytes = (step * 7919 % 70_000) as usize;
            window.sent(now, bytes);
            now += Duration::from_nanos(step * step % 50_000_000);
            window.outstanding(now, (step * 104_729 % 100_000) as usize);
            if step % 3 == 0 {
                window.limited();
            }
            let limit = window.limit;
            assert!(limit <= most && limit >= LEAST.min(most), "step {step}: {limit} of {most}");
        }
    }
}

#[test]
fn a_clock_that_stands_still_does_no_harm() {
    let now = Instant::now();
    let mut window = Window::new(MOST);
    for _ in 0..100 {
        window.sent(now, MESSAGE);
        window.outstanding(now, 0);
    }
    assert!(window.limit <= MOST);
}

#[test]
fn what_comes_at_once_fits_a_receiver_that_said_what_it_holds() {
    const HOLDS: usize = 48 << 10;
    // Paths without a queue of their own to speak of, up to LTE's round trip.
    for (mbit, round_trip) in [(2_000.0, 0.3), (400.0, 2.0), (400.0, 5.0), (400.0, 20.0), (50.0, 80.0)] {
        let mut path = Path::new(mbit, Duration::from_secs_f64(round_trip / 1e3));
        let mut window = Window::new(MOST);
        window.receiver_holds(HOLDS);
        let rate = path.bulk(&mut window, Duration::from_secs(5)) * path.rate;
        // At once, or within the time in which the receiver may not run. A round trip is measured
        // with a message, which takes its time.
        let steady = HOLDS as f64 / HOLDS_FOR.as_secs_f64();
        let measured = round_trip / 1e3 + MESSAGE as f64 / path.rate + STEP.as_secs_f64();
        let most = HOLDS.max((steady * measured) as usize);
        assert!(window.limit <= most, "{mbit} Mbit/s, {round_trip} ms: {} of {most}", window.limit);
        // Whole messages: three of the four that almost fit.
        assert!(rate > 0.75 * path.rate.min(steady), "{mbit} Mbit/s, {round_trip} ms: {rate} bytes/s");
    }
}

#[test]
fn a_receiver_that_holds_nothing_or_everything_gets_a_window_within_bounds() {
    for (said, limit) in [(1, LEAST), (usize::MAX, INITIAL), (0, INITIAL)] {
        let mut window = Window::new(MOST);
        window.receiver_holds(said);
        assert_eq!(window.limit, limit, "said {said}");
    }
}
