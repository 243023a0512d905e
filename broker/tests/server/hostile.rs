use async_tungstenite::tungstenite::{Bytes, Message};
use farm_protocol::broker::{Address, FromBroker, RefusedReason, ToBroker};
use farm_protocol::codec;
use farm_protocol::keys::Nonce;

use crate::client::{Broker, Device, End, access, run, signal, watch, within};

/// What is sent to a fresh connection, and how that ends.
async fn sent_first(broker: &Broker, message: Message) -> End {
    let mut client = broker.connect().await;
    client.send_raw(message).await;
    client.end().await
}

#[test]
fn a_replayed_authentication_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let phone = Device::phone(1);
        let mut first = broker.connect().await;
        let recorded = phone.sign(&first.nonce);
        let message = ToBroker::Authenticate(Box::new(recorded));
        first.send(message.clone()).await;
        assert!(matches!(first.next().await, FromBroker::Welcome(_)));
        let mut replay = broker.connect().await;
        assert_ne!(replay.nonce, first.nonce);
        replay.send(message).await;
        assert_eq!(replay.end().await, End::Refused(RefusedReason::BadSignature));
        // The real one was not displaced by it.
        first.settle(&phone).await;
    });
}

#[test]
fn what_is_no_message_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let good = codec::encode(&ToBroker::Goodbye).unwrap();
        let authenticate = Device::phone(1).sign(&Nonce::from_bytes([0; 16]));
        let authenticate = codec::encode(&ToBroker::Authenticate(Box::new(authenticate))).unwrap();
        let mut nested = vec![0x81; 60_000];
        nested.push(0);
        let mut version = good.clone();
        version[1] = 9;
        for (what, message) in [
            ("garbage", Message::binary(vec![0xff; 100])),
            ("empty", Message::binary(Bytes::new())),
            ("truncated", Message::binary(authenticate[..authenticate.len() - 9].to_vec())),
            ("trailing", Message::binary([&good[..], &[0]].concat())),
            ("nested", Message::binary(nested)),
            ("another version", Message::binary(version)),
            ("text", Message::text("hello")),
            ("oversized", Message::binary(vec![0; codec::MAX_MESSAGE + 1])),
            ("far oversized", Message::binary(vec![0; 1 << 20])),
        ] {
            let end = sent_first(&broker, message).await;
            assert_eq!(end, End::Refused(RefusedReason::ProtocolError), "{what}");
        }
        // It lives, and serves.
        broker.enter(&Device::phone(1)).await;
    });
}

#[test]
fn a_message_before_authentication_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let heartbeat = codec::encode(&Device::phone(1).heartbeat(1)).unwrap();
        let end = sent_first(&broker, Message::binary(heartbeat)).await;
        assert_eq!(end, End::Refused(RefusedReason::ProtocolError));
    });
}

#[test]
fn a_device_that_calls_another_broker_is_refused() {
    run(async {
        let broker = Broker::with(|options| options.names = ["other.example.org".to_owned()].into()).await;
        let mut client = broker.connect().await;
        match client.authenticate(&Device::phone(1), None).await {
            FromBroker::Refused(refused) => assert_eq!(refused.reason, RefusedReason::WrongBrokerName),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_socket_that_says_nothing_is_closed() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.connect().await;
        assert_eq!(client.end().await, End::Closed);
        assert_eq!(broker.counters().await.unauthenticated, 1);
    });
}

#[test]
fn a_flood_of_messages_ends_the_connection() {
    run(async {
        let broker = Broker::start().await;
        let phone = Device::phone(1);
        let mut client = broker.enter(&phone).await;
        for sequence in 0..500 {
            client.send(phone.heartbeat(sequence)).await;
        }
        assert_eq!(client.end().await, End::Refused(RefusedReason::Limit));
        assert_eq!(broker.counters().await.limit_messages, 1);
    });
}

#[test]
fn a_flood_of_pings_ends_the_connection() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.enter(&Device::phone(1)).await;
        for _ in 0..100 {
            client.send_raw(Message::Ping(Bytes::from_static(b"x"))).await;
        }
        assert_eq!(client.end().await, End::Refused(RefusedReason::ProtocolError));
    });
}

#[test]
fn too_many_connections_of_one_address_are_refused() {
    run(async {
        let broker = Broker::with(|options| options.limits.connections_per_address = 2).await;
        let _held = (broker.connect().await, broker.connect().await);
        let mut over = crate::client::handshake(broker.server.address(), Some(farm_protocol::SUBPROTOCOL))
            .await
            .unwrap();
        let first = within(futures_util::StreamExt::next(&mut over)).await.unwrap().unwrap();
        match codec::decode(&first.into_data()).unwrap() {
            FromBroker::Refused(refused) => assert_eq!(refused.reason, RefusedReason::Limit),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_device_that_never_reads_is_closed() {
    run(async {
        let broker = Broker::start().await;
        let (farm, phone) = (Device::farm(1), Device::phone(2));
        let mut at_farm = broker.enroll(&farm).await;
        at_farm.send(access(&[&phone], &[])).await;
        let at_phone = broker.enter(&phone).await;
        let payload = vec![0; 20_000];
        let mut sent = 0;
        // Until the broker says that the phone is gone.
        loop {
            at_farm.send(signal(Address::Phone(phone.session()), &payload)).await;
            at_farm.send(farm.heartbeat(sent)).await;
            sent += 1;
            match at_farm.next().await {
                FromBroker::HeartbeatAnswer(_) => assert!(sent < 800, "{sent} signals were taken"),
                FromBroker::Undelivered(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(broker.counters().await.slow_readers, 1);
        drop(at_phone);
        // It may come back and is served.
        let mut back = broker.enter(&phone).await;
        back.send(watch(&[&farm])).await;
        assert!(back.presence().await.unwrap().online);
    });
}
