//! The real kernel, each test in network namespaces of its own.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers")]

#[macro_use]
mod rig;

mod announce;
mod converge;
mod holds;
mod host;
mod links;
mod relay;
mod sandboxes;
mod whole;
