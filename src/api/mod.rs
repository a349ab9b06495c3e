//! The API: HTTP and JSON on a unix socket, spoken by the command line and by whoever likes.
//!
//! `wire` has the words, `server` answers them from the engine, `client` asks. What Docker has is
//! spelt as `docker network inspect` spells it. Nothing is decided here: checks that need the
//! host or the intent are the engine's.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/networks?filters=JSON` | networks, by name |
//! | `POST /v1/networks?dry_run=1` | the id; what would change |
//! | `GET /v1/networks/REF` | a network, by name, id, or beginning of an id |
//! | `PATCH /v1/networks/REF?dry_run=1` | what was, or would be, changed, and warnings |
//! | `DELETE /v1/networks/REF?dry_run=1` | what was, or would be, changed |
//! | `POST /v1/networks/prune?filters=JSON` | networks that are gone; `dry_run=1`: that would go |
//! | `POST /v1/networks/REF/endpoints` | the endpoint of a namespace that was attached |
//! | `DELETE /v1/networks/REF/endpoints/REF` | the endpoint that is gone |
//! | `GET /v1/ports` | every published port |
//! | `GET /v1/status?wait=1` | the agent's health; after all links out of service are deleted |
//! | `POST /v1/gc?dry_run=1` | what was, or would be, removed |
//! | `GET /v1/version` | the agent's version |
//!
//! A refusal is `{"message": …, "class": …}` with the status of its class.

pub mod client;
pub mod filter;
mod handlers;
pub mod server;
mod url;
pub mod wire;

/// Where the daemon listens unless told otherwise.
pub const SOCKET: &str = "/run/netagent/netagent.sock";
