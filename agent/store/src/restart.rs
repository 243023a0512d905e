//! What stands in for unwinding in a program that ends with a panic.
//!
//! sled reports some damage by panicking. Where panics unwind, the store
//! catches that and knows that the database is damaged (see
//! [`failure`](crate::failure)). In a program built with `panic = "abort"` a
//! hook starts the program anew in its place (`execve`): with the same process
//! id, so that a supervisor sees nothing but a pause, and with an environment
//! variable that says what happened. The first open of a store then does what
//! would have been done had the panic been caught. Nothing is written for it:
//! the disk may be what failed.

use std::{
    cell::Cell,
    ffi::{CString, OsString},
    os::unix::ffi::OsStringExt,
    panic::{self, PanicHookInfo},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{libc::c_ulong, sys::prctl, unistd::execve};

/// Tells the next start: count, what was going on, and the panic's text.
const VARIABLE: &str = "FARM_STORE_PANIC";

/// Starts in a row. Damage takes two, one to look and one to quarantine; more
/// are for a card that damages what was just made. After these the store
/// refuses to open, or it is the supervisor's turn, which waits longer and
/// longer.
const MOST_IN_A_ROW: u32 = 5;

/// A panic after so long is a new one and no row.
const CALM: Duration = Duration::from_secs(600);

/// Of a panic's text, in bytes.
const MAX_TEXT_BYTES: usize = 400;

/// How sled's threads are called.
const POOL: &str = "sled-io-";

/// What was going on when it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum During {
    /// A database was being opened, or is known not to be worth it.
    Open,
    /// A database was read or written.
    Use,
    /// Something else.
    Else,
}

impl During {
    const WORDS: [(&str, During); 3] = [("open", During::Open), ("use", During::Use), ("else", During::Else)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, during)| *during == self).map_or("else", |(word, _)| word)
    }

    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, during)| *during)
    }
}

/// What one start tells the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    /// How many panics in a row, this one included.
    count: u32,
    during: During,
    text: String,
}

impl Told {
    fn new(before: Option<&Told>, ran: Duration, during: During, text: &str) -> Self {
        let before = before.filter(|_| ran < CALM);
        // Everything could be read, and still: as if it could not be opened.
        let again = during == During::Use && before.is_some_and(|before| before.during == During::Use);
        Told {
            count: before.map_or(0, |before| before.count).saturating_add(1),
            during: if again { During::Open } else { during },
            text: one_line(text),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (count, rest) = text.split_once(' ')?;
        let (during, text) = rest.split_once(' ')?;
        Some(Told { count: count.parse().ok()?, during: During::of(during)?, text: one_line(text) })
    }

    fn write(&self) -> String {
        format!("{} {} {}", self.count, self.during.word(), self.text)
    }

    /// Whether another start may help.
    fn is_worth_a_start(&self) -> bool {
        // One more for the store, which refuses then and says why.
        self.count <= MOST_IN_A_ROW + u32::from(self.during != During::Else)
    }

    fn orders(self) -> Orders {
        let Told { count, during, text } = self;
        match during {
            During::Else => Orders::Nothing,
            _ if count > MOST_IN_A_ROW => {
                Orders::Refuse(format!("the database engine panicked {count} times in a row: {text}"))
            }
            During::Open => Orders::Quarantine(format!("the database engine panicked: {text}")),
            During::Use => Orders::ReadEverything,
        }
    }
}

/// What the first open of a store is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Orders {
    /// As always.
    Nothing,
    /// Look at every record, and not at what the kernel has in its cache.
    ReadEverything,
    /// The database is damaged in this way: move it aside.
    Quarantine(String),
    /// It does not help: give up for this start.
    Refuse(String),
}

fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if line.len() + 1 + word.len() > MAX_TEXT_BYTES {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// This start of the program.
#[derive(Debug)]
struct Start {
    at: Instant,
    before: Option<Told>,
    /// Of this thread's timers, in nanoseconds: a start inherits it.
    slack: c_ulong,
}

static START: OnceLock<Start> = OnceLock::new();
static ORDERS_TAKEN: AtomicBool = AtomicBool::new(false);
/// Databases that are being opened.
static OPENS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What this thread does with a database.
    static DOING: Cell<During> = const { Cell::new(During::Else) };
}

/// In a program built with `panic = "abort"`: makes every panic start the
/// program anew in its place, with the same arguments; at most five times in a
/// row, then a panic ends it. Such a program has to call this before it opens a
/// store, and to open one store only: that one is held to be damaged when the
/// panic was the database engine's. Descriptors without close-on-exec would stay
/// open.
///
/// Elsewhere it does nothing: the store catches the engine's panics.
///
/// Gives what the start before this one panicked of.
pub fn restart_on_panic() -> Option<String> {
    if !cfg!(panic = "abort") {
        return None;
    }
    let start = START.get_or_init(|| {
        let before = std::env::var(VARIABLE).ok().as_deref().and_then(Told::read);
        let slack = prctl::get_timerslack().ok().and_then(|slack| c_ulong::try_from(slack).ok());
        let show = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            show(panic);
            start_anew(panic);
        }));
        Start { at: Instant::now(), before, slack: slack.unwrap_or(0) }
    });
    start.before.as_ref().map(|told| told.text.clone())
}

/// Whether a panic of the engine is survived in this program.
pub(crate) fn is_ready() -> bool {
    !cfg!(panic = "abort") || START.get().is_some()
}

/// What the first open is to do, because of the start before; once.
pub(crate) fn take_orders() -> Orders {
    let before = START.get().and_then(|start| start.before.clone());
    match before {
        Some(told) if !ORDERS_TAKEN.swap(true, SeqCst) => told.orders(),
        _ => Orders::Nothing,
    }
}

/// While it lives, this thread opens a database.
#[derive(Debug)]
pub(crate) struct Opening(During);

impl Opening {
    pub(crate) fn new() -> Self {
        OPENS.fetch_add(1, SeqCst);
        Opening(DOING.replace(During::Open))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        DOING.set(self.0);
        OPENS.fetch_sub(1, SeqCst);
    }
}

/// While it lives, this thread is inside the engine.
#[derive(Debug)]
pub(crate) struct Inside(During);

impl Inside {
    pub(crate) fn new() -> Self {
        let before = DOING.get();
        if before == During::Else {
            DOING.set(During::Use);
        }
        Inside(before)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DOING.set(self.0);
    }
}

/// What this thread was doing. The engine's own threads don't know for whom.
fn during() -> During {
    let is_engines = thread::current().name().is_some_and(|name| name.starts_with(POOL));
    match DOING.get() {
        During::Else if is_engines && OPENS.load(SeqCst) > 0 => During::Open,
        During::Else if is_engines => During::Use,
        other => other,
    }
}

/// Does not return where that works.
fn start_anew(panic: &PanicHookInfo<'_>) {
    let Some(start) = START.get() else { return };
    let text = panic.to_string();
    // "panicked at FILE:LINE:COLUMN:", and the message.
    let text = text.strip_prefix("panicked ").unwrap_or(&text);
    let told = Told::new(start.before.as_ref(), start.at.elapsed(), during(), text);
    if !told.is_worth_a_start() {
        eprintln!("the program panicked {} times in a row and ends", told.count);
        return;
    }
    eprintln!("the program starts anew after this panic ({} in a row)", told.count);
    // An open may have made this thread's timers lazy.
    let _kept = prctl::set_timerslack(start.slack);
    let arguments: Vec<CString> = std::env::args_os().filter_map(c_string).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .chain([(VARIABLE.into(), told.write().into())])
        .filter_map(|(name, value)| {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            c_string(pair)
        })
        .collect();
    // By its name, which `ps` shows; after an upgrade there is another program
    // by that name or none, and this one can still be had.
    let by_name = std::env::current_exe().ok().and_then(|path| c_string(path.into_os_string()));
    for program in by_name.into_iter().chain([c"/proc/self/exe".to_owned()]) {
        let Err(error) = execve(&program, &arguments, &environment);
        eprintln!("{} can't be started: {error}", program.to_string_lossy());
    }
}

fn c_string(text: OsString) -> Option<CString> {
    CString::new(text.into_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn row(panics: &[During]) -> Told {
        let mut told = None;
        for during in panics {
            told = Some(Told::new(told.as_ref(), SOON, *during, "torn"));
        }
        told.unwrap()
    }

    #[test]
    fn a_panic_while_opening_is_damage() {
        assert!(matches!(row(&[During::Open]).orders(), Orders::Quarantine(why) if why.contains("torn")));
    }

    #[test]
    fn one_in_use_is_looked_into_and_a_second_is_damage() {
        assert_eq!(row(&[During::Use]).orders(), Orders::ReadEverything);
        assert_eq!(row(&[During::Else, During::Use]).orders(), Orders::ReadEverything);
        assert!(matches!(row(&[During::Use, During::Use]).orders(), Orders::Quarantine(_)));
        let much_later = Told::new(Some(&row(&[During::Use])), CALM, During::Use, "torn");
        assert_eq!(much_later.orders(), Orders::ReadEverything);
        assert_eq!(row(&[During::Else]).orders(), Orders::Nothing);
    }

    #[test]
    fn a_row_ends() {
        let most = MOST_IN_A_ROW as usize;
        assert!(row(&vec![During::Else; most]).is_worth_a_start());
        assert!(!row(&vec![During::Else; most + 1]).is_worth_a_start());
        assert!(matches!(row(&vec![During::Open; most]).orders(), Orders::Quarantine(_)));
        let over = row(&vec![During::Open; most + 1]);
        assert!(over.is_worth_a_start(), "to refuse, and say why");
        assert!(matches!(over.orders(), Orders::Refuse(why) if why.contains("6 times")));
        assert!(!row(&vec![During::Open; most + 2]).is_worth_a_start());
        let long_ago = Told::new(Some(&row(&vec![During::Open; most + 1])), CALM, During::Open, "torn");
        assert_eq!(long_ago.count, 1);
    }

    #[test]
    fn what_is_told_is_understood_and_bounded() {
        let told = Told::new(None, SOON, During::Use, "at x.rs:1\nin\u{0} two   lines");
        assert_eq!(told.text, "at x.rs:1 in two lines");
        assert_eq!(Told::read(&told.write()), Some(told));
        let long = Told::new(None, SOON, During::Else, &"ü ".repeat(10_000));
        assert!(long.text.len() <= MAX_TEXT_BYTES && long.text.len() > MAX_TEXT_BYTES - 4);
        assert_eq!(Told::read(&long.write()), Some(long));
        for nonsense in ["", "1", "1 open", "x open y", "-1 open y", "1 shut y"] {
            assert_eq!(Told::read(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_thread_knows_what_it_does() {
        assert_eq!(during(), During::Else);
        let inside = Inside::new();
        assert_eq!(during(), During::Use);
        drop(inside);
        let opening = Opening::new();
        let inside = Inside::new();
        assert_eq!(during(), During::Open);
        drop(inside);
        assert_eq!(during(), During::Open);
        drop(opening);
        assert_eq!(during(), During::Else);
    }
}
