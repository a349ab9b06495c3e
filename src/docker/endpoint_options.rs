//! Options of CreateEndpoint: dockerd's own and the user's lie side by side in one map.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::driver::{self, ENDPOINT_OPTIONS, EndpointSettings};
use crate::model::{Error, Result};

const PREFIX: &str = "com.docker.network.";

/// What dockerd adds by itself; nothing in it is needed here. Ports come again with
/// ProgramExternalConnectivity, the MAC address in `Interface`.
const DOCKERD_KEYS: &[&str] = &[
    super::ports::PORT_MAP,
    "com.docker.network.endpoint.exposedports",
    "com.docker.network.endpoint.macaddress",
    "com.docker.network.endpoint.dnsservers",
    "com.docker.network.generic",
];

/// The user's settings. An option that nothing would honour is refused; keys of Docker's are only
/// logged: dockerd works on some of them itself, and newer ones than ours may be among them.
pub fn settings(endpoint: &str, options: &Map<String, Value>) -> Result<EndpointSettings> {
    let mut users = BTreeMap::new();
    for (key, value) in options.iter().filter(|(key, _)| !DOCKERD_KEYS.contains(&key.as_str())) {
        let ours = ENDPOINT_OPTIONS.iter().any(|row| row.key == key);
        match value {
            _ if key.starts_with(PREFIX) && !ours => {
                tracing::warn!(endpoint, option = key, "an option of Docker's is not used");
            }
            Value::String(text) => {
                users.insert(key.clone(), text.clone());
            }
            _ if !ours => {
                users.insert(key.clone(), value.to_string());
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                return Err(Error::usage(
                    format!("endpoint option \"{key}\""),
                    format!("{value} is not a text"),
                ));
            }
        }
    }
    driver::endpoint_settings(&users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{ENDPOINT_IFNAME, ENDPOINT_SYSCTLS};

    fn of(options: &str) -> Result<EndpointSettings> {
        settings("e", &serde_json::from_str(options).unwrap())
    }

    /// Recorded (20.10): `docker network connect --driver-opt com.example.opt=zzz …`.
    #[test]
    fn a_users_unknown_option_is_refused_by_name() {
        let error = of(r#"{"com.docker.network.endpoint.exposedports":[],"com.docker.network.portmap":[],
            "com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.log_martians=1","com.example.opt":"zzz"}"#)
        .unwrap_err();
        assert!(error.to_string().contains("\"com.example.opt\""), "{error}");
    }

    #[test]
    fn a_misspelt_option_is_answered_with_the_right_one() {
        let error = of(r#"{"com.docker.networks.endpoint.sysctls":"x"}"#).unwrap_err();
        let expected = format!("did you mean \"{ENDPOINT_SYSCTLS}\"?");
        assert!(error.to_string().contains(&expected), "{error}");
    }

    #[test]
    fn options_of_dockers_that_are_not_ours_to_honour_pass() {
        let found = of(r#"{"com.docker.network.endpoint.macaddress":"AhEiM0RV",
            "com.docker.network.endpoint.new_in_dockerd_40":true}"#)
        .unwrap();
        assert_eq!(found, EndpointSettings::default());
    }

    #[test]
    fn a_name_and_sysctls_are_taken_and_what_is_no_text_is_refused() {
        let found = of(r#"{"com.docker.network.endpoint.ifname":"lan0",
            "com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.log_martians=1"}"#)
        .unwrap();
        assert_eq!(found.interface, Some("lan0".parse().unwrap()));
        assert_eq!(found.sysctls["net.ipv4.conf.IFNAME.log_martians"], "1");
        let error = of(r#"{"com.docker.network.endpoint.ifname":["lan0"]}"#).unwrap_err();
        assert!(error.to_string().contains(ENDPOINT_IFNAME), "{error}");
    }
}
