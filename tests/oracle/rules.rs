//! Runs the policy's own rules on a packet, as nf_tables would.
//!
//! What is known here of the kernel: base chains of a hook in order of priority; a verdict of
//! accept ends its chain and not the hook; NAT chains see first packets only, and none that is
//! translated already; a field that a packet does not have makes a rule not match.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netagent::driver;
use netagent::firewall::model::{
    BaseKind, Chain, Field, Hook, Match, Ruleset, SetName, Statement, Value,
};
use netagent::firewall::oracle::{Fate, Load, Packet, Source, State, World};
use netagent::firewall::policy;
use netagent::model::{BridgeOwner, DriverSpec, EndpointPhase, Family, Mark, Needs, Reach};
use netagent::object::{Element, Object};

/// A rule by its chain and its place there.
type Place = (&'static str, usize);

/// The table with its elements, as the engine would make it for a world.
pub struct Rules<'w> {
    world: &'w World,
    ruleset: Ruleset,
    elements: BTreeMap<SetName, Vec<Element>>,
    met: RefCell<BTreeSet<Place>>,
}

/// A packet on its way through the hooks.
struct Passage<'p> {
    packet: &'p Packet,
    destination: IpAddr,
    port: Option<u16>,
    marked: bool,
    translated_to: Option<SocketAddr>,
    source: Source,
}

enum Verdict {
    Accept,
    Drop,
}

impl<'w> Rules<'w> {
    pub fn of(world: &'w World) -> Self {
        let Object::Table(table) = policy::table(Mark::DEFAULT) else { panic!("not a table") };
        let outside = || world.networks.iter().filter(|network| network.reach == Reach::External);
        let needs = Needs {
            outside: outside().next().is_some(),
            outside_v6: outside().any(|network| network.v6().next().is_some()),
            adopted: outside()
                .map(|network| {
                    let DriverSpec::Bridge(bridge) = &network.driver;
                    bridge
                })
                .filter(|bridge| bridge.owner == BridgeOwner::Operator)
                .map(|bridge| bridge.bridge.clone())
                .collect(),
        };
        let mut wanted = driver::host_objects(&world.facts, &needs, &BTreeMap::new());
        for network in &world.networks {
            wanted.extend(driver::network_objects(network, &world.facts));
            let own = world.endpoints.iter().filter(|endpoint| endpoint.network == network.id);
            for endpoint in own {
                let phase = EndpointPhase::Joined;
                wanted.extend(driver::endpoint_objects(network, endpoint, phase, &world.facts));
            }
        }
        let mut elements = BTreeMap::<SetName, Vec<Element>>::new();
        for wanted in wanted {
            if let Object::Element(element) = wanted.object {
                elements.entry(element.set).or_default().push(element);
            }
        }
        let ruleset = Ruleset::clone(&table.ruleset);
        Self { world, ruleset, elements, met: RefCell::default() }
    }

    /// The rules that some packet so far met all conditions of.
    pub fn met(&self) -> BTreeSet<Place> {
        self.met.borrow().clone()
    }

    /// Every rule.
    pub fn all(&self) -> BTreeSet<Place> {
        let places = |chain: &Chain| {
            let name = chain.name;
            (0..chain.rules.len()).map(move |place| (name, place)).collect::<Vec<_>>()
        };
        self.ruleset.chains.iter().flat_map(places).collect()
    }

    pub fn fate(&self, packet: &Packet) -> Fate {
        let mut passage = Passage {
            packet,
            destination: packet.destination,
            port: match packet.carries {
                Load::Port(_, port) => Some(port),
                Load::Icmp | Load::Other => None,
            },
            marked: false,
            translated_to: None,
            source: Source::Kept,
        };
        let entry = if packet.from.is_some() { Hook::Prerouting } else { Hook::Output };
        let mut hooks = vec![entry];
        if packet.from.is_some() && packet.to.is_some() {
            hooks.push(Hook::Forward);
        }
        if packet.to.is_some() {
            hooks.push(Hook::Postrouting);
        }
        for hook in hooks {
            if let Some(Verdict::Drop) = self.hook(hook, &mut passage) {
                return Fate::Dropped;
            }
        }
        let Passage { marked, translated_to, source, .. } = passage;
        Fate::Passes { marked, translated_to, source }
    }

    fn hook(&self, hook: Hook, passage: &mut Passage) -> Option<Verdict> {
        let base = |chain: &&Chain| chain.base.is_some_and(|base| base.hook == hook);
        let mut chains: Vec<&Chain> = self.ruleset.chains.iter().filter(base).collect();
        chains.sort_by_key(|chain| chain.base.unwrap().priority);
        for chain in chains {
            let nat = chain.base.unwrap().kind == BaseKind::Nat;
            let done = hook != Hook::Postrouting && passage.packet.translated;
            if nat && (passage.packet.state != State::New || done) {
                continue;
            }
            if let Some(Verdict::Drop) = self.chain(chain, passage) {
                return Some(Verdict::Drop);
            }
        }
        None
    }

    fn called(&self, name: &str) -> &Chain {
        self.ruleset.chains.iter().find(|chain| chain.name == name).unwrap()
    }

    fn chain(&self, chain: &Chain, passage: &mut Passage) -> Option<Verdict> {
        for (place, rule) in chain.rules.iter().enumerate() {
            if !rule.matches.iter().all(|condition| self.holds(condition, passage)) {
                continue;
            }
            self.met.borrow_mut().insert((chain.name, place));
            for statement in &rule.statements {
                match statement {
                    Statement::Counter => {}
                    Statement::SetMark(_) => passage.marked = true,
                    Statement::Accept => return Some(Verdict::Accept),
                    Statement::Drop => return Some(Verdict::Drop),
                    Statement::Return => return None,
                    Statement::Goto(name) => return self.chain(self.called(name), passage),
                    Statement::Jump(name) => {
                        if let Some(verdict) = self.chain(self.called(name), passage) {
                            return Some(verdict);
                        }
                    }
                    Statement::Dnat(fields, map) => {
                        let Some(data) = self.find(fields, *map, passage) else { break };
                        passage.translate(data);
                        return Some(Verdict::Accept);
                    }
                    Statement::Snat(fields, map) => {
                        let Some(data) = self.find(fields, *map, passage) else { break };
                        let [Value::Address(address)] = data else {
                            panic!("a source is {data:?}")
                        };
                        passage.source = Source::Address(*address);
                        return Some(Verdict::Accept);
                    }
                    Statement::Masquerade => {
                        passage.source = Source::ThisHosts;
                        return Some(Verdict::Accept);
                    }
                }
            }
        }
        None
    }

    fn holds(&self, condition: &Match, passage: &Passage) -> bool {
        let packet = passage.packet;
        let in_link = packet.from.as_ref();
        let translated = packet.translated || passage.translated_to.is_some();
        match condition {
            Match::In(fields, set) => self.find(fields, *set, passage).is_some(),
            Match::NotIn(fields, set) => {
                passage.key(fields).is_some() && self.find(fields, *set, passage).is_none()
            }
            Match::Is(family) => Family::of(packet.source) == *family,
            Match::Icmp(family) => {
                packet.carries == Load::Icmp && Family::of(packet.source) == *family
            }
            Match::NotFromLoopback => in_link.is_some_and(|link| link.as_str() != "lo"),
            Match::SourceIn(net) => net.contains(&packet.source),
            Match::DestinationIn(net) => net.contains(&passage.destination),
            Match::ToThisHost => packet.to_this_host,
            Match::LeavesByBridge => packet.to.as_ref().is_some_and(|link| {
                self.world.foreign_bridges.contains(link)
                    || self.world.networks.iter().any(|network| {
                        let DriverSpec::Bridge(bridge) = &network.driver;
                        bridge.bridge == *link
                    })
            }),
            Match::Established => packet.state == State::Known,
            Match::New => packet.state == State::New,
            Match::Dnat => translated,
            Match::NotDnat => !translated,
            Match::Ended(_) => packet.ended,
        }
    }

    /// The data of the element that holds the fields. Intervals of concatenated keys are compared
    /// field by field, as the kernel's pipapo does.
    fn find(&self, fields: &[Field], set: SetName, passage: &Passage) -> Option<&[Value]> {
        let key = passage.key(fields)?;
        let element = self.elements.get(&set)?.iter().find(|element| {
            let through = element.through.as_ref().unwrap_or(&element.key);
            let bounds = element.key.iter().zip(through);
            key.iter().zip(bounds).all(|(value, (first, last))| first <= value && value <= last)
        })?;
        Some(&element.data)
    }
}

impl Passage<'_> {
    fn key(&self, fields: &[Field]) -> Option<Vec<Value>> {
        fields.iter().map(|field| self.value(*field)).collect()
    }

    fn value(&self, field: Field) -> Option<Value> {
        let of_family = |family, address: IpAddr| {
            (Family::of(address) == family).then_some(Value::Address(address))
        };
        match field {
            Field::InLink => self.packet.from.clone().map(Value::Link),
            Field::OutLink => self.packet.to.clone().map(Value::Link),
            Field::Source(family) => of_family(family, self.packet.source),
            Field::Destination(family) => of_family(family, self.destination),
            Field::Protocol => match self.packet.carries {
                Load::Port(protocol, _) => Some(Value::Protocol(protocol)),
                Load::Icmp | Load::Other => None,
            },
            Field::Port => self.port.map(Value::Port),
        }
    }

    fn translate(&mut self, data: &[Value]) {
        let (address, port) = match data {
            [Value::Address(address)] => (*address, self.port.unwrap()),
            [Value::Address(address), Value::Port(port)] => (*address, *port),
            other => panic!("a map leads to {other:?}"),
        };
        assert_eq!(Family::of(address), Family::of(self.destination));
        // To the kernel that is none (net/netfilter/nf_nat_core.c: IPS_DST_NAT is not set).
        if (address, Some(port)) == (self.destination, self.port) {
            return;
        }
        self.destination = address;
        self.port = Some(port);
        self.translated_to = Some(SocketAddr::new(address, port));
    }
}
