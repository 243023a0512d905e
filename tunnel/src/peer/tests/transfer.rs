use ring::digest;

use super::*;

#[test]
fn every_channel_carries_messages_both_ways() {
    smol::block_on(async {
        let (near, far) = pair().await;
        let echo = |channel| {
            let peer = far.peer.clone();
            crate::executor::spawn(async move {
                while let Some(message) = peer.recv(channel).await {
                    peer.send(channel, message).await.unwrap();
                }
            })
        };
        let echoes = Channel::ALL.map(echo);
        for channel in Channel::ALL {
            for length in [0, 1, 1000, 16 << 10, MAX_MESSAGE] {
                // Pings are not sent again: large ones may lose a packet.
                if channel == Channel::Ping && length > 1000 {
                    continue;
                }
                let message = Bytes::from(vec![length as u8; length]);
                near.peer.send(channel, message.clone()).await.unwrap();
                let answer = within("an echo", PATIENCE, near.peer.recv(channel)).await;
                assert_eq!(answer.as_ref(), Some(&message), "{channel:?}, {length} bytes");
            }
        }
        near.peer.close().await;
        for echo in echoes {
            within("the end of an echo", PATIENCE, echo).await;
        }
    });
}

#[test]
fn a_message_too_large_is_refused() {
    smol::block_on(async {
        let (near, _far) = pair().await;
        let large = Bytes::from(vec![0; MAX_MESSAGE + 1]);
        let error = Err(PeerError::TooLarge(MAX_MESSAGE + 1));
        assert_eq!(near.peer.send(Channel::Data, large.clone()).await, error);
        assert_eq!(near.peer.try_send(Channel::Data, large).await, error);
    });
}

/// Every fourth message is small; no two are alike.
fn message(number: usize) -> Bytes {
    let length = if number.is_multiple_of(4) { 100 } else { 32 << 10 };
    (0..length).map(|index| (number.wrapping_mul(31) ^ index ^ (index >> 8)) as u8).collect()
}

#[test]
fn a_large_transfer_arrives_whole_in_both_directions() {
    const MESSAGES: usize = 400;
    let send = async |peer: Peer| {
        let mut digest = digest::Context::new(&digest::SHA256);
        for number in 0..MESSAGES {
            let message = message(number);
            digest.update(&message);
            peer.send(Channel::Data, message).await.unwrap();
        }
        digest.finish()
    };
    let receive = async |peer: Peer| {
        let mut digest = digest::Context::new(&digest::SHA256);
        for number in 0..MESSAGES {
            let message = within("a message", PATIENCE, peer.recv(Channel::Data)).await;
            digest.update(&message.unwrap_or_else(|| panic!("the end at message {number}")));
        }
        digest.finish()
    };
    smol::block_on(async {
        let (near, far) = pair().await;
        let there = smol::future::zip(send(near.peer.clone()), receive(far.peer.clone()));
        let back = smol::future::zip(send(far.peer.clone()), receive(near.peer.clone()));
        for (sent, received) in <[_; 2]>::from(smol::future::zip(there, back).await) {
            assert_eq!(sent.as_ref(), received.as_ref());
        }
    });
}

/// The engine reports on a channel each time that all of it was sent, and stops the connection at
/// 256 unread reports; a sender that does not also read would have stopped itself.
#[test]
fn a_sender_that_does_not_read_keeps_its_other_channels() {
    smol::block_on(async {
        let (near, far) = pair().await;
        for number in 0..600usize {
            near.peer.send(Channel::Data, Bytes::from(vec![1; 100])).await.unwrap();
            // One by one, so that the channel runs empty each time.
            let message = within("a message", PATIENCE, far.peer.recv(Channel::Data)).await;
            assert!(message.is_some(), "the end at message {number}");
            far.peer.send(Channel::Control, Bytes::from_static(b"next")).await.unwrap();
            let answer = within("an answer", PATIENCE, near.peer.recv(Channel::Control)).await;
            assert!(answer.is_some(), "the end after message {number}");
        }
    });
}

#[test]
fn senders_of_one_channel_take_turns() {
    smol::block_on(async {
        let (near, far) = pair().await;
        let senders: Vec<_> = (0..4u8)
            .map(|sender| {
                let peer = near.peer.clone();
                crate::executor::spawn(async move {
                    for _ in 0..50 {
                        peer.send(Channel::Data, Bytes::from(vec![sender; 20 << 10])).await.unwrap();
                    }
                })
            })
            .collect();
        let mut counts = [0; 4];
        for _ in 0..200 {
            let message = within("a message", PATIENCE, far.peer.recv(Channel::Data)).await.unwrap();
            assert!(message.iter().all(|&byte| byte == message[0]), "two messages were mixed");
            counts[usize::from(message[0])] += 1;
        }
        assert_eq!(counts, [50; 4]);
        for sender in senders {
            sender.await;
        }
    });
}
