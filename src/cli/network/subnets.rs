//! Which gateway, range and reserved address belongs to which subnet: the one that contains it,
//! as in Docker's own command line.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::api::wire::SubnetConfig;
use crate::model::{Error, Result};

/// The flags that name subnets and what belongs to them.
#[derive(Debug, clap::Args)]
pub(super) struct SubnetArgs {
    /// Subnet in CIDR form; a new network gets one of the default pools where none is given
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// Address of the host in a subnet, the containers' gateway
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of a subnet that addresses are given out from
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<IpNet>,
    /// Address that is never given out
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = auxiliary)]
    aux_address: Vec<(String, IpAddr)>,
}

/// The subnets with what belongs to each.
pub(super) fn grouped(named: &SubnetArgs) -> Result<Vec<SubnetConfig>> {
    let mut subnets: Vec<(IpNet, SubnetConfig)> = Vec::new();
    for subnet in &named.subnet {
        let overlaps = |other: &IpNet| other.contains(subnet) || subnet.contains(other);
        if let Some((other, _)) = subnets.iter().find(|(other, _)| overlaps(other)) {
            return Err(Error::usage(
                format!("--subnet {subnet}"),
                format!("it overlaps --subnet {other}"),
            ));
        }
        subnets.push((*subnet, SubnetConfig { subnet: subnet.to_string(), ..Default::default() }));
    }
    for range in &named.ip_range {
        let found = subnets.iter_mut().find(|(subnet, _)| subnet.contains(range));
        let (subnet, config) = found.ok_or_else(|| unmatched("ip-range", range))?;
        once(*subnet, "ip-range", &mut config.ip_range, range.to_string())?;
    }
    for gateway in &named.gateway {
        let found = subnets.iter_mut().find(|(subnet, _)| subnet.contains(gateway));
        let (subnet, config) = found.ok_or_else(|| unmatched("gateway", gateway))?;
        once(*subnet, "gateway", &mut config.gateway, gateway.to_string())?;
    }
    for (name, address) in &named.aux_address {
        let found = subnets.iter_mut().find(|(subnet, _)| subnet.contains(address));
        let (_, config) = found.ok_or_else(|| unmatched("aux-address", address))?;
        let taken = config.auxiliary_addresses.insert(name.clone(), address.to_string());
        if taken.is_some() {
            return Err(Error::usage(
                format!("--aux-address {name}={address}"),
                "this name is given twice",
            ));
        }
    }
    Ok(subnets.into_iter().map(|(_, config)| config).collect())
}

fn unmatched(flag: &str, value: &impl std::fmt::Display) -> Error {
    Error::usage(format!("--{flag} {value}"), "no --subnet contains it")
}

fn once(subnet: IpNet, flag: &str, slot: &mut String, value: String) -> Result<()> {
    if slot.is_empty() {
        *slot = value;
        return Ok(());
    }
    Err(Error::usage(format!("--{flag} {value}"), format!("{subnet} already has {slot}")))
}

/// `NAME=ADDRESS`.
fn auxiliary(text: &str) -> std::result::Result<(String, IpAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write it as NAME=ADDRESS")?;
    let address = address.parse().map_err(|_| format!("\"{address}\" is not an address"))?;
    Ok((name.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::create::CreateArgs;
    use super::*;

    #[derive(Parser)]
    struct Create {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn group(line: &str) -> Result<Vec<SubnetConfig>> {
        let words = ["create"].into_iter().chain(line.split_whitespace()).chain(["web"]);
        grouped(&Create::try_parse_from(words).unwrap().args.subnets)
    }

    #[test]
    fn each_part_goes_to_the_subnet_that_contains_it() {
        let subnets = group(
            "--gateway fd00::1 --subnet 10.1.0.0/24 --subnet fd00::/64 --gateway 10.1.0.1 \
             --ip-range 10.1.0.128/25 --aux-address nas=10.1.0.9 --aux-address dns=10.1.0.8",
        )
        .unwrap();
        let [v4, v6] = subnets.as_slice() else { panic!("{subnets:?}") };
        assert_eq!((v4.gateway.as_str(), v4.ip_range.as_str()), ("10.1.0.1", "10.1.0.128/25"));
        assert_eq!(v4.auxiliary_addresses.len(), 2);
        assert_eq!((v6.gateway.as_str(), v6.ip_range.as_str()), ("fd00::1", ""));
    }

    #[test]
    fn what_fits_no_subnet_or_fits_twice_is_refused_by_name() {
        for (line, expected) in [
            ("--gateway 10.1.0.1", "--gateway 10.1.0.1: no --subnet contains it"),
            ("--subnet 10.1.0.0/24 --ip-range 10.2.0.0/25", "no --subnet contains it"),
            ("--subnet 10.1.0.0/24 --aux-address a=10.2.0.1", "no --subnet contains it"),
            ("--subnet 10.1.0.0/24 --subnet 10.0.0.0/8", "overlaps --subnet 10.1.0.0/24"),
            (
                "--subnet 10.1.0.0/24 --gateway 10.1.0.1 --gateway 10.1.0.2",
                "10.1.0.0/24 already has 10.1.0.1",
            ),
            (
                "--subnet 10.1.0.0/24 --aux-address a=10.1.0.1 --aux-address a=10.1.0.2",
                "given twice",
            ),
        ] {
            let error = group(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
