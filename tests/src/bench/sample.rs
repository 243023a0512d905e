//! What is said of many measurements of one thing.

use std::time::Duration;

/// Measurements in the order they were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn push_time(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest value that at least `share` of all do not exceed (nearest
    /// rank); NaN of nothing.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        let (half, len) = (self.quantile(0.5), self.0.len());
        if len % 2 == 1 {
            return half;
        }
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(len / 2).map_or(half, |upper| (half + upper) / 2.0)
    }

    pub(crate) fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// Each value divided by the one of the same turn in `other`.
    pub(crate) fn divided_by(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// The slope of the straight line nearest to the points (least squares); 0 where
/// there is no line.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let joint: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    if spread > 0.0 { joint / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample(values.to_vec())
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let hundred = Sample((1..=100).rev().map(f64::from).collect());
        assert_eq!((hundred.quantile(0.95), hundred.quantile(0.99)), (95.0, 99.0));
        assert_eq!((hundred.min(), hundred.max()), (1.0, 100.0));
        assert_eq!(sample(&[7.0]).quantile(0.95), 7.0);
        assert!(sample(&[]).quantile(0.5).is_nan() && sample(&[]).median().is_nan());
    }

    #[test]
    fn medians() {
        assert_eq!(sample(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(sample(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    }

    #[test]
    fn ratios_are_taken_turn_by_turn() {
        let ratio = sample(&[10.0, 40.0]).divided_by(&sample(&[5.0, 10.0, 1.0]));
        assert_eq!(ratio.0, [2.0, 4.0]);
    }

    #[test]
    fn slopes() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(1.0, 3.0)]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }
}
