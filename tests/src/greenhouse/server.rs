//! Accepting connections, within bounds.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::Async;
use smol::io::AsyncWriteExt;
use smol::lock::Semaphore;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::live::Live;
use super::routes::{self, Site};
use super::transfer::Digests;

/// Connections served at once; a browser opens six, a load test a hundred.
const MAX_CONNECTIONS: usize = 512;
/// A request's head must be there within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head, bytes, and with it the read buffer, which also bounds what an
/// upload reads at once.
const MAX_BUFFER: usize = 512 * 1024;
/// After a failed accept (usually no file descriptors left) wait this long
/// instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Said to the one connection too many.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
    Retry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// Settings of a greenhouse.
#[derive(Clone, Debug)]
pub struct GreenhouseOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seconds the farm's clock is ahead of UTC; its sun follows that clock.
    pub utc_offset: i64,
}

impl Default for GreenhouseOptions {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), utc_offset: 0 }
    }
}

/// A greenhouse that listens.
pub struct Greenhouse {
    listener: Async<TcpListener>,
    address: SocketAddr,
    site: Arc<Site>,
}

impl Greenhouse {
    /// Takes the address.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn bind(options: &GreenhouseOptions) -> io::Result<Self> {
        let listener = Async::<TcpListener>::bind(options.listen)?;
        let address = listener.get_ref().local_addr()?;
        let site = Site { live: Arc::new(Live::new(options.utc_offset)), digests: Digests::default() };
        Ok(Self { listener, address, site: Arc::new(site) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("greenhouse: accept on {}: {error}", self.address);
                    smol::Timer::after(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match places.try_acquire_arc() {
                Some(place) => {
                    let site = Arc::clone(&self.site);
                    smol::spawn(connection(site, stream, Arc::new(place))).detach();
                }
                None => smol::spawn(refuse(stream)).detach(),
            }
        }
    }
}

async fn connection<H>(site: Arc<Site>, stream: Async<TcpStream>, hold: Arc<H>)
where
    H: Send + Sync + 'static,
{
    // Small live events must not wait for the acknowledgement of the one before.
    let _ = stream.get_ref().set_nodelay(true);
    let service = service_fn(move |request| {
        let (site, hold) = (Arc::clone(&site), Arc::clone(&hold));
        async move { Ok::<_, Infallible>(routes::answer(&site, request, hold).await) }
    });
    // An error is a visitor who left or spoke nonsense: nothing to do about it.
    let _ = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(FuturesIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn refuse(mut stream: Async<TcpStream>) {
    // Best effort: it is closed either way.
    let _ = stream.write_all(BUSY).await;
}
