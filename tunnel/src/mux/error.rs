//! What can go wrong, by whose fault.

use farm_protocol::frame::{MAX_TARGET, StreamId};
use thiserror::Error;

use super::limits::{MAX_ANSWERS, MAX_STREAMS};

/// The other end broke the protocol in a way that one stream's reset can't
/// repair. Close the carrier; a resume on the next one starts from agreed
/// offsets again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// Bytes are missing before the ones that came.
    #[error("stream {stream}: bytes {expected} to {offset} are missing; close the carrier and resume")]
    Gap {
        /// The stream.
        stream: StreamId,
        /// Where the next byte was due.
        expected: u64,
        /// What came instead.
        offset: u64,
    },
    /// Only the phone opens streams.
    #[error("the farm opened stream {stream}, which only a phone may; close the carrier")]
    OpenedByFarm {
        /// The stream.
        stream: StreamId,
    },
    /// An open with number 0 or a target of unusable length.
    #[error("stream {stream} was opened with number 0 or a target not of 1 to {MAX_TARGET} bytes")]
    BadOpen {
        /// The stream.
        stream: StreamId,
    },
    /// The farm spoke of a stream that this phone never opened.
    #[error("stream {stream} was never opened by this phone; close the carrier")]
    NeverOpened {
        /// The stream.
        stream: StreamId,
    },
    /// A second hello on one carrier.
    #[error("a second hello on the same carrier; close the carrier")]
    HelloTwice,
    /// A hello with more streams than may live.
    #[error("a hello with {count} streams, {MAX_STREAMS} are allowed; close the carrier")]
    HelloTooLong {
        /// How many it listed.
        count: usize,
    },
    /// A hello that lists a stream twice.
    #[error("a hello that lists stream {stream} twice; close the carrier")]
    HelloRepeats {
        /// The stream.
        stream: StreamId,
    },
    /// More answers provoked than are read.
    #[error("{MAX_ANSWERS} answers wait and the other end asks for more; close the carrier")]
    Flood,
}

/// A stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// As many streams live as may.
    #[error("{MAX_STREAMS} streams are open already; close one first")]
    TooManyStreams,
    /// The service's name is too short or too long.
    #[error("a target of {0} bytes, 1 to {MAX_TARGET} are allowed")]
    BadTarget(usize),
    /// The farm's end only accepts.
    #[error("only the phone's end opens streams")]
    NotThePhone,
    /// All 2^32 - 1 numbers of this session are used.
    #[error("the session has used all its stream numbers; start a new session")]
    Exhausted,
}

/// A stream can't do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// It was closed or reset, see the event that said so.
    #[error("the stream is closed")]
    Gone,
    /// It was written to after its end was declared.
    #[error("the stream was finished already; nothing can be written after that")]
    Finished,
}
