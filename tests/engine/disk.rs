//! Disks that fill up under the engine: refused by what is full, and as if nothing had been asked.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::kit::Machine;
use crate::scenarios::*;
use netagent::engine::{Engine, PortRequest};
use netagent::model::{EndpointId, Error, ErrorClass, NetworkId, Result};

/// A machine whose agent keeps its files on a small tmpfs that only this thread sees.
#[expect(clippy::disallowed_methods, reason = "the thread ends with the test")]
fn small_disk(directory: &Path) -> Option<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).ok()?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
    let (tmpfs, nothing) = (Some("tmpfs"), MsFlags::empty());
    mount(tmpfs, directory, tmpfs, nothing, Some("size=6m,mode=0700")).ok()
}

/// Runs the test on a thread of its own, which keeps its mount namespace until it ends.
fn on_small_disk(name: &'static str, test: impl FnOnce(&Machine) + Send + 'static) {
    with_small_disk(name, "", test);
}

/// The same with only this directory of its on the tmpfs.
fn with_small_disk(
    name: &'static str,
    part: &'static str,
    test: impl FnOnce(&Machine) + Send + 'static,
) {
    let run = move || {
        let machine = Machine::new();
        let directory = machine.directory().join(part);
        std::fs::create_dir_all(&directory).unwrap();
        match small_disk(&directory) {
            Some(()) => {
                test(&machine);
                nix::mount::umount2(&directory, nix::mount::MntFlags::MNT_DETACH).unwrap();
            }
            None => {
                let required = std::env::var_os("NETAGENT_REQUIRE_ROOT").is_some();
                assert!(!required, "{name}: needs root to mount a tmpfs");
                println!("SKIP {name}: needs root to mount a tmpfs");
            }
        }
    };
    std::thread::spawn(run).join().unwrap();
}

/// Writes a file until there is no room left.
fn fill(disk: &Path) -> PathBuf {
    let ballast = disk.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    ballast
}

/// Asks for one thing after another on a full disk until one is refused; then checks that it left
/// nothing, and that it works when there is room again, with the same agent and with the next.
fn check_full_disk(
    name: &'static str,
    ready: fn(&mut Engine, &Machine),
    ask: fn(&mut Engine, u16) -> Result<()>,
) {
    on_small_disk(name, move |machine| {
        let mut engine = machine.engine();
        ready(&mut engine, machine);
        let ballast = fill(machine.directory());
        let (refused, error) = until_refused(machine, &mut engine, ask);
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
        assert_eq!(error.errno, Some(nix::libc::ENOSPC), "{error}");
        let text = error.to_string();
        assert!(text.contains("is full"), "{text}");
        assert!(text.contains(machine.directory().to_str().unwrap()), "{text}");

        std::fs::remove_file(&ballast).unwrap();
        ask(&mut engine, refused).unwrap();
        let (host, intent) = (machine.host.listing(), engine.intent().clone());
        drop(engine);
        machine.host.process_ended();
        let mut engine = machine.engine();
        assert_eq!(engine.intent(), &intent, "the next agent knows what was acknowledged");
        assert_eq!(machine.host.listing(), host);
        assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
    });
}

fn until_refused(
    machine: &Machine,
    engine: &mut Engine,
    ask: fn(&mut Engine, u16) -> Result<()>,
) -> (u16, Error) {
    for number in 1..2000 {
        let known = |engine: &Engine| (engine.intent().clone(), engine.ports());
        let before = (machine.host.listing(), known(engine));
        if let Err(error) = ask(engine, number) {
            let after = (machine.host.listing(), known(engine));
            assert_eq!(before, after, "{error}");
            assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
            return (number, error);
        }
    }
    panic!("the disk never filled up");
}

fn id(number: u16) -> [u8; 32] {
    let mut id = [7; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    id
}

#[test]
fn a_network_that_cannot_be_recorded_is_not_made() {
    check_full_disk(
        "a_network_that_cannot_be_recorded_is_not_made",
        |engine, _| create(engine, network(WEB, "web", "172.31.0.0/24")).unwrap(),
        |engine, number| {
            let [high, low] = number.to_be_bytes();
            let pool = format!("10.{high}.{low}.0/24");
            let request = network(NetworkId::from_bytes(id(number)), &format!("n{number}"), &pool);
            create(engine, request)
        },
    );
}

#[test]
fn an_endpoint_that_cannot_be_recorded_is_not_made() {
    check_full_disk(
        "an_endpoint_that_cannot_be_recorded_is_not_made",
        |engine, machine| {
            create(engine, network(WEB, "web", "10.1.0.0/16")).unwrap();
            machine.host.add_namespace(SANDBOX);
        },
        |engine, number| {
            let id = EndpointId::from_bytes(id(number));
            engine.create_endpoint(sandboxed(id, WEB, vec![])).map(drop)
        },
    );
}

#[test]
fn ports_that_cannot_be_recorded_are_not_published() {
    check_full_disk(
        "ports_that_cannot_be_recorded_are_not_published",
        |engine, machine| {
            create(engine, network(WEB, "web", "10.1.0.0/16")).unwrap();
            machine.host.add_namespace(SANDBOX);
            engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
        },
        |engine, number| {
            // More each time, and no two that could be joined into a range.
            let ports: Vec<PortRequest> =
                (0..number * 200).map(|at| port(2 * at + 1, 80)).collect();
            engine.publish(WEB, ONE, &ports)
        },
    );
}

/// What the host's sysctls were is recorded with the first network that is made, not forgotten
/// with one that was refused before it.
#[test]
fn a_refused_first_network_does_not_lose_what_sysctls_were() {
    on_small_disk("a_refused_first_network_does_not_lose_what_sysctls_were", |machine| {
        let mut engine = machine.engine();
        let ballast = fill(machine.directory());
        let mut labels = std::collections::BTreeMap::new();
        labels.insert("big".to_owned(), "x".repeat(200_000));
        let big = netagent::engine::NetworkRequest { labels, ..network(WEB, "web", "10.1.0.0/24") };
        let mut tries = 0;
        while create(&mut engine, big.clone()).is_ok() && tries < 50 {
            engine.delete_network(WEB, netagent::engine::Mode::Apply).unwrap();
            tries += 1;
        }
        assert_eq!(engine.status().unwrap().host_sysctls, vec![]);
        assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
        std::fs::remove_file(&ballast).unwrap();
        create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
        assert_eq!(machine.stored().sysctls, engine.status().unwrap().host_sysctls);
    });
}

/// The network's record is on another disk, and is written first.
#[test]
fn an_update_whose_endpoints_cannot_be_recorded_is_taken_back() {
    let name = "an_update_whose_endpoints_cannot_be_recorded_is_taken_back";
    with_small_disk(name, "runtime", |machine| {
        let mut engine = machine.engine();
        with_sandbox(&mut engine, &machine.host);
        let ports: Vec<PortRequest> = (0..2000).map(|at| port(2 * at + 1, 80)).collect();
        engine.create_endpoint(sandboxed(ONE, WEB, ports)).unwrap();
        let ballast = fill(&machine.directory().join("runtime"));
        let mut refused = None;
        for at in 1..50 {
            let before = (machine.host.listing(), engine.intent().clone(), engine.ports());
            let binding = format!("192.0.2.{at}");
            if let Err(error) = update(&mut engine, WEB, &[("host_binding_ipv4", &binding)]) {
                let after = (machine.host.listing(), engine.intent().clone(), engine.ports());
                assert_eq!(before, after, "{error}");
                refused = Some((error, binding));
                break;
            }
        }
        let (error, binding) = refused.expect("the disk has room for all updates");
        assert_eq!(error.errno, Some(nix::libc::ENOSPC), "{error}");
        assert_eq!(&machine.stored().intent, engine.intent(), "what a restart would find");
        std::fs::remove_file(&ballast).unwrap();
        update(&mut engine, WEB, &[("host_binding_ipv4", &binding)]).unwrap();
        assert_eq!(&machine.stored().intent, engine.intent());
    });
}
