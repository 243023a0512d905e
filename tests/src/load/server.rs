//! What is measured: our broker, and others beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farm_broker::core::enrollment::{FarmRecord, TokenHash};
use farm_broker::store;
use futures_util::StreamExt;

use super::Trouble;
use super::line::Kind;
use crate::device::Certificate;
use crate::harness::{Process, Source, free_port, run};

/// Enrollments that wait for the disk together.
const AT_ONCE: usize = 256;

/// Time for a server to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Puts farms into a broker's store before it starts, as if each had brought
/// its token: issuing ten thousand is not what is measured.
pub(super) fn enroll(state: &Path, farms: impl Iterator<Item = u32>) -> Result<(), Trouble> {
    let (store, _) = store::open(state).map_err(|error| Trouble::Wrong(error.to_string()))?;
    let results: Vec<_> = smol::block_on(async {
        let enrolled = futures_util::stream::iter(farms).map(|number| {
            let store = store.clone();
            async move {
                let farm = Kind::Agents.device(number);
                let record = FarmRecord {
                    key: farm.key.public(),
                    name: format!("farm {number}"),
                    enrolled: store::unix_time(),
                    token: TokenHash([0; 32]),
                };
                store::enroll(&store, farm.farm_id(), &record).await
            }
        });
        let results = enrolled.buffer_unordered(AT_ONCE).collect().await;
        store.close().await;
        results
    });
    results.into_iter().collect::<Result<(), _>>().map_err(|error| Trouble::Wrong(error.to_string()))
}

/// A server to compare with.
pub(super) struct Yardstick {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) process: Process,
    pub(super) address: SocketAddr,
}

/// Whether a program is there.
fn is_there(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// mosquitto (Debian's), with the same certificate; `None` where there is none.
pub(super) fn mosquitto(dir: &Path, certificate: &Certificate) -> Result<Option<Yardstick>, Trouble> {
    let found =
        ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].into_iter().find(|path| Path::new(path).is_file());
    let Some(program) = found else { return Ok(None) };
    let address = free_port()?;
    let config = dir.join("mosquitto.conf");
    let text = format!(
        "listener {} 127.0.0.1\ncertfile {}\nkeyfile {}\nallow_anonymous true\nmax_connections -1\nuser root\nlog_type error\nlog_type information\n",
        address.port(),
        certificate.chain.display(),
        certificate.key.display(),
    );
    std::fs::write(&config, text).map_err(Trouble::io("writing mosquitto's config"))?;
    let process = Process::spawn("mosquitto", Command::new(program).arg("-c").arg(config))?;
    process.wait_for_line("that it runs", STARTS_WITHIN, |line| line.text.contains("running"))?;
    Ok(Some(Yardstick { name: "mosquitto", kind: Kind::Mqtt, process, address }))
}

/// A server of node's `ws` that sends messages on to the device of the path.
const NODE: &str = r"
const [, , port, chain, key] = process.argv;
const { readFileSync } = require('node:fs');
const { WebSocketServer } = require('ws');
const server = require('node:https').createServer({ cert: readFileSync(chain), key: readFileSync(key) });
const devices = new Map();
new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket, request) => {
  const number = Number(request.url.slice(1));
  devices.set(number, socket);
  socket.on('message', data => devices.get(number ^ 1)?.send(data));
  socket.on('close', () => devices.delete(number));
  socket.on('error', () => {});
});
server.listen(Number(port), '127.0.0.1', 4096, () => console.log('listening'));
";

/// node with `ws` (npm's or Debian's); `None` where there is none.
pub(super) fn node(dir: &Path, certificate: &Certificate) -> Result<Option<Yardstick>, Trouble> {
    const PLACES: &str = "/usr/share/nodejs:/usr/lib/node_modules:/usr/local/lib/node_modules";
    if !is_there("node", &["--version"]) {
        return Ok(None);
    }
    let places = std::env::var("NODE_PATH").map_or(PLACES.to_owned(), |more| format!("{more}:{PLACES}"));
    let mut look = Command::new("node");
    look.args(["-e", "require('ws')"]).env("NODE_PATH", &places);
    if run("node", &mut look, STARTS_WITHIN).is_err() {
        return Ok(None);
    }
    let address = free_port()?;
    let script: PathBuf = dir.join("server.cjs");
    std::fs::write(&script, NODE).map_err(Trouble::io("writing node's server"))?;
    let mut command = Command::new("node");
    command.arg(script).arg(address.port().to_string()).arg(&certificate.chain).arg(&certificate.key);
    let process = Process::spawn("node", command.env("NODE_PATH", &places))?;
    process.wait_for_line("that it listens", STARTS_WITHIN, |line| {
        line.source == Source::Stdout && line.text == "listening"
    })?;
    Ok(Some(Yardstick { name: "node ws", kind: Kind::WebSocket, process, address }))
}
