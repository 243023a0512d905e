//! Posts one alert to the operator's webhook. Its URL often holds a secret (a
//! token of a chat, say), so only its host is ever shown.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_rustls::TlsConnector;
use futures_rustls::rustls::ClientConfig;
use futures_rustls::rustls::pki_types::ServerName;
use futures_util::{AsyncRead, AsyncWrite};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use smol::Timer;
use smol::future::or;
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;

use super::blocking::on_a_thread;
use super::tls::{TlsError, client};
use crate::core::alerts::delivery::Outcome;
use crate::core::alerts::{Alert, Kind};

/// One try, from the name to the answer's head: five round trips of a bad path
/// and a slow receiver.
const WITHIN: Duration = Duration::from_secs(10);

/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;

/// Longest URL, in bytes.
const MAX_URL: usize = 2048;

/// Where alerts go.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    secure: bool,
    host: String,
    port: u16,
    /// As it is in the URL, for the `Host` header.
    authority: String,
    /// Path and query.
    path: String,
}

impl WebhookUrl {
    /// Whether what is sent can't be read on the way.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, the only part of it that may be shown.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Without its secrets.
impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.host)
    }
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Never with the text itself: an error is logged.
        let wrong = |what: &str| Err(format!("the webhook's URL {what}: give https://HOST[:PORT]/PATH"));
        if text.len() > MAX_URL {
            return wrong("is too long");
        }
        let Ok(uri) = text.parse::<Uri>() else { return wrong("is none") };
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return wrong("is neither https nor http"),
        };
        let Some(authority) = uri.authority() else { return wrong("has no host") };
        if authority.as_str().contains('@') {
            return wrong("has a user name, which is not sent");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if ServerName::try_from(host.clone()).is_err() {
            return wrong("has a host that is no name");
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { secure, host, port, authority: authority.as_str().to_owned(), path })
    }
}

/// A webhook that can be called.
#[derive(Clone)]
pub struct Webhook {
    url: WebhookUrl,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Webhook {
    /// A webhook whose certificate an authority of this PEM file vouches for,
    /// else a public one. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn new(url: WebhookUrl, ca: Option<&Path>) -> Result<Self, TlsError> {
        Ok(Self { url, tls: client(ca)? })
    }

    pub(super) fn host(&self) -> &str {
        self.url.host()
    }

    /// Posts it once. What went wrong is text for the log.
    pub(super) async fn post(self, alert: Alert) -> Result<(), (Outcome, String)> {
        let late = async {
            Timer::after(WITHIN).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        match or(self.ask(body(&alert)), late).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err((judge(status), format!("it answered {status}"))),
            Err(error) => Err((Outcome::Failed, error.to_string())),
        }
    }

    async fn ask(&self, body: Vec<u8>) -> io::Result<StatusCode> {
        let (host, port) = (self.url.host.clone(), self.url.port);
        let found = on_a_thread("farm-webhook", move || (host.as_str(), port).to_socket_addrs()).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in found.take(ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.speak(stream, body).await,
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn speak(&self, stream: TcpStream, body: Vec<u8>) -> io::Result<StatusCode> {
        if !self.url.secure {
            return self.request(stream, body).await;
        }
        let name = ServerName::try_from(self.url.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        self.request(stream, body).await
    }

    async fn request<S>(&self, stream: S, body: Vec<u8>) -> io::Result<StatusCode>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = Request::post(&self.url.path)
            .header(HOST, &self.url.authority)
            .header(USER_AGENT, concat!("farm-broker/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let (mut sender, connection) =
            http1::handshake(FuturesIo::new(stream)).await.map_err(io::Error::other)?;
        let answer = async { sender.send_request(request).await.map(|answer| answer.status()) };
        let carried = async {
            connection.await?;
            // The answer has come, or never will.
            std::future::pending().await
        };
        or(answer, carried).await.map_err(|error: hyper::Error| io::Error::other(error))
    }
}

/// Whether it may go better later (RFC 9110 section 15.5, RFC 6585 section 4).
fn judge(status: StatusCode) -> Outcome {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Failed
        }
        status if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

/// What is posted.
fn body(alert: &Alert) -> Vec<u8> {
    let Alert { farm, name, kind, since, at } = alert;
    let away = at.saturating_sub(*since);
    let minutes = away / 60;
    let (event, text) = match kind {
        Kind::Away => ("farm_away", format!("{name} has been away for {minutes} min")),
        Kind::Back => ("farm_back", format!("{name} is back after {minutes} min")),
    };
    let body = serde_json::json!({
        "event": event, "farm": farm.to_string(), "name": name,
        "since": since, "at": at, "away_seconds": away, "text": text,
    });
    body.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use farm_protocol::id::FarmId;

    #[test]
    fn urls_are_checked_and_never_repeated() {
        let url: WebhookUrl = "https://hooks.example:8443/T0/secret?x=1".parse().unwrap();
        assert_eq!((url.host(), url.port, url.path.as_str()), ("hooks.example", 8443, "/T0/secret?x=1"));
        assert_eq!(url.authority, "hooks.example:8443");
        assert!(!format!("{url:?}").contains("secret"));
        let plain: WebhookUrl = "http://[::1]:80".parse().unwrap();
        assert_eq!((plain.host(), plain.path.as_str(), plain.is_secure()), ("::1", "/", false));
        for bad in
            ["", "ftp://x/secret", "/secret", "https://user:secret@x/", "https://", "https://a b/secret"]
        {
            let error = bad.parse::<WebhookUrl>().unwrap_err();
            assert!(!error.contains("secret") && error.contains("https://HOST"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_posted_is_for_programs_and_for_people() {
        let farm = FarmId::from_bytes([1; FarmId::LEN]);
        let alert = Alert { farm, name: "North \"field\"".into(), kind: Kind::Back, since: 1000, at: 1720 };
        let read: serde_json::Value = serde_json::from_slice(&body(&alert)).unwrap();
        assert_eq!(read["event"], "farm_back");
        assert_eq!(read["farm"], farm.to_string());
        assert_eq!((read["since"].as_u64(), read["away_seconds"].as_u64()), (Some(1000), Some(720)));
        assert_eq!(read["text"], "North \"field\" is back after 12 min");
    }

    #[test]
    fn only_what_may_get_better_is_tried_again() {
        for (status, outcome) in [(404, Outcome::Refused), (301, Outcome::Refused), (400, Outcome::Refused)] {
            assert_eq!(judge(StatusCode::from_u16(status).unwrap()), outcome, "{status}");
        }
        for status in [408, 425, 429, 500, 503] {
            assert_eq!(judge(StatusCode::from_u16(status).unwrap()), Outcome::Failed, "{status}");
        }
    }
}
