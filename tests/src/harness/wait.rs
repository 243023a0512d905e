//! Waiting for a condition outside this process, with a deadline.

use std::time::{Duration, Instant};

use super::HarnessError;
use super::process::ending;

/// Between two looks at a condition nobody announces: short against everything
/// that is measured (tens of milliseconds at least), long against the cost of a look.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `condition` gives a value, at most for `within`; says how long it
/// took. For what announces itself (lines, exits) use [`super::Process`]'s waits.
///
/// # Errors
/// [`HarnessError::Timeout`] naming `what`; [`HarnessError::Ending`] after
/// [`super::end_all`].
pub fn until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<(T, Duration), HarnessError> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok((value, start.elapsed()));
        }
        if ending() {
            return Err(HarnessError::Ending);
        }
        if start.elapsed() >= within {
            return Err(HarnessError::Timeout { what: what.to_owned(), waited: within });
        }
        std::thread::sleep(LOOK);
    }
}
