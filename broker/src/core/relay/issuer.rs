//! What the broker tells its devices about the relay.

use farm_protocol::id::{FarmId, PhoneId};
use farm_protocol::relay::Relay;

use super::credentials::{Account, Holder, Name, Secret, username};
use super::limits::CREDENTIALS_LAST;

/// Where devices find the relay, see [`Relay`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Its host, if it is not the broker's.
    pub host: Option<String>,
    /// The port of TURN over UDP.
    pub udp: Option<u16>,
    /// The port of TURN over plain TCP.
    pub tcp: Option<u16>,
    /// The port of TURN over TLS.
    pub tls: Option<u16>,
}

/// Makes credentials.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Shared with the relay.
    pub secret: Secret,
    /// Where the relay is.
    pub reach: Reach,
}

impl Issuer {
    /// Who pays for a farm.
    pub fn account(&self, farm: FarmId) -> Account {
        Account(self.secret.pseudonym("farm", farm.as_bytes()))
    }

    /// Credentials for a farm, `now` in seconds since 1970.
    pub fn for_farm(&self, farm: FarmId, now: u64) -> Relay {
        let account = self.account(farm);
        self.issue(Name { account, holder: Holder(account.0) }, now)
    }

    /// Credentials for a phone; `farm`, which lists it, pays.
    pub fn for_phone(&self, phone: PhoneId, farm: FarmId, now: u64) -> Relay {
        let holder = Holder(self.secret.pseudonym("phone", phone.as_bytes()));
        self.issue(Name { account: self.account(farm), holder }, now)
    }

    fn issue(&self, name: Name, now: u64) -> Relay {
        let seconds = CREDENTIALS_LAST.as_secs();
        let username = username(name, now + seconds);
        let Reach { host, udp, tcp, tls } = self.reach.clone();
        let credential = self.secret.password(&username);
        Relay { host, udp, tcp, tls, username, credential, seconds: seconds as u32 }
    }
}
