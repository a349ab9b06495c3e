//! NetworkDriver: the calls of a network's and an endpoint's life.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::convert::{DRIVER, field};
use super::plugin::{Plugin, Reply, done, gone_is_fine, value};
use super::ports;
use super::wire::{
    self, CreateEndpoint, CreateNetwork, EndpointCreated, GatewayCheck, GatewayNeeds, Interface,
    InterfaceName, Join, OfEndpoint, OfNetwork, WithOptions,
};
use crate::engine::{self, EndpointRequest, Engine, Mode, NetworkRequest};
use crate::model::{EndpointId, EndpointSpec, Error, NetworkId, Result};

pub(super) async fn handle(plugin: &Plugin, name: &str, method: &str, body: &[u8]) -> Reply {
    match name {
        "GetCapabilities" => Ok(Some(json!({
            "Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": true
        }))),
        "CreateNetwork" => create_network(plugin, wire::parse(method, body)?).await,
        "DeleteNetwork" => delete_network(plugin, wire::parse(method, body)?).await,
        "CreateEndpoint" => create_endpoint(plugin, wire::parse(method, body)?).await,
        "DeleteEndpoint" => end(plugin, wire::parse(method, body)?, Engine::delete_endpoint).await,
        "Join" => join(plugin, wire::parse(method, body)?).await,
        "Leave" => end(plugin, wire::parse(method, body)?, Engine::leave).await,
        "ProgramExternalConnectivity" => publish(plugin, wire::parse(method, body)?).await,
        "RevokeExternalConnectivity" => {
            end(plugin, wire::parse(method, body)?, Engine::withdraw).await
        }
        // These answers depend on nothing in the request, and on 20.10 and 26 a refused
        // EndpointOperInfo would keep the container from starting.
        "EndpointOperInfo" => Ok(Some(json!({ "Value": {} }))),
        "DiscoverNew" | "DiscoverDelete" | "FreeNetwork" => done(),
        "GwAllocCheck" => gateway_needs(plugin, wire::parse(method, body)?).await,
        "AllocateNetwork" => Err(Error::usage(
            "allocate a network for a swarm",
            "netagent's networks are local to their host",
        )
        .advise("leave out --scope swarm")),
        _ => Ok(None),
    }
}

async fn create_network(plugin: &Plugin, call: CreateNetwork) -> Reply {
    let mut request = NetworkRequest::try_from(call)?;
    request.created_ms = now_ms();
    plugin.engine(move |engine| engine.create_network(request, Mode::Apply)).await?;
    plugin.ring();
    done()
}

async fn gateway_needs(plugin: &Plugin, call: GatewayCheck) -> Reply {
    let (options, reach) = (&call).try_into()?;
    let skips = plugin.engine(move |engine| engine.gateway_skips(DRIVER, &options, reach)).await?;
    value(&GatewayNeeds { skip_ipv4: skips.v4, skip_ipv6: skips.v6 })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// dockerd forgets the network whatever we answer.
async fn delete_network(plugin: &Plugin, call: OfNetwork) -> Reply {
    let id: NetworkId = field("NetworkID", &call.network_id)?;
    let removed = plugin.engine(move |engine| engine.delete_network(id, Mode::Apply).map(drop));
    gone_is_fine(removed.await)?;
    done()
}

async fn create_endpoint(plugin: &Plugin, call: CreateEndpoint) -> Reply {
    let request = EndpointRequest::try_from(&call)?;
    let made = plugin.engine(move |engine| engine.create_endpoint(request)).await?;
    value(&EndpointCreated { interface: left_open(&call.interface, &made) })
}

/// What arrived non-empty must be empty in the answer, field by field.
fn left_open(given: &Interface, made: &EndpointSpec) -> Interface {
    let fill = |given: &str, made: Option<String>| {
        if given.is_empty() { made.unwrap_or_default() } else { String::new() }
    };
    Interface {
        address: fill(&given.address, made.v4.map(|net| net.to_string())),
        address_ipv6: fill(&given.address_ipv6, made.v6.map(|net| net.to_string())),
        mac_address: fill(&given.mac_address, Some(made.mac.to_string())),
    }
}

/// The port lists are those of the container: they are translated once ProgramExternalConnectivity
/// says that this endpoint publishes them, and are open from now on where nothing is translated.
async fn join(plugin: &Plugin, call: Join) -> Reply {
    let (network, endpoint) = (&call).try_into()?;
    let ports = ports::published(&call.options)?;
    let sandbox = PathBuf::from(call.sandbox_key);
    let joined =
        plugin.engine(move |engine| engine.join(network, endpoint, &sandbox, &ports)).await?;
    plugin.ring();
    value(&answer_to_join(&joined))
}

/// Without any gateway dockerd would add docker_gwbridge to the container, and so lead an internal
/// network outside.
fn answer_to_join(joined: &engine::Joined) -> wire::Joined {
    let text = |address: Option<String>| address.unwrap_or_default();
    wire::Joined {
        interface_name: InterfaceName {
            src_name: text(joined.source.as_ref().map(ToString::to_string)),
            dst_prefix: joined.prefix.clone(),
        },
        gateway: text(joined.gateway.map(|address| address.to_string())),
        gateway_ipv6: text(joined.gateway_v6.map(|address| address.to_string())),
        disable_gateway_service: joined.gateway.is_none() && joined.gateway_v6.is_none(),
    }
}

/// The list replaces what was published. dockerd says it for every gateway endpoint, also with
/// nothing in it: that must succeed where publishing could not, without IPv4 for one.
async fn publish(plugin: &Plugin, call: WithOptions) -> Reply {
    let (network, endpoint) = (&call).try_into()?;
    let ports = ports::published(&call.options)?;
    plugin.engine(move |engine| engine.publish(network, endpoint, &ports)).await?;
    done()
}

/// The calls that end something: twice, alone and for unknown ids they are no error.
async fn end(
    plugin: &Plugin,
    call: OfEndpoint,
    work: fn(&mut Engine, NetworkId, EndpointId) -> Result<()>,
) -> Reply {
    let (network, endpoint) = (&call).try_into()?;
    gone_is_fine(plugin.engine(move |engine| work(engine, network, endpoint)).await)?;
    done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Attach, MacAddr, Origin};

    fn made() -> EndpointSpec {
        EndpointSpec {
            id: EndpointId::from_bytes([1; 32]),
            network: NetworkId::from_bytes([2; 32]),
            origin: Origin::Docker,
            name: None,
            v4: Some("172.18.0.2/16".parse().unwrap()),
            v6: None,
            mac: MacAddr::from_id(&[1; 32]),
            attach: Attach::HandOff,
            sysctls: Default::default(),
            naming: Default::default(),
            asked: Vec::new(),
            publishes: false,
            ports: Vec::new(),
        }
    }

    fn answered(given: &str) -> String {
        let given: Interface = serde_json::from_str(given).unwrap();
        serde_json::to_string(&EndpointCreated { interface: left_open(&given, &made()) }).unwrap()
    }

    #[test]
    fn only_what_arrived_empty_is_answered() {
        for (given, answer) in [
            (
                r#"{"Address":"172.18.0.2/16","AddressIPv6":"","MacAddress":""}"#,
                r#"{"Interface":{"MacAddress":"02:01:01:01:01:01"}}"#,
            ),
            (
                r#"{"Address":"172.18.0.2/16","AddressIPv6":"","MacAddress":"02:11:22:33:44:55"}"#,
                r#"{"Interface":{}}"#,
            ),
        ] {
            assert_eq!(answered(given), answer);
        }
    }

    fn joined(gateway: Option<&str>, gateway_v6: Option<&str>) -> serde_json::Value {
        let joined = engine::Joined {
            source: Some("nac-8f476ffd31b".parse().unwrap()),
            prefix: "eth".into(),
            gateway: gateway.map(|address| address.parse().unwrap()),
            gateway_v6: gateway_v6.map(|address| address.parse().unwrap()),
        };
        serde_json::to_value(answer_to_join(&joined)).unwrap()
    }

    #[test]
    fn a_network_with_a_gateway_of_either_family_needs_no_docker_gwbridge() {
        let name = json!({ "SrcName": "nac-8f476ffd31b", "DstPrefix": "eth" });
        assert_eq!(
            joined(Some("172.18.0.1"), None),
            json!({ "InterfaceName": name, "Gateway": "172.18.0.1", "GatewayIPv6": "",
                    "DisableGatewayService": false })
        );
        assert_eq!(
            joined(None, Some("fd00::1")),
            json!({ "InterfaceName": name, "Gateway": "", "GatewayIPv6": "fd00::1",
                    "DisableGatewayService": false })
        );
    }

    #[test]
    fn an_internal_network_gets_neither_a_gateway_nor_docker_gwbridge() {
        let answer = joined(None, None);
        assert_eq!(answer["Gateway"], "");
        assert_eq!(answer["DisableGatewayService"], true);
    }
}
