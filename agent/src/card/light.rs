//! The green light of a Raspberry Pi.

use std::path::Path;

use super::report::Mood;

/// Its names, new and old.
const LIGHTS: [&str; 2] = ["/sys/class/leds/ACT", "/sys/class/leds/led0"];

/// On: at the broker. A heartbeat: on its way there. Fast blinking: the
/// installer has to do something.
pub(super) fn show(mood: Mood) {
    for light in LIGHTS.map(Path::new).into_iter().filter(|path| path.exists()) {
        let settings: &[(&str, &str)] = match mood {
            Mood::Well => &[("trigger", "default-on")],
            Mood::Waiting => &[("trigger", "heartbeat")],
            Mood::Trouble => &[("trigger", "timer"), ("delay_on", "100"), ("delay_off", "100")],
        };
        for (name, value) in settings {
            // A light is a comfort: where it can't be set, all else goes on.
            if let Err(error) = std::fs::write(light.join(name), value) {
                tracing::debug!(%error, "the light");
            }
        }
    }
}
