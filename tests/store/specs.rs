//! Generated specs, written and read again.

use proptest::prelude::*;

use crate::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,12}", "\\PC{0,8}", Just("\0\n\"\\".to_owned())]
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..4)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0_u8..=128).prop_map(|(address, size)| {
        IpNet::new(address, size % (if address.is_ipv4() { 33 } else { 129 })).unwrap().trunc()
    })
}

fn subnet() -> impl Strategy<Value = Subnet> {
    let aux = prop::collection::btree_map(text(), address(), 0..3);
    (net(), prop::option::of(address()), prop::option::of(net()), aux)
        .prop_map(|(pool, gateway, range, aux)| Subnet { pool, gateway, range, aux })
}

fn driver() -> impl Strategy<Value = DriverSpec> {
    let modes = || prop::sample::select(GatewayMode::ALL.as_slice());
    let trusted = prop::collection::btree_set("[a-z][a-z0-9]{0,14}", 0..3);
    let ways = (modes(), modes(), any::<(bool, bool)>(), any::<bool>(), trusted);
    let kept = prop::collection::btree_set(any::<IpAddr>(), 0..3);
    let sources = any::<(Option<Ipv4Addr>, Option<Ipv6Addr>)>();
    let name = ("[a-z0-9_.-]{3,15}", 68_u32..=65535);
    (name, any::<(bool, bool)>(), host(), text(), ways, (sources, kept)).prop_map(
        |(
            (bridge, mtu),
            (icc, masquerade),
            host_binding,
            interface_prefix,
            ways,
            (sources, kept),
        )| {
            let (mode_v4, mode_v6, (owner, gateway), announced, trusted) = ways;
            DriverSpec::Bridge(BridgeSpec {
                bridge: bridge.parse().unwrap(),
                owner: if owner { BridgeOwner::Netagent } else { BridgeOwner::Operator },
                mtu: Mtu::new(mtu).unwrap(),
                icc: if icc { Icc::Allow } else { Icc::Deny },
                masquerade: if masquerade { Masquerade::On } else { Masquerade::Off },
                source_v4: sources.0,
                source_v6: sources.1,
                mode_v4,
                mode_v6,
                gateway_v4: match gateway {
                    true => GatewayAddress::OnBridge,
                    false => GatewayAddress::Inhibited,
                },
                kept,
                announce: if announced { Announce::Once } else { Announce::Never },
                trusted: trusted.iter().map(|name| name.parse().unwrap()).collect(),
                host_binding,
                interface_prefix,
            })
        },
    )
}

fn host() -> impl Strategy<Value = HostAddress> {
    prop_oneof![Just(HostAddress::Any), any::<IpAddr>().prop_map(HostAddress::At)]
}

fn network() -> impl Strategy<Value = StoredNetwork> {
    let names = prop::option::of("[a-zA-Z0-9][a-zA-Z0-9_.-]{0,30}");
    let phases = prop::sample::select(&[
        NetworkPhase::Creating,
        NetworkPhase::Ready,
        NetworkPhase::Deleting,
    ]);
    let subnets = prop::collection::vec(subnet(), 1..3);
    let bits = any::<(u8, bool, bool, bool, u64)>();
    (names, driver(), subnets, texts(), texts(), phases, bits).prop_map(
        |(name, driver, subnets, labels, options, phase, (id, origin, ipam, reach, created_ms))| {
            let spec = NetworkSpec {
                id: NetworkId::from_bytes([id % 8; 32]),
                name: name.map(|name| name.parse().unwrap()),
                origin: if origin { Origin::Docker } else { Origin::Netagent },
                driver,
                ipam: if ipam { Ipam::Netagent } else { Ipam::Dockerd },
                subnets,
                reach: if reach { Reach::External } else { Reach::Internal },
                labels,
                options,
                created_ms,
            };
            StoredNetwork { spec, phase }
        },
    )
}

fn attach() -> impl Strategy<Value = Attach> {
    let path = prop::collection::vec(1_u8.., 1..12);
    let netns = (path, any::<u64>(), "[a-z][a-z0-9]{0,14}", any::<bool>()).prop_map(
        |(path, id, interface, default_route)| Attach::Netns {
            path: std::ffi::OsString::from_vec(path).into(),
            id: netagent::model::SandboxId(id),
            interface: interface.parse().unwrap(),
            default_route,
        },
    );
    prop_oneof![Just(Attach::HandOff), Just(Attach::AtJoin), netns]
}

fn naming() -> impl Strategy<Value = Naming> {
    let asked = prop::option::of("[a-z][a-z0-9]{0,14}");
    (asked, prop::option::of(text()))
        .prop_map(|(asked, told)| Naming { asked: asked.map(|name| name.parse().unwrap()), told })
}

fn published() -> impl Strategy<Value = Published> {
    (protocol(), host(), range(), any::<u16>()).prop_map(
        |(protocol, host, host_ports, container_first)| Published {
            protocol,
            host,
            host_ports,
            container_first,
        },
    )
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn range() -> impl Strategy<Value = PortRange> {
    (1_u16.., 1_u16..)
        .prop_map(|(one, other)| PortRange::new(one.min(other), one.max(other)).unwrap())
}

fn request() -> impl Strategy<Value = PortRequest> {
    (protocol(), any::<Option<IpAddr>>(), any::<u16>(), prop::option::of(range())).prop_map(
        |(protocol, host, container, host_ports)| PortRequest {
            protocol,
            host,
            container,
            host_ports,
        },
    )
}

fn any_endpoint() -> impl Strategy<Value = StoredEndpoint> {
    let phases = prop::sample::select(&[
        EndpointPhase::Creating,
        EndpointPhase::Ready,
        EndpointPhase::Joined,
        EndpointPhase::Leaving,
        EndpointPhase::Deleting,
    ]);
    let v4 = prop::option::of((any::<u32>(), 0_u8..=32));
    let v6 = prop::option::of((any::<u128>(), 0_u8..=128));
    let asked = prop::collection::vec(request(), 0..3);
    let ports = (prop::collection::vec(published(), 0..3), asked, any::<bool>(), texts());
    (any::<(u8, u8, bool)>(), prop::option::of(text()), v4, v6, (attach(), naming()), ports, phases)
        .prop_map(|((id, network, origin), name, v4, v6, (attach, naming), ports, phase)| {
            let (ports, asked, publishes, sysctls) = ports;
            let spec = EndpointSpec {
                id: EndpointId::from_bytes([id % 8; 32]),
                network: NetworkId::from_bytes([network % 8; 32]),
                origin: if origin { Origin::Docker } else { Origin::Netagent },
                name,
                v4: v4.map(|(bits, size)| Ipv4Net::new(Ipv4Addr::from(bits), size).unwrap()),
                v6: v6.map(|(bits, size)| Ipv6Net::new(Ipv6Addr::from(bits), size).unwrap()),
                mac: MacAddr::from_id(&[id; 32]),
                attach,
                naming,
                sysctls,
                asked,
                publishes,
                ports,
            };
            StoredEndpoint { spec, phase }
        })
}

fn any_pool() -> impl Strategy<Value = Pool> {
    let purposes = prop::sample::select(&[Purpose::Gateway, Purpose::Auxiliary, Purpose::Endpoint]);
    let lease =
        (purposes, any::<u64>()).prop_map(|(purpose, generation)| Lease { purpose, generation });
    let leases = prop::collection::btree_map(address(), lease, 0..5);
    // Few subnets, one of them the beginning of another's text, so that pools replace each other.
    let nets = prop::sample::select(&["10.0.0.0/2", "10.0.0.0/24", "fd00::/64"]);
    (nets, prop::option::of(net()), any::<u32>(), leases, prop::option::of(address())).prop_map(
        |(net, range, references, leases, cursor)| Pool {
            net: net.parse().unwrap(),
            range,
            references,
            leases,
            cursor,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let sysctl = || prop::sample::select(&["net/a", "net/b"]).prop_map(str::to_owned);
    prop_oneof![
        4 => network().prop_map(|network| Change::PutNetwork(Box::new(network))),
        1 => (0_u8..8).prop_map(|id| Change::DropNetwork(NetworkId::from_bytes([id; 32]))),
        4 => any_endpoint().prop_map(|endpoint| Change::PutEndpoint(Box::new(endpoint))),
        1 => (0_u8..8).prop_map(|id| Change::DropEndpoint(EndpointId::from_bytes([id; 32]))),
        4 => any_pool().prop_map(|pool| Change::PutPool(Box::new(pool))),
        1 => any_pool().prop_map(|pool| Change::DropPool(pool.id())),
        1 => any::<u64>().prop_map(Change::Generation),
        1 => (sysctl(), text())
            .prop_map(|(key, before)| Change::SaveSysctl(SavedSysctl { key, before })),
        1 => sysctl().prop_map(Change::DropSysctl),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_record_comes_back_as_it_was_written(
        commits in prop::collection::vec(prop::collection::vec(change(), 0..6), 0..6),
        reopen in any::<BTreeSet<usize>>(),
    ) {
        let dirs = Dirs::new();
        let mut model = Model::default();
        let (mut store, _) = dirs.open().unwrap();
        for (turn, changes) in commits.iter().enumerate() {
            store.commit(changes).unwrap();
            changes.iter().for_each(|change| model.apply(change));
            if reopen.contains(&turn) || turn % 2 == 1 {
                drop(store);
                let (again, loaded) = dirs.open().unwrap();
                prop_assert_eq!(loaded, model.loaded());
                store = again;
            }
        }
        drop(store);
        prop_assert_eq!(dirs.open().unwrap().1, model.loaded());
    }
}
