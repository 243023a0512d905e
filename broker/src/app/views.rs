//! Which hosts show farm pages.

use std::str::FromStr;

use hyper::header;
use hyper::http::request::Parts;
use serde::Deserialize;

/// Path of what a view host serves itself.
pub(super) const PREFIX: &str = "/__view/";

/// Where those files lie among the app's.
pub(super) const FILES: &str = "/view/";

/// Text that is no pattern of view hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} does not say where farm pages are shown: https://*.HOST[:PORT] is expected, on another domain than the app's"
)]
pub struct ViewsError(String);

/// Where farm pages are shown: on hosts of their own, one per service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Views {
    /// On `*.localhost`, where the app itself is called by a loopback name:
    /// for demos and development. Else nowhere.
    #[default]
    Loopback,
    /// On hosts below this one.
    At {
        /// `https` or `http`.
        scheme: String,
        /// Host and, where given, port.
        authority: String,
        /// The app's origins, which alone may frame the pages.
        apps: Vec<String>,
    },
}

/// What a request's host is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// The app; farm pages are shown at this pattern.
    App { views: String },
    /// A service's pages; these origins are the app's.
    View { apps: Vec<String> },
}

impl FromStr for Views {
    type Err = ViewsError;

    fn from_str(text: &str) -> Result<Self, ViewsError> {
        let wrong = || ViewsError(text.to_owned());
        let (scheme, rest) = text.split_once("://*.").ok_or_else(wrong)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        if !matches!(scheme, "https" | "http") || rest.is_empty() || !rest.chars().all(fits) {
            return Err(wrong());
        }
        Ok(Self::At { scheme: scheme.to_owned(), authority: rest.to_ascii_lowercase(), apps: Vec::new() })
    }
}

impl TryFrom<String> for Views {
    type Error = ViewsError;

    fn try_from(text: String) -> Result<Self, ViewsError> {
        text.parse()
    }
}

impl Views {
    /// With the app's origin, which alone may frame the pages.
    #[must_use]
    pub fn framed_by(mut self, app: String) -> Self {
        if let Self::At { apps, .. } = &mut self {
            apps.push(app);
        }
        self
    }

    /// What the host of this request is for.
    pub(super) fn host(&self, request: &Parts) -> Host {
        let authority = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = authority.unwrap_or_default().to_ascii_lowercase();
        match self {
            Self::At { scheme, authority: base, apps } => {
                let below = authority.strip_suffix(base.as_str()).and_then(|label| label.strip_suffix('.'));
                match below {
                    Some(_) => Host::View { apps: apps.clone() },
                    None => Host::App { views: format!("{scheme}://*.{base}") },
                }
            }
            Self::Loopback => loopback(&authority),
        }
    }
}

fn loopback(authority: &str) -> Host {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => (host, format!(":{port}")),
        _ => (authority, String::new()),
    };
    if host.ends_with(".localhost") {
        // No `[::1]`: a policy can't name it.
        let apps = ["localhost", "127.0.0.1"].map(|name| format!("http://{name}{port}"));
        return Host::View { apps: apps.into() };
    }
    match host {
        "localhost" | "127.0.0.1" | "[::1]" => Host::App { views: format!("http://*.localhost{port}") },
        // By another name there is nowhere to show farm pages.
        _ => Host::App { views: "'none'".to_owned() },
    }
}
