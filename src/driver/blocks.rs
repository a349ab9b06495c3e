//! What drivers have in common.

use std::collections::BTreeMap;

use crate::firewall::policy;
use crate::model::{EndpointId, Facts, Family, LinkName, Needs, Uplink};
use crate::object::{Accept, Netns, Object, Revert, Sysctl, Wanted};

/// What the host needs while networks exist: the table, the accept in DOCKER-USER and, where one
/// of them reaches out, forwarding on the links it is routed over. `saved` holds the sysctls as
/// they were.
pub fn host_objects(facts: &Facts, needs: &Needs, saved: &BTreeMap<String, String>) -> Vec<Wanted> {
    let mut objects = vec![policy::table(facts.mark)];
    if needs.outside {
        for uplink in facts.uplinks.iter().chain(&adopted_links(facts, needs)) {
            let forwarding = Forwarding { facts, needs, saved, uplink };
            objects.extend(policy::uplink_elements(uplink, forwarding.raised()));
            objects.extend(forwarding.sysctls());
        }
        for name in &needs.adopted {
            if let Some(bridge) = facts.foreign_bridge(name) {
                let key = format!("net/ipv4/conf/{name}/route_localnet");
                objects.push(raise(saved, key, u8::from(bridge.route_localnet).to_string(), "1"));
            }
        }
    }
    // Above the others in the list of one kind: a router believes no advertisements, so accept_ra
    // is raised before.
    if needs.outside_v6 && facts.ipv6 && !facts.force_forwarding && !facts.uplinks.is_empty() {
        objects.push(raise(saved, ALL_V6.into(), u8::from(facts.router_v6).to_string(), "1"));
    }
    for (there, family) in
        [(facts.iptables, Family::V4), (facts.ip6tables && facts.ipv6, Family::V6)]
    {
        if there {
            objects.push(Object::Accept(Accept { family, mark: facts.mark }));
        }
    }
    objects
        .into_iter()
        .map(|object| Wanted::new(object, "netagent has networks on this host"))
        .collect()
}

/// Bridges of the operator's that must forward like an uplink, and are none.
fn adopted_links(facts: &Facts, needs: &Needs) -> Vec<Uplink> {
    let others = needs
        .adopted
        .iter()
        .filter(|name| facts.uplinks.iter().all(|uplink| uplink.name != **name));
    let link = |name: &LinkName| {
        let bridge = facts.foreign_bridge(name)?;
        Some(Uplink {
            name: name.clone(),
            default_route: false,
            forwarding_v4: bridge.forwarding_v4,
            forwarding_v6: bridge.forwarding_v6,
            learned_v6: None,
        })
    };
    others.filter_map(link).collect()
}

/// Forwarding of IPv6 for the whole host: the only switch before Linux 6.17.
const ALL_V6: &str = "net/ipv6/conf/all/forwarding";

/// A sysctl of the host that is raised, and goes back to what it was.
fn raise(saved: &BTreeMap<String, String>, key: String, now: String, value: &str) -> Object {
    let before = saved.get(&key).cloned().unwrap_or(now);
    let (netns, value, revert) = (Netns::Host, value.into(), Revert::To(before));
    Object::Sysctl(Sysctl { netns, key, value, revert })
}

/// Forwarding on one link, raised there and never for all of IPv4 (`ip_forward`): dockerd arms its
/// FORWARD drop only when it flips that switch itself.
struct Forwarding<'a> {
    facts: &'a Facts,
    needs: &'a Needs,
    saved: &'a BTreeMap<String, String>,
    uplink: &'a Uplink,
}

impl Forwarding<'_> {
    fn key(&self, family: &str, name: &str) -> String {
        format!("net/{family}/conf/{}/{name}", self.uplink.name)
    }

    /// Whether the sysctl was 0 before us.
    fn was_off(&self, key: &str, now: bool) -> bool {
        self.saved.get(key).map_or(!now, |before| before == "0")
    }

    fn raised(&self) -> policy::Raised {
        let Self { facts, needs, uplink, .. } = *self;
        let v4 = self.was_off(&self.key("ipv4", "forwarding"), uplink.forwarding_v4);
        let v6 = match uplink.forwarding_v6 {
            Some(now) => {
                !facts.router_v6 && self.was_off(&self.key("ipv6", "force_forwarding"), now)
            }
            None => self.was_off(ALL_V6, facts.router_v6),
        };
        policy::Raised { v4: v4 && !facts.router, v6: v6 && needs.outside_v6 && facts.ipv6 }
    }

    fn sysctls(&self) -> Vec<Object> {
        let Self { facts, needs, saved, uplink } = *self;
        let flag = |on: bool| u8::from(on).to_string();
        let key = self.key("ipv4", "forwarding");
        let mut sysctls = vec![raise(saved, key, flag(uplink.forwarding_v4), "1")];
        if !needs.outside_v6 {
            return sysctls;
        }
        if let Some(now) = uplink.forwarding_v6 {
            sysctls.push(raise(saved, self.key("ipv6", "force_forwarding"), flag(now), "1"));
        } else if let Some(now) = uplink.learned_v6.as_ref().filter(|_| !facts.force_forwarding) {
            sysctls.push(raise(saved, self.key("ipv6", "accept_ra"), now.clone(), "2"));
        }
        sysctls
    }
}

/// The host end of an endpoint's veth pair.
pub fn host_end_name(id: EndpointId) -> LinkName {
    derived("nae-", &id.hex(11))
}

/// The sandbox end while it waits in the host's namespace for dockerd to take it.
pub fn sandbox_end_name(id: EndpointId) -> LinkName {
    derived("nac-", &id.hex(11))
}

/// A link name made of ids alone, so that recovery needs no table of names.
pub(super) fn derived(prefix: &str, digits: &str) -> LinkName {
    #[expect(clippy::expect_used, reason = "4 + 11 ASCII bytes are a link name")]
    format!("{prefix}{digits}").parse().expect("4 + 11 ASCII bytes are a link name")
}
