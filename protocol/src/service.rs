//! Services: what a farm lets its phones reach.

use serde::{Deserialize, Serialize};

/// Longest name: with a farm's id (32) and `--` it fits one label of a host
/// name (63 characters, RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 29;

/// Most services of one farm.
pub const MAX_SERVICES: usize = 64;

/// How a service is shown and opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Web pages: the app opens them inside.
    Http,
    /// Any protocol over TCP: forwarded to a local port.
    Tcp,
}

/// A service as the farm announces it. The address behind it stays at the farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, see [`check_name`].
    pub name: String,
    /// Its kind.
    pub kind: ServiceKind,
}

/// A service name that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service name {0:?} is not usable: 1 to {MAX_NAME} characters of a-z, 0-9 and single hyphens inside")]
pub struct NameError(String);

/// Whether a name fits a label of a host name and our own separator `--`.
///
/// # Errors
/// [`NameError`] with the rule.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if fits { Ok(()) } else { Err(NameError(name.chars().take(64).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for good in ["greenhouse", "cam-2", "a", "0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "Greenhouse", "теплица", "a b", &"x".repeat(30)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
