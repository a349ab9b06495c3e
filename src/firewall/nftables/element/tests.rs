use super::*;
use crate::model::Family::{V4, V6};

fn link(name: &str) -> Value {
    Value::Link(name.parse().unwrap())
}

fn ip(address: &str) -> Value {
    Value::Address(address.parse().unwrap())
}

/// A value of each type, the first or the last of an interval.
fn value(field: FieldType, last: bool) -> Value {
    match field {
        FieldType::Link => link("abcdefghijklmno"),
        FieldType::Address(V4) => ip(if last { "10.0.255.255" } else { "10.0.0.0" }),
        FieldType::Address(V6) => ip(if last { "fd00:0:0:1:ffff::" } else { "fd00:0:0:1::" }),
        FieldType::Protocol => Value::Protocol(Protocol::Sctp),
        FieldType::Port => Value::Port(if last { 65_535 } else { 80 }),
    }
}

/// One element of a set, with `through` where the set has intervals.
fn sample(set: SetName) -> Element {
    let Set { key, data, interval, .. } = set.declaration();
    let values = |types: &[FieldType], last| -> Vec<Value> {
        types.iter().map(|field| value(*field, last)).collect()
    };
    let through = interval.then(|| values(&key, true));
    Element { set, key: values(&key, false), through, data: values(&data, true) }
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

/// Subnets that touch, with the lowest and the highest of the family among them.
fn nets(family: Family) -> Vec<(Value, Value)> {
    let nets = match family {
        V4 => [
            ("0.0.0.0", "0.0.0.255"),
            ("10.0.0.0", "10.0.0.255"),
            ("10.0.1.0", "10.0.1.255"),
            ("10.0.9.7", "10.0.9.7"),
            ("255.255.255.0", "255.255.255.255"),
        ],
        V6 => [
            ("::", "::ff"),
            ("fd00::", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00:0:0:1::", "fd00::1:ffff:ffff:ffff:ffff"),
            ("fd00:0:0:9::7", "fd00:0:0:9::7"),
            ("ffff:ffff:ffff:ffff::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ],
    };
    nets.map(|(first, last)| (ip(first), ip(last))).to_vec()
}

#[test]
fn touching_subnets_and_the_highest_one_stay_apart() {
    for family in Family::ALL {
        let set = SetName::Masquerade(family);
        let net = |(first, last)| Element {
            set,
            key: vec![first],
            through: Some(vec![last]),
            data: vec![],
        };
        let elements: Vec<Element> = nets(family).into_iter().map(net).collect();
        assert_eq!(round_trip(set, &elements), (elements, 0), "{set}");
    }
}

#[test]
fn each_of_touching_subnets_keeps_the_address_it_leads_to() {
    for family in Family::ALL {
        let set = SetName::Sources(family);
        // Each leads to its own last address, so that no two lead to the same.
        let net = |(first, last): (Value, Value)| Element {
            set,
            key: vec![first],
            through: Some(vec![last.clone()]),
            data: vec![last],
        };
        let elements: Vec<Element> = nets(family).into_iter().map(net).collect();
        assert_eq!(round_trip(set, &elements), (elements, 0), "{set}");
    }
}

#[test]
fn the_end_of_an_interval_has_no_data_and_to_remove_it_none_is_said() {
    let element = sample(SetName::Sources(V6));
    for (purpose, expected) in [(Purpose::Add, [true, false]), (Purpose::Remove, [false; 2])] {
        let mut writer = Writer::default();
        put(&mut writer, &element, purpose).unwrap();
        let bytes = writer.into_bytes();
        let with_data: Vec<bool> =
            wire::attributes(&bytes).map(|(_, raw)| wire::find(raw, DATA).is_some()).collect();
        assert_eq!(with_data, expected, "{purpose:?}");
    }
}

#[test]
fn values_that_do_not_fit_their_set_are_refused() {
    let refused = |element: &Element| put(&mut Writer::default(), element, Purpose::Add).is_none();
    let good = sample(SetName::AnyPorts(V4));
    assert!(refused(&Element { key: vec![], ..good.clone() }));
    assert!(refused(&Element { data: vec![], ..good.clone() }));
    assert!(refused(&Element { key: vec![ip("1.2.3.4"), Value::Port(1)], ..good.clone() }));
    assert!(refused(&Element { through: Some(good.key.clone()), ..good.clone() }));
    assert!(!refused(&good));
}

#[test]
fn an_address_of_the_other_family_is_refused() {
    let refused = |element: &Element| put(&mut Writer::default(), element, Purpose::Add).is_none();
    for set in SetName::ALL.into_iter().filter(|set| set.family() == Some(V4)) {
        let other = SetName::ALL.into_iter().find(|other| {
            other.family() == Some(V6) && other.as_str() == format!("{}_v6", set.as_str())
        });
        let (v4, v6) = (sample(set), sample(other.unwrap()));
        let has_addresses = v4 != Element { set, ..v6.clone() };
        assert_eq!(refused(&Element { set, ..v6.clone() }), has_addresses, "{set}");
        assert_eq!(refused(&Element { set: v6.set, ..v4 }), has_addresses, "{}", v6.set);
    }
}

#[test]
fn an_element_of_an_unknown_protocol_is_counted_not_decoded() {
    // IPPROTO_DCCP.
    let unknown = [33, 0, 0, 0, 0, 80, 0, 0];
    let mut writer = Writer::default();
    writer.nested(ELEMENTS, |writer| {
        entry(writer, &unknown, None, Some(&[10, 0, 0, 2, 0, 80, 0, 0]), 0);
    });
    let mut listing = Listing::new(SetName::AnyPorts(V4));
    listing.take(&writer.into_bytes());
    assert_eq!(listing.finish(), (vec![], 1));
}

#[test]
fn cut_off_answers_are_no_panic() {
    for set in [SetName::HostRanges(V4), SetName::Opened(V6), SetName::Sources(V6)] {
        let mut writer = Writer::default();
        writer.nested(ELEMENTS, |writer| {
            put(writer, &sample(set), Purpose::Add).unwrap();
        });
        let bytes = writer.into_bytes();
        for end in 0..bytes.len() {
            let mut listing = Listing::new(set);
            listing.take(&bytes[..end]);
            let (elements, _) = listing.finish();
            assert!(elements.is_empty(), "{set}");
        }
    }
}
