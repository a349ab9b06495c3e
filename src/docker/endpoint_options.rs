//! Options of CreateEndpoint: dockerd's own and the user's lie side by side in one map.

use serde_json::{Map, Value};

use crate::model::{Error, Result, nearest};

const PREFIX: &str = "com.docker.network.";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const IFNAME: &str = "com.docker.network.endpoint.ifname";

/// What a user can give with `--driver-opt`.
const USER_KEYS: &[&str] = &[SYSCTLS, IFNAME];

/// What dockerd adds by itself; nothing in it is needed here. Ports come again with
/// ProgramExternalConnectivity, the MAC address in `Interface`.
const DOCKERD_KEYS: &[&str] = &[
    super::ports::PORT_MAP,
    "com.docker.network.endpoint.exposedports",
    "com.docker.network.endpoint.macaddress",
    "com.docker.network.endpoint.dnsservers",
    "com.docker.network.generic",
];

/// Refuses a user's option that nothing would honour. Keys of Docker's are only logged: dockerd
/// works on some of them itself, and newer ones than ours may be among them.
pub fn check(endpoint: &str, options: &Map<String, Value>) -> Result<()> {
    for key in options.keys() {
        if DOCKERD_KEYS.contains(&key.as_str()) {
            continue;
        }
        match key.as_str() {
            SYSCTLS => tracing::info!(
                endpoint,
                option = SYSCTLS,
                "dockerd sets an endpoint's sysctls itself, from version 27 on; older ones ignore them"
            ),
            IFNAME => tracing::warn!(
                endpoint,
                option = IFNAME,
                "dockerd does not let a plugin name the interface: it will be the network's \
                 prefix and a number"
            ),
            docker if docker.starts_with(PREFIX) => {
                tracing::warn!(endpoint, option = docker, "an option of Docker's is not used");
            }
            unknown => return Err(refuse(unknown)),
        }
    }
    Ok(())
}

fn refuse(key: &str) -> Error {
    let advice = match nearest(key, USER_KEYS.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("leave it out; what Docker itself takes is: {}", USER_KEYS.join(", ")),
    };
    Error::usage(
        format!("endpoint option \"{key}\""),
        "netagent has no endpoint option of this name",
    )
    .advise(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &str) -> Result<()> {
        check("e", &serde_json::from_str(options).unwrap())
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
        assert!(error.to_string().contains(&format!("did you mean \"{SYSCTLS}\"?")), "{error}");
    }

    #[test]
    fn options_of_dockers_that_are_not_ours_to_honour_pass() {
        of(r#"{"com.docker.network.endpoint.sysctls":"a=b","com.docker.network.endpoint.ifname":"x0",
            "com.docker.network.endpoint.new_in_dockerd_40":true}"#)
        .unwrap();
    }
}
