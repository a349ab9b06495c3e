//! The bridge driver: one Linux bridge a network, one veth pair an endpoint.

mod objects;
mod options;

pub use objects::{endpoint_objects, network_objects};
pub use options::{OPTIONS, settings};
