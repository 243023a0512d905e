//! Parts of the server none of which ends by itself: that one did is reported.

use async_channel::Sender;

/// Reports the end of a part, by a panic too, when it is dropped.
pub(super) struct Report(pub(super) &'static str, pub(super) Sender<&'static str>);

impl Drop for Report {
    fn drop(&mut self) {
        // Full: another part has failed already.
        let _full = self.1.try_send(self.0);
    }
}

/// A task whose end, by a panic too, is reported.
pub(super) fn reported(
    name: &'static str,
    failed: &Sender<&'static str>,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let report = Report(name, failed.clone());
    async move {
        let _report = report;
        task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_panics_is_reported() {
        let (failed, failures) = async_channel::bounded(1);
        let _task = smol::spawn(reported("core", &failed, async { panic!("on purpose") }));
        assert_eq!(smol::block_on(failures.recv()), Ok("core"));
    }
}
