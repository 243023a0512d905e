//! The demo without a person: one step after the other, each within its budget.

use std::process::ExitCode;
use std::sync::Arc;

use super::board::{Board, Tone};
use super::step::Step;
use super::world::{StepError, World};
use super::{screen, stop};
use crate::harness::end_all;

/// Runs the steps and prints what happened; success when every one worked.
/// A step that is impossible on this machine is said and skipped. `loopback`
/// keeps root from making a network namespace.
#[must_use]
pub fn run(steps: &[Step], loopback: bool) -> ExitCode {
    let board = Arc::new(Board::new(true));
    if let Err(error) = stop::on_signal(end_all) {
        board.say(Tone::Bad, format!("cannot listen for signals: {error}"));
        return ExitCode::FAILURE;
    }
    let mut world = match World::start(Arc::clone(&board), loopback) {
        Ok(world) => world,
        Err(error) => {
            board.say(Tone::Bad, format!("starting: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for step in steps {
        match world.perform(*step) {
            Ok(()) if *step == Step::Quit => break,
            Ok(()) => {
                if let Some(link) = board.facts().invitation.take() {
                    screen::pairing(&link).iter().for_each(|line| println!("{line}"));
                }
            }
            Err(StepError::Impossible(reason)) => {
                board.say(Tone::Plain, format!("{}: not possible here: {reason}", step.name()));
            }
            Err(error) => {
                failed += 1;
                board.say(Tone::Bad, format!("{}: {error}", step.name()));
            }
        }
    }
    drop(world);
    if failed == 0 {
        board.say(Tone::Good, "done");
        ExitCode::SUCCESS
    } else {
        board.say(Tone::Bad, format!("{failed} of {} steps", steps.len()));
        ExitCode::FAILURE
    }
}
