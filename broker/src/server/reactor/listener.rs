//! A socket that connections come to.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::{SocketFlags, acceptfrom_with};

use super::source::{Source, Way};
use super::{Reactor, Stream};

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Listener {
    socket: TcpListener,
    watched: Option<(Arc<Reactor>, Arc<Source>)>,
}

impl Listener {
    /// A socket that is nonblocking.
    pub(in crate::server) fn new(socket: TcpListener) -> Self {
        Self { socket, watched: None }
    }

    /// The next connection.
    pub(in crate::server) async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        if self.watched.is_none() {
            let reactor = Reactor::current();
            let source = reactor.watch(&self.socket)?;
            self.watched = Some((reactor, source));
        }
        let Self { socket, watched } = self;
        let (_, source) = watched.as_ref().expect("watched just now");
        while source.begin(Way::Read, cx) {
            match accept(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => {
                    source.again(Way::Read);
                    return Poll::Ready(accepted);
                }
            }
        }
        Poll::Pending
    }
}

fn accept(socket: &TcpListener) -> io::Result<(Stream, SocketAddr)> {
    let (accepted, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.ok_or_else(|| io::Error::other("a connection from nowhere"))?;
    Ok((Stream::new(TcpStream::from(accepted)), peer.try_into()?))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((reactor, source)) = &self.watched {
            reactor.forget(source);
        }
    }
}
