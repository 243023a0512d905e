//! What went wrong with an order, in words that say what to do. Two failures
//! of one cause have the same words, so that the log tells each cause once.

use std::io;

use rustls_acme::acme::{AcmeError, Auth, Identifier};
use rustls_acme::{EventError, OrderError};

use super::pace::Failure;

/// What every problem type of RFC 8555 section 6.7 begins with.
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// Why there is no new certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderFailure {
    /// It was not reached.
    #[error(
        "the authority at {directory} can't be reached ({why}): it is tried again; check this machine's network, DNS and the URL"
    )]
    Away {
        /// Its directory.
        directory: String,
        /// Why.
        why: String,
    },
    /// It did not answer in time.
    #[error("the authority at {directory} did not finish in time: it is tried again")]
    Late {
        /// Its directory.
        directory: String,
    },
    /// It could not convince itself that the name is ours.
    #[error(
        "the authority could not verify {domain} ({why}): its address must be this machine's, and port 443 there must reach `listen`"
    )]
    Unverified {
        /// The name.
        domain: String,
        /// What it says.
        why: String,
    },
    /// It does not want to.
    #[error("the authority refuses ({why}): check `domains` and `contact` under [tls.acme]")]
    Refused {
        /// What it says.
        why: String,
    },
    /// Something else.
    #[error("the order failed: {why}")]
    Other {
        /// What the library says.
        why: String,
    },
}

impl OrderFailure {
    /// From what the library says.
    pub(super) fn of(directory: &str, error: &EventError<io::Error, io::Error>) -> Self {
        match error {
            EventError::Order(OrderError::Acme(error)) => Self::of_acme(directory, error),
            EventError::Order(OrderError::BadAuth(auth)) => Self::of_auth(auth),
            EventError::Order(OrderError::TooManyAttemptsAuth(domain)) => {
                Self::Unverified { domain: domain.clone(), why: "it never came to an end".to_owned() }
            }
            EventError::Order(OrderError::BadOrder(order)) => {
                let problem = order.error.as_ref().and_then(|problem| problem.detail.clone());
                Self::Refused { why: problem.unwrap_or_else(|| "without a reason".to_owned()) }
            }
            EventError::Order(OrderError::ProcessingTimeout(_)) => {
                Self::Late { directory: directory.to_owned() }
            }
            other => Self::Other { why: other.to_string() },
        }
    }

    fn of_acme(directory: &str, error: &AcmeError) -> Self {
        let text = error.to_string();
        if let Some(at) = text.find(PROBLEM) {
            let kind = text[at + PROBLEM.len()..].chars().take_while(char::is_ascii_alphanumeric).collect();
            return Self::Refused { why: kind };
        }
        match error {
            AcmeError::Io(_) | AcmeError::HttpRequest(_) | AcmeError::Json(_) => {
                Self::Away { directory: directory.to_owned(), why: shorten(&text) }
            }
            _ => Self::Other { why: text },
        }
    }

    fn of_auth(auth: &Auth) -> Self {
        let Identifier::Dns(domain) = &auth.identifier;
        let problem = auth.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        let why = problem.and_then(|problem| {
            let kind = problem.typ.as_deref().unwrap_or_default();
            Some(format!("{}: {}", kind.trim_start_matches(PROBLEM), problem.detail.as_deref()?))
        });
        Self::Unverified { domain: domain.clone(), why: why.unwrap_or_else(|| "without a reason".to_owned()) }
    }

    /// When to try again.
    pub(super) fn kind(&self) -> Failure {
        match self {
            Self::Away { .. } => Failure::Away,
            // RFC 8555 section 6.5: try again; the library does not.
            Self::Refused { why } if matches!(why.as_str(), "badNonce" | "serverInternal") => Failure::Away,
            _ => Failure::Refused,
        }
    }
}

/// The library wraps the cause several times in its debug form.
fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use rustls_acme::acme::{AuthStatus, Challenge, ChallengeType, Problem};

    use super::*;

    type Event = EventError<io::Error, io::Error>;

    fn of(error: AcmeError) -> OrderFailure {
        OrderFailure::of("https://a.test/", &Event::Order(OrderError::Acme(error)))
    }

    #[test]
    fn each_cause_has_its_way_out() {
        let away = of(AcmeError::Io(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(away.kind(), Failure::Away);
        assert!(away.to_string().contains("https://a.test/") && away.to_string().contains("DNS"), "{away}");

        let problem = Problem {
            typ: Some(format!("{PROBLEM}unauthorized")),
            detail: Some("wrong certificate".to_owned()),
        };
        let challenge = Challenge {
            typ: ChallengeType::TlsAlpn01,
            url: "https://a.test/challenge/7".to_owned(),
            token: "t".to_owned(),
            error: Some(problem),
        };
        let auth = Auth {
            status: AuthStatus::Invalid,
            identifier: Identifier::Dns("b.test".to_owned()),
            challenges: vec![challenge],
        };
        let error = OrderFailure::of("https://a.test/", &Event::Order(OrderError::BadAuth(auth)));
        let text = error.to_string();
        assert!(text.contains("b.test") && text.contains("unauthorized: wrong certificate"), "{text}");
        assert!(text.contains("port 443") && !text.contains("/challenge/7"), "{text}");
        assert_eq!(error.kind(), Failure::Refused);
    }
}
