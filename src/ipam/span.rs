//! Addresses as numbers: the arithmetic of subnets, ranges and the search for a free place.
//!
//! Knows nothing of leases' meaning; IPv4 and IPv6 are the same 128-bit numbers here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::Family;

/// Consecutive addresses of one family, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The family.
    pub family: Family,
    /// Lowest address.
    pub first: u128,
    /// Highest address.
    pub last: u128,
}

impl Span {
    /// All addresses of a net.
    pub(super) fn of(net: IpNet) -> Self {
        Self {
            family: Family::of_net(net),
            first: number(net.network()),
            last: number(net.broadcast()),
        }
    }

    /// The addresses of a net that a host can have: IPv4 without network and broadcast address
    /// up to /30 (RFC 3021 frees both of a /31), IPv6 without the subnet-router anycast address
    /// up to /126 (RFC 4291 2.6.1; RFC 6164 frees it in a /127).
    pub(super) fn usable(net: IpNet) -> Self {
        let all = Self::of(net);
        match net {
            IpNet::V4(net) if net.prefix_len() <= 30 => {
                Self { first: all.first + 1, last: all.last - 1, ..all }
            }
            IpNet::V6(net) if net.prefix_len() <= 126 => Self { first: all.first + 1, ..all },
            IpNet::V4(_) | IpNet::V6(_) => all,
        }
    }

    /// What is in both.
    pub(super) fn both(self, other: Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last).then_some(Self { first, last, ..self })
    }

    /// Whether the address is in it.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let at = number(address);
        Family::of(address) == self.family && self.first <= at && at <= self.last
    }

    /// The first address of the span that `held` lacks, found by walking over the held ones in
    /// order: as long as the run of held addresses at its beginning, however many there are.
    pub(super) fn first_free<T>(self, held: &BTreeMap<IpAddr, T>) -> Option<IpAddr> {
        let mut next = self.first;
        for at in held.range(self.address(self.first)..=self.address(self.last)).map(|(at, _)| at) {
            if number(*at) > next {
                break;
            }
            if next == self.last {
                return None;
            }
            next += 1;
        }
        Some(self.address(next))
    }

    /// The first free address behind `cursor`, going round to the beginning at the end.
    pub(super) fn next_free<T>(
        self,
        held: &BTreeMap<IpAddr, T>,
        cursor: Option<IpAddr>,
    ) -> Option<IpAddr> {
        match cursor.filter(|at| self.contains(*at)).map(number) {
            Some(at) if at < self.last => Self { first: at + 1, ..self }
                .first_free(held)
                .or_else(|| Self { last: at, ..self }.first_free(held)),
            Some(_) | None => self.first_free(held),
        }
    }

    /// The address with this number.
    fn address(self, number: u128) -> IpAddr {
        match self.family {
            // A span of IPv4 never leaves 32 bits.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

/// The first net of prefix length `size` in `base` that overlaps none of `blockers`.
pub(super) fn first_gap(base: IpNet, size: u8, blockers: &[Span]) -> Option<IpNet> {
    let whole = Span::of(base);
    let bits = u32::from(base.max_prefix_len().checked_sub(size)?);
    let step = 1_u128.checked_shl(bits)?;
    if size < base.prefix_len() {
        return None;
    }
    let mut ends: Vec<Span> = blockers.iter().filter_map(|span| span.both(whole)).collect();
    ends.sort_unstable_by_key(|span| span.first);
    let mut at = whole.first;
    for blocker in ends {
        if blocker.first > at + (step - 1) {
            break;
        }
        if blocker.last >= at {
            // Up to the next multiple of the step behind the blocker.
            at = (blocker.last | (step - 1)).checked_add(1)?;
        }
        if at > whole.last {
            return None;
        }
    }
    IpNet::new(whole.address(at), size).ok()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn check_gap(base: &str, size: u8, blockers: &[&str], expected: Option<&str>) {
        let blockers: Vec<Span> = blockers.iter().map(|text| Span::of(net(text))).collect();
        assert_eq!(first_gap(net(base), size, &blockers), expected.map(net));
    }

    #[test]
    fn a_gap_is_found_behind_blockers_of_any_size() {
        check_gap("172.17.0.0/16", 24, &[], Some("172.17.0.0/24"));
        check_gap("172.17.0.0/16", 24, &["172.17.0.4/32"], Some("172.17.1.0/24"));
        check_gap(
            "172.17.0.0/16",
            24,
            &["172.17.1.0/25", "172.17.0.0/30", "172.17.1.0/24"],
            Some("172.17.2.0/24"),
        );
        check_gap("172.17.0.0/16", 24, &["172.17.1.0/24"], Some("172.17.0.0/24"));
        check_gap("172.17.0.0/16", 24, &["172.16.0.0/12"], None);
        check_gap("172.17.0.0/16", 8, &[], None);
        check_gap("fd00::/48", 64, &["fd00::1/128"], Some("fd00:0:0:1::/64"));
        check_gap("ffff:ffff:ffff:ffff::/64", 64, &["::/1", "8000::/1"], None);
        check_gap("255.255.255.0/24", 24, &["255.255.255.255/32"], None);
    }

    #[test]
    fn hosts_get_neither_network_broadcast_nor_anycast_addresses() {
        let ends = |text| {
            let span = Span::usable(net(text));
            (span.address(span.first).to_string(), span.address(span.last).to_string())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(ends("10.0.0.0/30"), pair("10.0.0.1", "10.0.0.2"));
        assert_eq!(ends("10.0.0.0/31"), pair("10.0.0.0", "10.0.0.1"));
        assert_eq!(ends("10.0.0.7/32"), pair("10.0.0.7", "10.0.0.7"));
        assert_eq!(ends("fd00::/126"), pair("fd00::1", "fd00::3"));
        assert_eq!(ends("fd00::/127"), pair("fd00::", "fd00::1"));
        assert_eq!(ends("fd00::5/128"), pair("fd00::5", "fd00::5"));
    }
}
