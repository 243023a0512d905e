//! Times in words, for people.

/// A duration in its two largest units: `0.3 s`, `12.0 s`, `2 min 5 s`, `3 h 1 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{:.1} s", seconds.max(0.0)),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Seconds since 1970 as `2026-11-22 18:30:27`, in UTC.
pub fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

/// Milliseconds since 1970 as `2026-11-22T19:35:07.250Z` (RFC 3339).
pub fn rfc3339(milliseconds: u64) -> String {
    let (days, within) = (milliseconds / 86_400_000, milliseconds % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (within / 3_600_000, within / 60_000 % 60);
    let (second, rest) = (within / 1000 % 60, within % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// Year, month and day of a day since 1970 in the Gregorian calendar. Years
/// are counted from March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let days = days + 719_468; // from 1 March of the year 0
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0.0, "0.0 s"),
            (0.34, "0.3 s"),
            (12.0, "12.0 s"),
            (59.7, "1 min 0 s"),
            (125.0, "2 min 5 s"),
            (3600.0 * 3.0 + 61.0, "3 h 1 min"),
            (86_400.0 * 2.0, "2 d 0 h"),
            (-1.0, "0.0 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn dates_are_the_calendars() {
        // As `date -u -d @N` prints them.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_372_227, "2026-11-22 18:30:27"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        assert_eq!(rfc3339(1_790_000_000_250), "2026-09-21T14:13:20.250Z");
        let mut before = civil(0);
        for day in 1..200_000 {
            let now = civil(day);
            assert!(now > before && now.2 <= 31, "{now:?} after {before:?}");
            assert!(now.2 == before.2 + 1 || now.2 == 1, "{now:?} after {before:?}");
            before = now;
        }
    }
}
