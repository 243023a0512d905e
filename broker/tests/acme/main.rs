//! Certificates by ACME from a real authority on loopback: pebble, which
//! Debian packages. Without it these tests say that they are skipped.
#![allow(clippy::unwrap_used)]

#[path = "../server/client.rs"]
#[allow(dead_code)]
mod client;
mod pebble;
mod running;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::ClientRequestBuilder;
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use smol::net::TcpStream;
use tempfile::TempDir;

use client::{Client, Device, run};
use pebble::{Host, Pebble};
use running::Running;

const DOMAIN: &str = "broker.example.org";

fn config(dir: &Path, host: &Host) -> String {
    let path = dir.join("farm-broker.toml");
    let text = format!(
        "listen = \"{}\"\npublic_url = \"https://{DOMAIN}\"\nstate = {:?}\nstun = \"off\"\n\n\
         [tls.acme]\ndomains = [\"{DOMAIN}\"]\ncontact = \"operator@example.org\"\n\
         directory = \"{}\"\nca = {:?}\n",
        host.at(pebble::TLS_PORT),
        dir.join("state"),
        host.directory(),
        host.ca(),
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A connection by somebody who trusts the authority alone, and the
/// certificate that it was shown.
async fn secure(host: &Host, root: &CertificateDer<'static>) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(host.at(pebble::TLS_PORT)).await?;
    TlsConnector::from(Arc::new(config)).connect(DOMAIN.try_into().unwrap(), stream).await
}

/// The serial-numbered certificate that new connections get.
fn shown(host: &Host, root: &CertificateDer<'static>) -> Option<Vec<u8>> {
    let stream = run(secure(host, root)).ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < within, "{what} did not come within {within:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_certificate_is_issued_kept_and_renewed_while_a_device_stays() {
    let dir = TempDir::new().unwrap();
    let Some(host) = Host::new(dir.path(), 1) else { return };
    // Renewed a third before its end: 20 s after it was issued.
    let pebble = Pebble::start(&host, 30);
    let broker = Running::start(&config(dir.path(), &host));
    broker.wait_for("a certificate was issued");
    let root = pebble.root();
    let first = shown(&host, &root).expect("a trusted certificate");
    let folder = dir.path().join("state/acme");
    let kept = || std::fs::read(folder.join("certificate.pem")).ok();
    let before = until("the certificate on disk", Duration::from_secs(30), kept);

    let request = || {
        let uri = format!("wss://{DOMAIN}{CONNECT_PATH}").parse().unwrap();
        ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL)
    };
    let phone = Device::phone(1);
    let mut device = run(async {
        let stream = secure(&host, &root).await.unwrap();
        let (stream, _) = async_tungstenite::client_async(request(), stream).await.unwrap();
        let mut device = Client::over(stream).await;
        device.enter(&phone).await;
        device
    });
    let second = until("a renewed certificate", Duration::from_secs(60), || {
        shown(&host, &root).filter(|certificate| *certificate != first)
    });
    run(device.settle(&phone));
    drop(device);

    // What was issued is there at once after a restart, without the authority.
    until("the renewed certificate on disk", Duration::from_secs(30), || kept().filter(|now| *now != before));
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let accounts = names.filter(|name| name.to_str().unwrap().starts_with("account-")).count();
    assert_eq!(accounts, 1);
    broker.stop();
    drop(pebble);
    let broker = Running::start(&config(dir.path(), &host));
    let kept = shown(&host, &root).expect("the kept certificate");
    assert!(kept == second || kept != first, "the newest one");
    drop(broker);
}

#[test]
fn an_authority_that_is_away_or_says_no_is_told_once_and_the_old_certificate_stays() {
    let dir = TempDir::new().unwrap();
    let Some(host) = Host::new(dir.path(), 2) else { return };
    let broker = Running::start(&config(dir.path(), &host));
    let told = broker.wait_for("can't be reached");
    assert!(told.contains(&host.directory()) && told.contains("nobody can connect"), "{told}");
    // It is tried again by itself, and says nothing new of the same cause.
    let pebble = Pebble::start(&host, 3600);
    broker.wait_for("a certificate was issued");
    assert_eq!(broker.lines("can't be reached"), 1);
    let root = pebble.root();
    let first = shown(&host, &root).expect("a trusted certificate");
    broker.stop();

    // An order for a name that does not lead here: refused, the old one stays.
    let path = config(dir.path(), &host);
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace("domains = [", "domains = [\"elsewhere.example.org\", ");
    std::fs::write(&path, other).unwrap();
    pebble.point("elsewhere.example.org", "127.99.99.99");
    let broker = Running::start(&path);
    let told = broker.wait_for("could not verify");
    assert!(told.contains("elsewhere.example.org") && told.contains("port 443"), "{told}");
    assert!(told.contains("the old certificate stays"), "{told}");
    assert_eq!(shown(&host, &root), Some(first));
}
