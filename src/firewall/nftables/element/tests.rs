use std::net::Ipv4Addr;

use super::*;

fn link(name: &str) -> Value {
    Value::Link(name.parse().unwrap())
}

fn ipv4(address: &str) -> Value {
    Value::Ipv4(address.parse::<Ipv4Addr>().unwrap())
}

/// One element of a set, with `through` where the set has intervals.
fn sample(set: SetName) -> Element {
    let tcp = || Value::Protocol(Protocol::Tcp);
    let (key, through, data) = match set {
        SetName::Bridges
        | SetName::IccDenied
        | SetName::Internal
        | SetName::Uplinks
        | SetName::Raised
        | SetName::RaisedV6 => (vec![link("abcdefghijklmno")], None, vec![]),
        SetName::Same | SetName::Bridged => (vec![link("br0"), link("br0")], None, vec![]),
        SetName::Local => (
            vec![link("br0"), ipv4("10.0.0.0")],
            Some(vec![link("br0"), ipv4("10.0.0.255")]),
            vec![],
        ),
        SetName::Masquerade => (vec![ipv4("10.0.0.0")], Some(vec![ipv4("10.0.0.255")]), vec![]),
        SetName::HostPorts => (
            vec![tcp(), ipv4("192.0.2.1"), Value::Port(80)],
            None,
            vec![ipv4("10.0.0.2"), Value::Port(8080)],
        ),
        SetName::HostRanges => (
            vec![Value::Port(80), tcp(), ipv4("192.0.2.1")],
            Some(vec![Value::Port(90), tcp(), ipv4("192.0.2.1")]),
            vec![ipv4("10.0.0.2")],
        ),
        SetName::AnyPorts => (
            vec![Value::Protocol(Protocol::Udp), Value::Port(53)],
            None,
            vec![ipv4("10.0.0.2"), Value::Port(5353)],
        ),
        SetName::AnyRanges => (
            vec![Value::Port(80), tcp()],
            Some(vec![Value::Port(90), tcp()]),
            vec![ipv4("10.0.0.2")],
        ),
    };
    Element { set, key, through, data }
}

fn round_trip(set: SetName, elements: &[Element]) -> (Vec<Element>, usize) {
    let mut writer = Writer::default();
    writer.nested(ELEMENTS, |writer| {
        for element in elements {
            put(writer, element, Purpose::Add).unwrap();
        }
    });
    let mut listing = Listing::new(set);
    listing.take(&writer.into_bytes());
    listing.finish()
}

#[test]
fn elements_of_every_set_survive_the_way_there_and_back() {
    for set in SetName::ALL {
        let element = sample(set);
        assert_eq!(round_trip(set, std::slice::from_ref(&element)), (vec![element], 0), "{set}");
    }
}

#[test]
fn touching_subnets_and_the_highest_one_stay_apart() {
    let net = |first: &str, last: &str| Element {
        set: SetName::Masquerade,
        key: vec![ipv4(first)],
        through: Some(vec![ipv4(last)]),
        data: vec![],
    };
    let nets = [
        net("0.0.0.0", "0.0.0.255"),
        net("10.0.0.0", "10.0.0.255"),
        net("10.0.1.0", "10.0.1.255"),
        net("10.0.9.7", "10.0.9.7"),
        net("255.255.255.0", "255.255.255.255"),
    ];
    assert_eq!(round_trip(SetName::Masquerade, &nets), (nets.to_vec(), 0));
}

#[test]
fn values_that_do_not_fit_their_set_are_refused() {
    let refused = |element: &Element| put(&mut Writer::default(), element, Purpose::Add).is_none();
    let good = sample(SetName::AnyPorts);
    assert!(refused(&Element { key: vec![], ..good.clone() }));
    assert!(refused(&Element { data: vec![], ..good.clone() }));
    assert!(refused(&Element { key: vec![ipv4("1.2.3.4"), Value::Port(1)], ..good.clone() }));
    assert!(refused(&Element { through: Some(good.key.clone()), ..good.clone() }));
    assert!(!refused(&good));
}

#[test]
fn an_element_of_another_protocol_is_counted_not_decoded() {
    let mut writer = Writer::default();
    writer.nested(ELEMENTS, |writer| {
        entry(writer, &[132, 0, 0, 0, 0, 80, 0, 0], None, Some(&[10, 0, 0, 2, 0, 80, 0, 0]), 0);
    });
    let mut listing = Listing::new(SetName::AnyPorts);
    listing.take(&writer.into_bytes());
    assert_eq!(listing.finish(), (vec![], 1));
}

#[test]
fn cut_off_answers_are_no_panic() {
    let mut writer = Writer::default();
    writer.nested(ELEMENTS, |writer| {
        put(writer, &sample(SetName::HostRanges), Purpose::Add).unwrap();
    });
    let bytes = writer.into_bytes();
    for end in 0..bytes.len() {
        let mut listing = Listing::new(SetName::HostRanges);
        listing.take(&bytes[..end]);
        let (elements, _) = listing.finish();
        assert!(elements.is_empty());
    }
}
