//! The plain port beside a TLS one: sends browsers on to `https`, and serves
//! nothing itself, so that nobody talks to the broker in the clear by mistake.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;
use futures_util::{AsyncRead, AsyncWrite};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use smol::future::or;
use smol_hyper::rt::FuturesIo;

use super::admission::Ticket;
use super::http::{HEADER_WITHIN, MAX_HEAD, MAX_HEADERS};
use super::reactor::{Alarm, AlarmTimer};
use super::site::{Page, text};

/// One answer and the connection ends: whatever it does, after this time.
const LASTS: Duration = Duration::from_secs(15);

/// Where browsers are sent.
pub(super) struct Redirect {
    /// The broker's own host and port, where it is known; else the host that
    /// the browser asked for, with this port.
    pub(super) authority: Option<String>,
    pub(super) port: u16,
    /// Held while it answers, see `http::Front::alive`.
    pub(super) _alive: Sender<Infallible>,
}

impl Redirect {
    /// Answers one connection.
    pub(super) async fn serve<S>(self: Arc<Self>, stream: S, ticket: Ticket)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _held = ticket;
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            std::future::ready(Ok::<_, Infallible>(self.answer(request.headers(), path)))
        });
        let http = http1::Builder::new()
            .timer(AlarmTimer)
            .header_read_timeout(HEADER_WITHIN)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .keep_alive(false)
            .serve_connection(FuturesIo::new(stream), service);
        let served = or(http, async {
            Alarm::after(LASTS).await;
            Ok(())
        });
        if let Err(error) = served.await {
            tracing::debug!(%error, "a plain HTTP connection ended");
        }
    }

    fn answer(&self, headers: &HeaderMap, path: &str) -> Page {
        let authority = self.authority.clone().or_else(|| {
            let asked = headers.get(HOST)?.to_str().ok()?;
            // Its port is this one's, not the other's.
            let host = match asked.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => asked,
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
            let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
            (!host.is_empty() && host.chars().all(fits)).then(|| format!("{host}{port}"))
        });
        let target = authority.and_then(|host| HeaderValue::try_from(format!("https://{host}{path}")).ok());
        let Some(target) = target else {
            return text(StatusCode::BAD_REQUEST, "this port only sends on to https\n");
        };
        let mut page = text(StatusCode::PERMANENT_REDIRECT, "this is served by https\n");
        page.headers_mut().insert(LOCATION, target);
        page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(authority: Option<&str>, port: u16, host: &str, path: &str) -> Option<String> {
        let (alive, _) = async_channel::bounded(1);
        let redirect = Redirect { authority: authority.map(str::to_owned), port, _alive: alive };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        let page = redirect.answer(&headers, path);
        Some(page.headers().get(LOCATION)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn browsers_are_sent_to_https() {
        let own = Some("broker.example.org");
        assert_eq!(target(own, 443, "x", "/a?b=1").unwrap(), "https://broker.example.org/a?b=1");
        assert_eq!(target(None, 443, "farm.example:80", "/").unwrap(), "https://farm.example/");
        assert_eq!(target(None, 8443, "[::1]:8080", "/").unwrap(), "https://[::1]:8443/");
        assert_eq!(target(None, 8443, "127.0.0.1", "/").unwrap(), "https://127.0.0.1:8443/");
        assert_eq!(target(None, 443, "evil.example/\"<x>", "/"), None);
    }
}
