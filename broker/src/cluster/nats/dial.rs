//! From a server's address to a connection that it has let in.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::Deserialize;
use serde_json::json;
use smol::net::TcpStream;

use super::wire::{Info, Malformed, Parser, Said};

/// A server of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerAddress {
    /// Only over TLS. A server may ask for it anyway.
    pub tls: bool,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl ServerAddress {
    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

/// The port of NATS's clients.
const PORT: u16 = 4222;

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no NATS server: nats://HOST:PORT or tls://HOST:PORT is expected");
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(bad()),
        };
        if rest.contains('@') {
            return Err(format!("{text:?}: name the user by `user` and `password_file`, not in the URL"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or_else(bad)?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?,
            None if port.is_empty() => PORT,
            None => return Err(bad()),
        };
        if host.is_empty() || host.contains(['/', ' ', '?', '#']) {
            return Err(bad());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl TryFrom<String> for ServerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// How servers are called and what they are shown.
#[derive(Clone)]
pub struct Credentials {
    /// What this client is called in the servers' lists.
    pub name: String,
    /// User and password.
    pub user: Option<(String, String)>,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Files that don't hold what they should.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct CredentialsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

impl Credentials {
    /// `ca`: who vouches for the servers, else the public authorities. `own`:
    /// a certificate and its key to show them.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(
        name: String,
        user: Option<(String, String)>,
        ca: Option<&Path>,
        own: Option<(&Path, &Path)>,
    ) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    let added = roots.add(certificate);
                    added.map_err(|e| CredentialsError { path: path.to_owned(), problem: e.to_string() })?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions that are built in")
            .with_root_certificates(roots);
        let tls = match own {
            Some((certificate, key)) => {
                let bad =
                    |e: &dyn fmt::Display| CredentialsError { path: key.to_owned(), problem: e.to_string() };
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(&e))?;
                builder.with_client_auth_cert(chain, private).map_err(|e| bad(&e))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { name, user, tls: Arc::new(tls) })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let bad = |problem: String| CredentialsError { path: path.to_owned(), problem };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|e| bad(e.to_string()))?;
    if read.is_empty() { Err(bad("no certificate in it; PEM is expected".into())) } else { Ok(read) }
}

/// Why a server does not let us in.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Unfit(&'static str),
}

/// Plain or TLS, as one type.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection that a server has let in.
pub(super) struct Dialed {
    pub(super) stream: Box<dyn Stream>,
    /// With what was read behind its answer.
    pub(super) parser: Parser,
    pub(super) info: Info,
}

/// One attempt, without a deadline of its own.
pub(super) async fn dial(address: &ServerAddress, credentials: &Credentials) -> Result<Dialed, DialError> {
    let mut tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
    tcp.set_nodelay(true)?;
    let mut parser = Parser::default();
    let Said::Info(info) = next(&mut tcp, &mut parser).await? else {
        return Err(Malformed("something before its INFO").into());
    };
    let info = *info;
    if !info.headers {
        return Err(DialError::Unfit("it has no headers: NATS 2.9 or newer is needed"));
    }
    let tls = address.tls || info.tls_required;
    let mut stream: Box<dyn Stream> = if tls {
        if !parser.is_empty() {
            // It would be taken for what comes over TLS.
            return Err(Malformed("more than its INFO before TLS").into());
        }
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| DialError::Unfit("its host is not a valid server name"))?;
        Box::new(TlsConnector::from(credentials.tls.clone()).connect(name, tcp).await?)
    } else {
        Box::new(tcp)
    };
    let mut connect = json!({
        "verbose": false, "pedantic": false, "echo": false, "headers": true, "no_responders": true,
        "protocol": 1, "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
        "name": credentials.name, "tls_required": tls,
    });
    if let Some((user, password)) = &credentials.user {
        connect["user"] = json!(user);
        connect["pass"] = json!(password);
    }
    stream.write_all(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await?;
    stream.flush().await?;
    loop {
        match next(&mut stream, &mut parser).await? {
            Said::Pong => return Ok(Dialed { stream, parser, info }),
            Said::Error(why) => return Err(DialError::Refused(why)),
            _ => {}
        }
    }
}

async fn next(stream: &mut (impl AsyncRead + Unpin), parser: &mut Parser) -> Result<Said, DialError> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(said) = parser.next()? {
            return Ok(said);
        }
        match stream.read(&mut buffer).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            read => parser.feed(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, tls, host, port) in [
            ("nats://127.0.0.1:4333", false, "127.0.0.1", 4333),
            ("tls://n1.example.org", true, "n1.example.org", 4222),
            ("nats://[::1]:1", false, "::1", 1),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!((address.tls, address.host.as_str(), address.port), (tls, host, port));
            assert_eq!(address.to_string().parse::<ServerAddress>().unwrap(), address);
        }
        for bad in
            ["", "n1:4222", "http://n1", "nats://", "nats://n1:0", "nats://n1:x", "nats://[::1", "nats://n/a"]
        {
            assert!(bad.parse::<ServerAddress>().unwrap_err().contains("nats://HOST"), "{bad}");
        }
        let secret = "nats://user:secret@n1".parse::<ServerAddress>().unwrap_err();
        assert!(secret.contains("password_file"), "{secret}");
    }

    #[test]
    fn a_missing_file_is_named_and_a_password_is_not_shown() {
        let missing = Path::new("/nonexistent/ca.pem");
        let error = Credentials::new("b".into(), None, Some(missing), None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
        let user = Some(("u".to_owned(), "hunter2".to_owned()));
        let shown = format!("{:?}", Credentials::new("b".into(), user, None, None).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
