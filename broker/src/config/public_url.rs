//! The URL by which devices call the broker, and the names that follow from it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use serde::Deserialize;

/// Text that is not a broker's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a broker's URL: https://HOST or https://HOST:PORT is expected, without a path")]
pub struct PublicUrlError(String);

/// `https://HOST[:PORT]`; `wss`, `http` and `ws` are understood too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl {
    text: String,
    host: String,
    port: Option<u16>,
    default_port: u16,
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let wrong = || PublicUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let default_port = match uri.scheme_str() {
            Some("https" | "wss") => 443,
            Some("http" | "ws") => 80,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        // By hand: a port out of range is no port at all to the library.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => None,
            Some(rest) => {
                let digits = rest.strip_prefix(':').ok_or_else(wrong)?;
                Some(digits.parse().map_err(|_| wrong())?)
            }
            // Something before the host: credentials.
            None => return Err(wrong()),
        };
        let bare = uri.path() == "/" && uri.query().is_none() && !text.contains('#');
        if !bare || authority.host().is_empty() {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), host: authority.host().to_ascii_lowercase(), port, default_port })
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = PublicUrlError;

    fn try_from(text: String) -> Result<Self, PublicUrlError> {
        text.parse()
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PublicUrl {
    /// The web origin of what is served there.
    pub fn origin(&self) -> String {
        let (scheme, own) = if self.default_port == 443 { ("https", 443) } else { ("http", 80) };
        match self.port.filter(|port| *port != own) {
            Some(port) => format!("{scheme}://{}:{port}", self.host),
            None => format!("{scheme}://{}", self.host),
        }
    }

    /// Host and, where it is not the scheme's own, port.
    pub fn authority(&self) -> String {
        match self.port.filter(|port| *port != self.default_port) {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// What devices with this URL call the broker: the port that the scheme
    /// implies may be written or left out.
    pub fn names(&self) -> BTreeSet<String> {
        let port = self.port.unwrap_or(self.default_port);
        let mut names = BTreeSet::from([format!("{}:{port}", self.host)]);
        if port == self.default_port {
            names.insert(self.host.clone());
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> Vec<String> {
        url.parse::<PublicUrl>().unwrap().names().into_iter().collect()
    }

    #[test]
    fn the_implied_port_may_be_left_out() {
        let both = ["broker.example.org", "broker.example.org:443"];
        assert_eq!(names("https://Broker.example.org"), both);
        assert_eq!(names("wss://broker.example.org:443/"), both);
        assert_eq!(names("https://broker.example.org:8443"), ["broker.example.org:8443"]);
        assert_eq!(names("ws://127.0.0.1:8443"), ["127.0.0.1:8443"]);
        assert_eq!(names("https://[2001:DB8::1]"), ["[2001:db8::1]", "[2001:db8::1]:443"]);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for wrong in [
            "",
            "broker.example.org",
            "ftp://broker.example.org",
            "https://broker.example.org/path",
            "https://broker.example.org/?q",
            "https://broker.example.org/#f",
            "https://user@broker.example.org",
            "https://broker.example.org:99999",
            "https://broker.example.org:",
            "https://",
        ] {
            let error = wrong.parse::<PublicUrl>().expect_err(wrong).to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
