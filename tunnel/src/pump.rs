//! Moves bytes between a local TCP socket and a stream of the tunnel, both
//! ways, with half-closes and with the reason when it ends early.

use bytes::BytesMut;
use farm_protocol::frame::ResetReason;
use nix::sys::socket::{setsockopt, sockopt};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

use crate::stream::{Stream, StreamError};

/// One read of the local socket, in bytes: one full frame, so that bulk data
/// makes full messages.
const READ: usize = farm_protocol::frame::MAX_PAYLOAD;

/// Bytes that went each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the local socket into the tunnel.
    pub sent: u64,
    /// From the tunnel to the local socket.
    pub received: u64,
}

/// How a pump ended before both directions were done.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The local program reset or closed its socket.
    #[error("the local connection broke: {0}")]
    Local(#[from] std::io::Error),
    /// The stream was reset.
    #[error("{}", .0.explanation())]
    Reset(ResetReason),
}

impl From<StreamError> for PumpError {
    fn from(error: StreamError) -> Self {
        Self::Reset(error.reason())
    }
}

/// Runs until both directions are done or one fails. On failure the other end
/// is told: the stream is reset, or the local program sees its connection reset.
///
/// # Errors
/// [`PumpError`].
pub async fn pump(stream: &Stream, local: TcpStream) -> Result<Moved, PumpError> {
    // A keystroke must not wait for more (RFC 896); failing to set it only costs time.
    let _ = local.set_nodelay(true);
    let result =
        futures_util::future::try_join(upload(stream, local.clone()), download(stream, local.clone())).await;
    match result {
        Ok((sent, received)) => Ok(Moved { sent, received }),
        Err(error) => {
            if matches!(error, PumpError::Local(_)) {
                stream.reset(ResetReason::Aborted);
            }
            abort(&local);
            Err(error)
        }
    }
}

async fn upload(stream: &Stream, mut local: TcpStream) -> Result<u64, PumpError> {
    let mut sent = 0;
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(READ, 0);
        let n = local.read(&mut buffer).await?;
        if n == 0 {
            stream.finish();
            return Ok(sent);
        }
        // Small pieces are copied, so that one keystroke does not hold 60 KiB
        // of replay buffer.
        let chunk = if n < READ / 4 {
            bytes::Bytes::copy_from_slice(&buffer[..n])
        } else {
            buffer.split_to(n).freeze()
        };
        stream.write(chunk).await?;
        sent += n as u64;
    }
}

async fn download(stream: &Stream, mut local: TcpStream) -> Result<u64, PumpError> {
    let mut received = 0;
    while let Some(chunk) = stream.read().await? {
        local.write_all(&chunk).await?;
        received += chunk.len() as u64;
    }
    local.shutdown(std::net::Shutdown::Write)?;
    Ok(received)
}

/// A program that reads a clean end would take what it has for everything;
/// a reset connection (RST, by closing with a zero linger) tells the truth.
fn abort(local: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    // A socket that is gone already needs no reset.
    let _ = setsockopt(local, sockopt::Linger, &linger);
}
