//! What the demo can do, by key and by name.

use std::time::Duration;

/// The script that runs when there is no terminal and none was given.
pub const DEFAULT_SCRIPT: &str = "fetch,throughput,cut,restore,broker,address,fetch,quit";

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch the greenhouse's page through the tunnel.
    Fetch,
    /// Fetch 100 MB through the tunnel and check them.
    Throughput,
    /// Cut the farm's power.
    Cut,
    /// Give it back.
    Restore,
    /// Restart the broker.
    Broker,
    /// Give the farm another address.
    Address,
    /// Make a pairing link and show its QR code.
    Pair,
    /// End.
    Quit,
}

impl Step {
    /// All, in the order of the help line.
    pub const ALL: [Self; 8] = [
        Self::Fetch,
        Self::Throughput,
        Self::Cut,
        Self::Restore,
        Self::Broker,
        Self::Address,
        Self::Pair,
        Self::Quit,
    ];

    /// Its name in a script.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Throughput => "throughput",
            Self::Cut => "cut",
            Self::Restore => "restore",
            Self::Broker => "broker",
            Self::Address => "address",
            Self::Pair => "pair",
            Self::Quit => "quit",
        }
    }

    /// Its key and what the help line says of it.
    pub(super) fn key(self) -> (u8, &'static str) {
        match self {
            Self::Fetch => (b'f', "fetch page"),
            Self::Throughput => (b't', "throughput"),
            Self::Cut => (b'c', "cut power"),
            Self::Restore => (b'r', "restore power"),
            Self::Broker => (b'b', "restart broker"),
            Self::Address => (b'a', "change address"),
            Self::Pair => (b'p', "pairing QR"),
            Self::Quit => (b'q', "quit"),
        }
    }

    /// The step of a key; Ctrl-C and Ctrl-D quit.
    pub(super) fn of_key(key: u8) -> Option<Self> {
        if matches!(key, 3 | 4) {
            return Some(Self::Quit);
        }
        let key = key.to_ascii_lowercase();
        Self::ALL.into_iter().find(|step| step.key().0 == key)
    }

    /// How long it may take. The product's promises are the ceilings: a failure
    /// is noticed within 30 s, mended within 15 s, the broker is back within 10 s.
    pub(super) fn budget(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fetch | Self::Restore | Self::Address => 15,
            Self::Cut => 30,
            // 2 MB/s, a slow LTE link's worth.
            Self::Throughput => 50,
            // The restart itself, and the 10 s.
            Self::Broker => 15,
            Self::Pair | Self::Quit => 10,
        })
    }

    /// Reads a script: names separated by commas.
    ///
    /// # Errors
    /// A message naming the step that is not known, and those that are.
    pub fn script(text: &str) -> Result<Vec<Self>, String> {
        let step = |name: &str| {
            let known = Self::ALL.into_iter().find(|step| step.name() == name);
            known.ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("there is no step {name:?} in a script; there are {names}")
            })
        };
        text.split(',').map(str::trim).map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn scripts() {
        assert_eq!(Step::script("fetch, cut,quit"), Ok(vec![Step::Fetch, Step::Cut, Step::Quit]));
        assert!(Step::script("fetch,explode").unwrap_err().contains("\"explode\""));
        assert!(Step::script("").is_err());
        assert!(Step::script(DEFAULT_SCRIPT).is_ok());
    }

    #[test]
    fn every_step_has_a_key_of_its_own() {
        let keys: BTreeSet<_> = Step::ALL.map(|step| step.key().0).into();
        assert_eq!(keys.len(), Step::ALL.len());
        for step in Step::ALL {
            assert_eq!(Step::of_key(step.key().0), Some(step));
        }
        assert_eq!(Step::of_key(3), Some(Step::Quit));
        assert_eq!(Step::of_key(b'x'), None);
    }
}
