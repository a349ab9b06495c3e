//! Networks, key-compatible with `docker network inspect`.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::{ErrorBody, Plan};
use crate::model::{DriverSpec, EndpointSpec, NetworkSpec, Origin, Reach, Subnet};

/// A network with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// The name; the short id where Docker has not told it yet.
    pub name: String,
    /// The id, 64 hexadecimal digits.
    pub id: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// Always `local`: networks end at the host.
    pub scope: String,
    /// The driver as Docker names it.
    pub driver: String,
    /// Whether it has IPv4.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether it has IPv6.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Address management.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Whether nothing beyond the host can be reached.
    pub internal: bool,
    /// Swarm only; always false.
    pub attachable: bool,
    /// Swarm only; always false.
    pub ingress: bool,
    /// Docker's config-only networks; always empty.
    pub config_from: ConfigFrom,
    /// Docker's config-only networks; always false.
    pub config_only: bool,
    /// Endpoints by their id (Docker's container ids are not known here).
    pub containers: BTreeMap<String, Container>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Beyond Docker: `docker` or `netagent`, who made it and so removes it.
    pub origin: String,
}

/// The network that a network's settings come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// Its name.
    pub network: String,
}

/// Address management of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// `netagent` where we give out the addresses, `default` where dockerd does.
    pub driver: String,
    /// Always empty.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The subnets.
    pub config: Vec<SubnetConfig>,
}

/// One subnet; absent parts are empty texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SubnetConfig {
    /// The pool, e.g. `10.1.0.0/24`.
    pub subnet: String,
    /// Where dynamic addresses come from.
    #[serde(rename = "IPRange", default)]
    pub ip_range: String,
    /// The host's address in it.
    #[serde(default)]
    pub gateway: String,
    /// Reserved addresses by name.
    #[serde(default)]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// An endpoint as `docker network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// The container's name; the endpoint's short id where it is not known.
    pub name: String,
    /// The endpoint's id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// MAC address.
    pub mac_address: String,
    /// IPv4 address with prefix length; empty without one.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// IPv6 address with prefix length; empty without one.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// The answer to a network that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// Its id.
    pub id: String,
    /// Always empty; Docker's clients look for it.
    pub warning: String,
}

/// The answer to a prune.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pruned {
    /// Names of the networks that are gone.
    pub networks_deleted: Vec<String>,
    /// What could not be removed.
    pub errors: Vec<ErrorBody>,
    /// In a dry run, what would be done for each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<Plan>,
}

impl Network {
    /// A network and its endpoints as the engine has them.
    pub fn new<'a>(
        spec: &NetworkSpec,
        endpoints: impl IntoIterator<Item = &'a EndpointSpec>,
    ) -> Self {
        Self {
            name: spec.label(),
            id: spec.id.to_string(),
            created: timestamp(spec.created_ms),
            scope: "local".into(),
            driver: driver_name(&spec.driver).into(),
            enable_ipv4: spec.v4().next().is_some(),
            enable_ipv6: spec.v6().next().is_some(),
            ipam: Ipam {
                driver: ipam_name(spec.ipam).into(),
                options: BTreeMap::new(),
                config: spec.subnets.iter().map(SubnetConfig::from).collect(),
            },
            internal: spec.reach == Reach::Internal,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: endpoints
                .into_iter()
                .map(|endpoint| (endpoint.id.to_string(), Container::from(endpoint)))
                .collect(),
            options: spec.options.clone(),
            labels: spec.labels.clone(),
            origin: origin_name(spec.origin).into(),
        }
    }
}

impl From<&Subnet> for SubnetConfig {
    fn from(subnet: &Subnet) -> Self {
        Self {
            subnet: subnet.pool.to_string(),
            ip_range: text(subnet.range),
            gateway: text(subnet.gateway),
            auxiliary_addresses: subnet
                .aux
                .iter()
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect(),
        }
    }
}

impl From<&EndpointSpec> for Container {
    fn from(endpoint: &EndpointSpec) -> Self {
        Self {
            name: endpoint.label(),
            endpoint_id: endpoint.id.to_string(),
            mac_address: endpoint.mac.to_string(),
            ipv4_address: text(endpoint.v4),
            ipv6_address: text(endpoint.v6),
        }
    }
}

/// A value's text; empty without one.
pub(super) fn text(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// RFC 3339 in UTC with as many digits as there are; empty for a time beyond the calendar.
fn timestamp(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    text(time)
}

/// Docker's name for the plugin that a driver is behind.
const fn driver_name(driver: &DriverSpec) -> &'static str {
    match driver {
        DriverSpec::Bridge(_) => "netagent",
    }
}

const fn ipam_name(ipam: crate::model::Ipam) -> &'static str {
    match ipam {
        crate::model::Ipam::Netagent => "netagent",
        crate::model::Ipam::Dockerd => "default",
    }
}

const fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Docker => "docker",
        Origin::Netagent => "netagent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(timestamp(u64::MAX), "");
    }
}
