//! What Docker's API answers, as far as it is read (source: moby, api/types; unversioned paths).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wire::null_is_empty;

/// `GET /version`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Version {
    /// `1.48`.
    pub api_version: String,
}

impl Version {
    /// Major and minor number.
    pub fn numbers(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.api_version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// `GET /info`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Info {
    /// Whether containers outlive this dockerd.
    pub live_restore_enabled: bool,
}

/// `GET /networks` and `GET /networks/{id}`; only the latter has containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// 64 hexadecimal digits; 25 characters for networks of a swarm.
    pub id: String,
    /// The name.
    #[serde(deserialize_with = "null_is_empty")]
    pub name: String,
    /// The driver.
    #[serde(deserialize_with = "null_is_empty")]
    pub driver: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Subnets.
    #[serde(rename = "IPAM", deserialize_with = "null_is_empty")]
    pub ipam: Ipam,
    /// Endpoints by container id, or `ep-` and their own id while they have no container.
    #[serde(deserialize_with = "null_is_empty")]
    pub containers: BTreeMap<String, Attached>,
}

/// A network's subnets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    /// One entry a subnet.
    #[serde(deserialize_with = "null_is_empty")]
    pub config: Vec<IpamConfig>,
}

/// A subnet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    /// With prefix length.
    #[serde(deserialize_with = "null_is_empty")]
    pub subnet: String,
}

/// An endpoint as its network shows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Attached {
    /// The container's name.
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// With prefix length.
    #[serde(rename = "IPv4Address")]
    pub ipv4: String,
    /// With prefix length.
    #[serde(rename = "IPv6Address")]
    pub ipv6: String,
}

/// `GET /containers/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Container {
    /// With a leading slash; names with a second slash are legacy links.
    #[serde(deserialize_with = "null_is_empty")]
    pub names: Vec<String>,
    /// Its endpoints.
    #[serde(deserialize_with = "null_is_empty")]
    pub network_settings: NetworkSettings,
}

/// A container's endpoints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By the network's name.
    #[serde(deserialize_with = "null_is_empty")]
    pub networks: BTreeMap<String, Option<Settings>>,
}

/// An endpoint as its container shows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// 64 hexadecimal digits; empty while not attached.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// No prefix length.
    #[serde(rename = "IPAddress")]
    pub ipv4: String,
    /// No prefix length.
    #[serde(rename = "GlobalIPv6Address")]
    pub ipv6: String,
}
