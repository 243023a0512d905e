//! What the box meets: a network of this machine's own, a broker, a greenhouse
//! beside the box, and a phone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::{ImageError, doing, wrong};
use crate::greenhouse::content;
use crate::harness::farm::{Broker, Daemon, Forward, PATIENCE, Phone, Place, greenhouse};
use crate::harness::http::Request;
use crate::harness::{run, until};

/// This machine in the namespace: an address for documentation (RFC 5737), the
/// same seen from the box and from here, so that links and candidates fit both.
const HERE: &str = "192.0.2.1";

/// What is downloaded through the tunnel.
const MEGABYTES: u64 = 2;

/// A download through an emulated box takes seconds; the box may have got its
/// power just now, on a machine that is as busy as for [`super::guest::BOOT`].
const DOWNLOAD: Duration = Duration::from_secs(600);

/// Everything but the box.
pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) phone: Phone,
    forward: Option<Forward>,
    /// What the card says that a phone is to open.
    link: Option<String>,
    paired: bool,
    wanted: String,
    key: PathBuf,
    public_key: String,
    // Kept running.
    _greenhouse: Daemon,
}

impl World {
    /// Moves this process into a network of its own and starts everything.
    pub(super) fn start(dir: &Path) -> Result<Self, ImageError> {
        // Before any other thread is there: each would stay outside.
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
            ImageError::Unable(format!("no network of the test's own can be made ({error}): run it as root"))
        })?;
        for words in [
            "link set lo up",
            "link add here type veth peer name there",
            "address add 192.0.2.1/24 dev here",
            "link set here up",
            "link set there up",
        ] {
            run("ip", Command::new("ip").args(words.split(' ')), PATIENCE)
                .map_err(|error| ImageError::Unable(error.to_string()))?;
        }
        let address = |port: u16| SocketAddr::new(HERE.parse().expect("an address"), port);
        let mut greenhouse = greenhouse(Place::here(), address(8080));
        greenhouse.start()?;
        let mut broker = Broker::new(Place::here(), &dir.join("broker"), address(8443), None)?;
        broker.daemon.start()?;
        let phone = Phone::new(Place::here(), &dir.join("phone"))?;
        let key = dir.join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "image-test", "-f"]).arg(&key);
        run("ssh-keygen", &mut keygen, PATIENCE)?;
        let public_key = doing("reading the key", std::fs::read_to_string(key.with_extension("pub")))?;
        let wanted = content::sha256(MEGABYTES * 1_000_000);
        let (forward, link, paired) = (None, None, false);
        Ok(Self { broker, phone, forward, link, paired, wanted, key, public_key, _greenhouse: greenhouse })
    }

    /// A phone that knows nobody: a new box knows nobody either.
    pub(super) fn strangers(&mut self, dir: &Path) -> Result<(), ImageError> {
        (self.forward, self.link, self.paired) = (None, None, false);
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return doing("forgetting the phone", Err(error));
            }
            _ => {}
        }
        self.phone = Phone::new(Place::here(), dir)?;
        Ok(())
    }

    /// Somebody read this link off the card.
    pub(super) fn invited(&mut self, link: String) {
        self.link = Some(link);
    }

    /// Whether there is a link that nobody has used.
    pub(super) fn is_invited(&self) -> bool {
        self.link.is_some()
    }

    /// Whether the phone is paired with the box.
    pub(super) fn is_paired(&self) -> bool {
        self.paired
    }

    /// Pairs the phone, by the card's link.
    pub(super) fn pair(&mut self) -> Result<(), ImageError> {
        let link = self.link.take().ok_or_else(|| wrong("no link was read off the card"))?;
        self.phone.pair(&link)?;
        self.paired = true;
        Ok(())
    }

    /// The private key for the box.
    pub(super) fn key(&self) -> PathBuf {
        self.key.clone()
    }

    /// An installer's config.
    pub(super) fn config(&self, token: &str) -> String {
        format!(
            "name = \"Box\"\nbroker = \"{}\"\nenrollment_token = \"{token}\"\n\
             [[services]]\nname = \"greenhouse\"\nkind = \"http\"\naddress = \"{HERE}:8080\"\n\
             [readings]\ninterval_seconds = 10\n\
             [box]\nssh_key = \"{}\"\n[debug]\nfault_injection = true\n",
            self.broker.url(),
            self.public_key.trim()
        )
    }

    /// Downloads a file of the greenhouse through the tunnel, again and again
    /// until it comes whole with the right checksum; when that was.
    pub(super) fn serves(&mut self) -> Result<Instant, ImageError> {
        if self.forward.is_none() {
            self.forward = Some(self.phone.forward("Box", "greenhouse")?);
        }
        let Some(forward) = &self.forward else { return Err(ImageError::Wrong("no forward".to_owned())) };
        let path = format!("/download/{MEGABYTES}MB.bin");
        let mut last = String::new();
        let done = until("a download through the tunnel", DOWNLOAD, || {
            let result = Request::get(&path).patience(Duration::from_secs(60)).send(forward.address);
            match result {
                Ok(response) if response.status == 200 => Some(response.sha256),
                Ok(response) => {
                    last = format!("status {}", response.status);
                    None
                }
                Err(error) => {
                    last = error.to_string();
                    None
                }
            }
        });
        let (sum, _) = done.map_err(|error| ImageError::Wrong(format!("{error}; at last: {last}")))?;
        if sum != self.wanted {
            return Err(ImageError::Wrong(format!("the file came with checksum {sum}, not {}", self.wanted)));
        }
        Ok(Instant::now())
    }

    /// The readings that the farm has for the phone: number and value.
    pub(super) fn readings(&self) -> Result<Vec<(u64, String)>, ImageError> {
        let mut command = self.phone.command(["readings", "Box", "--since", "0", "--json"])?;
        let done = run("farm-connect readings", &mut command, DOWNLOAD)?;
        let lines = done.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.filter_map(|line| Some((line["sequence"].as_u64()?, line.to_string()))).collect())
    }
}
