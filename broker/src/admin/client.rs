//! Asking the running broker.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Request, socket_path};

/// How long the broker may take: it answers at once unless its disk hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Longest answer, in bytes: a backup.
const MAX_ANSWER: u64 = crate::backup::MAX_BACKUP;

/// Why the broker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error(
        "no broker runs with the state directory {}: start it with `farm-broker serve`, or name its directory with --state",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// Not this user's broker.
    #[error(
        "not permitted to ask the broker at {}: run this as the user that the broker runs as, for example with sudo -u",
        .0.display()
    )]
    NotPermitted(PathBuf),
    /// The conversation failed.
    #[error("asking the broker at {} failed: {source}; look at the broker's log", .path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The broker says why not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the broker that runs with this state directory. Blocks.
///
/// # Errors
/// [`AdminError`]; its text says what to do.
pub fn ask(state: &Path, request: &Request) -> Result<Answer, AdminError> {
    let path = socket_path(state);
    match converse(&path, request) {
        Ok(Answer::Error(why)) => Err(AdminError::Refused(why)),
        Ok(answer) => Ok(answer),
        Err(source) => Err(match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                AdminError::NotRunning(state.to_path_buf())
            }
            io::ErrorKind::PermissionDenied => AdminError::NotPermitted(path),
            _ => AdminError::Failed { path, source },
        }),
    }
}

fn converse(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer)?;
    if answer.is_empty() {
        let why = "the broker gave no answer";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    Ok(serde_json::from_str(&answer)?)
}
