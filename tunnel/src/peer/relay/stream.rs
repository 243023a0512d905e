//! TURN over TCP or TLS: a connection to the relay that carries one socket's messages.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_util::task::AtomicWaker;
use smol::net::TcpStream;

use super::framing::{self, Cutter};
use crate::aside;
use crate::broker_socket::Trust;

/// From dialling to a connection that carries messages. A carrier has 10 s to open.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// How long a write may take. The path's own pings give it up long before.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Bytes read, and collected for a write, at once.
const CHUNK: usize = 16 << 10;

/// Longest message that is handed on: the engine reads no longer datagram. 64 of them are what a
/// relay can make us hold.
const LONGEST: usize = 2048;

/// Addresses tried of a host with several.
const MAX_ADDRESSES: usize = 4;

/// Where TURN over a stream is spoken.
#[derive(Debug, Clone)]
pub struct RelayStream {
    /// Its TCP port.
    pub port: u16,
    /// With TLS: who is believed to be the server, and its name. `None`: plain TCP.
    pub tls: Option<(Trust, String)>,
}

/// Both ends of the queues of a socket.
pub(super) struct Queues {
    /// What the socket sends. Closed when it is gone.
    pub(super) outgoing: Receiver<Vec<u8>>,
    /// What came. The socket takes it when it is woken; while it is full, nothing is read.
    pub(super) incoming: Sender<Vec<u8>>,
    pub(super) waker: Arc<AtomicWaker>,
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Carries messages until either end is gone, or the relay talks nonsense.
pub(super) async fn carry(host: &super::Host, stream: &RelayStream, queues: Queues) -> io::Error {
    let wire = match within(CONNECT_WITHIN, connect(host, stream)).await {
        Ok(wire) => wire,
        Err(error) => return error,
    };
    let (reader, writer) = wire.split();
    let written = write(writer, &queues.outgoing);
    let read = read(reader, &queues);
    let end = smol::future::or(written, read).await;
    queues.incoming.close();
    queues.waker.wake();
    end
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    smol::future::or(work, async {
        smol::Timer::after(time).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
    })
    .await
}

async fn connect(host: &super::Host, stream: &RelayStream) -> io::Result<Box<dyn Wire>> {
    let tcp = dial(&host.addresses().await?, stream.port).await?;
    // Pings and keystrokes are small and urgent.
    tcp.set_nodelay(true)?;
    Ok(match &stream.tls {
        None => Box::new(tcp),
        Some((trust, name)) => {
            let invalid = |_| io::Error::other("the relay's host is not a valid server name");
            let name = name.clone().try_into().map_err(invalid)?;
            Box::new(trust.connector().connect(name, tcp).await?)
        }
    })
}

async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the relay's name has no address");
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match TcpStream::connect(SocketAddr::new(*address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn write(mut writer: impl AsyncWrite + Unpin, outgoing: &Receiver<Vec<u8>>) -> io::Error {
    let mut chunk = Vec::new();
    while let Ok(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(datagram) = next {
            if framing::append(&mut chunk, &datagram).is_err() {
                tracing::debug!("a datagram that is no TURN message was not sent to the relay");
            }
            next = (chunk.len() < CHUNK).then(|| outgoing.try_recv().ok()).flatten();
        }
        let sent = within(WRITE_WITHIN, async {
            writer.write_all(&chunk).await?;
            writer.flush().await
        });
        if let Err(error) = sent.await {
            return error;
        }
        chunk.clear();
    }
    io::Error::new(io::ErrorKind::NotConnected, "the connection it served has ended")
}

async fn read(mut reader: impl AsyncRead + Unpin, queues: &Queues) -> io::Error {
    let mut cutter = Cutter::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(count) => cutter.push(&chunk[..count]),
            Err(error) => return error,
        }
        loop {
            match cutter.next() {
                Ok(Some(message)) if message.len() > LONGEST => {}
                Ok(Some(message)) => {
                    if queues.incoming.send(message.to_vec()).await.is_err() {
                        return io::ErrorKind::NotConnected.into();
                    }
                    queues.waker.wake();
                }
                Ok(None) => break,
                Err(error) => return io::Error::new(io::ErrorKind::InvalidData, error),
            }
        }
    }
}

impl super::Host {
    /// Its addresses, the known one first.
    async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name(name) => Ok(aside::resolve(name, 0).await?.iter().map(SocketAddr::ip).collect()),
        }
    }
}
