//! Quantities with their limits: MTU, MAC address, packet mark.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Largest IP packet a link carries, in bytes: 68 (ETH_MIN_MTU, uapi linux/if_ether.h) to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u32);

impl Mtu {
    /// What a host without any default route gets: 1500 bytes (ETH_DATA_LEN).
    pub const ETHERNET: Self = Self(1500);

    /// The least that IPv6 works with (RFC 8200, 5); below it the kernel takes IPv6 off a link.
    pub const IPV6: Self = Self(1280);

    /// The MTU of `bytes`, if a link can have it.
    pub fn new(bytes: u32) -> Option<Self> {
        (68..=65535).contains(&bytes).then_some(Self(bytes))
    }

    /// The MTU in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl FromStr for Mtu {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u32>().ok().and_then(Self::new).ok_or_else(|| {
            format!("\"{text}\" is not an MTU: use a number of bytes from 68 to 65535")
        })
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address with these bytes, if a link may have it: unicast and not zero
    /// (is_valid_ether_addr in linux/etherdevice.h).
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        let [first, ..] = bytes;
        (first & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// A locally administered address made of the first bytes of `id`: the same id always gives
    /// the same address, so a restart needs no table of them.
    pub const fn from_id(id: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *id;
        Self([(a & 0xfc) | 0x02, b, c, d, e, f])
    }

    /// The locally administered address that goes with `address`: `02:42` and its bytes, as dockerd's
    /// bridge driver had it up to 26. A container that is started again with its old address is
    /// found at once: what hosts and neighbours remember of it (ARP, RFC 826) is still right.
    pub const fn from_v4(address: std::net::Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The six bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("\"{text}\" is not a unicast MAC address like 02:42:ac:11:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Self::new(bytes).ok_or_else(refuse)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One bit of a packet's mark (`meta mark`), by which our forward chain tells other owners'
/// chains that the packet is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u32);

impl Mark {
    /// The default: bit 28, which Docker, Kubernetes (0x4000, 0x8000), Tailscale (0xff0000) and
    /// Weave (0x60000) leave alone; Calico's default mask covers it, hence configurable.
    pub const DEFAULT: Self = Self(1 << 28);

    /// The mark of exactly one bit.
    pub fn new(bit: u32) -> Option<Self> {
        (bit.count_ones() == 1).then_some(Self(bit))
    }

    /// The bit as a 32-bit mask.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The connection mark (`ct mark`) of flows that a change of their network has ended: all bits
    /// but this one. Compared as a whole, so that no mark of an operator's is taken for it, not even
    /// one that `CONNMARK --save-mark` copied from a packet we allowed: that has our bit.
    pub const fn ended(self) -> u32 {
        !self.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_is_a_number_a_link_can_have() {
        assert_eq!("1400".parse::<Mtu>().unwrap().bytes(), 1400);
        for text in ["", "-1", "67", "65536", "1500x", "big"] {
            assert!(text.parse::<Mtu>().is_err(), "{text}");
        }
    }

    #[test]
    fn multicast_zero_and_malformed_macs_are_refused() {
        assert_eq!(
            "02:11:22:33:44:55".parse::<MacAddr>().unwrap().to_string(),
            "02:11:22:33:44:55"
        );
        for text in [
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "02:11:22:33:44",
            "02:11:22:33:44:55:66",
            "x",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mac_made_from_an_id_is_local_and_unicast() {
        let [first, ..] = MacAddr::from_id(&[0xff; 32]).bytes();
        assert_eq!(first & 0x03, 0x02);
    }

    #[test]
    fn a_mark_is_one_bit() {
        assert!(Mark::new(0x4000).is_some());
        assert!(Mark::new(0).is_none() && Mark::new(3).is_none());
    }
}

/// Why an address is none that a host can have for itself on any of its links; loopback and
/// "every address" are.
pub fn unfit_for_host(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some("no host has it alone"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("no host has it alone"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("a link-local address is one of a link, not of the host")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4 address in the clothes of IPv6: write it as IPv4")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a net.
    pub const fn of_net(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
