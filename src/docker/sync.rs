//! Learns from Docker's API what the plugin protocol does not say: names, labels, and which networks
//! and endpoints dockerd has forgotten while nobody told us.
//!
//! A task of its own, never a handler: dockerd may be waiting for a handler while it starts, and its
//! API answers only afterwards. Nothing is changed on the strength of a question that failed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::Client;
use crate::engine::{DockerView, Handle, Suspects};
use crate::model::Result;

/// How handlers tell the task that there is news; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Rung>);

#[derive(Debug, Default)]
struct Rung {
    notify: Notify,
    suspects: Mutex<Suspects>,
}

impl Bell {
    /// A bell that nobody has rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was made whose name is to be read.
    pub fn ring(&self) {
        self.0.notify.notify_one();
    }

    /// A dockerd began, and these are to be confirmed by its API.
    pub fn docker_began(&self, suspects: Suspects) {
        let mut waiting = self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut waiting, suspects);
        drop(waiting);
        self.ring();
    }

    fn take(&self) -> Suspects {
        std::mem::take(&mut *self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn merge(into: &mut Suspects, more: Suspects) {
    into.networks.extend(more.networks);
    into.endpoints.extend(more.endpoints);
}

/// How often Docker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Further rings within this time are answered by the same view.
    pub debounce: Duration,
    /// The longest pause after a view that took long.
    pub rest_at_most: Duration,
    /// Between the view that first lacks something and the one that confirms it: longer than dockerd
    /// takes from making an endpoint to showing it.
    pub confirm: Duration,
    /// Before the first repetition of a question that failed; doubled each time.
    pub retry: Duration,
    /// The longest pause between repetitions.
    pub retry_at_most: Duration,
    /// When a question is given up until the next ring.
    pub give_up: Duration,
}

impl Default for Pace {
    /// Guesses: half a second and 10 s keep the questions rare; dockerd's own start takes up to a
    /// minute when a plugin of its is missing.
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(500),
            rest_at_most: Duration::from_secs(3),
            confirm: Duration::from_secs(10),
            retry: Duration::from_secs(1),
            retry_at_most: Duration::from_secs(15),
            give_up: Duration::from_secs(300),
        }
    }
}

/// What may be dead, and what the last view lacked of it.
#[derive(Debug, Default)]
struct Doubts {
    open: Suspects,
    lacked: Suspects,
}

impl Doubts {
    /// What was confirmed before may have died since: only a later view counts.
    fn add(&mut self, suspects: Suspects) {
        merge(&mut self.open, suspects);
    }

    /// What the view has is beyond doubt; nothing is condemned.
    fn clear(&mut self, view: &DockerView) -> Suspects {
        for suspects in [&mut self.open, &mut self.lacked] {
            suspects.networks.retain(|id| !view.networks.contains_key(id));
            suspects.endpoints.retain(|id| !view.endpoints.contains_key(id));
        }
        Suspects::default()
    }

    /// Those that two views in a row lack; what the view has is beyond doubt.
    fn judge(&mut self, view: &DockerView) -> Suspects {
        self.clear(view);
        let dead = Suspects {
            networks: &self.open.networks & &self.lacked.networks,
            endpoints: &self.open.endpoints & &self.lacked.endpoints,
        };
        self.lacked = self.open.clone();
        dead
    }

    /// They are gone; nothing is to be said of them any more.
    fn settle(&mut self, dead: &Suspects) {
        for suspects in [&mut self.open, &mut self.lacked] {
            suspects.networks.retain(|id| !dead.networks.contains(id));
            suspects.endpoints.retain(|id| !dead.endpoints.contains(id));
        }
    }

    fn any(&self) -> bool {
        self.open != Suspects::default()
    }
}

/// Asks Docker at the start and after each ring, until the engine has stopped. May be dropped at any
/// time.
pub async fn run(docker: Client, engine: Handle, bell: Bell, pace: Pace) -> Result<()> {
    let mut doubts = Doubts::default();
    doubts.add(engine.run(|engine| engine.suspects()).await?);
    let mut judged: Option<Instant> = None;
    loop {
        // What becomes suspect while the view is on its way is judged by later ones only.
        doubts.add(bell.take());
        let mut confirm = None;
        let mut rest = pace.debounce;
        if let Some((view, took)) = ask(&docker, &pace).await {
            // A view asks for every network: dockerd shall spend a tenth of its time on us at most,
            // but on a slow host users do not wait for names without end.
            rest = rest.max((10 * took).min(pace.rest_at_most));
            // A ring must not make the confirming view come too early.
            let early = judged.is_some_and(|at| at.elapsed() < pace.confirm);
            let dead = if early { doubts.clear(&view) } else { doubts.judge(&view) };
            judged = judged.filter(|_| early).or_else(|| Some(Instant::now()));
            learn(&engine, &mut doubts, view, dead).await?;
            confirm = judged.filter(|_| doubts.any()).map(|at| at + pace.confirm);
        } else {
            tracing::info!(
                socket = %docker.socket().display(),
                "Docker's API does not answer: names may be missing, and what it has forgotten \
                 stays until it is asked again"
            );
        }
        tokio::select! {
            () = bell.0.notify.notified() => sleep(rest).await,
            () = sleep_until(confirm.unwrap_or_else(Instant::now)), if confirm.is_some() => {}
        }
    }
}

/// A view and how long it took to get; asks repeatedly, for dockerd may be starting.
async fn ask(docker: &Client, pace: &Pace) -> Option<(DockerView, Duration)> {
    let mut pause = pace.retry;
    let until = Instant::now() + pace.give_up;
    loop {
        let began = Instant::now();
        match docker.view().await {
            Ok(view) => return Some((view, began.elapsed())),
            Err(error) => tracing::debug!(%error, "Docker's API does not answer yet"),
        }
        if Instant::now() + pause > until {
            return None;
        }
        sleep(pause).await;
        pause = (pause * 2).min(pace.retry_at_most);
    }
}

async fn learn(
    engine: &Handle,
    doubts: &mut Doubts,
    view: DockerView,
    dead: Suspects,
) -> Result<()> {
    if dead != Suspects::default() {
        let (networks, endpoints) = (dead.networks.len(), dead.endpoints.len());
        tracing::debug!(networks, endpoints, "two views of Docker lack what was suspect");
    }
    let told = dead.clone();
    match engine.run(move |engine| engine.learn(&view, &told)).await? {
        Ok(()) => doubts.settle(&dead),
        Err(error) => tracing::warn!(%error, "what Docker's API said could not be taken over"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DockerNetwork;
    use crate::model::{EndpointId, NetworkId};
    use std::collections::BTreeMap;

    fn network(number: u8) -> NetworkId {
        NetworkId::from_bytes([number; 32])
    }

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 32])
    }

    fn view(networks: &[u8], endpoints: &[u8]) -> DockerView {
        let known = |_: &u8| DockerNetwork { name: "n".into(), labels: BTreeMap::new() };
        DockerView {
            networks: networks.iter().map(|number| (network(*number), known(number))).collect(),
            endpoints: endpoints.iter().map(|number| (endpoint(*number), "c".into())).collect(),
            ..DockerView::default()
        }
    }

    fn suspects(networks: &[u8], endpoints: &[u8]) -> Suspects {
        Suspects {
            networks: networks.iter().map(|number| network(*number)).collect(),
            endpoints: endpoints.iter().map(|number| endpoint(*number)).collect(),
        }
    }

    #[test]
    fn only_what_two_views_in_a_row_lack_is_dead() {
        let mut doubts = Doubts::default();
        doubts.add(suspects(&[1, 2], &[1, 2, 3]));
        assert_eq!(doubts.judge(&view(&[1], &[1])), suspects(&[], &[]));
        let dead = doubts.judge(&view(&[1], &[1, 2]));
        assert_eq!(dead, suspects(&[2], &[3]), "2 was only being started");
        doubts.settle(&dead);
        assert!(!doubts.any());
    }

    #[test]
    fn what_a_view_has_is_beyond_doubt_until_the_next_dockerd() {
        let mut doubts = Doubts::default();
        doubts.add(suspects(&[1], &[1]));
        doubts.judge(&view(&[1], &[1]));
        assert!(!doubts.any());
        doubts.judge(&view(&[], &[]));
        assert_eq!(doubts.judge(&view(&[], &[])), suspects(&[], &[]));
        doubts.add(suspects(&[1], &[1]));
        assert_eq!(doubts.judge(&view(&[], &[])), suspects(&[], &[]), "the first view since");
        assert_eq!(doubts.judge(&view(&[], &[])), suspects(&[1], &[1]));
    }

    #[test]
    fn a_removal_that_failed_is_tried_again() {
        let mut doubts = Doubts::default();
        doubts.add(suspects(&[], &[1]));
        doubts.judge(&view(&[], &[]));
        assert_eq!(doubts.judge(&view(&[], &[])), suspects(&[], &[1]));
        assert_eq!(doubts.judge(&view(&[], &[])), suspects(&[], &[1]), "not settled");
    }

    #[test]
    fn suspects_of_several_beginnings_are_all_taken() {
        let bell = Bell::new();
        bell.docker_began(suspects(&[1], &[]));
        bell.docker_began(suspects(&[2], &[3]));
        assert_eq!(bell.take(), suspects(&[1, 2], &[3]));
        assert_eq!(bell.take(), suspects(&[], &[]));
    }
}
