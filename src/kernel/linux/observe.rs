//! What is there, and whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netns::{self, Wires};
use super::seen::SeenLink;
use super::wire::Wire;
use super::{Accepts, Holds, Iptables, Linux, sysctl};
use crate::kernel::{KernelError, Scope};
use crate::model::{Family, LinkName, Mtu};
use crate::object::{Address, Hop, Kind, Link, LinkKind, Netns, Object, ObjectKey, Peer, Route};
use crate::plan::{Observed, Owner, Seen};

/// Reads what `scope` covers.
pub fn observe(linux: &mut Linux, scope: &Scope) -> Result<Observed, KernelError> {
    let (keys, all) = match scope {
        Scope::Everything(keys) => (keys, true),
        Scope::Keys(keys) => (keys, false),
    };
    let mut survey = Survey { keys: keys.iter().collect(), all, observed: Observed::new() };
    let mut places: BTreeSet<Netns> = keys.iter().map(|key| key.netns.clone()).collect();
    if all {
        places.insert(Netns::Host);
    }
    let mut wires = Wires::new(&mut linux.wire);
    for netns in &places {
        match survey.place(&mut wires, netns) {
            // Nothing is left of a sandbox that is gone.
            Err(error) if *netns != Netns::Host && netns::is_gone(&error) => {}
            other => other?,
        }
    }
    if all || survey.asks(&[Kind::Table, Kind::Policy, Kind::Port]) {
        let table = linux.firewall.observe()?;
        table.into_values().for_each(|seen| survey.offer(seen, all));
    }
    survey.holds(&linux.holds);
    if linux.options.iptables == Iptables::Used {
        survey.accepts(&mut linux.accepts)?;
    }
    Ok(survey.observed)
}

struct Survey<'a> {
    keys: BTreeSet<&'a ObjectKey>,
    all: bool,
    observed: Observed,
}

impl Survey<'_> {
    fn asks(&self, kinds: &[Kind]) -> bool {
        self.keys.iter().any(|key| kinds.contains(&key.kind))
    }

    /// Names of `kind` asked for in `netns`.
    fn names(&self, netns: &Netns, kind: Kind) -> Vec<String> {
        let keys = self.keys.iter().filter(|key| key.kind == kind && key.netns == *netns);
        keys.map(|key| key.name.clone()).collect()
    }

    /// Takes what is asked for, or `unasked`.
    fn offer(&mut self, seen: Seen, unasked: bool) {
        let key = seen.object.key();
        if unasked || self.keys.contains(&key) {
            self.observed.insert(key, seen);
        }
    }

    fn place(&mut self, wires: &mut Wires<'_>, netns: &Netns) -> Result<(), KernelError> {
        let addresses = self.names(netns, Kind::Address);
        let routes = self.names(netns, Kind::Route);
        let all = self.all && *netns == Netns::Host;
        let mut links = self.names(netns, Kind::Link);
        // An address or route is named "NET dev LINK".
        let of_link = |name: &String| Some(name.rsplit_once(" dev ")?.1.to_owned());
        links.extend(addresses.iter().chain(&routes).filter_map(of_link));
        if all || !links.is_empty() {
            let wire = wires.of(netns)?;
            let links = self.links(wire, netns, &links, all)?;
            if all || !addresses.is_empty() {
                self.addresses(wire, netns, &links, all)?;
            }
            if !routes.is_empty() {
                self.routes(wire, netns, &links)?;
            }
        }
        let sysctls = self.names(netns, Kind::Sysctl);
        if !sysctls.is_empty() {
            let keys: Vec<&str> = sysctls.iter().map(String::as_str).collect();
            for sysctl in sysctl::read(netns, &keys)? {
                let object = Object::Sysctl(sysctl);
                self.offer(Seen { object, owner: Owner::Netagent }, false);
            }
        }
        Ok(())
    }

    /// Adds links, and gives by index those that were read.
    fn links(
        &mut self,
        wire: &mut Wire,
        netns: &Netns,
        names: &[String],
        all: bool,
    ) -> Result<BTreeMap<u32, SeenLink>, KernelError> {
        let mut found = Vec::new();
        if all {
            found = wire.links()?;
        } else {
            for name in names.iter().collect::<BTreeSet<_>>() {
                found.extend(wire.link(name)?);
            }
        }
        let links: BTreeMap<u32, SeenLink> =
            found.into_iter().map(|link| (link.index, link)).collect();
        for link in links.values() {
            let master = match link.master.map(|index| (index, links.get(&index))) {
                None => None,
                Some((_, Some(master))) => Some(master.name.clone()),
                Some((index, None)) => wire.link_at(index)?.map(|master| master.name),
            };
            if let Some(view) = view(link, netns, master) {
                let seen = Seen { object: Object::Link(view), owner: owner(link) };
                self.offer(seen, all && link.is_marked());
            }
        }
        Ok(links)
    }

    fn addresses(
        &mut self,
        wire: &mut Wire,
        netns: &Netns,
        links: &BTreeMap<u32, SeenLink>,
        all: bool,
    ) -> Result<(), KernelError> {
        for address in wire.addresses()?.iter().filter(|address| !address.is_link_local()) {
            let Some((link, name)) = named(links, address.link) else { continue };
            let object =
                Object::Address(Address { netns: netns.clone(), link: name, net: address.net });
            let owner = if address.is_ours() { Owner::Netagent } else { owner(link) };
            self.offer(Seen { object, owner }, all && (link.is_marked() || address.is_ours()));
        }
        Ok(())
    }

    fn routes(
        &mut self,
        wire: &mut Wire,
        netns: &Netns,
        links: &BTreeMap<u32, SeenLink>,
    ) -> Result<(), KernelError> {
        for route in wire.routes()? {
            if !route.is_main() && !route.is_our_local() {
                continue;
            }
            let [index] = *route.links else { continue };
            let Some((link, name)) = named(links, index) else { continue };
            let destination = route.destination;
            let nowhere = match destination.addr() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let hop = match route.is_our_local() {
                true => Hop::Local,
                false => Hop::Via(route.via.unwrap_or(nowhere)),
            };
            let netns = netns.clone();
            let object = Object::Route(Route { netns, destination, hop, link: name });
            self.offer(Seen { object, owner: owner(link) }, false);
        }
        Ok(())
    }

    fn holds(&mut self, holds: &Holds) {
        for hold in holds.all() {
            let object = Object::Hold(hold.clone());
            self.offer(Seen { object, owner: Owner::Netagent }, self.all);
        }
    }

    fn accepts(&mut self, accepts: &mut Accepts) -> Result<(), KernelError> {
        if !self.all && !self.asks(&[Kind::Accept]) {
            return Ok(());
        }
        for family in [Family::V4, Family::V6] {
            if let Some(accept) = accepts.observe(family)? {
                let object = Object::Accept(accept);
                self.offer(Seen { object, owner: Owner::Netagent }, self.all);
            }
        }
        Ok(())
    }
}

fn owner(link: &SeenLink) -> Owner {
    if link.is_ours() { Owner::Netagent } else { Owner::Foreign }
}

fn named(links: &BTreeMap<u32, SeenLink>, index: u32) -> Option<(&SeenLink, LinkName)> {
    let link = links.get(&index)?;
    Some((link, link.name.parse().ok()?))
}

/// A link as an object. What is neither bridge nor veth is shown as a veth whose other end is
/// elsewhere: it is foreign, and only its name and owner matter.
fn view(link: &SeenLink, netns: &Netns, master: Option<String>) -> Option<Link> {
    let kind = match link.kind.as_str() {
        "bridge" => LinkKind::Bridge { filter_bridged: link.filter_bridged },
        _ => LinkKind::Veth { peer: Peer::Elsewhere, isolated: link.isolated },
    };
    Some(Link {
        netns: netns.clone(),
        name: link.name.parse().ok()?,
        kind,
        mtu: Mtu::new(link.mtu).unwrap_or(Mtu::ETHERNET),
        mac: link.mac,
        master: master.and_then(|name| name.parse().ok()),
        alias: link.alias.clone(),
        serving: link.up && (link.master.is_none() || link.hairpin),
    })
}
