//! Makes a world from a seed: who is there, what goes wrong, what programs do.

use std::time::Duration;

use farm_protocol::keys::DeviceKey;

use super::Options;
use super::broker::Mischief;
use super::ctx::{Ctx, Event};
use super::fault::{self, Places, Scheduled};
use super::judge::{STREAMS_BOUND, UNWATCHED_BOUND, WATCHED_BOUND};
use super::net::{Host, Nat};
use super::rng::Rng;
use super::traffic::Manner;
use super::world::World;

/// The world of a seed.
pub fn make(seed: u64, options: Options) -> World {
    let mut ctx = Ctx::new(seed, options.story, options.mutation);
    let farms = ctx.rng.pick(&[1, 1, 1, 1, 2, 3]);
    let phones = ctx.rng.range(1, 4).min(ctx.rng.range(1, 4)) as usize;
    let phones_of: Vec<usize> = (0..phones).map(|_| ctx.rng.below(farms as u64) as usize).collect();
    ctx.net.hosts.push(broker_host());
    for _ in 0..farms {
        let host = Host::new(&mut ctx.rng);
        ctx.net.hosts.push(host);
    }
    for farm in &phones_of {
        let mut host = Host::new(&mut ctx.rng);
        if fault::hopeless(host.nat, ctx.net.hosts[1 + farm].nat) {
            host.nat = Nat::Preserving;
        }
        ctx.net.hosts.push(host);
    }
    let mut key_rng = Rng::new(ctx.rng.draw());
    let mut keys = || DeviceKey::from_seed(key_rng.bytes()).expect("any 32 bytes are a seed");
    let mut world = World::new(ctx, &mut keys, farms, &phones_of);
    world.ctx.net.repeats = key_rng.chance(0.5);
    let places = Places { farms: (1..=farms).collect(), phones: (1 + farms..=farms + phones).collect() };
    if world.ctx.rng.chance(0.3) {
        super::single::schedule(&mut world, options);
    } else {
        schedule(&mut world, &places, options);
    }
    world
}

fn broker_host() -> Host {
    let mut rng = Rng::new(0);
    let mut host = Host::new(&mut rng);
    host.nat = Nat::Open;
    host.latency = Duration::from_millis(2);
    host.jitter = Duration::ZERO;
    host.loss = 0.0;
    host.rate = 100_000_000;
    host
}

fn schedule(world: &mut World, places: &Places, options: Options) {
    let rng = &mut world.ctx.rng;
    let calm = rng.chance(0.05);
    let window = match rng.below(10) {
        0 => rng.ms(100_000, 500_000),
        1..4 => rng.ms(40_000, 100_000),
        _ => rng.ms(5_000, 40_000),
    };
    let count = if calm { 0 } else { rng.range(1, 8) };
    for n in 0..count {
        let at = rng.between(Duration::ZERO, window);
        let lasts = fault::duration(rng);
        let fault = fault::random(places, rng);
        if n >= 64 || options.without & (1 << n) == 0 {
            world.faults.push(Scheduled { at, lasts, fault });
        }
    }
    world.heal_at = window;
    if rng.chance(0.3) {
        let share = |rng: &mut Rng| rng.below(40) as f64 / 100.0;
        world.broker.mischief =
            Mischief { delays: share(rng), repeats: share(rng), withholds: share(rng), lies: share(rng) };
        let acts: Vec<Duration> = (0..rng.below(12)).map(|_| rng.between(Duration::ZERO, window)).collect();
        acts.into_iter().for_each(|at| world.ctx.schedule(Ctx::at(at), Event::Mischief));
    }
    let rng = &mut world.ctx.rng;
    for phone in 0..places.phones.len() {
        for _ in 0..rng.below(5) {
            let at = rng.between(Duration::ZERO, window);
            let manners = [manner(rng), manner(rng)];
            world.traffic.push((phone, at, manners));
        }
    }
    let healed = world.heal_at;
    world.judge_at = vec![healed + WATCHED_BOUND, healed + WATCHED_BOUND + STREAMS_BOUND];
    if world.ctx.rng.chance(0.06) {
        let host = world.ctx.rng.pick(&places.phones);
        world.retired = Some(host);
        let at = world.ctx.rng.between(Duration::ZERO, window);
        let lasts = healed - at;
        world.faults.push(Scheduled { at, lasts, fault: fault::Fault::Power { host } });
        world.judge_at.push(healed + UNWATCHED_BOUND);
    }
    // A phone that goes on in another slot leaves its former session behind,
    // which is kept for a while before it is cleaned up.
    if world.faults.iter().any(|one| matches!(one.fault, fault::Fault::Rollback { .. })) {
        world.judge_at.push(healed + UNWATCHED_BOUND);
    }
    for node in &mut world.phones {
        if world.ctx.rng.chance(0.2) {
            node.watchers = 0;
            world.judge_at.push(healed + UNWATCHED_BOUND);
            world.judge_at.push(healed + UNWATCHED_BOUND + STREAMS_BOUND);
        }
    }
}

fn manner(rng: &mut Rng) -> Manner {
    let writes = match rng.below(10) {
        0 => 0,
        1..6 => rng.range(1, 3_000),
        6..9 => rng.range(3_000, 150_000),
        _ => rng.range(150_000, 1_500_000),
    };
    let drip = rng.chance(0.3).then(|| {
        let (pieces, pause) = (rng.range(4, 40), rng.ms(50, 1_000));
        ((writes / pieces).max(1) as usize, pause)
    });
    let sips = rng.chance(0.2).then(|| (rng.range(20_000, 100_000) as usize, rng.ms(20, 500)));
    let aborts = rng.chance(0.07).then(|| rng.range(0, 2_000));
    Manner { writes, drip, sips, aborts }
}
