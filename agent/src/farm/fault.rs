//! Fault injection: `farm-agent debug fault`.

use std::time::Duration;

use farm_tunnel::fault::{Fault, LONGEST};
use farm_tunnel::ip_change::{Verdict, Witness};

use super::Farm;
use super::carriers::Slot;
use crate::counters::Count;

/// For the answer of a crash to leave first.
const CRASH_AFTER: Duration = Duration::from_millis(50);

/// Why a fault is not injected.
#[derive(Debug, thiserror::Error)]
pub(super) enum FaultError {
    #[error(
        "fault injection is off: put `fault_injection = true` under [debug] into the config and send the agent SIGHUP; never on a farm that somebody relies on"
    )]
    Off,
    #[error("{given:?} is no fault: {}, wedge LOOP or crash", Fault::ALL.map(Fault::name).join(", "))]
    Unknown { given: String },
    #[error("no loop is called {given:?}: {}", names.join(", "))]
    NoSuchLoop { given: String, names: Vec<&'static str> },
    #[error("wedge needs a loop: {}", .0.join(", "))]
    LoopMissing(Vec<&'static str>),
    #[error("a fault lasts more than 0 and at most {} seconds", LONGEST.as_secs())]
    Duration,
    #[error("addresses are not watched here, so a change can't be pretended")]
    NoAddressWatch,
}

impl Farm {
    /// Fails on purpose; says what was done.
    pub(super) fn fault(&self, kind: &str, on: Option<&str>, seconds: f64) -> Result<String, FaultError> {
        if !self.config.fault_injection {
            return Err(FaultError::Off);
        }
        let lasting = Duration::try_from_secs_f64(seconds).map_err(|_| FaultError::Duration)?;
        if lasting.is_zero() || lasting > LONGEST {
            return Err(FaultError::Duration);
        }
        let done = match kind {
            "wedge" => self.wedge(on, lasting)?,
            "crash" => {
                farm_tunnel::executor::spawn(async {
                    smol::Timer::after(CRASH_AFTER).await;
                    std::process::abort();
                })
                .detach();
                "crash: the agent aborts now".to_owned()
            }
            kind => {
                let fault = kind.parse().map_err(|_| FaultError::Unknown { given: kind.to_owned() })?;
                self.inject(fault, lasting)?;
                match fault {
                    Fault::CloseCarrier | Fault::AddressChange => format!("{fault}: done"),
                    _ => format!("{fault}: for {seconds} s"),
                }
            }
        };
        self.counters.add(Count::FaultsInjected);
        tracing::warn!(kind, on, seconds, "a fault was injected");
        Ok(done)
    }

    fn wedge(&self, on: Option<&str>, lasting: Duration) -> Result<String, FaultError> {
        let names = self.progress.names();
        let Some(on) = on else { return Err(FaultError::LoopMissing(names)) };
        match self.progress.wedge(on, lasting) {
            0 => Err(FaultError::NoSuchLoop { given: on.to_owned(), names }),
            _ => Ok(format!("wedge: {on} hangs for {} s", lasting.as_secs_f64())),
        }
    }

    fn inject(&self, fault: Fault, lasting: Duration) -> Result<(), FaultError> {
        let pretend = |verdict, then| match &self.watch {
            Some(watch) => {
                watch.pretend(verdict, then);
                Ok(())
            }
            None => Err(FaultError::NoAddressWatch),
        };
        match fault {
            Fault::AddressChange => pretend(Verdict::Changed(Witness::Local), None)?,
            Fault::NetworkDown => {
                pretend(
                    Verdict::Offline,
                    Some((lasting + farm_tunnel::fault::NETWORK_FIRST, Verdict::Online)),
                )?;
                self.broker.break_for(lasting);
            }
            Fault::BrokerLost => self.broker.break_for(lasting),
            Fault::CloseCarrier => {
                let slots = self.sessions.values().flat_map(|session| session.carriers.values());
                for slot in slots {
                    if let Slot::Running { peer, .. } = slot {
                        let peer = peer.clone();
                        farm_tunnel::executor::spawn(async move { peer.close().await }).detach();
                    }
                }
            }
            Fault::Blackhole | Fault::LossOut | Fault::LossIn | Fault::NoPongs => {}
        }
        self.faults.begin(fault, lasting);
        Ok(())
    }
}
