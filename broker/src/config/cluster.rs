//! What the config says about other brokers.

use std::path::PathBuf;

use serde::Deserialize;

/// Most servers of NATS in a config.
const MAX_SERVERS: usize = 16;

/// The subjects' and the bucket's name unless told otherwise.
const BUCKET: &str = "farm-tunnel";

/// On how many of NATS's nodes records are kept unless told otherwise: any one
/// may die.
const REPLICAS: usize = 3;

/// The table `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct ClusterSettings {
    /// NATS's servers, as URLs.
    pub nats: Vec<String>,
    /// What this broker is called in the others' logs; else where it listens.
    pub name: Option<String>,
    /// The records' bucket, and the beginning of the subjects.
    pub bucket: String,
    /// On how many of NATS's nodes each record is kept.
    pub replicas: usize,
    /// The user at NATS, and the file that holds its password.
    pub user: Option<(String, PathBuf)>,
    /// Who vouches for NATS's servers over TLS; else the public authorities.
    pub ca: Option<PathBuf>,
    /// A certificate to show NATS, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The table as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    nats: Vec<String>,
    name: Option<String>,
    bucket: Option<String>,
    replicas: Option<usize>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Both or neither.
fn pair<A, B>(one: Option<A>, other: Option<B>, names: &str) -> Result<Option<(A, B)>, String> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        _ => Err(format!("[cluster] needs {names} together")),
    }
}

impl TryFrom<Written> for ClusterSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if written.nats.is_empty() || written.nats.len() > MAX_SERVERS {
            return Err(format!("[cluster] needs 1 to {MAX_SERVERS} servers in `nats`"));
        }
        let bucket = written.bucket.unwrap_or_else(|| BUCKET.to_owned());
        let is_name = (1..=32).contains(&bucket.len())
            && bucket.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !is_name {
            return Err(format!("the bucket {bucket:?} has other characters than letters, digits, - and _"));
        }
        let replicas = written.replicas.unwrap_or(REPLICAS);
        if !matches!(replicas, 1 | 3 | 5) {
            return Err(format!("replicas = {replicas}: NATS keeps records on 1, 3 or 5 nodes"));
        }
        Ok(Self {
            nats: written.nats,
            name: written.name,
            bucket,
            replicas,
            user: pair(written.user, written.password_file, "`user` and `password_file`")?,
            ca: written.ca,
            certificate: pair(written.certificate, written.key, "`certificate` and `key`")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let settings: ClusterSettings = toml::from_str(
            r#"
            nats = ["tls://n1.example.org", "tls://n2.example.org"]
            name = "b1"
            user = "broker"
            password_file = "/etc/farm-broker/nats-password"
            ca = "/etc/farm-broker/nats-ca.pem"
            "#,
        )
        .unwrap();
        assert_eq!((settings.replicas, settings.bucket.as_str()), (REPLICAS, BUCKET));
        assert_eq!(settings.user.unwrap().0, "broker");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("nats = []", "1 to 16"),
            ("nats = ['nats://a']\nreplicas = 2", "1, 3 or 5"),
            ("nats = ['nats://a']\nbucket = 'a.b'", "a.b"),
            ("nats = ['nats://a']\nuser = 'x'", "password_file"),
            ("nats = ['nats://a']\nkey = '/k'", "together"),
            ("nats = ['nats://a']\nnmae = 'x'", "nmae"),
        ] {
            let error = toml::from_str::<ClusterSettings>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
