//! A small network for the farm, so that its address can be changed: a network
//! namespace joined to this machine by a virtual cable. Needs root.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;

use crate::harness::farm::Place;
use crate::harness::{HarnessError, run};

/// An `ip` command is done in milliseconds; it may wait for the kernel's lock.
const IP_PATIENCE: Duration = Duration::from_secs(10);
/// The farm's first and last address in the /24; ours is .1.
const FIRST: u8 = 10;
const LAST: u8 = 250;

/// The farm's side of the cable. Removed when dropped.
pub(super) struct Network {
    name: String,
    /// 10.203.N.0/24.
    subnet: u8,
    host: u8,
}

impl Network {
    /// Lays the cable; else the reason why this can't be, for the user.
    pub(super) fn lay() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("changing the address needs root: sudo make demo".to_owned());
        }
        let pid = std::process::id();
        let network = Self { name: format!("farm-demo-{pid}"), subnet: (pid % 250) as u8, host: FIRST };
        network
            .build()
            .map_err(|error| format!("no network namespace for the farm: {}", first_line(&error)))?;
        Ok(network)
    }

    fn build(&self) -> Result<(), HarnessError> {
        let (name, cable) = (&self.name, self.cable());
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["addr", "add", &format!("{}/24", self.ours()), "dev", &cable])?;
        ip(&["link", "set", &cable, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/24", self.address()), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "route", "add", "default", "via", &self.ours().to_string()])
    }

    /// Where the farm runs.
    pub(super) fn place(&self) -> Place {
        Place::namespace(&self.name)
    }

    /// This machine's address on the cable.
    pub(super) fn ours(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 203, self.subnet, 1)
    }

    /// The farm's address.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 203, self.subnet, self.host)
    }

    /// Gives the farm the next address and takes the old one away, as a new
    /// lease from the router does.
    pub(super) fn change(&mut self) -> Result<(), HarnessError> {
        let old = self.address();
        self.host = if self.host == LAST { FIRST } else { self.host + 1 };
        let name = &self.name;
        ip(&["-n", name, "addr", "del", &format!("{old}/24"), "dev", "eth0"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/24", self.address()), "dev", "eth0"])?;
        // The old address took its route with it.
        ip(&["-n", name, "route", "replace", "default", "via", &self.ours().to_string()])
    }

    /// The name of our end; an interface's has at most 15 characters.
    fn cable(&self) -> String {
        format!("farm{}", std::process::id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Not through the harness, which starts nothing once it was told to end.
        // The cable's other end goes with the namespace; a leftover of a half
        // built one is taken away by name.
        for arguments in [["link", "del", &self.cable()], ["netns", "del", &self.name]] {
            let _ = Command::new("ip").args(arguments).output();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), HarnessError> {
    run("ip", Command::new("ip").args(arguments), IP_PATIENCE).map(drop)
}

/// The reason without the program's last lines.
fn first_line(error: &HarnessError) -> String {
    match error {
        HarnessError::Program { problem, output, .. } => {
            format!("ip {problem}: {}", output.trim())
        }
        other => other.to_string(),
    }
}
