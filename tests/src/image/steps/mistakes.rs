//! What goes wrong at an installer's hands: the box comes up, says what it is
//! on its console and on the card, keeps trying, and heals.

use crate::harness::until;
use crate::image::ImageError;
use crate::image::card::Card;
use crate::image::guest::{Guest, REPORTED, Start};
use crate::image::suite::{Bench, WELL};

/// Starts a box that will be in trouble. It must say `wanted` on its console
/// and in its report.
fn told(
    bench: &mut Bench,
    card: &Card,
    start: Start<'_>,
    what: &str,
    wanted: &str,
) -> Result<Guest, ImageError> {
    let guest = bench.start(card, start)?;
    let said = guest.says(wanted);
    let report = until("the report on the card", REPORTED, || {
        card.report().ok().filter(|report| report.contains(wanted))
    });
    let words = match &report {
        Ok((report, _)) => {
            report.lines().find(|line| line.contains(wanted)).unwrap_or_default().trim().to_owned()
        }
        Err(_) => format!("{wanted:?} is not in the report: {}", card.report().unwrap_or_default()),
    };
    bench.table.row(
        &format!("{what}: the console"),
        said.as_ref().map_or_else(ToString::to_string, |(_, line)| line.clone()),
        "",
        said.is_ok(),
    );
    bench.table.row(&format!("{what}: the card"), words, "", report.is_ok());
    Ok(guest)
}

/// The box is well, on its console since `mark` and on the card.
fn heals(bench: &mut Bench, card: &Card, guest: &Guest, mark: u64, what: &str) -> Result<(), ImageError> {
    let said = guest.says_since(mark, WELL);
    let report = until("the report on the card", REPORTED, || {
        card.report().ok().filter(|report| report.contains(WELL))
    });
    let good = said.is_ok() && report.is_ok();
    bench.table.row(&format!("{what}, mended"), if good { "connected" } else { "not connected" }, "", good);
    Ok(())
}

/// The installer corrects the file on a laptop, and gives the box power again.
fn corrected(
    bench: &mut Bench,
    card: &Card,
    guest: Guest,
    config: &str,
    what: &str,
) -> Result<(), ImageError> {
    guest.cut()?;
    card.put("farm-agent.toml", config.as_bytes())?;
    let guest = bench.start(card, Start::default())?;
    heals(bench, card, &guest, 0, what)?;
    guest.cut()?;
    Ok(())
}

/// A word that is none, on a new card.
pub(in crate::image) fn typo(bench: &mut Bench) -> Result<(), ImageError> {
    let what = "a typo";
    let config = bench.world.config(&bench.world.broker.enroll()?);
    let card = bench.flash("typo", &config.replace("broker =", "brokr ="))?;
    let guest = told(bench, &card, Start::default(), what, "farm-agent.toml, line 2")?;
    corrected(bench, &card, guest, &config, what)?;
    card.remove()
}

/// A token that the broker never gave out.
pub(in crate::image) fn token(bench: &mut Bench) -> Result<(), ImageError> {
    let what = "a wrong token";
    let good = bench.world.broker.enroll()?;
    let config = bench.world.config(&good);
    // As long as a true one.
    let card = bench.flash("token", &config.replace(&good, &"7".repeat(good.len())))?;
    let guest = told(bench, &card, Start::default(), what, "the enrollment token is wrong")?;
    corrected(bench, &card, guest, &config, what)?;
    card.remove()
}

/// No network at all; then somebody plugs the cable in.
pub(in crate::image) fn offline(bench: &mut Bench) -> Result<(), ImageError> {
    let what = "no cable, no Wi-Fi";
    let card = bench.copy("offline")?;
    let guest = told(bench, &card, Start { unplugged: true, ..Start::default() }, what, "not connected to")?;
    let mark = guest.process.mark();
    guest.plug_in()?;
    heals(bench, &card, &guest, mark, what)?;
    guest.cut()?;
    card.remove()
}

/// The broker does not run; then it does.
pub(in crate::image) fn away(bench: &mut Bench) -> Result<(), ImageError> {
    let what = "a broker that is away";
    let card = bench.copy("away")?;
    bench.world.broker.daemon.terminate()?;
    let guest = told(bench, &card, Start::default(), what, "not connected to");
    let mark = guest.as_ref().map(|guest| guest.process.mark()).unwrap_or_default();
    bench.world.broker.daemon.start()?;
    let guest = guest?;
    heals(bench, &card, &guest, mark, what)?;
    guest.cut()?;
    card.remove()
}

/// The state is lost: a new farm, which says so and needs a new token.
pub(in crate::image) fn garbage(bench: &mut Bench) -> Result<(), ImageError> {
    let what = "a spoilt state partition";
    let card = bench.copy("garbage")?;
    card.spoil_state()?;
    let guest = told(bench, &card, Start::default(), what, "has been made anew")?;
    let config = bench.world.config(&bench.world.broker.enroll()?);
    corrected(bench, &card, guest, &config, what)?;
    card.remove()
}

/// No room left: on the boot partition, filled with an installer's own files,
/// and on the state partition.
pub(in crate::image) fn full(bench: &mut Bench) -> Result<(), ImageError> {
    let what = "a full card";
    let card = bench.copy("full")?;
    card.fill_boot()?;
    let guest = bench.start(&card, Start::default())?;
    heals(bench, &card, &guest, 0, "a boot partition full of other files")?;
    // As root, who may take the last block.
    guest.run("dd if=/dev/zero of=/data/filler bs=64k 2>/dev/null; dd if=/dev/zero of=/data/filler2 bs=1k 2>/dev/null; sync; df /data")?;
    guest.cut()?;
    let guest = told(bench, &card, Start::default(), what, "no space left")?;
    let mark = guest.process.mark();
    guest.run("rm /data/filler /data/filler2; sync")?;
    heals(bench, &card, &guest, mark, what)?;
    guest.cut()?;
    card.remove()
}

/// A board without a clock.
pub(in crate::image) fn clock(bench: &mut Bench) -> Result<(), ImageError> {
    let card = bench.copy("clock")?;
    let guest = bench.start(&card, Start { clock: Some("1970-01-01T00:00:10"), ..Start::default() })?;
    heals(bench, &card, &guest, 0, "a clock in 1970")?;
    let year = guest.run("date +%Y")?.trim().parse::<u32>().unwrap_or_default();
    bench.table.row("the year that the box believes in", year.to_string(), "not 1970", year >= 2024);
    guest.cut()?;
    card.remove()
}
