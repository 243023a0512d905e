use farm_broker::admin::{Answer, Request};
use farm_broker::core::enrollment::{TokenHash, TokenRecord};
use farm_broker::server::Server;
use farm_broker::store;
use farm_protocol::base32;
use farm_protocol::broker::{FromBroker, RefusedReason};

use crate::client::{Broker, Client, Device, options, run};

async fn refusal(broker: &Broker, farm: &Device, token: Option<&str>) -> RefusedReason {
    let mut client = broker.connect().await;
    match client.authenticate(farm, token).await {
        FromBroker::Refused(refused) => refused.reason,
        other => panic!("{other:?}"),
    }
}

async fn farms(broker: &Broker) -> Vec<(String, String, bool)> {
    match broker.ask(Request::Farms {}).await {
        Answer::Farms(farms) => farms.into_iter().map(|farm| (farm.id, farm.name, farm.online)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_enrolled_farm_survives_a_restart() {
    run(async {
        let broker = Broker::start().await;
        let farm = Device::farm(1);
        let id = farm.farm_id().to_string();
        let client = broker.enroll(&farm).await;
        assert_eq!(farms(&broker).await, [(id.clone(), "North field".to_owned(), true)]);
        drop(client);
        let broker = broker.restart().await;
        assert_eq!(farms(&broker).await, [(id, "North field".to_owned(), false)]);
        broker.enter(&farm).await;
    });
}

#[test]
fn without_a_good_token_a_farm_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let farm = Device::farm(1);
        assert_eq!(refusal(&broker, &farm, None).await, RefusedReason::NotEnrolled);
        assert_eq!(refusal(&broker, &farm, Some("wrong")).await, RefusedReason::BadToken);
        let counters = broker.counters().await;
        assert_eq!((counters.refused_not_enrolled, counters.refused_bad_token), (1, 1));
    });
}

#[test]
fn a_used_token_is_good_for_its_own_farm_only() {
    run(async {
        let broker = Broker::start().await;
        let token = broker.token("North field").await;
        let mut client = broker.connect().await;
        let first = client.authenticate(&Device::farm(1), Some(&token)).await;
        assert!(matches!(first, FromBroker::Welcome(_)), "{first:?}");
        let broker = broker.restart().await;
        let mut client = broker.connect().await;
        let again = client.authenticate(&Device::farm(1), Some(&token)).await;
        assert!(matches!(again, FromBroker::Welcome(_)), "{again:?}");
        let other = refusal(&broker, &Device::farm(2), Some(&token)).await;
        assert_eq!(other, RefusedReason::BadToken);
    });
}

#[test]
fn an_open_token_survives_a_restart() {
    run(async {
        let broker = Broker::start().await;
        let token = broker.token("North field").await;
        let broker = broker.restart().await;
        let mut client = broker.connect().await;
        let answer = client.authenticate(&Device::farm(1), Some(&token.to_uppercase())).await;
        assert!(matches!(answer, FromBroker::Welcome(_)), "{answer:?}");
    });
}

#[test]
fn an_expired_token_is_refused() {
    run(async {
        let state = tempfile::TempDir::new().unwrap();
        let path = state.path().to_owned();
        let (opened, _) = smol::unblock(move || store::open(&path)).await.unwrap();
        let record = TokenRecord { name: None, expires: store::unix_time() - 1 };
        let bytes = [4; 20];
        store::add_token(&opened, TokenHash::of(&bytes), &record).await.unwrap();
        opened.close().await;
        let server = Server::start(options(state.path())).await.unwrap();
        let mut client = Client::connect(server.address()).await.unwrap();
        let token = base32::encode(&bytes);
        match client.authenticate(&Device::farm(1), Some(&token)).await {
            FromBroker::Refused(refused) => assert_eq!(refused.reason, RefusedReason::BadToken),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn tokens_are_not_stored_in_the_clear() {
    run(async {
        let broker = Broker::start().await;
        let token = broker.token("North field").await;
        let bytes = base32::decode(&token).unwrap();
        broker.server.stop().await;
        let mut files = vec![broker.state.path().to_owned()];
        let mut seen = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.is_file() {
                let content = std::fs::read(&path).unwrap();
                let has = |part: &[u8]| content.windows(part.len()).any(|window| window == part);
                assert!(!has(token.as_bytes()) && !has(&bytes), "{}", path.display());
                seen += content.len();
            }
        }
        assert!(seen > 0);
    });
}

#[test]
fn validity_is_bounded() {
    run(async {
        let broker = Broker::start().await;
        let state = broker.state.path().to_owned();
        let request = Request::Enroll { name: None, valid_seconds: 1 };
        let refused = smol::unblock(move || farm_broker::admin::ask(&state, &request)).await;
        assert!(refused.unwrap_err().to_string().contains("60"));
    });
}
