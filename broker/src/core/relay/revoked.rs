//! Accounts that may use the relay no more: those of revoked farms. Their
//! credentials are good until they expire, so it has to remember whose they
//! are: 8 bytes for each farm that the operator ever revoked.

use std::time::Instant;

use super::credentials::Account;
use super::turn::{AllocationId, Turn};

impl Turn {
    /// Ends all that an account has, and refuses its credentials from now on.
    pub(super) fn revoke(&mut self, account: Account, now: Instant) {
        self.revoked.insert(account);
        let allocations = self.allocations.iter();
        let mut theirs: Vec<AllocationId> = allocations
            .filter(|(_, allocation)| allocation.name.account == account)
            .map(|(id, _)| *id)
            .collect();
        // The order of a map with a hash must not show.
        theirs.sort_unstable();
        for id in theirs {
            self.counters.relay_revoked += 1;
            if let Some(allocation) = self.release(id) {
                self.watch_stream(allocation.client, now);
            }
        }
    }
}
