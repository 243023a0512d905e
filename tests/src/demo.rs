//! The demo: a whole farm on this machine, a screen that shows how it is doing,
//! and one key per fault. Without a terminal it runs a script of the same steps.

mod board;
mod interactive;
mod network;
mod probe;
mod qr;
mod screen;
mod script;
mod step;
mod stop;
mod terminal;
mod tunnel;
mod units;
mod world;

pub use interactive::run as run_interactive;
pub use script::run as run_script;
pub use step::{DEFAULT_SCRIPT, Step};
pub use terminal::is_terminal;
