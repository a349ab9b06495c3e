//! HTTP/1.1 over a unix socket: accept, check the peer, read a bounded body, answer.
//!
//! Knows no door: a handler gets a [`Request`] and gives an [`Answer`]. An idle connection is never
//! closed from this side while the agent runs: dockerd keeps connections for reuse, and a call that
//! meets a closing one is repeated by it with an empty body.

mod patience;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use patience::{Heads, Patient};

/// What a caller may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest body in bytes; what comes beyond is read, dropped and refused.
    pub body_bytes: usize,
    /// How long a request's head may take from its first byte.
    pub head_timeout: Duration,
    /// How long a body may take from the end of the head.
    pub body_timeout: Duration,
    /// How long requests in work are waited for when serving stops.
    pub grace: Duration,
    /// How many connections are open at a time; further ones are refused with 503.
    pub connections: usize,
    /// User ids that may call; others get 403.
    pub users: Vec<u32>,
}

impl Default for Limits {
    /// Root and the agent's own user, bodies of 8 MiB, 30 s each for head and body, 1024
    /// connections. The sizes are guesses far above what dockerd sends (a container with 1,000
    /// published ports: 110 KiB, one with all of UDP's: 7.3 MB; two idle connections); a refusal in
    /// a log would correct them.
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            connections: 1024,
            users: vec![0, nix::unistd::geteuid().as_raw()],
        }
    }
}

/// Who is at the other end, by the kernel's word (SO_PEERCRED, man 7 unix).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, where the kernel gives it.
    pub pid: Option<i32>,
}

/// Why a body could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It has more than this many bytes.
    TooLarge(usize),
    /// It took longer than this.
    TooSlow(Duration),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(limit) => {
                write!(f, "the request body is larger than the limit of {limit} bytes")
            }
            Self::TooSlow(limit) => {
                write!(f, "the request body took longer than {} ms", limit.as_millis())
            }
        }
    }
}

impl std::error::Error for BodyError {}

/// A request with its body read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, undecoded.
    pub path: String,
    /// What follows the question mark, undecoded.
    pub query: Option<String>,
    /// The body; empty when none was sent.
    pub body: Result<Bytes, BodyError>,
    /// Who asks.
    pub peer: Peer,
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A value as JSON.
    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { status, content_type: "application/json", body },
            Err(error) => Self::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the answer cannot be written as JSON: {error}"),
            ),
        }
    }

    /// One sentence.
    pub fn text(status: StatusCode, sentence: impl Into<String>) -> Self {
        let mut body = sentence.into().into_bytes();
        body.push(b'\n');
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }
}

/// Serves until `stop` is done; then takes no more connections, lets requests in work finish
/// within the grace, and returns.
///
/// A handler runs as a task of its own: a caller that goes away does not cut it short.
pub async fn serve<H, F>(
    listener: UnixListener,
    limits: Limits,
    stop: impl Future<Output = ()>,
    handler: H,
) where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(limits.connections));
    let limits = Arc::new(limits);
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                // Out of file descriptors: accept fails at once until one is free again.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            connections.spawn(refuse_at_the_door(stream));
            continue;
        };
        let (limits, handler, stopped) = (limits.clone(), handler.clone(), stopped.clone());
        connections.spawn(async move {
            if let Err(error) = converse(stream, limits, stopped, handler).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(seat);
        });
    }
    drop(listener);
    drop(stopping);
    while connections.join_next().await.is_some() {}
}

/// Says why without reading, so that a full house costs little more.
async fn refuse_at_the_door(mut stream: UnixStream) {
    tracing::warn!("too many connections are open; another one is refused");
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n\
        Content-Length: 31\r\nConnection: close\r\n\r\ntoo many connections are open.\n";
    // It fits the buffer of a new connection, so nobody can hold this up.
    if let Err(error) = stream.write_all(answer).await {
        tracing::debug!(%error, "the refusal could not be sent");
    }
}

/// Serves one connection until the peer closes it or serving stops.
async fn converse<H, F>(
    stream: UnixStream,
    limits: Arc<Limits>,
    mut stopped: watch::Receiver<()>,
    handler: H,
) -> io::Result<()>
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
    let heads = Arc::new(Heads::default());
    let io = TokioIo::new(Patient::new(stream, heads.clone(), limits.head_timeout));
    let grace = limits.grace;
    let service = service_fn(move |request| {
        let (limits, handler) = (limits.clone(), handler.clone());
        let in_work = heads.begin();
        async move {
            let answer = respond(request, peer, &limits, handler).await;
            drop(in_work);
            answer
        }
    });
    // hyper's own timeout for heads would also end idle connections; `Patient` does not.
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(64 << 10)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let late = || io::Error::new(io::ErrorKind::TimedOut, "still in work at the stop");
            timeout(grace, connection).await.map_err(|_| late())?
        }
    };
    ended.map_err(io::Error::other)
}

type Response = hyper::Response<Full<Bytes>>;

/// Numbers the requests of this process; every line logged for one carries its number.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

async fn respond<H, F>(
    request: hyper::Request<Incoming>,
    peer: Peer,
    limits: &Limits,
    handler: H,
) -> io::Result<Response>
where
    H: Fn(Request) -> F,
    F: Future<Output = Answer> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let body = read_body(body, limits).await?;
    if !limits.users.contains(&peer.uid) {
        tracing::warn!(peer.uid, ?peer.pid, "a caller without permission was refused");
        let sentence =
            format!("user id {} may not use this socket: only root and the agent's own", peer.uid);
        return Ok(response(Answer::text(StatusCode::FORBIDDEN, sentence), Then::Close));
    }
    let then = if body.is_ok() { Then::KeepAlive } else { Then::Close };
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        body,
        peer,
    };
    let id = REQUESTS.fetch_add(1, Ordering::Relaxed);
    let span = tracing::info_span!("request", id, path = request.path);
    let handled = tokio::spawn(handler(request).instrument(span));
    let answer = handled.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a handler failed: please report this");
        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the agent failed inside; see its log")
    });
    Ok(response(answer, then))
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    KeepAlive,
    Close,
}

fn response(answer: Answer, then: Then) -> Response {
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(answer.content_type));
    if then == Then::Close {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// Reads the whole body within the limits; an `Err` outside is a connection that broke.
async fn read_body(body: Incoming, limits: &Limits) -> io::Result<Result<Bytes, BodyError>> {
    match timeout(limits.body_timeout, collect(body, limits.body_bytes)).await {
        Ok(read) => read,
        Err(_) => Ok(Err(BodyError::TooSlow(limits.body_timeout))),
    }
}

async fn collect(mut body: Incoming, limit: usize) -> io::Result<Result<Bytes, BodyError>> {
    // A socket closed with bytes unread resets the peer, which then loses our answer: so what is
    // too much is read and dropped, up to a point.
    let drained_bytes = limit.saturating_mul(16);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > drained_bytes {
        return Ok(Err(BodyError::TooLarge(limit)));
    }
    let mut kept = Vec::with_capacity(announced.min(limit));
    let mut total = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= limit {
            kept.extend_from_slice(&data);
        } else {
            kept = Vec::new();
        }
        if total > drained_bytes {
            break;
        }
    }
    Ok(if total > limit { Err(BodyError::TooLarge(limit)) } else { Ok(Bytes::from(kept)) })
}

#[cfg(test)]
#[path = "http/tests.rs"]
mod tests;
