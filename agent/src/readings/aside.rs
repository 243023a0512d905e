//! Reads of the card that may take long, beside the tasks.

use farm_store::Error;

/// Does a blocking job on a thread of its own, which ends with it: a pool's
/// idle thread wakes twice a second to see whether it may end, and that would
/// be most of what an idle agent does. Each follower and the writer ask for
/// one at a time, so there are never more than
/// [`MAX_FOLLOWERS`](super::handle::MAX_FOLLOWERS) + 2.
///
/// # Errors
/// The job's own; [`Error::Unavailable`] where it could not be run.
pub(super) async fn aside<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (done, result) = async_channel::bounded(1);
    let run = move || {
        // Whoever asked may have gone.
        let _ = done.try_send(job());
    };
    std::thread::Builder::new()
        .name("farm-read".to_owned())
        .spawn(run)
        .map_err(|error| Error::Unavailable { why: format!("no thread to read with: {error}") })?;
    result.recv().await.unwrap_or_else(|_| {
        Err(Error::Unavailable { why: "the read broke off, see the log: please report it".to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_panics_is_an_error_to_who_asked() {
        let run = |job: fn() -> Result<u8, Error>| smol::future::block_on(aside(job));
        assert_eq!(run(|| Ok(7)).unwrap(), 7);
        assert!(matches!(run(|| panic!("as the test wants")), Err(Error::Unavailable { .. })));
    }
}
