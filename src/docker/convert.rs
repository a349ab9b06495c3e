//! From the wire to the engine's requests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use super::wire::{
    CreateEndpoint, CreateNetwork, GatewayCheck, IpamData, Join, OfEndpoint, RequestPool,
    WithOptions,
};
use super::{ADDRESS_SPACE, endpoint_options};
use crate::engine::{AttachRequest, EndpointRequest, NetworkRequest, PoolRequest, SubnetRequest};
use crate::ipam::Purpose;
use crate::model::{EndpointId, Error, Family, Ipam, NetworkId, Origin, Reach, Result};

/// Our driver's name as users type it after `-d`.
pub(super) const DRIVER: &str = "netagent";

const GENERIC: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
/// Present on all daemons, or since 28; the data lists say the same.
const FAMILIES: [&str; 2] = ["com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"];

const ADDRESS_TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

/// A value of a field, or the field's name and what is wrong.
pub fn field<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|why: T::Err| {
        let shown: String = text.chars().take(80).collect();
        Error::usage(format!("{name} \"{shown}\""), why.to_string())
    })
}

fn optional<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

/// An address as CreateNetwork gives it, with the pool's prefix length.
fn address(name: &str, text: &str) -> Result<IpAddr> {
    match text.parse::<IpNet>() {
        Ok(net) => Ok(net.addr()),
        Err(_) => field(name, text),
    }
}

impl TryFrom<CreateNetwork> for NetworkRequest {
    type Error = Error;

    /// The time of making is left at 0: the handler has the clock.
    fn try_from(wire: CreateNetwork) -> Result<Self> {
        let id: NetworkId = field("NetworkID", &wire.network_id)?;
        let v4 = wire.ipv4_data.iter().map(|data| subnet(data, Family::V4));
        let v6 = wire.ipv6_data.iter().map(|data| subnet(data, Family::V6));
        let subnets = v4.chain(v6).collect::<Result<Vec<_>>>()?;
        if subnets.is_empty() {
            return Err(Error::usage("a network without subnets", "dockerd sent no address pool")
                .advise("leave IPv4 or IPv6 enabled"));
        }
        let mut data = wire.ipv4_data.iter().chain(&wire.ipv6_data);
        let ours = data.any(|data| data.address_space == ADDRESS_SPACE);
        Ok(Self {
            id: Some(id),
            name: None,
            origin: Origin::Docker,
            driver: DRIVER.into(),
            ipam: if ours { Ipam::Netagent } else { Ipam::Dockerd },
            subnets,
            v4: false,
            v6: false,
            reach: reach(&wire.options)?,
            labels: BTreeMap::new(),
            options: generic(&id, &wire.options)?,
            created_ms: 0,
        })
    }
}

fn subnet(data: &IpamData, family: Family) -> Result<SubnetRequest> {
    let pool: IpNet = field("Pool", &data.pool)?;
    if data.address_space == "null" || pool.prefix_len() == 0 {
        return Err(Error::usage(
            format!("address pool {pool} of address space \"{}\"", data.address_space),
            "the bridge driver needs addresses, and the null IPAM driver gives none",
        )
        .advise("leave out --ipam-driver, or use --ipam-driver netagent"));
    }
    check_family("Pool", pool, family)?;
    let aux = |(name, text): (&String, &String)| {
        Ok((name.clone(), address(&format!("AuxAddresses {name}"), text)?))
    };
    Ok(SubnetRequest {
        pool: pool.trunc(),
        gateway: match data.gateway.as_str() {
            "" => None,
            text => Some(address("Gateway", text)?),
        },
        range: None,
        aux: data.aux_addresses.iter().map(aux).collect::<Result<_>>()?,
    })
}

fn check_family(name: &str, net: IpNet, family: Family) -> Result<()> {
    match Family::of_net(net) == family {
        true => Ok(()),
        false => {
            Err(Error::usage(format!("{name} \"{net}\""), format!("not a subnet of {family}")))
        }
    }
}

fn reach(options: &Map<String, Value>) -> Result<Reach> {
    match options.get(INTERNAL) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(Reach::External),
        Some(Value::Bool(true)) => Ok(Reach::Internal),
        Some(other) => Err(Error::usage(
            format!("option \"{INTERNAL}\""),
            format!("{other} is neither true nor false"),
        )),
    }
}

/// The user's `-o key=value`: whether the driver has them is the engine's to say.
fn generic(id: &NetworkId, options: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    for key in options.keys() {
        if key != GENERIC && key != INTERNAL && !FAMILIES.contains(&key.as_str()) {
            tracing::warn!(network = %id.short(), option = %key, "an option of dockerd's is not used");
        }
    }
    user_options(options)
}

fn user_options(options: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let refuse = |key: &str, value: &Value, what: &str| {
        Error::usage(format!("option \"{key}\""), format!("{value} is not {what}"))
    };
    match options.get(GENERIC) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Bool(_) | Value::Number(_) => Ok((key.clone(), value.to_string())),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    Err(refuse(key, value, "a text"))
                }
            })
            .collect(),
        Some(other) => Err(refuse(GENERIC, other, "a map")),
    }
}

impl TryFrom<&CreateEndpoint> for EndpointRequest {
    type Error = Error;

    fn try_from(wire: &CreateEndpoint) -> Result<Self> {
        let id: EndpointId = field("EndpointID", &wire.endpoint_id)?;
        let network = field("NetworkID", &wire.network_id)?;
        let settings = endpoint_options::settings(&id.short(), &wire.options)?;
        let v4: Option<Ipv4Net> = optional("Address", &wire.interface.address)?;
        let v6: Option<Ipv6Net> = optional("AddressIPv6", &wire.interface.address_ipv6)?;
        Ok(Self {
            id: Some(id),
            network,
            origin: Origin::Docker,
            name: None,
            v4,
            v6,
            mac: optional("MacAddress", &wire.interface.mac_address)?,
            attach: match settings.interface {
                None => AttachRequest::HandOff,
                Some(interface) => AttachRequest::Named { interface },
            },
            sysctls: settings.sysctls,
            ports: Vec::new(),
        })
    }
}

/// The options that a gateway may be needed for. What else is wrong with them is for CreateNetwork
/// to say, which follows.
impl TryFrom<&GatewayCheck> for (BTreeMap<String, String>, Reach) {
    type Error = Error;

    fn try_from(wire: &GatewayCheck) -> Result<Self> {
        Ok((user_options(&wire.options)?, reach(&wire.options)?))
    }
}

impl TryFrom<&OfEndpoint> for (NetworkId, EndpointId) {
    type Error = Error;

    fn try_from(wire: &OfEndpoint) -> Result<Self> {
        Ok((field("NetworkID", &wire.network_id)?, field("EndpointID", &wire.endpoint_id)?))
    }
}

impl TryFrom<&WithOptions> for (NetworkId, EndpointId) {
    type Error = Error;

    fn try_from(wire: &WithOptions) -> Result<Self> {
        Ok((field("NetworkID", &wire.network_id)?, field("EndpointID", &wire.endpoint_id)?))
    }
}

impl TryFrom<&Join> for (NetworkId, EndpointId) {
    type Error = Error;

    fn try_from(wire: &Join) -> Result<Self> {
        Ok((field("NetworkID", &wire.network_id)?, field("EndpointID", &wire.endpoint_id)?))
    }
}

impl TryFrom<&RequestPool> for PoolRequest {
    type Error = Error;

    fn try_from(wire: &RequestPool) -> Result<Self> {
        if !wire.address_space.is_empty() && wire.address_space != ADDRESS_SPACE {
            return Err(Error::not_found(
                format!("address space \"{}\"", wire.address_space),
                format!("netagent has one, \"{ADDRESS_SPACE}\""),
            ));
        }
        // dockerd's own keys are about how it asks; a user's would be ignored in silence.
        if let Some(key) = wire.options.keys().find(|key| !key.starts_with("com.docker.")) {
            return Err(Error::usage(
                format!("IPAM option \"{key}\""),
                "netagent's IPAM driver has no options",
            )
            .advise("leave out --ipam-opt"));
        }
        let pool: Option<IpNet> = optional("Pool", &wire.pool)?;
        let family = match pool {
            Some(pool) => Family::of_net(pool),
            None if wire.v6 => Family::V6,
            None => Family::V4,
        };
        let range: Option<IpNet> = optional("SubPool", &wire.sub_pool)?;
        match (pool, range) {
            (None, Some(range)) => {
                return Err(Error::usage(
                    format!("range {range}"),
                    "a range of addresses needs the subnet it lies in",
                )
                .advise("give --subnet with --ip-range"));
            }
            (Some(pool), _) if pool.prefix_len() == 0 => {
                return Err(Error::usage(format!("pool {pool}"), "every address is not a subnet")
                    .advise("give a smaller --subnet, or none"));
            }
            (Some(_), Some(range)) => check_family("SubPool", range, family)?,
            (Some(_) | None, None) => {}
        }
        let (pool, range) = (pool.map(|net| net.trunc()), range.map(|net| net.trunc()));
        Ok(Self { pool, range, family })
    }
}

/// The address asked for, if any, and what it is for. A reserved address cannot be told from an
/// endpoint's chosen one: dockerd asks for both in the same words.
pub fn wanted_address(
    address: &str,
    options: &Map<String, Value>,
) -> Result<(Option<IpAddr>, Purpose)> {
    let purpose = match options.get(ADDRESS_TYPE).and_then(Value::as_str) {
        Some(GATEWAY) => Purpose::Gateway,
        _ => Purpose::Endpoint,
    };
    Ok((optional("Address", address)?, purpose))
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
