//! Every recorded call of every daemon, in order: each gets what dockerd needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use netagent::model::{EndpointId, NetworkId};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::caller::{Caller, Reply};
use crate::refusals;

#[tokio::test]
async fn dockerd_20_10_gets_what_it_needs() {
    let refused = check_daemon("20.10.24", "").await;
    assert_eq!(refused, refusals::ALL.into());
}

#[tokio::test]
async fn dockerd_26_gets_what_it_needs() {
    // Its recordings have no chapter on IPAM.
    let refused = check_daemon("26.1.5", "plugin.moby.localhost").await;
    assert_eq!(refused, refusals::ALL.into_iter().filter(|says| !says.contains("IPAM")).collect());
}

#[tokio::test]
async fn dockerd_28_gets_what_it_needs() {
    let refused = check_daemon("28.5.2", "plugin.moby.localhost").await;
    assert_eq!(refused, refusals::ALL.into());
}

#[tokio::test]
async fn dockerd_of_mobys_master_gets_what_it_needs() {
    let refused = check_daemon("master-2026-08", "plugin.moby.localhost").await;
    assert_eq!(refused, refusals::ALL.into());
}

/// Plays a daemon's recordings and answers what had to be refused in them. Each recording began with
/// a plugin that knew nothing.
async fn check_daemon(daemon: &str, host: &str) -> BTreeSet<&'static str> {
    let mut refused = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(daemon);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let agent = Agent::start();
        let caller = agent.connect(host).await;
        let mut replay = Replay::new(&agent, caller);
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let call: Value = serde_json::from_str(line).unwrap();
            let method = call["m"].as_str().unwrap();
            match method.strip_prefix("#### ") {
                Some(action) => replay.action = format!("{}: {action}", file.display()),
                None => replay.step(method, &call).await,
            }
        }
        assert!(replay.calls > 20, "{}", file.display());
        refused.append(&mut replay.refused);
        agent.stop().await;
    }
    refused
}

struct Replay<'a> {
    agent: &'a Agent,
    caller: Caller,
    /// What the user did last.
    action: String,
    calls: usize,
    /// Texts of the recorder's answers, and ours instead.
    renamed: BTreeMap<String, String>,
    /// Networks that had to be refused: their endpoints are, too.
    absent: BTreeSet<String>,
    internal: BTreeSet<String>,
    /// Names that endpoints asked for.
    named: BTreeMap<String, String>,
    /// What errors said.
    refused: BTreeSet<&'static str>,
}

impl<'a> Replay<'a> {
    fn new(agent: &'a Agent, caller: Caller) -> Self {
        let renamed = BTreeMap::from([("reclocal".to_owned(), "netagent".to_owned())]);
        let (absent, internal) = (BTreeSet::new(), BTreeSet::new());
        let (action, refused) = (String::new(), BTreeSet::new());
        let named = BTreeMap::new();
        Self { agent, caller, action, calls: 0, renamed, absent, internal, named, refused }
    }

    async fn step(&mut self, method: &str, call: &Value) {
        self.calls += 1;
        let mut request = call["req"].clone();
        self.rename(&mut request);
        let context = format!("{}\n{method} {request}", self.action);
        if let Some(refusal) = refusals::expected(method, &request) {
            let error = self.call(method, &request).await.error(method);
            let error = error.unwrap_or_else(|| panic!("not refused: {context}"));
            assert!(error.contains(refusal.says), "{error}\n{context}");
            self.refused.insert(refusal.says);
            match refusal.mended {
                Some(mended) => request = mended,
                None => {
                    self.absent.extend(text(&request, "NetworkID"));
                    return;
                }
            }
        }
        let reply = self.call(method, &request).await;
        let error = reply.error(method);
        if self.needs_what_is_absent(method, &request) {
            let error = error.unwrap_or_else(|| panic!("not refused: {context}"));
            assert!(error.contains("no such"), "{error}\n{context}");
            return;
        }
        assert_eq!(error, None, "{context}");
        self.check(method, &request, &reply.json(), &context).await;
        self.agree(method, &request, call, &reply.json()).await;
    }

    async fn call(&mut self, method: &str, request: &Value) -> Reply {
        self.caller.call(method, Some(request).filter(|body| !body.is_null())).await
    }

    fn rename(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(ours) = self.renamed.get(text) {
                    text.clone_from(ours);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.rename(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.rename(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn needs_what_is_absent(&self, method: &str, request: &Value) -> bool {
        let absent = text(request, "NetworkID").is_some_and(|id| self.absent.contains(&id));
        absent && matches!(method, "NetworkDriver.CreateEndpoint" | "NetworkDriver.Join")
    }

    /// What dockerd makes of the answer.
    async fn check(&mut self, method: &str, request: &Value, answer: &Value, context: &str) {
        match method {
            "Plugin.Activate" => {
                assert_eq!(answer["Implements"], json!(["NetworkDriver", "IpamDriver"]));
            }
            "NetworkDriver.GetCapabilities" => assert_eq!(answer["Scope"], "local"),
            "IpamDriver.GetCapabilities" => assert_eq!(answer["RequiresRequestReplay"], true),
            "IpamDriver.GetDefaultAddressSpaces" => {
                assert_eq!(answer["LocalDefaultAddressSpace"], "netagent");
            }
            "NetworkDriver.CreateNetwork" => {
                let id: NetworkId = text(request, "NetworkID").unwrap().parse().unwrap();
                if request["Options"]["com.docker.network.internal"] == true {
                    self.internal.insert(id.to_string());
                }
                assert!(self.agent.look(move |engine| engine.intent().network(id).is_some()).await);
            }
            "NetworkDriver.CreateEndpoint" => {
                check_interface(request, answer, context);
                let name = text(&request["Options"], "com.docker.network.endpoint.ifname");
                let id = text(request, "EndpointID").unwrap();
                self.named.extend(name.map(|name| (id, name)));
            }
            "NetworkDriver.Join" => self.check_join(request, answer, context),
            "NetworkDriver.ProgramExternalConnectivity" => {
                let asked = request["Options"]["com.docker.network.portmap"].as_array().unwrap();
                assert_eq!(self.published(request).await, asked.len(), "{context}");
            }
            "NetworkDriver.RevokeExternalConnectivity"
            | "NetworkDriver.Leave"
            | "NetworkDriver.DeleteEndpoint" => {
                assert_eq!(self.published(request).await, 0, "{context}");
            }
            "NetworkDriver.EndpointOperInfo" => assert_eq!(*answer, json!({ "Value": {} })),
            "IpamDriver.RequestPool" => {
                let pool = text(answer, "Pool").unwrap();
                let wanted = text(request, "Pool").filter(|pool| !pool.is_empty());
                assert_eq!(pool, wanted.unwrap_or(pool.clone()), "{context}");
                assert_eq!(answer["PoolID"], format!("netagent/{pool}"), "{context}");
            }
            "IpamDriver.RequestAddress" => {
                let (address, length) =
                    answer["Address"].as_str().unwrap().split_once('/').unwrap();
                let wanted = text(request, "Address").filter(|address| !address.is_empty());
                assert_eq!(address, wanted.as_deref().unwrap_or(address), "{context}");
                assert!(request["PoolID"].as_str().unwrap().ends_with(&format!("/{length}")));
            }
            _ => {}
        }
    }

    /// How many ports of the call's endpoint are in force.
    async fn published(&self, request: &Value) -> usize {
        let id: EndpointId = text(request, "EndpointID").unwrap().parse().unwrap();
        let look = move |engine: &mut netagent::engine::Engine| {
            let endpoint = engine.intent().endpoint(id);
            let blocks = endpoint.into_iter().flat_map(|endpoint| &endpoint.spec.ports);
            blocks.map(|block| block.host_ports.count() as usize).sum()
        };
        self.agent.look(look).await
    }

    fn check_join(&self, request: &Value, answer: &Value, context: &str) {
        let link = answer["InterfaceName"]["SrcName"].as_str().unwrap();
        let sandbox = request["SandboxKey"].as_str().unwrap();
        // Only a link with a name of its own is placed, and only where the sandbox is there.
        let name = self.named.get(&text(request, "EndpointID").unwrap());
        if !link.is_empty() {
            let taken = self.agent.host.hand_over(&link.parse().unwrap(), sandbox);
            assert!(taken, "dockerd finds no link {link}: {context}");
        }
        match name {
            None => assert_eq!(answer["InterfaceName"]["DstPrefix"], "eth", "{context}"),
            Some(name) => {
                let prefix = answer["InterfaceName"]["DstPrefix"].as_str().unwrap();
                let number = name.strip_prefix(prefix).expect(context);
                assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{context}");
            }
        }
        assert!(!link.is_empty() || name.is_some(), "{context}");
        let internal = self.internal.contains(&text(request, "NetworkID").unwrap());
        let gateways = [&answer["Gateway"], &answer["GatewayIPv6"]];
        assert_eq!(gateways.into_iter().all(|gateway| gateway == ""), internal, "{context}");
        assert_eq!(answer["DisableGatewayService"], internal, "{context}");
    }

    /// Notes what was answered otherwise than recorded, and takes back what dockerd did not get.
    async fn agree(&mut self, method: &str, request: &Value, call: &Value, answer: &Value) {
        let recorded = &call["resp"];
        let failed =
            call["status"] != 200 || ["Err", "Error"].iter().any(|key| recorded.get(key).is_some());
        let undo = match method {
            "NetworkDriver.CreateNetwork" => {
                Some(("NetworkDriver.DeleteNetwork", json!({ "NetworkID": request["NetworkID"] })))
            }
            "IpamDriver.RequestPool" => {
                Some(("IpamDriver.ReleasePool", json!({ "PoolID": answer["PoolID"] })))
            }
            "IpamDriver.RequestAddress" => {
                let address = plain(answer["Address"].as_str().unwrap());
                let request = json!({ "PoolID": request["PoolID"], "Address": address });
                Some(("IpamDriver.ReleaseAddress", request))
            }
            _ => None,
        };
        match undo {
            Some((method, request)) if failed => {
                assert_eq!(self.call(method, &request).await.error(method), None);
            }
            _ if failed => {}
            _ => {
                for key in ["PoolID", "Pool", "Address"] {
                    let (Some(theirs), Some(ours)) = (text(recorded, key), text(answer, key))
                    else {
                        continue;
                    };
                    self.renamed.insert(plain(&theirs).to_owned(), plain(&ours).to_owned());
                    self.renamed.insert(theirs, ours);
                }
            }
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

/// Without prefix length.
fn plain(address: &str) -> &str {
    match address.matches('/').count() {
        1 => address.split('/').next().unwrap(),
        _ => address,
    }
}

/// A field that arrived non-empty must not come back: dockerd rolls the endpoint back otherwise.
fn check_interface(request: &Value, answer: &Value, context: &str) {
    for key in ["Address", "AddressIPv6", "MacAddress"] {
        let given = text(&request["Interface"], key).unwrap_or_default();
        let answered = text(&answer["Interface"], key).unwrap_or_default();
        assert!(given.is_empty() || answered.is_empty(), "{key}: {answered}\n{context}");
        if key == "MacAddress" {
            assert!(!given.is_empty() || !answered.is_empty(), "no MAC address\n{context}");
        }
    }
}
