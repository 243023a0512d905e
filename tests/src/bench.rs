//! The benchmarks: `make bench`. A whole farm on loopback, measured from outside
//! as its users meet it, and printed as one table with the budgets beside it.
//!
//! Each part measures one subject and is bounded in time; what a part could not
//! measure stands in the table with the reason.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::harness::{HarnessError, end_all, ending};

mod cycles;
mod download;
mod echo;
mod first_byte;
mod idle;
mod machine;
mod part;
mod peers;
mod readings;
mod relay;
pub(crate) mod sample;
mod scale;
mod service;
mod size;
mod start;
pub(crate) mod stop;
mod table;
mod throughput;
pub(crate) mod trouble;
mod usage;
mod world;

use machine::Machine;
use part::Part;
pub use scale::Length;
use scale::Scale;
use table::{Row, Table};
use trouble::Trouble;
use world::World;

/// The part that other tunnels are measured in.
const THROUGHPUT: &str = "throughput";

/// What to measure and where to put it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much.
    pub length: Length,
    /// Connect and disconnect so many times instead of what `length` says.
    pub cycles: Option<u32>,
    /// Measure only the parts whose name contains this.
    pub only: Option<String>,
    /// A file for the same figures in JSON.
    pub json: Option<PathBuf>,
}

/// Measures everything and prints the table. Fails when the farm could not be
/// started, the run was stopped, or the JSON could not be written; a figure over
/// its budget is a result like another.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let mut scale = Scale::of(options.length);
    scale.cycles = options.cycles.unwrap_or(scale.cycles);
    if let Err(error) = stop::on_signal(end_all) {
        eprintln!("bench: signals can't be caught, Ctrl-C would leave programs behind: {error}");
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    let bound = stop::Bound::set(scale.bound);
    let mut table = Table::default();
    let mut machine = Machine::look();
    let started =
        World::start().and_then(|world| measure(world, &scale, options.only.as_deref(), &mut table));
    let took = start.elapsed();
    let reached = bound.lift();
    machine.look_again();

    let mut exit = ExitCode::SUCCESS;
    if !table.is_empty() {
        print!("{}{table}", machine.headline(options.length, took));
    } else if let (Some(only), Ok(())) = (&options.only, &started) {
        eprintln!("bench: no part's name contains {only:?}");
        exit = ExitCode::FAILURE;
    }
    if let Err(error) = started {
        eprintln!("bench: {error}");
        exit = ExitCode::FAILURE;
    } else if ending() && !reached {
        eprintln!("bench: stopped; the table has what was measured until then");
        exit = ExitCode::FAILURE;
    }
    if let Some(path) = &options.json {
        let text = table.json(&machine, options.length, took);
        if let Err(error) = std::fs::write(path, text) {
            eprintln!("bench: writing {}: {error}", path.display());
            exit = ExitCode::FAILURE;
        }
    }
    exit
}

/// All parts, from the farm's first start on; the order lets each find the
/// programs in the state it needs.
fn measure(mut world: World, scale: &Scale, only: Option<&str>, table: &mut Table) -> Result<(), Trouble> {
    let mut parts = Parts { table, only, bound: scale.bound };
    parts.run("agent start", |rows| start::measure(&mut world, scale, rows));
    // The other tunnels need seconds to start; nothing that is timed runs meanwhile.
    let compared = parts.wanted(THROUGHPUT);
    let peers =
        compared.then(|| peers::Starting::begin(world.greenhouse_address, world.dir())).transpose()?;
    parts.run("idle, unpaired", |rows| idle::unpaired(&world, scale, rows));
    world.pair()?;
    parts.run("offer to first byte", |rows| first_byte::measure(&world, scale, rows));
    let peers = peers.map(peers::Starting::finish).unwrap_or_default();
    parts.run(THROUGHPUT, |rows| throughput::measure(&world, &peers, scale, rows));
    drop(peers);
    parts.run("echo round trip, 64 bytes", |rows| echo::measure(&world, scale, rows));
    parts.run("large download", |rows| download::measure(&world, scale, rows));
    parts.run("connect and disconnect", |rows| cycles::measure(&world, scale, rows));
    parts.run("idle, one session", |rows| idle::with_session(&mut world, scale, rows));
    parts.run("readings", |rows| readings::measure(world.dir(), scale, rows));
    parts.run("relay", |rows| relay::measure(world.dir(), scale, rows));
    parts.run("program size, stripped", size::measure);
    world.end()
}

struct Parts<'a> {
    table: &'a mut Table,
    only: Option<&'a str>,
    bound: Duration,
}

impl Parts<'_> {
    fn wanted(&self, group: &str) -> bool {
        self.only.is_none_or(|only| group.contains(only))
    }

    fn run(&mut self, group: &'static str, work: impl FnOnce(&mut Part) -> Result<(), Trouble>) {
        if !self.wanted(group) {
            return;
        }
        let start = Instant::now();
        eprint!("{group} … ");
        let mut part = Part::new(group);
        let done = if ending() { Err(HarnessError::Ending.into()) } else { work(&mut part) };
        if let Err(error) = done {
            let reason = if stop::bound_reached() {
                format!("out of time: the whole run is bounded to {} s", self.bound.as_secs())
            } else if ending() {
                // What failed then failed because its programs were ended.
                HarnessError::Ending.to_string()
            } else {
                error.to_string()
            };
            part.push(Row::missing("the rest", &reason));
        }
        self.table.add(part);
        eprintln!("{:.1} s", start.elapsed().as_secs_f64());
    }
}
