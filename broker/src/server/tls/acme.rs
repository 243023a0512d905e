//! A certificate by ACME (RFC 8555), proved by TLS-ALPN-01 (RFC 8737) at the
//! listener itself, and renewed while the broker runs.
//!
//! The library does one order at a time. When to order, what is kept and what
//! is shown meanwhile is ours: its own schedule has no deadlines.

mod kept;
mod pace;
mod refusal;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_channel::Receiver;
use async_trait::async_trait;
use futures_rustls::rustls::ClientConfig;
use futures_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_util::StreamExt;
use rustls_acme::{
    AccountCache, AcmeConfig, CertCache, EventOk, ResolvesServerCertAcme, is_tls_alpn_challenge,
};
use smol::Timer;
use smol::future::or;

use super::TlsError;
use super::authorities::client;
use super::current::Current;
use crate::server::blocking::on_a_thread;
use crate::store::unix_time;
use kept::Kept;
use pace::Pace;
use refusal::OrderFailure;

/// The protocol that a validating authority asks for, and nobody else.
pub(super) const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// Let's Encrypt's production directory.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// An order must be done within this time: the library waits up to 31 s for
/// each name's validation, and a slow authority issues within a minute or two.
const ORDER_WITHIN: Duration = Duration::from_secs(300);

/// Most names of one certificate: what Let's Encrypt signs.
pub const MAX_DOMAINS: usize = 100;

/// How to get a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeOptions {
    /// The names in the certificate; the authority connects to port 443 of each.
    pub domains: Vec<String>,
    /// Where the authority may write to, `mailto:…`.
    pub contact: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// Trusted for the connection to the authority, in PEM; unless given, the
    /// public authorities.
    pub ca: Option<PathBuf>,
    /// Where account and certificate are kept.
    pub state: PathBuf,
}

/// Shows the challenge's certificate to the authority, and the broker's to all
/// others.
#[derive(Debug, Default)]
pub(super) struct Shown {
    current: Arc<Current>,
    challenge: Mutex<Option<Arc<ResolvesServerCertAcme>>>,
}

impl Shown {
    fn challenge(&self, with: Option<Arc<ResolvesServerCertAcme>>) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = with;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if !is_tls_alpn_challenge(&hello) {
            return self.current.key();
        }
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        challenge?.resolve(hello)
    }
}

/// Orders certificates.
pub(super) struct Acme {
    options: AcmeOptions,
    client: Arc<ClientConfig>,
    kept: Kept,
    shown: Arc<Shown>,
    pace: Pace,
    told: Option<OrderFailure>,
}

impl Acme {
    /// With the certificate that is kept, if there is one. Blocks on the disk
    /// for a moment.
    pub(super) fn open(options: AcmeOptions) -> Result<Self, TlsError> {
        let client = client(options.ca.as_deref())?;
        let kept = Kept::new(options.state.clone(), &options.domains, &options.contact, &options.directory);
        let shown = Arc::new(Shown::default());
        let acme = Self { options, client, kept, shown, pace: Pace::default(), told: None };
        match acme.kept.certificate() {
            Ok(Some((key, _))) => acme.shown.current.set(key),
            Ok(None) => tracing::info!("no certificate yet: it is ordered now"),
            Err(error) => {
                tracing::warn!(%error, path = %acme.options.state.display(), "the kept certificate is not used: another one is ordered");
            }
        }
        Ok(acme)
    }

    pub(super) fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }

    pub(super) fn current(&self) -> &Arc<Current> {
        &self.shown.current
    }

    /// Orders whenever it is time, until the broker ends. Asked, it tries at
    /// once what it put off.
    pub(super) async fn run(mut self, asked: Receiver<()>) {
        let mut wanted = matches!(self.kept.certificate(), Ok(Some((_, true))));
        loop {
            let validity = if wanted { self.shown.current.validity() } else { None };
            let wait = self.pace.wait(validity, unix_time());
            if wait > 0 {
                let late = async {
                    Timer::after(Duration::from_secs(wait)).await;
                    Some(false)
                };
                match or(async { asked.recv().await.ok().map(|()| true) }, late).await {
                    // Nobody can ask any more: the broker is going.
                    None => return,
                    Some(true) => self.pace.reset(),
                    Some(false) => {}
                }
                continue;
            }
            let ordered = or(self.order(), async {
                Timer::after(ORDER_WITHIN).await;
                Err(OrderFailure::Late { directory: self.options.directory.clone() })
            })
            .await;
            self.shown.challenge(None);
            match ordered {
                Ok(()) => {
                    wanted = true;
                    self.told = None;
                    self.pace.reset();
                }
                Err(failure) => {
                    self.pace.failed(failure.kind(), unix_time());
                    self.tell(failure);
                }
            }
        }
    }

    /// Once per change of the cause.
    fn tell(&mut self, failure: OrderFailure) {
        if self.told.as_ref() == Some(&failure) {
            return;
        }
        match self.shown.current.validity() {
            Some(validity) => {
                let days_left = validity.until.saturating_sub(unix_time()) / 86_400;
                tracing::error!(error = %failure, days_left, "the old certificate stays in use");
            }
            None => tracing::error!(error = %failure, "there is no certificate: nobody can connect"),
        }
        self.told = Some(failure);
    }

    /// One order, from the account to the certificate in use.
    async fn order(&self) -> Result<(), OrderFailure> {
        let Self { options, kept, .. } = self;
        let got = Arc::new(Mutex::new(None));
        let cache = Once { kept: kept.clone(), got: got.clone() };
        let mut state = AcmeConfig::new_with_client_config(&options.domains, self.client.clone())
            .directory(&options.directory)
            .contact(&options.contact)
            .cache(cache)
            .state();
        self.shown.challenge(Some(state.resolver()));
        while let Some(event) = state.next().await {
            match event {
                // It is stored next.
                Ok(EventOk::DeployedNewCert | EventOk::DeployedCachedCert | EventOk::AccountCacheStore) => {}
                Ok(EventOk::CertCacheStore) => break,
                Err(error @ rustls_acme::EventError::AccountCacheStore(_)) => {
                    tracing::warn!(%error, "the account is not kept: the next order makes another one");
                }
                Err(error) => return Err(OrderFailure::of(&options.directory, &error)),
            }
        }
        let pem: Option<Vec<u8>> = got.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pem = pem.ok_or_else(|| other("the library gave no certificate"))?;
        let key = kept::parse(&pem).map_err(other)?;
        self.shown.current.set(key);
        tracing::info!(
            domains = options.domains.join(" "),
            "a certificate was issued: new connections get it"
        );
        let kept = kept.clone();
        if let Err(error) = on_a_thread("farm-acme", move || kept.keep_certificate(&pem)).await {
            tracing::error!(%error, path = %options.state.display(), "the certificate is in use but not kept: the next start orders another one");
        }
        Ok(())
    }
}

fn other(why: impl ToString) -> OrderFailure {
    OrderFailure::Other { why: why.to_string() }
}

/// The library's memory for one order: the account is kept, a certificate is
/// always wanted, and handed over.
struct Once {
    kept: Kept,
    got: Arc<Mutex<Option<Vec<u8>>>>,
}

#[async_trait]
impl CertCache for Once {
    type EC = io::Error;

    async fn load_cert(&self, _domains: &[String], _directory: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    async fn store_cert(&self, _domains: &[String], _directory: &str, pem: &[u8]) -> io::Result<()> {
        *self.got.lock().unwrap_or_else(PoisonError::into_inner) = Some(pem.to_vec());
        Ok(())
    }
}

#[async_trait]
impl AccountCache for Once {
    type EA = io::Error;

    async fn load_account(&self, _contact: &[String], _directory: &str) -> io::Result<Option<Vec<u8>>> {
        let kept = self.kept.clone();
        on_a_thread("farm-acme", move || kept.account()).await
    }

    async fn store_account(&self, _contact: &[String], _directory: &str, key: &[u8]) -> io::Result<()> {
        let (kept, key) = (self.kept.clone(), key.to_vec());
        on_a_thread("farm-acme", move || kept.keep_account(&key)).await
    }
}
