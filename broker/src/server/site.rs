//! What the broker serves besides its two own paths: nothing, or the app.

use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

/// An answer to a request.
pub type Page = Response<Full<Bytes>>;

/// Pages beside [`farm_protocol::CONNECT_PATH`] and `/healthz`.
pub trait Site: Send + Sync + 'static {
    /// Answers a request; its body is not read.
    fn respond(&self, request: &Parts) -> Page;

    /// Whether devices may connect at the host that is asked: not where farm
    /// pages are shown, whose scripts are not the app's.
    fn has_devices(&self, _request: &Parts) -> bool {
        true
    }
}

/// A broker without pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSite;

impl Site for NoSite {
    fn respond(&self, _request: &Parts) -> Page {
        text(StatusCode::NOT_FOUND, "not found\n")
    }
}

/// A short answer in plain text.
pub fn text(status: StatusCode, text: &'static str) -> Page {
    let mut page = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *page.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    page.headers_mut().insert(hyper::header::CONTENT_TYPE, plain);
    page
}
