//! Who runs where. The hostile traffic has one core to itself, at its limit; the
//! broker and the honest share the others. Without this the scheduler puts the
//! hostile process before an honest one now and then, for a time slice, and the
//! tail of every latency tells of that and not of the broker.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// This thread and all that it starts.
const MYSELF: Pid = Pid::from_raw(0);

/// The honest side leaves the first core to the hostile one. Whether there are
/// two of them.
///
/// # Errors
/// Where the operating system refuses.
pub(super) fn leave_one() -> nix::Result<bool> {
    let cores = mine()?;
    let Some(others @ [_, ..]) = cores.get(1..) else { return Ok(false) };
    stay_on(others)?;
    Ok(true)
}

/// The hostile side takes the core that the honest ones left.
///
/// # Errors
/// Where the operating system refuses.
pub(super) fn take_the_one_left() -> nix::Result<()> {
    let taken = mine()?;
    match (0..CpuSet::count()).find(|core| !taken.contains(core)) {
        // All are there for everybody.
        Some(left) if taken.first().is_some_and(|first| left < *first) => stay_on(&[left]),
        _ => Ok(()),
    }
}

fn mine() -> nix::Result<Vec<usize>> {
    let set = sched_getaffinity(MYSELF)?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

fn stay_on(cores: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(MYSELF, &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hostile_side_gets_the_core_that_the_others_left() {
        // In a thread of its own: the test's others stay where they are.
        let seen = std::thread::spawn(|| {
            let all = mine().unwrap();
            let left = leave_one().unwrap();
            let honest = mine().unwrap();
            take_the_one_left().unwrap();
            (all, left, honest, mine().unwrap())
        });
        let (all, left, honest, hostile) = seen.join().unwrap();
        if left {
            assert_eq!((honest.as_slice(), hostile.as_slice()), (&all[1..], &all[..1]));
        } else {
            assert_eq!((honest, hostile), (all.clone(), all));
        }
    }
}
