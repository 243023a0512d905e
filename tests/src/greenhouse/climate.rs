//! The climate under the plastic: a 100 m² polytunnel with tomatoes, as a few
//! coupled rates stepped once a second.
//!
//! Pure: time comes in as seconds, nothing is read from outside, and the same
//! seconds and commands always give the same readings.

use serde::Serialize;

mod weather;

use weather::Weather;

/// Seconds in a day.
const DAY: u64 = 86_400;
/// How long the model runs before its first reading, s. Four times the slowest
/// air time constant below (heat, closed: about 28 min), so that what the first
/// visitor sees no longer depends on the arbitrary start values.
const WARM_UP: u64 = 7_200;
/// The longest gap that is simulated step by step, s. After a longer one (the
/// machine slept) the plants have forgotten what was before anyway.
const CATCH_UP: u64 = DAY;

/// Volume of air, m³.
const VOLUME: f64 = 300.0;
/// Planted area, m².
const AREA: f64 = 100.0;
/// What must be warmed together with the air, J/K: 0.36 MJ/K of air, and five
/// times that in leaves, frames and the top of the soil.
const HEAT_CAPACITY: f64 = 2.0e6;
/// Loss through 200 m² of cover at 6 W/m²K, W/K.
const COVER_LOSS: f64 = 1_200.0;
/// Carried out by the open vent, W/K: 40 air changes an hour.
const VENT_LOSS: f64 = 4_000.0;
/// Air changes a second through gaps (0.5 an hour).
const LEAK: f64 = 0.5 / 3_600.0;
/// Air changes a second through the fully open vent (40 an hour).
const VENT_EXCHANGE: f64 = 40.0 / 3_600.0;
/// Share of the sun that passes the cover.
const TRANSMISSION: f64 = 0.7;
/// Share of that which warms the air; the rest evaporates water.
const SENSIBLE: f64 = 0.5;
/// Heat of vaporisation of water, J/g.
const VAPORISATION: f64 = 2_450.0;
/// The heater, W, and its thermostat, °C.
const HEATER: f64 = 15_000.0;
const HEATER_ON_BELOW: f64 = 12.0;
const HEATER_OFF_ABOVE: f64 = 14.0;
/// Travel of the vent's motor, percent a second: 25 s from shut to open.
const VENT_SPEED: f64 = 4.0;
/// Water in the wetted bulb around the soil probe, litres per percent of moisture.
const SOIL_LITRES_PER_PERCENT: f64 = 40.0;
/// Flow of the drip line, litres a second.
const DRIP_FLOW: f64 = 2.0;
/// Soil can neither dry out completely nor hold more than this, percent by volume.
const SOIL_MIN: f64 = 5.0;
const SOIL_MAX: f64 = 45.0;
/// Lux per W/m² of daylight.
const LUX_PER_WATT: f64 = 120.0;

/// Longest single irrigation, s: half an hour is 3,600 litres.
pub const MAX_IRRIGATION_SECONDS: u32 = 1_800;

/// One set of readings, as `/api/readings` and `/events` give it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readings {
    /// When they were taken, seconds since 1970 on the farm's clock (UTC plus its offset).
    pub time: u64,
    /// Air inside, °C.
    pub temperature_c: f64,
    /// Relative humidity inside, percent.
    pub humidity_percent: f64,
    /// Soil moisture, percent by volume.
    pub soil_moisture_percent: f64,
    /// Carbon dioxide, parts per million.
    pub co2_ppm: f64,
    /// Light on the crop, lux.
    pub light_lux: f64,
    /// Where the vent is, percent open.
    pub vent_percent: f64,
    /// Where the vent is going, percent open.
    pub vent_target_percent: f64,
    /// Seconds of irrigation left, 0 when the valve is shut.
    pub irrigation_seconds_left: u32,
    /// Whether the heater runs.
    pub heater_on: bool,
    /// Air outside, °C.
    pub outside_temperature_c: f64,
}

/// The greenhouse's state.
#[derive(Clone, Debug)]
pub struct Climate {
    now: u64,
    temperature: f64,
    /// Absolute humidity, g/m³.
    vapour: f64,
    soil: f64,
    co2: f64,
    vent: f64,
    vent_target: f64,
    irrigation_left: u32,
    heater_on: bool,
}

impl Climate {
    /// A greenhouse that has been standing there for a while at `now`
    /// (seconds since 1970, the farm's local time).
    #[must_use]
    pub fn new(now: u64) -> Self {
        let start = now.saturating_sub(WARM_UP);
        let mut climate = Self {
            now: start,
            temperature: Weather::at(start).temperature,
            vapour: Weather::VAPOUR,
            soil: 28.0,
            co2: Weather::CO2,
            vent: 15.0,
            vent_target: 15.0,
            irrigation_left: 0,
            heater_on: false,
        };
        climate.advance_to(now);
        climate
    }

    /// Lets time pass up to `now`; a `now` in the past changes nothing.
    pub fn advance_to(&mut self, now: u64) {
        if now.saturating_sub(self.now) > CATCH_UP {
            self.now = now - CATCH_UP;
        }
        while self.now < now {
            self.now += 1;
            self.step();
        }
    }

    /// Sends the vent to `percent` open (clamped to 0..=100); its motor takes a while.
    pub fn set_vent(&mut self, percent: f64) {
        self.vent_target = percent.clamp(0.0, 100.0);
    }

    /// Opens the drip line for `seconds` from now (at most
    /// [`MAX_IRRIGATION_SECONDS`]); 0 shuts it.
    pub fn irrigate(&mut self, seconds: u32) {
        self.irrigation_left = seconds.min(MAX_IRRIGATION_SECONDS);
    }

    /// What the sensors say now, with the small noise real ones have.
    #[must_use]
    pub fn readings(&self) -> Readings {
        let weather = Weather::at(self.now);
        let noise = |channel, amplitude| weather::noise(self.now, channel) * amplitude;
        let light = weather.sun * TRANSMISSION * LUX_PER_WATT;
        Readings {
            time: self.now,
            temperature_c: rounded(self.temperature + noise(1, 0.08), 10.0),
            humidity_percent: rounded(
                (self.relative_humidity() * 100.0 + noise(2, 0.3)).clamp(0.0, 100.0),
                10.0,
            ),
            soil_moisture_percent: rounded(self.soil + noise(3, 0.06), 10.0),
            co2_ppm: rounded(self.co2 + noise(4, 3.0), 1.0),
            light_lux: rounded((light * (1.0 + noise(5, 0.01))).max(0.0), 1.0),
            vent_percent: rounded(self.vent, 10.0),
            vent_target_percent: rounded(self.vent_target, 10.0),
            irrigation_seconds_left: self.irrigation_left,
            heater_on: self.heater_on,
            outside_temperature_c: rounded(weather.temperature, 10.0),
        }
    }

    fn relative_humidity(&self) -> f64 {
        (self.vapour / saturation(self.temperature)).clamp(0.0, 1.0)
    }

    /// One second.
    fn step(&mut self) {
        let weather = Weather::at(self.now);
        self.move_actuators();
        let open = self.vent / 100.0;
        let exchange = LEAK + VENT_EXCHANGE * open;
        let sun = weather.sun * TRANSMISSION;

        // Plants drink while the sun shines, the soil is moist and the air takes it.
        let wet = ((self.soil - SOIL_MIN) / 15.0).clamp(0.0, 1.0);
        let appetite = (1.0 - self.relative_humidity()) * 2.0;
        let transpired = AREA * (sun * (1.0 - SENSIBLE) / VAPORISATION + 0.003) * wet * appetite.min(1.0);
        let dripping = f64::from(u8::from(self.irrigation_left > 0));
        let evaporated = transpired + dripping * 1.5 * appetite;

        let heat = sun * AREA * SENSIBLE
            + HEATER * f64::from(u8::from(self.heater_on))
            + (weather.temperature - self.temperature) * (COVER_LOSS + VENT_LOSS * open)
            - dripping * 1.5 * appetite * VAPORISATION;
        self.temperature += heat / HEAT_CAPACITY;

        self.vapour += evaporated / VOLUME + (Weather::VAPOUR - self.vapour) * exchange;
        // What the air can't hold runs down the cover.
        self.vapour = self.vapour.clamp(0.5, saturation(self.temperature) * 0.98);

        // Net uptake at 700 W/m² is about 20 µmol/m²s; 41 mol of air to the m³.
        let uptake = 40.0 * (sun / 700.0) * (self.co2 - 50.0) / (self.co2 + 300.0);
        let respired = 4.0;
        self.co2 += AREA * (respired - uptake) / (VOLUME * 41.0) + (Weather::CO2 - self.co2) * exchange;

        let water = dripping * DRIP_FLOW - transpired / 1_000.0;
        self.soil = (self.soil + water / SOIL_LITRES_PER_PERCENT).clamp(SOIL_MIN, SOIL_MAX);
        self.irrigation_left = self.irrigation_left.saturating_sub(1);
    }

    fn move_actuators(&mut self) {
        let way = self.vent_target - self.vent;
        self.vent += way.clamp(-VENT_SPEED, VENT_SPEED);
        if self.temperature < HEATER_ON_BELOW {
            self.heater_on = true;
        } else if self.temperature > HEATER_OFF_ABOVE {
            self.heater_on = false;
        }
    }
}

/// Water vapour that saturates air at `celsius`, g/m³ (Magnus formula and the
/// gas law).
fn saturation(celsius: f64) -> f64 {
    let pressure = 611.2 * (17.62 * celsius / (243.12 + celsius)).exp();
    pressure * 2.166_8 / (celsius + 273.15)
}

/// `value` to one part in `scale`, without a negative zero in the JSON.
fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: u64 = 20_000 * DAY;
    const NOON: u64 = MIDNIGHT + DAY / 2;

    fn at(now: u64) -> Climate {
        Climate::new(now)
    }

    #[test]
    fn a_day_stays_within_what_a_greenhouse_can_be() {
        let mut climate = at(MIDNIGHT);
        for minute in 0..2 * 24 * 60 {
            climate.set_vent(f64::from(minute * 7 % 101));
            if minute % 240 == 0 {
                climate.irrigate(120);
            }
            climate.advance_to(MIDNIGHT + u64::try_from(minute).unwrap() * 60);
            let r = climate.readings();
            assert!((0.0..60.0).contains(&r.temperature_c), "{r:?}");
            assert!((5.0..=100.0).contains(&r.humidity_percent), "{r:?}");
            assert!((4.0..=46.0).contains(&r.soil_moisture_percent), "{r:?}");
            assert!((80.0..2_000.0).contains(&r.co2_ppm), "{r:?}");
            assert!((0.0..120_000.0).contains(&r.light_lux), "{r:?}");
        }
    }

    #[test]
    fn noon_is_bright_and_warm_midnight_is_dark_and_rich_in_co2() {
        let (noon, night) = (at(NOON).readings(), at(MIDNIGHT).readings());
        assert!(noon.light_lux > 15_000.0, "{noon:?}");
        assert!(night.light_lux < 1.0, "{night:?}");
        assert!(noon.temperature_c > night.temperature_c + 5.0);
        assert!(noon.co2_ppm < night.co2_ppm);
    }

    #[test]
    fn the_open_vent_cools_dries_and_brings_co2_at_noon() {
        let (mut open, mut shut) = (at(NOON), at(NOON));
        open.set_vent(100.0);
        shut.set_vent(0.0);
        open.advance_to(NOON + 900);
        shut.advance_to(NOON + 900);
        let (open, shut) = (open.readings(), shut.readings());
        assert!(open.temperature_c < shut.temperature_c - 3.0);
        assert!(open.humidity_percent < shut.humidity_percent - 3.0);
        assert!(open.co2_ppm > shut.co2_ppm + 50.0);
    }

    #[test]
    fn the_vent_takes_its_time_and_arrives() {
        let mut climate = at(NOON);
        climate.set_vent(300.0);
        climate.advance_to(NOON + 5);
        let moving = climate.readings();
        assert_eq!(moving.vent_target_percent, 100.0);
        assert!(moving.vent_percent > 15.0 && moving.vent_percent < 100.0);
        climate.advance_to(NOON + 60);
        assert_eq!(climate.readings().vent_percent, 100.0);
    }

    #[test]
    fn irrigation_wets_the_soil_and_ends() {
        let mut climate = at(NOON);
        let before = climate.readings().soil_moisture_percent;
        climate.irrigate(60);
        climate.advance_to(NOON + 30);
        assert_eq!(climate.readings().irrigation_seconds_left, 30);
        climate.advance_to(NOON + 61);
        let after = climate.readings();
        assert_eq!(after.irrigation_seconds_left, 0);
        assert!(after.soil_moisture_percent > before + 2.0, "{before} {after:?}");
    }

    #[test]
    fn time_never_runs_backwards_and_a_long_gap_is_bounded() {
        let mut climate = at(NOON);
        let before = climate.readings();
        climate.advance_to(NOON - 100);
        assert_eq!(climate.readings(), before);
        climate.advance_to(NOON + 10_000 * DAY);
        assert_eq!(climate.readings().time, NOON + 10_000 * DAY);
    }
}
