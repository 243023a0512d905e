//! Which sockets may be open at all, before anything was read from them.
//! Devices meet the core's own, lower limits, which tell them why.
//!
//! A socket is a *newcomer* until a device has its WebSocket. There is room for
//! so many; the oldest gives way to the next one, so that whoever holds sockets
//! open without a word keeps nobody out who goes on at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_channel::{Receiver, Sender};

use super::tally::Tally;
use crate::core::Limits;
use crate::core::bucket::Buckets;
use crate::core::network::Network;

/// Counts the open sockets of one listener.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    counts: Arc<Mutex<Counts>>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Counts {
    total: usize,
    most: usize,
    most_per_address: usize,
    per_address: BTreeMap<Network, usize>,
    rates: Buckets<Network>,
    most_newcomers: usize,
    /// By age; dropping the sender tells the socket to go.
    newcomers: BTreeMap<u64, Sender<Infallible>>,
    next: u64,
    refused: u64,
}

/// The right to have one socket open; given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Admission,
    network: Option<Network>,
    number: u64,
    gives_way: Receiver<Infallible>,
}

impl Admission {
    pub(super) fn new(limits: &Limits, tally: Arc<Tally>) -> Self {
        let counts = Counts {
            total: 0,
            most: limits.sockets,
            most_per_address: limits.connections_per_address * 2,
            per_address: BTreeMap::new(),
            rates: Buckets::new(limits.sockets_per_address, limits.remembered_addresses),
            most_newcomers: limits.newcomers,
            newcomers: BTreeMap::new(),
            next: 0,
            refused: 0,
        };
        Self { counts: Arc::new(Mutex::new(counts)), tally }
    }

    /// Other limits, for who comes from now on.
    pub(super) fn change(&self, limits: &Limits) {
        let mut counts = self.lock();
        (counts.most, counts.most_per_address) = (limits.sockets, limits.connections_per_address * 2);
    }

    /// Lets one more socket in. A proxy has all clients behind its address
    /// and counts as a whole only.
    pub(super) fn enter(&self, ip: IpAddr, is_proxy: bool, now: Instant) -> Option<Ticket> {
        let mut guard = self.lock();
        let counts = &mut *guard;
        let network = (!is_proxy).then(|| Network::of_client(ip));
        let here = network.and_then(|network| counts.per_address.get(&network).copied()).unwrap_or(0);
        let met = if counts.total >= counts.most {
            Some(&self.tally.limit_sockets)
        } else if here >= counts.most_per_address {
            Some(&self.tally.limit_sockets_per_address)
        } else if network.is_some_and(|network| !counts.rates.take(network, now)) {
            Some(&self.tally.limit_sockets_rate)
        } else {
            None
        };
        if let Some(met) = met {
            met.up();
            counts.refused += 1;
            return None;
        }
        counts.total += 1;
        if let Some(network) = network {
            counts.per_address.insert(network, here + 1);
        }
        let (go, gives_way) = async_channel::bounded(1);
        let number = counts.next;
        counts.next += 1;
        counts.newcomers.insert(number, go);
        if counts.newcomers.len() > counts.most_newcomers {
            self.tally.limit_newcomers.up();
            counts.newcomers.pop_first();
        }
        Some(Ticket { admission: self.clone(), network, number, gives_way })
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
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Returns when this socket has to give way to others, or is no newcomer
    /// any more.
    pub(super) fn must_go(&self) -> impl Future<Output = ()> + Send + use<> {
        let gives_way = self.gives_way.clone();
        async move {
            // Nobody ever sends here.
            let _told = gives_way.recv().await;
        }
    }

    /// A device has this socket now: it gives way to nobody.
    pub(super) fn settle(&self) {
        self.admission.lock().newcomers.remove(&self.number);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        counts.total -= 1;
        counts.newcomers.remove(&self.number);
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
    use crate::core::bucket::Rate;
    use smol::future::{block_on, poll_once};

    fn admission(change: impl FnOnce(&mut Limits)) -> Admission {
        let mut limits = Limits::default();
        change(&mut limits);
        Admission::new(&limits, Arc::default())
    }

    #[test]
    fn sockets_are_limited_and_given_back() {
        let admission = admission(|limits| (limits.sockets, limits.connections_per_address) = (10, 1));
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let enter = |ip, is_proxy| admission.enter(ip, is_proxy, Instant::now());
        let tickets = [enter(one, false), enter(one, false)];
        assert!(tickets.iter().all(Option::is_some));
        assert!(enter(one, false).is_none());
        assert!(enter(other, false).is_some());
        let proxied: Vec<_> = (0..10).filter_map(|_| enter(one, true)).collect();
        assert_eq!(proxied.len(), 8);
        assert!(enter(other, false).is_none());
        assert_eq!(admission.refused(), 4);
        let tally = &admission.tally;
        assert_eq!((tally.limit_sockets_per_address.get(), tally.limit_sockets.get()), (1, 3));
        drop((tickets, proxied));
        assert!(enter(one, false).is_some());
        assert!(admission.lock().per_address.is_empty());
        assert!(admission.lock().newcomers.is_empty());
    }

    #[test]
    fn one_address_opens_only_so_many_a_second() {
        let admission = admission(|limits| limits.sockets_per_address = Rate::per_second(3, 1));
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = Instant::now();
        assert_eq!((0..9).filter_map(|_| admission.enter(one, false, now)).count(), 3);
        assert!(admission.enter(other, false, now).is_some());
        assert!(admission.enter(one, true, now).is_some(), "a proxy is everybody");
        assert!(admission.enter(one, false, now + std::time::Duration::from_secs(1)).is_some());
        assert_eq!(admission.tally.limit_sockets_rate.get(), 6);
    }

    #[test]
    fn the_oldest_newcomer_gives_way_and_a_device_does_not() {
        let admission = admission(|limits| limits.newcomers = 2);
        let enter = || admission.enter("192.0.2.1".parse().unwrap(), false, Instant::now()).unwrap();
        let (device, silent) = (enter(), enter());
        let must_go = silent.must_go();
        device.settle();
        let next = enter();
        block_on(async {
            let mut must_go = Box::pin(must_go);
            assert_eq!(poll_once(&mut must_go).await, None, "there is room for two");
            let _third = enter();
            assert_eq!(poll_once(&mut must_go).await, Some(()));
            assert_eq!(poll_once(next.must_go()).await, None);
        });
        assert_eq!(admission.tally.limit_newcomers.get(), 1);
    }
}
