//! What the farm offers for measuring round trips: a TCP service that sends
//! back what it gets, or sends without end, as its first byte says.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::greenhouse::content;

/// First byte of a connection that wants everything back.
pub(super) const ECHO: u8 = b'e';
/// First byte of a connection that wants bytes without end.
pub(super) const BULK: u8 = b'b';

/// Connections served at once; each has a thread.
const MAX_CONNECTIONS: usize = 64;
/// A peer that neither reads nor writes for so long is given up: longer than any
/// part of a measurement holds a stream still.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    sent: AtomicU64,
}

/// The running service. It ends with the process.
pub(super) struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Service {
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let service = Self { address: listener.local_addr()?, shared: Arc::default() };
        let shared = Arc::clone(&service.shared);
        std::thread::Builder::new().name("service".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                // One that fails is not waited for: its measurement says so.
                let Ok(stream) = stream else { continue };
                accept(stream, &shared);
            }
        })?;
        Ok(service)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes sent without end so far, over all connections.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

fn accept(stream: TcpStream, shared: &Arc<Shared>) {
    if shared.connections.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
        shared.connections.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        // An error is the other end's leaving, which is how all of these end.
        let _ = serve(stream, &shared);
        shared.connections.fetch_sub(1, Ordering::SeqCst);
    });
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    match first[0] {
        ECHO => {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    return Ok(());
                }
                stream.write_all(&buffer[..read])?;
            }
        }
        BULK => {
            let mut offset = 0;
            loop {
                let sent = stream.write(&content::piece(offset, u64::MAX))? as u64;
                offset += sent;
                shared.sent.fetch_add(sent, Ordering::Relaxed);
            }
        }
        _ => Ok(()),
    }
}
