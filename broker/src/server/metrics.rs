//! Figures for Prometheus, on a listener of their own.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::Sender;
use bytes::Bytes;
use futures_util::{AsyncRead, AsyncWrite};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use smol::future::or;
use smol_hyper::rt::FuturesIo;

use super::actor::Input;
use super::admission::{Admission, Ticket};
use super::http::{HEADER_WITHIN, MAX_HEAD, MAX_HEADERS};
use super::reactor::{Alarm, AlarmTimer};
use super::relay::Relay;
use super::site::{Page, text};
use super::tls::Expiry;
use crate::core::counters::Counters;

/// Where the figures are.
pub const METRICS_PATH: &str = "/metrics";

/// A collector may keep its connection so long, whatever it does.
const LASTS: Duration = Duration::from_secs(600);

/// What the core has in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stock {
    /// Connected devices, also those that did not say yet who they are.
    pub(super) connections: usize,
    /// Enrolled farms.
    pub(super) farms: usize,
    /// Of these, connected ones.
    pub(super) farms_online: usize,
}

/// Answers collectors.
pub(super) struct Metrics {
    pub(super) inputs: Sender<Input>,
    pub(super) admission: Admission,
    pub(super) relay: Option<Arc<Relay>>,
    pub(super) started: Instant,
    /// With TLS.
    pub(super) expiry: Option<Expiry>,
}

impl Metrics {
    /// Answers one connection.
    pub(super) async fn serve<S>(self: Arc<Self>, stream: S, ticket: Ticket)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _held = ticket;
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let metrics = self.clone();
            async move { Ok::<_, Infallible>(metrics.answer(request.method(), request.uri().path()).await) }
        });
        let http = http1::Builder::new()
            .timer(AlarmTimer)
            .header_read_timeout(HEADER_WITHIN)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(FuturesIo::new(stream), service);
        let served = or(http, async {
            Alarm::after(LASTS).await;
            Ok(())
        });
        if let Err(error) = served.await {
            tracing::debug!(%error, "a collector's connection ended");
        }
    }

    async fn answer(&self, method: &Method, path: &str) -> Page {
        if path != METRICS_PATH {
            return text(StatusCode::NOT_FOUND, "only /metrics is here\n");
        }
        if *method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let (answer, answered) = async_channel::bounded(1);
        let asked = self.inputs.send(Input::Stock(answer)).await;
        let (Ok(()), Ok((counters, stock))) = (asked, answered.recv().await) else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the broker is shutting down\n");
        };
        let mut page = Page::new(Full::new(Bytes::from(self.text(&counters, stock))));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        page.headers_mut().insert(CONTENT_TYPE, kind);
        page
    }

    /// Prometheus' text format 0.0.4.
    fn text(&self, counters: &Counters, stock: Stock) -> String {
        let mut out = String::with_capacity(8 * 1024);
        let mut put = |kind, name: &str, help: &str, value: f64| {
            // Writing to a string never fails.
            let _ = write!(
                out,
                "# HELP farm_broker_{name} {help}\n# TYPE farm_broker_{name} {kind}\nfarm_broker_{name} {value}\n"
            );
        };
        let turned_away = self.admission.refused();
        let gauges = [
            ("uptime_seconds", "Since this start.", self.started.elapsed().as_secs_f64()),
            ("connections", "Devices connected now.", stock.connections as f64),
            ("sockets", "Sockets open now, requests for pages included.", self.admission.open() as f64),
            ("farms", "Enrolled farms.", stock.farms as f64),
            ("farms_online", "Enrolled farms that are connected now.", stock.farms_online as f64),
        ];
        for (name, help, value) in gauges {
            put("gauge", name, help, value);
        }
        if let Some(until) = self.expiry.as_ref().and_then(Expiry::until) {
            let help = "When the certificate in use ends, seconds since 1970.";
            put("gauge", "certificate_expires_timestamp_seconds", help, until as f64);
        }
        if let Some(bytes) = resident_bytes() {
            put("gauge", "resident_bytes", "Memory that the process has.", bytes as f64);
        }
        put(
            "counter",
            "sockets_turned_away_total",
            "Sockets closed because too many were open.",
            turned_away as f64,
        );
        for (name, help, value) in counters.explained() {
            put("counter", &format!("{name}_total"), help, value as f64);
        }
        if let Some(relay) = &self.relay {
            put(
                "gauge",
                "relay_allocations_open",
                "Relay: allocations that are open.",
                relay.allocations() as f64,
            );
            for (name, help, value) in relay.counters().explained() {
                put("counter", &format!("{name}_total"), help, value as f64);
            }
        }
        out
    }
}

/// From the kernel: pages of 4 KiB or what this machine has.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Limits;

    #[test]
    fn every_counter_is_there_with_its_explanation() {
        let (inputs, _received) = async_channel::bounded(1);
        let admission = Admission::new(&Limits::default(), Arc::default());
        let metrics = Metrics { inputs, admission, relay: None, started: Instant::now(), expiry: None };
        let counters = Counters { limit_signals: 7, ..Counters::default() };
        let text = metrics.text(&counters, Stock { connections: 3, farms: 2, farms_online: 1 });
        assert!(text.contains("\nfarm_broker_limit_signals_total 7\n"), "{text}");
        assert!(
            text.contains(
                "# HELP farm_broker_limit_signals_total Limit: signals a second of one connection."
            )
        );
        assert!(
            text.contains("\nfarm_broker_farms_online 1\n") && text.contains("\nfarm_broker_resident_bytes ")
        );
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples, counters.iter().count() + 7);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once(' ').unwrap();
            assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
