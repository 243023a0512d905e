//! What concerns a whole process of the harness's user, and so needs one.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use farm_tests::harness::{HarnessError, Process, end_all, ending, until};

#[test]
fn ending_all_ends_programs_and_waits_at_once() {
    let sleeping = || Process::spawn("sleep", Command::new("sleep").arg("600"));
    let (one, other) = (sleeping().unwrap(), sleeping().unwrap());
    let pids = [one.pid(), other.pid()];
    let start = Instant::now();
    thread::scope(|scope| {
        let waits = [
            scope.spawn(|| one.wait(Duration::from_secs(300)).is_ok()),
            scope.spawn(|| {
                let line = other.wait_for_line("anything", Duration::from_secs(300), |_| true);
                line.is_err_and(|error| error.to_string().contains("ended without a line"))
            }),
            scope.spawn(|| {
                let never = until("nothing", Duration::from_secs(300), || None::<()>);
                matches!(never, Err(HarnessError::Ending))
            }),
        ];
        end_all();
        for wait in waits {
            assert!(wait.join().unwrap());
        }
    });
    assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
    assert!(ending());
    drop((one, other));
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    assert!(matches!(sleeping(), Err(HarnessError::Ending)));
}
