//! What was measured, beside its goal and the machine's load at that moment.

use std::fmt::Write;
use std::time::Duration;

/// One measurement.
struct Row {
    what: String,
    measured: String,
    goal: String,
    load: String,
    /// Whether the goal was.
    kept: bool,
    /// Whether the box did what it must.
    good: bool,
}

/// The measurements as they come.
pub(super) struct Table {
    rows: Vec<Row>,
    /// Whether a time over its goal is a failure. An emulator on a machine that
    /// others use is slower than any box.
    judges_times: bool,
}

impl Table {
    /// An empty one.
    pub(super) fn new(judges_times: bool) -> Self {
        Self { rows: Vec::new(), judges_times }
    }

    /// Adds one and prints it.
    pub(super) fn row(&mut self, what: &str, measured: impl Into<String>, goal: &str, good: bool) {
        self.add(what, measured.into(), goal, good, good);
    }

    fn add(&mut self, what: &str, measured: String, goal: &str, kept: bool, good: bool) {
        let load = load();
        let mark = match (kept, good) {
            (true, _) => "ok  ",
            (false, true) => "over",
            (false, false) => "MISS",
        };
        let aim = if goal.is_empty() { String::new() } else { format!("goal: {goal}; ") };
        println!("{mark}  {what}: {measured} ({aim}load {load})");
        let (what, goal) = (what.to_owned(), goal.to_owned());
        self.rows.push(Row { what, measured, goal, load, kept, good });
    }

    /// A time with its goal in seconds.
    pub(super) fn seconds(&mut self, what: &str, took: Duration, goal: f64) {
        self.time(what, took, None, goal);
    }

    /// The same, with the processor time that the emulator spent on it: what is
    /// left of a figure when the machine had other things to do.
    pub(super) fn time(&mut self, what: &str, took: Duration, cpu: Option<Duration>, goal: f64) {
        let seconds = took.as_secs_f64();
        let cpu = cpu.map_or(String::new(), |cpu| format!(", {:.1} s of processor time", cpu.as_secs_f64()));
        let kept = seconds <= goal;
        self.add(
            what,
            format!("{seconds:.1} s{cpu}"),
            &format!("{goal} s"),
            kept,
            kept || !self.judges_times,
        );
    }

    /// Whether every goal was kept.
    pub(super) fn good(&self) -> bool {
        self.rows.iter().all(|row| row.good)
    }

    /// How many did what they must and how many did not, as cargo says it of its
    /// tests, for whoever counts.
    pub(super) fn result(&self) -> String {
        let failed = self.rows.iter().filter(|row| !row.good).count();
        let word = if failed == 0 { "ok" } else { "FAILED" };
        format!("test result: {word}. {} passed; {failed} failed; 0 ignored", self.rows.len() - failed)
    }

    /// The table for a document.
    pub(super) fn markdown(&self) -> String {
        let mut text = "| | measured | goal | load |\n|---|---|---|---|\n".to_owned();
        for Row { what, measured, goal, load, kept, .. } in &self.rows {
            let miss = if *kept { "" } else { ": **MISS**" };
            let _ = writeln!(text, "| {what} | {measured} | {goal}{miss} | {load} |");
        }
        text
    }
}

/// The machine's load of the last minute: an emulator shares it with all else.
pub(super) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
