//! How doors reach the engine's thread.

use tokio::sync::{mpsc, oneshot};

use super::Engine;
use crate::model::{Error, Result};

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// A way to the engine's thread; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Handle {
    /// Moves the engine to a thread of its own, which ends when the last handle is dropped.
    pub fn spawn(mut engine: Engine) -> std::io::Result<(Self, std::thread::JoinHandle<Engine>)> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut engine);
            }
            engine
        })?;
        Ok((Self { jobs }, thread))
    }

    /// Runs `work` on the engine's thread, after what was sent before, and waits for its answer.
    /// A caller that goes away does not stop the work.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T> {
        let gone = || Error::unavailable("ask the engine", "it has stopped");
        let (answer, result) = oneshot::channel();
        // What the engine logs belongs to the request that asked for it.
        let request = tracing::Span::current();
        let job: Job = Box::new(move |engine| {
            let _ = answer.send(request.in_scope(|| work(engine)));
        });
        self.jobs.send(job).map_err(|_| gone())?;
        result.await.map_err(|_| gone())
    }
}
