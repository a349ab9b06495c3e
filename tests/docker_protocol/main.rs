//! dockerd's plugin protocol from socket to in-memory host: recorded calls of four daemons, what a
//! connection can do wrong, and what Docker's API teaches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agent;
mod caller;
mod interfaces;
mod learning;
mod ports;
mod refusals;
mod replay;
mod transport;
