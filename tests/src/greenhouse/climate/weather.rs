//! The weather outside, as a function of the second alone: a mild day with
//! passing clouds.

use super::DAY;

/// Outside conditions at one second.
pub(super) struct Weather {
    /// °C.
    pub(super) temperature: f64,
    /// Sun on a level surface, W/m².
    pub(super) sun: f64,
}

impl Weather {
    /// Outside absolute humidity, g/m³: 62 % at 17 °C.
    pub(super) const VAPOUR: f64 = 9.0;
    /// Outside carbon dioxide, parts per million.
    pub(super) const CO2: f64 = 420.0;

    pub(super) fn at(second: u64) -> Self {
        let hour = (second % DAY) as f64 / 3_600.0;
        let turn = std::f64::consts::TAU / 24.0;
        // Sunrise at six, sunset at 18; the air is warmest at three.
        let height = ((hour - 6.0) * turn).sin().max(0.0);
        Self { temperature: 16.0 + 7.0 * ((hour - 15.0) * turn).cos(), sun: 900.0 * height * clouds(second) }
    }
}

/// How much of the sun the clouds let through, 0.35..=1, smooth over minutes.
fn clouds(second: u64) -> f64 {
    const SPACING: u64 = 240;
    let cell = second / SPACING;
    let along = (second % SPACING) as f64 / SPACING as f64;
    let eased = along * along * (3.0 - 2.0 * along);
    let (from, to) = (noise(cell, 100), noise(cell + 1, 100));
    0.675 + 0.325 * (from + (to - from) * eased)
}

/// Repeatable noise in -1..=1 for a second and a channel.
pub(super) fn noise(second: u64, channel: u64) -> f64 {
    let mixed = mix(second.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ mix(channel));
    (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit
/// reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_smooth_and_within_bounds() {
        for second in 0..10_000 {
            let (now, next) = (clouds(second), clouds(second + 1));
            assert!((0.34..=1.01).contains(&now), "second {second}: {now}");
            assert!((now - next).abs() < 0.01, "second {second}");
        }
    }

    #[test]
    fn noise_is_centred() {
        let mean = (0..10_000).map(|s| noise(s, 7)).sum::<f64>() / 10_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
    }
}
