//! What Docker's own bridge driver is tested for, asked of netagent, by each dockerd in use.
//!
//! The names are those of the black-box tests in Docker's tree, so that `bridge_icc::docker_28_5`
//! is its TestBridgeICC with `-d netagent` on dockerd 28.5. All of them are here or in
//! [`NOT_FOR_A_PLUGIN`], with the reason. Versions before the one in the list lack the feature.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a failed step should panic"
)]

mod basics;
mod families;
mod gateways;
mod lifecycle;
mod modes;
mod ports;
mod rig;
mod six;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use support::Lab;
use support::version::Version;

macro_rules! on {
    (since_20, $case:path) => {
        #[test]
        fn docker_20_10() {
            crate::run(crate::Version::V20, $case);
        }
        on!(since_26, $case);
    };
    (since_26, $case:path) => {
        #[test]
        fn docker_26_1() {
            crate::run(crate::Version::V26, $case);
        }
        on!(since_28, $case);
    };
    (since_28, $case:path) => {
        #[test]
        fn docker_28_5() {
            crate::run(crate::Version::V28, $case);
        }
    };
}

/// One module a case, one test in it for each dockerd that has what the case needs.
macro_rules! cases {
    ($table:ident: $($file:ident::$case:ident $since:ident $(($_why:literal))?,)+) => {
        $(mod $case { on!($since, crate::$file::$case); })+
        const $table: &[&str] = &[$(stringify!($case)),+];
    };
}

cases! { CASES:
    basics::bridge_icc since_20,
    basics::bridge_inc since_20,
    basics::access_to_published_port since_20,
    basics::inter_network_direct_routing since_20,
    basics::internal_nw_connectivity since_20,
    basics::drop_in_forward_chain since_20,
    basics::create_with_multi_networks since_26 ("older ones take one --network"),
    basics::create_with_ipv6_defaults_to_ula_prefix since_20,
    basics::filter_forward_policy since_20,
    basics::default_network_opts since_26 ("older ones have no --default-network-opt"),
    basics::network_create_error_no_bridge since_20,
    families::disable_ipv6_addrs since_20,
    families::disable_ipv4 since_28 ("older ones have no --ipv4=false"),
    families::non_ipv6_network since_26 ("older ones disable ::1 as well"),
    families::set_endpoint_sysctl since_28 ("older ones ignore an endpoint's sysctls"),
    families::container_disabled_ipv6 since_28 ("older ones give it an address all the same"),
    families::ext_dns_in_ipv6_only_nw since_28 ("older ones have no --ipv4=false"),
    gateways::gateway_selection since_20,
    gateways::gateway_error_on_net_disconnect since_20,
    gateways::create_with_priority since_28 ("older ones have no gw-priority"),
    gateways::connect_with_priority since_28 ("older ones have no gw-priority"),
    gateways::join_error since_20,
    lifecycle::advertise_addresses since_20,
    lifecycle::mac_addr_on_restart since_20,
    lifecycle::cfgd_mac_addr_on_restart since_20,
    lifecycle::etc_hosts_disconnect since_28 ("older ones lose all lines at a connect"),
    lifecycle::internal_network_dns since_20,
    lifecycle::port_mapping_restore since_20,
    lifecycle::published_port_already_in_use since_20,
    ports::port_mapped_hairpin_tcp since_20,
    ports::port_mapped_hairpin_udp since_20,
    ports::access_published_port_from_host since_20,
    ports::access_published_port_from_remote_host since_20,
    ports::access_published_port_from_ctr since_20,
    ports::access_published_port_from_another_network since_20,
    ports::direct_routing_open_ports since_20,
    ports::direct_remote_access_on_exposed_port since_20,
    ports::access_port_published_on_loopback_address since_20,
    ports::mix_any_with_specific_host_addrs since_20,
    ports::port_mapping_on_distinct_loopback_addrs since_20,
    ports::add_port_mappings since_20,
    modes::bridge_inc_routed since_20,
    modes::point_to_point since_28 ("older ones take an address for the gateway"),
    modes::isolated since_20,
    modes::host_ipv4_bridge_label since_20,
    modes::disable_nat since_20,
    modes::routed_non_gateway since_26 ("older ones take one --network"),
    modes::allow_direct_remote_access_on_exposed_port since_20,
    modes::custom_ifname_with_matching_dynamic_prefix since_20,
    families::disable_ipv6_on_interface since_28 ("older ones ignore an endpoint's sysctls"),
}

// The same cases by gateway mode and by IPv6.
cases! { FURTHER:
    modes::access_to_published_port_by_mode since_20,
    modes::inter_network_direct_routing_by_mode since_20,
    modes::direct_routing_open_ports_by_mode since_20,
    lifecycle::advertise_addresses_as_often_as_asked since_28 ("older ones announce nothing"),
    six::port_mapped_hairpin_tcp_by_ipv6 since_20,
    six::port_mapped_hairpin_udp_by_ipv6 since_20,
    six::access_published_port_from_host_by_ipv6 since_20,
    six::access_published_port_from_remote_host_by_ipv6 since_20,
    six::access_published_port_from_ctr_by_ipv6 since_20,
    six::access_published_port_from_another_network_by_ipv6 since_20,
    six::access_port_published_on_loopback_address_by_ipv6 since_20,
    six::mix_any_with_specific_host_addrs_by_ipv6 since_20,
    six::ports_of_a_container_without_ipv6 since_20,
}

/// Cases that are about something no plugin has a part in, and why.
const NOT_FOR_A_PLUGIN: &[(&str, &str)] = &[
    ("default_bridge_ipv6", "is about docker0, which dockerd makes with its own driver"),
    ("firewall_backend_switch", "is about dockerd's own rules; netagent has one backend"),
    ("firewalld_reload_no_zombies", "dockerd's rules go through firewalld; our table does not"),
    ("accept_fw_mark", "a setting of dockerd that it does not pass on to plugins"),
    ("mix_l3_ip_vlan_and_bridge", "needs ipvlan, which is not a bridge"),
    ("docker_network_macvlan", "is not a bridge"),
    ("macvlan_ipam", "is not a bridge"),
    ("parent_down", "is about macvlan and ipvlan"),
    ("docker_network_ipvlan", "is not a bridge"),
    ("ipvlan_ipam", "is not a bridge"),
];

/// The names in Docker's tree, without `Test`.
const SIXTY: &str = "
    BridgeICC BridgeINC BridgeINCRouted AccessToPublishedPort InterNetworkDirectRouting
    DefaultBridgeIPv6 InternalNwConnectivity DropInForwardChain CreateWithMultiNetworks
    CreateWithIPv6DefaultsToULAPrefix FilterForwardPolicy PointToPoint Isolated HostIPv4BridgeLabel
    DefaultNetworkOpts FirewallBackendSwitch FirewalldReloadNoZombies NetworkCreateErrorNoBridge
    DisableIPv6Addrs DisableIPv6OnInterface DisableIPv4 NonIPv6Network SetEndpointSysctl
    ContainerDisabledIPv6 ExtDNSInIPv6OnlyNw
    GatewaySelection GatewayErrorOnNetDisconnect CreateWithPriority ConnectWithPriority
    MixL3IPVlanAndBridge JoinError AdvertiseAddresses MACAddrOnRestart CfgdMACAddrOnRestart
    EtcHostsDisconnect InternalNetworkDNS CustomIfnameWithMatchingDynamicPrefix
    DisableNAT PortMappedHairpinTCP PortMappedHairpinUDP AccessPublishedPortFromHost
    AccessPublishedPortFromRemoteHost AccessPublishedPortFromCtr DirectRoutingOpenPorts AcceptFwMark
    RoutedNonGateway AccessPublishedPortFromAnotherNetwork DirectRemoteAccessOnExposedPort
    AllowDirectRemoteAccessOnExposedPort AccessPortPublishedOnLoopbackAddress
    MixAnyWithSpecificHostAddrs PortMappingOnDistinctLoopbackAddrs PublishedPortAlreadyInUse
    PortMappingRestore AddPortMappings
    DockerNetworkMacvlan MacvlanIPAM ParentDown DockerNetworkIpvlan IpvlanIPAM";

#[test]
fn every_one_of_the_sixty_is_a_case_or_has_a_reason() {
    let bare = |name: &str| name.to_lowercase().replace('_', "");
    let wanted: BTreeSet<String> = SIXTY.split_whitespace().map(bare).collect();
    assert_eq!(wanted.len(), 60);
    let reasons = NOT_FOR_A_PLUGIN.iter().map(|(name, _)| *name);
    let further: BTreeSet<&str> = FURTHER.iter().copied().collect();
    assert_eq!(further.len(), FURTHER.len());
    let mut here = BTreeSet::new();
    for name in CASES.iter().copied().chain(reasons) {
        assert!(here.insert(bare(name)), "{name} is here twice");
    }
    assert_eq!(here, wanted);
}

fn run(version: Version, case: fn(&Lab)) {
    if let Some(lab) = Lab::with(version) {
        case(&lab);
    }
}
