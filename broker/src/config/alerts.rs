//! `[alerts]`: whom to tell of farms that are away or back.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::server::AlertOptions;
use crate::server::tls::TlsError;
use crate::server::webhook::{Webhook, WebhookUrl};

/// How long a farm is away before anybody is told, in minutes, unless said.
const AFTER: u32 = 10;

/// A minute and a week.
const MINUTES: std::ops::RangeInclusive<u32> = 1..=7 * 24 * 60;

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct AlertSettings {
    /// Where alerts are posted.
    pub url: WebhookUrl,
    after: Duration,
    ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: String,
    after_minutes: Option<u32>,
    ca: Option<PathBuf>,
}

impl TryFrom<Written> for AlertSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { url, after_minutes, ca } = written;
        let url: WebhookUrl = url.parse()?;
        if ca.is_some() && !url.is_secure() {
            return Err("[alerts] has a `ca` for a `url` without TLS: give an https:// one".to_owned());
        }
        let minutes = after_minutes.unwrap_or(AFTER);
        if !MINUTES.contains(&minutes) {
            let (least, most) = MINUTES.into_inner();
            return Err(format!("`after_minutes` is {least} to {most}, not {minutes}"));
        }
        Ok(Self { url, after: Duration::from_secs(u64::from(minutes) * 60), ca })
    }
}

impl AlertSettings {
    /// What the broker is given. Reads the authorities' file.
    ///
    /// # Errors
    /// That can't be used.
    pub fn options(&self) -> Result<AlertOptions, TlsError> {
        Ok(AlertOptions { after: self.after, webhook: Webhook::new(self.url.clone(), self.ca.as_deref())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AlertSettings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn alerts_are_set_by_a_url_and_a_time() {
        let settings = read("url = \"https://hooks.example/x\"").unwrap();
        assert_eq!(settings.after, Duration::from_secs(600));
        let settings = read("url = \"http://127.0.0.1/x\"\nafter_minutes = 3").unwrap();
        assert_eq!(settings.after, Duration::from_secs(180));
    }

    #[test]
    fn mistakes_are_named_without_the_secret() {
        for (text, part) in [
            ("after_minutes = 5", "url"),
            ("url = \"hooks.example/secret\"", "https://HOST"),
            ("url = \"https://h/secret\"\nafter_minutes = 0", "1 to 10080"),
            ("url = \"http://h/secret\"\nca = \"x.pem\"", "without TLS"),
            ("url = \"https://h/secret\"\nfor = 1", "for"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let ca = read("url = \"https://h/x\"\nca = \"/nonexistent.pem\"").unwrap();
        assert!(ca.options().unwrap_err().to_string().contains("/nonexistent.pem"));
    }
}
