//! One fault on a good network, watched: what each kind may cost.

use std::time::Duration;

use super::Options;
use super::fault::{Fault, Scheduled};
use super::judge::STREAMS_BOUND;
use super::net::{BROKER, Nat};
use super::traffic::Manner;
use super::world::World;

/// When the fault begins: every session is live by then.
const BEGINS: Duration = Duration::from_secs(12);

/// A kind of fault, and how long after its end, or after a change that has
/// none, every session is live again at the latest.
#[derive(Debug, Clone, Copy)]
pub struct Single {
    /// For the table.
    pub name: &'static str,
    /// See docs/simulation.md for where each comes from.
    pub bound: Duration,
}

/// Makes the only fault of a world.
pub fn schedule(world: &mut World, options: Options) {
    let (farm, phone) = (1, 1 + world.farms.len());
    for host in 0..world.ctx.net.hosts.len() {
        let latency = world.ctx.rng.ms(1, 40);
        let h = &mut world.ctx.net.hosts[host];
        h.loss = 0.0;
        h.jitter = h.jitter.min(Duration::from_millis(5));
        h.latency = if host == BROKER { h.latency } else { latency };
        if h.nat == Nat::Open {
            h.nat = Nat::Preserving;
        }
    }
    let rng = &mut world.ctx.rng;
    let host = if rng.chance(0.5) { farm } else { phone };
    let lasts = rng.ms(4_000, 40_000);
    let (name, fault, lasts, bound) = match rng.below(13) {
        0 | 1 => ("uplink lost, seen", Fault::Link { host, seen: true }, lasts, 16_000),
        2 => ("uplink lost, unseen", Fault::Link { host, seen: false }, lasts, 16_000),
        3 => ("one-way loss", Fault::OneWay { host, out: rng.chance(0.5) }, lasts, 16_000),
        4 => ("address changed, seen", Fault::Address { host, seen: true }, Duration::ZERO, 3_000),
        5 => ("public address changed", Fault::Public { host }, Duration::ZERO, 12_000),
        6 => ("mappings forgotten", Fault::Forget { host }, Duration::ZERO, 12_000),
        7 => ("power cut", Fault::Power { host }, lasts, 4_000),
        8 => ("restarted", Fault::Kill { host }, Duration::from_millis(300), 4_000),
        9 => ("stopped and started", Fault::Stop { host }, lasts, 4_000),
        10 => ("phone in background", Fault::Suspend { host: phone }, lasts, 4_000),
        11 => ("broker killed", Fault::Kill { host: BROKER }, lasts, 0),
        _ => ("broker without power", Fault::Power { host: BROKER }, lasts, 0),
    };
    if options.without & 1 == 0 {
        world.faults.push(Scheduled { at: BEGINS, lasts, fault });
    }
    world.single = Some(Single { name, bound: Duration::from_millis(bound) });
    world.heal_at = BEGINS + lasts;
    for phone in 0..world.phones.len() {
        let bulk = Manner {
            writes: 1_500_000,
            drip: Some((25_000, Duration::from_millis(250))),
            sips: None,
            aborts: None,
        };
        let typed =
            Manner { writes: 400, drip: Some((10, Duration::from_millis(700))), sips: None, aborts: None };
        world.traffic.push((phone, Duration::from_secs(5), [typed, bulk]));
        world.traffic.push((phone, Duration::from_secs(6), [typed, typed]));
    }
    let healed = world.heal_at;
    world.judge_at = vec![healed + Duration::from_secs(60), healed + STREAMS_BOUND];
}
