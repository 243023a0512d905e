//! How much is measured.

use std::time::Duration;

/// How much to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// Less than a minute.
    Quick,
    /// Less than eight minutes: the parts of it take six on a quiet machine.
    #[default]
    Normal,
    /// Up to an hour.
    Full,
}

impl Length {
    /// For people and scripts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Normal => "normal",
            Self::Full => "full",
        }
    }
}

/// The counts, sizes and time limits of one run.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    /// Starts of the agent.
    pub(super) starts: usize,
    /// How long an idle program is looked at.
    pub(super) idle: Duration,
    /// Whether to wait until a session counts as unwatched, half a minute.
    pub(super) unwatched: bool,
    /// Fresh tunnels in this process.
    pub(super) tunnels: usize,
    /// Fresh starts of the phone's program.
    pub(super) programs: usize,
    /// Rounds over all that is compared.
    pub(super) rounds: usize,
    /// Megabytes of a download alone.
    pub(super) alone: u32,
    /// Megabytes of each download among eight.
    pub(super) among: u32,
    /// Echoes of each kind.
    pub(super) echoes: usize,
    /// Connections made and ended.
    pub(super) cycles: u32,
    /// Megabytes of the one large download; 0 for none.
    pub(super) large: u32,
    /// Messages of each client in a round through a relay; one every ms.
    pub(super) relayed: u64,
    /// What a part that repeats may take: after it, what is there counts.
    pub(super) share: Duration,
    /// What all of it may take; then every program is ended.
    pub(super) bound: Duration,
}

impl Scale {
    pub(super) fn of(length: Length) -> Self {
        let seconds = Duration::from_secs;
        match length {
            Length::Quick => Self {
                starts: 5,
                idle: seconds(4),
                unwatched: false,
                tunnels: 10,
                programs: 3,
                rounds: 2,
                alone: 20,
                among: 5,
                echoes: 300,
                cycles: 15,
                large: 0,
                relayed: 1_500,
                share: seconds(10),
                bound: seconds(57),
            },
            Length::Normal => Self {
                starts: 20,
                idle: seconds(20),
                unwatched: true,
                tunnels: 50,
                programs: 10,
                rounds: 5,
                alone: 100,
                among: 25,
                echoes: 2_000,
                cycles: 100,
                large: 0,
                relayed: 3_000,
                share: seconds(60),
                bound: seconds(475),
            },
            Length::Full => Self {
                starts: 50,
                idle: seconds(60),
                unwatched: true,
                tunnels: 200,
                programs: 50,
                rounds: 15,
                alone: 200,
                among: 50,
                echoes: 10_000,
                cycles: 1_000,
                large: 1_000,
                relayed: 10_000,
                share: seconds(600),
                bound: seconds(3_600),
            },
        }
    }
}
