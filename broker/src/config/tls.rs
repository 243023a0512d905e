//! What the config says about TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::server::tls::{AcmeOptions, CertificateFiles, CertificateSource, LETS_ENCRYPT, MAX_DOMAINS};

/// The table `[tls]`: a certificate from files, or one by ACME.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct TlsSettings {
    from: From,
    /// A plain port that sends browsers on to `https`.
    pub redirect: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Files(CertificateFiles),
    Acme(AcmeSettings),
}

/// The table as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    acme: Option<AcmeSettings>,
    redirect: Option<SocketAddr>,
}

/// The table `[tls.acme]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcmeSettings {
    /// The broker's names, and those of the views.
    domains: Vec<String>,
    /// An address for the authority's mails.
    contact: Option<String>,
    /// The authority.
    #[serde(default = "lets_encrypt")]
    directory: String,
    /// Whom to trust about the authority itself.
    ca: Option<PathBuf>,
}

fn lets_encrypt() -> String {
    LETS_ENCRYPT.to_owned()
}

impl AcmeSettings {
    fn check(&self) -> Result<(), String> {
        if self.domains.is_empty() || self.domains.len() > MAX_DOMAINS {
            return Err(format!("[tls.acme] needs 1 to {MAX_DOMAINS} `domains`"));
        }
        for domain in &self.domains {
            if domain.starts_with("*.") {
                return Err(format!(
                    "{domain:?}: a wildcard can't be proved over TLS; get it elsewhere (certbot with DNS) and name its files under [tls]"
                ));
            }
            let fits = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            };
            let number = domain.bytes().all(|c| c.is_ascii_digit() || c == b'.');
            if number || domain.len() > 253 || !domain.split('.').all(fits) {
                return Err(format!("{domain:?} is not a domain name, as an authority signs them"));
            }
        }
        if !self.directory.starts_with("https://") {
            return Err(format!("the directory {:?} is no https:// URL", self.directory));
        }
        match &self.contact {
            Some(contact) if !contact.contains('@') => {
                Err(format!("the contact {contact:?} is no mail address"))
            }
            _ => Ok(()),
        }
    }
}

impl TryFrom<Written> for TlsSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { certificate, key, acme, redirect } = written;
        let from = match (certificate, key, acme) {
            (Some(certificate), Some(key), None) => From::Files(CertificateFiles { certificate, key }),
            (None, None, Some(acme)) => {
                acme.check()?;
                From::Acme(acme)
            }
            (Some(_), None, None) => return Err("[tls] has a `certificate` but no `key`".to_owned()),
            (None, Some(_), None) => return Err("[tls] has a `key` but no `certificate`".to_owned()),
            (None, None, None) => {
                return Err("[tls] needs `certificate` and `key`, or [tls.acme]".to_owned());
            }
            (_, _, Some(_)) => {
                return Err("[tls] has files and [tls.acme]: only one can be the certificate".to_owned());
            }
        };
        Ok(Self { from, redirect })
    }
}

impl TlsSettings {
    /// Where the certificate comes from. What an authority gives is kept in
    /// the state directory.
    pub fn source(&self, state: &Path) -> CertificateSource {
        match &self.from {
            From::Files(files) => CertificateSource::Files(files.clone()),
            From::Acme(acme) => CertificateSource::Acme(AcmeOptions {
                domains: acme.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
                contact: acme.contact.iter().map(|contact| format!("mailto:{contact}")).collect(),
                directory: acme.directory.clone(),
                ca: acme.ca.clone(),
                state: state.join("acme"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TlsSettings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_domain_is_enough() {
        let settings =
            read("[acme]\ndomains = [\"Broker.example.org\"]\ncontact = \"me@example.org\"").unwrap();
        let CertificateSource::Acme(acme) = settings.source(Path::new("/state")) else {
            panic!("{settings:?}")
        };
        assert_eq!(acme.domains, ["broker.example.org"]);
        assert_eq!(acme.contact, ["mailto:me@example.org"]);
        assert_eq!((acme.directory.as_str(), acme.state.as_path()), (LETS_ENCRYPT, Path::new("/state/acme")));
    }

    #[test]
    fn what_no_authority_would_sign_is_named() {
        for (text, expected) in [
            ("", "needs `certificate`"),
            ("key = \"/k\"", "no `certificate`"),
            ("key = \"/k\"\ncertificate = \"/c\"\n[acme]\ndomains = [\"a.b\"]", "only one"),
            ("[acme]\ndomains = []", "1 to 100"),
            ("[acme]\ndomains = [\"*.example.org\"]", "wildcard"),
            ("[acme]\ndomains = [\"192.0.2.1\"]", "192.0.2.1"),
            ("[acme]\ndomains = [\"a b\"]", "a b"),
            ("[acme]\ndomains = [\"a.b\"]\ndirectory = \"http://x\"", "http://x"),
            ("[acme]\ndomains = [\"a.b\"]\ncontact = \"me\"", "\"me\""),
            ("[acme]\ndomain = [\"a.b\"]", "domain"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
