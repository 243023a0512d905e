//! Amounts of data for people.

/// Bytes in units of a thousand, as providers count traffic: `999 B`, `2.5 MB`.
pub(super) fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while amount >= 999.95 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::show;

    #[test]
    fn amounts_are_short() {
        let shown = [0, 999, 1000, 2_500_000, 999_949_999, 999_950_000, u64::MAX].map(show);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "2.5 MB", "999.9 MB", "1.0 GB", "18446.7 PB"]);
    }
}
