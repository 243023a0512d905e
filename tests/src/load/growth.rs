//! All devices come, some at a time: at our broker and at another server in
//! turns, so that whatever else the machine does meets both.

use std::time::{Duration, Instant};

use super::{Beside, Crews, Options, REST, Results, Trouble, goal, handshakes, look, per_device, stop};
use crate::bench::sample::Sample;
use crate::device::Broker;

/// Turns of each: their ratios' median counts. A turn of a thousand devices is a
/// third of a second of processor time, which is counted in steps of 10 ms.
const TURNS: u32 = 10;

/// Memory is shown after these.
const SHOWN: [u32; 4] = [1, 2, 5, 10];

/// After a turn whose memory is not shown: what is left to do for those that
/// are in.
const BREATH: Duration = Duration::from_millis(500);

/// Lets all in. Gives the other server, with as many.
pub(super) fn measure(
    options: &Options,
    broker: &Broker,
    crews: &mut Crews,
    mut beside: Option<Beside>,
    results: &mut Results,
) -> Result<Option<Beside>, Trouble> {
    let ours = broker.daemon.process()?;
    let empty = look(ours)?;
    let theirs = beside.as_ref().map(|beside| look(&beside.server.process)).transpose()?;
    let mut there = 0;
    let (mut speeds, mut speeds_beside) = (Sample::default(), Sample::default());
    for turn in 1..=TURNS {
        let devices = options.devices * turn / TURNS;
        let more = devices - there;
        let (before, start) = (look(ours)?, Instant::now());
        crews.connect(devices)?;
        let took = start.elapsed().as_secs_f64();
        stop::pause(if SHOWN.contains(&turn) { REST } else { BREATH })?;
        let now = look(ours)?;
        speeds.push(handshakes(&before, &now, more));
        if let Some(beside) = &mut beside {
            let before = look(&beside.server.process)?;
            beside.connect(devices)?;
            stop::pause(BREATH)?;
            speeds_beside.push(handshakes(&before, &look(&beside.server.process)?, more));
        }
        if SHOWN.contains(&turn) {
            let each = per_device(&empty, &now, devices) / 1024.0;
            results.say(
                &format!("{devices} devices"),
                &format!("{each:.1} KiB each, {:.0}/s", f64::from(more) / took),
            );
        }
        there = devices;
    }
    let full = look(ours)?;
    let each = per_device(&empty, &full, options.devices);
    let text = format!("{:.2} KiB ({} MB in all)", each / 1024.0, full.rss_bytes / 1_000_000);
    results.judge("memory per device, TLS", &text, "≤ 10 KiB", each <= goal::BYTES);
    results.say("handshakes per CPU second", &spread(&speeds));
    if let (Some(beside), Some(empty)) = (&beside, theirs) {
        let name = beside.server.name;
        let each = per_device(&empty, &look(&beside.server.process)?, options.devices) / 1024.0;
        results.say(&format!("{name}: {} devices", options.devices), &format!("{each:.1} KiB each"));
        results.say(&format!("{name}: handshakes per CPU second"), &spread(&speeds_beside));
        let times = speeds.divided_by(&speeds_beside);
        let reached = times.median() >= goal::TIMES_MOSQUITTO;
        results.judge(&format!("handshakes ÷ {name}’s, in turns"), &spread(&times), "≥ 1.5", reached);
    }
    Ok(beside)
}

/// The median, the least and the most.
fn spread(values: &Sample) -> String {
    let (median, least, most) = (values.median(), values.min(), values.max());
    let digits = if median < 100.0 { 2 } else { 0 };
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$}, {} turns)", values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_and_the_ends_are_told() {
        let told = |values: &[f64]| {
            let mut sample = Sample::default();
            for value in values {
                sample.push(*value);
            }
            spread(&sample)
        };
        assert_eq!(told(&[1.5, 1.25, 1.75]), "1.50 (1.25 to 1.75, 3 turns)");
        assert_eq!(told(&[4.0, 1.0, 2.0, 3.0]), "2.50 (1.00 to 4.00, 4 turns)");
        assert_eq!(told(&[3000.0, 2000.0]), "2500 (2000 to 3000, 2 turns)");
    }
}
