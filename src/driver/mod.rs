//! Drivers: an option table each, and pure functions from specs to kernel objects.
//!
//! Dispatch is a closed enum with three match sites here. A driver never talks to the kernel and
//! never reads the clock: the same intent and facts give the same objects.

mod blocks;
pub mod bridge;
mod options;

use std::collections::BTreeMap;

pub use blocks::sandbox_end_name;
pub use options::{Availability, OptionRow, check_known, find};

use crate::model::{
    DriverSpec, EndpointId, EndpointPhase, EndpointSpec, Error, Facts, Needs, NetworkId,
    NetworkSpec, Result, Subnet,
};
use crate::object::{Kind, Netns, ObjectKey, Wanted};

/// Turns a user's options into a driver's settings. `name` is the driver's (`bridge`, or
/// Docker's name for us, `netagent`).
pub fn settings(
    name: &str,
    id: NetworkId,
    options: &BTreeMap<String, String>,
    subnets: &[Subnet],
    facts: &Facts,
) -> Result<DriverSpec> {
    match name {
        "bridge" | "netagent" => {
            bridge::settings(id, options, subnets, facts).map(DriverSpec::Bridge)
        }
        _ => Err(Error::usage(
            format!("driver \"{name}\""),
            "netagent has no driver of this name; it has: bridge",
        )),
    }
}

/// What a network wants of the host.
pub fn network_objects(network: &NetworkSpec, facts: &Facts) -> Vec<Wanted> {
    match &network.driver {
        DriverSpec::Bridge(bridge) => bridge::network_objects(network, bridge, facts),
    }
}

/// What an endpoint in this phase wants of the host and its sandbox.
pub fn endpoint_objects(
    network: &NetworkSpec,
    endpoint: &EndpointSpec,
    phase: EndpointPhase,
    facts: &Facts,
) -> Vec<Wanted> {
    match &network.driver {
        DriverSpec::Bridge(bridge) => {
            bridge::endpoint_objects(network, bridge, endpoint, phase, facts)
        }
    }
}

/// What the host itself needs while networks with these needs exist; `saved` holds the host's
/// sysctls as they were before us.
pub fn host_objects(facts: &Facts, needs: Needs, saved: &BTreeMap<String, String>) -> Vec<Wanted> {
    blocks::host_objects(facts, needs, saved)
}

/// The key of an endpoint's link on the host: gone when its sandbox is.
pub fn host_end(endpoint: EndpointId) -> ObjectKey {
    ObjectKey {
        kind: Kind::Link,
        netns: Netns::Host,
        name: blocks::host_end_name(endpoint).to_string(),
    }
}

/// The key of the other end while it is on the host: before dockerd takes it, and after it gives
/// it back.
pub fn sandbox_end(endpoint: EndpointId) -> ObjectKey {
    ObjectKey { name: sandbox_end_name(endpoint).to_string(), ..host_end(endpoint) }
}
