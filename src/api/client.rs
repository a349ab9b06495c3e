//! Asks the daemon over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::filter::Filters;
use super::server::status;
use super::url::encode;
use super::wire::{
    AttachRequest, CreateNetwork, Created, Endpoint, ErrorBody, Network, Plan, Port, Pruned,
    Status, UpdateNetwork, Updated,
};
use crate::model::{Error, ErrorClass, Result};

/// How long an answer may take. Far above the daemon's own longest wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest answer taken, in bytes: tens of thousands of networks.
const ANSWER_BYTES: usize = 256 << 20;

/// A way to the daemon; each request is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// All networks that pass.
    pub async fn networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        self.get(&format!("/v1/networks?filters={}", encode(&filters.to_json()))).await
    }

    /// The network of this name, id, or beginning of an id.
    pub async fn network(&self, reference: &str) -> Result<Network> {
        self.get(&network_path(reference)?).await
    }

    /// Makes a network.
    pub async fn create_network(&self, network: &CreateNetwork) -> Result<Created> {
        self.send(Method::POST, "/v1/networks", Some(network)).await
    }

    /// Says what making a network would change.
    pub async fn plan_create(&self, network: &CreateNetwork) -> Result<Plan> {
        self.send(Method::POST, "/v1/networks?dry_run=1", Some(network)).await
    }

    /// Changes a network; answers what was changed on the host.
    pub async fn update_network(&self, reference: &str, change: &UpdateNetwork) -> Result<Updated> {
        self.send(Method::PATCH, &network_path(reference)?, Some(change)).await
    }

    /// Says what changing a network would change on the host.
    pub async fn plan_update(&self, reference: &str, change: &UpdateNetwork) -> Result<Updated> {
        let path = format!("{}?dry_run=1", network_path(reference)?);
        self.send(Method::PATCH, &path, Some(change)).await
    }

    /// Removes a network; answers what was changed.
    pub async fn remove_network(&self, reference: &str) -> Result<Plan> {
        self.send(Method::DELETE, &network_path(reference)?, NOTHING).await
    }

    /// Says what removing a network would change.
    pub async fn plan_remove(&self, reference: &str) -> Result<Plan> {
        let path = format!("{}?dry_run=1", network_path(reference)?);
        self.send(Method::DELETE, &path, NOTHING).await
    }

    /// Removes all networks without endpoints that pass.
    pub async fn prune(&self, filters: &Filters) -> Result<Pruned> {
        let path = format!("/v1/networks/prune?filters={}", encode(&filters.to_json()));
        self.send(Method::POST, &path, NOTHING).await
    }

    /// What a prune would do.
    pub async fn plan_prune(&self, filters: &Filters) -> Result<Pruned> {
        let filters = encode(&filters.to_json());
        let path = format!("/v1/networks/prune?dry_run=1&filters={filters}");
        self.send(Method::POST, &path, NOTHING).await
    }

    /// Attaches a namespace to a network.
    pub async fn attach(&self, network: &str, request: &AttachRequest) -> Result<Endpoint> {
        let path = format!("{}/endpoints", network_path(network)?);
        self.send(Method::POST, &path, Some(request)).await
    }

    /// Takes an endpoint out of a network; answers what it was.
    pub async fn detach(&self, network: &str, endpoint: &str) -> Result<Endpoint> {
        let path = format!("{}/endpoints/{}", network_path(network)?, encode(endpoint));
        self.send(Method::DELETE, &path, NOTHING).await
    }

    /// Every published port.
    pub async fn ports(&self) -> Result<Vec<Port>> {
        self.get("/v1/ports").await
    }

    /// The agent's health, now.
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/status").await
    }

    /// The agent's health once nothing waits to be deleted.
    pub async fn status_settled(&self) -> Result<Status> {
        self.get("/v1/status?wait=1").await
    }

    /// Removes what carries our mark and nothing asks for.
    pub async fn collect_garbage(&self) -> Result<Plan> {
        self.send(Method::POST, "/v1/gc", NOTHING).await
    }

    /// Says what collecting garbage would remove.
    pub async fn plan_collect_garbage(&self) -> Result<Plan> {
        self.send(Method::POST, "/v1/gc?dry_run=1", NOTHING).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::GET, path, NOTHING).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| self.trouble(format!("the request cannot be written: {error}")))?
            .unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "netagent")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.trouble(error.to_string()))?;
        let (status, bytes) = tokio::time::timeout(PATIENCE, self.exchange(request))
            .await
            .map_err(|_| self.trouble(format!("no answer within {} s", PATIENCE.as_secs())))??;
        if !status.is_success() {
            return Err(refusal(status, &bytes));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| self.trouble(format!("its answer cannot be read: {error}")))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let broken = |error: hyper::Error| self.trouble(format!("it broke off: {error}"));
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| unreachable(&self.socket, &error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the exchange; its error is also the sender's.
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| self.trouble(format!("it broke off: {error}")))?;
        connection.abort();
        Ok((status, body.to_bytes()))
    }

    fn trouble(&self, why: String) -> Error {
        Error::unavailable(format!("ask netagent at {}", self.socket.display()), why)
    }
}

const NOTHING: Option<&()> = None;

fn network_path(reference: &str) -> Result<String> {
    if reference.is_empty() {
        return Err(Error::usage("network \"\"", "a network's name or id must not be empty"));
    }
    Ok(format!("/v1/networks/{}", encode(reference)))
}

/// The daemon's own error, or what the status says where something else answered.
fn refusal(code: StatusCode, bytes: &[u8]) -> Error {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(bytes) {
        return body.into();
    }
    let class =
        [ErrorClass::Usage, ErrorClass::NotFound, ErrorClass::Conflict, ErrorClass::Permission]
            .into_iter()
            .find(|class| status(*class) == code)
            .unwrap_or(ErrorClass::Unavailable);
    let text: String = String::from_utf8_lossy(bytes).trim().chars().take(400).collect();
    Error::new(class, "", if text.is_empty() { code.to_string() } else { text })
}

fn unreachable(socket: &Path, error: &io::Error) -> Error {
    let doing = format!("cannot reach netagent at {}", socket.display());
    let errno = error.raw_os_error().unwrap_or_default();
    let why = nix::errno::Errno::from_raw(errno).desc().to_owned();
    let why = if errno == 0 { error.to_string() } else { why };
    let error = if error.kind() == io::ErrorKind::PermissionDenied {
        Error::new(ErrorClass::Permission, doing, why).advise("the socket is for root: try sudo")
    } else {
        Error::unavailable(doing, why).advise("is it running? `systemctl start netagent`")
    };
    error.with_errno(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_no_json_keeps_its_class() {
        let error = refusal(StatusCode::FORBIDDEN, b"user id 7 may not use this socket\n");
        assert_eq!(error.class, ErrorClass::Permission);
        assert_eq!(error.to_string(), "user id 7 may not use this socket");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"").class, ErrorClass::Unavailable);
    }

    #[tokio::test]
    async fn an_absent_daemon_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(directory.path().join("no.sock"));
        let error = client.ports().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable);
        let text = error.to_string();
        assert!(text.contains("No such file") && text.contains("systemctl start"), "{text}");
    }
}
