//! Bytes that go through a tunnel all the time: whatever happens elsewhere must
//! not touch them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::farm::PATIENCE;
use super::{HarnessError, until};

/// Between two echoes.
const EVERY: Duration = Duration::from_millis(50);

/// An echo that takes longer than this has met a tunnel that is gone.
const DEAD: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    echoes: AtomicU64,
    ended: AtomicBool,
    slowest: Mutex<Duration>,
    broken: Mutex<Option<String>>,
}

/// One stream to an [`echo_service`], in use until it is dropped.
pub struct Echoes {
    state: Arc<State>,
}

impl Echoes {
    /// Opens one stream and waits for its first echo.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn through(forward: SocketAddr) -> Result<Self, HarnessError> {
        let io = |source| HarnessError::Io { doing: "opening a stream through a tunnel".to_owned(), source };
        let stream = TcpStream::connect(forward).map_err(io)?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::Builder::new()
            .name("echoes".to_owned())
            .spawn(move || {
                if let Err(error) = echo(stream, &shared) {
                    let mut broken = shared.broken.lock().unwrap_or_else(PoisonError::into_inner);
                    *broken = Some(error.to_string());
                }
            })
            .map_err(io)?;
        until("the first echo", PATIENCE, || (state.echoes.load(Ordering::Relaxed) > 0).then_some(()))?;
        Ok(Self { state })
    }

    /// Echoes so far, the slowest since the last look, and what broke it.
    #[must_use]
    pub fn look(&self) -> (u64, Duration, Option<String>) {
        let mut slowest = self.state.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let broken = self.state.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.state.echoes.load(Ordering::Relaxed), std::mem::take(&mut slowest), broken)
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

/// Sends a number and waits until it is back, again and again.
fn echo(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEAD))?;
    let mut number = 0u64;
    while !state.ended.load(Ordering::Relaxed) {
        let start = Instant::now();
        stream.write_all(&number.to_be_bytes())?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if back != number.to_be_bytes() {
            return Err(std::io::Error::other("an echo came back altered"));
        }
        number += 1;
        {
            let mut slowest = state.slowest.lock().unwrap_or_else(PoisonError::into_inner);
            *slowest = (*slowest).max(start.elapsed());
        }
        state.echoes.store(number, Ordering::Relaxed);
        std::thread::sleep(EVERY);
    }
    Ok(())
}

/// A TCP service that sends back what it gets, until the process ends.
///
/// # Errors
/// When there is no port or thread for it.
pub fn echo_service() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("echo service".to_owned()).spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    })?;
    Ok(address)
}
