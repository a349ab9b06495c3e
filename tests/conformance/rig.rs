//! What several cases need: networks of both families, names of things, a name server.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Lab, Place, until};

/// `docker network create` with IPv4 and IPv6 subnets number `n`: 172.30.N.0/24, fd00:30:N::/64.
#[track_caller]
pub fn dual_stack(lab: &Lab, name: &str, n: u8, options: &[&str]) {
    let six = format!("fd00:30:{n}::/64");
    let all = [&["--ipv6", "--subnet", &six][..], options].concat();
    lab.docker_network(name, &format!("172.30.{n}.0/24"), &all);
}

/// A container with the address number 9 of both of `network`'s subnets.
#[track_caller]
pub fn ninth(lab: &Lab, name: &str, network: &str, n: u8, options: &[&str]) -> Place {
    let (four, six) = (format!("172.30.{n}.9"), format!("fd00:30:{n}::9"));
    let place = ["--network", network, "--ip", &four, "--ip6", &six];
    lab.container(name, &[&place[..], options].concat())
}

/// The link-local address of a container's `eth0`.
#[track_caller]
pub fn link_local(place: &Place) -> String {
    until("the link-local address is there", Duration::from_secs(5), || {
        let shown = place.run(&["ip", "-6", "-o", "addr", "show", "scope", "link"]);
        let address = shown.split_whitespace().find(|word| word.starts_with("fe80:"))?;
        address.split('/').next().map(str::to_owned)
    })
}

/// Waits until no address of `place` is still checked for duplicates: then a ping is answered at once
/// or not at all.
#[track_caller]
pub fn settle(place: &Place) {
    until("new addresses can be used", Duration::from_secs(5), || {
        let shown = place.run(&["ip", "-o", "addr", "show", "tentative"]);
        shown.trim().is_empty().then_some(())
    });
}

/// Whether `place` gets an answer to one of three pings: the address of the other side may be new.
#[track_caller]
pub fn reaches(place: &Place, address: &str) -> bool {
    settle(place);
    (0..3).any(|_| place.pings(address))
}

/// Whether there is any address of the family (`-4` or `-6`) in `place`, but for those of `lo`.
pub fn has_addresses(place: &Place, family: &str) -> bool {
    let shown = place.run(&["ip", family, "-o", "addr"]);
    shown.lines().any(|line| !line.contains(": lo "))
}

/// A value of `docker inspect`.
#[track_caller]
pub fn inspect(lab: &Lab, what: &str, format: &str) -> String {
    lab.docker(&["inspect", "-f", format, what])
}

/// Sets the policy of iptables' FORWARD chains.
#[track_caller]
pub fn forward_policy(lab: &Lab, policy: &str) {
    for command in ["iptables", "ip6tables"] {
        lab.run(&[command, "-P", "FORWARD", policy]);
    }
}

/// The host port behind which `netagent ports` shows this container port, at this host address.
#[track_caller]
pub fn host_port(lab: &Lab, address: &str, container_port: &str) -> u16 {
    let ports = lab.ports();
    let found = ports.iter().find(|port| {
        port["HostIP"].as_str() == Some(address)
            && port["ContainerPorts"].as_str() == Some(container_port)
    });
    let found = found.unwrap_or_else(|| panic!("no {address} → {container_port} in {ports:?}"));
    found["HostPorts"].as_str().unwrap().parse().unwrap()
}

/// A name server that knows every name as 192.0.2.53; ends when dropped.
pub struct NameServer {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// What it answers.
    pub const ANSWER: &str = "192.0.2.53";

    #[track_caller]
    pub fn at(place: &Place, address: &str) -> Self {
        let socket = place.enter(|| UdpSocket::bind(address)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !stopped.load(Ordering::SeqCst) {
                let Ok((size, peer)) = socket.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&answer(&buffer[..size]), peer);
            }
        });
        Self { stop, asked, thread: Some(thread) }
    }

    /// How many questions have come so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to a query (RFC 1035, 4.1): an A record where one is asked for, else none.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap_or(0);
    let question = &query[12..12 + name + 5];
    let wants_a = question[name + 1..name + 3] == [0, 1];
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_a), 0, 0, 0, 0]);
    reply.extend(question);
    if wants_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53]);
    }
    reply
}
