//! A connection that is busy while something changes under it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::place::Place;
use super::until;

/// More than a segment of any MTU here.
const CHUNK: usize = 10_000;
/// How long an answer may take before a flow counts as broken: several retransmissions.
const PATIENCE: Duration = Duration::from_secs(3);

/// A TCP connection on which data goes to and fro all the time.
pub struct Flow {
    name: String,
    rounds: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// From `client` to `address`, where `listener` is.
    #[track_caller]
    pub fn open(client: &Place, address: &str, listener: &TcpListener) -> Self {
        let mut call = client.enter(|| TcpStream::connect(address)).unwrap_or_else(|error| {
            panic!("{} calls {address}: {error}", client.name);
        });
        let (mut server, _) = listener.accept().unwrap();
        for stream in [&call, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        let (rounds, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, failed, stopped) = (rounds.clone(), broken.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![7; CHUNK];
            let mut round = || {
                call.write_all(&buffer)?;
                server.read_exact(&mut buffer)?;
                server.write_all(&buffer)?;
                call.read_exact(&mut buffer)
            };
            while !stopped.load(Ordering::SeqCst) {
                match round() {
                    Ok(()) => _ = count.fetch_add(1, Ordering::SeqCst),
                    Err(_) => return failed.store(true, Ordering::SeqCst),
                }
                // Leaves the processor to others.
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let name = format!("the flow of {} to {address}", client.name);
        Self { name, rounds, broken, stop, thread: Some(thread) }
    }

    /// Panics unless data still goes both ways, and did all the time.
    #[track_caller]
    pub fn goes_on(&self, after: &str) {
        let before = self.rounds.load(Ordering::SeqCst);
        until(&format!("{} goes on after {after}", self.name), 3 * PATIENCE, || {
            assert!(!self.broken.load(Ordering::SeqCst), "{} broke: {after}", self.name);
            (self.rounds.load(Ordering::SeqCst) > before + 2).then_some(())
        });
    }

    /// Panics unless it breaks.
    #[track_caller]
    pub fn stops(&self, after: &str) {
        until(&format!("{} stops after {after}", self.name), 3 * PATIENCE, || {
            self.broken.load(Ordering::SeqCst).then_some(())
        });
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A listener whose connections a [`Flow`] takes.
#[track_caller]
pub fn listen(place: &Place, address: &str) -> TcpListener {
    place.enter(|| TcpListener::bind(address)).unwrap()
}
