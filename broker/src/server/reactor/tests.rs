use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use futures_util::{AsyncReadExt, AsyncWriteExt};
use smol::future::{or, poll_once};

use super::*;

/// What a test waits for, at most.
const SOON: Duration = Duration::from_secs(20);

fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (one, _) = listener.accept().unwrap();
    one.set_nonblocking(true).unwrap();
    (Stream::new(one), other)
}

#[test]
fn what_comes_is_read_whenever_it_comes_and_so_is_the_end() {
    let (mut stream, mut other) = pair();
    let reactor = Reactor::new().unwrap();
    reactor.block_on(async {
        let mut into = [0; 4];
        for round in 0..3u8 {
            assert!(poll_once(stream.read(&mut into)).await.is_none(), "nothing came yet");
            other.write_all(&[round; 6]).unwrap();
            let mut first = [9];
            assert_eq!(stream.peek(&mut first).await.unwrap(), 1);
            assert_eq!(first, [round]);
            assert_eq!(stream.read(&mut into).await.unwrap(), 4);
            assert_eq!(stream.read(&mut into).await.unwrap(), 2);
        }
        // The last bytes and the end together, and the end again and again.
        other.write_all(b"end").unwrap();
        drop(other);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end");
        assert_eq!(stream.read(&mut into).await.unwrap(), 0);
    });
}

#[test]
fn a_full_network_is_waited_for() {
    const BYTES: usize = 64 * 1024 * 1024;
    let (mut stream, mut other) = pair();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        all.len()
    });
    Reactor::new().unwrap().block_on(async {
        stream.write_all(&vec![7; BYTES]).await.unwrap();
        stream.close().await.unwrap();
    });
    assert_eq!(reader.join().unwrap(), BYTES);
}

#[test]
fn a_stream_goes_on_at_another_thread() {
    let (mut stream, mut other) = pair();
    let first = Reactor::new().unwrap();
    let mut into = [0; 8];
    first.block_on(async {
        assert!(poll_once(stream.read(&mut into)).await.is_none());
    });
    other.write_all(b"one").unwrap();
    Reactor::new().unwrap().block_on(async {
        assert_eq!(stream.read(&mut into).await.unwrap(), 3);
        assert!(poll_once(stream.read(&mut into)).await.is_none());
        other.write_all(b"other").unwrap();
        assert_eq!(stream.read(&mut into).await.unwrap(), 5);
    });
    assert!(locked(&first.sources).is_empty());
}

#[test]
fn listeners_give_all_that_come() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let reactor = Reactor::new().unwrap();
    reactor.block_on(async {
        let mut listener = Listener::new(socket);
        assert!(poll_once(listener.accept()).await.is_none());
        let others: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for other in &others {
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, other.local_addr().unwrap());
        }
        assert!(poll_once(listener.accept()).await.is_none());
        drop(listener);
    });
    assert!(locked(&reactor.sources).is_empty());
}

#[test]
fn alarms_go_off_in_their_order_and_leave_nothing() {
    let reactor = Reactor::new().unwrap();
    reactor.block_on(async {
        let start = Instant::now();
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(3600));
        let first = or(
            async {
                Alarm::after(long).await;
                "long"
            },
            async {
                Alarm::after(short).await;
                "short"
            },
        );
        assert_eq!(first.await, "short");
        assert!(start.elapsed() >= short);
        Alarm::at(start).await;
        assert!(poll_once(Alarm::after(Duration::MAX)).await.is_none());
    });
    assert!(locked(&reactor.alarms).is_empty());
}

#[test]
fn other_threads_wake_it() {
    let (ask, asked) = async_channel::bounded::<u32>(1);
    let (answer, answered) = async_channel::bounded::<u32>(1);
    let reactor = Reactor::new().unwrap();
    let other = std::thread::spawn(move || {
        while let Ok(number) = asked.recv_blocking() {
            answer.send_blocking(number + 1).unwrap();
        }
    });
    reactor.block_on(async {
        let mut number = 0;
        let counted = async {
            while number < 10_000 {
                ask.send(number).await.unwrap();
                number = answered.recv().await.unwrap();
            }
            true
        };
        let late = async {
            Alarm::after(SOON).await;
            false
        };
        assert!(or(counted, late).await, "a wake-up was lost");
    });
    drop(ask);
    other.join().unwrap();
}
