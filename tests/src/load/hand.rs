//! The other end of a crew: its process, its orders and its answers.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use super::Trouble;
use super::crew::Orders;
use super::line::Kind;
use crate::harness::{binary, ending, until};

/// Between two looks whether the run is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A crew of devices. Its process ends when this is dropped.
pub(super) struct Hand {
    process: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Kind {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Pairs => "pairs",
            Self::Mqtt => "mqtt",
            Self::WebSocket => "websocket",
        }
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Agents, Self::Pairs, Self::Mqtt, Self::WebSocket];
}

impl Hand {
    pub(super) fn start(orders: &Orders) -> Result<Self, Trouble> {
        let io = Trouble::io("starting a crew");
        let mut process = Command::new(binary("load")?)
            .args(["--crew", orders.kind.name(), "--server", &orders.address.to_string()])
            .args(["--first", &orders.first.to_string(), "--count", &orders.count.to_string()])
            .args(["--net", &orders.net.to_string(), "--certificate"])
            .arg(&orders.certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let stdout = process.stdout.take().expect("stdout is piped");
        let orders = process.stdin.take();
        let (answer, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if answer.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, orders, answers })
    }

    /// Tells it something without waiting for the answer.
    pub(super) fn tell(&mut self, order: &str) -> Result<(), Trouble> {
        let Some(orders) = &mut self.orders else {
            return Err(Trouble::Wrong("a crew has ended".to_owned()));
        };
        writeln!(orders, "{order}").and_then(|()| orders.flush()).map_err(Trouble::io("ordering a crew"))
    }

    /// The next answer.
    pub(super) fn answer(&self, within: Duration) -> Result<Value, Trouble> {
        let mut left = within;
        loop {
            match self.answers.recv_timeout(LOOK.min(left)) {
                Ok(line) => {
                    let answer: Value = serde_json::from_str(&line)
                        .map_err(|error| Trouble::Wrong(format!("a crew said {line:?}: {error}")))?;
                    return match answer.get("error") {
                        Some(error) => Err(Trouble::Wrong(format!("a crew: {error}"))),
                        None => Ok(answer),
                    };
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Trouble::Wrong("a crew has ended by itself".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) if ending() => {
                    return Err(crate::harness::HarnessError::Ending.into());
                }
                Err(RecvTimeoutError::Timeout) => {
                    left = left.saturating_sub(LOOK);
                    if left.is_zero() {
                        return Err(Trouble::Wrong(format!("a crew did not answer within {within:?}")));
                    }
                }
            }
        }
    }

    /// Tells it something, and its answer.
    pub(super) fn ask(&mut self, order: &str, within: Duration) -> Result<Value, Trouble> {
        self.tell(order)?;
        self.answer(within)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // It ends when its input does.
        self.orders = None;
        let ended = until("a crew to end", Duration::from_secs(5), || self.process.try_wait().ok().flatten());
        if ended.is_err() {
            // Nobody is left to be told.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Lets crews connect so many devices altogether, and waits until they are in.
pub(super) fn connect(crews: &mut [Hand], each: &[u32], within: Duration) -> Result<(), Trouble> {
    for (crew, count) in crews.iter_mut().zip(each) {
        crew.ask(&format!("connect {count}"), within)?;
    }
    let wanted: u64 = each.iter().map(|count| u64::from(*count)).sum();
    everybody(crews, wanted, within)
}

/// Waits until so many devices are in.
pub(super) fn everybody(crews: &mut [Hand], wanted: u64, within: Duration) -> Result<(), Trouble> {
    let mut last = Vec::new();
    let in_time = until("all devices to be in", within, || {
        last = crews.iter_mut().filter_map(|crew| crew.ask("count", within).ok()).collect();
        let inside: u64 = last.iter().filter_map(|count| count["inside"].as_u64()).sum();
        (inside == wanted).then_some(())
    });
    match in_time {
        Ok(_) => Ok(()),
        Err(_) if ending() => Err(crate::harness::HarnessError::Ending.into()),
        Err(_) => Err(Trouble::Wrong(format!("{wanted} devices should be in within {within:?}: {last:?}"))),
    }
}
