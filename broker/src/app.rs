//! The phone app, served by the broker: files of one directory, read once at
//! the start, with the headers that keep them honest.
//!
//! Two kinds of hosts are told apart. On the app's own host there is the app.
//! On a *view* host, one for each service of each farm, there is only what
//! shows that service's pages through the tunnel, so that a farm's page runs
//! on an origin of its own and can touch neither the app's keys nor another
//! farm. Requests for anything else there have bypassed the tunnel: they get
//! 404 and are never logged, since their paths are the farm's business.

mod files;
mod headers;
mod views;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::server::site::{Page, Site, text};
use files::{File, Files};
pub use files::{FilesError, MAX_FILE, MAX_FILES, MAX_TOTAL};
use views::Host;
pub use views::{Views, ViewsError};

/// Where packages put the app.
pub const INSTALLED: &str = "/usr/share/farm-broker/app";

/// The app's own settings, made for each request: where farm pages are shown.
const SETTINGS_PATH: &str = "/app.json";

/// The app, ready to be served.
pub struct App {
    files: Files,
    views: Views,
}

impl App {
    /// Reads the app's files; `views` says where farm pages are shown.
    ///
    /// # Errors
    /// [`FilesError`] where they can't be read or are no app.
    pub fn load(directory: &Path, views: Views) -> Result<Self, FilesError> {
        Ok(Self { files: Files::read(directory)?, views })
    }

    /// Where the app is unless the operator says: beside the program (a
    /// release archive), or where packages put it.
    pub fn found() -> Option<PathBuf> {
        let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("app")));
        beside.into_iter().chain([INSTALLED.into()]).find(|directory| directory.join("index.html").is_file())
    }

    fn app_page(&self, path: &str, request: &HeaderMap, views: &str) -> Page {
        if path == SETTINGS_PATH {
            return self.settings(views);
        }
        let path = if path == "/" { "/index.html" } else { path };
        match self.files.get(path).filter(|_| !path.starts_with(views::FILES)) {
            Some(file) => {
                let mut page = answer(file, request);
                headers::for_app(page.headers_mut(), path, views);
                page
            }
            None => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn settings(&self, views: &str) -> Page {
        let body = serde_json::json!({ "views": views }).to_string();
        let mut page = Page::new(Full::new(Bytes::from(body)));
        let fields = page.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers::for_app(fields, SETTINGS_PATH, views);
        page
    }

    fn view_page(&self, path: &str, request: &HeaderMap, apps: &[String]) -> Page {
        // A page can't make a script of its farm's the worker of this origin.
        let wants_worker = request.contains_key("service-worker");
        let name = match path.strip_prefix(views::PREFIX) {
            Some(name) if !wants_worker || name == "sw.js" => name,
            _ if wants_worker => "",
            _ if headers::is_navigation(request) => "boot.html",
            _ => "",
        };
        let name = if name == "bridge" { "bridge.html" } else { name };
        match self.files.get(&format!("{}{name}", views::FILES)) {
            Some(file) if !name.is_empty() => {
                let mut page = answer(file, request);
                if name.ends_with(".html") {
                    let body = String::from_utf8_lossy(&file.plain).replace("%APPS%", &apps.join(" "));
                    *page.body_mut() = Full::new(Bytes::from(body));
                    *page.status_mut() = StatusCode::OK;
                    for field in [header::CONTENT_ENCODING, header::ETAG] {
                        page.headers_mut().remove(field);
                    }
                }
                headers::for_view(page.headers_mut(), name, apps);
                page
            }
            _ => {
                let mut page = text(StatusCode::NOT_FOUND, "this page can be reached through the app only\n");
                headers::for_view(page.headers_mut(), "", apps);
                page
            }
        }
    }
}

impl Site for App {
    fn respond(&self, request: &Parts) -> Page {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let path = request.uri.path();
        match self.views.host(request) {
            Host::App { views } => self.app_page(path, &request.headers, &views),
            Host::View { apps } => self.view_page(path, &request.headers, &apps),
        }
    }

    fn has_devices(&self, request: &Parts) -> bool {
        matches!(self.views.host(request), Host::App { .. })
    }
}

/// A file, packed where the browser takes that; nothing where it has it already.
fn answer(file: &File, request: &HeaderMap) -> Page {
    let names = |field, word: &str| {
        request
            .get_all(field)
            .iter()
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().split(';').next() == Some(word)))
    };
    let mut page = Page::new(Full::default());
    let fields = page.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    fields.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    fields.insert(header::ETAG, file.tag.clone());
    if file.tag.to_str().is_ok_and(|tag| names(header::IF_NONE_MATCH, tag)) {
        *page.status_mut() = StatusCode::NOT_MODIFIED;
        return page;
    }
    match &file.packed {
        Some(packed) if names(header::ACCEPT_ENCODING, "gzip") => {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            *page.body_mut() = Full::new(packed.clone());
        }
        _ => *page.body_mut() = Full::new(file.plain.clone()),
    }
    page
}

#[cfg(test)]
mod tests;
