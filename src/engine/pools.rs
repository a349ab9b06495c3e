//! Address pools for dockerd, and what of the address book is stored when.

use std::net::IpAddr;

use ipnet::IpNet;

use super::subnets::overlap;
use super::{Engine, PoolRequest};
use crate::ipam::{PoolId, Purpose};
use crate::model::{Error, Origin, Result, StoredNetwork};
use crate::store::Change;

impl Engine {
    /// Gives out a pool: the one asked for, or one that nothing on the host or in Docker uses.
    /// The same subnet always has the same id.
    pub fn request_pool(&mut self, request: &PoolRequest) -> Result<PoolId> {
        let PoolRequest { pool, range, family } = *request;
        let taken = match pool {
            Some(_) => Default::default(),
            None => {
                self.refresh_facts()?;
                self.taken()
            }
        };
        if let Some(pool) = pool {
            self.check_not_ours(pool)?;
        }
        let defaults = &self.settings.default_pools;
        let id = self.book.request_pool(pool, range, family, &taken, defaults)?;
        self.store_pool(&id)?;
        Ok(id)
    }

    /// A subnet of a network made here is not Docker's to give out: its addresses are taken by
    /// endpoints that Docker knows nothing of.
    fn check_not_ours(&self, pool: IpNet) -> Result<()> {
        let ours = |known: &&StoredNetwork| known.spec.origin == Origin::Netagent;
        for network in self.intent.networks().filter(ours) {
            let subnets = &network.spec.subnets;
            if let Some(subnet) = subnets.iter().find(|subnet| overlap(&subnet.pool, &pool)) {
                let why =
                    format!("it overlaps {} of network \"{}\"", subnet.pool, network.spec.label());
                return Err(Error::conflict(format!("pool {pool}"), why)
                    .advise("choose another subnet, or leave it out to get a free one"));
            }
        }
        Ok(())
    }

    /// Takes a pool back; unknown ones are no error.
    pub fn release_pool(&mut self, pool: &PoolId) -> Result<()> {
        if self.book.pool(pool).is_none() {
            return Ok(());
        }
        self.book.release_pool(pool)?;
        self.store_pool(pool)
    }

    fn store_pool(&mut self, id: &PoolId) -> Result<()> {
        let change = match self.book.pool(id) {
            Some(pool) => Change::PutPool(Box::new(pool.clone())),
            None => Change::DropPool(id.clone()),
        };
        self.store.commit(&[change])
    }

    /// Gives out an address of a pool, with the pool's prefix length.
    pub fn request_address(
        &mut self,
        pool: &PoolId,
        wanted: Option<IpAddr>,
        purpose: Purpose,
    ) -> Result<IpNet> {
        let net = self.book.request_address(pool, wanted, purpose)?;
        let change = self.lease_change(pool, net.addr());
        if let Err(error) = self.store.commit(change.as_slice()) {
            self.book.release_address(pool, net.addr());
            return Err(error);
        }
        Ok(net)
    }

    /// Takes an address back; unknown ones are no error.
    pub fn release_address(&mut self, pool: &PoolId, address: IpAddr) -> Result<()> {
        self.book.release_address(pool, address);
        let change = self.lease_change(pool, address);
        self.store.commit(change.as_slice())
    }

    /// What to store after `address` of `pool` was given out or taken back.
    pub(super) fn lease_change(&self, pool: &PoolId, address: IpAddr) -> Option<Change> {
        self.book.pool(pool).map(|pool| Change::lease(pool, address))
    }
}
