//! The engine on the in-memory host: what each request does, and what is left when it fails or the
//! agent dies at any step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod adopted;
mod announce;
mod crash;
mod disk;
mod goldens;
mod joining;
mod kit;
mod learning;
mod options;
mod ports;
mod requests;
mod rollback;
mod scenarios;
mod update;
