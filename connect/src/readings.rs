//! The farm's readings: every one that it keeps, once, in order, whatever
//! happens to the connection.
//!
//! ```no_run
//! # async fn example(tunnel: farm_connect::Tunnel) -> Result<(), Box<dyn std::error::Error>> {
//! use farm_connect::readings::{Event, Follower};
//!
//! let mut follower = Follower::new(&tunnel, 0, true);
//! while let Some(event) = follower.next().await? {
//!     match event {
//!         Event::Reading(reading) => println!("{} {}", reading.name, reading.value),
//!         Event::Gap(gap) => println!("{} to {} are gone", gap.first, gap.last),
//!         Event::CaughtUp => {}
//!     }
//!     // Keep follower.last() to go on from there another time.
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use farm_protocol::codec::CodecError;
use farm_protocol::frame::ResetReason;
use farm_protocol::readings::{Answer, Follow, Request, TARGET, Unframer, frame};
pub use farm_protocol::readings::{Clock, Gap, GapReason, Reading};
use farm_tunnel::mux::OpenError;
use farm_tunnel::stream::{Stream, StreamError};

use crate::Tunnel;

/// After a stream has ended the next one is opened after this, doubled while
/// streams bring nothing ...
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// ... up to this: a farm whose card is full is asked again soon enough.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a farm tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The next reading.
    Reading(Reading),
    /// Readings that the farm no longer has.
    Gap(Gap),
    /// Everything that the farm had when this began has been told. Once.
    CaughtUp,
}

/// Why no more readings come. Everything else is waited for.
#[derive(Debug, thiserror::Error)]
pub enum ReadingsError {
    /// The farm does not know this device any more.
    #[error("the farm does not know this device any more: pair again")]
    NotPaired,
    /// The farm's agent is too old.
    #[error("the farm's agent keeps no readings: update it")]
    NotOffered,
    /// The farm has fewer than were asked for to skip.
    #[error(
        "the farm's newest reading has the number {newest}, and {after} was asked for: an older copy of the farm's state was put back, or the number is of another farm; begin anew with --since 0"
    )]
    Behind {
        /// The farm's newest.
        newest: u64,
        /// What was asked for.
        after: u64,
    },
    /// The farm said something that is not understood.
    #[error("the farm's answer is not understood ({0}): is it of another version?")]
    Answer(#[from] CodecError),
    /// The tunnel takes no streams.
    #[error("the tunnel has ended: {0}")]
    Ended(#[from] OpenError),
}

/// Follows a farm's readings.
pub struct Follower {
    tunnel: Tunnel,
    live: bool,
    /// The newest number that came.
    received: u64,
    /// The newest number that was handed out.
    last: u64,
    stream: Option<(Stream, Unframer)>,
    events: VecDeque<(u64, Event)>,
    caught_up: bool,
    pause: Duration,
}

/// What a stream brought.
enum Brought {
    Events,
    End,
    Reset(ResetReason),
}

impl Follower {
    /// Everything after the number `after` (0 for everything); then goes on
    /// with what is recorded later if `live`.
    pub fn new(tunnel: &Tunnel, after: u64, live: bool) -> Self {
        Self {
            tunnel: tunnel.clone(),
            live,
            received: after,
            last: after,
            stream: None,
            events: VecDeque::new(),
            caught_up: false,
            pause: FIRST_PAUSE,
        }
    }

    /// The number up to which everything has been handed out.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether [`Self::next`] would have to wait.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The next event; `None` at the end, which a live one does not have.
    /// Waits through failures of every kind, for ever. May be cancelled.
    ///
    /// # Errors
    /// [`ReadingsError`]: what no waiting can mend.
    pub async fn next(&mut self) -> Result<Option<Event>, ReadingsError> {
        loop {
            if let Some((upto, event)) = self.events.pop_front() {
                self.last = upto;
                return Ok(Some(event));
            }
            if self.caught_up && !self.live {
                if let Some((stream, _)) = self.stream.take() {
                    stream.finish();
                }
                return Ok(None);
            }
            let Some((stream, _)) = &self.stream else {
                self.open().await?;
                continue;
            };
            let tunnel = self.tunnel.clone();
            let part = smol::future::or(async { Ok(stream.read().await) }, async {
                tunnel.not_paired().await;
                Err(ReadingsError::NotPaired)
            });
            match self.take(part.await?)? {
                Brought::Events => self.pause = FIRST_PAUSE,
                Brought::Reset(ResetReason::UnknownService) => return Err(ReadingsError::NotOffered),
                Brought::End | Brought::Reset(_) => {
                    self.stream = None;
                    smol::Timer::after(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), ReadingsError> {
        if self.tunnel.is_not_paired() {
            return Err(ReadingsError::NotPaired);
        }
        let stream = self.tunnel.open(TARGET)?;
        let request = frame(&Request::Follow(Follow { after: self.received, live: self.live }))?;
        // A reset shows when it is read.
        let _ = stream.write(Bytes::from(request)).await;
        self.stream = Some((stream, Unframer::default()));
        Ok(())
    }

    fn take(&mut self, part: Result<Option<Bytes>, StreamError>) -> Result<Brought, ReadingsError> {
        let bytes = match part {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Brought::End),
            Err(error) => return Ok(Brought::Reset(error.reason())),
        };
        let Some((_, mut unframer)) =
            self.stream.as_mut().map(|(stream, unframer)| (stream, std::mem::take(unframer)))
        else {
            return Ok(Brought::End);
        };
        unframer.push(&bytes);
        while let Some(answer) = unframer.message::<Answer>()? {
            self.answer(answer)?;
        }
        if let Some((_, place)) = &mut self.stream {
            *place = unframer;
        }
        Ok(Brought::Events)
    }

    fn answer(&mut self, answer: Answer) -> Result<(), ReadingsError> {
        match answer {
            Answer::Readings(readings) => {
                for reading in readings {
                    // Only once, whatever the farm says.
                    if reading.sequence > self.received {
                        self.received = reading.sequence;
                        self.events.push_back((self.received, Event::Reading(reading)));
                    }
                }
            }
            Answer::Gap(gap) if gap.last > self.received => {
                let first = gap.first.max(self.received + 1);
                self.received = gap.last;
                self.events.push_back((self.received, Event::Gap(Gap { first, ..gap })));
            }
            Answer::Gap(_) => {}
            Answer::CaughtUp(newest) => {
                self.received = self.received.max(newest.newest);
                if !std::mem::replace(&mut self.caught_up, true) {
                    self.events.push_back((self.received, Event::CaughtUp));
                }
            }
            Answer::Behind(newest) => {
                return Err(ReadingsError::Behind { newest: newest.newest, after: self.received });
            }
        }
        Ok(())
    }
}
