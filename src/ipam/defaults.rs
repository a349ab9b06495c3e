//! Where pools come from when the user names no subnet.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A net that pools of one size are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultPool {
    /// The net.
    pub base: IpNet,
    /// Prefix length of each pool cut from it.
    pub size: u8,
}

/// The pools of a host whose operator configured none: Docker's private ranges (172.17.0.0/16 to
/// 172.31.0.0/16, then 192.168.0.0/16), but cut to /24 so that there are 4096 networks and not 31,
/// and /64s of one unique local IPv6 prefix (RFC 4193).
///
/// The prefix's 40-bit global id is a digest of `machine_id` (the bytes of /etc/machine-id), so a
/// host keeps its prefix over reinstallations of the agent and two hosts hardly ever share one.
pub fn default_pools(machine_id: &[u8]) -> Vec<DefaultPool> {
    let v4 = |a, b| Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), 16).ok();
    let seconds = (17..=31).map(|b| v4(172, b)).chain([v4(192, 168)]);
    let v6 = Ipv6Net::new(ula(machine_id), 48).ok();
    seconds
        .flatten()
        .map(|net| DefaultPool { base: IpNet::V4(net), size: 24 })
        .chain(v6.map(|net| DefaultPool { base: IpNet::V6(net), size: 64 }))
        .collect()
}

/// `fd`, 40 bits of the machine's digest, and zeros.
fn ula(machine_id: &[u8]) -> Ipv6Addr {
    // FNV-1a, 64 bits (draft-eastlake-fnv): short, and the same for ever, which the standard
    // library's hasher does not promise. 40 of 64 bits do not give the machine's id away.
    let digest = machine_id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let global_id = u128::from(digest >> 24);
    Ipv6Addr::from_bits((0xfd << 120) | (global_id << 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_its_ula_prefix_and_another_has_another() {
        let of = |id: &[u8]| default_pools(id).last().unwrap().base;
        assert_eq!(of(b"8e5f"), of(b"8e5f"));
        assert_ne!(of(b"8e5f"), of(b"8e5e"));
        assert!("fd00::/8".parse::<IpNet>().unwrap().contains(&of(b"")));
        assert_eq!(of(b"8e5f").trunc(), of(b"8e5f"));
    }

    #[test]
    fn docker_s_private_ranges_come_first_in_order() {
        let pools = default_pools(b"");
        assert_eq!(pools.len(), 17);
        assert_eq!(pools[0].base.to_string(), "172.17.0.0/16");
        assert_eq!(pools[14].base.to_string(), "172.31.0.0/16");
        assert_eq!(pools[15].base.to_string(), "192.168.0.0/16");
    }
}
