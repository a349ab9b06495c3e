//! Changes to a network that is there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{CreateIpam, Plan};
use crate::engine::{self, NetworkChange, SubnetRequest};
use crate::model::{Error, Result};

/// What is to change of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateNetwork {
    /// Driver options; an empty value takes one back to its default.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels to add or replace.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Labels to remove.
    #[serde(default)]
    pub remove_labels: BTreeSet<String>,
    /// Further subnets.
    #[serde(rename = "IPAM", default)]
    pub ipam: CreateIpam,
}

impl UpdateNetwork {
    /// What the engine is asked for.
    pub fn change(self) -> Result<NetworkChange> {
        if self == Self::default() {
            return Err(Error::usage("", "nothing to change is named")
                .advise("`netagent help network update` lists what can be changed"));
        }
        if let Some(label) = self.labels.keys().find(|key| self.remove_labels.contains(*key)) {
            let why = "it cannot be set and removed at once";
            return Err(Error::usage(format!("label \"{label}\""), why));
        }
        let subnets = self.ipam.config.into_iter().map(SubnetRequest::try_from);
        Ok(NetworkChange {
            options: self.options,
            labels: self.labels,
            dropped_labels: self.remove_labels,
            subnets: subnets.collect::<Result<_>>()?,
        })
    }
}

/// What an update changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Updated {
    /// The steps.
    #[serde(flatten)]
    pub plan: Plan,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

impl From<&engine::Updated> for Updated {
    fn from(updated: &engine::Updated) -> Self {
        let warning = |endpoint: &String| {
            format!(
                "the interface of endpoint \"{endpoint}\" is in a namespace that cannot be found: \
                 it keeps its MTU until it is connected again"
            )
        };
        Self {
            plan: Plan::from(&updated.plan),
            warnings: updated.out_of_reach.iter().map(warning).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(json: &str) -> Result<NetworkChange> {
        serde_json::from_str::<UpdateNetwork>(json).unwrap().change()
    }

    #[test]
    fn a_body_becomes_a_change() {
        let change = change(
            r#"{"Options":{"com.docker.network.driver.mtu":""},"Labels":{"a":"b"},
                "RemoveLabels":["c"],"IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]}}"#,
        )
        .unwrap();
        assert_eq!(change.options.len(), 1);
        assert!(change.dropped_labels.contains("c"));
        assert_eq!(change.subnets[0].pool, "10.1.0.0/24".parse().unwrap());
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        for (body, expected) in [
            ("{}", "nothing to change"),
            (r#"{"Labels":{"a":"b"},"RemoveLabels":["a"]}"#, "set and removed at once"),
            (r#"{"IPAM":{"Config":[{"Subnet":"10.1.0.1/24"}]}}"#, "be 10.1.0.0/24"),
        ] {
            let error = change(body).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(serde_json::from_str::<UpdateNetwork>(r#"{"Label":{"a":"b"}}"#).is_err());
    }
}
