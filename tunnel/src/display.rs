//! A status that goes on: redrawn in place on a terminal, else one line per
//! change.

use std::io::{self, IsTerminal, Write};

/// What was shown last.
#[derive(Debug)]
pub struct Display {
    terminal: bool,
    lines: usize,
    last: Option<String>,
}

impl Default for Display {
    fn default() -> Self {
        Self::new(io::stdout().is_terminal())
    }
}

impl Display {
    /// For standard output, which is a terminal or not.
    pub fn new(terminal: bool) -> Self {
        Self { terminal, lines: 0, last: None }
    }

    /// Shows how things stand: `block` on a terminal, `line` elsewhere, and
    /// that only when it says something new. `line` holds nothing that changes
    /// all the time, such as durations. `stamp` goes before it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn show(&mut self, out: &mut impl Write, block: &str, line: &str, stamp: &str) -> io::Result<()> {
        if !self.terminal {
            if self.last.as_deref() == Some(line) {
                return Ok(());
            }
            self.last = Some(line.to_owned());
            writeln!(out, "{stamp} {line}")?;
            return out.flush();
        }
        if self.lines > 0 {
            // Up to the first line, and clear from there on.
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        }
        // Without wrapping, so that a line is a line on a narrow terminal, too.
        write!(out, "\x1b[?7l{block}\n\x1b[?7h")?;
        self.lines = block.lines().count();
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_changes_and_a_terminal_a_picture() {
        let mut out = Vec::new();
        let mut display = Display::new(false);
        for line in ["live", "live", "waiting"] {
            display.show(&mut out, "ignored", line, "now").unwrap();
        }
        assert_eq!(out, b"now live\nnow waiting\n");
        let mut out = Vec::new();
        let mut display = Display::new(true);
        display.show(&mut out, "one\ntwo", "", "").unwrap();
        display.show(&mut out, "three", "", "").unwrap();
        let drawn = String::from_utf8(out).unwrap();
        assert_eq!(drawn.matches("\x1b[2A\x1b[J").count(), 1, "{drawn:?}");
    }
}
