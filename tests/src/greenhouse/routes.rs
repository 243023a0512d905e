//! Which request gets which answer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::climate::{MAX_IRRIGATION_SECONDS, Readings};
use super::content::MEGABYTE;
use super::language::Language;
use super::live::{Live, next_second};
use super::page;
use super::range::{self, Asked};
use super::transfer::{self, Digests, Download, MAX_UPLOAD, Pieces, UploadError};

mod socket;

/// Largest command body, bytes.
const MAX_COMMAND: usize = 4_096;
/// Parts of `/camera` are separated by this.
const BOUNDARY: &str = "next-picture";

/// A body of any kind.
pub(super) type Reply = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<Reply>;

/// What the routes share.
pub(super) struct Site {
    pub(super) live: Arc<Live>,
    pub(super) digests: Digests,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VentCommand {
    open: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IrrigationCommand {
    seconds: u32,
}

/// Answers one request. `hold` lives as long as the connection, also after an
/// upgrade: it is the connection's place among the allowed ones.
pub(super) async fn answer<H: Send + Sync + 'static>(
    site: &Site,
    request: Request<Incoming>,
    hold: Arc<H>,
) -> Answer {
    let path = request.uri().path().to_owned();
    let (allowed, listed): (&[Method], _) = match path.as_str() {
        "/api/vent" | "/api/irrigation" | "/upload" => (&[Method::POST], "POST"),
        _ => (&[Method::GET, Method::HEAD], "GET, HEAD"),
    };
    if !allowed.contains(request.method()) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed here\n");
        set(&mut refusal, header::ALLOW, listed);
        return refusal;
    }
    match path.as_str() {
        "/" => home(&request),
        "/icon.svg" => with_type(StatusCode::OK, "image/svg+xml", page::ICON),
        "/api/readings" => json(&site.live.readings()),
        "/api/vent" => vent(site, request).await,
        "/api/irrigation" => irrigation(site, request).await,
        "/events" => events(Arc::clone(&site.live)),
        "/camera.jpg" => picture(site).await,
        "/camera" => film(Arc::clone(&site.live)),
        "/upload" => upload(request).await,
        "/ws" => socket::upgrade(request, socket::Kind::Echo, hold),
        "/ws/live" => socket::upgrade(request, socket::Kind::Live(Arc::clone(&site.live)), hold),
        _ => match path.strip_prefix("/download/").and_then(Download::named) {
            Some(file) => download(site, file, &request).await,
            None => plain(StatusCode::NOT_FOUND, "nothing here\n"),
        },
    }
}

fn home(request: &Request<Incoming>) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let chosen = query.split('&').find_map(|pair| pair.strip_prefix("lang=")).and_then(Language::from_tag);
    let language = chosen
        .unwrap_or_else(|| Language::accepted(text(request, header::ACCEPT_LANGUAGE).unwrap_or_default()));
    let mut answer = with_type(StatusCode::OK, "text/html; charset=utf-8", page::render(language));
    set(&mut answer, header::CONTENT_LANGUAGE, language.tag());
    set(&mut answer, header::VARY, "Accept-Language");
    answer
}

async fn vent(site: &Site, request: Request<Incoming>) -> Answer {
    match command::<VentCommand>(request).await {
        Ok(VentCommand { open }) if (0.0..=100.0).contains(&open) => {
            json(&site.live.act(|climate| climate.set_vent(open)))
        }
        Ok(_) => plain(StatusCode::UNPROCESSABLE_ENTITY, "open must be 0..100\n"),
        Err(refusal) => refusal,
    }
}

async fn irrigation(site: &Site, request: Request<Incoming>) -> Answer {
    match command::<IrrigationCommand>(request).await {
        Ok(IrrigationCommand { seconds }) if seconds <= MAX_IRRIGATION_SECONDS => {
            json(&site.live.act(|climate| climate.irrigate(seconds)))
        }
        Ok(_) => {
            plain(StatusCode::UNPROCESSABLE_ENTITY, format!("seconds must be 0..{MAX_IRRIGATION_SECONDS}\n"))
        }
        Err(refusal) => refusal,
    }
}

/// A JSON command, or the refusal to send instead.
async fn command<C: DeserializeOwned>(request: Request<Incoming>) -> Result<C, Answer> {
    let body = Limited::new(request.into_body(), MAX_COMMAND).collect().await;
    let bytes = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a command is at most {MAX_COMMAND} bytes\n"),
            ));
        }
        Err(error) => return Err(plain(StatusCode::BAD_REQUEST, format!("{error}\n"))),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| plain(StatusCode::BAD_REQUEST, format!("not the command: {error}\n")))
}

fn events(live: Arc<Live>) -> Answer {
    let stream = futures_util::stream::unfold((live, true), |(live, first)| async move {
        let mut event = String::new();
        if first {
            // The browser's own pause before it connects again, ms.
            event.push_str("retry: 1000\n");
        } else {
            next_second().await;
        }
        let readings = live.readings();
        event.push_str(&format!("id: {}\ndata: {}\n\n", readings.time, to_json(&readings)));
        Some((frame(event), (live, false)))
    });
    streaming("text/event-stream", BodyExt::boxed_unsync(StreamBody::new(stream)))
}

async fn picture(site: &Site) -> Answer {
    match site.live.picture().await {
        Ok(bytes) => with_type(StatusCode::OK, "image/jpeg", bytes),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Motion JPEG: a picture a second for as long as the viewer stays.
fn film(live: Arc<Live>) -> Answer {
    let stream = futures_util::stream::unfold((live, true), |(live, first)| async move {
        if !first {
            next_second().await;
        }
        let picture = live.picture().await.ok()?;
        let mut part =
            format!("--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len())
                .into_bytes();
        part.extend_from_slice(&picture);
        part.extend_from_slice(b"\r\n");
        Some((frame(part), (live, false)))
    });
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    streaming(&kind, BodyExt::boxed_unsync(StreamBody::new(stream)))
}

async fn download(site: &Site, file: Download, request: &Request<Incoming>) -> Answer {
    let megabytes = match file {
        Download::Digest { megabytes } => {
            let line = format!("{}  {megabytes}MB.bin\n", site.digests.of(megabytes).await);
            return plain(StatusCode::OK, line);
        }
        Download::Content { megabytes } => megabytes,
    };
    let digest = site.digests.of(megabytes).await;
    let length = u64::from(megabytes) * MEGABYTE;
    let tag = format!("\"{}\"", &digest[..16]);
    // If-Range (RFC 9110 section 13.1.5): the range counts only for this version.
    let same = text(request, header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let asked = range::parse(text(request, header::RANGE).filter(|_| same), length);
    let (status, start, end) = match asked {
        Asked::Whole => (StatusCode::OK, 0, length),
        Asked::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Asked::Unsatisfiable => {
            let mut refusal = plain(StatusCode::RANGE_NOT_SATISFIABLE, "no such bytes\n");
            set(&mut refusal, header::CONTENT_RANGE, &format!("bytes */{length}"));
            return refusal;
        }
    };
    let body = Pieces { offset: start, end };
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    set(&mut answer, header::CONTENT_TYPE, "application/octet-stream");
    set(&mut answer, header::CONTENT_LENGTH, &(end - start).to_string());
    set(&mut answer, header::ACCEPT_RANGES, "bytes");
    set(&mut answer, header::ETAG, &tag);
    set(&mut answer, header::HeaderName::from_static("x-sha256"), &digest);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{length}", end - 1);
        set(&mut answer, header::CONTENT_RANGE, &range);
    }
    answer
}

async fn upload(request: Request<Incoming>) -> Answer {
    let announced = text(&request, header::CONTENT_LENGTH).and_then(|n| n.parse::<u64>().ok());
    let result = if announced.is_some_and(|length| length > MAX_UPLOAD) {
        Err(UploadError::TooLong)
    } else {
        transfer::receive(request.into_body()).await
    };
    match result {
        Ok((bytes, sha256)) => with_type(
            StatusCode::OK,
            "application/json",
            format!("{{\"bytes\":{bytes},\"sha256\":\"{sha256}\"}}\n"),
        ),
        Err(UploadError::TooLong) => {
            plain(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_UPLOAD} bytes\n"))
        }
        Err(UploadError::Broken(error)) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn frame(data: impl Into<Bytes>) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(data.into()))
}

fn to_json(readings: &Readings) -> String {
    serde_json::to_string(readings).expect("readings are finite numbers and booleans")
}

fn json(readings: &Readings) -> Answer {
    with_type(StatusCode::OK, "application/json", to_json(readings) + "\n")
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Answer {
    let mut answer = streaming(kind, Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// An answer that must not be kept by anybody on the way: all here is live.
fn streaming(kind: &str, body: Reply) -> Answer {
    let mut answer = Response::new(body);
    set(&mut answer, header::CONTENT_TYPE, kind);
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    answer
}

fn set(answer: &mut Answer, name: header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("our own header values are visible ASCII");
    answer.headers_mut().insert(name, value);
}

fn text<B>(request: &Request<B>, name: header::HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}
