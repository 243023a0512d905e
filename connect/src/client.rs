//! What this device keeps: its key and the farms it is paired with.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use farm_protocol::base64url;
use farm_protocol::id::{FarmId, PhoneId};
use farm_protocol::keys::{DeviceKey, KeyError, PublicKey};
use farm_tunnel::broker_socket::{AddressError, Brokers};
use farm_tunnel::history::Report;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

const FILE: &str = "client.json";
const VERSION: u32 = 1;

/// Most farms of one device.
const MAX_FARMS: usize = farm_protocol::broker::MAX_WATCHED;

/// Why the device's state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not ours, or damaged.
    #[error("{path} can't be understood ({problem}): put back a good copy, or move it away and pair again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file is of a newer version.
    #[error("{path} was written by a newer version: update farm-connect")]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No such farm.
    #[error("no paired farm has the id or name {0:?}: see `farm-connect farms`")]
    NoSuchFarm(String),
    /// Several such farms.
    #[error("{0:?} fits several farms: use more of the id")]
    Ambiguous(String),
    /// Too many farms.
    #[error("this device is paired with {MAX_FARMS} farms, its limit")]
    TooManyFarms,
    /// All slots are taken.
    #[error(
        "{0} programs use {1} already, which is the limit: stop one, or give this one a --state of its own"
    )]
    NoSlot(u8, PathBuf),
}

/// A paired farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmRecord {
    /// Its key, pinned at pairing.
    pub key: PublicKey,
    /// What its owner calls it.
    pub name: String,
    /// Where it is met.
    pub broker: Brokers,
}

impl FarmRecord {
    /// Its id.
    pub fn id(&self) -> FarmId {
        FarmId::of(&self.key)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    seed: String,
    farms: Vec<StoredFarm>,
}

#[derive(Serialize, Deserialize)]
struct StoredFarm {
    key: String,
    name: String,
    broker: String,
}

/// This device: its key, its farms, and the directory that keeps them.
#[derive(Debug, Clone)]
pub struct Client {
    directory: PathBuf,
    key: Arc<DeviceKey>,
    farms: Arc<Mutex<Vec<FarmRecord>>>,
}

impl Client {
    /// Opens or creates the device's state.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(directory: &Path) -> Result<Self, ClientError> {
        let io = |source| ClientError::Io { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let path = directory.join(FILE);
        let (key, farms) = match fs::read(&path) {
            Ok(bytes) => read(&path, &bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                (DeviceKey::generate(&SystemRandom::new())?, Vec::new())
            }
            Err(source) => return Err(ClientError::Io { path, source }),
        };
        let client =
            Self { directory: directory.to_owned(), key: Arc::new(key), farms: Arc::new(Mutex::new(farms)) };
        if !path.exists() {
            client.store()?;
        }
        Ok(client)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The device's key.
    pub fn key(&self) -> Arc<DeviceKey> {
        self.key.clone()
    }

    /// The device's id.
    pub fn id(&self) -> PhoneId {
        PhoneId::of(&self.key.public())
    }

    /// The paired farms.
    pub fn farms(&self) -> Vec<FarmRecord> {
        self.farms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A farm by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    /// [`ClientError::NoSuchFarm`], [`ClientError::Ambiguous`].
    pub fn find(&self, wanted: &str) -> Result<FarmRecord, ClientError> {
        let farms = self.farms();
        let fits = |farm: &&FarmRecord| {
            farm.name == wanted || (!wanted.is_empty() && farm.id().to_string().starts_with(wanted))
        };
        let mut fitting = farms.iter().filter(fits);
        let farm = fitting.next().ok_or_else(|| ClientError::NoSuchFarm(wanted.to_owned()))?;
        match fitting.next() {
            Some(_) => Err(ClientError::Ambiguous(wanted.to_owned())),
            None => Ok(farm.clone()),
        }
    }

    /// The outage report of the last `days` of a farm, as far as programs of
    /// this device used it.
    pub fn outages(&self, farm: &FarmRecord, days: u32) -> Report {
        crate::recorder::report(&self.directory, farm.id(), days)
    }

    /// Keeps a farm; one with the same key is replaced.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn add(&self, farm: FarmRecord) -> Result<(), ClientError> {
        {
            let mut farms = self.farms.lock().unwrap_or_else(PoisonError::into_inner);
            farms.retain(|known| known.key != farm.key);
            if farms.len() >= MAX_FARMS {
                return Err(ClientError::TooManyFarms);
            }
            farms.push(farm);
        }
        self.store()
    }

    /// The address at which a farm's broker was last reached, for a start
    /// without DNS.
    pub(crate) fn broker_address(&self, farm: &FarmId) -> Option<SocketAddr> {
        fs::read_to_string(self.directory.join(address_file(farm))).ok()?.trim().parse().ok()
    }

    /// Keeps it. Several programs may do so at once: the last one wins.
    pub(crate) fn remember_broker_address(&self, farm: &FarmId, address: SocketAddr) -> io::Result<()> {
        replace(&self.directory, &address_file(farm), address.to_string().as_bytes())
    }

    /// The number of the newest reading of this farm that was shown.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn position(&self, farm: &FarmRecord) -> Result<u64, ClientError> {
        let path = self.directory.join(position_file(farm));
        match fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| ClientError::Damaged { path, problem: "it is not a number".to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(ClientError::Io { path, source }),
        }
    }

    /// Remembers how far readings of this farm were shown.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn keep_position(&self, farm: &FarmRecord, newest: u64) -> Result<(), ClientError> {
        let name = position_file(farm);
        replace(&self.directory, &name, format!("{newest}\n").as_bytes())
            .map_err(|source| ClientError::Io { path: self.directory.join(name), source })
    }

    fn store(&self) -> Result<(), ClientError> {
        let farms = self.farms();
        let stored = Stored {
            version: VERSION,
            seed: base64url::encode(self.key.seed()),
            farms: farms
                .iter()
                .map(|f| StoredFarm {
                    key: base64url::encode(f.key.as_bytes()),
                    name: f.name.clone(),
                    broker: f.broker.to_string(),
                })
                .collect(),
        };
        let path = self.directory.join(FILE);
        let write =
            || -> io::Result<()> { replace(&self.directory, FILE, &serde_json::to_vec_pretty(&stored)?) };
        write().map_err(|source| ClientError::Io { path, source })
    }
}

fn address_file(farm: &FarmId) -> String {
    format!("broker-of-{farm}.address")
}

fn position_file(farm: &FarmRecord) -> String {
    format!("readings-{}", farm.id())
}

fn read(path: &Path, bytes: &[u8]) -> Result<(DeviceKey, Vec<FarmRecord>), ClientError> {
    let damaged = |problem: String| ClientError::Damaged { path: path.to_owned(), problem };
    let stored: Stored = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if stored.version > VERSION {
        return Err(ClientError::Newer { path: path.to_owned() });
    }
    let key_of = |text: &str| {
        base64url::decode(text)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| damaged("a key is not one".to_owned()))
    };
    let key = DeviceKey::from_seed(key_of(&stored.seed)?)?;
    let farms = stored
        .farms
        .into_iter()
        .map(|f| {
            Ok(FarmRecord {
                key: PublicKey::from_bytes(key_of(&f.key)?),
                broker: Brokers::from_str(&f.broker).map_err(|e: AddressError| damaged(e.to_string()))?,
                name: f.name,
            })
        })
        .collect::<Result<_, ClientError>>()?;
    Ok((key, farms))
}

/// Replaces a file so that a power cut leaves the old or the new one.
pub(crate) fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let (path, temporary) = (directory.join(name), directory.join(format!("{name}.new")));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn farm(n: u8, name: &str) -> FarmRecord {
        FarmRecord {
            key: PublicKey::from_bytes([n; 32]),
            name: name.to_owned(),
            broker: "wss://broker.example.org".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let client = Client::open(&path).unwrap();
        client.add(farm(1, "North field")).unwrap();
        client.add(farm(2, "South field")).unwrap();
        let again = Client::open(&path).unwrap();
        assert_eq!(again.id(), client.id());
        assert_eq!(again.find("South field").unwrap(), farm(2, "South field"));
        let id = farm(1, "").id().to_string();
        assert_eq!(again.find(&id[..6]).unwrap().name, "North field");
        assert!(matches!(again.find("West"), Err(ClientError::NoSuchFarm(_))));
        assert!(matches!(again.find(""), Err(ClientError::NoSuchFarm(_))));
    }

    #[test]
    fn the_brokers_address_is_a_hint_that_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::open(dir.path()).unwrap();
        let id = farm(1, "").id();
        assert_eq!(client.broker_address(&id), None);
        let address = "192.0.2.10:8443".parse().unwrap();
        client.remember_broker_address(&id, address).unwrap();
        assert_eq!(Client::open(dir.path()).unwrap().broker_address(&id), Some(address));
        fs::write(dir.path().join(address_file(&id)), "nonsense").unwrap();
        assert_eq!(client.broker_address(&id), None);
    }

    #[test]
    fn how_far_readings_were_shown_is_kept_for_each_farm() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::open(dir.path()).unwrap();
        let (north, south) = (farm(1, "North"), farm(2, "South"));
        assert_eq!(client.position(&north).unwrap(), 0);
        client.keep_position(&north, 17).unwrap();
        client.keep_position(&south, 4).unwrap();
        let again = Client::open(dir.path()).unwrap();
        assert_eq!((again.position(&north).unwrap(), again.position(&south).unwrap()), (17, 4));
        fs::write(dir.path().join(position_file(&north)), "many").unwrap();
        assert!(again.position(&north).is_err());
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{ not json").unwrap();
        let error = Client::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "{ not json");
    }
}
