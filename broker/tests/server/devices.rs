use farm_protocol::broker::{Address, FromBroker, RefusedReason, ToBroker, UndeliveredReason};
use farm_protocol::id::{BootId, InvitationId};

use crate::client::{Broker, Client, Device, End, access, run, signal, watch};

#[test]
fn a_device_is_welcomed_with_what_the_broker_sees() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.connect().await;
        let local = client.stream.get_ref().local_addr().unwrap();
        let welcome = client.enter(&Device::phone(1)).await;
        assert_eq!(welcome.observed, local.to_string());
        assert_eq!(welcome.heartbeat_seconds, 60);
        let stun = broker.server.stun_address().unwrap();
        assert_eq!(welcome.stun_port, Some(stun.port()));
        assert_eq!(stun.port(), broker.server.address().port());
        assert!(welcome.time > 1_700_000_000);
    });
}

#[test]
fn heartbeats_are_answered() {
    run(async {
        let broker = Broker::start().await;
        let phone = Device::phone(1);
        let mut client = broker.enter(&phone).await;
        for _ in 0..3 {
            client.settle(&phone).await;
        }
    });
}

#[test]
fn the_newer_of_two_connections_of_a_device_stays() {
    run(async {
        let broker = Broker::start().await;
        let farm = Device::farm(1);
        let mut old = broker.enroll(&farm).await;
        let mut new = broker.enter(&farm).await;
        assert_eq!(old.end().await, End::Refused(RefusedReason::Superseded));
        new.settle(&farm).await;
    });
}

#[test]
fn an_older_run_is_refused_and_told_the_newest_epoch() {
    run(async {
        let broker = Broker::start().await;
        let mut newest = Device::phone(1);
        (newest.boot, newest.epoch) = (BootId::from_bytes([2; 16]), newest.epoch.next());
        let mut client = broker.enter(&newest).await;
        let mut late = broker.connect().await;
        match late.authenticate(&Device::phone(1), None).await {
            FromBroker::Refused(refused) => {
                assert_eq!(refused.reason, RefusedReason::StaleEpoch);
                assert_eq!(refused.newest, Some(newest.epoch));
            }
            other => panic!("{other:?}"),
        }
        client.settle(&newest).await;
    });
}

#[test]
fn a_watching_phone_is_told_of_every_change() {
    run(async {
        let broker = Broker::start().await;
        let (mut farm, phone) = (Device::farm(1), Device::phone(2));
        let mut at_farm = broker.enroll(&farm).await;
        at_farm.send(access(&[&phone], &[])).await;
        at_farm.settle(&farm).await;
        let mut at_phone = broker.enter(&phone).await;
        at_phone.send(watch(&[&farm])).await;
        let state = at_phone.presence().await.unwrap();
        assert!(state.online && state.verify(&farm.key.public()).is_ok());

        farm.epoch = farm.epoch.next();
        at_farm.send(farm.heartbeat(1)).await;
        let state = at_phone.presence().await.unwrap();
        assert!(state.online && state.epoch == farm.epoch);
        assert!(state.verify(&farm.key.public()).is_ok());

        drop(at_farm);
        assert!(!at_phone.presence().await.unwrap().online);
        let mut at_farm = broker.enter(&farm).await;
        assert!(at_phone.presence().await.unwrap().online);
        at_farm.send(access(&[], &[])).await;
        assert_eq!(at_phone.presence().await, None);
    });
}

#[test]
fn signals_go_both_ways() {
    run(async {
        let broker = Broker::start().await;
        let (farm, phone) = (Device::farm(1), Device::phone(2));
        let mut at_farm = broker.enroll(&farm).await;
        at_farm.send(access(&[&phone], &[])).await;
        at_farm.settle(&farm).await;
        let mut at_phone = broker.enter(&phone).await;
        exchange(&mut at_phone, Address::Farm(farm.farm_id()), &mut at_farm, Address::Phone(phone.session()))
            .await;
        exchange(&mut at_farm, Address::Phone(phone.session()), &mut at_phone, Address::Farm(farm.farm_id()))
            .await;
    });
}

/// Sends the largest signal from one to the other.
async fn exchange(from: &mut Client, to: Address, receiver: &mut Client, sender: Address) {
    let payload = vec![0xa5; farm_protocol::broker::MAX_SIGNAL];
    from.send(signal(to, &payload)).await;
    match receiver.next().await {
        FromBroker::Signal(signal) => {
            assert_eq!(signal.peer, sender);
            assert!(signal.payload == payload);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_strangers_signal_does_not_arrive() {
    run(async {
        let broker = Broker::start().await;
        let (farm, stranger) = (Device::farm(1), Device::phone(2));
        let mut at_farm = broker.enroll(&farm).await;
        let mut client = broker.enter(&stranger).await;
        for peer in [Address::Farm(farm.farm_id()), Address::Farm(Device::farm(9).farm_id())] {
            client.send(signal(peer, b"hello")).await;
            match client.next().await {
                FromBroker::Undelivered(undelivered) => {
                    assert_eq!(undelivered.peer, peer);
                    assert_eq!(undelivered.reason, UndeliveredReason::Offline);
                }
                other => panic!("{other:?}"),
            }
        }
        // The farm's next message answers its heartbeat: nothing came before.
        at_farm.settle(&farm).await;
    });
}

#[test]
fn a_phone_with_an_invitation_reaches_its_farm() {
    run(async {
        let broker = Broker::start().await;
        let (farm, phone) = (Device::farm(1), Device::phone(2));
        let invitation = InvitationId::from_bytes([3; 16]);
        let mut at_farm = broker.enroll(&farm).await;
        at_farm.send(access(&[], &[invitation])).await;
        at_farm.settle(&farm).await;
        let mut at_phone = broker.enter(&phone).await;
        exchange(
            &mut at_phone,
            Address::Invitation(invitation),
            &mut at_farm,
            Address::Phone(phone.session()),
        )
        .await;
        exchange(&mut at_farm, Address::Phone(phone.session()), &mut at_phone, Address::Farm(farm.farm_id()))
            .await;
    });
}

#[test]
fn a_device_that_says_goodbye_is_let_go() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.enter(&Device::phone(1)).await;
        client.send(ToBroker::Goodbye).await;
        assert_eq!(client.end().await, End::Closed);
    });
}

#[test]
fn a_broker_that_ends_tells_its_devices_when_to_come_back() {
    run(async {
        let broker = Broker::start().await;
        let mut clients = Vec::new();
        for seed in 0..5 {
            clients.push(broker.enter(&Device::phone(seed)).await);
        }
        let stopping = smol::spawn(broker.server.stop());
        for client in &mut clients {
            match client.next().await {
                FromBroker::RetryAfter(retry) => assert!((500..3000).contains(&retry.milliseconds)),
                other => panic!("{other:?}"),
            }
            assert_eq!(client.end().await, End::Closed);
        }
        stopping.await;
    });
}

#[test]
fn a_restart_at_the_same_port_is_possible_at_once() {
    run(async {
        let broker = Broker::start().await;
        let address = broker.server.address();
        let _held = broker.enter(&Device::phone(1)).await;
        broker.server.stop().await;
        let mut options = crate::client::options(broker.state.path());
        options.listen = address;
        let server = farm_broker::server::Server::start(options).await.unwrap();
        assert_eq!(server.address(), address);
        Client::connect(address).await.unwrap().enter(&Device::phone(1)).await;
    });
}
