//! The benchmarks: `make bench`. A whole farm on loopback, measured from outside
//! as its users meet it, and printed as one table with the budgets beside it.
//!
//! Each part measures one subject and is bounded in time; what a part could not
//! measure stands in the table with the reason.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::harness::end_all;

mod cycles;
mod download;
mod echo;
mod first_byte;
mod idle;
mod machine;
mod part;
mod peers;
mod sample;
mod scale;
mod service;
mod size;
mod start;
mod stop;
mod table;
mod throughput;
mod trouble;
mod usage;
mod world;

use machine::Machine;
use part::Part;
pub use scale::Length;
use scale::Scale;
use table::{Row, Table};
use trouble::Trouble;
use world::World;

/// What to measure and where to put it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much.
    pub length: Length,
    /// Connect and disconnect so many times instead of what `length` says.
    pub cycles: Option<u32>,
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
    let started = World::start().and_then(|world| measure(world, &scale, &mut table));
    let took = start.elapsed();
    let reached = bound.lift();
    machine.look_again();

    print!("{}{table}", machine.headline(options.length, took));
    let mut exit = ExitCode::SUCCESS;
    if let Err(error) = started {
        eprintln!("bench: {error}");
        exit = ExitCode::FAILURE;
    } else if crate::harness::ending() && !reached {
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
fn measure(mut world: World, scale: &Scale, table: &mut Table) -> Result<(), Trouble> {
    let mut parts = Parts { table, bound: scale.bound };
    parts.run("agent start", |rows| start::measure(&mut world, scale, rows));
    // The other tunnels need seconds to start; nothing that is timed runs meanwhile.
    let peers = peers::Starting::begin(world.greenhouse_address, world.dir())?;
    parts.run("idle, unpaired", |rows| idle::unpaired(&world, scale, rows));
    world.pair()?;
    parts.run("offer to first byte", |rows| first_byte::measure(&world, scale, rows));
    let peers = peers.finish();
    parts.run("throughput", |rows| throughput::measure(&world, &peers, scale, rows));
    drop(peers);
    parts.run("echo round trip, 64 bytes", |rows| echo::measure(&world, scale, rows));
    parts.run("large download", |rows| download::measure(&world, scale, rows));
    parts.run("connect and disconnect", |rows| cycles::measure(&world, scale, rows));
    parts.run("idle, one session", |rows| idle::with_session(&mut world, scale, rows));
    parts.run("program size, stripped", size::measure);
    world.end()
}

struct Parts<'a> {
    table: &'a mut Table,
    bound: Duration,
}

impl Parts<'_> {
    fn run(&mut self, group: &'static str, work: impl FnOnce(&mut Part) -> Result<(), Trouble>) {
        let start = Instant::now();
        eprint!("{group} … ");
        let mut part = Part::new(group);
        if let Err(error) = work(&mut part) {
            let late = format!("out of time: the whole run is bounded to {} s", self.bound.as_secs());
            let reason = if stop::bound_reached() { late } else { error.to_string() };
            part.push(Row::missing("the rest", &reason));
        }
        self.table.add(part);
        eprintln!("{:.1} s", start.elapsed().as_secs_f64());
    }
}
