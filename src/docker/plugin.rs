//! Dispatch: which method, which answer, which way to say no.
//!
//! dockerd takes only status 200 for success and wants JSON in it. A refusal of a network method is
//! 200 with `Err`; of an IPAM method 200 with `Error` (its `Err` is read only beside another
//! status, so both are sent). 404 means that a method does not exist.

use std::future::Future;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::net::UnixListener;

use super::{Bell, ipam, network};
use crate::engine::{Engine, Handle};
use crate::http::{self, Answer, BodyError, Limits, Request};
use crate::model::{Error, ErrorClass, Result};

/// What the handlers work with; cheap to clone.
#[derive(Debug, Clone)]
pub struct Plugin {
    engine: Handle,
    bell: Bell,
}

/// Which of dockerd's interfaces a method belongs to, and so how it hears of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    Network,
    Ipam,
}

impl Plugin {
    /// A plugin in front of `engine` that rings `bell` when Docker's API has news.
    pub fn new(engine: Handle, bell: Bell) -> Self {
        Self { engine, bell }
    }

    /// Answers one call, e.g. of `NetworkDriver.Join`.
    pub async fn handle(&self, method: &str, body: &[u8]) -> Answer {
        let (interface, result) = match method.split_once('.') {
            Some(("Plugin", "Activate")) => return self.activate().await,
            Some(("NetworkDriver", name)) => {
                (Interface::Network, network::handle(self, name, method, body).await)
            }
            Some(("IpamDriver", name)) => {
                (Interface::Ipam, ipam::handle(self, name, method, body).await)
            }
            _ => (Interface::Network, Ok(None)),
        };
        match result {
            Ok(Some(value)) => Answer::json(StatusCode::OK, &value),
            Ok(None) => unknown(method),
            Err(error) => {
                note(method, &error);
                refusal(interface, &error)
            }
        }
    }

    /// A dockerd begins, or this one's first use of us: what it replays after this is sorted from
    /// what the last one left, so the engine must know before the answer.
    async fn activate(&self) -> Answer {
        let suspects = self.engine.run(|engine| match engine.docker_began() {
            Ok(suspects) => suspects,
            // Containers must start all the same; only the sorting is less exact.
            Err(error) => {
                tracing::error!(%error, "the beginning of a dockerd could not be recorded");
                engine.suspects()
            }
        });
        match suspects.await {
            Ok(suspects) => {
                self.bell.docker_began(suspects);
                let implements = ["NetworkDriver", "IpamDriver"];
                Answer::json(StatusCode::OK, &json!({ "Implements": implements }))
            }
            // With status 200 dockerd would believe us and never ask again.
            Err(error) => Answer::json(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({ "Err": error.to_string() }),
            ),
        }
    }

    /// Runs `work` on the engine and hands its own error through.
    pub(super) async fn engine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.engine.run(work).await?
    }

    /// Says that names are to be read again.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }
}

/// A method's value as JSON; `None` stands for a method that does not exist.
pub(super) type Reply = Result<Option<serde_json::Value>>;

/// The answer that says nothing but yes.
#[expect(clippy::unnecessary_wraps, reason = "the last expression of handlers")]
pub(super) fn done() -> Reply {
    Ok(Some(json!({})))
}

/// An answer with something in it.
pub(super) fn value(value: &impl Serialize) -> Reply {
    serde_json::to_value(value)
        .map(Some)
        .map_err(|error| Error::unavailable("write the answer", error.to_string()))
}

/// What is gone already needs no removing: dockerd says everything twice after a broken connection.
pub(super) fn gone_is_fine(result: Result<()>) -> Result<()> {
    result.or_else(|error| match error.class {
        ErrorClass::NotFound => Ok(()),
        ErrorClass::Usage
        | ErrorClass::Conflict
        | ErrorClass::Permission
        | ErrorClass::Unavailable
        | ErrorClass::Stuck => Err(error),
    })
}

/// dockerd swallows the errors of everything that ends something, so those that someone must act on
/// are logged here as well.
fn note(method: &str, error: &Error) {
    match error.class {
        ErrorClass::Unavailable | ErrorClass::Stuck => {
            tracing::error!(method, %error, "a call of dockerd's failed");
        }
        ErrorClass::Usage
        | ErrorClass::NotFound
        | ErrorClass::Conflict
        | ErrorClass::Permission => {
            tracing::debug!(method, %error, "a call of dockerd's was refused");
        }
    }
}

fn unknown(method: &str) -> Answer {
    let shown: String = method.chars().take(80).collect();
    Answer::text(StatusCode::NOT_FOUND, format!("netagent has no method \"{shown}\""))
}

fn refusal(interface: Interface, error: &Error) -> Answer {
    let text = error.to_string();
    let body = match interface {
        Interface::Network => json!({ "Err": text }),
        Interface::Ipam => json!({ "Error": text, "Err": text }),
    };
    Answer::json(StatusCode::OK, &body)
}

/// Serves dockerd on `listener` until `stop` is done.
pub async fn serve(listener: UnixListener, plugin: Plugin, stop: impl Future<Output = ()>) {
    let handler = move |request| {
        let plugin = plugin.clone();
        async move { answer(&plugin, request).await }
    };
    http::serve(listener, Limits::default(), stop, handler).await;
}

async fn answer(plugin: &Plugin, request: Request) -> Answer {
    let Request { method: verb, path, body, .. } = request;
    let method = path.trim_start_matches('/');
    if verb != Method::POST {
        let sentence = format!("dockerd's plugin calls are made with POST, not {verb}");
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, sentence);
    }
    match body {
        Ok(body) => call(plugin, method, body).await,
        Err(error) => too_much(method, error),
    }
}

async fn call(plugin: &Plugin, method: &str, body: Bytes) -> Answer {
    let began = std::time::Instant::now();
    let answer = plugin.handle(method, &body).await;
    let took_us = began.elapsed().as_micros();
    tracing::debug!(method, status = answer.status.as_u16(), took_us, "answered dockerd");
    answer
}

fn too_much(method: &str, error: BodyError) -> Answer {
    let interface =
        if method.starts_with("IpamDriver.") { Interface::Ipam } else { Interface::Network };
    refusal(interface, &Error::usage(method, error.to_string()))
}
