//! Being told to stop from outside: Ctrl-C without a raw terminal, `kill`, a
//! closed window.

use async_signal::{Signal, Signals};
use futures_util::StreamExt;

/// Calls `stop` at every SIGINT, SIGTERM and SIGHUP from now on.
///
/// # Errors
/// When the system has no room for the handler or its thread.
pub(super) fn on_signal(mut stop: impl FnMut() + Send + 'static) -> std::io::Result<()> {
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            smol::block_on(async {
                while let Some(Ok(_)) = signals.next().await {
                    stop();
                }
            });
        })
        .map(drop)
}
