//! What dockerd sends and wants back, field for field (source: moby,
//! libnetwork/drivers/remote/api and libnetwork/ipams/remote/api).
//!
//! Field names are Go's; a missing and a null collection are the same; fields that newer daemons
//! add are ignored. Meaning is given in `convert`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::model::{Error, Result};

/// Go writes an empty map or slice as `null`.
pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a request, or says what is wrong with it.
///
/// dockerd repeats a call whose connection broke after the body was sent with an empty body; that
/// is never taken for a request with nothing in it.
pub fn parse<'de, T: Deserialize<'de>>(method: &str, body: &'de [u8]) -> Result<T> {
    if body.is_empty() {
        return Err(Error::usage(
            method,
            "the request body is empty: dockerd retried after a dropped connection",
        )
        .advise("the first try may have been carried out; try the docker command again"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::usage(
            method,
            format!("the request body is not UTF-8 after {} bytes", error.valid_up_to()),
        )
    })?;
    let refuse =
        |why: String| Error::usage(method, format!("the request body cannot be read: {why}"));
    // Otherwise a list would pass for the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(refuse("it is not a JSON object".into()));
    }
    serde_json::from_str(text).map_err(|error| refuse(error.to_string()))
}

/// NetworkDriver.CreateNetwork.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetwork {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// `com.docker.network.*` of dockerd's, and the user's under `…generic`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
    /// One entry a subnet; empty with `--ipv4=false`.
    #[serde(rename = "IPv4Data", default, deserialize_with = "null_is_empty")]
    pub ipv4_data: Vec<IpamData>,
    /// The same for IPv6.
    #[serde(rename = "IPv6Data", default, deserialize_with = "null_is_empty")]
    pub ipv6_data: Vec<IpamData>,
}

/// A subnet of CreateNetwork.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamData {
    /// `LocalDefault` (dockerd's allocator), ours, another plugin's, or `null`.
    #[serde(default)]
    pub address_space: String,
    /// The subnet; `0.0.0.0/0` with the null allocator.
    #[serde(default)]
    pub pool: String,
    /// With the pool's prefix length; absent where none was allocated.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub gateway: String,
    /// Reserved addresses by the user's names, with the pool's prefix length.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// NetworkDriver.GwAllocCheck, which comes before CreateNetwork.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GatewayCheck {
    /// As CreateNetwork has them.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
}

/// Answer to GwAllocCheck: for which family dockerd reserves no gateway that nobody named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GatewayNeeds {
    /// None of IPv4.
    #[serde(rename = "SkipIPv4")]
    pub skip_ipv4: bool,
    /// None of IPv6.
    #[serde(rename = "SkipIPv6")]
    pub skip_ipv6: bool,
}

/// DeleteNetwork, FreeNetwork.
#[derive(Debug, Clone, Deserialize)]
pub struct OfNetwork {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
}

/// NetworkDriver.CreateEndpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateEndpoint {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// What is given already.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub interface: Interface,
    /// dockerd's and the user's, side by side.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
}

/// Addresses of an endpoint. In the answer, what came non-empty must be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Interface {
    /// IPv4 with prefix length.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// IPv6 with prefix length.
    #[serde(rename = "AddressIPv6", skip_serializing_if = "String::is_empty")]
    pub address_ipv6: String,
    /// With colons.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

/// Answer to CreateEndpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointCreated {
    /// Only what dockerd left open.
    pub interface: Interface,
}

/// Leave, DeleteEndpoint, RevokeExternalConnectivity.
#[derive(Debug, Clone, Deserialize)]
pub struct OfEndpoint {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
}

/// NetworkDriver.Join.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Join {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Path of the container's namespace; at the start of a container it exists from 28 on.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub sandbox_key: String,
    /// The container's options: its port lists.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
}

/// ProgramExternalConnectivity.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WithOptions {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// The container's options: its port lists.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
}

/// An entry of `com.docker.network.portmap`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// IP protocol number.
    pub proto: u8,
    /// Container port.
    pub port: u16,
    /// Empty: the driver decides.
    #[serde(rename = "HostIP", default)]
    pub host_ip: String,
    /// 0: any.
    #[serde(default)]
    pub host_port: u16,
    /// Last of a range; 0 or the same as the first for one port.
    #[serde(default)]
    pub host_port_end: u16,
}

/// Answer to Join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    /// Which link to move, and what to call it.
    pub interface_name: InterfaceName,
    /// IPv4, no prefix length; empty for none.
    pub gateway: String,
    /// IPv6, no prefix length; empty for none.
    #[serde(rename = "GatewayIPv6")]
    pub gateway_ipv6: String,
    /// Whether dockerd refrains from giving the container docker_gwbridge.
    pub disable_gateway_service: bool,
}

/// A link for the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    /// Its name in the host's namespace; empty where it is in the sandbox already.
    pub src_name: String,
    /// What its name in the sandbox begins with; dockerd adds the lowest free number. After a
    /// restart dockerd finds an interface by its address, and what follows this must be a number or
    /// nothing: otherwise the container loses its DNS.
    pub dst_prefix: String,
}

/// IpamDriver.RequestPool.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestPool {
    /// What GetDefaultAddressSpaces said.
    pub address_space: String,
    /// `--subnet`; empty: choose one.
    pub pool: String,
    /// `--ip-range`.
    #[serde(default)]
    pub sub_pool: String,
    /// `--ipam-opt`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
    /// The family when `pool` is empty.
    #[serde(default)]
    pub v6: bool,
}

/// Answer to RequestPool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolGiven {
    /// Opaque to dockerd, which stores it.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// The subnet.
    #[serde(rename = "Pool")]
    pub pool: String,
    /// Nothing.
    #[serde(rename = "Data")]
    pub data: Map<String, Value>,
}

/// ReleasePool.
#[derive(Debug, Clone, Deserialize)]
pub struct OfPool {
    /// What RequestPool answered.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
}

/// RequestAddress, ReleaseAddress.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OfAddress {
    /// What RequestPool answered.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// No prefix length; empty: choose one.
    pub address: String,
    /// Says what the address is for.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Map<String, Value>,
}

/// Answer to RequestAddress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddressGiven {
    /// With the pool's prefix length.
    pub address: String,
    /// Nothing.
    pub data: Map<String, Value>,
}
