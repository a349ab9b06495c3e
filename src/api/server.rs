//! Routes: which handler answers which request, and what status an error is.

use std::future::Future;

use hyper::{Method, StatusCode};
use tokio::net::UnixListener;

use super::handlers as answer;
use super::url::{Query, decode};
use super::wire::ErrorBody;
use crate::engine::{Handle, Mode};
use crate::http::{self, Answer, Limits, Request};
use crate::model::{Error, ErrorClass, Result};

/// Serves the API on `listener` until `stop` is done.
pub async fn serve(
    listener: UnixListener,
    limits: Limits,
    stop: impl Future<Output = ()>,
    engine: Handle,
) {
    let handler = move |request| {
        let engine = engine.clone();
        async move { respond(&engine, request).await }
    };
    http::serve(listener, limits, stop, handler).await;
}

/// Answers one request.
pub async fn respond(engine: &Handle, request: Request) -> Answer {
    let (method, path) = (request.method.clone(), request.path.clone());
    match route(engine, request).await {
        Ok(answer) => answer,
        Err(error) => {
            match error.class {
                ErrorClass::Unavailable | ErrorClass::Stuck => {
                    tracing::error!(%method, path, %error, "an API request failed");
                }
                ErrorClass::Usage
                | ErrorClass::NotFound
                | ErrorClass::Conflict
                | ErrorClass::Permission => {
                    tracing::debug!(%method, path, %error, "an API request was refused");
                }
            }
            Answer::json(status(error.class), &ErrorBody::from(&error))
        }
    }
}

/// The HTTP status of each class of refusal.
pub const fn status(class: ErrorClass) -> StatusCode {
    match class {
        ErrorClass::Usage => StatusCode::BAD_REQUEST,
        ErrorClass::NotFound => StatusCode::NOT_FOUND,
        ErrorClass::Conflict => StatusCode::CONFLICT,
        ErrorClass::Permission => StatusCode::FORBIDDEN,
        ErrorClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::Stuck => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn route(engine: &Handle, request: Request) -> Result<Answer> {
    let path = request
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decode)
        .collect::<Result<Vec<String>>>()?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let query = |known: &[&str]| Query::parse(request.query.as_deref().unwrap_or_default(), known);
    let mode_of = |query: &Query| {
        let dry_run = query.flag("dry_run")?;
        Ok::<Mode, Error>(if dry_run { Mode::DryRun } else { Mode::Apply })
    };
    let mode = || mode_of(&query(&["dry_run"])?);
    let [version, path @ ..] = path.as_slice() else { return Err(unknown(&request)) };
    if *version != "v1" {
        return Err(unknown(&request));
    }
    match (&request.method, path) {
        (&Method::GET, ["networks"]) => {
            answer::list(engine, query(&["filters"])?.get("filters")).await
        }
        (&Method::POST, ["networks"]) => answer::create(engine, body(&request)?, mode()?).await,
        (&Method::POST, ["networks", "prune"]) => {
            let query = query(&["filters", "dry_run"])?;
            answer::prune(engine, query.get("filters"), mode_of(&query)?).await
        }
        (&Method::GET, ["networks", network]) => {
            query(&[])?;
            answer::inspect(engine, network).await
        }
        (&Method::PATCH, ["networks", network]) => {
            answer::update(engine, network, body(&request)?, mode()?).await
        }
        (&Method::DELETE, ["networks", network]) => answer::remove(engine, network, mode()?).await,
        (&Method::POST, ["networks", network, "endpoints"]) => {
            query(&[])?;
            answer::attach(engine, network, body(&request)?).await
        }
        (&Method::DELETE, ["networks", network, "endpoints", endpoint]) => {
            query(&[])?;
            answer::detach(engine, network, endpoint).await
        }
        (&Method::GET, ["ports"]) => answer::ports(engine).await,
        (&Method::GET, ["status"]) => answer::status(engine, query(&["wait"])?.flag("wait")?).await,
        (&Method::POST, ["gc"]) => answer::collect_garbage(engine, mode()?).await,
        (&Method::GET, ["version"]) => Ok(answer::version()),
        _ => Err(unknown(&request)),
    }
}

fn unknown(request: &Request) -> Error {
    Error::not_found(format!("{} {}", request.method, request.path), "the API has no such request")
}

fn body<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T> {
    let bytes = request
        .body
        .as_ref()
        .map_err(|error| Error::usage("read the request", error.to_string()))?;
    serde_json::from_slice(bytes)
        .map_err(|error| Error::usage("read the request's JSON", error.to_string()))
}
