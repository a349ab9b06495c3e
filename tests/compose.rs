//! A shop of three networks and eight services, as Debian's docker-compose brings it up, scales it
//! and takes it down: version 1 with dockerd 20.10, version 2 with the newer ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::version::Version;
use support::{Lab, Place, until};

const SHOP: &str = include_str!("cases/compose/shop.yaml");
/// Where it is inside a lab, whichever root dockerd has.
const FILE: &str = "/run/shop.yaml";
const COMPOSE: &str = "/usr/bin/docker-compose";

/// The services of the shop and their networks.
const SERVICES: [(&str, &[&str]); 8] = [
    ("api", &["back", "data"]),
    ("cache", &["back"]),
    ("db", &["data"]),
    ("metrics", &["front"]),
    ("proxy", &["front"]),
    ("queue", &["back"]),
    ("web", &["back", "front"]),
    ("worker", &["back", "data"]),
];
/// Other names of services, and in which network they hold.
const ALIASES: [(&str, &str, &str); 3] =
    [("site", "web", "front"), ("backend", "api", "back"), ("postgres", "db", "data")];

/// What is published of each service but `web`: host ports, protocol, container ports.
const PORTS: [(&str, &str, &str, &str); 5] = [
    ("api", "9100-9101", "tcp", "80-81"),
    ("metrics", "8125", "udp", "8125"),
    ("metrics", "9190", "tcp", "80"),
    ("proxy", "8080", "tcp", "80"),
    ("proxy", "8081", "tcp", "81"),
];

#[test]
fn a_shop_comes_up_scales_and_goes_down_with_docker_20_10() {
    comes_up_scales_and_goes_down(Version::V20);
}

#[test]
fn a_shop_comes_up_scales_and_goes_down_with_docker_26_1() {
    comes_up_scales_and_goes_down(Version::V26);
}

#[test]
fn a_shop_comes_up_scales_and_goes_down_with_docker_28_5() {
    comes_up_scales_and_goes_down(Version::V28);
}

fn comes_up_scales_and_goes_down(version: Version) {
    let Some(shop) = Shop::on(version) else { return };
    shop.compose(&["up", "-d"]);
    let containers = shop.containers();
    let services: Vec<&str> = containers.iter().map(|c| c.service.as_str()).collect();
    assert_eq!(services, SERVICES.map(|(service, _)| service));
    shop.neighbours_and_only_they_reach_each_other(&containers);
    shop.names_are_found_where_they_hold(&containers);
    shop.ports_answer(&containers);
    shop.netagent_agrees(&containers);

    shop.compose(&["up", "-d", "--scale", "web=10"]);
    let before: Vec<String> = containers.into_iter().map(|container| container.id).collect();
    let containers = shop.containers();
    let stays = |id: &String| containers.iter().any(|container| container.id == *id);
    assert!(before.iter().all(stays), "a container was made again");
    shop.ten_replicas_share_an_alias(&containers);
    shop.ports_answer(&containers);
    shop.netagent_agrees(&containers);

    shop.compose(&["down"]);
    shop.nothing_left();
    shop.compose(&["up", "-d"]);
    let containers = shop.containers();
    shop.ports_answer(&containers);
    shop.netagent_agrees(&containers);
    shop.compose(&["down"]);
    shop.nothing_left();
}

/// A container of the shop.
struct Container {
    id: String,
    name: String,
    service: String,
    /// What it says to whoever connects.
    says: String,
    place: Place,
    /// IPv4 and IPv6 addresses by network; empty where it has none.
    addresses: BTreeMap<String, [String; 2]>,
}

impl Container {
    fn v4(&self, network: &str) -> &str {
        &self.addresses[network][0]
    }
}

/// A call, and who must answer it: nobody, where that is `None`.
struct Call<'a> {
    from: &'a Place,
    to: String,
    hears: Option<&'a str>,
}

/// Makes all calls at once, but for those that one listener is to answer: busybox's `nc` drops calls
/// when more than two wait. Panics with all that went wrong.
#[track_caller]
fn call_all(calls: &[Call]) {
    let mut turns: BTreeMap<(&str, usize), Vec<&Call>> = BTreeMap::new();
    for (number, call) in calls.iter().enumerate() {
        let turn = call.hears.map_or(("", number), |who| (who, 0));
        turns.entry(turn).or_default().push(call);
    }
    let check = |call: &Call| match call.hears {
        Some(who) => call.from.try_hears(who, &call.to).err(),
        None => call.from.try_hears_nothing(&call.to).err(),
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let take = |turn: Vec<_>| scope.spawn(move || turn.into_iter().filter_map(check).collect());
        let threads: Vec<_> = turns.into_values().map(take).collect();
        threads.into_iter().flat_map(|thread| -> Vec<_> { thread.join().unwrap() }).collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n  {}",
        wrong.len(),
        calls.len(),
        wrong.join("\n  ")
    );
}

struct Shop {
    lab: Lab,
}

impl Shop {
    fn on(version: Version) -> Option<Self> {
        let lab = Lab::with(version)?;
        std::fs::write(lab.inside(FILE), SHOP).unwrap();
        let shown = lab.try_run(&lab.of_docker(&[COMPOSE, "version", "--short"]));
        // Of nsenter and timeout: there is no such command.
        if shown.code == 127 && std::env::var("NETAGENT_REQUIRE_ROOT").as_deref() != Ok("1") {
            println!("SKIP {version}: no docker-compose; scripts/test installs it");
            return None;
        }
        let (compose, major) =
            (shown.expect_ok(), if version < Version::V26 { "1." } else { "2." });
        assert!(compose.trim_start_matches('v').starts_with(major), "docker-compose {compose}");
        Some(Self { lab })
    }

    /// Runs `docker-compose …`; dockerd's own client is not involved.
    #[track_caller]
    fn compose(&self, args: &[&str]) {
        let argv = [&[COMPOSE, "-p", "shop", "-f", FILE], args].concat();
        self.lab.run(&self.lab.of_docker(&argv));
    }

    /// All that run, ordered by service, once they listen.
    #[track_caller]
    fn containers(&self) -> Vec<Container> {
        let ids = self.lab.docker(&["ps", "-q"]);
        let all = [&["inspect"], &ids.lines().collect::<Vec<_>>()[..]].concat();
        let Value::Array(all) = serde_json::from_str(&self.lab.docker(&all)).unwrap() else {
            panic!("docker inspect gave no list")
        };
        let mut all: Vec<Container> = all.iter().map(|shown| self.container(shown)).collect();
        self.names_are_known();
        all.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
        all
    }

    fn container(&self, shown: &Value) -> Container {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let service = text(&shown["Config"]["Labels"]["com.docker.compose.service"]);
        let says =
            if service == "web" { text(&shown["Config"]["Hostname"]) } else { service.clone() };
        let networks = shown["NetworkSettings"]["Networks"].as_object().unwrap();
        let addresses = networks.iter().map(|(network, at)| {
            let both = ["IPAddress", "GlobalIPv6Address"].map(|key| text(&at[key]));
            (network.trim_start_matches("shop_").to_owned(), both)
        });
        let place = self.lab.place_of(&service, shown["State"]["Pid"].as_u64().unwrap() as u32);
        until("the container listens", Duration::from_secs(20), || {
            place.run(&["ss", "-Hltn"]).contains(":80 ").then_some(())
        });
        let name = text(&shown["Name"]).trim_start_matches('/').to_owned();
        let id = text(&shown["Id"]);
        Container { id, name, service, says, place, addresses: addresses.collect() }
    }

    /// Each service, this host and another one call each address of each service.
    #[track_caller]
    fn neighbours_and_only_they_reach_each_other(&self, containers: &[Container]) {
        let (neighbour, host) = (self.lab.neighbour(), self.lab.host());
        let mut calls = Vec::new();
        for to in containers {
            for (network, [v4, v6]) in &to.addresses {
                let v6 = (!v6.is_empty()).then(|| format!("tcp:[{v6}]:80"));
                for address in [format!("tcp:{v4}:80")].into_iter().chain(v6) {
                    let mut call = |from, heard: bool| {
                        let hears = heard.then_some(&*to.says);
                        calls.push(Call { from, to: address.clone(), hears });
                    };
                    for from in containers {
                        call(&from.place, networks_of(&from.service).contains(&&**network));
                    }
                    call(&host, true);
                    call(&neighbour, false);
                }
            }
        }
        assert_eq!(calls.len(), (11 + 3) * 10, "addresses of both families, times callers");
        call_all(&calls);
        let (db, api) = (one(containers, "db"), one(containers, "api"));
        assert_eq!(db.v4("data"), "172.30.3.10");
        assert!(!db.place.pings("10.99.0.2"), "an internal network has a way out");
        assert!(api.place.pings("10.99.0.2"), "the way out");
        let link = api.place.run(&["ip", "-o", "-4", "addr"]);
        let link = link.lines().find(|line| line.contains(api.v4("back"))).unwrap();
        let name = link.split_whitespace().nth(1).unwrap();
        assert!(
            api.place.run(&["ip", "link", "show", name]).contains("mtu 1400"),
            "its driver_opts"
        );
    }

    /// Each service asks dockerd for all names: they are found in their networks only.
    #[track_caller]
    fn names_are_found_where_they_hold(&self, containers: &[Container]) {
        let script = "for name; do (echo $name $(nslookup -type=a $name)) & done; wait";
        let services = SERVICES.map(|(service, networks)| (service, service, networks));
        let aliases = ALIASES
            .each_ref()
            .map(|(alias, service, network)| (*alias, *service, std::slice::from_ref(network)));
        let names = [&services[..], &aliases[..]].concat();
        let ask = |from: &Container| {
            let mut argv = vec![self.lab.client(), "exec", &from.name, "sh", "-c", script, "sh"];
            argv.extend(names.iter().map(|(name, ..)| name));
            let mut command = self.lab.command(&self.lab.of_docker(&argv));
            command.stdout(Stdio::piped()).spawn().unwrap()
        };
        let asked: Vec<_> = containers.iter().map(ask).collect();
        for (from, asked) in containers.iter().zip(asked) {
            let found = String::from_utf8(asked.wait_with_output().unwrap().stdout).unwrap();
            let found: BTreeMap<&str, BTreeSet<&str>> = found
                .lines()
                .map(|line| line.split_once(' ').unwrap_or((line, "")))
                .map(|(name, printed)| (name, found_addresses(printed)))
                .collect();
            let near = networks_of(&from.service);
            for (name, service, networks) in &names {
                let holds = networks.iter().filter(|network| near.contains(network));
                let at = one(containers, service);
                let right: BTreeSet<&str> = holds.map(|network| at.v4(network)).collect();
                // dockerd answers with the first network that knows the name.
                let ok =
                    found[name].is_subset(&right) && found[name].is_empty() == right.is_empty();
                assert!(ok, "{} finds {name} at {:?}, not {right:?}", from.service, found[name]);
            }
        }
    }

    /// What each published port does, called from this host and from another.
    #[track_caller]
    fn ports_answer(&self, containers: &[Container]) {
        let (neighbour, host) = (self.lab.neighbour(), self.lab.host());
        let _statsd = one(containers, "metrics").place.udp_listener("0.0.0.0:8125", "statsd");
        let mut calls = Vec::new();
        let mut call = |from, to: &str, hears| {
            calls.push(Call { from, to: to.to_owned(), hears });
        };
        for from in [&neighbour, &host] {
            for (to, who) in [
                ("tcp:10.99.0.1:8080", "proxy"),
                ("tcp:[fd99::1]:8080", "proxy"),
                ("tcp:10.99.0.1:9190", "metrics"),
                ("udp:10.99.0.1:8125", "statsd"),
                ("tcp:10.99.0.1:9100", "api"),
                ("tcp:10.99.0.1:9101", "api"),
            ] {
                call(from, to, Some(who));
            }
            let ports = self.ports();
            for web in containers.iter().filter(|container| container.service == "web") {
                let port = &ports
                    .iter()
                    .find(|port| port[0] == web.name)
                    .unwrap_or_else(|| panic!("{}: {ports:?}", web.name))[1];
                call(from, &format!("tcp:10.99.0.1:{port}"), Some(&web.says));
            }
        }
        call(&host, "tcp:127.0.0.1:8081", Some("proxy"));
        call(&neighbour, "tcp:10.99.0.1:8081", None);
        call(&neighbour, "tcp:10.99.0.1:9011", None);
        call(&neighbour, "tcp:10.99.0.1:81", None);
        call_all(&calls);
    }

    /// All that `netagent ports` shows: container, host port, protocol, container port.
    #[track_caller]
    fn ports(&self) -> Vec<[String; 4]> {
        let ports = self.lab.ports();
        let keys = ["Endpoint", "HostPorts", "Protocol", "ContainerPorts"];
        ports.iter().map(|port| keys.map(|key| port[key].as_str().unwrap().to_owned())).collect()
    }

    /// Waits until netagent has read the names from Docker's API.
    #[track_caller]
    fn names_are_known(&self) {
        until("names are known", Duration::from_secs(20), || {
            let mut ports = self.ports().into_iter();
            let mut networks = self.netagent(&["network", "ls"]).into_iter();
            let named = networks.all(|network| {
                let mut endpoints = endpoints(&network).into_iter();
                network["Name"].as_str().unwrap().starts_with("shop")
                    && endpoints.all(|endpoint| endpoint[0].starts_with("shop"))
            });
            (named && ports.all(|port| port[0].starts_with("shop"))).then_some(())
        });
    }

    /// `netagent network ls`, `inspect` and `ports` tell what Docker tells.
    #[track_caller]
    fn netagent_agrees(&self, containers: &[Container]) {
        let networks = ["shop_back", "shop_data", "shop_front"];
        let listed = self.netagent(&["network", "ls"]);
        assert_eq!(listed.iter().map(|one| one["Name"].clone()).collect::<Vec<_>>(), networks);
        let ours = self.netagent(&[&["network", "inspect"], &networks[..]].concat());
        assert_eq!(ours, listed);
        let dockers = self.lab.docker(&[&["network", "inspect"], &networks[..]].concat());
        let dockers: Vec<Value> = serde_json::from_str(&dockers).unwrap();
        for (ours, dockers) in ours.iter().zip(&dockers) {
            for key in ["Id", "Driver", "EnableIPv6", "Internal", "Options", "Labels"] {
                assert_eq!(ours[key], dockers[key], "{key} of {}", dockers["Name"]);
            }
            assert_eq!(ours["IPAM"]["Driver"], dockers["IPAM"]["Driver"]);
            assert_eq!(subnets(ours), subnets(dockers));
            assert_eq!(endpoints(ours), endpoints(dockers));
        }
        self.netagent_shows_each_port(containers);
    }

    #[track_caller]
    fn netagent_shows_each_port(&self, containers: &[Container]) {
        let (of_web, others): (Vec<_>, Vec<_>) =
            self.ports().into_iter().partition(|port| port[3] == "80" && port[1].starts_with("90"));
        let name = |service| one(containers, service).name.clone();
        let fixed = PORTS.map(|(service, host, protocol, inside)| {
            [name(service), host.to_owned(), protocol.to_owned(), inside.to_owned()]
        });
        assert_eq!(BTreeSet::from_iter(others), BTreeSet::from(fixed));
        let web = containers.iter().filter(|container| container.service == "web");
        let web: Vec<&str> = web.map(|container| &*container.name).collect();
        let holders: BTreeSet<&str> = of_web.iter().map(|port| &*port[0]).collect();
        let taken: BTreeSet<&str> = of_web.iter().map(|port| &*port[1]).collect();
        assert_eq!(holders, web.iter().copied().collect());
        assert_eq!((of_web.len(), taken.len()), (web.len(), web.len()), "{of_web:?}");
    }

    /// The list that `netagent -j …` prints.
    #[track_caller]
    fn netagent(&self, args: &[&str]) -> Vec<Value> {
        let text = self.lab.netagent(&[&["-j"], args].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    /// Each of ten has addresses of its own, answers there, is behind the alias, and is kept from `data`.
    #[track_caller]
    fn ten_replicas_share_an_alias(&self, containers: &[Container]) {
        let web: Vec<_> = containers.iter().filter(|one| one.service == "web").collect();
        assert_eq!((web.len(), containers.len()), (10, 17));
        let (proxy, first) = (one(containers, "proxy"), one(containers, "web"));
        let addresses: BTreeSet<&str> = web.iter().map(|one| one.v4("front")).collect();
        assert_eq!(addresses.len(), 10);
        let found = self.lab.docker(&["exec", &proxy.name, "nslookup", "-type=a", "site"]);
        assert_eq!(found_addresses(&found), addresses);
        let db = format!("tcp:{}:80", one(containers, "db").v4("data"));
        let mut calls = Vec::new();
        for web in &web {
            for (from, network) in [(&proxy.place, "front"), (&first.place, "back")] {
                let to = format!("tcp:{}:80", web.v4(network));
                calls.push(Call { from, to, hears: Some(&web.says) });
            }
            calls.push(Call { from: &web.place, to: db.clone(), hears: None });
        }
        call_all(&calls);
    }

    #[track_caller]
    fn nothing_left(&self) {
        self.lab.nothing_left();
        assert_eq!(self.lab.nft_tables(), Vec::<String>::new());
        let status = self.lab.api("GET", "/v1/status", &Value::Null);
        for key in ["Networks", "Endpoints", "Ports", "Garbage"] {
            assert_eq!(status[key], 0, "{key} of {status}");
        }
        assert_eq!((&status["Drift"], &status["Problems"]), (&json!([]), &json!([])));
    }
}

fn networks_of(service: &str) -> &'static [&'static str] {
    SERVICES.iter().find(|(name, _)| *name == service).unwrap().1
}

/// The first container of a service.
fn one<'a>(containers: &'a [Container], service: &str) -> &'a Container {
    containers.iter().find(|container| container.service == service).unwrap()
}

/// The addresses in what `nslookup` prints, without that of dockerd's name server.
fn found_addresses(printed: &str) -> BTreeSet<&str> {
    let words = printed.split_whitespace();
    let addresses = words.filter(|word| word.parse::<IpAddr>().is_ok());
    addresses.filter(|address| *address != "127.0.0.11").collect()
}

/// Subnets of a network, as `network inspect` shows them.
fn subnets(network: &Value) -> Vec<&Value> {
    let all = network["IPAM"]["Config"].as_array().unwrap();
    all.iter().map(|config| &config["Subnet"]).collect()
}

/// Its endpoints: name, id, MAC address and addresses.
fn endpoints(network: &Value) -> BTreeSet<[&str; 5]> {
    let keys = ["Name", "EndpointID", "MacAddress", "IPv4Address", "IPv6Address"];
    let all = network["Containers"].as_object().unwrap().values();
    all.map(|endpoint| keys.map(|key| endpoint[key].as_str().unwrap())).collect()
}
