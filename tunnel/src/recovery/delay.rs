//! How long each strategy waits, and why.

use std::time::Duration;

use crate::backoff::Jitter;

/// Delays of the first attempts after a failure: at once, then growing slowly
/// enough that three tries fit in the half second that a watched tunnel may
/// take to be back.
pub const LADDER: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The delay of all further attempts while somebody is looking: the lower end
/// of the 5 to 15 s within which recovery was asked for.
pub const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// While nobody is looking, delays go on doubling up to here: an attempt costs
/// about 10 KB over the farm's modem, and every 5 s would be 170 MB a day.
/// Attention, presence and network changes end the wait.
pub const LONGEST_DELAY_UNWATCHED: Duration = Duration::from_secs(300);

/// Time between blind attempts at a farm that the broker calls absent.
pub const BLIND_RETRY: Duration = Duration::from_secs(15);

/// The same while nobody is looking: an offer of about 3 KB each, so under
/// 1 MB a day.
pub const BLIND_RETRY_UNWATCHED: Duration = Duration::from_secs(300);

/// The first blind attempt at a restarting farm: an agent is killed and ready
/// again within about 1 s.
pub const RESTART_RETRY: Duration = Duration::from_secs(2);

/// Time between looks whether the network or the broker's link is back although
/// nobody said so. It costs no traffic.
pub const RECHECK: Duration = Duration::from_secs(5);

/// The same while nobody is looking: each look is a wakeup.
pub const RECHECK_UNWATCHED: Duration = Duration::from_secs(60);

/// Time between looks whether somebody paired this phone again.
pub const NOT_PAIRED_RETRY: Duration = Duration::from_secs(60);

/// From a carrier that came up relayed to the first attempt at a direct one:
/// what moved the address, or kept the direct way from being found in time, has
/// settled by then.
pub const UPGRADE_FIRST: Duration = Duration::from_secs(5);

/// So many times longer each time: 5, 15, 45 s, 2, 7 and 15 minutes.
const UPGRADE_GROWTH: u32 = 3;

/// The longest time between two attempts at a direct carrier: 10 KB each make
/// 1 MB of a day that somebody looks all the time.
pub const UPGRADE_LONGEST: Duration = Duration::from_secs(900);

/// How long a relayed carrier is used before the next attempt at a direct one,
/// when `tries` came to nothing.
pub(super) fn upgrade(tries: u32) -> Duration {
    // 3^5 x 5 s is past the cap.
    (UPGRADE_FIRST * UPGRADE_GROWTH.pow(tries.min(5))).min(UPGRADE_LONGEST)
}

/// The longest delay before the attempt that follows `attempt` failures.
pub(super) fn ladder(attempt: u32, watched: bool) -> Duration {
    if let Some(delay) = usize::try_from(attempt).ok().and_then(|step| LADDER.get(step)) {
        return *delay;
    }
    if watched {
        return LONGEST_DELAY;
    }
    // 2^6 x 5 s is past the cap.
    let doublings = (attempt - LADDER.len() as u32).min(6);
    (LONGEST_DELAY * (1 << doublings)).min(LONGEST_DELAY_UNWATCHED)
}

/// Takes up to a fifth away: what failed together does not come back together,
/// and each step of the ladder stays longer than the one before.
pub(super) fn shortened(most: Duration, jitter: &mut Jitter) -> Duration {
    most - jitter.up_to(most / 5)
}
