//! An agent's Docker door with an engine on an in-memory host.

use std::path::PathBuf;
use std::time::Duration;

use netagent::docker::{self, Bell, Plugin};
use netagent::engine::{Engine, Handle, Settings};
use netagent::ipam::DefaultPool;
use netagent::kernel::fake::Fake;
use netagent::model::Mark;
use netagent::store::Store;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::caller::Caller;

/// Longer than anything here may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    let pool = |base: &str, size| DefaultPool { base: base.parse().unwrap(), size };
    Settings {
        mark: Mark::DEFAULT,
        default_pools: vec![pool("10.200.0.0/16", 24), pool("fd00:17::/48", 64)],
    }
}

/// A running agent.
pub struct Agent {
    pub host: Fake,
    pub engine: Handle,
    pub bell: Bell,
    pub folder: tempfile::TempDir,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Agent {
    pub fn start() -> Self {
        let host = Fake::new(Fake::ordinary());
        let folder = tempfile::tempdir().unwrap();
        let (state, runtime) = (folder.path().join("state"), folder.path().join("runtime"));
        let (store, loaded) = Store::open(&state, &runtime).unwrap();
        let engine = Engine::start(Box::new(host.clone()), store, loaded, settings()).unwrap();
        let (engine, _thread) = Handle::spawn(engine).unwrap();
        let bell = Bell::new();
        let socket = folder.path().join("netagent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let plugin = Plugin::new(engine.clone(), bell.clone());
        let stopped = async move { drop(stopped.await) };
        let server = tokio::spawn(docker::serve(listener, plugin, stopped));
        Self { host, engine, bell, folder, socket, stop, server }
    }

    /// A connection that says `Host: host`.
    pub async fn connect(&self, host: &str) -> Caller {
        Caller::connect(&self.socket, host).await
    }

    /// Asks the engine.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> T {
        self.engine.run(look).await.unwrap()
    }

    pub async fn stop(self) {
        drop(self.stop);
        timeout(DEADLINE, self.server).await.expect("the server ends").unwrap();
    }
}
