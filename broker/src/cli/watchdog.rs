//! systemd's watchdog, fed only while the broker makes progress.

use std::time::Duration;

use sd_notify::NotifyState;
use smol::Timer;

use crate::server::Server;

/// Feeds systemd as long as the core answers within a round. All tasks share
/// one thread, so one that hangs stops this one too. Returns never; does
/// nothing where systemd asks for nothing.
pub(super) async fn feed(server: &Server) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // sd_watchdog_enabled(3) recommends half the time; a third leaves room for
    // an answer that comes late in its round.
    let pause = interval / 3;
    loop {
        if answers_within(server, pause).await {
            super::serve::notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("the core makes no progress: systemd is not told that all is well");
        }
        Timer::after(pause).await;
    }
}

async fn answers_within(server: &Server, patience: Duration) -> bool {
    let answer = async { server.counters().await.is_some() };
    let late = async {
        Timer::after(patience).await;
        false
    };
    smol::future::or(answer, late).await
}
