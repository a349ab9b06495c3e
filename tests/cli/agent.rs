//! An agent with an in-memory host behind a real socket, and the binary that asks it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread::JoinHandle;

use netagent::api::server;
use netagent::engine::{
    AttachRequest, EndpointRequest, Engine, Handle, NetworkRequest, Settings, SubnetRequest,
};
use netagent::http::Limits;
use netagent::ipam::DefaultPool;
use netagent::kernel::fake::Fake;
use netagent::model::{EndpointId, Ipam, Mark, NetworkId, Origin, Reach};
use netagent::store::Store;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn succeeded(&self) {
        assert_eq!(self.code, 0, "{self:?}");
    }
}

/// Runs the binary against the daemon at `socket`; its stdin is empty.
pub fn netagent(socket: impl AsRef<Path>, args: &[&str]) -> Ran {
    #[expect(clippy::disallowed_methods, reason = "the test is about the binary")]
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_netagent"));
    let Output { status, stdout, stderr } = command
        .args(args)
        .env("NETAGENT_SOCKET", socket.as_ref())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// A running agent.
pub struct Agent {
    pub host: Fake,
    socket: PathBuf,
    engine: Handle,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Agent {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Fake::new(Fake::ordinary());
        let (store, loaded) =
            Store::open(&directory.path().join("state"), &directory.path().join("runtime"))
                .unwrap();
        let engine = Engine::start(Box::new(host.clone()), store, loaded, settings()).unwrap();
        let (engine, _thread) = Handle::spawn(engine).unwrap();
        let socket = directory.path().join("netagent.sock");
        let runtime = Runtime::new().unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(&socket).unwrap()
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let serve = server::serve(listener, Limits::default(), stopped, engine.clone());
        let on = runtime.handle().clone();
        let serving = std::thread::spawn(move || on.block_on(serve));
        Self {
            host,
            socket,
            engine,
            runtime,
            stop: Some(stop),
            serving: Some(serving),
            _directory: directory,
        }
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        netagent(&self.socket, args)
    }

    /// The raw answer to a raw request.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A network as dockerd makes it, with one endpoint named `c1`.
    pub fn add_docker_network(&self, name: &str, pool: &str) {
        let id = NetworkId::from_bytes([0xd0; 32]);
        let pool: ipnet::IpNet = pool.parse().unwrap();
        let mut addresses = pool.hosts();
        let request = NetworkRequest {
            id: Some(id),
            name: Some(name.parse().unwrap()),
            origin: Origin::Docker,
            driver: "bridge".into(),
            ipam: Ipam::Dockerd,
            subnets: vec![SubnetRequest {
                pool,
                gateway: addresses.next(),
                range: None,
                aux: BTreeMap::new(),
            }],
            v6: false,
            v4: true,
            reach: Reach::External,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_ms: 1_700_000_000_000,
        };
        let address = addresses.next().unwrap();
        let endpoint = EndpointRequest {
            id: Some(EndpointId::from_bytes([0xd1; 32])),
            network: id,
            origin: Origin::Docker,
            name: Some("c1".into()),
            v4: Some(format!("{address}/{}", pool.prefix_len()).parse().unwrap()),
            v6: None,
            mac: None,
            attach: AttachRequest::HandOff,
            sysctls: Default::default(),
            ports: Vec::new(),
        };
        let work = self.engine.run(move |engine| {
            engine.create_network(request, netagent::engine::Mode::Apply).unwrap();
            engine.create_endpoint(endpoint).unwrap();
        });
        self.runtime.block_on(work).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            let ended = serving.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server ended badly");
        }
    }
}

fn settings() -> Settings {
    Settings {
        mark: Mark::DEFAULT,
        default_pools: vec![
            DefaultPool { base: "172.17.0.0/16".parse().unwrap(), size: 24 },
            DefaultPool { base: "fd00:17::/48".parse().unwrap(), size: 64 },
        ],
    }
}
