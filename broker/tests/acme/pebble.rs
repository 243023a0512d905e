//! The authority, its name server, and the loopback address that they and the
//! broker have for themselves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};

/// Where the authority validates: the broker's own port.
pub(crate) const TLS_PORT: u16 = 5001;
const DIRECTORY_PORT: u16 = 14000;
const MANAGEMENT_PORT: u16 = 15000;
const DNS_PORT: u16 = 8053;
const NAMES_PORT: u16 = 8055;

/// An address of 127.0.0.0/8 that no other test uses, so that fixed ports are
/// free there, and what stands in files about it.
pub(crate) struct Host {
    address: String,
    dir: PathBuf,
    api: CertificateDer<'static>,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

impl Host {
    /// `None`, and a word on it, where pebble is not installed.
    pub(crate) fn new(dir: &Path, number: u8) -> Option<Self> {
        let found = |program| Command::new(program).arg("-h").output().is_ok();
        if !found("pebble") || !found("pebble-challtestsrv") {
            eprintln!("skipped: pebble is missing (Debian: apt-get install pebble)");
            return None;
        }
        let pid = std::process::id();
        let address = format!("127.{}.{}.{number}", 100 + (pid >> 8) % 100, pid % 256);
        let made = rcgen::generate_simple_self_signed(vec![address.clone()]).unwrap();
        let host = Self { address, dir: dir.to_owned(), api: made.cert.der().clone() };
        std::fs::write(host.ca(), pem("CERTIFICATE", made.cert.der())).unwrap();
        let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
        std::fs::write(dir.join("api.key"), key).unwrap();
        Some(host)
    }

    pub(crate) fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://{}/dir", self.at(DIRECTORY_PORT))
    }

    /// Whom to trust about the authority's own server.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("api.pem")
    }

    fn https_get(&self, port: u16, path: &str) -> std::io::Result<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.api.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.address.clone()).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(session, TcpStream::connect(self.at(port))?);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.at(port))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// A running authority; killed when dropped.
pub(crate) struct Pebble<'a> {
    host: &'a Host,
    children: [Child; 2],
}

impl<'a> Pebble<'a> {
    /// Whose certificates last `seconds`.
    pub(crate) fn start(host: &'a Host, seconds: u64) -> Self {
        let config = host.dir.join("pebble.json");
        let text = serde_json::json!({"pebble": {
            "listenAddress": host.at(DIRECTORY_PORT),
            "managementListenAddress": host.at(MANAGEMENT_PORT),
            "certificate": host.ca(),
            "privateKey": host.dir.join("api.key"),
            "httpPort": 5002,
            "tlsPort": TLS_PORT,
            "certificateValidityPeriod": seconds,
        }});
        std::fs::write(&config, text.to_string()).unwrap();
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", &host.address, "-defaultIPv6", "", "-dns01", &host.at(DNS_PORT)])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &host.at(NAMES_PORT)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pebble = Command::new("pebble")
            .args(["-strict", "-dnsserver", &host.at(DNS_PORT), "-config"])
            .arg(&config)
            .env("PEBBLE_VA_NOSLEEP", "1")
            // The library gives up where RFC 8555 says to try again; the broker
            // orders anew, which a test need not wait for.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self { host, children: [names, pebble] };
        let deadline = Instant::now() + Duration::from_secs(30);
        while host.https_get(DIRECTORY_PORT, "/dir").is_err() {
            assert!(Instant::now() < deadline, "pebble did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }

    /// What its certificates go back to.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        let answer = self.host.https_get(MANAGEMENT_PORT, "/roots/0").unwrap();
        CertificateDer::from_pem_slice(&answer).unwrap()
    }

    /// Says where a name leads.
    pub(crate) fn point(&self, name: &str, address: &str) {
        let body = serde_json::json!({"host": name, "addresses": [address]}).to_string();
        let mut stream = TcpStream::connect(self.host.at(NAMES_PORT)).unwrap();
        write!(
            stream,
            "POST /add-a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Pebble<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Where it has ended already there is nothing to kill.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
