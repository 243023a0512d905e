//! What the camera sees: sky through the cover, the vent, rows of plants, wet or
//! dry soil, and the line of text. At night it turns grey, as infrared cameras do.

use super::canvas::{Canvas, Colour, blend};
use super::{HEIGHT, WIDTH, font};
use crate::greenhouse::climate::Readings;

const W: i32 = WIDTH as i32;
const H: i32 = HEIGHT as i32;
/// Where the sky ends and the beds begin.
const HORIZON: i32 = 170;
/// Height of the bar with the text.
const BAR: i32 = 26;
/// Light that counts as full day, lux.
const FULL_DAY: f64 = 60_000.0;
/// Below this the camera switches to infrared, lux.
const NIGHT: f64 = 50.0;

/// Draws the picture.
pub(super) fn draw(readings: &Readings) -> Canvas {
    let mut canvas = Canvas::new();
    let day = (readings.light_lux / FULL_DAY).clamp(0.0, 1.0).sqrt();
    sky(&mut canvas, readings, day);
    cover(&mut canvas, readings);
    beds(&mut canvas, readings);
    if readings.irrigation_seconds_left > 0 {
        water(&mut canvas, readings.time);
    }
    let brightness = 0.45 + 0.55 * day;
    canvas.map(0, H - BAR, |colour| lit(colour, brightness, readings.light_lux < NIGHT));
    caption(&mut canvas, readings);
    canvas
}

fn sky(canvas: &mut Canvas, readings: &Readings, day: f64) {
    let top = blend([8, 12, 30], [70, 140, 220], day);
    let low = blend([20, 24, 40], [200, 225, 245], day);
    for y in 0..HORIZON {
        canvas.block(0, y, W, 1, blend(top, low, f64::from(y) / f64::from(HORIZON)));
    }
    let hour = (readings.time % 86_400) as f64 / 3_600.0;
    if (6.0..18.0).contains(&hour) {
        let along = (hour - 6.0) / 12.0;
        let height = (along * std::f64::consts::PI).sin();
        let (x, y) = (along * f64::from(W), f64::from(HORIZON) - 130.0 * height);
        canvas.disc(x as i32, y as i32, 16, [255, 240, 190]);
    }
}

/// Arches, and the vent as a gap in the roof as wide as it is open.
fn cover(canvas: &mut Canvas, readings: &Readings) {
    for x in (0..=W).step_by(80) {
        canvas.block(x - 2, 0, 4, HORIZON, [196, 204, 206]);
    }
    canvas.block(0, 44, W, 3, [196, 204, 206]);
    let gap = (readings.vent_percent * 0.36) as i32;
    canvas.block(162, 6, 316, 36, [222, 230, 232]);
    canvas.block(162, 42 - gap, 316, gap, [24, 34, 48]);
    canvas.block(162, 39 - gap, 316, 4, [120, 130, 134]);
}

fn beds(canvas: &mut Canvas, readings: &Readings) {
    let wet = ((readings.soil_moisture_percent - 10.0) / 25.0).clamp(0.0, 1.0);
    let soil = blend([158, 122, 84], [74, 50, 32], wet);
    canvas.block(0, HORIZON, W, H - HORIZON, soil);
    for row in 0..3 {
        let depth = f64::from(row) / 2.0;
        let ground = HORIZON + 42 + row * 54;
        canvas.block(0, ground, W, 3, blend(soil, [20, 14, 10], 0.5));
        let plants = 14 - row * 3;
        for plant in 0..plants {
            let x = W * (2 * plant + 1) / (2 * plants);
            let sway = (readings.time as f64 * 1.3 + f64::from(plant * 5 + row * 3)).sin();
            tomato(canvas, x, ground, 0.6 + 0.4 * depth, sway, wet);
        }
    }
}

/// One plant; a thirsty one hangs lower and is paler.
fn tomato(canvas: &mut Canvas, x: i32, ground: i32, scale: f64, sway: f64, wet: f64) {
    let leaf = blend([150, 150, 60], [44, 124, 48], wet);
    let height = (46.0 + 20.0 * wet) * scale;
    for level in 1..=5 {
        let up = f64::from(level) / 5.0;
        let lean = (sway * 5.0 * up * scale) as i32;
        let (cx, cy) = (x + lean, ground - (height * up) as i32);
        canvas.block(cx, cy, 2, (height / 5.0) as i32 + 1, [60, 90, 40]);
        let reach = ((14.0 - 7.0 * up) * scale) as i32;
        let size = ((8.0 - 3.0 * up) * scale) as i32;
        let shade = blend(leaf, [20, 60, 24], 0.35 * (1.0 - up));
        canvas.disc(cx - reach, cy, size, shade);
        canvas.disc(cx + reach, cy + 2, size, shade);
        if level % 2 == 0 {
            let red: Colour = [206, 52, 38];
            canvas.disc(cx + reach / 2, cy + 4, (3.5 * scale) as i32, red);
        }
    }
}

/// Drops along the drip lines, somewhere else each second.
fn water(canvas: &mut Canvas, second: u64) {
    let shift = (second % 8) as i32;
    for row in 0..3 {
        let ground = HORIZON + 42 + row * 54;
        for x in (0..W).step_by(16) {
            let fall = (x / 16 * 3 + shift * 3) % 12;
            canvas.block(x, ground + fall, 2, 4, [120, 190, 240]);
        }
    }
}

fn lit(colour: Colour, brightness: f64, infrared: bool) -> Colour {
    let [r, g, b] = colour.map(f64::from);
    if infrared {
        let grey = ((0.3 * r + 0.6 * g + 0.1 * b) * 0.9) as u8;
        return [grey; 3];
    }
    [r, g, b].map(|part| (part * brightness) as u8)
}

fn caption(canvas: &mut Canvas, readings: &Readings) {
    canvas.block(0, H - BAR, W, BAR, [0, 0, 0]);
    let text = format!(
        "{}  {:.1}C  {:.0}%  VENT {:.0}%",
        timestamp(readings.time),
        readings.temperature_c,
        readings.humidity_percent,
        readings.vent_percent
    );
    font::write(canvas, 8, H - BAR + 6, 2, [235, 235, 235], &text);
}

/// `2026-11-22 14:57:03`; days to date by Howard Hinnant's `civil_from_days`.
fn timestamp(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(timestamp(0), "1970-01-01 00:00:00");
        assert_eq!(timestamp(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(timestamp(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(timestamp(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(timestamp(1_795_359_423), "2026-11-22 14:57:03");
    }
}
