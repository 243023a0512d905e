//! Hands readings to a phone, over a stream that it opened to
//! [`TARGET`](farm_protocol::readings::TARGET).

use std::time::Duration;

use bytes::Bytes;
use farm_protocol::frame::ResetReason;
use farm_protocol::readings::{Answer, Follow, Newest, Request, Unframer, frame};
use farm_tunnel::stream::{Stream, StreamError};

use super::handle::Readings;
use super::query::Item;

/// How long the phone may take to read the end: as long as a farm keeps the
/// streams of one that is away.
const PARTING: Duration = Duration::from_secs(300);

/// Why a delivery ended before the phone wanted.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The stream, or the phone.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The phone said something else than what is expected.
    #[error("the phone sent nonsense")]
    Protocol,
    /// The store.
    #[error(transparent)]
    Store(#[from] farm_store::Error),
    /// Too many phones follow.
    #[error("too many follow the readings")]
    Limit,
}

impl DeliveryError {
    fn reset(&self) -> ResetReason {
        match self {
            Self::Stream(_) | Self::Protocol => ResetReason::ProtocolError,
            // The phone comes again.
            Self::Store(_) => ResetReason::ServiceUnavailable,
            Self::Limit => ResetReason::Limit,
        }
    }
}

/// Serves one stream until either end has enough.
///
/// # Errors
/// [`DeliveryError`]; the stream was reset.
pub async fn serve(stream: &Stream, readings: &Readings) -> Result<(), DeliveryError> {
    let done = deliver(stream, readings).await;
    match &done {
        Ok(()) => {
            stream.finish();
            // Dropped now the stream would be reset, with what is on its way.
            let parted = async { while let Ok(Some(_)) = stream.read().await {} };
            let late = async {
                smol::Timer::after(PARTING).await;
            };
            smol::future::or(parted, late).await;
        }
        Err(error) => stream.reset(error.reset()),
    }
    done
}

async fn deliver(stream: &Stream, readings: &Readings) -> Result<(), DeliveryError> {
    let Follow { mut after, live } = asked(stream).await?;
    // Before the first look, so that nothing falls between.
    let news = readings.follow().ok_or(DeliveryError::Limit)?;
    if after > readings.given() {
        return say(stream, &Answer::Behind(Newest { newest: readings.newest() })).await;
    }
    let mut told = false;
    loop {
        let page = readings.page(after).await?;
        let more = page.upto > after;
        after = page.upto;
        for item in page.items {
            let answer = match item {
                Item::Readings(readings) => Answer::Readings(readings),
                Item::Gap(gap) => Answer::Gap(gap),
            };
            // Waits for the phone's credit: nothing piles up here.
            say(stream, &answer).await?;
        }
        if more {
            continue;
        }
        if !std::mem::replace(&mut told, true) {
            say(stream, &Answer::CaughtUp(Newest { newest: after })).await?;
        }
        if !live {
            return Ok(());
        }
        let gone = async {
            // A phone says nothing more; the end of its side ends this one.
            let end = stream.read().await;
            Some(end)
        };
        let token = async {
            // The writer has ended: so does the agent, and resets everything.
            if news.recv().await.is_err() {
                std::future::pending::<()>().await;
            }
            None
        };
        match smol::future::or(token, gone).await {
            None => {}
            Some(Ok(None)) => return Ok(()),
            Some(Ok(Some(_))) => return Err(DeliveryError::Protocol),
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

async fn asked(stream: &Stream) -> Result<Follow, DeliveryError> {
    let mut bytes = Unframer::default();
    while let Some(part) = stream.read().await? {
        bytes.push(&part);
        match bytes.message::<Request>() {
            Ok(Some(Request::Follow(follow))) if bytes.is_empty() => return Ok(follow),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Err(DeliveryError::Protocol),
        }
    }
    Err(DeliveryError::Protocol)
}

async fn say(stream: &Stream, answer: &Answer) -> Result<(), DeliveryError> {
    let message = frame(answer).map_err(|error| {
        tracing::error!(%error, "readings could not be encoded");
        DeliveryError::Protocol
    })?;
    Ok(stream.write(Bytes::from(message)).await?)
}
