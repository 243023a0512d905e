//! Work that blocks, on threads that end with it: smol's pool for what blocks
//! keeps one that wakes twice a second ever after.

use std::io;

/// Runs what blocks, on a thread of this name.
pub(super) async fn on_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, finished) = async_channel::bounded(1);
    let work = move || {
        // Nobody waits any more: it took too long, or the broker ended.
        let _ = done.try_send(work());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    finished.recv().await.map_err(io::Error::other)?
}
