//! The example dashboard asks for figures that the broker really shows.

use std::collections::BTreeSet;

use futures_util::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use tempfile::TempDir;

use crate::client::{Broker, run, within};
use crate::tls::renew;

const DASHBOARD: &str = include_str!("../../../docs/grafana.json");

/// The names of figures in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let of_names = |c: char| c.is_ascii_lowercase() || c == '_';
    let found = text.match_indices("farm_broker_").map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !of_names(c)).unwrap_or(rest.len())]
    });
    found.collect()
}

#[test]
fn every_figure_of_the_dashboard_is_shown_by_the_broker() {
    let parsed: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let expressions: Vec<&str> = parsed["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    let wanted: BTreeSet<&str> = expressions.iter().flat_map(|expression| names(expression)).collect();
    assert!(wanted.len() > 20 && names(DASHBOARD).is_superset(&wanted), "{wanted:?}");
    let shown = run(async {
        let dir = TempDir::new().unwrap();
        let (files, _) = renew(dir.path());
        let broker = Broker::with(|options| {
            options.tls = Some(files.into());
            options.metrics = Some("127.0.0.1:0".parse().unwrap());
        })
        .await;
        let mut stream = TcpStream::connect(broker.server.metrics_address().unwrap()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    });
    let samples: String = shown.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let there = names(&samples);
    let missing: Vec<_> = names(DASHBOARD).into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "not shown: {missing:?}");
}
