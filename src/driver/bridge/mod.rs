//! The bridge driver: one Linux bridge a network, one veth pair an endpoint.

mod adopt;
mod objects;
mod options;

pub use objects::{endpoint_objects, is_gone, network_objects};
pub use options::{OPTIONS, adopted, changed, gateway_skips, may_become, settings};
