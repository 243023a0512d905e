//! Power cuts at random moments, each replayed with what a card may lose.

use std::time::Duration;

use crate::image::cut::{Chance, replay};
use crate::image::guest::{Guest, Start};
use crate::image::suite::Bench;
use crate::image::world::World;
use crate::image::{ImageError, wrong};

/// A cut in the boot hits its first so many milliseconds.
const IN_THE_BOOT: u64 = 40_000;

/// A cut at work comes so many milliseconds after a file at the latest:
/// readings and the event log are written meanwhile.
const AT_WORK: u64 = 15_000;

/// Readings that the phone has been told of: number and value.
type Known = Vec<(u64, String)>;

/// Cuts the power again and again; each time the same phone is served, and
/// nothing that was acknowledged is lost.
pub(in crate::image) fn cuts(bench: &mut Bench) -> Result<(), ImageError> {
    let (seed, count) = (bench.plan.seed, bench.plan.cuts);
    let mut card = bench.off()?;
    let mut chance = Chance::new(seed);
    let (mut survived, mut unflushed, mut lost, mut writes) = (0, 0, 0, 0);
    let (mut times, mut known) = (Vec::new(), Known::new());
    for cut in 1..=count {
        let log = bench.file("writes.log");
        let before = card.copy_to(bench.file(&format!("card-{cut}.img")))?;
        let guest = bench.start(&card, Start { log: Some(&log), ..Start::default() })?;
        // Every third cut hits a boot; its writes count with the next ones.
        let early = cut % 3 == 0;
        let outcome = if early {
            std::thread::sleep(Duration::from_millis(chance.below(IN_THE_BOOT)));
            Ok(())
        } else {
            served(&guest, &mut bench.world, &mut known).map(|tunnel| {
                times.push(tunnel);
                std::thread::sleep(Duration::from_millis(chance.below(AT_WORK)));
            })
        };
        let after = guest.cut()?.as_secs_f64();
        let replayed = replay(&log, &before, &mut chance)?;
        (unflushed, lost, writes) =
            (unflushed + replayed.unflushed, lost + replayed.lost, writes + replayed.writes);
        std::mem::replace(&mut card, before).remove()?;
        let what = if early { "in the boot" } else { "at work" };
        match outcome {
            Ok(()) => {
                survived += 1;
                println!("      cut {cut} of {count} after {after:.1} s ({what}): {replayed}");
            }
            Err(error) => println!("MISS  cut {cut} of {count}, seed {seed}: {error}"),
        }
    }
    // The last cut must be survived, too.
    let guest = bench.start(&card, Start::default())?;
    let last = served(&guest, &mut bench.world, &mut known);
    if let Err(error) = &last {
        println!("MISS  after the last cut, seed {seed}: {error}");
        survived = survived.min(count.saturating_sub(1));
    }
    let said =
        format!("{survived} of {count} ({writes} writes, {lost} of {unflushed} after the last flush lost)");
    let what = "power cuts after which the same phone is served, nothing lost";
    bench.table.row(what, said, "all", survived == count);
    times.extend(last.ok());
    times.sort();
    if let (Some(middle), Some(worst)) = (times.get(times.len() / 2), times.last()) {
        bench.table.seconds("power to tunnel after a cut, median", *middle, 60.0);
        bench.table.seconds("power to tunnel after a cut, worst", *worst, 60.0);
    }
    bench.keep(card);
    bench.running(guest);
    Ok(())
}

/// Waits until the phone is served, and sees that the farm still has every
/// reading that the phone has been told of.
fn served(guest: &Guest, world: &mut World, known: &mut Known) -> Result<Duration, ImageError> {
    let tunnel = world.serves()?.saturating_duration_since(guest.started);
    let now = world.readings()?;
    let missing: Vec<u64> =
        known.iter().filter(|(number, _)| !now.iter().any(|(n, _)| n == number)).map(|(n, _)| *n).collect();
    if !missing.is_empty() {
        return Err(wrong(format!("readings {missing:?} were acknowledged and are gone")));
    }
    *known = now;
    Ok(tunnel)
}
