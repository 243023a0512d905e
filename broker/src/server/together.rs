//! The answer to the request for a WebSocket leaves with the first message on
//! it: one packet for the device to wake up for, one call to the kernel, one
//! record of TLS.

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use futures_util::{AsyncRead, AsyncWrite};

/// What may be put behind the answer before it has to leave, in bytes.
const MOST: usize = 4 * 1024;

/// A stream under HTTP that holds back what is written from the moment on when
/// something is known: that the request is a device's.
pub(super) struct Held<'a, S, T> {
    stream: S,
    since: &'a OnceLock<T>,
    /// Something was written that has not been flushed.
    unflushed: bool,
    kept: Vec<u8>,
}

impl<'a, S, T> Held<'a, S, T> {
    pub(super) fn new(stream: S, since: &'a OnceLock<T>) -> Self {
        Self { stream, since, unflushed: false, kept: Vec::new() }
    }

    /// The stream after HTTP; what was held back goes first.
    pub(super) fn release(self) -> Led<S> {
        Led { stream: self.stream, first: self.kept }
    }
}

impl<S: AsyncRead + Unpin, T> AsyncRead for Held<'_, S, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin, T> AsyncWrite for Held<'_, S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.since.get().is_none() {
            self.unflushed = true;
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // HTTP flushes before it has anything to say: what TLS has left to say
        // by then goes with the answer, too.
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A stream on which something is still to be written before all else.
pub(super) struct Led<S> {
    stream: S,
    first: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> Led<S> {
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.first.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.first))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // Its memory is not needed again.
            self.first = self.first.split_off(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Led<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Led<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if self.first.len() + bytes.len() > MOST {
            ready!(self.poll_first(cx))?;
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        self.first.extend_from_slice(bytes);
        // Not only when flushed: an answer to a closing handshake never is.
        if let Poll::Ready(Err(error)) = self.poll_first(cx) {
            return Poll::Ready(Err(error));
        }
        match self.first.len().checked_sub(bytes.len()) {
            // Nothing of it is on its way: it is not taken.
            Some(before) if !self.first.is_empty() => {
                self.first.truncate(before);
                Poll::Pending
            }
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::AsyncWriteExt;
    use smol::future::block_on;

    use super::*;

    /// Takes at most so many bytes at once, and remembers each time.
    struct Sink(usize, Vec<Vec<u8>>);

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.0);
            self.1.push(bytes[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A page, then the answer to a device, then its first messages.
    fn written(width: usize, message: &[u8]) -> Vec<Vec<u8>> {
        let device = OnceLock::new();
        block_on(async {
            let mut held = Held::new(Sink(width, Vec::new()), &device);
            held.write_all(b"page").await.unwrap();
            held.flush().await.unwrap();
            device.set(()).unwrap();
            held.write_all(b"answer").await.unwrap();
            held.flush().await.unwrap();
            let mut led = held.release();
            led.write_all(message).await.unwrap();
            led.flush().await.unwrap();
            led.write_all(b"second").await.unwrap();
            led.flush().await.unwrap();
            led.stream.1
        })
    }

    #[test]
    fn the_answer_leaves_with_the_first_message() {
        let all = written(usize::MAX, b" first");
        assert_eq!(all, [&b"page"[..], b"answer first", b"second"].map(<[u8]>::to_vec));
    }

    #[test]
    fn nothing_is_lost_or_out_of_order_on_a_narrow_network() {
        for width in 1..9 {
            assert_eq!(written(width, b" first").concat(), b"pageanswer firstsecond");
        }
        let long = vec![7; MOST];
        let expected = [&b"pageanswer"[..], &long, b"second"].concat();
        for width in [1, 100, usize::MAX] {
            assert_eq!(written(width, &long).concat(), expected);
        }
    }
}
