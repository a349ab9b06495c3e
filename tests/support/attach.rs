//! Networks and endpoints without Docker, through netagent's command line and API.

use std::time::Duration;

use serde_json::{Value, json};

use super::lab::Lab;
use super::place::Place;
use super::until;

/// A namespace attached to a network.
pub struct Sandbox {
    pub place: Place,
    pub endpoint: String,
    pub interface: String,
    pub v4: String,
    pub v6: String,
}

impl Lab {
    /// A lab with an agent in it.
    pub fn with_agent() -> Option<Self> {
        let lab = Self::start()?;
        lab.start_agent();
        Some(lab)
    }

    /// `netagent network create --subnet SUBNET OPTIONS NAME`.
    #[track_caller]
    pub fn network(&self, name: &str, subnet: &str, options: &[&str]) {
        let mut args = vec!["network", "create", "--subnet", subnet];
        args.extend(options);
        args.push(name);
        self.netagent(&args);
    }

    /// A new namespace `name`, attached to `network`, with `ports` published.
    #[track_caller]
    pub fn attach(&self, network: &str, name: &str, ports: &[&str]) -> Sandbox {
        let place = self.sandbox(name);
        let body = json!({"netns": format!("/run/netns/{name}"), "name": name, "publish": ports});
        self.attach_to(network, place, &body)
    }

    /// The same for a place that is there, with a request of one's own.
    #[track_caller]
    pub fn attach_to(&self, network: &str, place: Place, body: &Value) -> Sandbox {
        let made = self.api("POST", &format!("/v1/networks/{network}/endpoints"), body);
        let text = |key: &str| made[key].as_str().unwrap_or_default().to_owned();
        let bare = |key: &str| text(key).split('/').next().unwrap_or_default().to_owned();
        Sandbox {
            place,
            endpoint: text("EndpointID"),
            interface: text("Interface"),
            v4: bare("IPv4Address"),
            v6: bare("IPv6Address"),
        }
    }

    /// Takes an endpoint away again.
    #[track_caller]
    pub fn detach(&self, network: &str, sandbox: &Sandbox) {
        let path = format!("/v1/networks/{network}/endpoints/{}", sandbox.endpoint);
        self.api("DELETE", &path, &Value::Null);
    }

    /// Every published port as `netagent -j ports` tells.
    #[track_caller]
    pub fn ports(&self) -> Vec<Value> {
        let text = self.netagent(&["-j", "ports"]);
        match serde_json::from_str(&text) {
            Ok(Value::Array(ports)) => ports,
            other => panic!("`netagent -j ports` gave no JSON list: {other:?}\n{text}"),
        }
    }

    /// Waits until no link but those in `links` is left; deletes are done behind the caller's back.
    #[track_caller]
    pub fn only_links(&self, links: &[&str]) {
        self.only_links_within(Duration::from_secs(10), links);
    }

    /// The same for what takes its time.
    #[track_caller]
    pub fn only_links_within(&self, deadline: Duration, links: &[&str]) {
        let mut last = Vec::new();
        let end = std::time::Instant::now() + deadline;
        while std::time::Instant::now() < end {
            last = self.links();
            if last == links {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("expected the links {links:?}, but there are {last:?}");
    }

    /// Waits until the agent owns nothing on the host any more.
    #[track_caller]
    pub fn nothing_left(&self) {
        self.only_links(&[]);
        assert_eq!(self.ports(), Vec::<Value>::new(), "published ports are left");
        until("no port is held", Duration::from_secs(5), || {
            let held = self.host().run(&["ss", "-Hltunp"]);
            (!held.contains("netagent")).then_some(())
        });
    }
}
