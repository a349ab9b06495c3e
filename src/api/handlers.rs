//! One function a request: asks the engine, answers in the API's words.

use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;

use super::filter::Filters;
use super::wire::{
    AttachRequest, CreateNetwork, Created, Endpoint, ErrorBody, Network, Plan, Port, Pruned,
    Status, UpdateNetwork, Updated, Version,
};
use crate::engine::{Engine, Handle, Mode, NetworkRequest};
use crate::http::Answer;
use crate::model::{EndpointId, Error, NetworkId, NetworkSpec, Origin, Result};

/// How long `status?wait` waits. A guess: a group delete of a hundred links takes 0.1 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn list(engine: &Handle, filters: Option<&str>) -> Result<Answer> {
    let filters = Filters::from_json(filters.unwrap_or("{}"))?;
    let now_ms = now_ms();
    let mut networks = engine.run(|engine| networks(engine)).await?;
    networks.retain(|network| filters.match_network(network, now_ms));
    networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Answer::json(StatusCode::OK, &networks))
}

pub(super) async fn inspect(engine: &Handle, reference: &str) -> Result<Answer> {
    let reference = reference.to_owned();
    let network = engine
        .run(move |engine| {
            let id = engine.find_network(&reference)?;
            shown(engine, id).ok_or_else(|| vanished(id))
        })
        .await??;
    Ok(Answer::json(StatusCode::OK, &network))
}

pub(super) async fn create(engine: &Handle, body: CreateNetwork, mode: Mode) -> Result<Answer> {
    let request: NetworkRequest = body.request(now_ms())?;
    let (id, plan) = engine.run(move |engine| engine.create_network(request, mode)).await??;
    Ok(match mode {
        Mode::DryRun => Answer::json(StatusCode::OK, &Plan::from(&plan)),
        Mode::Apply => {
            let created = Created { id: id.to_string(), warning: String::new() };
            Answer::json(StatusCode::CREATED, &created)
        }
    })
}

/// Answers with the plan, also when it was carried out.
pub(super) async fn update(
    engine: &Handle,
    reference: &str,
    body: UpdateNetwork,
    mode: Mode,
) -> Result<Answer> {
    let task = format!("update network \"{reference}\"");
    let change = body.change().map_err(|error| error.within(task))?;
    let reference = reference.to_owned();
    let updated = engine
        .run(move |engine| {
            let id = engine.find_network(&reference)?;
            engine.update_network(id, &change, mode)
        })
        .await??;
    Ok(Answer::json(StatusCode::OK, &Updated::from(&updated)))
}

/// Answers with the plan, also when it was carried out.
pub(super) async fn remove(engine: &Handle, reference: &str, mode: Mode) -> Result<Answer> {
    let reference = reference.to_owned();
    let plan = engine
        .run(move |engine| {
            let id = engine.find_network(&reference)?;
            let spec = spec(engine, id)?;
            if spec.origin == Origin::Docker {
                let label = spec.label();
                return Err(Error::conflict(
                    format!("remove network \"{label}\""),
                    "it was made by Docker, which would go on believing in it",
                )
                .advise(format!("use `docker network rm {label}`")));
            }
            engine.delete_network(id, mode)
        })
        .await??;
    Ok(Answer::json(StatusCode::OK, &Plan::from(&plan)))
}

/// Removes our networks that have no endpoints; Docker's are for `docker network prune`.
pub(super) async fn prune(engine: &Handle, filters: Option<&str>, mode: Mode) -> Result<Answer> {
    let filters = Filters::from_json(filters.unwrap_or("{}"))?;
    filters.only(&["label", "label!", "until"])?;
    let now_ms = now_ms();
    let pruned = engine
        .run(move |engine| {
            let mut pruned = Pruned::default();
            for network in networks(engine) {
                let unused = network.containers.is_empty() && network.origin == "netagent";
                let Ok(id) = network.id.parse::<NetworkId>() else { continue };
                if !unused || !filters.match_network(&network, now_ms) {
                    continue;
                }
                match engine.delete_network(id, mode) {
                    Ok(plan) => {
                        pruned.networks_deleted.push(network.name);
                        pruned.plans.extend((mode == Mode::DryRun).then(|| Plan::from(&plan)));
                    }
                    Err(error) => pruned.errors.push(ErrorBody::from(&error)),
                }
            }
            pruned
        })
        .await?;
    Ok(Answer::json(StatusCode::OK, &pruned))
}

pub(super) async fn attach(
    engine: &Handle,
    reference: &str,
    body: AttachRequest,
) -> Result<Answer> {
    let reference = reference.to_owned();
    let endpoint = engine
        .run(move |engine| {
            let id = engine.find_network(&reference)?;
            let request = body.request(spec(engine, id)?)?;
            engine.create_endpoint(request)
        })
        .await??;
    Ok(Answer::json(StatusCode::CREATED, &Endpoint::from(&endpoint)))
}

pub(super) async fn detach(engine: &Handle, network: &str, endpoint: &str) -> Result<Answer> {
    let (network, endpoint) = (network.to_owned(), endpoint.to_owned());
    let gone = engine
        .run(move |engine| {
            let id = engine.find_network(&network)?;
            let found = find_endpoint(engine, id, &endpoint)?;
            engine.delete_endpoint(id, found.0).map(|()| found.1)
        })
        .await??;
    Ok(Answer::json(StatusCode::OK, &gone))
}

pub(super) async fn ports(engine: &Handle) -> Result<Answer> {
    let ports = engine.run(|engine| engine.ports()).await?;
    let ports: Vec<Port> = ports.iter().map(Port::from).collect();
    Ok(Answer::json(StatusCode::OK, &ports))
}

/// The agent's health; with `wait` not before all links out of service are deleted, or patience
/// is at its end.
pub(super) async fn status(engine: &Handle, wait: bool) -> Result<Answer> {
    let begun = Instant::now();
    while wait && begun.elapsed() < PATIENCE && engine.run(Engine::garbage).await? > 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let status = engine.run(Engine::status).await??;
    Ok(Answer::json(StatusCode::OK, &Status::from(status)))
}

pub(super) async fn collect_garbage(engine: &Handle, mode: Mode) -> Result<Answer> {
    let plan = engine.run(move |engine| engine.collect_garbage(mode)).await??;
    Ok(Answer::json(StatusCode::OK, &Plan::from(&plan)))
}

pub(super) fn version() -> Answer {
    let version = Version { version: env!("CARGO_PKG_VERSION").into(), api_version: "v1".into() };
    Answer::json(StatusCode::OK, &version)
}

fn networks(engine: &Engine) -> Vec<Network> {
    let ids: Vec<NetworkId> = engine.intent().networks().map(|network| network.spec.id).collect();
    ids.into_iter().filter_map(|id| shown(engine, id)).collect()
}

fn shown(engine: &Engine, id: NetworkId) -> Option<Network> {
    let endpoints = engine.intent().endpoints_of(id).map(|endpoint| &endpoint.spec);
    engine.intent().network(id).map(|network| Network::new(&network.spec, endpoints))
}

fn spec(engine: &Engine, id: NetworkId) -> Result<&NetworkSpec> {
    engine.intent().network(id).map(|network| &network.spec).ok_or_else(|| vanished(id))
}

fn vanished(id: NetworkId) -> Error {
    Error::not_found(format!("network \"{}\"", id.short()), "no such network")
}

/// The endpoint of this name, id, or unambiguous beginning of an id; Docker's are refused.
fn find_endpoint(
    engine: &Engine,
    network: NetworkId,
    reference: &str,
) -> Result<(EndpointId, Endpoint)> {
    let label = spec(engine, network)?.label();
    let task = format!("detach \"{reference}\" from network \"{label}\"");
    let specs = || engine.intent().endpoints_of(network).map(|endpoint| &endpoint.spec);
    let of_id = |id| engine.intent().endpoint(id).map(|known| &known.spec);
    let known = reference.parse().ok().and_then(of_id).filter(|spec| spec.network == network);
    let named = known.or_else(|| specs().find(|spec| spec.name.as_deref() == Some(reference)));
    let begun = || {
        let mut begun = specs().filter(|spec| spec.id.to_string().starts_with(reference));
        match (begun.next().filter(|_| !reference.is_empty()), begun.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => {
                Err(Error::conflict(&task, "several endpoints have ids that begin so"))
            }
            (None, _) => Err(Error::not_found(&task, "the network has no such endpoint")),
        }
    };
    let spec = named.map_or_else(begun, Ok)?;
    if spec.origin == Origin::Docker {
        return Err(Error::conflict(
            task,
            "it was made by Docker, which would go on believing in it",
        )
        .advise(format!("use `docker network disconnect {label} {}`", spec.label())));
    }
    Ok((spec.id, Endpoint::from(spec)))
}

/// Milliseconds since 1970 UTC; 0 on a host whose clock is before that.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{BridgeSpec, DriverSpec, Ipam, Mtu, Reach, Subnet};

    /// A network on 10.1.0.0/24.
    pub(in crate::api) fn network(name: &str) -> NetworkSpec {
        NetworkSpec {
            id: NetworkId::from_bytes([0x3f; 32]),
            name: Some(name.parse().unwrap()),
            origin: Origin::Netagent,
            driver: DriverSpec::Bridge(BridgeSpec::new(
                "nab-3f3f3f3f3f3".parse().unwrap(),
                Mtu::ETHERNET,
            )),
            ipam: Ipam::Netagent,
            subnets: vec![Subnet {
                pool: "10.1.0.0/24".parse().unwrap(),
                gateway: Some("10.1.0.1".parse().unwrap()),
                range: None,
                aux: BTreeMap::new(),
            }],
            reach: Reach::External,
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
            options: BTreeMap::new(),
            created_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_network_has_the_keys_of_docker_network_inspect() {
        let shown = serde_json::to_value(Network::new(&network("web"), [])).unwrap();
        let keys: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        for key in [
            "Name",
            "Id",
            "Created",
            "Scope",
            "Driver",
            "EnableIPv4",
            "EnableIPv6",
            "IPAM",
            "Internal",
            "Attachable",
            "Ingress",
            "ConfigFrom",
            "ConfigOnly",
            "Containers",
            "Options",
            "Labels",
        ] {
            assert!(keys.contains(&key), "{key} is missing from {keys:?}");
        }
        assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], "10.1.0.1");
        assert_eq!(shown["Created"], "2023-11-14T22:13:20Z");
    }
}
