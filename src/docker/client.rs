//! A small client of Docker's API over its unix socket: reads what there is, changes nothing.
//!
//! Never used inside a plugin handler: dockerd's API answers only once dockerd is up, and dockerd
//! may be waiting for that very handler.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api;
use crate::engine::{DockerNetwork, DockerView};
use crate::model::{EndpointId, Error, Result};

/// Where dockerd listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/docker.sock";

/// How long one answer may take; dockerd needs seconds when it lists thousands of containers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes: a guess, ten times a host with 10,000 containers.
const ANSWER_BYTES: usize = 256 << 20;

/// Networks of these drivers have neither subnets nor addresses.
const WITHOUT_ADDRESSES: [&str; 2] = ["host", "null"];

/// A way to Docker's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
}

impl Default for Client {
    fn default() -> Self {
        Self { socket: DEFAULT_SOCKET.into() }
    }
}

/// As `DOCKER_HOST` has it, `unix:///run/docker.sock`, or a plain path.
impl FromStr for Client {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self { socket: path.into() });
        }
        Err(Error::usage(
            format!("docker host \"{text}\""),
            "only a unix socket can be asked, by an absolute path",
        )
        .advise(format!("use unix://{DEFAULT_SOCKET}")))
    }
}

impl Client {
    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Everything that is read of Docker. All of it or an error: half a view would show things as
    /// missing that are there.
    pub async fn view(&self) -> Result<DockerView> {
        let networks: Vec<api::Network> = self.list("/networks").await?;
        let containers: Vec<api::Container> = self.list("/containers/json").await?;
        let version: Option<api::Version> = self.get("/version").await?;
        let info: Option<api::Info> = self.get("/info").await?;
        let mut view = DockerView {
            api_version: version.and_then(|version| version.numbers()),
            live_restore: info.map(|info| info.live_restore_enabled),
            ..DockerView::default()
        };
        for network in &networks {
            add_network(&mut view, network);
            if WITHOUT_ADDRESSES.contains(&network.driver.as_str()) {
                continue;
            }
            // An endpoint shows here from its making on, and in its container only when that runs.
            let path = format!("/networks/{}", network.id);
            let Some(whole) = self.get::<api::Network>(&path).await? else { continue };
            whole.containers.values().for_each(|attached| add_attached(&mut view, attached));
        }
        containers.iter().for_each(|container| add_container(&mut view, container));
        Ok(view)
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        self.get(path).await?.ok_or_else(|| self.error(path, "404 Not Found"))
    }

    /// `None` when there is no such thing.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let fetched = timeout(TIMEOUT, self.fetch(path)).await;
        let (status, body) = fetched
            .map_err(|_| self.error(path, format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|why| self.error(path, why))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| self.error(path, format!("the answer cannot be read: {error}"))),
            StatusCode::NOT_FOUND => Ok(None),
            other => {
                let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(self.error(path, format!("{other}: {}", text.trim())))
            }
        }
    }

    async fn fetch(&self, path: &str) -> std::result::Result<(StatusCode, Bytes), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| text(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
        let request = Request::get(path)
            .header(header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| text(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| text(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| text(&error))?.to_bytes()))
        };
        // The connection is driven here, not in a task that would outlive a caller who gives up.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            result = &mut exchange => return result,
            _ = &mut connection => {}
        }
        exchange.await
    }

    fn error(&self, path: &str, why: impl Into<String>) -> Error {
        Error::unavailable(format!("ask Docker at {} for {path}", self.socket.display()), why)
    }
}

fn add_network(view: &mut DockerView, network: &api::Network) {
    // A swarm's network has an id of another form, and is none of ours.
    if let Ok(id) = network.id.parse() {
        let known = DockerNetwork { name: network.name.clone(), labels: network.labels.clone() };
        view.networks.insert(id, known);
    }
    let subnets = network.ipam.config.iter().filter_map(|config| config.subnet.parse().ok());
    view.subnets.extend(subnets.map(|net: IpNet| net.trunc()));
}

fn add_attached(view: &mut DockerView, attached: &api::Attached) {
    if let Ok(id) = attached.endpoint_id.parse::<EndpointId>() {
        view.endpoints.insert(id, attached.name.clone());
    }
    add_addresses(&mut view.addresses, [&attached.ipv4, &attached.ipv6]);
}

fn add_container(view: &mut DockerView, container: &api::Container) {
    let names = container.names.iter().map(|name| name.trim_start_matches('/'));
    let name = names.clone().find(|name| !name.contains('/')).or_else(|| names.clone().next());
    for settings in container.network_settings.networks.values().flatten() {
        if let (Ok(id), Some(name)) = (settings.endpoint_id.parse(), name) {
            view.endpoints.insert(id, name.to_owned());
        }
        add_addresses(&mut view.addresses, [&settings.ipv4, &settings.ipv6]);
    }
}

/// With or without prefix length; empty texts are addresses that are not there.
fn add_addresses(addresses: &mut BTreeSet<IpAddr>, texts: [&String; 2]) {
    let parse = |text: &String| match text.parse::<IpNet>() {
        Ok(net) => Some(net.addr()),
        Err(_) => text.parse().ok(),
    };
    addresses.extend(texts.into_iter().filter_map(parse));
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
