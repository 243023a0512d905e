//! The terminal: keys one by one, a screen of its own, and everything as it was
//! afterwards, also after a panic.

use std::io::{self, IsTerminal, Read, Write, stdin, stdout};
use std::sync::{Mutex, Once, PoisonError};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Another screen, no cursor, no wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The settings to go back to, while ours are in force.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether there is a person at both ends: keys come in, a screen goes out.
#[must_use]
pub fn is_terminal() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// The terminal in our hands; given back when dropped.
pub(super) struct Terminal {
    shown: String,
}

impl Terminal {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When standard input is none.
    pub(super) fn take() -> io::Result<Self> {
        give_back_on_panic();
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let terminal = Self { shown: String::new() };
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw)?;
        stdout().write_all(ENTER.as_bytes())?;
        Ok(terminal)
    }

    /// Shows these lines instead of what is shown; costs nothing when they are
    /// the same.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(line);
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        if frame == self.shown {
            return Ok(());
        }
        let mut out = stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()?;
        self.shown = frame;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Calls `key` for every key from now on, until input ends. Sequences of special
/// keys are left out whole, so that an arrow is not taken for a letter.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn on_key(mut key: impl FnMut(u8) + Send + 'static) -> io::Result<()> {
    let work = move || {
        let mut buffer = [0; 64];
        while let Ok(read @ 1..) = stdin().lock().read(&mut buffer) {
            keys(&buffer[..read]).for_each(&mut key);
        }
        // The terminal is gone: that is the same as Ctrl-D.
        key(4);
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(work).map(drop)
}

fn keys(read: &[u8]) -> impl Iterator<Item = u8> + '_ {
    read.iter().copied().take_while(|byte| *byte != 0x1b)
}

fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // The terminal may be gone; there is nothing else to restore then.
        let _ = stdout().write_all(LEAVE.as_bytes());
        let _ = stdout().flush();
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &before);
    }
}

/// A panic's message must not vanish with our screen.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::keys;

    #[test]
    fn an_arrow_is_no_letter() {
        assert_eq!(keys(b"ab").collect::<Vec<_>>(), b"ab");
        assert_eq!(keys(b"c\x1b[A").collect::<Vec<_>>(), b"c");
    }
}
