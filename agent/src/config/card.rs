//! The config's `[wifi]` and `[box]`: what an installer says about the box
//! itself. Only the card's image heeds them.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

/// Longest name of a Wi-Fi network, in bytes (IEEE 802.11).
const MAX_SSID: usize = 32;

/// Length of a WPA passphrase (IEEE 802.11, annex J).
const PASSPHRASE: std::ops::RangeInclusive<usize> = 8..=63;

/// Longest line with an SSH key, in bytes: an RSA key of 16384 bits.
const MAX_SSH_KEY: usize = 4096;

/// The Wi-Fi to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// The network's name.
    pub name: String,
    /// Its passphrase; `None` for an open network.
    pub password: Option<String>,
    /// Two letters, upper case: the radio rules to keep.
    pub country: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWifi {
    name: Spanned<String>,
    password: Option<Spanned<String>>,
    country: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBox {
    ssh_key: Option<Spanned<String>>,
}

/// What is wrong, and where.
type Wrong = (Range<usize>, String);

impl FileWifi {
    pub(super) fn check(self) -> Result<Wifi, Wrong> {
        let name = self.name.get_ref();
        if name.is_empty() || name.len() > MAX_SSID {
            return Err((self.name.span(), format!("the Wi-Fi's name must have 1 to {MAX_SSID} bytes")));
        }
        let country = self.country.get_ref().to_ascii_uppercase();
        if country.len() != 2 || !country.bytes().all(|c| c.is_ascii_uppercase()) {
            let problem = "country must be the two letters of the country the box is in, as in \"DE\"";
            return Err((self.country.span(), problem.to_owned()));
        }
        let password = match self.password {
            Some(given) if given.get_ref().is_empty() => None,
            Some(given) => {
                let text = given.get_ref();
                let printable = text.bytes().all(|c| (b' '..=b'~').contains(&c));
                if !PASSPHRASE.contains(&text.len()) || !printable {
                    let problem =
                        "a Wi-Fi password has 8 to 63 letters, digits and signs of an English keyboard";
                    return Err((given.span(), problem.to_owned()));
                }
                Some(given.into_inner())
            }
            None => None,
        };
        Ok(Wifi { name: self.name.into_inner(), password, country })
    }
}

impl FileBox {
    pub(super) fn check(self) -> Result<Option<String>, Wrong> {
        let Some(key) = self.ssh_key else { return Ok(None) };
        let text = key.get_ref().trim();
        if text.is_empty() {
            return Ok(None);
        }
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
        let one_line = text.len() <= MAX_SSH_KEY && !text.contains(['\n', '\r', '\0']);
        if !known || words.next().is_none() || !one_line {
            let problem = "ssh_key must be one line from a file like id_ed25519.pub: ssh-ed25519 AAAA…";
            return Err((key.span(), problem.to_owned()));
        }
        Ok(Some(text.to_owned()))
    }
}
