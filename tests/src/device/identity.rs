//! A device's key and run.

use farm_protocol::broker::{Authenticate, Claim, Heartbeat, Role, ToBroker};
use farm_protocol::channel::{Channel, to_header};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId, Slot};
use farm_protocol::keys::{DeviceKey, Nonce};

/// A farm or a phone, as far as a broker knows one.
pub struct Device {
    /// What it is.
    pub role: Role,
    /// Its key.
    pub key: DeviceKey,
    /// Its run.
    pub boot: BootId,
    /// Its newest epoch.
    pub epoch: Epoch,
}

impl Device {
    /// The farm of this number.
    #[must_use]
    pub fn farm(number: u64) -> Self {
        Self::new(Role::Farm, number)
    }

    /// The phone of this number.
    #[must_use]
    pub fn phone(number: u64) -> Self {
        Self::new(Role::Phone, number)
    }

    fn new(role: Role, number: u64) -> Self {
        let mut seed = [if role == Role::Farm { 0xfa } else { 0x0f }; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        Self {
            role,
            key: DeviceKey::from_seed(seed).expect("any 32 bytes are a seed"),
            boot: BootId::from_bytes([1; 16]),
            epoch: Epoch::of_start(1),
        }
    }

    /// The program starts again.
    pub fn restart(&mut self) {
        let starts = self.epoch.starts() + 1;
        self.epoch = Epoch::of_start(starts);
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&starts.to_be_bytes());
        self.boot = BootId::from_bytes(boot);
    }

    /// A farm's id.
    #[must_use]
    pub fn farm_id(&self) -> FarmId {
        FarmId::of(&self.key.public())
    }

    /// A phone's id.
    #[must_use]
    pub fn phone_id(&self) -> PhoneId {
        PhoneId::of(&self.key.public())
    }

    /// A phone's session, in its first slot.
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId { phone: self.phone_id(), slot: Slot::default() }
    }

    /// The answer to a challenge of the broker of this name.
    #[must_use]
    pub fn authenticate(&self, nonce: &Nonce, broker: &str) -> Authenticate {
        Authenticate::sign(&self.key, nonce, self.says(broker))
    }

    /// What goes with the request to the broker of this name, over a connection
    /// that both know.
    #[must_use]
    pub fn claim(&self, channel: &Channel, broker: &str) -> String {
        let claim = Authenticate::sign_for_channel(&self.key, channel, self.says(broker));
        to_header(claim).expect("it is short and has no token")
    }

    fn says(&self, broker: &str) -> Claim {
        Claim {
            role: self.role,
            slot: Slot::default(),
            boot: self.boot,
            epoch: self.epoch,
            broker: broker.to_owned(),
        }
    }

    /// The heartbeat of this number, without news.
    #[must_use]
    pub fn heartbeat(&self, sequence: u32) -> ToBroker {
        ToBroker::Heartbeat(Heartbeat { sequence, epoch: self.epoch, presence: None })
    }
}
