//! Drivers: an option table each, and pure functions from specs to kernel objects.
//!
//! Dispatch is a closed enum; all that is asked of a driver is a function here. A driver never talks to the kernel and
//! never reads the clock: the same intent and facts give the same objects.

mod blocks;
pub mod bridge;
mod endpoint;
mod options;

use std::collections::BTreeMap;

pub use blocks::sandbox_end_name;
pub use endpoint::{
    ENDPOINT_IFNAME, ENDPOINT_OPTIONS, ENDPOINT_SYSCTLS, EndpointSettings, endpoint_settings,
};
pub use options::{OptionRow, check_known, find};

use crate::model::{
    Announce, BridgeOwner, DriverSpec, EndpointId, EndpointPhase, EndpointSpec, Error, Facts,
    Family, ForeignBridge, HostAddress, LinkName, Needs, NetworkId, NetworkSpec, Reach, Result,
    Subnet,
};
use crate::object::{Netns, ObjectKey, Wanted};

/// Turns a user's options into a driver's settings. `name` is the driver's (`bridge`, or
/// Docker's name for us, `netagent`).
pub fn settings(
    name: &str,
    id: NetworkId,
    options: &BTreeMap<String, String>,
    subnets: &[Subnet],
    reach: Reach,
    facts: &Facts,
) -> Result<DriverSpec> {
    match name {
        "bridge" | "netagent" => {
            bridge::settings(id, options, subnets, reach, facts).map(DriverSpec::Bridge)
        }
        _ => Err(unknown(name)),
    }
}

/// The settings and options of a network after `changes` to its options; an empty value takes an
/// option back to its default.
pub fn changed(
    network: &NetworkSpec,
    changes: &BTreeMap<String, String>,
    subnets: &[Subnet],
    facts: &Facts,
) -> Result<(DriverSpec, BTreeMap<String, String>)> {
    match &network.driver {
        DriverSpec::Bridge(bridge) => bridge::changed(network, bridge, changes, subnets, facts)
            .map(|(bridge, options)| (DriverSpec::Bridge(bridge), options)),
    }
}

/// Whether a network that was asked for with `options` can be this one: it may have been changed
/// since.
pub fn was_asked_with(network: &NetworkSpec, options: &BTreeMap<String, String>) -> bool {
    match &network.driver {
        DriverSpec::Bridge(_) => bridge::may_become(options, &network.options),
    }
}

fn unknown(name: &str) -> Error {
    Error::usage(
        format!("driver \"{name}\""),
        "netagent has no driver of this name; it has: bridge",
    )
}

/// The families of which a network needs no gateway address: dockerd reserves none then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewaySkips {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl GatewaySkips {
    /// Whether the family is one of them.
    pub const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Those of a network of these options.
pub fn gateway_skips(
    name: &str,
    options: &BTreeMap<String, String>,
    reach: Reach,
) -> Result<GatewaySkips> {
    match name {
        "bridge" | "netagent" => bridge::gateway_skips(options, reach),
        _ => Err(unknown(name)),
    }
}

/// Those of a network that is there.
pub fn gateway_skips_of(network: &NetworkSpec) -> Result<GatewaySkips> {
    match &network.driver {
        DriverSpec::Bridge(_) => bridge::gateway_skips(&network.options, network.reach),
    }
}

/// The bridge of the operator's that a network of these options would use.
pub fn adopted<'a>(
    name: &str,
    options: &BTreeMap<String, String>,
    facts: &'a Facts,
) -> Result<Option<&'a ForeignBridge>> {
    match name {
        "bridge" | "netagent" => bridge::adopted(options, facts),
        _ => Err(unknown(name)),
    }
}

/// The bridge of the operator's that a network uses, as it is.
pub fn adopted_by<'a>(
    network: &NetworkSpec,
    facts: &'a Facts,
) -> Result<Option<&'a ForeignBridge>> {
    match &network.driver {
        DriverSpec::Bridge(_) => bridge::adopted(&network.options, facts),
    }
}

/// The link of the operator's that a network uses, there or not.
pub fn operators_link(network: &NetworkSpec) -> Option<&LinkName> {
    match &network.driver {
        DriverSpec::Bridge(bridge) => {
            (bridge.owner == BridgeOwner::Operator).then_some(&bridge.bridge)
        }
    }
}

/// The link on the host that a network has for itself.
pub fn own_link(driver: &DriverSpec) -> &LinkName {
    match driver {
        DriverSpec::Bridge(bridge) => &bridge.bridge,
    }
}

/// The link by which neighbours are told of new addresses, if they are.
pub fn announced_on(network: &NetworkSpec) -> Option<&LinkName> {
    match &network.driver {
        DriverSpec::Bridge(bridge) => match bridge.announce {
            Announce::Once => Some(&bridge.bridge),
            Announce::Never => None,
        },
    }
}

/// What names of interfaces in sandboxes begin with; a number follows.
pub fn interface_prefix(network: &NetworkSpec) -> &str {
    match &network.driver {
        DriverSpec::Bridge(bridge) => &bridge.interface_prefix,
    }
}

/// Host address of published ports that name none.
pub fn host_binding(network: &NetworkSpec) -> HostAddress {
    match &network.driver {
        DriverSpec::Bridge(bridge) => bridge.host_binding,
    }
}

/// Whether host ports lead to containers' addresses of the family.
pub fn translates(network: &NetworkSpec, family: Family) -> bool {
    match (&network.driver, family) {
        (DriverSpec::Bridge(bridge), Family::V4) => bridge.mode_v4.translates(),
        (DriverSpec::Bridge(bridge), Family::V6) => bridge.mode_v6.translates(),
    }
}

/// The bridge of the operator's that a network uses, where it is not there.
pub fn missing_bridge<'a>(network: &'a NetworkSpec, facts: &Facts) -> Option<&'a LinkName> {
    match &network.driver {
        DriverSpec::Bridge(spec) => bridge::is_gone(spec, facts).then_some(&spec.bridge),
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
pub fn host_objects(facts: &Facts, needs: &Needs, saved: &BTreeMap<String, String>) -> Vec<Wanted> {
    blocks::host_objects(facts, needs, saved)
}

/// The key of an endpoint's link on the host: gone when its sandbox is.
pub fn host_end(endpoint: EndpointId) -> ObjectKey {
    ObjectKey::link(Netns::Host, &blocks::host_end_name(endpoint))
}

/// The key of the other end while it is on the host: before dockerd takes it, and after it gives
/// it back.
pub fn sandbox_end(endpoint: EndpointId) -> ObjectKey {
    ObjectKey::link(Netns::Host, &sandbox_end_name(endpoint))
}
