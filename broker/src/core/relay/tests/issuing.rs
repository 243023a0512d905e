//! Who is given credentials, and that the relay takes them.

use std::time::Duration;

use farm_protocol::id::{FarmId, PhoneId};

use super::world::*;
use crate::core::relay::{Account, Issuer, Reach};

fn issuer() -> Issuer {
    Issuer { secret: secret(), reach: Reach { udp: Some(3478), tls: Some(443), ..Reach::default() } }
}

#[test]
fn what_the_broker_issues_opens_the_relay_until_it_expires() {
    let (farm, phone) = (FarmId::from_bytes([1; 20]), PhoneId::from_bytes([2; 20]));
    let issuer = issuer();
    for relay in [issuer.for_farm(farm, UNIX), issuer.for_phone(phone, farm, UNIX)] {
        assert_eq!(
            (relay.udp, relay.tcp, relay.tls, relay.host.as_deref()),
            (Some(3478), None, Some(443), None)
        );
        assert_eq!(relay.credential, secret().password(&relay.username));
        let user = User { key: secret().integrity_key(&relay.username), username: relay.username };
        let mut world = World::new();
        world.allocated(udp("192.0.2.1:1"), &user);
        let Account(account) = issuer.account(farm);
        assert_eq!(world.turn.usage(Account(account)).allocations, 1, "the farm pays");
        world.passed = Duration::from_secs(u64::from(relay.seconds) - 1);
        world.allocated(udp("192.0.2.1:2"), &user);
        world.passed += Duration::from_secs(1);
        assert_eq!(world.allocate(udp("192.0.2.1:3"), &user).code(), 401);
    }
}
