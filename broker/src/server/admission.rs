//! How many sockets may be open at all, before anything was read from them.
//! Devices meet the core's own, lower limits, which tell them why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::Limits;
use crate::core::network::Network;

/// Sockets beyond the devices' connections: requests for pages, and devices
/// that are just being told that the broker is full.
const SPARE: usize = 1024;

/// Counts the open sockets.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    total: usize,
    most: usize,
    most_per_address: usize,
    per_address: BTreeMap<Network, usize>,
    refused: u64,
}

/// The right to have one socket open; given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Admission,
    network: Option<Network>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Counts {
            total: 0,
            most: limits.connections + SPARE,
            most_per_address: limits.connections_per_address * 2,
            per_address: BTreeMap::new(),
            refused: 0,
        })))
    }

    /// Lets one more socket in. A proxy has all clients behind its address
    /// and counts as a whole only.
    pub(super) fn enter(&self, ip: IpAddr, is_proxy: bool) -> Option<Ticket> {
        let mut guard = self.lock();
        let counts = &mut *guard;
        let network = (!is_proxy).then(|| Network::of_client(ip));
        let full_here = network.is_some_and(|network| {
            let here = counts.per_address.get(&network);
            here.is_some_and(|here| *here >= counts.most_per_address)
        });
        if full_here || counts.total >= counts.most {
            counts.refused += 1;
            return None;
        }
        counts.total += 1;
        if let Some(network) = network {
            *counts.per_address.entry(network).or_default() += 1;
        }
        let admission = self.clone();
        Some(Ticket { admission, network })
    }

    /// How many sockets are open.
    pub(super) fn open(&self) -> usize {
        self.lock().total
    }

    /// How many sockets were not let in.
    pub(super) fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        counts.total -= 1;
        let Some(network) = self.network else {
            return;
        };
        if let Some(here) = counts.per_address.get_mut(&network) {
            *here -= 1;
            if *here == 0 {
                counts.per_address.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_limited_and_given_back() {
        let admission =
            Admission::new(&Limits { connections: 1, connections_per_address: 1, ..Limits::default() });
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let tickets = [admission.enter(one, false), admission.enter(one, false)];
        assert!(tickets.iter().all(Option::is_some));
        assert!(admission.enter(one, false).is_none());
        assert!(admission.enter(other, false).is_some());
        let proxied: Vec<_> = (0..SPARE).filter_map(|_| admission.enter(one, true)).collect();
        assert_eq!(proxied.len(), SPARE - 1);
        assert!(admission.enter(other, false).is_none());
        assert_eq!(admission.refused(), 3);
        drop((tickets, proxied));
        assert!(admission.enter(one, false).is_some());
        assert!(admission.lock().per_address.is_empty());
    }
}
