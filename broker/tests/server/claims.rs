//! Devices that prove their key with their request, over real TLS.

use async_tungstenite::tungstenite::ClientRequestBuilder;
use farm_protocol::broker::{Authenticate, FromBroker};
use farm_protocol::channel::{CLAIM_HEADER, Channel, EXPORTER_LABEL, to_header};
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::pki_types::CertificateDer;
use futures_util::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;
use tempfile::TempDir;

use crate::client::{Broker, Client, Device, run};
use crate::tls::{secure, with_tls};

fn channel(stream: &TlsStream<TcpStream>) -> Channel {
    Channel::from_bytes(stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap())
}

fn header(device: &Device, channel: &Channel) -> String {
    to_header(Authenticate::sign_for_channel(&device.key, channel, device.says())).unwrap()
}

/// Asks for a WebSocket with this claim; the first message.
async fn claim<S: AsyncRead + AsyncWrite + Unpin>(stream: S, header: String) -> (Client<S>, FromBroker) {
    let uri = format!("ws://localhost{CONNECT_PATH}").parse().unwrap();
    let request =
        ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL).with_header(CLAIM_HEADER, header);
    let (stream, _) = async_tungstenite::client_async(request, stream).await.unwrap();
    let mut client = Client::silent(stream);
    let first = client.next().await;
    (client, first)
}

async fn connect(broker: &Broker, certificate: &CertificateDer<'static>) -> TlsStream<TcpStream> {
    secure(broker.server.address(), certificate).await.unwrap()
}

#[test]
fn a_device_is_in_with_its_request() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (broker, certificate) = with_tls(&dir).await;
        let phone = Device::phone(1);
        for _ in 0..2 {
            let stream = connect(&broker, &certificate).await;
            let header = header(&phone, &channel(&stream));
            let (mut client, first) = claim(stream, header).await;
            assert!(matches!(first, FromBroker::Welcome(_)), "{first:?}");
            client.settle(&phone).await;
        }
        assert_eq!(broker.counters().await.claims, 2);
    });
}

#[test]
fn a_claim_that_somebody_passes_on_proves_nothing() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (broker, certificate) = with_tls(&dir).await;
        let phone = Device::phone(1);
        // As a proxy would that ends TLS, or a thief.
        let overheard = channel(&connect(&broker, &certificate).await);
        let stream = connect(&broker, &certificate).await;
        let (_, first) = claim(stream, header(&phone, &overheard)).await;
        assert!(matches!(first, FromBroker::Challenge(_)), "{first:?}");
        assert_eq!(broker.counters().await.claims_unproved, 1);
    });
}

#[test]
fn where_tls_ends_elsewhere_or_the_claim_is_none_there_is_a_challenge_as_ever() {
    run(async {
        let phone = Device::phone(1);
        let plain = Broker::start().await;
        let stream = TcpStream::connect(plain.server.address()).await.unwrap();
        let (_, first) = claim(stream, header(&phone, &Channel::from_bytes([0; 32]))).await;
        assert!(matches!(first, FromBroker::Challenge(_)), "{first:?}");

        let dir = TempDir::new().unwrap();
        let (broker, certificate) = with_tls(&dir).await;
        for nonsense in ["", "AAAA", "no base64!"] {
            let stream = connect(&broker, &certificate).await;
            let (_, first) = claim(stream, nonsense.to_owned()).await;
            assert!(matches!(first, FromBroker::Challenge(_)), "{first:?}");
        }
    });
}
