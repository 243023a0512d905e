//! The log, on standard error.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

use crate::config::LogFormat;

/// Starts it. Once.
pub(super) fn start(format: LogFormat) -> Result<(), String> {
    let level = match std::env::var("FARM_BROKER_LOG") {
        Ok(text) => text
            .parse::<LevelFilter>()
            .map_err(|_| format!("FARM_BROKER_LOG is {text:?}: use error, warn, info, debug or trace"))?,
        Err(_) => LevelFilter::INFO,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    match format {
        // For programs: the same fields whatever is at the other end.
        LogFormat::Json => {
            log.json().flatten_event(true).with_current_span(false).with_span_list(false).init()
        }
        // The journal has its own clock.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            log.with_ansi(false).without_time().init();
        }
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
    }
    Ok(())
}
