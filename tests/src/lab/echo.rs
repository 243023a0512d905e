//! The farm's echo service: sends back what it gets, at once.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::LabError;
use super::namespace::{Handle, Namespace};

/// A running service; takes no more connections once dropped.
pub(super) struct Echo {
    address: SocketAddr,
    handle: Handle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Serves on a free port of the namespace's loopback.
    pub(super) fn start(namespace: &Namespace) -> Result<Self, LabError> {
        let io = || LabError::io("starting the echo service");
        let listener = namespace.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.map_err(io())?;
        let address = listener.local_addr().map_err(io())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Without a thread the connection is closed, which the test sees.
                let _ = std::thread::Builder::new().name("echo".to_owned()).spawn(move || echo(stream));
            }
        };
        let thread = std::thread::Builder::new().name("echo service".to_owned()).spawn(serve).map_err(io())?;
        Ok(Self { address, handle: namespace.handle(), stop, thread: Some(thread) })
    }

    /// Where it listens, in its namespace.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    // Failing to set it only costs time.
    let _ = stream.set_nodelay(true);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let (handle, address) = (self.handle.clone(), self.address);
        // The last connection wakes the listener.
        let wake = std::thread::spawn(move || handle.enter().is_ok() && TcpStream::connect(address).is_ok());
        if wake.join().is_ok_and(|woken| woken)
            && let Some(thread) = self.thread.take()
        {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}
