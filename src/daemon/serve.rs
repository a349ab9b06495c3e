//! The time between ready and stopping: tasks, signals, and the order of the end.

use std::io;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::notify;
use super::sockets::{Door, Doors};
use super::watch::{Ear, Subscriptions, look, sizes};
use crate::docker::{self, Bell, Client, Pace, Plugin};
use crate::engine::{Engine, Handle};
use crate::http::Limits;
use crate::model::{Error, Result};

/// Threads for sockets; the engine and the kernel's events have their own.
const WORKERS: usize = 2;
/// How often the engine's thread is asked whether it lives; a call that meets a dead one in
/// between is refused.
const PULSE: Duration = Duration::from_millis(250);
/// How long requests in work may take after something failed inside: most wait for an engine that
/// is gone, and systemd starts the next agent only when this one has ended.
const GRACE: Duration = Duration::from_secs(2);

/// Serves all doors until SIGTERM or SIGINT; SIGHUP calls `reload`. Requests in work are finished,
/// and so is what the engine has begun. An engine or a door that ends by itself ends the agent with
/// an error: the next one, started by systemd, takes up the records and the host as they are.
pub(super) fn until_told_to_stop(
    engine: Engine,
    doors: Doors,
    docker: Client,
    subscriptions: Subscriptions,
    reload: impl Fn() -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| Error::unavailable("start the agent", error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(failed)?;
    let (handle, thread) = Handle::spawn(engine).map_err(failed)?;
    let served = runtime.block_on(serve(handle, &thread, doors, docker, subscriptions, reload));
    // Drops what tasks still hold of the engine, so that its thread ends.
    drop(runtime);
    // What it said when it panicked is in the log above.
    let _ = thread.join();
    served
}

async fn serve(
    engine: Handle,
    thread: &JoinHandle<Engine>,
    doors: Doors,
    docker: Client,
    subscriptions: Subscriptions,
    reload: impl Fn() -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| Error::unavailable("start the agent", error.to_string());
    // Before anything answers: from here on a signal ends us in order.
    let mut signals = Signals::new().map_err(failed)?;
    let Doors { api, docker: plugin } = doors;
    let (stop, stopped) = watch::channel(());
    let paths = [api.path.clone(), plugin.path.clone()];
    let mut servers = JoinSet::new();
    let Door { listener, file: api_file, .. } = api;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let until = end(stopped.clone());
    servers.spawn(crate::api::server::serve(listener, Limits::default(), until, engine.clone()));
    let Door { listener, file: plugin_file, .. } = plugin;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let bell = Bell::new();
    let handlers = Plugin::new(engine.clone(), bell.clone());
    servers.spawn(docker::serve(listener, handlers, end(stopped)));

    let ear = Ear::default();
    subscriptions.listen(&ear).map_err(failed)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(look(engine.clone(), ear));
    tasks.spawn(notify::watchdog(engine.clone()));
    let learner = engine.clone();
    tasks.spawn(async move {
        if let Err(error) = docker::sync::run(docker, learner, bell, Pace::default()).await {
            tracing::debug!(%error, "Docker's API is not asked any more");
        }
    });

    for path in &paths {
        check_answer(path).await?;
    }
    notify::status(&engine.run(sizes).await?);
    notify::ready();
    tracing::info!(api = %paths[0].display(), docker = %paths[1].display(), "ready");
    let ended = tokio::select! {
        () = signals.wait(reload) => Ok(()),
        failed = failure(thread, &mut servers, &mut tasks) => Err(failed),
    };

    notify::stopping();
    // Absent before they are dead: whoever comes now waits for the next agent.
    drop((api_file, plugin_file));
    drop(stop);
    let finished = async { while servers.join_next().await.is_some() {} };
    match &ended {
        Ok(()) => finished.await,
        Err(error) => {
            tracing::error!(%error, "the agent ends, to be started anew");
            let _ = timeout(GRACE, finished).await;
        }
    }
    tasks.shutdown().await;
    ended
}

/// Waits until something that serves as long as the agent has ended by itself. A task may end when
/// its work is done, but not in a panic.
async fn failure<T>(
    engine: &JoinHandle<T>,
    servers: &mut JoinSet<()>,
    tasks: &mut JoinSet<()>,
) -> Error {
    let engine = async {
        while !engine.is_finished() {
            sleep(PULSE).await;
        }
        "the engine"
    };
    let panicked = async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err_and(|error| error.is_panic()) {
                return "a background task";
            }
        }
        std::future::pending().await
    };
    let what = tokio::select! {
        what = engine => what,
        _ = servers.join_next() => "the server of a socket",
        what = panicked => what,
    };
    Error::unavailable("serve", format!("{what} has ended by itself"))
        .advise("please report this, with the lines logged before")
}

/// Ends when the sender is gone.
async fn end(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// Whether somebody, hopefully we, takes connections there.
async fn check_answer(path: &Path) -> Result<()> {
    UnixStream::connect(path).await.map(drop).map_err(|error| {
        Error::unavailable(format!("answer on \"{}\"", path.display()), error.to_string())
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the end.
    async fn wait(&mut self, reload: impl Fn() -> Result<()>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => match reload() {
                    Ok(()) => tracing::info!(
                        "the log level was read again; other settings need a restart"
                    ),
                    // An agent that served must not end over a mistake in a file.
                    Err(error) => tracing::error!(%error, "the configuration was not taken over"),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said when these end, `None` when nothing is said for ten seconds.
    async fn check_failure<T>(
        engine: &JoinHandle<T>,
        server: impl Future<Output = ()> + Send + 'static,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<String> {
        let (mut servers, mut tasks) = (JoinSet::new(), JoinSet::new());
        servers.spawn(server);
        tasks.spawn(task);
        let failed = timeout(PULSE * 40, failure(engine, &mut servers, &mut tasks)).await;
        failed.ok().map(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_a_server_or_a_task_that_dies_ends_the_agent() {
        use std::future::{pending, ready};
        let (wake, woken) = std::sync::mpsc::channel::<()>();
        let engine = std::thread::spawn(move || woken.recv().is_ok());
        let panics = || async { panic!("on purpose") };
        assert_eq!(check_failure(&engine, pending(), pending()).await, None);
        assert_eq!(check_failure(&engine, pending(), ready(())).await, None, "its work is done");
        let text = check_failure(&engine, ready(()), pending()).await.unwrap();
        assert!(text.contains("the server of a socket has ended"), "{text}");
        let text = check_failure(&engine, panics(), pending()).await.unwrap();
        assert!(text.contains("the server of a socket has ended"), "{text}");
        let text = check_failure(&engine, pending(), panics()).await.unwrap();
        assert!(text.contains("a background task has ended"), "{text}");
        drop(wake);
        engine.join().unwrap();

        let engine = std::thread::spawn(|| panic!("on purpose"));
        while !engine.is_finished() {
            std::thread::yield_now();
        }
        let text = check_failure::<()>(&engine, pending(), pending()).await.unwrap();
        assert!(text.contains("the engine has ended"), "{text}");
    }
}
