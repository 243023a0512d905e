//! The engine's stream: one subject a record, replicated, on disk. Laid out as
//! NATS's own key-value buckets are, so that `nats kv` shows it.

use std::time::Duration;

use data_encoding::BASE64;
use farm_protocol::codec::CodecError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::nats::{Client, Message, RequestError};
use crate::core::cluster::records::{Record, RecordError};

/// Time for one answer. A change of leader pauses writes for some seconds: who
/// writes asks again, see [`super::register`].
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often a consumer's server shows that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A consumer that nobody listens to is dropped by the server after this long.
const INACTIVE: Duration = Duration::from_secs(30);

/// Errors of JetStream that are told apart (its source, `errors.json`).
mod code {
    pub(super) const NO_MESSAGE: u64 = 10037;
    pub(super) const NO_STREAM: u64 = 10059;
    pub(super) const WRONG_LAST_SEQUENCE: u64 = 10071;
}

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Somebody else wrote first.
    #[error("another write came first")]
    Conflict,
    /// There is no such stream.
    #[error("NATS has no stream for the records yet")]
    NoStream,
    #[error("NATS refuses: {0}")]
    Refused(String),
    #[error("NATS answers what is not understood: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("a record can't be written: {0}")]
    Write(#[from] CodecError),
    #[error("a record can't be read: {0}")]
    Read(#[from] RecordError),
}

impl StreamError {
    /// Whether asking again in a moment may help.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Request(_) | Self::Conflict | Self::NoStream | Self::Refused(_))
    }
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// A record as it stands in the stream.
pub(super) struct Stored<T> {
    pub(super) value: T,
    /// The number of its last write; 0 where there was none.
    pub(super) revision: u64,
}

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    created: String,
}

/// The stream of one bucket.
#[derive(Clone)]
pub(super) struct Stream {
    client: Client,
    bucket: String,
    replicas: usize,
}

impl Stream {
    pub(super) fn new(client: Client, bucket: &str, replicas: usize) -> Self {
        Self { client, bucket: bucket.to_owned(), replicas }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn name(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    /// The key of a message of the stream.
    pub(super) fn key<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix("$KV.")?.strip_prefix(&self.bucket)?.strip_prefix('.')
    }

    async fn api(&self, what: &str, request: &Value) -> Result<Value, StreamError> {
        let subject = format!("$JS.API.{what}");
        let payload = if request.is_null() { Vec::new() } else { serde_json::to_vec(request)? };
        let answer = self.client.request(&subject, None, &payload, ANSWER_WITHIN).await?;
        checked(&answer)
    }

    /// Makes sure that the stream is there; gives which one it is, and the
    /// number of its last write.
    pub(super) async fn ensure(&self) -> Result<(Identity, u64), StreamError> {
        let info = match self.api(&format!("STREAM.INFO.{}", self.name()), &Value::Null).await {
            Err(StreamError::NoStream) => self.create().await?,
            info => info?,
        };
        let replicas = info["config"]["num_replicas"].as_u64().unwrap_or(0);
        if replicas != self.replicas as u64 {
            tracing::warn!(
                replicas,
                wanted = self.replicas,
                "the records are kept on another number of NATS nodes than the config says: `nats stream edit` changes it"
            );
        }
        let created = info["created"].as_str().unwrap_or_default().to_owned();
        Ok((Identity { created }, info["state"]["last_seq"].as_u64().unwrap_or(0)))
    }

    async fn create(&self) -> Result<Value, StreamError> {
        let config = json!({
            "name": self.name(),
            "subjects": [self.subject(">")],
            "retention": "limits",
            "storage": "file",
            "num_replicas": self.replicas,
            // The newest write of each record, for ever.
            "max_msgs_per_subject": 1,
            "discard": "new",
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": -1,
            "max_msg_size": 64 * 1024,
            "deny_delete": true,
            "allow_rollup_hdrs": true,
        });
        let created = self.api(&format!("STREAM.CREATE.{}", self.name()), &config).await?;
        tracing::info!(
            stream = self.name(),
            replicas = self.replicas,
            "made a stream for the records in NATS"
        );
        Ok(created)
    }

    /// What is kept under a record's key now, as the stream's leader has it.
    pub(super) async fn read(&self, key: &str) -> Result<Stored<Option<Record>>, StreamError> {
        let request = json!({ "last_by_subj": self.subject(key) });
        let answer = match self.api(&format!("STREAM.MSG.GET.{}", self.name()), &request).await {
            Err(StreamError::Conflict) => return Ok(Stored { value: None, revision: 0 }),
            answer => answer?,
        };
        let message = &answer["message"];
        let bytes = |field: &str| {
            let text = message[field].as_str().unwrap_or_default();
            BASE64.decode(text.as_bytes()).map_err(|e| StreamError::Refused(format!("{field}: {e}")))
        };
        let data = bytes("data")?;
        let value = Record::decode(key, (!data.is_empty()).then_some(&data))?;
        Ok(Stored { value, revision: message["seq"].as_u64().unwrap_or(0) })
    }

    /// Writes a record if `revision` is its last write. What returns is on
    /// most nodes.
    pub(super) async fn write(&self, record: &Record, revision: u64) -> Result<(), StreamError> {
        let (key, value) = record.encode()?;
        let revision = revision.to_string();
        let header = Some(("Nats-Expected-Last-Subject-Sequence", revision.as_str()));
        let answer = self.client.request(&self.subject(&key), header, &value, ANSWER_WITHIN).await?;
        checked(&answer).map(drop)
    }

    /// Writes a record, whatever is there.
    pub(super) async fn overwrite(&self, record: &Record) -> Result<(), StreamError> {
        let (key, value) = record.encode()?;
        let answer = self.client.request(&self.subject(&key), None, &value, ANSWER_WITHIN).await?;
        checked(&answer).map(drop)
    }

    /// Deletes a record if `revision` is its last write.
    pub(super) async fn delete(&self, key: &str, revision: u64) -> Result<(), StreamError> {
        // One header alone is what the client writes: an empty value stands
        // for a deletion, too.
        let revision = revision.to_string();
        let header = Some(("Nats-Expected-Last-Subject-Sequence", revision.as_str()));
        let answer = self.client.request(&self.subject(key), header, b"", ANSWER_WITHIN).await?;
        checked(&answer).map(drop)
    }

    /// Has all writes after a number sent to a subject; from 0, the newest of
    /// each record. Gives the consumer's name, and how many
    /// that are already.
    pub(super) async fn follow(&self, deliver: &str, after: u64) -> Result<(String, u64), StreamError> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut config = json!({
            "deliver_subject": deliver,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": -1,
            "idle_heartbeat": nanos(HEARTBEAT),
            "flow_control": true,
            "inactive_threshold": nanos(INACTIVE),
            "mem_storage": true,
            "num_replicas": 1,
            "filter_subject": self.subject(">"),
            "deliver_policy": "last_per_subject",
        });
        if after > 0 {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(after + 1);
        }
        let request = json!({ "stream_name": self.name(), "config": config });
        let answer = self.api(&format!("CONSUMER.CREATE.{}", self.name()), &request).await?;
        let name = answer["name"].as_str().unwrap_or_default().to_owned();
        Ok((name, answer["num_pending"].as_u64().unwrap_or(0)))
    }

    /// A consumer whose server shows nothing for this long is gone.
    pub(super) const SILENT: Duration = HEARTBEAT.saturating_mul(3);
}

/// The answer's body, or the error in it.
fn checked(answer: &Message) -> Result<Value, StreamError> {
    let body: Value = serde_json::from_slice(&answer.payload)?;
    let Some(error) = body.get("error") else { return Ok(body) };
    let error: ApiError = serde_json::from_value(error.clone())?;
    Err(match error.err_code {
        // Nothing there to be read, and nothing there that was expected.
        code::WRONG_LAST_SEQUENCE | code::NO_MESSAGE => StreamError::Conflict,
        code::NO_STREAM => StreamError::NoStream,
        _ => StreamError::Refused(error.description),
    })
}

/// Where a message stands in the stream, from its reply subject
/// (`$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQ.CSEQ.TIME.PENDING`, with two more
/// parts in front in newer versions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position<'a> {
    pub(super) consumer: &'a str,
    pub(super) sequence: u64,
    /// Counts what this consumer was sent.
    pub(super) delivered: u64,
    pub(super) pending: u64,
}

impl<'a> Position<'a> {
    pub(super) fn of(reply: &'a str) -> Option<Self> {
        let parts: Vec<&str> = reply.split('.').collect();
        let first = match parts.len() {
            9 => 5,
            11.. => 7,
            _ => return None,
        };
        if !reply.starts_with("$JS.ACK.") {
            return None;
        }
        let number = |index: usize| parts.get(index)?.parse().ok();
        let consumer = parts[first - 2];
        Some(Self {
            consumer,
            sequence: number(first)?,
            delivered: number(first + 1)?,
            pending: number(first + 3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_from_both_forms() {
        let expected = Some(Position { consumer: "c1", sequence: 42, delivered: 7, pending: 3 });
        assert_eq!(Position::of("$JS.ACK.KV_farms.c1.1.42.7.1790000000.3"), expected);
        assert_eq!(Position::of("$JS.ACK._.hash.KV_farms.c1.1.42.7.1790000000.3"), expected);
        assert_eq!(Position::of("$JS.ACK._.hash.KV_farms.c1.1.42.7.1790000000.3.token"), expected);
        for bad in ["", "_INBOX.1", "$JS.ACK.a.b.c.d", "$JS.FC.KV.c1.1.42.7.1.3"] {
            assert_eq!(Position::of(bad), None, "{bad}");
        }
    }
}
