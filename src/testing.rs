//! Values that unit tests of several modules share.

use std::collections::BTreeSet;

use crate::model::{Facts, Mark, Mtu, Uplink};

/// A host with one uplink of MTU 1450.
pub fn facts() -> Facts {
    Facts {
        default_mtu: Mtu::new(1450).unwrap(),
        uplinks: vec![Uplink {
            name: "uplink0".parse().unwrap(),
            default_route: true,
            forwarding_v4: false,
            forwarding_v6: Some(false),
            learned_v6: None,
        }],
        router: false,
        router_v6: false,
        bridge_netfilter: true,
        force_forwarding: true,
        ipv6: true,
        iptables: true,
        mark: Mark::DEFAULT,
        taken: BTreeSet::new(),
        foreign_links: BTreeSet::new(),
        ephemeral_ports: (32768, 60999),
    }
}
