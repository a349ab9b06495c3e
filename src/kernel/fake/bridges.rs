//! Bridges of the operator's, and whose a thing is.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Fake, Host};
use crate::model::{ForeignBridge, LinkName, Mtu};
use crate::object::{Address, Link, LinkKind, MARK_PREFIX, Netns, Object};
use crate::plan::Owner;

impl Fake {
    /// The operator makes a bridge of this MTU with these addresses.
    pub fn add_bridge(&self, name: &LinkName, mtu: Mtu, addresses: &[IpNet]) {
        self.add_foreign(Object::Link(Link {
            netns: Netns::Host,
            name: name.clone(),
            kind: LinkKind::Bridge { filter_bridged: false },
            mtu,
            mac: None,
            master: None,
            alias: String::new(),
            serving: true,
        }));
        for net in addresses {
            let (netns, link) = (Netns::Host, name.clone());
            self.add_foreign(Object::Address(Address { netns, link, net: *net }));
        }
    }
}

impl Host {
    /// By its mark, or by who made it.
    pub(super) fn owner(&self, object: &Object) -> Owner {
        let marked = match object {
            Object::Link(link) => link.alias.starts_with(MARK_PREFIX),
            Object::Address(_) => !self.foreign.contains(&object.key()),
            Object::Table(_)
            | Object::Element(_)
            | Object::Sysctl(_)
            | Object::Route(_)
            | Object::Hold(_)
            | Object::Accept(_) => true,
        };
        if marked { Owner::Netagent } else { Owner::Foreign }
    }

    fn is_on(&self, key: String) -> bool {
        self.sysctls.get(&(Netns::Host, key)).is_some_and(|value| value == "1")
    }

    /// The link as a bridge that a network may use.
    pub(super) fn foreign_bridge(&self, link: &Link) -> Option<ForeignBridge> {
        if !matches!(link.kind, LinkKind::Bridge { .. }) {
            return None;
        }
        let raised = |family: &str, name: &str| {
            self.is_on(format!("net/{family}/conf/{}/{name}", link.name))
        };
        let own = self.things.values().filter_map(|object| match object {
            Object::Address(address) if address.link == link.name => {
                (self.owner(object) == Owner::Foreign).then_some(address.net)
            }
            Object::Address(_)
            | Object::Table(_)
            | Object::Element(_)
            | Object::Link(_)
            | Object::Sysctl(_)
            | Object::Route(_)
            | Object::Hold(_)
            | Object::Accept(_) => None,
        });
        let addresses: BTreeSet<IpNet> = own.collect();
        let nets = addresses.iter().flat_map(|net| [net.trunc(), net.addr().into()]);
        Some(ForeignBridge {
            mtu: link.mtu,
            forwarding_v4: raised("ipv4", "forwarding"),
            forwarding_v6: self.facts.force_forwarding.then(|| raised("ipv6", "force_forwarding")),
            route_localnet: raised("ipv4", "route_localnet"),
            up: link.serving,
            filtered_v4: self.is_on("net/bridge/bridge-nf-call-iptables".into()),
            filtered_v6: self.is_on("net/bridge/bridge-nf-call-ip6tables".into()),
            nets: nets.collect(),
            addresses,
            next_hops: BTreeSet::new(),
        })
    }
}
