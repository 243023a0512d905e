use std::time::Duration;

use farm_protocol::broker::{FromBroker, RefusedReason, ToBroker};

use super::world::{Device, UNIX, World, record};
use crate::core::enrollment::TokenHash;
use crate::core::limits::ENROLL_WITHIN;
use crate::core::{Action, ConnectionId, Core, Event, Now, Settings};

const TOKEN: [u8; 20] = [7; 20];
const WEEK: u64 = 7 * 24 * 3600;

fn bring(world: &mut World, farm: &Device, token: &str) -> ConnectionId {
    let connection = world.open();
    bring_on(world, connection, farm, token);
    connection
}

fn bring_on(world: &mut World, connection: ConnectionId, farm: &Device, token: &str) {
    let mut claim = farm.authenticate(&world.nonce(connection));
    claim.enrollment_token = Some(token.to_owned());
    claim.name = Some("Its own name\u{7}".to_owned());
    world.take(connection);
    world.say(connection, ToBroker::Authenticate(Box::new(claim)));
}

fn welcomed(world: &mut World, connection: ConnectionId) -> bool {
    matches!(&world.take(connection)[..], [FromBroker::Welcome(_)])
}

#[test]
fn a_farm_without_a_token_is_not_enrolled() {
    let mut world = World::new();
    let connection = world.open();
    world.authenticate(connection, &Device::farm(1));
    assert_eq!(world.refusal(connection), Some(RefusedReason::NotEnrolled));
}

#[test]
fn a_farm_is_welcomed_only_once_its_record_is_durable() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let token = world.issue_token(TOKEN, Some("North field"), WEEK);
    let connection = bring(&mut world, &farm, &token);
    assert!(world.take(connection).is_empty(), "not before the store says so");
    let [Action::Enroll { farm: id, record }] = world.stored.as_slice() else {
        panic!("{:?}", world.stored);
    };
    assert_eq!((*id, record.key, record.enrolled), (farm.farm_id(), farm.key.public(), UNIX));
    assert_eq!((record.name.as_str(), record.token), ("North field", TokenHash::of(&TOKEN)));
    world.handle(Event::Enrolled { farm: farm.farm_id() });
    assert!(welcomed(&mut world, connection));
    let views: Vec<_> = world.core.farms().collect();
    assert!(views.len() == 1 && views[0].online && views[0].name == "North field");
}

#[test]
fn without_the_operators_name_the_farms_own_is_kept() {
    let mut world = World::new();
    let token = world.issue_token(TOKEN, None, WEEK);
    bring(&mut world, &Device::farm(1), &token);
    assert!(matches!(&world.stored[..], [Action::Enroll { record, .. }] if record.name == "Its own name"));
}

#[test]
fn the_same_farm_may_come_again_with_its_used_token() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let token = world.issue_token(TOKEN, None, WEEK);
    // The first answer is lost before and the second after it was durable.
    let first = bring(&mut world, &farm, &token);
    let second = bring(&mut world, &farm, &token);
    assert_eq!(world.refusal(first), Some(RefusedReason::Superseded));
    assert_eq!(world.stored.len(), 1, "one enrollment, one transaction");
    world.handle(Event::Closed { connection: second, slow: false });
    world.handle(Event::Enrolled { farm: farm.farm_id() });
    let third = bring(&mut world, &farm, &token);
    assert!(welcomed(&mut world, third));
    world.check_invariants();
}

#[test]
fn a_token_is_good_for_one_farm() {
    let mut world = World::new();
    let token = world.issue_token(TOKEN, None, WEEK);
    bring(&mut world, &Device::farm(1), &token);
    let meanwhile = bring(&mut world, &Device::farm(2), &token);
    assert_eq!(world.refusal(meanwhile), Some(RefusedReason::BadToken));
    world.handle(Event::Enrolled { farm: Device::farm(1).farm_id() });
    let after = bring(&mut world, &Device::farm(2), &token);
    assert_eq!(world.refusal(after), Some(RefusedReason::BadToken));
}

#[test]
fn wrong_and_expired_tokens_are_refused() {
    let mut world = World::new();
    let token = world.issue_token(TOKEN, None, 60);
    for wrong in ["", "no token", "0123456789abcdefghjkmnpqrstvwxyz"] {
        let connection = bring(&mut world, &Device::farm(1), wrong);
        assert_eq!(world.refusal(connection), Some(RefusedReason::BadToken), "{wrong:?}");
    }
    world.advance(Duration::from_secs(60));
    let connection = bring(&mut world, &Device::farm(1), &token);
    assert_eq!(world.refusal(connection), Some(RefusedReason::BadToken));
}

#[test]
fn expired_tokens_are_thrown_away() {
    let mut world = World::new();
    world.issue_token(TOKEN, None, 60);
    world.issue_token([8; 20], None, WEEK);
    world.advance(Duration::from_secs(3600));
    let hash = TokenHash::of(&TOKEN);
    assert_eq!(world.stored, [Action::ForgetToken { hash }]);
    world.advance(Duration::from_secs(WEEK));
    assert_eq!(world.stored.len(), 2);
    assert_eq!(world.core.poll_timeout(), None);
}

#[test]
fn a_failed_enrollment_sends_the_farm_away_and_the_token_stays_good() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let token = world.issue_token(TOKEN, None, WEEK);
    let connection = bring(&mut world, &farm, &token);
    world.handle(Event::EnrollmentFailed { farm: farm.farm_id() });
    assert!(matches!(&world.take(connection)[..], [FromBroker::RetryAfter(r)] if r.milliseconds == 5000));
    assert!(world.is_closed(connection));
    let again = bring(&mut world, &farm, &token);
    world.handle(Event::Enrolled { farm: farm.farm_id() });
    assert!(welcomed(&mut world, again));
}

#[test]
fn a_farm_does_not_wait_for_a_store_that_hangs() {
    let mut world = World::new();
    let farm = Device::farm(1);
    let token = world.issue_token(TOKEN, None, WEEK);
    let connection = bring(&mut world, &farm, &token);
    world.advance(ENROLL_WITHIN);
    assert!(matches!(&world.take(connection)[..], [FromBroker::RetryAfter(_)]));
    assert!(world.is_closed(connection));
    world.handle(Event::Enrolled { farm: farm.farm_id() });
    let back = world.enter(&farm);
    assert!(!world.is_closed(back));
}

#[test]
fn guesses_at_tokens_are_limited_per_address() {
    let mut world = World::new();
    let good = world.issue_token(TOKEN, None, WEEK);
    let guess = |world: &mut World, ip: &str, token: &str| {
        let connection = world.open_from(ip.parse().unwrap());
        bring_on(world, connection, &Device::farm(1), token);
        world.is_closed(connection).then(|| world.refusal(connection)).flatten()
    };
    for _ in 0..5 {
        assert_eq!(guess(&mut world, "192.0.2.1", "wrong"), Some(RefusedReason::BadToken));
    }
    assert_eq!(guess(&mut world, "192.0.2.1", &good), Some(RefusedReason::Limit));
    assert_eq!(world.core.counters().limit_token_guesses, 1);
    assert_eq!(guess(&mut world, "192.0.2.2", &good), None, "another address is not affected");
    world.advance(Duration::from_secs(60));
    assert_eq!(guess(&mut world, "192.0.2.1", "wrong"), Some(RefusedReason::BadToken));
}

#[test]
fn farms_and_tokens_are_bounded() {
    let mut world = World::with(|settings| {
        settings.limits.farms = 1;
        settings.limits.tokens = 1;
    });
    world.enroll(&Device::farm(1));
    assert!(world.core.may_issue_token());
    let token = world.issue_token(TOKEN, None, WEEK);
    assert!(!world.core.may_issue_token());
    let connection = bring(&mut world, &Device::farm(2), &token);
    assert_eq!(world.refusal(connection), Some(RefusedReason::Limit));
    assert_eq!(world.core.counters().limit_farms, 1);
}

#[test]
fn farms_and_tokens_of_the_store_are_known_from_the_start() {
    let farm = Device::farm(1);
    let now = Now { instant: std::time::Instant::now(), unix: UNIX };
    let token = |expires| crate::core::enrollment::TokenRecord { name: None, expires };
    let tokens = [(TokenHash([1; 32]), token(UNIX - 1)), (TokenHash([2; 32]), token(UNIX + 1))];
    let mut core = Core::new(Settings::default(), [(farm.farm_id(), record(&farm))], tokens, now);
    assert_eq!(core.poll_action(), Some(Action::ForgetToken { hash: TokenHash([1; 32]) }));
    let views: Vec<_> = core.farms().collect();
    assert!(views.len() == 1 && !views[0].online && views[0].since.is_none());
}
