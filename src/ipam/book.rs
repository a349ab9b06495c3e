//! The address book: pools by subnet, and the rules for giving them out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::span::{self, Span};
use super::{DefaultPool, Pool, PoolId, Purpose};
use crate::model::{Error, Family, Result};

/// All pools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressBook {
    pools: BTreeMap<IpNet, Pool>,
    generation: u64,
}

impl AddressBook {
    /// The book with these pools, as the store had them.
    pub fn restore(pools: impl IntoIterator<Item = Pool>, generation: u64) -> Self {
        Self { pools: pools.into_iter().map(|pool| (pool.net, pool)).collect(), generation }
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// The pool of this id.
    pub fn pool(&self, id: &PoolId) -> Option<&Pool> {
        self.pools.get(&id.net())
    }

    /// The current generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A new dockerd: it replays what it still has, so references count from zero again, and a
    /// lease of an earlier generation may be asked for once more without being "taken". Pools of
    /// `ours` are not dockerd's: theirs go on.
    pub fn next_generation(&mut self, ours: &BTreeSet<IpNet>) {
        self.generation += 1;
        for pool in self.pools.values_mut() {
            if ours.contains(&pool.net) {
                let generation = self.generation;
                pool.leases.values_mut().for_each(|lease| lease.generation = generation);
            } else {
                pool.references = 0;
            }
        }
    }

    /// Gives out the pool `wanted`, or the next free one of `family` from `defaults` that
    /// overlaps neither `taken` nor a pool of ours.
    pub fn request_pool(
        &mut self,
        wanted: Option<IpNet>,
        range: Option<IpNet>,
        family: Family,
        taken: &BTreeSet<IpNet>,
        defaults: &[DefaultPool],
    ) -> Result<PoolId> {
        match wanted {
            Some(net) => self.named(net, range),
            None if range.is_some() => {
                Err(Error::usage("request a pool", "a range needs the subnet that it is a part of")
                    .advise("name the subnet too (--subnet)"))
            }
            None => self.chosen(family, taken, defaults),
        }
    }

    /// The pool of exactly this subnet, made or used once more.
    fn named(&mut self, net: IpNet, range: Option<IpNet>) -> Result<PoolId> {
        let pool = Pool::new(net, range)?;
        let doing = || format!("request pool \"{net}\"");
        if let Some(old) = self.pools.get_mut(&net) {
            if old.references > 0 && old.range != range {
                let has = old.range.map_or("no range".to_owned(), |has| format!("range {has}"));
                return Err(Error::conflict(doing(), format!("it is in use with {has}"))
                    .advise("name the same range, or another subnet"));
            }
            old.range = range;
            old.references = old.references.saturating_add(1);
            return Ok(old.id());
        }
        // Pools never overlap, but one restored from an older store might: look at all of them.
        let clash = self.pools.keys().find(|other| other.contains(&net) || net.contains(*other));
        if let Some(other) = clash {
            return Err(Error::conflict(doing(), format!("it overlaps the pool \"{other}\""))
                .advise("name a subnet that overlaps no other network"));
        }
        let id = pool.id();
        self.pools.insert(net, pool);
        Ok(id)
    }

    /// The next pool of the defaults that is free.
    fn chosen(
        &mut self,
        family: Family,
        taken: &BTreeSet<IpNet>,
        defaults: &[DefaultPool],
    ) -> Result<PoolId> {
        // A default route is no use of addresses.
        let blockers: Vec<Span> = taken
            .iter()
            .filter(|net| net.prefix_len() > 0)
            .chain(self.pools.keys())
            .filter(|net| Family::of_net(**net) == family)
            .map(|net| Span::of(*net))
            .collect();
        let net = defaults
            .iter()
            .filter(|pool| Family::of_net(pool.base) == family)
            .find_map(|pool| span::first_gap(pool.base, pool.size, &blockers));
        let (doing, option) = match family {
            Family::V4 => ("request an IPv4 pool", "--subnet"),
            Family::V6 => ("request an IPv6 pool", "--ipv6 --subnet"),
        };
        let net = net.ok_or_else(|| {
            Error::unavailable(doing, "every default pool overlaps a subnet that is in use").advise(
                format!("name a subnet ({option}), or add to default_pools in the configuration"),
            )
        })?;
        let pool = Pool::new(net, None)?;
        let id = pool.id();
        self.pools.insert(net, pool);
        Ok(id)
    }

    /// Drops one reference; the pool goes with the last, and its leases with it.
    pub fn release_pool(&mut self, id: &PoolId) -> Result<()> {
        let pool = self.pools.get_mut(&id.net()).ok_or_else(|| no_such_pool(id))?;
        pool.references = pool.references.saturating_sub(1);
        if pool.references == 0 {
            self.pools.remove(&id.net());
        }
        Ok(())
    }

    /// Gives out `wanted`, or the next free address of the pool's range (the first of the subnet
    /// for a gateway), with the pool's prefix length. A lease of an earlier generation may be asked
    /// for by its address once more.
    pub fn request_address(
        &mut self,
        id: &PoolId,
        wanted: Option<IpAddr>,
        purpose: Purpose,
    ) -> Result<IpNet> {
        let pool = self.pools.get_mut(&id.net()).ok_or_else(|| no_such_pool(id))?;
        pool.lease(wanted, purpose, self.generation)
    }

    /// Takes an address back; unknown ones are no error (dockerd retries).
    pub fn release_address(&mut self, id: &PoolId, address: IpAddr) {
        if let Some(pool) = self.pools.get_mut(&id.net()) {
            pool.leases.remove(&address);
        }
    }

    /// Drops endpoint leases of earlier generations that are not in `alive`, and pools without
    /// references that no network of `alive_nets` uses; answers what was dropped.
    pub fn sweep(&mut self, alive: &BTreeSet<IpAddr>, alive_nets: &BTreeSet<IpNet>) -> Vec<PoolId> {
        let generation = self.generation;
        let unused = |pool: &Pool| pool.references == 0 && !alive_nets.contains(&pool.net);
        let dropped: Vec<PoolId> =
            self.pools.values().filter(|pool| unused(pool)).map(Pool::id).collect();
        self.pools.retain(|_, pool| !unused(pool));
        for pool in self.pools.values_mut() {
            pool.leases.retain(|address, lease| match lease.purpose {
                Purpose::Endpoint => lease.generation >= generation || alive.contains(address),
                Purpose::Gateway | Purpose::Auxiliary => true,
            });
        }
        dropped
    }
}

fn no_such_pool(id: &PoolId) -> Error {
    Error::not_found(format!("pool \"{id}\""), "no such pool")
}
