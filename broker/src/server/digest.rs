//! One log line a minute on what was refused, instead of one per attempt.

use std::time::{Duration, Instant};

use crate::core::counters::Counters;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// What counts as normal life and has no place in the digest.
const NORMAL: [&str; 7] =
    ["opened", "welcomed", "enrolled", "signals", "presence", "stun_answered", "alerts_sent"];

/// Compares the counters now and then.
#[derive(Debug)]
pub(super) struct Digest {
    last: Counters,
    due: Instant,
}

impl Digest {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: Counters::default(), due: now + INTERVAL }
    }

    /// When to look next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Logs what has grown, if it is time.
    pub(super) fn look(&mut self, counters: &Counters, now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        let before = std::mem::replace(&mut self.last, *counters);
        if let Some(line) = grown(&before, counters) {
            tracing::info!("in the last minute: {line}");
        }
    }
}

/// `name +count` of each counter that grew; `None` if none did.
fn grown(before: &Counters, now: &Counters) -> Option<String> {
    let pairs = before.iter().zip(now.iter());
    let grown: Vec<String> = pairs
        .filter(|((name, before), (_, now))| now > before && !NORMAL.contains(name))
        .map(|((name, before), (_, now))| format!("{name} +{}", now - before))
        .collect();
    (!grown.is_empty()).then(|| grown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_and_is_not_normal_is_told() {
        let before = Counters { limit_messages: 3, ..Counters::default() };
        let mut now = before;
        (now.opened, now.signals) = (50, 900);
        assert_eq!(grown(&before, &now), None);
        (now.limit_messages, now.refused_bad_token) = (5, 1);
        assert_eq!(grown(&before, &now).unwrap(), "refused_bad_token +1, limit_messages +2");
    }
}
