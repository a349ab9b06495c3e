//! Published ports: choose, hold, translate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::execute::{execute, roll_forward};
use super::{Engine, PortRequest};
use crate::model::{
    DriverSpec, EndpointId, EndpointSpec, Error, NetworkId, NetworkSpec, PortRange, Protocol,
    Published, Reach, Result, StoredEndpoint,
};
use crate::plan::delta;
use crate::store::Change;

/// How many other ports are tried when a free choice turns out to be taken on the host, as Docker
/// does.
const ATTEMPTS: usize = 10;

/// Which endpoint has which host port; answers by searching a tree, never by scanning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortIndex {
    ports: BTreeMap<(Protocol, Ipv4Addr, u16), (u16, EndpointId)>,
    hosts: BTreeMap<Ipv4Addr, usize>,
    /// The ephemeral port given out last.
    cursor: u16,
}

impl PortIndex {
    /// Adds an endpoint's ports.
    pub fn add(&mut self, endpoint: &EndpointSpec) {
        for Published { protocol, host, host_ports, .. } in &endpoint.ports {
            let key = (*protocol, *host, host_ports.first());
            self.ports.insert(key, (host_ports.last(), endpoint.id));
            *self.hosts.entry(*host).or_default() += 1;
        }
    }

    /// Removes the ports of an endpoint.
    pub fn remove(&mut self, endpoint: &EndpointSpec) {
        for Published { protocol, host, host_ports, .. } in &endpoint.ports {
            if self.ports.remove(&(*protocol, *host, host_ports.first())).is_some()
                && let Some(count) = self.hosts.get_mut(host)
            {
                *count -= 1;
                if *count == 0 {
                    self.hosts.remove(host);
                }
            }
        }
    }

    /// The endpoints that have a port of `ports`, where addresses meet: a wildcard meets all.
    pub fn owners(
        &self,
        protocol: Protocol,
        host: Ipv4Addr,
        ports: PortRange,
    ) -> impl Iterator<Item = EndpointId> {
        let meets = move |other: &&Ipv4Addr| {
            host.is_unspecified() || other.is_unspecified() || **other == host
        };
        self.hosts.keys().filter(meets).filter_map(move |other| {
            let upto = (protocol, *other, 0)..=(protocol, *other, ports.last());
            let (_, (last, endpoint)) = self.ports.range(upto).next_back()?;
            (*last >= ports.first()).then_some(*endpoint)
        })
    }

    /// The same, all free but for the ephemeral port that comes next.
    pub fn cleared(&self) -> Self {
        Self { cursor: self.cursor, ..Self::default() }
    }
}

/// The single ports chosen so far; asked once a port, so answered without going through them.
#[derive(Debug, Default)]
struct Chosen {
    ports: Vec<Published>,
    hosts: BTreeMap<(Protocol, u16), Vec<Ipv4Addr>>,
}

impl Chosen {
    fn push(&mut self, port: Published) {
        let hosts = self.hosts.entry((port.protocol, port.host_ports.first())).or_default();
        hosts.push(port.host);
        self.ports.push(port);
    }

    /// Whether one of them meets these: a wildcard meets every address.
    fn meets(&self, protocol: Protocol, host: Ipv4Addr, ports: PortRange) -> bool {
        let among = (protocol, ports.first())..=(protocol, ports.last());
        self.hosts
            .range(among)
            .flat_map(|(_, hosts)| hosts)
            .any(|other| *other == host || other.is_unspecified() || host.is_unspecified())
    }
}

/// What has been found taken on the host while choosing.
type Refused = BTreeSet<(Protocol, u16)>;

impl Engine {
    /// Publishes exactly these ports of an endpoint and no others, or changes nothing and names in
    /// the error who has the port that was taken.
    pub fn publish(
        &mut self,
        network: NetworkId,
        endpoint: EndpointId,
        ports: &[PortRequest],
    ) -> Result<()> {
        if ports.is_empty() {
            return self.withdraw(network, endpoint);
        }
        let (network, stored) = self.living_endpoint(network, endpoint)?;
        let task = format!("publish ports of endpoint \"{}\"", stored.spec.label());
        self.try_publish(&network, stored, ports).map_err(|error| error.within(task))
    }

    fn try_publish(
        &mut self,
        network: &NetworkSpec,
        stored: StoredEndpoint,
        requests: &[PortRequest],
    ) -> Result<()> {
        let DriverSpec::Bridge(bridge) = &network.driver;
        let mut asked: Vec<PortRequest> = requests
            .iter()
            .map(|port| PortRequest {
                host: Some(port.host.unwrap_or(bridge.host_binding)),
                ..*port
            })
            .collect();
        asked.sort_unstable();
        asked.dedup();
        if satisfied(&stored.spec.ports, &asked) {
            return Ok(());
        }
        if network.reach == Reach::Internal {
            return Err(Error::usage("", "an internal network publishes no ports"));
        }
        if stored.spec.v4.is_none() {
            return Err(Error::usage(
                "",
                "the endpoint has no IPv4 address, and IPv6 ports are not there yet",
            ));
        }
        let host = |request: &PortRequest| {
            request.host.filter(|host| host.is_multicast() || host.is_broadcast())
        };
        if let Some(host) = asked.iter().find_map(host) {
            return Err(Error::usage(format!("host address {host}"), "no port can be bound to it"));
        }
        let mut refused = Refused::new();
        loop {
            let chosen = self.choose(&stored.spec, &asked, &refused)?;
            let mut new = stored.clone();
            new.spec.ports = coalesce(chosen);
            let ports = new.spec.ports.clone();
            match self.replace_ports(network, &stored, new) {
                Ok(()) => {
                    let ephemeral = |block: &&Published| {
                        let (low, high) = self.facts.ephemeral_ports;
                        (low..=high).contains(&block.host_ports.last())
                    };
                    let last =
                        ports.iter().filter(ephemeral).map(|block| block.host_ports.last()).max();
                    self.ports.cursor = last.unwrap_or(self.ports.cursor);
                    return Ok(());
                }
                Err((error, Some(taken)))
                    if refused.len() < ATTEMPTS && is_choice(&asked, taken) =>
                {
                    tracing::debug!(port = taken.1, "taken on the host, trying another: {error}");
                    refused.insert(taken);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// A host port for every request: fixed ones as they are, the others the first free.
    fn choose(
        &mut self,
        endpoint: &EndpointSpec,
        asked: &[PortRequest],
        refused: &Refused,
    ) -> Result<Vec<Published>> {
        let mut chosen = Chosen::default();
        // Fixed ports first, so that a free choice does not take one of them.
        let fixed =
            |request: &&PortRequest| request.host_ports.is_some_and(|ports| ports.count() == 1);
        let (fixed, free): (Vec<&PortRequest>, Vec<&PortRequest>) = asked.iter().partition(fixed);
        for request in fixed.into_iter().chain(free) {
            let host = request.host.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let port = match request.host_ports {
                Some(ports) if ports.count() == 1 => {
                    self.check_port(endpoint, request, host, ports, &chosen)?;
                    ports.first()
                }
                Some(ports) => self.first_free(endpoint, request, host, ports, &chosen, refused)?,
                None => self.next_ephemeral(endpoint, request, host, &chosen, refused)?,
            };
            let Some(host_ports) = PortRange::single(port) else {
                return Err(Error::usage(
                    format!("port {port}/{}", request.protocol),
                    "there is no port 0",
                ));
            };
            chosen.push(Published {
                protocol: request.protocol,
                host,
                host_ports,
                container_first: request.container,
            });
        }
        Ok(chosen.ports)
    }

    fn check_port(
        &mut self,
        endpoint: &EndpointSpec,
        request: &PortRequest,
        host: Ipv4Addr,
        ports: PortRange,
        chosen: &Chosen,
    ) -> Result<()> {
        let doing = format!("port {host}:{ports}/{}", request.protocol);
        if chosen.meets(request.protocol, host, ports) {
            return Err(Error::usage(doing, "it is asked for twice"));
        }
        let owners: Vec<EndpointId> = self.ports.owners(request.protocol, host, ports).collect();
        for owner in owners {
            if owner != endpoint.id && !self.bury_if_dead(owner)? {
                return Err(self.taken_by(owner, doing));
            }
        }
        Ok(())
    }

    fn taken_by(&self, owner: EndpointId, doing: String) -> Error {
        let stored = self.intent.endpoint(owner);
        let endpoint = stored.map_or_else(|| owner.short(), |owner| owner.spec.label());
        let network = stored.and_then(|owner| self.intent.network(owner.spec.network));
        let network = network.map_or_else(String::new, |network| {
            format!(" of network \"{}\"", network.spec.label())
        });
        Error::conflict(doing, format!("endpoint \"{endpoint}\"{network} has published it"))
            .advise("publish another host port; `netagent ports` lists them all")
    }

    fn is_free(
        &self,
        endpoint: &EndpointSpec,
        request: &PortRequest,
        host: Ipv4Addr,
        port: u16,
        chosen: &Chosen,
        refused: &Refused,
    ) -> bool {
        PortRange::single(port).is_some_and(|ports| {
            !refused.contains(&(request.protocol, port))
                && !chosen.meets(request.protocol, host, ports)
                && self
                    .ports
                    .owners(request.protocol, host, ports)
                    .all(|owner| owner == endpoint.id)
        })
    }

    fn first_free(
        &self,
        endpoint: &EndpointSpec,
        request: &PortRequest,
        host: Ipv4Addr,
        ports: PortRange,
        chosen: &Chosen,
        refused: &Refused,
    ) -> Result<u16> {
        ports
            .iter()
            .find(|port| self.is_free(endpoint, request, host, *port, chosen, refused))
            .ok_or_else(|| {
                Error::conflict(
                    format!("port {host}:{ports}/{}", request.protocol),
                    "every port of the range is taken",
                )
            })
    }

    /// The next free port behind the one given out last, as Docker does.
    fn next_ephemeral(
        &self,
        endpoint: &EndpointSpec,
        request: &PortRequest,
        host: Ipv4Addr,
        chosen: &Chosen,
        refused: &Refused,
    ) -> Result<u16> {
        let (low, high) = self.facts.ephemeral_ports;
        let start = self.ports.cursor.clamp(low.saturating_sub(1), high).saturating_add(1);
        let behind = start..=high;
        behind
            .chain(low..start.min(high))
            .find(|port| self.is_free(endpoint, request, host, *port, chosen, refused))
            .ok_or_else(|| {
                Error::unavailable(
                    format!("an ephemeral {} port", request.protocol),
                    format!("all of {low}-{high} are taken"),
                )
                .advise("widen net.ipv4.ip_local_port_range")
            })
    }

    /// Takes the endpoint from its old ports to its new ones. On failure the old ones stay; names
    /// the port that another program has.
    fn replace_ports(
        &mut self,
        network: &NetworkSpec,
        old: &StoredEndpoint,
        new: StoredEndpoint,
    ) -> std::result::Result<(), (Error, Option<(Protocol, u16)>)> {
        let before = self.endpoint_objects(network, old);
        let after = self.endpoint_objects(network, &new);
        let plan = delta(&before, &after);
        self.store
            .commit(&[Change::PutEndpoint(Box::new(new.clone()))])
            .map_err(|error| (error, None))?;
        if let Err(error) = execute(&mut *self.kernel, &plan) {
            let taken = (error.errno == Some(Errno::EADDRINUSE as i32))
                .then(|| new.spec.ports.iter().find_map(|port| named_in(port, &error)))
                .flatten();
            if let Err(lost) = self.store.commit(&[Change::PutEndpoint(Box::new(old.clone()))]) {
                self.note("store", lost.to_string());
            }
            return Err((error, taken));
        }
        self.ports.remove(&old.spec);
        self.ports.add(&new.spec);
        self.intent.put_endpoint(new);
        Ok(())
    }

    /// Withdraws all of an endpoint's ports; none, and unknown endpoints, are no error.
    pub fn withdraw(&mut self, network: NetworkId, endpoint: EndpointId) -> Result<()> {
        let Some((network, old)) = self.find_endpoint(network, endpoint) else { return Ok(()) };
        if old.spec.ports.is_empty() {
            return Ok(());
        }
        let mut new = old.clone();
        new.spec.ports.clear();
        let plan =
            delta(&self.endpoint_objects(&network, &old), &self.endpoint_objects(&network, &new));
        self.record(new)?;
        self.ports.remove(&old.spec);
        let errors = roll_forward(&mut *self.kernel, &plan);
        errors.into_iter().next().map_or(Ok(()), |left| Err(left.error))
    }
}

/// Whether the port was our choice, so that another may do as well.
fn is_choice(asked: &[PortRequest], (protocol, port): (Protocol, u16)) -> bool {
    asked.iter().any(|request| {
        request.protocol == protocol
            && request.host_ports.is_none_or(|ports| {
                ports.count() > 1 && ports.iter().any(|candidate| candidate == port)
            })
    }) && !asked.iter().any(|request| {
        request.protocol == protocol && request.host_ports == PortRange::single(port)
    })
}

/// The port of a block that an error of the kernel names, as `port 8080/tcp`.
fn named_in(published: &Published, error: &Error) -> Option<(Protocol, u16)> {
    let names = |port: &u16| error.why.contains(&format!("port {port}/{}", published.protocol));
    published.host_ports.iter().find(names).map(|port| (published.protocol, port))
}

/// Whether what is published already is what is asked for: dockerd may ask again.
fn satisfied(published: &[Published], asked: &[PortRequest]) -> bool {
    let total: u32 = published.iter().map(|block| block.host_ports.count()).sum();
    let serves = |request: &PortRequest| {
        published.iter().any(|block| {
            let offset = request.container.checked_sub(block.container_first);
            let port = offset.and_then(|offset| block.host_ports.first().checked_add(offset));
            block.protocol == request.protocol
                && Some(block.host) == request.host
                && port.is_some_and(|port| {
                    port <= block.host_ports.last()
                        && request
                            .host_ports
                            .is_none_or(|ports| ports.first() <= port && port <= ports.last())
                })
        })
    };
    !asked.is_empty() && total as usize == asked.len() && asked.iter().all(serves)
}

/// Joins consecutive ports that lead to consecutive ports.
fn coalesce(mut ports: Vec<Published>) -> Vec<Published> {
    ports.sort_unstable();
    let mut joined: Vec<Published> = Vec::new();
    for port in ports {
        if let Some(last) = joined.last_mut()
            && (last.protocol, last.host) == (port.protocol, port.host)
            && last.host_ports.last().checked_add(1) == Some(port.host_ports.first())
            && last.container_ports().last().checked_add(1) == Some(port.container_first)
            && let Some(longer) = PortRange::new(last.host_ports.first(), port.host_ports.last())
        {
            last.host_ports = longer;
            continue;
        }
        joined.push(port);
    }
    joined
}
