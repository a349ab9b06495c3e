//! Subnets of networks: chosen, checked, reserved, taken up again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Engine, NetworkRequest, SubnetRequest};
use crate::driver;
use crate::ipam::{PoolId, Purpose};
use crate::model::{Error, Family, ForeignBridge, Ipam, NetworkSpec, Origin, Result, Subnet};
use crate::store::Change;

impl Engine {
    /// The subnets of a new network: those asked for, checked, or free ones; reserved where
    /// netagent gives out their addresses.
    pub(super) fn subnets(&mut self, request: &NetworkRequest) -> Result<Vec<Subnet>> {
        let mut asked = request.subnets.clone();
        if request.ipam == Ipam::Netagent && request.origin == Origin::Netagent {
            for (family, enabled) in [(Family::V4, request.v4), (Family::V6, request.v6)] {
                let has = asked.iter().any(|subnet| Family::of_net(subnet.pool) == family);
                if enabled && !has {
                    asked.push(self.choose_subnet(family)?);
                }
            }
        }
        let adopted = driver::adopted(&request.driver, &request.options, &self.facts)?.cloned();
        if let (Some(bridge), true) = (&adopted, request.origin == Origin::Netagent) {
            asked.iter_mut().for_each(|subnet| use_addresses(subnet, bridge));
        }
        if asked.is_empty() {
            return Err(Error::usage("", "the network has no subnet: name one with --subnet"));
        }
        if (request.origin, request.ipam) == (Origin::Docker, Ipam::Dockerd) {
            self.clear_subnets(&asked)?;
        }
        if request.origin == Origin::Docker {
            check_one_of_each(&asked)?;
        }
        let skips = driver::gateway_skips(&request.driver, &request.options, request.reach)?;
        let dockerd = request.origin == Origin::Docker || request.ipam == Ipam::Dockerd;
        for (at, subnet) in asked.iter().enumerate() {
            check_room(subnet, !dockerd && !skips.has(Family::of_net(subnet.pool)))?;
            let earlier = asked.get(..at).unwrap_or_default();
            self.check_subnet(subnet, earlier, adopted.as_ref())?;
        }
        match (request.origin, request.ipam) {
            (Origin::Netagent, Ipam::Netagent) => {
                let reserve = |subnet: SubnetRequest| {
                    let skip = skips.has(Family::of_net(subnet.pool));
                    self.reserve(subnet, skip)
                };
                asked.into_iter().map(reserve).collect()
            }
            (Origin::Docker, _) | (_, Ipam::Dockerd) => Ok(asked.into_iter().map(plain).collect()),
        }
    }

    /// Checks further subnets of a network that is there, as those of a new one.
    pub(super) fn check_further(
        &self,
        network: &NetworkSpec,
        asked: &mut [SubnetRequest],
    ) -> Result<()> {
        let adopted = driver::adopted_by(network, &self.facts)?;
        if let Some(bridge) = adopted {
            asked.iter_mut().for_each(|subnet| use_addresses(subnet, bridge));
        }
        let skips = driver::gateway_skips_of(network)?;
        for (at, subnet) in asked.iter().enumerate() {
            check_room(subnet, !skips.has(Family::of_net(subnet.pool)))?;
            self.check_subnet(subnet, asked.get(..at).unwrap_or_default(), adopted)?;
        }
        Ok(())
    }

    /// Reserves the last subnets of a network, which are those `asked` for, and gateways for the
    /// others where its options need one that they did not need before.
    pub(super) fn reserve_further(
        &mut self,
        network: &mut NetworkSpec,
        asked: &[SubnetRequest],
    ) -> Result<()> {
        if !network.leases_here() {
            return Ok(());
        }
        let skips = driver::gateway_skips_of(network)?;
        let skips = |pool| skips.has(Family::of_net(pool));
        let kept = network.subnets.len().saturating_sub(asked.len());
        network.subnets.truncate(kept);
        for subnet in network.subnets.iter_mut().filter(|subnet| subnet.gateway.is_none()) {
            if !skips(subnet.pool) {
                let pool = PoolId::of(subnet.pool);
                let gateway = self.book.request_address(&pool, None, Purpose::Gateway)?;
                subnet.gateway = Some(gateway.addr());
            }
        }
        for subnet in asked {
            network.subnets.push(self.reserve(subnet.clone(), skips(subnet.pool))?);
        }
        Ok(())
    }

    fn choose_subnet(&mut self, family: Family) -> Result<SubnetRequest> {
        let taken = self.taken();
        let pools = &self.settings.default_pools;
        let pool = self.book.request_pool(None, None, family, &taken, pools)?;
        let net = pool.net();
        // It is asked for again by name below, with all that belongs to it.
        self.book.release_pool(&pool)?;
        Ok(SubnetRequest { pool: net, gateway: None, range: None, aux: Default::default() })
    }

    /// Subnets that routes, addresses, Docker's networks or ours use.
    pub(super) fn taken(&self) -> BTreeSet<IpNet> {
        let ours = self.intent.networks().flat_map(|known| &known.spec.subnets);
        let mut taken: BTreeSet<IpNet> = ours.map(|subnet| subnet.pool).collect();
        taken.extend(&self.facts.taken);
        taken.extend(&self.docker_subnets);
        taken
    }

    /// On a bridge of the operator's `adopted`, its own subnets may be used.
    fn check_subnet(
        &self,
        subnet: &SubnetRequest,
        earlier: &[SubnetRequest],
        adopted: Option<&ForeignBridge>,
    ) -> Result<()> {
        let SubnetRequest { pool, gateway, range, aux } = subnet;
        let doing = format!("subnet {pool}");
        if *pool != pool.trunc() {
            let right = pool.trunc();
            return Err(Error::usage(doing, format!("it has host bits set; it should be {right}")));
        }
        if unusable(pool) {
            return Err(Error::usage(
                doing,
                "a bridge cannot use loopback, multicast, link-local or reserved addresses",
            ));
        }
        if let Some(range) = range
            && (!pool.contains(range))
        {
            return Err(Error::usage(doing, format!("it does not contain the ip-range {range}")));
        }
        let named = gateway.iter().map(|address| ("gateway", address));
        let named = named.chain(aux.iter().map(|(name, address)| (name.as_str(), address)));
        for (name, address) in named {
            if !pool.contains(address) || is_edge(pool, *address) {
                return Err(Error::usage(
                    doing,
                    format!("it has no host address {address} (\"{name}\")"),
                ));
            }
        }
        if let Some(other) = earlier.iter().find(|other| overlap(&other.pool, pool)) {
            return Err(Error::usage(
                doing,
                format!("it overlaps {} of the same network", other.pool),
            ));
        }
        for known in self.intent.networks() {
            if let Some(other) = known.spec.subnets.iter().find(|other| overlap(&other.pool, pool))
            {
                return Err(Error::conflict(
                    doing,
                    format!("it overlaps {} of network \"{}\"", other.pool, known.spec.label()),
                )
                .advise("choose another subnet, or leave it out to get a free one"));
            }
        }
        let bridges = |net: &IpNet| adopted.is_some_and(|bridge| bridge.nets.contains(net));
        let mut taken = self.facts.taken.iter().filter(|taken| pool.contains(*taken));
        if let Some(route) = taken.find(|taken| !bridges(taken)) {
            return Err(Error::conflict(
                doing,
                format!("the host already uses {route}: containers would cut it off"),
            )
            .advise("choose another subnet, or leave it out to get a free one"));
        }
        Ok(())
    }

    /// Takes the pool, the gateway and the auxiliary addresses out of the book; no gateway that
    /// nobody named where none is needed.
    fn reserve(&mut self, subnet: SubnetRequest, needs_no_gateway: bool) -> Result<Subnet> {
        let SubnetRequest { pool, gateway, range, aux } = subnet;
        let family = Family::of_net(pool);
        let id = self.book.request_pool(Some(pool), range, family, &Default::default(), &[])?;
        for address in aux.values() {
            self.book.request_address(&id, Some(*address), Purpose::Auxiliary)?;
        }
        let gateway = match gateway {
            None if needs_no_gateway => None,
            named => Some(self.book.request_address(&id, named, Purpose::Gateway)?.addr()),
        };
        Ok(Subnet { pool, gateway, range, aux })
    }

    /// Takes the pools of networks made here up again where the book has lost them: they die with
    /// the boot, the networks do not.
    pub(super) fn restore_pools(&mut self) -> Result<()> {
        let here =
            self.intent.networks().map(|known| &known.spec).filter(|spec| spec.leases_here());
        let lost = |spec: &NetworkSpec| {
            spec.subnets.iter().any(|subnet| self.book.pool(&PoolId::of(subnet.pool)).is_none())
        };
        let networks: Vec<NetworkSpec> = here.filter(|spec| lost(spec)).cloned().collect();
        for network in networks {
            for subnet in &network.subnets {
                self.restore_pool(&network, subnet)?;
            }
        }
        Ok(())
    }

    fn restore_pool(&mut self, network: &NetworkSpec, subnet: &Subnet) -> Result<()> {
        let id = PoolId::of(subnet.pool);
        if self.book.pool(&id).is_some() {
            return Ok(());
        }
        let family = Family::of_net(subnet.pool);
        self.book.request_pool(Some(subnet.pool), subnet.range, family, &BTreeSet::new(), &[])?;
        for address in subnet.aux.values() {
            self.book.request_address(&id, Some(*address), Purpose::Auxiliary)?;
        }
        if subnet.gateway.is_some() {
            self.book.request_address(&id, subnet.gateway, Purpose::Gateway)?;
        }
        let endpoints = self.intent.endpoints_of(network.id);
        let addresses: Vec<IpAddr> = endpoints.flat_map(|known| known.spec.addresses()).collect();
        for address in addresses.into_iter().filter(|address| subnet.pool.contains(address)) {
            self.book.request_address(&id, Some(address), Purpose::Endpoint)?;
        }
        let pool = self.book.pool(&id).cloned();
        let change = pool.map(|pool| Change::PutPool(Box::new(pool)));
        self.store.commit(change.as_slice())
    }
}

/// In a subnet that the operator's bridge is in already, its address is the gateway where nobody
/// names one, and what other hosts have there, as far as it is known, is given to no endpoint.
fn use_addresses(subnet: &mut SubnetRequest, bridge: &ForeignBridge) {
    let pool = subnet.pool;
    let mut own = bridge.addresses.iter().map(IpNet::addr).filter(|own| pool.contains(own));
    let gateway = subnet.gateway.or_else(|| own.next());
    subnet.gateway = gateway;
    let theirs = bridge.addresses.iter().map(IpNet::addr).chain(bridge.next_hops.iter().copied());
    let free = |address: &IpAddr| {
        let named = gateway == Some(*address) || subnet.aux.values().any(|aux| aux == address);
        pool.contains(address) && !named
    };
    let theirs: Vec<IpAddr> = theirs.filter(free).collect();
    subnet.aux.extend(theirs.into_iter().map(|address| (format!("in-use-{address}"), address)));
}

pub(super) fn plain(subnet: SubnetRequest) -> Subnet {
    let SubnetRequest { pool, gateway, range, aux } = subnet;
    Subnet { pool, gateway, range, aux }
}

/// dockerd gives an endpoint one address of a family and takes the first pool's gateway for all.
fn check_one_of_each(subnets: &[SubnetRequest]) -> Result<()> {
    for family in Family::ALL {
        let mut of_family = subnets.iter().filter(|subnet| Family::of_net(subnet.pool) == family);
        if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
            return Err(Error::usage(
                format!("subnet {}", second.pool),
                format!(
                    "a bridge network of Docker's has one {family} subnet, here {}",
                    first.pool
                ),
            )
            .advise("make a second network, or the network with `netagent network create`"));
        }
    }
    Ok(())
}

/// Refuses a subnet whose gateway and reserved addresses leave none for an endpoint. A gateway that
/// nobody named is the first free address, unless none is needed.
fn check_room(subnet: &SubnetRequest, needs_gateway: bool) -> Result<()> {
    let SubnetRequest { pool, gateway, aux, range } = subnet;
    let mut used: BTreeSet<IpAddr> = gateway.iter().chain(aux.values()).copied().collect();
    // As many as may be used, and one for the endpoint.
    let first = |net: &IpNet, used: &BTreeSet<IpAddr>| {
        addresses(net).take(used.len() + 1).find(|address| !used.contains(address))
    };
    if gateway.is_none() && needs_gateway {
        used.extend(first(pool, &used));
    }
    let dynamic = range.as_ref().unwrap_or(pool);
    let usable = |address: &IpAddr| !used.contains(address) && !is_edge(pool, *address);
    if addresses(dynamic).take(used.len() + 3).any(|address| usable(&address)) {
        return Ok(());
    }
    Err(Error::usage(
        format!("subnet {pool}"),
        "its gateway and auxiliary addresses leave no address for an endpoint",
    )
    .advise("choose a larger subnet, or a larger --ip-range"))
}

/// Addresses that hosts can have in a net taken by itself.
fn addresses(net: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match net {
        IpNet::V4(net) => Box::new(net.hosts().map(IpAddr::V4)),
        IpNet::V6(net) => Box::new(net.hosts().map(IpAddr::V6)),
    }
}

/// Whether two nets share an address: then one contains the other.
pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// What no link can have addresses of (IANA special-purpose address registries): this network,
/// loopback, link-local, multicast, reserved, IPv4 in IPv6.
const UNUSABLE: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/8",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

fn unusable(pool: &IpNet) -> bool {
    UNUSABLE.iter().filter_map(|net| net.parse().ok()).any(|net| overlap(pool, &net))
}

/// Network and broadcast address of an IPv4 subnet that has them.
fn is_edge(pool: &IpNet, address: IpAddr) -> bool {
    match pool {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            address == IpAddr::V4(net.network()) || address == IpAddr::V4(net.broadcast())
        }
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.prefix_len() < 127 && address == IpAddr::V6(net.network()),
    }
}
