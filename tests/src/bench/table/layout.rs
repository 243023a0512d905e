//! Four columns within a hundred.

use std::fmt::{self, Write};

use super::{Figure, Row, Verdict};

const NAME: usize = 34;
const MEASURED: usize = 44;
const BUDGET: usize = 11;

/// One line; what does not fit its column is the caller's to wrap.
pub(super) fn line(
    out: &mut impl Write,
    name: &str,
    measured: &str,
    budget: &str,
    verdict: &str,
) -> fmt::Result {
    let line = format!("{name:<NAME$} {measured:<MEASURED$} {budget:<BUDGET$} {verdict}");
    writeln!(out, "{}", line.trim_end())
}

/// A row, over as many lines as it needs.
pub(super) fn row(out: &mut impl Write, row: &Row) -> fmt::Result {
    let names = wrap(&row.name, NAME - 2);
    let mut measured = wrap(&figures(&row.figures), MEASURED);
    measured.extend(row.remark.iter().flat_map(|remark| wrap(remark, MEASURED)));
    let verdict = match row.verdict {
        Some(Verdict::Ok) => "ok",
        Some(Verdict::Over) => "over",
        None => "",
    };
    let (budget, mut last) = (budgets(&row.figures), (verdict, true));
    for at in 0..names.len().max(measured.len()) {
        let name = names.get(at).map(|name| format!("  {name}")).unwrap_or_default();
        let text = measured.get(at).map(String::as_str).unwrap_or_default();
        let budget = if last.1 { budget.as_str() } else { "" };
        line(out, &name, text, budget, last.0)?;
        last = ("", false);
    }
    Ok(())
}

/// `p50 1.2 ms, p95 3.4, max 5.6`: a unit is said once for all that follow.
fn figures(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut unit = None;
    for figure in figures {
        let comma = if text.is_empty() { "" } else { ", " };
        let space = if figure.label.is_empty() { "" } else { " " };
        let value =
            if figure.unit.is_whole() { format!("{:.0}", figure.value) } else { number(figure.value) };
        text.push_str(&format!("{comma}{}{space}{value}", figure.label));
        if unit.replace(figure.unit) != Some(figure.unit) {
            text.push_str(&format!(" {}", figure.unit.symbol()));
        }
    }
    text
}

/// Three digits, which is more than such measurements are good for.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// `≤ 12 MB`.
fn budgets(figures: &[Figure]) -> String {
    let budgeted = figures.iter().filter_map(|f| f.budget.map(|budget| (budget, f.unit)));
    let texts: Vec<_> = budgeted.clone().map(|(budget, _)| budget.to_string()).collect();
    let mut units: Vec<_> = budgeted.map(|(_, unit)| unit).collect();
    units.dedup();
    match units[..] {
        [] => String::new(),
        [unit] if texts[0].len() + unit.symbol().len() + 3 <= BUDGET => {
            format!("≤ {} {}", texts.join("/"), unit.symbol())
        }
        _ => format!("≤ {}", texts.join(", ")),
    }
}

/// Breaks a text into lines of at most `width` characters, between words where
/// it can.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(width) {
            let piece: String = piece.iter().collect();
            let length = line.chars().count();
            if length > 0 && length + 1 + piece.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&piece);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    #[test]
    fn figures_read_well() {
        let figure = |label, value| Figure::new(label, value, Unit::Milliseconds);
        let text = figures(&[figure("p50", 1.234), figure("max", 56.78)]);
        assert_eq!(text, "p50 1.23 ms, max 56.8");
        let mixed = [Figure::new("RSS", 12.0, Unit::Megabytes), Figure::new("", 8.0, Unit::Threads)];
        assert_eq!(figures(&mixed), "RSS 12.0 MB, 8 threads");
        assert_eq!(
            (number(0.0), number(0.0123), number(-812.3)),
            ("0".into(), "0.012".into(), "-812".into())
        );
    }

    #[test]
    fn budgets_read_well() {
        let figure = |value, unit| Figure::new("", 0.0, unit).at_most(value);
        assert_eq!(budgets(&[figure(12.0, Unit::Megabytes)]), "≤ 12 MB");
        assert_eq!(budgets(&[figure(2.0, Unit::Wakeups), figure(0.1, Unit::Cpu)]), "≤ 2, 0.1");
        assert_eq!(budgets(&[Figure::new("", 1.0, Unit::Cpu)]), "");
    }

    #[test]
    fn words_are_kept_together_where_they_fit() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert!(wrap("", 5).is_empty());
    }
}
