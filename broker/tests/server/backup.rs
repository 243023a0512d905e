//! Backup of a broker that is busy, and its restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farm_broker::admin::{Answer, Request};
use farm_broker::backup::{self, Backup};
use farm_broker::core::bucket::Rate;
use farm_broker::server::Server;
use farm_protocol::broker::FromBroker;
use tempfile::TempDir;

use crate::client::{Broker, Client, Device, options, run};

async fn take(broker: &Broker) -> Backup {
    match broker.ask(Request::Backup {}).await {
        Answer::Backup(backup) => *backup,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_of_a_busy_broker_brings_every_farm_and_token_back() {
    run(async {
        // All come from one address here.
        let many = Rate::per_second(100_000, 100_000);
        let broker = Broker::with(|options| {
            options.limits.sockets_per_address = many;
            options.limits.handshakes_per_address = many;
            options.limits.connections_per_address = 10_000;
        })
        .await;
        let revoked = Device::farm(1);
        drop(broker.enroll(&revoked).await);
        let farm = revoked.farm_id().to_string();
        assert_eq!(broker.ask(Request::Revoke { farm: farm.clone() }).await, Answer::Revoked(farm));
        let unused = broker.token("to come").await;
        // Farms are enrolled and come and go all the while.
        let address = broker.server.address();
        let stop = Arc::new(AtomicBool::new(false));
        let load = smol::spawn({
            let stop = stop.clone();
            async move {
                let phone = Device::phone(9);
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address).await.unwrap();
                    client.enter(&phone).await;
                    client.settle(&phone).await;
                }
            }
        });
        let mut before = Vec::new();
        for number in 2..30 {
            let farm = Device::farm(number);
            let _client = broker.enroll(&farm).await;
            before.push(farm.farm_id());
            let kept = take(&broker).await;
            // Whoever was welcomed is in it.
            let kept = kept.records().unwrap().farms;
            let missing = before.iter().find(|farm| !kept.iter().any(|(id, _)| id == *farm));
            assert_eq!(missing, None);
        }
        let file = broker.state.path().join("backup");
        backup::write(&file, &take(&broker).await).unwrap();
        stop.store(true, Ordering::Relaxed);
        load.await;
        broker.server.stop().await;

        let state = TempDir::new().unwrap();
        let kept = backup::read(&file).unwrap();
        backup::restore(state.path(), &kept, false).unwrap();
        let server = Server::start(options(state.path())).await.unwrap();
        let broker = Broker { server, state };
        for number in 2..30 {
            drop(broker.enter(&Device::farm(number)).await);
        }
        let mut newcomer = broker.connect().await;
        let answer = newcomer.authenticate(&Device::farm(40), Some(&unused)).await;
        assert!(matches!(answer, FromBroker::Welcome(_)), "the unused token is good: {answer:?}");
        let mut client = broker.connect().await;
        let answer = client.authenticate(&revoked, None).await;
        assert!(matches!(answer, FromBroker::Refused(_)), "{answer:?}");
    });
}
