//! Filters of lists and prunes, as Docker has them: values of one key are alternatives, different
//! keys must all match, and all of `label` must match.

use std::collections::BTreeMap;

use super::wire::Network;
use crate::model::{Error, Result, nearest};

/// Keys of `network ls --filter`.
pub const LIST: &[&str] = &["name", "id", "driver", "label", "scope", "type", "dangling"];

/// Keys of `network prune --filter`.
pub const PRUNE: &[&str] = &["label", "label!", "until"];

/// Values by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Filters written as `KEY=VALUE` or, for a label that must not be there, `label!=VALUE`.
    pub fn from_args(args: &[String], known: &[&str]) -> Result<Self> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for arg in args {
            let (key, value) = arg.split_once('=').ok_or_else(|| {
                Error::usage(format!("filter \"{arg}\""), "write it as KEY=VALUE")
            })?;
            filters.entry(key.trim().to_owned()).or_default().push(value.trim().to_owned());
        }
        let filters = Self(filters);
        filters.only(known)?;
        filters.checked()
    }

    /// Filters as Docker's API takes them: `{"label":["a=b"]}`.
    pub fn from_json(json: &str) -> Result<Self> {
        let filters = serde_json::from_str(json)
            .map_err(|error| Error::usage("read the filters", error.to_string()))?;
        let filters = Self(filters);
        let known: Vec<&str> = LIST.iter().chain(PRUNE).copied().collect();
        filters.only(&known)?;
        filters.checked()
    }

    /// The form that [`Filters::from_json`] reads.
    pub fn to_json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// Refuses keys other than these.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let advice = match nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("there are {}", known.join(", ")),
                };
                Err(Error::usage(format!("filter \"{key}\""), "there is no such filter")
                    .advise(advice))
            }
        }
    }

    fn checked(self) -> Result<Self> {
        let refuse = |key: &str, value: &str, why: &str| {
            Err(Error::usage(format!("filter \"{key}={value}\""), why))
        };
        for (key, value) in self.pairs() {
            match key {
                "dangling" if truth(value).is_none() => {
                    return refuse(key, value, "use true or false");
                }
                "type" if !matches!(value, "custom" | "builtin") => {
                    return refuse(key, value, "use custom or builtin");
                }
                "until" if until_ms(value, 0).is_none() => {
                    let why = "use a time like 2026-01-31T12:00:00Z, seconds since 1970, or an age \
                               like 24h";
                    return refuse(key, value, why);
                }
                _ => {}
            }
        }
        Ok(self)
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(key, values)| {
            values.iter().map(move |value| (key.as_str(), value.as_str()))
        })
    }

    /// Whether a network passes, at `now_ms` milliseconds since 1970 UTC.
    pub fn match_network(&self, network: &Network, now_ms: u64) -> bool {
        self.0.iter().all(|(key, values)| {
            let mut values = values.iter().map(String::as_str);
            match key.as_str() {
                "label" => values.all(|value| has_label(network, value)),
                "label!" => !values.any(|value| has_label(network, value)),
                "name" => values.any(|value| network.name.contains(value)),
                "id" => values.any(|value| network.id.starts_with(value)),
                "driver" => values.any(|value| drives(value, &network.driver)),
                "scope" => values.any(|value| value == network.scope),
                "type" => values.any(|value| value == "custom"),
                "dangling" => {
                    values.any(|value| truth(value) == Some(network.containers.is_empty()))
                }
                "until" => values.all(|value| {
                    let created = network.created.parse::<jiff::Timestamp>();
                    let limit = until_ms(value, now_ms);
                    created.is_ok_and(|at| limit.is_some_and(|ms| at.as_millisecond() < ms))
                }),
                _ => false,
            }
        })
    }
}

fn has_label(network: &Network, wanted: &str) -> bool {
    match wanted.split_once('=') {
        None => network.labels.contains_key(wanted),
        Some((key, value)) => network.labels.get(key).is_some_and(|label| label == value),
    }
}

/// Docker's name for the plugin and the driver's own name are the same thing to a user.
fn drives(wanted: &str, driver: &str) -> bool {
    wanted == driver || (wanted == "bridge" && driver == "netagent")
}

/// A truth value as Go's strconv.ParseBool reads it.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The time that `until` names, in milliseconds since 1970 UTC.
fn until_ms(text: &str, now_ms: u64) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let age = text.parse::<jiff::SignedDuration>().ok()?;
    let age_ms = i64::try_from(age.as_millis()).ok()?;
    i64::try_from(now_ms).ok()?.checked_sub(age_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::handlers::tests::network;

    /// An hour after the network was made.
    const NOW_MS: u64 = 1_700_003_600_000;

    fn passes(args: &[&str]) -> bool {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let known: Vec<&str> = LIST.iter().chain(PRUNE).copied().collect();
        let filters = Filters::from_args(&args, &known).unwrap();
        assert_eq!(Filters::from_json(&filters.to_json()).unwrap(), filters);
        filters.match_network(&Network::new(&network("web"), []), NOW_MS)
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_add_up() {
        assert!(passes(&[]));
        assert!(passes(&["name=we", "name=other", "scope=local", "type=custom"]));
        assert!(!passes(&["name=we", "scope=swarm"]));
        assert!(passes(&["id=3f3f", "driver=bridge", "dangling=true"]));
        assert!(!passes(&["type=builtin"]));
    }

    #[test]
    fn all_labels_must_be_there_and_no_excluded_one() {
        assert!(passes(&["label=tier", "label=tier=front"]));
        assert!(!passes(&["label=tier", "label=other"]));
        assert!(!passes(&["label!=tier"]));
    }

    #[test]
    fn until_is_a_time_or_an_age() {
        assert!(passes(&["until=30m"]) && !passes(&["until=2h"]));
        assert!(passes(&["until=2023-11-15T00:00:00Z"]) && passes(&["until=1700000001"]));
        assert!(!passes(&["until=2023-11-14T00:00:00Z"]));
    }

    #[test]
    fn bad_filters_are_refused_with_the_right_ones() {
        for (arg, expected) in [
            ("web", "KEY=VALUE"),
            ("nam=web", "did you mean \"name\"?"),
            ("dangling=maybe", "true or false"),
            ("type=odd", "custom or builtin"),
        ] {
            let error = Filters::from_args(&[arg.to_owned()], LIST).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Filters::from_args(&["until=soon".into()], PRUNE).is_err());
    }
}
