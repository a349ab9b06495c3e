//! Whether this kernel can do what netagent needs: tried, in a namespace that ends with the try.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::firewall::Firewall;
use super::garbage::Garbage;
use super::netns::{self, Wires};
use super::wire::Wire;
use super::{addr_route, link};
use crate::firewall::policy;
use crate::kernel::KernelError;
use crate::model::{LinkName, MacAddr, Mark, Mtu};
use crate::object::{Address, Link, LinkKind, MARK_PREFIX, Netns, Op, Peer};

/// Something the kernel lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What was tried: `bridge links`.
    pub what: &'static str,
    /// The kernel's answer.
    pub why: KernelError,
    /// What the operator can do.
    pub advice: &'static str,
}

/// Tries a bridge, a veth pair with an address, and our nf_tables table.
pub fn probe() -> Result<(), Vec<Missing>> {
    let tried = netns::scratch(|| Ok(try_all()));
    match tried {
        Ok(missing) if missing.is_empty() => Ok(()),
        Ok(missing) => Err(missing),
        Err(why) => Err(vec![Missing {
            what: "network namespaces",
            why,
            advice: "run as root; the kernel needs CONFIG_NET_NS=y",
        }]),
    }
}

fn try_all() -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut try_one = |what, advice, result: Result<(), KernelError>| {
        if let Err(why) = result {
            missing.push(Missing { what, why, advice });
        }
    };
    try_one(
        "bridge links",
        "`modprobe bridge`, or a kernel with CONFIG_BRIDGE",
        try_link("probe-br", LinkKind::Bridge { filter_bridged: false }),
    );
    try_one(
        "veth pairs",
        "`modprobe veth`, or a kernel with CONFIG_VETH",
        peer().and_then(|peer| try_link("probe-ve", LinkKind::Veth { peer, isolated: false })),
    );
    try_one(
        "nf_tables with NAT",
        "`modprobe nf_tables nft_chain_nat nft_masq nft_fib_inet nft_ct`, or a kernel with \
         CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_INET, \
         CONFIG_NFT_CT",
        Firewall::new(Mark::DEFAULT)
            .transact(&[Op::Create(policy::table(Mark::DEFAULT))])
            .map_err(|(_, why)| why),
    );
    missing
}

fn invalid(text: String) -> KernelError {
    KernelError::new(0, text)
}

fn peer() -> Result<Peer, KernelError> {
    let name: LinkName = "probe-peer".parse().map_err(invalid)?;
    // The scratch namespace itself, by a path: a peer is born where a path leads.
    let netns = Netns::Path(PathBuf::from("/proc/thread-self/ns/net"));
    Ok(Peer::At { netns, name, mac: MacAddr::from_id(&[0x6e; 32]), sysctls: BTreeMap::new() })
}

fn try_link(name: &str, kind: LinkKind) -> Result<(), KernelError> {
    let mut wire = Wire::open()?;
    let mut garbage = Garbage::start(&mut wire)?;
    let name: LinkName = name.parse().map_err(invalid)?;
    let link = Link {
        netns: Netns::Host,
        name: name.clone(),
        kind,
        mtu: Mtu::ETHERNET,
        mac: None,
        master: None,
        alias: format!("{MARK_PREFIX}probe"),
        serving: true,
    };
    link::create(&mut Wires::new(&mut wire), &link)?;
    let net = "192.0.2.1/24".parse().map_err(|error| invalid(format!("{error}")))?;
    addr_route::create_address(&mut wire, &Address { netns: Netns::Host, link: name, net })?;
    link::delete(&mut Wires::new(&mut wire), &mut garbage, &link)
}
