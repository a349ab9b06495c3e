//! A private piece of the world for tests with real packets: namespaces, an agent, a dockerd, a
//! host next door, and listeners that say who they are.
//!
//! Everything hangs on one pipe to a guardian process: when a [`Lab`] is dropped, or the test
//! process dies in whatever way, the namespaces and all processes in them go with it. Nothing here
//! touches the machine's own network, its dockerd or its `/run`.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "test code: each test binary uses a part of it, and a failed step should panic"
)]

pub mod agent;
pub mod attach;
pub mod docker;
pub mod flow;
pub mod lab;
pub mod place;
pub mod version;

use std::time::{Duration, Instant};

pub use lab::Lab;
pub use place::Place;

/// The driver under test. `NETAGENT_TEST_DRIVER=bridge` proves the rig itself on dockerd's own.
pub fn driver() -> String {
    std::env::var("NETAGENT_TEST_DRIVER").unwrap_or_else(|_| "netagent".into())
}

/// Asks again every few milliseconds until there is an answer; panics with `what` at the deadline.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// Collects what is wrong over a whole matrix, and panics with all of it at its end.
#[derive(Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// `from` must hear `who` at `to`.
    pub fn hears(&mut self, from: &Place, who: &str, to: &str) {
        self.0.extend(from.try_hears(who, to).err());
    }

    /// `from` must hear nothing at `to`.
    pub fn nothing(&mut self, from: &Place, to: &str) {
        self.0.extend(from.try_hears_nothing(to).err());
    }

    /// `claim` must hold.
    pub fn holds(&mut self, claim: &str, holds: bool) {
        if !holds {
            self.0.push(format!("does not hold: {claim}"));
        }
    }
}

impl Drop for Findings {
    fn drop(&mut self) {
        let found = std::mem::take(&mut self.0);
        if !found.is_empty() && !std::thread::panicking() {
            panic!("{} wrong:\n  {}", found.len(), found.join("\n  "));
        }
    }
}
