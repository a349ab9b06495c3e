//! Bridges of the operator's: what of a network fits one, and what would harm it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{
    BridgeOwner, BridgeSpec, Error, Facts, ForeignBridge, GatewayMode, LinkName, Mtu, Result,
    Subnet,
};

/// The bridge that dockerd makes for itself, and fills with containers of its own.
const DOCKERS: &str = "docker0";

/// Whose a bridge of this name is: a link that is there and not ours is the operator's, and must
/// be a bridge.
pub fn named_bridge<'a>(name: &LinkName, facts: &'a Facts) -> Result<Option<&'a ForeignBridge>> {
    match facts.foreign_links.get(name) {
        None => Ok(None),
        Some(None) => Err(Error::conflict(
            format!("bridge \"{name}\""),
            format!("existing interface {name} is not a bridge"),
        )
        .advise("choose another com.docker.network.bridge.name")),
        Some(Some(_)) if name.as_str() == DOCKERS => Err(Error::conflict(
            format!("bridge \"{name}\""),
            "it is the bridge of Docker's own default network",
        )
        .advise("choose another com.docker.network.bridge.name")),
        Some(Some(bridge)) => Ok(Some(bridge)),
    }
}

/// Fits a network's settings to the operator's bridge; `mtu` is what was asked for.
pub fn adopt(
    spec: &mut BridgeSpec,
    bridge: &ForeignBridge,
    mtu: Option<Mtu>,
    subnets: &[Subnet],
) -> Result<()> {
    let name = &spec.bridge;
    // A bridge takes the lowest MTU of its ports, so a smaller one would change it.
    if let Some(mtu) = mtu.filter(|mtu| *mtu != bridge.mtu) {
        return Err(Error::usage(
            format!("mtu {mtu}"),
            format!("bridge \"{name}\" exists and has an MTU of {}", bridge.mtu),
        )
        .advise("leave com.docker.network.driver.mtu out, or give the bridge that MTU before"));
    }
    spec.owner = BridgeOwner::Operator;
    spec.mtu = bridge.mtu;
    let gateways = subnets.iter().filter_map(|subnet| subnet.gateway);
    let ours = gateways.filter(|gateway| spec.mode_for(*gateway) != GatewayMode::Isolated);
    let gateways: BTreeSet<IpAddr> = ours.collect();
    if let Some(taken) = gateways.intersection(&bridge.next_hops).next() {
        return Err(Error::conflict(
            format!("gateway {taken}"),
            format!("it is another host's: this host sends by it on bridge \"{name}\""),
        )
        .advise(advice(bridge, *taken)));
    }
    spec.kept = gateways.into_iter().filter(|gateway| bridge.has(*gateway)).collect();
    Ok(())
}

/// What the user may have meant by naming another host.
fn advice(bridge: &ForeignBridge, router: IpAddr) -> String {
    let own = bridge.addresses.iter().find(|net| net.contains(&router));
    match own {
        Some(net) => format!(
            "--gateway {} makes this host the gateway; add \
             --aux-address DefaultGatewayIPv{}={router} to send by the other",
            net.addr(),
            if router.is_ipv4() { 4 } else { 6 }
        ),
        None => "choose another gateway".into(),
    }
}
