//! Ports, health, plans and errors.

use serde::{Deserialize, Serialize};

use crate::engine::{self, Holder};
use crate::model::{Error, ErrorClass, HostAddress};
use crate::plan;

/// A published port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    /// Host address; `0.0.0.0` for all of them.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// Host ports, `8080` or `8000-8010`.
    pub host_ports: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The container's address.
    #[serde(rename = "ContainerIP")]
    pub container_ip: String,
    /// Container ports, as many as host ports.
    pub container_ports: String,
    /// Endpoint's name or short id.
    pub endpoint: String,
    /// Endpoint's id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Network's name or short id.
    pub network: String,
    /// What is not as one would expect, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl From<&Holder> for Port {
    fn from(holder: &Holder) -> Self {
        Self {
            host_ip: match holder.published.host {
                HostAddress::Any => "*".to_owned(),
                HostAddress::At(address) => address.to_string(),
            },
            host_ports: holder.published.host_ports.to_string(),
            protocol: holder.published.protocol.to_string(),
            container_ip: holder.container.map_or_else(String::new, |address| address.to_string()),
            container_ports: holder.published.container_ports().to_string(),
            endpoint: holder.endpoint.clone(),
            endpoint_id: holder.endpoint_id.to_string(),
            network: holder.network.clone(),
            note: holder.caveat.map_or_else(String::new, |caveat| caveat.to_string()),
        }
    }
}

/// The agent's health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// How many networks.
    pub networks: usize,
    /// How many endpoints.
    pub endpoints: usize,
    /// How many published ports.
    pub ports: usize,
    /// Steps that would make the host as intended; empty when all is well.
    pub drift: Vec<String>,
    /// What an operator should know.
    pub problems: Vec<Problem>,
    /// Sysctls of the host that were changed.
    pub host_sysctls: Vec<Sysctl>,
    /// Links out of service that wait to be deleted.
    pub garbage: usize,
}

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Problem {
    /// What it is about.
    pub subject: String,
    /// What is wrong, and what to do.
    pub text: String,
}

/// A sysctl of the host that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sysctl {
    /// Its key with dots.
    pub key: String,
    /// The value before.
    pub before: String,
}

impl From<engine::Status> for Status {
    fn from(status: engine::Status) -> Self {
        Self {
            networks: status.networks,
            endpoints: status.endpoints,
            ports: status.ports,
            drift: status.drift,
            problems: status
                .problems
                .into_iter()
                .map(|problem| Problem { subject: problem.subject, text: problem.text })
                .collect(),
            host_sysctls: status
                .host_sysctls
                .into_iter()
                .map(|saved| Sysctl { key: dotted(&saved.key), before: saved.before })
                .collect(),
            garbage: status.garbage,
        }
    }
}

/// A sysctl's path as sysctl(8) writes it: slashes become dots, dots in link names slashes.
fn dotted(path: &str) -> String {
    path.chars()
        .map(|character| match character {
            '/' => '.',
            '.' => '/',
            other => other,
        })
        .collect()
}

/// What would be, or was, changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Plan {
    /// The whole plan as text, one line a step.
    pub text: String,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Things that should be there and cannot be made again.
    pub missing: Vec<Step>,
    /// Foreign things that are in the way.
    pub clashes: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Step {
    /// The change.
    pub change: String,
    /// Which spec asked for it.
    pub why: String,
}

impl From<&plan::Plan> for Plan {
    fn from(plan: &plan::Plan) -> Self {
        let steps = |steps: &[plan::Step]| {
            let step =
                |step: &plan::Step| Step { change: step.op.to_string(), why: step.why.clone() };
            steps.iter().map(step).collect()
        };
        Self {
            text: plan.to_string(),
            steps: steps(&plan.steps),
            missing: steps(&plan.missing),
            clashes: steps(&plan.clashes),
        }
    }
}

/// Which agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The agent's version.
    pub version: String,
    /// The API's version, as in paths.
    pub api_version: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed, why, and what to do.
    pub message: String,
    /// The kind: `usage`, `not_found`, `conflict`, `permission`, `unavailable` or `stuck`.
    pub class: String,
}

const CLASSES: [(ErrorClass, &str); 6] = [
    (ErrorClass::Usage, "usage"),
    (ErrorClass::NotFound, "not_found"),
    (ErrorClass::Conflict, "conflict"),
    (ErrorClass::Permission, "permission"),
    (ErrorClass::Unavailable, "unavailable"),
    (ErrorClass::Stuck, "stuck"),
];

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        let class = CLASSES.iter().find(|(class, _)| *class == error.class);
        Self {
            message: error.to_string(),
            class: class.map_or("unavailable", |(_, name)| name).into(),
        }
    }
}

/// A class this version does not know counts as unavailable.
impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        let class = CLASSES.iter().find(|(_, name)| *name == body.class);
        Self::new(class.map_or(ErrorClass::Unavailable, |(class, _)| *class), "", body.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_the_same_on_the_other_side() {
        for (class, _) in CLASSES {
            let error = Error::new(class, "remove network \"web\"", "in use").advise("wait");
            let json = serde_json::to_string(&ErrorBody::from(&error)).unwrap();
            let back = Error::from(serde_json::from_str::<ErrorBody>(&json).unwrap());
            assert_eq!((back.class, back.to_string()), (class, error.to_string()));
        }
    }

    #[test]
    fn sysctls_are_written_with_dots() {
        assert_eq!(dotted("net/ipv4/conf/eth0.5/forwarding"), "net.ipv4.conf.eth0/5.forwarding");
    }
}
