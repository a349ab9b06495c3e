//! One pool: its subnet, its leases, and which address is next.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::span::Span;
use crate::model::{Error, Result};

/// Identity of a pool: `netagent/` and its subnet, so that the same request always gets the same
/// id, also after a restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(IpNet);

impl PoolId {
    /// The id of the pool with this subnet.
    pub fn of(net: IpNet) -> Self {
        Self(net.trunc())
    }

    /// The pool's subnet.
    pub fn net(&self) -> IpNet {
        self.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netagent/{}", self.0)
    }
}

impl std::str::FromStr for PoolId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.strip_prefix("netagent/")
            .and_then(|net| net.parse::<IpNet>().ok())
            .filter(|net| net.trunc() == *net)
            .map(Self)
            .ok_or_else(|| Error::not_found(format!("pool \"{text}\""), "no such pool"))
    }
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The network's gateway.
    Gateway,
    /// Reserved by the user, never given out.
    Auxiliary,
    /// An endpoint.
    Endpoint,
}

/// An address that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What for.
    pub purpose: Purpose,
    /// The generation of dockerd that asked (see [`AddressBook::next_generation`]).
    pub generation: u64,
}

/// A subnet that addresses are given out from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The subnet.
    pub net: IpNet,
    /// Where dynamic addresses come from; the whole subnet where `None`.
    pub range: Option<IpNet>,
    /// How many networks asked for it in the current generation.
    pub references: u32,
    /// Addresses given out.
    pub leases: BTreeMap<IpAddr, Lease>,
    /// The address given out last: the next search begins behind it, so that an address just
    /// released is not reused at once.
    pub cursor: Option<IpAddr>,
}

impl Pool {
    /// A pool of one reference and no leases. The subnet's host bits must be zero, the range must
    /// lie in it, and both must have an address that a host can have.
    pub(super) fn new(net: IpNet, range: Option<IpNet>) -> Result<Self> {
        check_subnet(net)?;
        if let Some(range) = range {
            check_range(net, range)?;
        }
        Ok(Self { net, range, references: 1, leases: BTreeMap::new(), cursor: None })
    }

    /// The pool's id.
    pub fn id(&self) -> PoolId {
        PoolId::of(self.net)
    }

    /// Gives out `wanted`, or a free address: for a gateway the first of the subnet, for anything
    /// else the next of the range.
    pub(super) fn lease(
        &mut self,
        wanted: Option<IpAddr>,
        purpose: Purpose,
        generation: u64,
    ) -> Result<IpNet> {
        let address = match (wanted, purpose) {
            (Some(address), _) => self.check_wanted(address, generation)?,
            (None, Purpose::Gateway) => {
                self.usable().first_free(&self.leases).ok_or_else(|| self.exhausted())?
            }
            (None, Purpose::Auxiliary | Purpose::Endpoint) => {
                let address = self
                    .dynamic()
                    .and_then(|span| span.next_free(&self.leases, self.cursor))
                    .ok_or_else(|| self.exhausted())?;
                self.cursor = Some(address);
                address
            }
        };
        self.leases.insert(address, Lease { purpose, generation });
        IpNet::new(address, self.net.prefix_len())
            .map_err(|_| Error::usage(doing(address, self.net), "the prefix is too long"))
    }

    /// The address, if it may be given out in this generation.
    fn check_wanted(&self, address: IpAddr, generation: u64) -> Result<IpAddr> {
        let refuse = |why: &str| Err(Error::usage(doing(address, self.net), why));
        if !self.net.contains(&address) {
            return refuse("it is not an address of this pool");
        }
        if !self.usable().contains(address) {
            return match address {
                IpAddr::V4(_) if address == self.net.network() => {
                    refuse("it is the subnet's own address, which no host can have")
                }
                IpAddr::V4(_) => refuse("it is the subnet's broadcast address"),
                IpAddr::V6(_) => refuse("it is the subnet-router anycast address (RFC 4291)"),
            };
        }
        match self.leases.get(&address) {
            Some(lease) if lease.generation >= generation => {
                Err(Error::conflict(doing(address, self.net), lease.purpose.holder())
                    .advise("name another address, or none to get the next free one"))
            }
            Some(_) | None => Ok(address),
        }
    }

    fn usable(&self) -> Span {
        Span::usable(self.net)
    }

    /// Where dynamic addresses come from.
    fn dynamic(&self) -> Option<Span> {
        match self.range {
            Some(range) => self.usable().both(Span::of(range)),
            None => Some(self.usable()),
        }
    }

    fn exhausted(&self) -> Error {
        let within = self.range.map(|range| format!(", range {range}")).unwrap_or_default();
        Error::unavailable(
            format!("request an address of pool \"{}\"", self.net),
            format!("all addresses of {}{within} are given out", self.net),
        )
        .advise("remove endpoints that are no longer needed, or use a network with a larger subnet")
    }
}

impl Purpose {
    /// Who holds an address of this purpose, for a refusal.
    const fn holder(self) -> &'static str {
        match self {
            Self::Gateway => "it is taken: the gateway of a network has it",
            Self::Auxiliary => "it is taken: an auxiliary address of a network reserves it",
            Self::Endpoint => "it is taken: an endpoint has it",
        }
    }
}

fn doing(address: IpAddr, net: IpNet) -> String {
    format!("request address {address} of pool \"{net}\"")
}

/// Refuses what cannot be a subnet of containers.
fn check_subnet(net: IpNet) -> Result<()> {
    let refuse = |why: String| Err(Error::usage(format!("request pool \"{net}\""), why));
    let first = net.network();
    if net.trunc() != net {
        return refuse(format!("it has host bits set; the subnet is {}", net.trunc()));
    }
    if net.prefix_len() == 0 {
        return refuse("it is every address there is; name a subnet".into());
    }
    if first.is_loopback() || first.is_multicast() || first.is_unspecified() {
        return refuse("its addresses cannot be given to hosts".into());
    }
    Ok(())
}

/// Refuses a range that is none of the pool.
fn check_range(net: IpNet, range: IpNet) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::usage(format!("request pool \"{net}\" with range \"{range}\""), why))
    };
    if range.trunc() != range {
        return refuse(format!("the range has host bits set; it would be {}", range.trunc()));
    }
    if !net.contains(&range) {
        return refuse("the range is not inside the subnet".into());
    }
    if Span::usable(net).both(Span::of(range)).is_none() {
        return refuse("no address of the range can be given to a host".into());
    }
    Ok(())
}
