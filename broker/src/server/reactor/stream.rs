//! A TCP connection.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{AsyncRead, AsyncWrite};

use super::Reactor;
use super::source::{Source, Way};

/// See the module. Polled on another thread it moves there.
#[derive(Debug)]
pub(in crate::server) struct Stream {
    socket: TcpStream,
    watched: Option<(Arc<Reactor>, Arc<Source>)>,
}

/// What a try brought, and whether the next one may bring more at once.
struct Tried(usize, bool);

impl Stream {
    /// A socket that is nonblocking.
    pub(in crate::server) fn new(socket: TcpStream) -> Self {
        Self { socket, watched: None }
    }

    /// Looks at what comes, without taking it.
    pub(in crate::server) async fn peek(&mut self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.attempt(Way::Read, cx, |socket| Ok(Tried(socket.peek(into)?, true)))).await
    }

    /// Has this thread's reactor watch it.
    fn source(&mut self) -> io::Result<Arc<Source>> {
        let reactor = Reactor::current();
        match &self.watched {
            Some((watching, source)) if Arc::ptr_eq(watching, &reactor) => return Ok(source.clone()),
            Some((former, source)) => former.release(source, &self.socket)?,
            None => {}
        }
        self.watched = None;
        let source = reactor.watch(&self.socket)?;
        self.watched = Some((reactor, source.clone()));
        Ok(source)
    }

    /// Tries as soon as it may succeed.
    fn attempt(
        &mut self,
        way: Way,
        cx: &Context<'_>,
        mut once: impl FnMut(&TcpStream) -> io::Result<Tried>,
    ) -> Poll<io::Result<usize>> {
        let source = self.source()?;
        while source.begin(way, cx) {
            match once(&self.socket) {
                Ok(Tried(count, more)) => {
                    if more {
                        source.again(way);
                    }
                    return Poll::Ready(Ok(count));
                }
                // The kernel says when it is worth another try.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    source.again(way);
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.attempt(Way::Read, cx, |mut socket| {
            let count = socket.read(into)?;
            // Less than there is room for was all there is (epoll(7), question
            // 9): looking again would find nothing. The end stays the end.
            Ok(Tried(count, count == into.len() || count == 0))
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.attempt(Way::Write, cx, |mut socket| Ok(Tried(socket.write(bytes)?, true)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.shutdown(Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((reactor, source)) = &self.watched {
            reactor.forget(source);
        }
    }
}
