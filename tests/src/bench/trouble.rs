//! Why something could not be measured.

use std::io;

use farm_connect::{ClientError, TunnelError};

use crate::harness::HarnessError;
use crate::harness::http::HttpError;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// A program or the system.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// A request.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The phone's state.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A tunnel of ours.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// It worked, but not as it must, so its time means nothing.
    #[error("{0}")]
    Wrong(String),
}

impl Trouble {
    pub(crate) fn io(doing: &str) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.to_owned();
        move |source| HarnessError::Io { doing, source }.into()
    }
}
