//! The demo with a person: a live screen and keys.
//!
//! Four threads: this one draws; one does the steps; one looks at the tunnel;
//! one reads keys. Signals have a fifth.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::board::{Board, Facts, Tone};
use super::step::Step;
use super::terminal::{self, Terminal};
use super::tunnel::Tunnel;
use super::world::{StepError, World, broker_linked};
use super::{probe, screen, stop};
use crate::harness::farm::{AgentControl, Watch};
use crate::harness::{end_all, ending};

/// Between two drawings: a person sees no more.
const DRAW: Duration = Duration::from_millis(150);
/// Between two looks at the page; [`screen`] calls it gone after six of them.
const LOOK: Duration = Duration::from_millis(250);
/// One look's patience: a request lost with a dead tunnel must not hide that
/// the next one would be answered.
const PATIENCE: Duration = Duration::from_millis(500);

enum Event {
    Key(u8),
    /// A signal.
    Stop,
    /// The world has ended.
    Ended,
}

/// What the looking thread looks at.
#[derive(Clone)]
struct View {
    forward: SocketAddr,
    tunnel: Arc<Watch>,
    agent: AgentControl,
}

/// Runs until the user quits; success unless the farm could not be started or
/// not be ended. `loopback` keeps root from making a network namespace.
///
/// # Errors
/// When the terminal fails.
pub fn run(loopback: bool) -> io::Result<ExitCode> {
    let board = Arc::new(Board::new(false));
    let (sender, events) = channel();
    let signals = sender.clone();
    stop::on_signal(move || {
        // Nobody listening means that we are ending already.
        let _ = signals.send(Event::Stop);
    })?;
    let mut terminal = Terminal::take()?;
    let keys = sender.clone();
    terminal::on_key(move |key| {
        let _ = keys.send(Event::Key(key));
    })?;
    let (steps, worker) = work(Arc::clone(&board), loopback, sender)?;
    let drawn = draw(&mut terminal, &board, &events, &steps);
    if drawn.is_err() {
        end_all();
    }
    drop(steps);
    let ended = worker.join().unwrap_or(false);
    drop(terminal);
    drawn?;
    let last = board.facts().messages.back().map(|message| message.text.clone());
    println!("{}", last.unwrap_or_default());
    Ok(if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Draws and passes keys on until the world has ended.
fn draw(
    terminal: &mut Terminal,
    board: &Board,
    events: &Receiver<Event>,
    steps: &Sender<Step>,
) -> io::Result<()> {
    // The invitation's link is shown without its QR code.
    let mut alone = false;
    loop {
        let facts = board.facts().clone();
        let lines = match &facts.invitation {
            Some(link) if alone => screen::alone(link),
            Some(link) => screen::pairing(link),
            None => screen::status(&facts, board.age(), Instant::now()),
        };
        terminal.show(&lines)?;
        match events.recv_timeout(DRAW) {
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Event::Stop) => quit(&facts, steps),
            Ok(Event::Key(key)) => {
                let step = Step::of_key(key);
                alone = !alone && facts.invitation.is_some() && step == Some(Step::Pair);
                let back = !alone && board.facts().invitation.take().is_some();
                match step {
                    Some(Step::Quit) => quit(&facts, steps),
                    None => {}
                    Some(_) if alone => {}
                    Some(_) if back => {}
                    Some(step) if facts.busy.is_some() => {
                        board.say(Tone::Plain, format!("{}: one thing at a time", step.name()));
                    }
                    Some(step) => {
                        // Marked here, so that a second key does not slip in before
                        // the worker has taken the first.
                        board.facts().busy = Some((step.name(), Instant::now()));
                        // The worker is gone only when it has sent Ended.
                        let _ = steps.send(step);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Ends in order when nothing is being done, else at once.
fn quit(facts: &Facts, steps: &Sender<Step>) {
    if facts.busy.is_some() {
        end_all();
    }
    let _ = steps.send(Step::Quit);
}

/// Starts the thread that owns the world. Its result: whether all went well
/// from the start to the end.
fn work(
    board: Arc<Board>,
    loopback: bool,
    events: Sender<Event>,
) -> io::Result<(Sender<Step>, JoinHandle<bool>)> {
    let (sender, steps) = channel();
    let worker = thread::Builder::new().name("steps".to_owned()).spawn(move || {
        let ended = live(&board, loopback, &steps);
        let _ = events.send(Event::Ended);
        ended
    })?;
    Ok((sender, worker))
}

fn live(board: &Arc<Board>, loopback: bool, steps: &Receiver<Step>) -> bool {
    board.say(Tone::Plain, "starting broker, greenhouse and agent");
    board.facts().busy = Some(("starting", Instant::now()));
    let mut world = match World::start(Arc::clone(board), loopback) {
        Ok(world) => world,
        Err(_) if ending() => {
            board.say(Tone::Plain, "stopped");
            return true;
        }
        Err(error) => {
            board.say(Tone::Bad, format!("starting: {error}"));
            return false;
        }
    };
    board.facts().busy = None;
    let looking = Looking::start(Arc::clone(board), &world);
    for step in steps {
        let done = world.perform(step);
        board.facts().busy = None;
        let quit = step == Step::Quit || ending();
        match done {
            Ok(()) => {}
            Err(StepError::NotNow(reason)) => board.say(Tone::Plain, reason),
            Err(StepError::Impossible(reason)) => board.say(Tone::Plain, reason),
            Err(_) if ending() => board.say(Tone::Plain, "stopped"),
            Err(error) => {
                board.say(Tone::Bad, format!("{}: {error}", step.name()));
                if quit {
                    return false;
                }
            }
        }
        if quit {
            break;
        }
    }
    drop(looking);
    true
}

/// The thread that keeps the board up to date; ends when dropped.
struct Looking {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Looking {
    fn start(board: Arc<Board>, world: &World) -> Self {
        let view = View {
            forward: world.forward(),
            tunnel: world.tunnel(),
            agent: world.farm().agent.control.clone(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut agent = None;
            while !stopped.load(Ordering::Relaxed) {
                look(&board, &view, &mut agent);
                thread::park_timeout(LOOK);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was reported by the hook.
            let _ = thread.join();
        }
    }
}

fn look(board: &Board, view: &View, agent: &mut Option<Watch>) {
    let tunnel = view.tunnel.newest().map(|status| Tunnel::of(&status));
    // The agent's status command ends with the agent: start it again.
    if !agent.as_ref().is_some_and(Watch::is_running) {
        *agent = if board.facts().power { view.agent.watch().ok() } else { None };
    }
    let linked = agent.as_ref().and_then(Watch::newest).map(|status| broker_linked(&status));
    let answer = probe::readings(view.forward, PATIENCE);
    let mut facts = board.facts();
    facts.tunnel = tunnel.unwrap_or_default();
    facts.broker_link = match linked {
        Some(true) => "connected".to_owned(),
        Some(false) => "not connected".to_owned(),
        None => String::new(),
    };
    if let Some(answer) = answer {
        facts.answer = Some((answer, Instant::now()));
    }
}
