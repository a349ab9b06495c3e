//! Published ports: choose, hold, translate.

mod again;
mod choice;
mod index;

use super::Engine;
use super::execute::{execute, roll_forward};
use crate::model::{
    EndpointId, EndpointSpec, Error, NetworkId, NetworkSpec, PortRange, PortRequest, Protocol,
    Published, Reach, Result, StoredEndpoint,
};
use crate::plan::delta;
use crate::store::Change;
use choice::{Chosen, Free, Wish, wishes};

pub(super) use choice::Refused;
pub use index::PortIndex;

/// How many other ports are tried when a free choice turns out to be taken on the host, as Docker
/// does.
const ATTEMPTS: usize = 10;

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
        let asked = in_order(requests);
        if stored.spec.publishes && stored.spec.asked == asked {
            return Ok(());
        }
        if network.reach == Reach::Internal {
            return Err(Error::usage("", "an internal network publishes no ports"));
        }
        let wished = StoredEndpoint {
            spec: EndpointSpec { asked, publishes: true, ..stored.spec.clone() },
            phase: stored.phase,
        };
        self.publish_asked(network, &stored, wished)
    }

    /// Takes the endpoint from its old ports to those that `wished` asks for.
    fn publish_asked(
        &mut self,
        network: &NetworkSpec,
        old: &StoredEndpoint,
        wished: StoredEndpoint,
    ) -> Result<()> {
        let wishes = wishes(network, &wished.spec, &wished.spec.asked)?;
        let mut refused = Refused::new();
        loop {
            let mut new = wished.clone();
            new.spec.ports = self.choose(&wished.spec, &wishes, &refused)?;
            let ports = new.spec.ports.clone();
            match self.replace_ports(network, old, new) {
                Ok(()) => {
                    self.remember_ephemeral(&ports);
                    return Ok(());
                }
                Err(error) => {
                    let ours = error.port.filter(|taken| is_choice(&wishes, *taken));
                    let Some(taken) = ours.filter(|_| refused.len() < ATTEMPTS) else {
                        return Err(error);
                    };
                    tracing::debug!(port = taken.1, "taken on the host, trying another: {error}");
                    refused.insert(taken);
                }
            }
        }
    }

    /// The next ephemeral port is searched behind the last of these.
    pub(super) fn remember_ephemeral(&mut self, ports: &[Published]) {
        let (low, high) = self.facts.ephemeral_ports;
        let last = ports.iter().map(|block| block.host_ports.last());
        let last = last.filter(|port| (low..=high).contains(port)).max();
        self.ports.cursor = last.unwrap_or(self.ports.cursor);
    }

    /// A host port for every wish: fixed ones first, so that a free choice does not take one.
    fn choose(
        &mut self,
        endpoint: &EndpointSpec,
        wishes: &[Wish],
        refused: &Refused,
    ) -> Result<Vec<Published>> {
        let mut chosen = Chosen::default();
        for (wish, port) in wishes.iter().filter_map(|wish| Some((wish, wish.fixed()?))) {
            self.check_port(endpoint, wish, port, &chosen)?;
            chosen.push(wish, port);
        }
        let (index, ephemeral) = (&self.ports, self.facts.ephemeral_ports);
        let free = Free { index, endpoint: endpoint.id, ephemeral, refused };
        for wish in wishes.iter().filter(|wish| wish.fixed().is_none()) {
            let port = free.choose(wish, &chosen)?;
            chosen.push(wish, port);
        }
        Ok(chosen.into_blocks())
    }

    fn check_port(
        &mut self,
        endpoint: &EndpointSpec,
        wish: &Wish,
        port: u16,
        chosen: &Chosen,
    ) -> Result<()> {
        let Some(single) = PortRange::single(port) else {
            return Err(Error::usage(format!("port 0/{}", wish.protocol), "there is no port 0"));
        };
        for host in &wish.hosts {
            let doing = format!("port {host}:{port}/{}", wish.protocol);
            if chosen.meets(wish.protocol, &[*host], port) {
                return Err(Error::usage(doing, "it is asked for twice"));
            }
            let owners: Vec<EndpointId> = self.ports.owners(wish.protocol, *host, single).collect();
            for owner in owners {
                if owner != endpoint.id && !self.bury_if_dead(owner)? {
                    return Err(self.taken_by(owner, doing));
                }
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

    /// Takes the endpoint from its old ports to its new ones. On failure the old ones stay.
    fn replace_ports(
        &mut self,
        network: &NetworkSpec,
        old: &StoredEndpoint,
        new: StoredEndpoint,
    ) -> Result<()> {
        let before = self.endpoint_objects(network, old);
        let after = self.endpoint_objects(network, &new);
        let plan = delta(&before, &after);
        self.store.commit(&[Change::PutEndpoint(Box::new(new.clone()))])?;
        if let Err(error) = execute(&mut *self.kernel, &plan) {
            if let Err(lost) = self.store.commit(&[Change::PutEndpoint(Box::new(old.clone()))]) {
                self.note("store", lost.to_string());
            }
            return Err(error);
        }
        self.ports.remove(&old.spec);
        self.ports.add(&new.spec);
        self.intent.put_endpoint(new);
        Ok(())
    }

    /// Withdraws all of an endpoint's ports; none, and unknown endpoints, are no error.
    pub fn withdraw(&mut self, network: NetworkId, endpoint: EndpointId) -> Result<()> {
        let Some((network, old)) = self.find_endpoint(network, endpoint) else { return Ok(()) };
        if !old.spec.publishes {
            return Ok(());
        }
        let mut new = old.clone();
        new.spec.publishes = false;
        new.spec.ports.clear();
        let plan =
            delta(&self.endpoint_objects(&network, &old), &self.endpoint_objects(&network, &new));
        self.record(new)?;
        self.ports.remove(&old.spec);
        let errors = roll_forward(&mut *self.kernel, &plan);
        errors.into_iter().next().map_or(Ok(()), |left| Err(left.error))
    }
}

/// Requests in a fixed order, none twice: dockerd's own order is random.
pub(super) fn in_order(requests: &[PortRequest]) -> Vec<PortRequest> {
    let mut asked = requests.to_vec();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Whether the port was our choice, so that another may do as well.
fn is_choice(wishes: &[Wish], (protocol, port): (Protocol, u16)) -> bool {
    let mut same = wishes.iter().filter(|wish| wish.protocol == protocol);
    let fixed = same.clone().any(|wish| wish.fixed() == Some(port));
    !fixed
        && same.any(|wish| {
            wish.host_ports.is_none_or(|ports| ports.first() <= port && port <= ports.last())
        })
}
