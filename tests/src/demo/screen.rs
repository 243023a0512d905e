//! The screen as lines of text, 80 columns by 24 rows, from the facts alone.

use std::time::{Duration, Instant};

use super::board::{Facts, Message, Tone};
use super::step::Step;
use super::units::{clock, time};
use super::{probe, qr};
use crate::harness::farm::{FARM, GREENHOUSE};

/// Columns and rows that every terminal has.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// Columns left beside a pairing link's code, which takes 45.
const BESIDE: usize = 33;
/// An answer older than this means that the page is not there at the moment: a
/// healthy one comes every quarter of a second.
const STALE: Duration = Duration::from_millis(1_500);

/// The status screen.
pub(super) fn status(facts: &Facts, age: Duration, now: Instant) -> Vec<String> {
    let mut lines = vec![
        title(age),
        String::new(),
        row("Broker", &broker(facts)),
        row("Farm", &farm(facts)),
        row("Tunnel", &tunnel(facts)),
        row("Page", &page(facts, now)),
        row("Throughput", &throughput(facts)),
        row("Forward", &forward(facts)),
        String::new(),
    ];
    lines.extend(keys());
    lines.push(match facts.busy {
        Some((what, since)) => {
            let since = now.saturating_duration_since(since);
            style("33", &format!("  {what}… {}", clock(since)))
        }
        None => String::new(),
    });
    let room = ROWS - lines.len();
    let messages: Vec<_> = facts.messages.iter().flat_map(message).collect();
    lines.extend_from_slice(&messages[messages.len().saturating_sub(room)..]);
    lines
}

/// The first line of a message, in as many rows as it needs.
fn message(message: &Message) -> Vec<String> {
    let mut lines = vec![format!("{:>6} ", clock(message.at))];
    for word in message.text.lines().next().unwrap_or_default().split(' ') {
        let full = |line: &String| line.chars().count() + 1 + word.chars().count() > COLUMNS;
        if lines.last().is_some_and(full) {
            lines.push(" ".repeat(7));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    let manner = match message.tone {
        Tone::Plain => "0",
        Tone::Good => "32",
        Tone::Bad => "31",
    };
    lines.iter().map(|line| style(manner, line)).collect()
}

/// The QR code of a pairing link, and beside it the link, which many terminals
/// open at a click.
pub(super) fn pairing(link: &str) -> Vec<String> {
    let Some(mut rows) = qr::rows(link) else {
        return alone(link);
    };
    let hint = ["Scan this with the phone that is", "to be paired, or open this link", "there:", ""];
    let letters: Vec<char> = link.chars().collect();
    let parts = letters.chunks(BESIDE).map(|part| clickable(link, &part.iter().collect::<String>()));
    let after = [
        "",
        "It works once and for ten minutes.",
        "p shows the link alone, to copy;",
        "any other key goes back.",
    ];
    let text = hint.map(str::to_owned).into_iter().chain(parts).chain(after.map(str::to_owned));
    for (row, part) in rows.iter_mut().skip(2).zip(text) {
        row.push_str("  ");
        row.push_str(&part);
    }
    rows
}

/// A pairing link in one piece: the terminal itself wraps it, so that it is
/// copied without what stands beside it.
pub(super) fn alone(link: &str) -> Vec<String> {
    let wrapped = format!("\x1b[?7h{}\x1b[?7l", clickable(link, link));
    let before = ["Open this link in a browser on this machine:", ""];
    let after = ["", "It works once and for ten minutes. Any key goes back."];
    before.map(str::to_owned).into_iter().chain([wrapped]).chain(after.map(str::to_owned)).collect()
}

/// Text that leads to the link (the operating system command 8 of terminals;
/// others show the text and ignore it).
fn clickable(link: &str, text: &str) -> String {
    format!("\x1b]8;id=pairing;{link}\x1b\\{text}\x1b]8;;\x1b\\")
}

fn title(age: Duration) -> String {
    let left = " Farm Tunnel demo";
    let right = format!("running {} ", clock(age));
    let gap = COLUMNS.saturating_sub(left.chars().count() + right.chars().count());
    style("7", &format!("{left}{}{right}", " ".repeat(gap)))
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<11} {value}")
}

fn broker(facts: &Facts) -> String {
    let state = if facts.broker_up { good("running") } else { bad("down") };
    format!("{state}, {}", facts.broker)
}

fn farm(facts: &Facts) -> String {
    let state = if facts.power { good("has power") } else { bad("no power") };
    let link = if facts.power && !facts.broker_link.is_empty() {
        format!(", broker {}", facts.broker_link)
    } else {
        String::new()
    };
    format!("{state}, \"{FARM}\"{}{link}", facts.address)
}

fn tunnel(facts: &Facts) -> String {
    let tunnel = &facts.tunnel;
    if !tunnel.is_up() {
        return bad(&format!("{}{}", tunnel.state, tunnel.why));
    }
    let path = tunnel.path.as_deref().unwrap_or("path unknown");
    let trip = tunnel.round_trip.map_or_else(String::new, |t| format!(", round trip {}", time(t)));
    format!("{}, {path}{trip}", good(&tunnel.state))
}

fn page(facts: &Facts, now: Instant) -> String {
    match &facts.answer {
        None => bad("no answer yet"),
        Some((answer, at)) => {
            let old = now.saturating_duration_since(*at);
            if old < STALE {
                format!("{} in {}", good(&answer.text), time(answer.took))
            } else {
                bad(&format!("no answer for {}", time(old)))
            }
        }
    }
}

fn throughput(facts: &Facts) -> String {
    let Some(transfer) = &facts.transfer else {
        return "not measured yet: press t".to_owned();
    };
    let rate = format!("{:.1} MB/s", transfer.rate());
    match transfer.verdict {
        None => format!("{rate}, {:.0} of {} MB", transfer.bytes as f64 / 1e6, probe::MEGABYTES),
        Some(true) => format!("{}, checksum right", good(&rate)),
        Some(false) => format!("{rate}, {}", bad("checksum WRONG")),
    }
}

fn forward(facts: &Facts) -> String {
    match facts.forward {
        Some(address) => format!("http://{address}/ is the {GREENHOUSE}: open it in a browser"),
        None => "not open yet".to_owned(),
    }
}

fn keys() -> Vec<String> {
    let item = |step: &Step| {
        let (key, what) = step.key();
        format!("{} {what:<16}", style("1", &char::from(key).to_string()))
    };
    Step::ALL.chunks(4).map(|steps| format!("  {}", steps.iter().map(item).collect::<String>())).collect()
}

fn good(text: &str) -> String {
    style("32", text)
}

fn bad(text: &str) -> String {
    style("31", text)
}

/// Text in a colour or manner (an SGR parameter of ECMA-48), cut to the width.
fn style(manner: &str, text: &str) -> String {
    format!("\x1b[{manner}m{}\x1b[0m", cut(text))
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(COLUMNS).collect()
}

#[cfg(test)]
mod tests {
    use super::super::board::Board;
    use super::super::probe::{Answer, Transfer};
    use super::*;

    fn plain(line: &str) -> String {
        let mut out = String::new();
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            if c == '\x1b' {
                chars.by_ref().find(|c| *c == 'm').unwrap();
            } else {
                out.push(c);
            }
        }
        out
    }

    fn shown(facts: &Facts, now: Instant) -> String {
        let lines = status(facts, Duration::from_secs(75), now);
        assert!(lines.len() <= ROWS, "{} rows", lines.len());
        let lines: Vec<_> = lines.iter().map(|line| plain(line)).collect();
        for line in &lines {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        lines.join("\n")
    }

    #[test]
    fn a_link_is_there_to_copy_in_one_piece_and_fits() {
        let link = format!("http://localhost:40000/#v=1&b=ws://10.203.255.255:40000&k={}", "k".repeat(70));
        assert!(
            alone(&link).iter().any(|line| line.contains(&format!("\x1b\\{link}\x1b]"))),
            "{:?}",
            alone(&link)
        );
        let shown = pairing(&link);
        assert!(shown.len() <= ROWS, "{} rows", shown.len());
        assert_eq!(
            shown.iter().filter(|row| row.contains(&format!("id=pairing;{link}"))).count(),
            4,
            "{shown:?}"
        );
        assert!(shown.iter().any(|row| row.ends_with("any other key goes back.")), "{shown:?}");
    }

    #[test]
    fn an_empty_board_and_a_full_one_fit() {
        let board = Board::new(false);
        let now = Instant::now();
        let empty = shown(&board.facts(), now);
        assert!(empty.contains("no power") && empty.contains("running 1:15"));
        for number in 0..100 {
            board.say(Tone::Bad, format!("message {number} {}\nand more", "x".repeat(100)));
        }
        {
            let mut facts = board.facts();
            facts.broker = "ws://127.0.0.1:40000".to_owned();
            facts.broker_up = true;
            facts.power = true;
            facts.broker_link = "connected".to_owned();
            facts.address = " at 10.203.250.250".to_owned();
            facts.forward = "127.0.0.1:40001".parse().ok();
            facts.tunnel.state = "live".to_owned();
            facts.tunnel.path = Some("direct".to_owned());
            facts.tunnel.round_trip = Some(Duration::from_micros(450));
            let answer = Answer {
                text: "21.5 °C, 100 % humidity, CO2 1200 ppm, vent 100 %".to_owned(),
                took: Duration::from_millis(3),
            };
            facts.answer = Some((answer, now));
            facts.busy = Some(("throughput", now));
            facts.transfer = Some(Transfer {
                bytes: 50_000_000,
                took: Duration::from_secs(1),
                verdict: None,
                longest_gap: Duration::ZERO,
            });
        }
        let full = shown(&board.facts(), now);
        for part in ["direct, round trip 0.5 ms", "50.0 MB/s, 50 of 100 MB", "21.5 °C", "message 99"] {
            assert!(full.contains(part), "{part} is missing in\n{full}");
        }
        assert!(!full.contains("and more"));
        let later = shown(&board.facts(), now + Duration::from_secs(3));
        assert!(later.contains("no answer for 3.0 s"), "{later}");
    }
}
