//! Two ends, random programs on top, and carriers that are cut at random:
//! every byte arrives once, in order, and every stream comes to an end.

mod parts;
mod world;

use parts::{Plan, Tally};
use world::World;

/// Seeds of every test run. More by hand: `MUX_SEEDS=100000 cargo test`.
const SEEDS: u64 = 2500;

fn seeds() -> u64 {
    std::env::var("MUX_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

fn run(seed: u64, plan: Plan) -> Result<Tally, String> {
    World::new(seed, plan).run().map_err(|what| format!("seed {seed}, {plan:?}: {what}"))
}

#[test]
fn streams_survive_carriers_cut_at_random() {
    let mut total = Tally::default();
    for seed in 0..seeds() {
        let tally = run(seed, Plan::default()).unwrap_or_else(|what| panic!("{what}"));
        total.add(&tally);
    }
    // The simulation did meet what it is about.
    println!("{total:?}");
    assert!(total.cuts > 5 * seeds() && total.completed > 2 * seeds(), "{total:?}");
    assert!(total.lost_frames > 5 * seeds() && total.early_frames > seeds(), "{total:?}");
    assert!(total.replayed_bytes > 1000 * seeds() && total.reset > seeds() / 2, "{total:?}");
}

#[test]
fn a_restarted_farm_leaves_no_stream_hanging() {
    let plan = Plan { farm_restarts: true, ..Plan::default() };
    let mut total = Tally::default();
    for seed in 0..seeds() / 2 {
        total.add(&run(seed, plan).unwrap_or_else(|what| panic!("{what}")));
    }
    println!("{total:?}");
    assert!(total.restarts > seeds() / 4 && total.completed > seeds() / 2, "{total:?}");
}

#[test]
fn the_simulation_notices_when_a_cut_does_not_rewind() {
    let plan = Plan { forget_to_rewind: true, ..Plan::default() };
    let caught = (0..50).filter(|seed| run(*seed, plan).is_err()).count();
    println!("caught in {caught} of 50 seeds");
    assert!(caught > 25, "caught in {caught} of 50 seeds");
}
