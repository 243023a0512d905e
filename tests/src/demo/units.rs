//! Numbers for people.

use std::time::Duration;

/// `340 ms` below a second, `1.2 s` above, `2:05 min` above two minutes.
pub(super) fn time(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 9.95 {
        format!("{millis:.1} ms")
    } else if millis < 999.5 {
        format!("{millis:.0} ms")
    } else if duration.as_secs() < 120 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min", clock(duration))
    }
}

/// `1:02` minutes and seconds since the start.
pub(super) fn clock(duration: Duration) -> String {
    format!("{}:{:02}", duration.as_secs() / 60, duration.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        for (micros, text) in [
            (400, "0.4 ms"),
            (9_960, "10 ms"),
            (340_000, "340 ms"),
            (999_600, "1.0 s"),
            (12_340_000, "12.3 s"),
            (125_000_000, "2:05 min"),
        ] {
            assert_eq!(time(Duration::from_micros(micros)), text);
        }
    }
}
