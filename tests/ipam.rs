//! The address book against a plain model that scans, and the cases Docker's semantics ask for.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netagent::ipam::{AddressBook, DefaultPool, Lease, PoolId, Purpose, default_pools};
use netagent::model::ErrorClass;
use netagent::model::Family;
use proptest::prelude::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn book_with(pool: &str, range: Option<&str>) -> (AddressBook, PoolId) {
    let mut book = AddressBook::default();
    let id = named(&mut book, pool, range).unwrap();
    (book, id)
}

fn named(
    book: &mut AddressBook,
    pool: &str,
    range: Option<&str>,
) -> Result<PoolId, netagent::model::Error> {
    book.request_pool(Some(net(pool)), range.map(net), Family::V4, &BTreeSet::new(), &[])
}

fn next(book: &mut AddressBook, id: &PoolId) -> String {
    book.request_address(id, None, Purpose::Endpoint).unwrap().to_string()
}

#[track_caller]
fn check_refused(
    result: Result<impl std::fmt::Debug, netagent::model::Error>,
    class: ErrorClass,
    words: &str,
) {
    let error = result.unwrap_err();
    assert_eq!(error.class, class, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_subnet_that_no_host_can_live_in_is_refused_and_the_right_one_is_named() {
    for (pool, range, words) in [
        ("10.0.0.1/24", None, "the subnet is 10.0.0.0/24"),
        ("0.0.0.0/0", None, "every address"),
        ("127.0.0.0/24", None, "cannot be given"),
        ("224.0.0.0/24", None, "cannot be given"),
        ("ff02::/64", None, "cannot be given"),
        ("10.0.0.0/24", Some("10.0.1.0/28"), "not inside"),
        ("10.0.0.0/24", Some("fd00::/80"), "not inside"),
        ("10.0.0.0/24", Some("10.0.0.0/16"), "not inside"),
        ("10.0.0.0/24", Some("10.0.0.9/28"), "it would be 10.0.0.0/28"),
        ("10.0.0.0/24", Some("10.0.0.0/32"), "no address"),
        ("10.0.0.0/24", Some("10.0.0.255/32"), "no address"),
    ] {
        check_refused(named(&mut AddressBook::default(), pool, range), ErrorClass::Usage, words);
    }
    let mut book = AddressBook::default();
    let lone = book.request_pool(None, Some(net("10.0.0.0/28")), Family::V4, &BTreeSet::new(), &[]);
    check_refused(lone, ErrorClass::Usage, "needs the subnet");
}

#[test]
fn the_smallest_subnets_give_out_all_their_addresses() {
    for (pool, expected) in [
        ("10.0.0.0/30", vec!["10.0.0.1/30", "10.0.0.2/30"]),
        ("10.0.0.0/31", vec!["10.0.0.0/31", "10.0.0.1/31"]),
        ("10.0.0.9/32", vec!["10.0.0.9/32"]),
        ("fd00::/126", vec!["fd00::1/126", "fd00::2/126", "fd00::3/126"]),
        ("fd00::/127", vec!["fd00::/127", "fd00::1/127"]),
        ("fd00::7/128", vec!["fd00::7/128"]),
        ("255.255.255.254/31", vec!["255.255.255.254/31", "255.255.255.255/31"]),
        ("2001:db8:ffff::/127", vec!["2001:db8:ffff::/127", "2001:db8:ffff::1/127"]),
    ] {
        let (mut book, id) = book_with(pool, None);
        let given: Vec<String> = expected.iter().map(|_| next(&mut book, &id)).collect();
        assert_eq!(given, expected);
        let error = book.request_address(&id, None, Purpose::Endpoint);
        check_refused(error, ErrorClass::Unavailable, pool);
    }
}

#[test]
fn an_overlapping_subnet_is_refused_naming_the_other() {
    let (mut book, _) = book_with("10.0.0.0/16", None);
    check_refused(named(&mut book, "10.0.5.0/24", None), ErrorClass::Conflict, "10.0.0.0/16");
    check_refused(named(&mut book, "10.0.0.0/8", None), ErrorClass::Conflict, "10.0.0.0/16");
    named(&mut book, "10.1.0.0/16", None).unwrap();
    named(&mut book, "fd00::/64", None).unwrap();
}

#[test]
fn the_same_subnet_again_is_the_same_pool_until_its_last_release() {
    let (mut book, id) = book_with("10.0.0.0/24", Some("10.0.0.0/28"));
    assert_eq!(named(&mut book, "10.0.0.0/24", Some("10.0.0.0/28")).unwrap(), id);
    check_refused(
        named(&mut book, "10.0.0.0/24", None),
        ErrorClass::Conflict,
        "in use with range 10.0.0.0/28",
    );
    book.release_pool(&id).unwrap();
    assert!(book.pool(&id).is_some());
    book.release_pool(&id).unwrap();
    assert!(book.pool(&id).is_none());
    check_refused(book.release_pool(&id), ErrorClass::NotFound, "no such pool");
    let address = book.request_address(&id, None, Purpose::Endpoint);
    check_refused(address, ErrorClass::NotFound, "no such pool");
    book.release_address(&id, ip("10.0.0.1"));
}

#[test]
fn an_address_just_released_is_not_given_out_at_once() {
    let (mut book, id) = book_with("10.0.0.0/29", None);
    assert_eq!(next(&mut book, &id), "10.0.0.1/29");
    assert_eq!(next(&mut book, &id), "10.0.0.2/29");
    book.release_address(&id, ip("10.0.0.1"));
    book.release_address(&id, ip("10.0.0.1"));
    for expected in ["10.0.0.3/29", "10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29", "10.0.0.1/29"] {
        assert_eq!(next(&mut book, &id), expected);
    }
}

#[test]
fn a_gateway_is_the_first_address_of_the_subnet_and_endpoints_come_from_the_range() {
    let (mut book, id) = book_with("10.60.0.0/16", Some("10.60.5.0/30"));
    let gateway = book.request_address(&id, None, Purpose::Gateway).unwrap();
    assert_eq!(gateway.to_string(), "10.60.0.1/16");
    // Bounds of a range are ordinary addresses where they are not the subnet's.
    for expected in ["10.60.5.0/16", "10.60.5.1/16", "10.60.5.2/16", "10.60.5.3/16"] {
        assert_eq!(next(&mut book, &id), expected);
    }
    let error = book.request_address(&id, None, Purpose::Endpoint);
    check_refused(error, ErrorClass::Unavailable, "range 10.60.5.0/30");
    // Named addresses may lie outside the range, auxiliary ones too.
    for (address, purpose) in [("10.60.9.9", Purpose::Endpoint), ("10.60.0.7", Purpose::Auxiliary)]
    {
        let given = book.request_address(&id, Some(ip(address)), purpose).unwrap();
        assert_eq!(given.to_string(), format!("{address}/16"));
    }
}

#[test]
fn a_named_address_that_cannot_be_had_is_refused_with_the_reason() {
    let (mut book, id) = book_with("10.0.0.0/24", None);
    for (address, words) in [
        ("10.0.1.1", "not an address of this pool"),
        ("fd00::1", "not an address of this pool"),
        ("10.0.0.0", "subnet's own"),
        ("10.0.0.255", "broadcast"),
    ] {
        let result = book.request_address(&id, Some(ip(address)), Purpose::Endpoint);
        check_refused(result, ErrorClass::Usage, words);
    }
    for (address, purpose, words) in [
        ("10.0.0.1", Purpose::Gateway, "gateway"),
        ("10.0.0.2", Purpose::Auxiliary, "auxiliary"),
        ("10.0.0.3", Purpose::Endpoint, "an endpoint"),
    ] {
        book.request_address(&id, Some(ip(address)), purpose).unwrap();
        let again = book.request_address(&id, Some(ip(address)), Purpose::Endpoint);
        check_refused(again, ErrorClass::Conflict, words);
    }
}

#[test]
fn a_new_dockerd_replays_what_it_has_and_the_rest_is_swept() {
    let (mut book, id) = book_with("10.0.0.0/24", None);
    book.request_address(&id, None, Purpose::Gateway).unwrap();
    for _ in 0..3 {
        next(&mut book, &id);
    }
    let other = named(&mut book, "10.9.0.0/24", None).unwrap();
    let kept = named(&mut book, "10.8.0.0/24", None).unwrap();
    book.next_generation(&BTreeSet::new());
    assert_eq!(named(&mut book, "10.0.0.0/24", None).unwrap(), id);
    assert_eq!(book.pool(&id).unwrap().references, 1);
    book.request_address(&id, Some(ip("10.0.0.1")), Purpose::Gateway).unwrap();
    book.request_address(&id, Some(ip("10.0.0.2")), Purpose::Endpoint).unwrap();
    let twice = book.request_address(&id, Some(ip("10.0.0.2")), Purpose::Endpoint);
    check_refused(twice, ErrorClass::Conflict, "an endpoint has it");
    // What was not replayed stays reserved until the sweep.
    assert_eq!(next(&mut book, &id), "10.0.0.5/24");
    let alive = BTreeSet::from([ip("10.0.0.3")]);
    let dropped = book.sweep(&alive, &BTreeSet::from([kept.net()]));
    assert_eq!(dropped, vec![other]);
    let left: Vec<String> =
        book.pool(&id).unwrap().leases.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5"]);
    let restored = AddressBook::restore(book.pools().cloned(), book.generation());
    assert_eq!(restored, book);
}

#[test]
fn default_pools_are_given_in_order_around_what_is_taken_until_none_is_left() {
    let defaults = [("172.17.0.0/22", 24), ("10.0.0.0/23", 24), ("fd00::/62", 64)]
        .map(|(base, size)| DefaultPool { base: net(base), size });
    let taken = BTreeSet::from([net("172.17.1.0/25"), net("0.0.0.0/0"), net("::/0")]);
    let mut book = AddressBook::default();
    named(&mut book, "172.17.2.64/26", None).unwrap();
    let mut request =
        |family| book.request_pool(None, None, family, &taken, &defaults).map(|id| id.to_string());
    for expected in ["172.17.0.0/24", "172.17.3.0/24", "10.0.0.0/24", "10.0.1.0/24"] {
        assert_eq!(request(Family::V4).unwrap(), format!("netagent/{expected}"));
    }
    check_refused(request(Family::V4), ErrorClass::Unavailable, "default_pools");
    for expected in ["fd00::/64", "fd00:0:0:1::/64", "fd00:0:0:2::/64", "fd00:0:0:3::/64"] {
        assert_eq!(request(Family::V6).unwrap(), format!("netagent/{expected}"));
    }
    check_refused(request(Family::V6), ErrorClass::Unavailable, "--subnet");
}

#[test]
fn the_built_in_default_pools_hold_4096_networks_of_each_family() {
    let defaults = default_pools(b"a machine");
    let mut book = AddressBook::default();
    for family in [Family::V4, Family::V6] {
        for _ in 0..4096 {
            book.request_pool(None, None, family, &BTreeSet::new(), &defaults).unwrap();
        }
    }
    let full = book.request_pool(None, None, Family::V4, &BTreeSet::new(), &defaults);
    check_refused(full, ErrorClass::Unavailable, "default pool");
}

/// The search must not begin anew each time: 65,000 requests that each walked over what is given
/// out would be two thousand million steps, minutes in a debug build.
#[test]
fn a_large_subnet_gives_out_each_address_once() {
    for pool in ["10.0.0.0/16", "fd00::/64"] {
        let (mut book, id) = book_with(pool, None);
        let given: BTreeSet<String> = (0..65_000).map(|_| next(&mut book, &id)).collect();
        assert_eq!(given.len(), 65_000);
    }
}

#[derive(Debug, Clone)]
enum Ask {
    Next(Purpose),
    Named(u8, Purpose),
    Release(u8),
    Generation,
    Sweep(BTreeSet<u8>),
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        Just(Purpose::Gateway),
        Just(Purpose::Auxiliary),
        Just(Purpose::Endpoint),
        Just(Purpose::Endpoint),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        6 => purpose().prop_map(Ask::Next),
        3 => (any::<u8>(), purpose()).prop_map(|(at, purpose)| Ask::Named(at, purpose)),
        4 => any::<u8>().prop_map(Ask::Release),
        1 => Just(Ask::Generation),
        1 => prop::collection::btree_set(any::<u8>(), 0..4).prop_map(Ask::Sweep),
    ]
}

/// What the book is to do, by trying every address in turn.
struct Model {
    hosts: Vec<IpAddr>,
    range: Vec<IpAddr>,
    leases: BTreeMap<IpAddr, Lease>,
    last: Option<IpAddr>,
    generation: u64,
}

impl Model {
    fn new(pool: IpNet, range: Option<IpNet>) -> Self {
        // `hosts` of the crate leaves out network and broadcast, but not the anycast address.
        let anycast = pool.network().is_ipv6() && pool.prefix_len() < 127;
        let hosts: Vec<IpAddr> =
            pool.hosts().filter(|at| !(anycast && *at == pool.network())).collect();
        let inside = |at: &IpAddr| range.is_none_or(|range| range.contains(at));
        let range = hosts.iter().copied().filter(inside).collect();
        Self { hosts, range, leases: BTreeMap::new(), last: None, generation: 0 }
    }

    fn next(&mut self, purpose: Purpose) -> Option<IpAddr> {
        let free = |at: &&IpAddr| !self.leases.contains_key(at);
        let found = if purpose == Purpose::Gateway {
            self.hosts.iter().find(free).copied()
        } else {
            let behind = |at: &&IpAddr| self.last.is_none_or(|last| **at > last);
            let order =
                self.range.iter().filter(behind).chain(self.range.iter().filter(|at| !behind(at)));
            let found = order.into_iter().find(free).copied();
            self.last = found.or(self.last);
            found
        }?;
        self.leases.insert(found, Lease { purpose, generation: self.generation });
        Some(found)
    }

    fn named(&mut self, address: IpAddr, purpose: Purpose) -> Option<IpAddr> {
        let held = self.leases.get(&address);
        if !self.hosts.contains(&address) || held.is_some_and(|l| l.generation == self.generation) {
            return None;
        }
        self.leases.insert(address, Lease { purpose, generation: self.generation });
        Some(address)
    }
}

fn at(pool: IpNet, offset: u8) -> IpAddr {
    let size = 1_u128 << (pool.max_prefix_len() - pool.prefix_len());
    let offset = u128::from(offset) % size;
    match pool {
        IpNet::V4(net) => IpAddr::V4((net.network().to_bits() + offset as u32).into()),
        IpNet::V6(net) => IpAddr::V6((net.network().to_bits() + offset).into()),
    }
}

fn pool_and_range() -> impl Strategy<Value = (IpNet, Option<IpNet>)> {
    let v4 = (27_u8..=32).prop_map(|size| IpNet::new(ip("10.1.2.64"), size).unwrap().trunc());
    let v6 = (123_u8..=128).prop_map(|size| IpNet::new(ip("fd00::40"), size).unwrap().trunc());
    (prop_oneof![v4, v6], any::<(bool, u8, u8)>()).prop_map(|(pool, (with, size, offset))| {
        let wider = pool.max_prefix_len() - pool.prefix_len() + 1;
        let range = IpNet::new(at(pool, offset), pool.prefix_len() + size % wider).unwrap().trunc();
        (pool, with.then_some(range))
    })
}

proptest! {
    #[test]
    fn the_book_does_what_the_model_does(
        (pool, range) in pool_and_range(),
        asks in prop::collection::vec(ask(), 0..120),
    ) {
        let mut model = Model::new(pool, range);
        let mut book = AddressBook::default();
        let asked = book.request_pool(Some(pool), range, Family::V4, &BTreeSet::new(), &[]);
        if model.range.is_empty() {
            prop_assert_eq!(asked.unwrap_err().class, ErrorClass::Usage);
            return Ok(());
        }
        let id = asked.unwrap();
        for ask in asks {
            match ask {
                Ask::Next(purpose) => {
                    let given = book.request_address(&id, None, purpose).ok();
                    let expected = model.next(purpose);
                    prop_assert_eq!(given.map(|net| net.addr()), expected);
                    prop_assert!(given.is_none_or(|net| net.prefix_len() == pool.prefix_len()));
                }
                Ask::Named(offset, purpose) => {
                    let wanted = at(pool, offset);
                    let given = book.request_address(&id, Some(wanted), purpose).ok();
                    let expected = model.named(wanted, purpose);
                    prop_assert_eq!(given.map(|net| net.addr()), expected);
                }
                Ask::Release(offset) => {
                    book.release_address(&id, at(pool, offset));
                    model.leases.remove(&at(pool, offset));
                }
                Ask::Generation => {
                    book.next_generation(&BTreeSet::new());
                    model.generation += 1;
                    let again =
                        book.request_pool(Some(pool), range, Family::V4, &BTreeSet::new(), &[]);
                    prop_assert_eq!(again.as_ref(), Ok(&id));
                }
                Ask::Sweep(alive) => {
                    let alive = alive.into_iter().map(|offset| at(pool, offset)).collect();
                    prop_assert!(book.sweep(&alive, &BTreeSet::new()).is_empty());
                    let generation = model.generation;
                    model.leases.retain(|at, lease| {
                        lease.purpose != Purpose::Endpoint
                            || lease.generation == generation
                            || alive.contains(at)
                    });
                }
            }
            prop_assert_eq!(&book.pool(&id).unwrap().leases, &model.leases);
        }
    }

    #[test]
    fn pools_of_one_book_never_overlap(
        wanted in prop::collection::vec((any::<u16>(), 18_u8..=30), 0..30),
        taken in prop::collection::btree_set((any::<u16>(), 18_u8..=32), 0..10),
    ) {
        let of = |(host, size): (u16, u8)| {
            IpNet::new(IpAddr::V4((0x0a00_0000 | u32::from(host)).into()), size).unwrap().trunc()
        };
        let taken: BTreeSet<IpNet> = taken.into_iter().map(of).collect();
        let defaults = [DefaultPool { base: net("10.0.0.0/16"), size: 24 }];
        let mut book = AddressBook::default();
        for (turn, pool) in wanted.into_iter().enumerate() {
            let wanted = (turn % 2 == 0).then(|| of(pool));
            let Ok(id) = book.request_pool(wanted, None, Family::V4, &taken, &defaults) else {
                continue;
            };
            let chosen = id.net();
            let overlaps = |net: &IpNet| net.contains(&chosen) || chosen.contains(net);
            prop_assert!(wanted.is_some() || !taken.iter().any(overlaps));
            prop_assert_eq!(book.pools().filter(|pool| overlaps(&pool.net)).count(), 1);
        }
    }
}
