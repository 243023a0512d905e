//! Attention: while somebody looks or data moves, the tunnel is watched
//! closely; else it is quiet, for the sake of the farm's SIM card.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Held by whoever looks; the tunnel is watched while there is one.
#[derive(Debug)]
pub struct Attention {
    watchers: Arc<AtomicUsize>,
    changed: async_channel::Sender<()>,
}

impl Attention {
    pub(crate) fn new(watchers: Arc<AtomicUsize>, changed: async_channel::Sender<()>) -> Self {
        watchers.fetch_add(1, Ordering::AcqRel);
        // Full: the tunnel will look at the count anyway.
        let _ = changed.try_send(());
        Self { watchers, changed }
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::AcqRel);
        let _ = self.changed.try_send(());
    }
}
