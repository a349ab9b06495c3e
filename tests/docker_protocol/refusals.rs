//! Which of the recorded calls must be refused, and what the user would do about it.
//!
//! The recorder took everything; netagent takes what it can carry out.

use serde_json::{Value, json};

const GENERIC: &str = "com.docker.network.generic";
const PORT_MAP: &str = "com.docker.network.portmap";

/// Options of the recorded networks that the bridge driver has.
const KNOWN: [&str; 1] = ["com.docker.network.driver.mtu"];

/// What the errors say, one for each reason below.
pub const ALL: [&str; 7] = [EMPTY, NULL_IPAM, POOLS, OPTION, ENDPOINT_OPTION, PORT, IPAM_OPTION];

const EMPTY: &str = "the request body is empty";
const NULL_IPAM: &str = "null IPAM driver";
const OPTION: &str = "no option of this name";
const ENDPOINT_OPTION: &str = "no endpoint option of this name";
const POOLS: &str = "has one IPv4 subnet";
const PORT: &str = "no IPv6 address to lead it to";
const IPAM_OPTION: &str = "IPAM driver has no options";

/// Why a call is refused, and the call that the user makes instead.
pub struct Refusal {
    /// What the error must say.
    pub says: &'static str,
    /// The call without what was refused; `None` where nothing is left of it.
    pub mended: Option<Value>,
}

/// What must be refused in a call whose network exists.
pub fn expected(method: &str, request: &Value) -> Option<Refusal> {
    match method {
        "NetworkDriver.CreateNetwork" => of_network(request),
        "NetworkDriver.CreateEndpoint" => of_endpoint(request),
        "NetworkDriver.ProgramExternalConnectivity" => of_ports(request),
        "IpamDriver.RequestPool" => of_pool(request),
        _ => None,
    }
}

fn of_network(request: &Value) -> Option<Refusal> {
    // dockerd's retry after a connection that broke: never a network with nothing in it.
    if request.is_null() {
        return Some(Refusal { says: EMPTY, mended: None });
    }
    // `--ipam-driver null`: a bridge network needs addresses.
    if request["IPv4Data"][0]["AddressSpace"] == "null" {
        return Some(Refusal { says: NULL_IPAM, mended: None });
    }
    // `--subnet` twice of one family, as Docker's own bridge refuses it.
    if request["IPv4Data"].as_array().is_some_and(|pools| pools.len() > 1) {
        return Some(Refusal { says: POOLS, mended: None });
    }
    // `-o my.opt=foo -o parent=eth9`, `-o a=b`: not the bridge driver's, so not silently ignored.
    let options = request["Options"][GENERIC].as_object()?;
    let (known, unknown): (Vec<_>, Vec<_>) =
        options.clone().into_iter().partition(|(key, _)| KNOWN.contains(&key.as_str()));
    (!unknown.is_empty()).then(|| {
        let mut mended = request.clone();
        mended["Options"][GENERIC] = known.into_iter().collect();
        Refusal { says: OPTION, mended: Some(mended) }
    })
}

/// `--driver-opt dk=dv`, `--driver-opt com.example.opt=zzz`: nobody would honour them.
fn of_endpoint(request: &Value) -> Option<Refusal> {
    let options = request["Options"].as_object()?;
    let (known, unknown): (Vec<_>, Vec<_>) =
        options.clone().into_iter().partition(|(key, _)| key.starts_with("com.docker.network."));
    (!unknown.is_empty()).then(|| {
        let mut mended = request.clone();
        mended["Options"] = known.into_iter().collect();
        Refusal { says: ENDPOINT_OPTION, mended: Some(mended) }
    })
}

/// `-p '[::1]:6000:6000'` of a container without IPv6.
fn of_ports(request: &Value) -> Option<Refusal> {
    let ports = request["Options"][PORT_MAP].as_array()?;
    let works = |port: &&Value| !port["HostIP"].as_str().is_some_and(|host| host.contains(':'));
    let (works, refused): (Vec<_>, Vec<_>) = ports.iter().partition(works);
    (!refused.is_empty()).then(|| {
        let mut mended = request.clone();
        mended["Options"][PORT_MAP] = json!(works);
        Refusal { says: PORT, mended: Some(mended) }
    })
}

/// `--ipam-opt ik=iv`: our IPAM driver has no options.
fn of_pool(request: &Value) -> Option<Refusal> {
    request["Options"].get("ik")?;
    let mut mended = request.clone();
    mended["Options"] = json!({});
    Some(Refusal { says: IPAM_OPTION, mended: Some(mended) })
}
