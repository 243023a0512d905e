//! Where the figures come from: without it they can't be compared.

use std::time::Duration;

use serde::Serialize;

use super::scale::Length;

/// The machine, and how busy it was with other things.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    cores: usize,
    architecture: &'static str,
    kernel: String,
    optimised: bool,
    /// Programs that ran or wanted to, averaged over a minute (proc(5)).
    load_before: Option<f64>,
    load_after: Option<f64>,
}

impl Machine {
    pub(super) fn look() -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            architecture: std::env::consts::ARCH,
            kernel: kernel.trim().to_owned(),
            optimised: !cfg!(debug_assertions),
            load_before: load(),
            load_after: None,
        }
    }

    pub(super) fn look_again(&mut self) {
        self.load_after = load();
    }

    /// What stands above the table.
    pub(super) fn headline(&self, length: Length, took: Duration) -> String {
        let load = |load: Option<f64>| load.map_or_else(|| "?".to_owned(), |load| format!("{load:.1}"));
        let mut text = format!(
            "{} run in {:.0} s on {} cores ({}, Linux {}), load {} before, {} after\n",
            length.name(),
            took.as_secs_f64(),
            self.cores,
            self.architecture,
            self.kernel,
            load(self.load_before),
            load(self.load_after),
        );
        if !self.optimised {
            text.push_str("NOT optimised: build with --release before comparing anything\n");
        }
        text
    }
}

fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
