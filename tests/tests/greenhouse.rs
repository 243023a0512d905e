//! The greenhouse as its visitors see it: the real program over TCP.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message;
use farm_tests::greenhouse::content;
use farm_tests::harness::http::{self, Body, Request};
use farm_tests::harness::{Process, binary, sha256};
use futures_util::StreamExt;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

struct Farm {
    _process: Process,
    address: SocketAddr,
}

fn greenhouse() -> Farm {
    let mut command = Command::new(binary("greenhouse").unwrap());
    let process = Process::spawn("greenhouse", &mut command).unwrap();
    let line = process.wait_for_line("its address", SOON, |line| line.text.contains("listening")).unwrap();
    let (said, address) = line.text.split_once("http://").unwrap();
    assert_eq!(said, "greenhouse listening on ");
    Farm { address: address.parse().unwrap(), _process: process }
}

fn readings(address: SocketAddr) -> Value {
    serde_json::from_slice(&http::get(address, "/api/readings").unwrap().body).unwrap()
}

fn post(address: SocketAddr, path: &str, body: &str) -> http::Response {
    Request::post(path, Body::Bytes(body.as_bytes().to_vec())).send(address).unwrap()
}

#[test]
fn the_page_speaks_the_visitors_language() {
    let farm = greenhouse();
    let page = |language: &str, path: &str| {
        let request = Request::get(path).header("Accept-Language", language);
        request.send(farm.address).unwrap()
    };
    let russian = page("ru-RU,ru;q=0.9", "/");
    assert_eq!(russian.status, 200);
    assert_eq!(russian.header("content-language"), Some("ru"));
    assert!(russian.text().contains("Влажность почвы"));
    assert!(page("de", "/").text().contains("Soil moisture"));
    assert!(page("en", "/?lang=ru").text().contains("Влажность почвы"));
    assert_eq!(http::get(farm.address, "/nothing").unwrap().status, 404);
    let refused = Request::post("/", Body::Empty).send(farm.address).unwrap();
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn commands_change_the_greenhouse_and_nonsense_does_not() {
    let farm = greenhouse();
    let before = readings(farm.address);
    let answer = post(farm.address, "/api/vent", r#"{"open": 80}"#);
    assert_eq!(answer.status, 200);
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["vent_target_percent"], 80.0);
    post(farm.address, "/api/irrigation", r#"{"seconds": 60}"#);
    let moved = farm_tests::harness::until("the vent to move", SOON, || {
        let now = readings(farm.address);
        let moved = now["vent_percent"].as_f64() > before["vent_percent"].as_f64();
        (moved && now["irrigation_seconds_left"].as_u64() < Some(60)).then_some(now)
    });
    assert_eq!(moved.unwrap().0["vent_target_percent"], 80.0);
    for (path, body, status) in [
        ("/api/vent", r#"{"open": 101}"#, 422),
        ("/api/vent", r#"{"open": "wide"}"#, 400),
        ("/api/vent", r#"{"open": 1, "more": 2}"#, 400),
        ("/api/irrigation", r#"{"seconds": 86400}"#, 422),
        ("/api/irrigation", r#"{"seconds": -1}"#, 400),
        ("/api/vent", &" ".repeat(5_000), 413),
    ] {
        assert_eq!(post(farm.address, path, body).status, status, "{path} {body}");
    }
    assert_eq!(readings(farm.address)["vent_target_percent"], 80.0);
}

#[test]
fn events_and_pictures_come_every_second() {
    let farm = greenhouse();
    let (mut text, mut times) = (String::new(), Vec::new());
    Request::get("/events")
        .send_with(farm.address, |piece| {
            text.push_str(&String::from_utf8_lossy(piece));
            times = text.lines().filter_map(|l| l.strip_prefix("id: ")).map(str::to_owned).collect();
            if times.len() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    let times: Vec<u64> = times.iter().map(|time| time.parse().unwrap()).collect();
    assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
    assert!(text.contains("\"temperature_c\":"));

    let mut film = Vec::new();
    let parts = |film: &[u8]| film.windows(3).filter(|w| *w == [0xFF, 0xD8, 0xFF]).count();
    let answer = Request::get("/camera")
        .send_with(farm.address, |piece| {
            film.extend_from_slice(piece);
            if parts(&film) < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    assert!(answer.header("content-type").unwrap().starts_with("multipart/x-mixed-replace"));

    let first = http::get(farm.address, "/camera.jpg").unwrap();
    assert_eq!(first.header("content-type"), Some("image/jpeg"));
    farm_tests::harness::until("another picture", SOON, || {
        let next = http::get(farm.address, "/camera.jpg").unwrap();
        (next.sha256 != first.sha256).then_some(())
    })
    .unwrap();
}

#[test]
fn downloads_are_what_their_digest_says_also_in_parts() {
    let farm = greenhouse();
    let whole = http::get(farm.address, "/download/7MB.bin").unwrap();
    assert_eq!((whole.status, whole.length), (200, 7_000_000));
    assert_eq!(whole.header("content-length"), Some("7000000"));
    assert_eq!(whole.header("x-sha256"), Some(whole.sha256.as_str()));
    assert_eq!(whole.sha256, content::sha256(7_000_000));
    let line = http::get(farm.address, "/download/7MB.bin.sha256").unwrap().text();
    assert_eq!(line, format!("{}  7MB.bin\n", whole.sha256));

    let part = Request::get("/download/7MB.bin").range(1_048_000, 3_000_000).send(farm.address).unwrap();
    assert_eq!((part.status, part.length), (206, 1_952_000));
    assert_eq!(part.header("content-range"), Some("bytes 1048000-2999999/7000000"));
    let start = Request::get("/download/7MB.bin").range(0, 1_000).send(farm.address).unwrap();
    assert_eq!(start.body, whole.body[..1_000]);
    let beyond = Request::get("/download/7MB.bin").range(7_000_000, 7_000_001).send(farm.address).unwrap();
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */7000000")));
    let changed = Request::get("/download/7MB.bin")
        .range(0, 10)
        .header("If-Range", "\"another\"")
        .send(farm.address)
        .unwrap();
    assert_eq!((changed.status, changed.length), (200, 7_000_000));

    let head = Request::head("/download/7MB.bin").send(farm.address).unwrap();
    assert_eq!((head.length, head.header("content-length")), (0, Some("7000000")));
    for name in ["0MB.bin", "4097MB.bin", "xMB.bin"] {
        let status = http::get(farm.address, &format!("/download/{name}")).unwrap().status;
        assert_eq!(status, 404, "{name}");
    }
}

#[test]
fn uploads_are_hashed_and_bounded() {
    let farm = greenhouse();
    let answer = Request::post("/upload", Body::Content(5_000_000)).send(farm.address).unwrap();
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["bytes"], 5_000_000);
    assert_eq!(said["sha256"], content::sha256(5_000_000));
    let empty: Value = serde_json::from_slice(&post(farm.address, "/upload", "").body).unwrap();
    assert_eq!(empty["sha256"], sha256(b""));

    let mut stream = TcpStream::connect(farm.address).unwrap();
    let head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[test]
fn sockets_echo_and_show_live_values() {
    let farm = greenhouse();
    smol::block_on(async {
        let stream = smol::Async::<TcpStream>::connect(farm.address).await.unwrap();
        let url = format!("ws://{}/ws", farm.address);
        let (mut echo, _) = client_async(url, stream).await.unwrap();
        for size in [0, 1, 125, 70_000, 1 << 20] {
            let message = Message::binary(content::piece(size as u64, size as u64).to_vec());
            echo.send(message.clone()).await.unwrap();
            assert_eq!(echo.next().await.unwrap().unwrap(), message, "{size}");
        }
        echo.close(None).await.unwrap();

        let stream = smol::Async::<TcpStream>::connect(farm.address).await.unwrap();
        let url = format!("ws://{}/ws/live", farm.address);
        let (mut live, _) = client_async(url, stream).await.unwrap();
        for _ in 0..2 {
            let message = live.next().await.unwrap().unwrap().into_text().unwrap();
            let values: Value = serde_json::from_str(&message).unwrap();
            assert!(values["humidity_percent"].as_f64().is_some());
        }
    });
    let plain = http::get(farm.address, "/ws").unwrap();
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
}

#[test]
fn misuse_is_refused_with_the_way_out() {
    let program = binary("greenhouse").unwrap();
    let run = |arguments: &[&str]| {
        let process = Process::spawn("greenhouse", Command::new(&program).args(arguments)).unwrap();
        (process.wait(SOON).unwrap().code(), process)
    };
    assert_eq!(run(&["--help"]).0, Some(0));
    let (code, process) = run(&["--liste"]);
    assert_eq!(code, Some(2));
    process.wait_for_line("the way out", SOON, |line| line.text.contains("--help")).unwrap();
    let farm = greenhouse();
    let (code, process) = run(&["--listen", &farm.address.to_string()]);
    assert_eq!(code, Some(1));
    process.wait_for_line("the address", SOON, |line| line.text.contains(&farm.address.to_string())).unwrap();
}
