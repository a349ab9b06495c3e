//! What systemd hears of us (`man 3 sd_notify`). Without systemd all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;

use crate::engine::Handle;

/// The sockets answer.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// We end.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Says that we are alive as long as the engine answers, three times as often as systemd asks.
pub(super) async fn watchdog(engine: Handle) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let pause = (interval / 3).max(Duration::from_millis(10));
    // An engine that hangs never answers: the pings end, and systemd starts a new agent.
    while engine.run(|_| ()).await.is_ok() {
        send(&[NotifyState::Watchdog]);
        sleep(pause).await;
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
