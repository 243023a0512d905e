//! The socket for local programs: one JSON object a line,
//! `{"name": "soil moisture", "value": 23.5, "unit": "%"}`, each answered in
//! order with `{"sequence": 17}` once it is durable, or `{"error": "…"}`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use smol::net::unix::{UnixListener, UnixStream};

use super::block::Sample;
use super::handle::{Readings, RecordError};
use crate::control_socket::ControlError;

/// Name of the socket in the state directory.
pub const SOCKET: &str = "readings.sock";

/// Longest line, in bytes: a name and a unit at their longest, all escaped,
/// and room for what is ignored.
const MAX_LINE: usize = 2048;

/// Programs at once.
const MAX_CLIENTS: usize = 256;

/// Readings of one program that may wait for their answers.
const MAX_WAITING: usize = 64;

/// How long a program may leave its answers unread before it is cut off.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What a program says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What was read.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is durable, under this number.
    Sequence(u64),
    /// It was not recorded, and why.
    Error(String),
}

/// Opens a socket. Whoever is in the owner's group may use it; in the state
/// directory nobody else gets that far.
///
/// # Errors
/// [`ControlError::Listen`].
pub fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    let fail = |source| ControlError::Listen { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            std::fs::remove_file(path).map_err(fail)?;
        }
        Ok(_) => return Err(fail(io::Error::other("something else is there: choose another path"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(listener)
}

/// Accepts programs for ever.
pub async fn serve(listener: UnixListener, readings: Readings) {
    let places = std::sync::Arc::new(smol::lock::Semaphore::new(MAX_CLIENTS));
    let mut incoming = listener.incoming();
    while let Some(client) = incoming.next().await {
        let Ok(client) = client else {
            // Out of descriptors: give others the time to finish.
            smol::Timer::after(Duration::from_millis(100)).await;
            continue;
        };
        let place = places.try_acquire_arc();
        let readings = readings.clone();
        farm_tunnel::executor::spawn(async move {
            // A program that goes away in the middle is no event.
            let _ = match place {
                Some(place) => {
                    let done = serve_client(client, &readings).await;
                    drop(place);
                    done
                }
                None => refuse(client).await,
            };
        })
        .detach();
    }
}

async fn refuse(mut client: UnixStream) -> io::Result<()> {
    let text =
        format!("{MAX_CLIENTS} programs are connected, the limit: keep one connection for many readings");
    write(&mut client, &Reply::Error(text)).await
}

/// An answer that is on its way.
enum Pending {
    Known(Reply),
    Waiting(async_channel::Receiver<Result<u64, RecordError>>),
}

/// Reads and answers at the same time, so that a program may send many lines
/// before it reads. One that never reads is first held up, then cut off.
async fn serve_client(client: UnixStream, readings: &Readings) -> io::Result<()> {
    let (pending, answers) = async_channel::bounded(MAX_WAITING);
    let mut writer = client.clone();
    let read = async {
        let result = read_lines(client, readings, &pending).await;
        pending.close();
        // What was submitted is still answered.
        match result {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(error),
        }
    };
    let answer = async {
        while let Ok(pending) = answers.recv().await {
            let reply = match pending {
                Pending::Known(reply) => reply,
                Pending::Waiting(answer) => match answer.recv().await.unwrap_or(Err(RecordError::Stopping)) {
                    Ok(sequence) => Reply::Sequence(sequence),
                    Err(error) => Reply::Error(error.to_string()),
                },
            };
            write(&mut writer, &reply).await?;
        }
        Ok(())
    };
    smol::future::or(answer, read).await
}

async fn read_lines(
    client: UnixStream,
    readings: &Readings,
    pending: &async_channel::Sender<Pending>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(MAX_LINE, client);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && read > MAX_LINE {
            let text = format!("a line is longer than {MAX_LINE} bytes: the connection ends");
            let _ = pending.send(Pending::Known(Reply::Error(text))).await;
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match understand(&line) {
            Ok(sample) => match readings.submit(vec![sample]).await {
                Ok(answer) => Pending::Waiting(answer),
                Err(error) => Pending::Known(Reply::Error(error.to_string())),
            },
            Err(problem) => Pending::Known(Reply::Error(problem)),
        };
        if pending.send(answer).await.is_err() {
            return Ok(());
        }
    }
}

fn understand(line: &[u8]) -> Result<Sample, String> {
    let Line { name, value, unit } = serde_json::from_slice(line).map_err(|e| {
        format!("not a reading ({e}): {{\"name\": \"…\", \"value\": 1.5, \"unit\": \"…\"}} is expected")
    })?;
    Sample::new(name, value, unit).map_err(|e| e.to_string())
}

async fn write(writer: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let late = async {
        smol::Timer::after(ANSWER_WITHIN).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    smol::future::or(writer.write_all(&line), late).await
}

/// Records one reading with the running agent; gives its number once it is
/// durable.
///
/// # Errors
/// [`ControlError`].
pub fn record(state: &Path, line: &Line) -> Result<u64, ControlError> {
    use std::io::{BufRead, Write};
    let mut socket = std::os::unix::net::UnixStream::connect(state.join(SOCKET))
        .map_err(|source| ControlError::NotRunning { path: state.to_owned(), source })?;
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    socket.write_all(&text)?;
    let mut answer = String::new();
    io::BufReader::new(socket).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(ControlError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&answer)? {
        Reply::Sequence(sequence) => Ok(sequence),
        Reply::Error(problem) => Err(ControlError::Refused(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_or_told_what_is_wrong() {
        assert!(understand(br#"{"name": "soil moisture", "value": 23.5, "unit": "%"}"#).is_ok());
        assert!(understand(br#"{"name": "x", "value": -1e300}"#).is_ok());
        for (bad, part) in [
            (&br#"{"name": "x", "value": NaN}"#[..], "not a reading"),
            (br#"{"name": "x", "value": 1e999}"#, "out of range"),
            (br#"{"name": "x", "value": "1"}"#, "not a reading"),
            (br#"{"name": "x"}"#, "value"),
            (br#"{"name": "", "value": 1}"#, "name"),
            (br#"{"name": "a\u001b[2J", "value": 1}"#, "name"),
            (br#"{"name": "agent.uptime", "value": 1}"#, "own"),
            (br#"{"name": "x", "value": 1, "time": 5}"#, "time"),
            (b"\xff\xfe", "not a reading"),
            (b"[]", "not a reading"),
        ] {
            let problem = understand(bad).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
