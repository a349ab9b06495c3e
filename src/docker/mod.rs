//! Docker's door: netagent as dockerd's network driver and IPAM driver.
//!
//! Translates between dockerd's plugin protocol and the engine and decides nothing. A handler never
//! calls dockerd, which would wait for itself at boot; names, labels and ghosts are read from
//! Docker's API by [`sync`], outside of handlers. Read [`plugin`] first, then [`wire`].

mod api;
pub mod client;
mod convert;
mod endpoint_options;
mod ipam;
mod network;
pub mod plugin;
mod ports;
pub mod sync;
pub mod wire;

pub use client::Client;
pub use plugin::{Plugin, serve};
pub use sync::{Bell, Pace};

/// The name of netagent's address space: what dockerd says with each pool that is ours.
pub const ADDRESS_SPACE: &str = "netagent";
