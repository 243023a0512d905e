//! Durations as people write them.

use std::time::Duration;

/// Reads `90s`, `30m`, `12h` or `7d`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration like 30m, 12h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let total = count.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(total))
}

/// The largest whole unit: `3 d`, `5 h`, `2 min`, `40 s`.
pub(super) fn show(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "7", "d", "-1h", "1.5h", "7 d", "99999999999999999999d", "1ü"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(show(119), "119 s");
        assert_eq!(show(7199), "119 min");
        assert_eq!(show(604_800), "7 d");
    }
}
