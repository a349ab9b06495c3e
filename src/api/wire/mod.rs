//! The words of the API: serde types, and their way to and from the engine's.
//!
//! Keys are Docker's where Docker has them, and in its spelling elsewhere; errors and the
//! namespace request are lower case.

mod create;
mod endpoint;
mod network;
mod publish;
mod report;
mod update;

pub use create::{CreateIpam, CreateNetwork};
pub use endpoint::{AttachRequest, Endpoint};
pub use network::{ConfigFrom, Container, Created, Ipam, Network, Pruned, SubnetConfig};
pub use publish::parse as parse_publish;
pub use report::{ErrorBody, Plan, Port, Problem, Status, Step, Sysctl, Version};
pub use update::{UpdateNetwork, Updated};
