//! The NAT grid: every pair of routers, the way that a tunnel takes between
//! them, and how long it takes to come up.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::namespace::sweep;
use super::network::End;
use super::traffic::Session;
use super::world::{ECHO, Paired};
use super::{LabError, Nat, Route, Topology};
use crate::harness::farm::FARM;
use crate::harness::{Line, ending, until};

/// The routers of the grid, in the order of its rows (the farm's) and columns
/// (the phone's).
pub const GRID_NATS: [Nat; 4] = [Nat::Open, Nat::Preserving, Nat::Symmetric, Nat::NoUdp];

/// The way of each cell.
pub const GRID_ROUTES: [[Route; 4]; 4] = {
    use Route::{Direct as D, Relayed as R, RelayedByTcp as T};
    [
        // Open    Preserving Symmetric NoUdp: the phone's router
        [D, D, D, T],
        [D, D, R, T],
        [D, R, R, T],
        [T, T, T, T],
    ]
};

/// From the start of farm-connect to the first byte that came back through the
/// tunnel, at most: the broker, ICE, the handshakes and the stream.
const DIRECT_WITHIN: Duration = Duration::from_secs(1);
/// The same through a relay, which is asked last.
const RELAYED_WITHIN: Duration = Duration::from_secs(2);

/// A tunnel that came up relayed where a direct way exists (a busy machine was
/// late) finds that within its second attempt, 15 s after the first.
const SETTLES_WITHIN: Duration = Duration::from_secs(25);

/// One cell, measured.
pub struct Cell {
    topology: Topology,
    /// Until the first byte; `None` if none came.
    took: Option<Duration>,
    /// The way that it took in the end.
    route: Option<Route>,
    problem: Option<String>,
}

impl Cell {
    /// What is wrong with it, where times may be `slack` times their goal.
    #[must_use]
    pub fn misses(&self, slack: f64) -> Vec<String> {
        let expected = self.topology.route;
        let within = if expected == Route::Direct { DIRECT_WITHIN } else { RELAYED_WITHIN };
        let mut misses: Vec<_> = self.problem.iter().cloned().collect();
        if self.route != Some(expected) {
            misses.push(format!("{:?} instead of {expected:?}", self.route));
        }
        match self.took {
            None => misses.push("nothing came through".to_owned()),
            Some(took) if took > within.mul_f64(slack) => {
                misses.push(format!("{:.2} s instead of {:.2}", took.as_secs_f64(), within.as_secs_f64()));
            }
            Some(_) => {}
        }
        misses
    }

    /// Its name: the farm's router, the phone's.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:?} × {:?}", self.topology.farm, self.topology.phone)
    }
}

/// Measures every cell, `jobs` at once.
///
/// # Errors
/// When no thread can be made. What fails in a cell is in the cell.
pub fn grid(jobs: usize) -> Result<Vec<Cell>, LabError> {
    sweep();
    let cells = GRID_NATS.iter().enumerate().flat_map(|(row, &farm)| {
        let routes = GRID_ROUTES[row];
        let cell = move |(phone, route)| Topology { name: "grid", farm, phone, route, uplink: None };
        GRID_NATS.into_iter().zip(routes).map(cell)
    });
    let queue: Mutex<VecDeque<_>> = Mutex::new(cells.enumerate().collect());
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (queue, done) = (&queue, done.clone());
            let work = move || {
                while !ending() {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((place, topology)) = next else { return };
                    // The receiver outlives all workers.
                    let _ = done.send((place, measure(topology)));
                }
            };
            std::thread::Builder::new()
                .name("lab".to_owned())
                .spawn_scoped(scope, work)
                .map_err(LabError::io("starting a lab"))?;
        }
        drop(done);
        let mut cells: Vec<_> = results.into_iter().collect();
        cells.sort_by_key(|(place, _)| *place);
        Ok(cells.into_iter().map(|(_, cell)| cell).collect())
    })
}

fn measure(topology: Topology) -> Cell {
    let mut cell = Cell { topology, took: None, route: None, problem: None };
    if let Err(error) = connect(&topology, &mut cell) {
        cell.problem = Some(error.to_string());
    }
    cell
}

fn connect(topology: &Topology, cell: &mut Cell) -> Result<(), LabError> {
    let paired = Paired::start(topology)?;
    let start = Instant::now();
    let forward = paired.farm.phone.forward(FARM, ECHO)?;
    let _session = Session::open(paired.network.host(End::Phone), forward.address)?;
    cell.took = Some(start.elapsed());
    let seen = || {
        let route = route(&forward.process.lines(), &paired.farm.agent.daemon.process().ok()?.lines());
        cell.route = route;
        (route == Some(topology.route)).then_some(())
    };
    if until("its way", SETTLES_WITHIN, seen).is_err() {
        let said = [forward.process.lines(), paired.farm.agent.daemon.process()?.lines()].concat();
        let said: Vec<_> = said.iter().map(|line| line.text.as_str()).collect();
        return Err(LabError::Wrong(format!("another way than expected; said was\n{}", said.join("\n"))));
    }
    Ok(())
}

/// The way that the phone's newest carrier takes, by what both sides said.
fn route(phone: &[Line], farm: &[Line]) -> Option<Route> {
    let path = phone.iter().rev().find(|line| line.text.contains("the carrier's path"))?;
    if path.text.contains("kind=Direct") {
        return Some(Route::Direct);
    }
    let by_stream =
        |line: &Line| line.text.contains("the relay answered") && line.text.contains("via=Stream");
    let tcp = phone.iter().chain(farm).any(by_stream);
    Some(if tcp { Route::RelayedByTcp } else { Route::Relayed })
}

/// The grid as a table: the farm's router by row, the phone's by column.
#[must_use]
pub fn markdown(cells: &[Cell], slack: f64) -> String {
    let mut text = "| farm's router \\ phone's |".to_owned();
    for nat in GRID_NATS {
        let _ = write!(text, " {} |", nat.words());
    }
    text.push_str("\n|---|---|---|---|---|\n");
    for row in cells.chunks(GRID_NATS.len()) {
        let farm = row.first().map_or("", |cell| cell.topology.farm.words());
        let _ = write!(text, "| {farm} |");
        for cell in row {
            let route = cell.route.map_or("no way", Route::words);
            let took = cell.took.map_or("–".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()));
            let mark = if cell.misses(slack).is_empty() { "" } else { " **missed**" };
            let _ = write!(text, " {route}, {took}{mark} |");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_ways_is_what_routers_allow() {
        for (row, farm) in GRID_NATS.into_iter().enumerate() {
            for (column, phone) in GRID_NATS.into_iter().enumerate() {
                assert_eq!(GRID_ROUTES[row][column], Route::between(farm, phone), "{farm:?} × {phone:?}");
                assert_eq!(GRID_ROUTES[row][column], GRID_ROUTES[column][row], "it is symmetric");
            }
        }
    }

    #[test]
    fn a_cell_that_takes_another_way_or_too_long_is_missed() {
        let topology = Topology {
            name: "grid",
            farm: Nat::Symmetric,
            phone: Nat::Symmetric,
            route: Route::Relayed,
            uplink: None,
        };
        let cell = |took, route| Cell { topology, took, route, problem: None };
        assert!(cell(Some(RELAYED_WITHIN), Some(Route::Relayed)).misses(1.0).is_empty());
        assert_eq!(cell(Some(RELAYED_WITHIN * 2), Some(Route::Relayed)).misses(1.0).len(), 1);
        assert_eq!(cell(Some(RELAYED_WITHIN), Some(Route::Direct)).misses(1.0).len(), 1);
        assert_eq!(cell(None, None).misses(1.0).len(), 2);
    }
}
