//! The first boot as an installer without a monitor has it: write the card,
//! edit one file, give power, look at the card, pair.

use std::time::{Duration, Instant};

use qrcode::{Color, QrCode};

use crate::harness::until;
use crate::image::guest::{Guest, REPORTED, Start};
use crate::image::suite::{Bench, WELL};
use crate::image::{ImageError, wrong};

/// Still active so long after the boot: what starts late must not end it.
const LATER: Duration = Duration::from_secs(30);

/// What an invitation's link has (DESIGN: the fragment stays with the phone).
const LINK: &str = "#v=1&";

/// Makes the box: its report and its picture are on the card.
pub(in crate::image) fn first(bench: &mut Bench) -> Result<(), ImageError> {
    bench.world.strangers(&bench.file("phone"))?;
    let token = bench.world.broker.enroll()?;
    // As Windows' editor saves it.
    let config = format!("\u{feff}{}", bench.world.config(&token).replace('\n', "\r\n"));
    let card = bench.flash("card", &config)?;
    let guest = bench.start(&card, Start::default())?;
    let (online, _) = guest.says(WELL)?;
    bench.table.time("power to broker, first boot", online, guest.cpu(), 90.0);
    let (_, shown) = guest.says(LINK)?;
    let (report, _) = until("the invitation on the card", REPORTED, || {
        card.report().ok().filter(|report| report.contains(LINK))
    })?;
    guest.cut()?;

    let told = ["Farm id: ", WELL, "Serves:  greenhouse", "Phones:  0 paired"];
    let missing: Vec<&str> = told.into_iter().filter(|words| !report.contains(words)).collect();
    let good = missing.is_empty();
    let said = if good {
        "farm id, broker, services, link".to_owned()
    } else {
        format!("{missing:?} missing in {report}")
    };
    bench.table.row("the report on the card", said, "", good);

    let link = report.lines().find(|line| line.contains(LINK)).unwrap_or_default().trim().to_owned();
    let picture = bench.taken(&card, "farm-invitation.bmp")?;
    let (read, drawn) = (modules(&picture)?, QrCode::new(&link).map_err(|error| wrong(error.to_string()))?);
    let good = link == shown && read == drawn.to_colors();
    bench.table.row("the picture on the card and the console's link", "the same link", "", good);
    bench.world.invited(link);
    bench.keep(card);
    Ok(())
}

/// The dots of a QR code in a picture of one bit a pixel (BMP), as a reader
/// samples them.
fn modules(picture: &[u8]) -> Result<Vec<Color>, ImageError> {
    let number = |at: usize| {
        let bytes = picture.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).ok_or_else(|| wrong("the picture is cut short"))
    };
    let (begin, side, height) = (number(10)?, number(18)?, number(22)?);
    if !picture.starts_with(b"BM") || side != height || side == 0 {
        return Err(wrong("farm-invitation.bmp is no square picture"));
    }
    let stride = side.div_ceil(32) * 4;
    // Rows go up.
    let dark = |x: usize, y: usize| {
        let byte = picture.get(begin + (side - 1 - y) * stride + x / 8);
        byte.is_some_and(|byte| byte & (0x80 >> (x % 8)) == 0)
    };
    // Inside a light rim, the corner's dark ring is seven modules wide.
    let rim = (0..side).find(|at| dark(*at, *at)).ok_or_else(|| wrong("the picture is blank"))?;
    let ring = (rim..side).take_while(|x| dark(*x, rim)).count();
    let (scale, width) = (ring / 7, (side - 2 * rim) * 7 / ring.max(1));
    let at = |module: usize| rim + module * scale + scale / 2;
    let color = |x, y| if dark(at(x), at(y)) { Color::Dark } else { Color::Light };
    Ok((0..width).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| color(x, y)).collect())
}

/// Pairs a phone with what is on the card; the box stays well, and is small.
pub(in crate::image) fn second(bench: &mut Bench) -> Result<(), ImageError> {
    let card = bench.invited()?;
    let guest = bench.start(&card, Start::default())?;
    let (online, _) = guest.says(WELL)?;
    bench.table.time("power to broker, second boot", online, guest.cpu(), 60.0);
    let began = Instant::now();
    bench.world.pair()?;
    bench.table.row(
        "paired with the card's link",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
        "",
        true,
    );
    let served = bench.world.serves()?.saturating_duration_since(guest.started);
    bench.table.row(
        "a file with its checksum through the tunnel",
        format!("{:.1} s after power", served.as_secs_f64()),
        "",
        true,
    );

    std::thread::sleep(LATER);
    still(bench, &guest)?;
    println!("{}", guest.run(BUDGET)?);

    let gone = until("the used invitation to leave the card", REPORTED, || {
        let report = card.report().ok().filter(|report| !report.contains(LINK))?;
        let picture = bench.taken(&card, "farm-invitation.bmp").ok()?;
        picture.iter().all(|byte| *byte == 0).then_some(report)
    });
    bench.table.row("the used invitation has left the card", "link and picture", "", gone.is_ok());
    bench.keep(card);
    bench.running(guest);
    Ok(())
}

/// Where a boot's time went.
const BUDGET: &str = "systemd-analyze; systemd-analyze blame --no-pager | head -n 15; \
    systemd-analyze critical-chain --no-pager farm-agent.service; dmesg | grep -a 'farm: '; \
    df -h / /data /boot/firmware; free -m";

/// Nothing failed or started again since the boot, and the agent is small.
fn still(bench: &mut Bench, guest: &Guest) -> Result<(), ImageError> {
    let state = guest.run(
        "systemctl show farm-agent -p ActiveState -p NRestarts; systemctl --failed --no-legend; \
         grep VmRSS /proc/$(systemctl show -P MainPID farm-agent)/status",
    )?;
    let good =
        state.contains("ActiveState=active") && state.contains("NRestarts=0") && !state.contains("failed");
    let said = if good { format!("{} s after the first file", LATER.as_secs()) } else { state.clone() };
    bench.table.row("still active, never restarted, no failed unit", said, "30 s", good);
    let kib = state
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok())
        .ok_or_else(|| wrong(format!("no VmRSS in {state}")))?;
    let bytes = kib * 1024.0;
    bench.table.row(
        "the agent's memory, one session",
        format!("{:.1} MB", bytes / 1e6),
        "12 MB",
        bytes <= 12e6,
    );
    Ok(())
}

/// A boot of the box as it will have thousands of.
pub(in crate::image) fn tunnel(bench: &mut Bench) -> Result<(), ImageError> {
    let card = bench.off()?;
    let guest = bench.start(&card, Start::default())?;
    let (online, _) = guest.says(WELL)?;
    bench.table.time("power to broker, third boot", online, guest.cpu(), 60.0);
    let served = bench.world.serves()?.saturating_duration_since(guest.started);
    bench.table.time("power to a file through the tunnel", served, guest.cpu(), 60.0);
    bench.keep(card);
    bench.running(guest);
    Ok(())
}
