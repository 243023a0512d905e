//! What the installer reads in `farm-status.txt`.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::take::Taken;
use crate::status::Status;

/// Size of `farm-status.txt`, in bytes. The image has a file of this size, and
/// it is always written whole and in place: the file system's own tables are
/// left alone, so that a power cut in the middle can't harm them.
pub const SIZE: usize = 16 * 1024;

/// An invitation that is on the card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The link.
    pub link: String,
    /// The same to type.
    pub code: String,
    /// Until when it is good, seconds since 1970 by the box's clock.
    pub expires: u64,
}

/// Everything that the report is made of.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// What became of the config.
    pub taken: &'a Taken,
    /// What happened before systemd ran, a line each.
    pub boot: &'a str,
    /// The agent's own word; or what it ended with, when it has been silent for
    /// long.
    pub agent: Result<&'a Status, Option<&'a str>>,
    /// The invitation for the first phone.
    pub invitation: Option<&'a Invitation>,
    /// The image's version.
    pub image: &'a str,
}

/// How the box is, in one word for a light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// At the broker.
    Well,
    /// On its way there.
    Waiting,
    /// The installer has to do something.
    Trouble,
}

impl View<'_> {
    /// For the light.
    pub fn mood(&self) -> Mood {
        let trouble = self.taken.problem.is_some()
            || !self.boot.is_empty()
            || self.agent.is_ok_and(|status| !status.alarms.is_empty());
        match self.agent {
            _ if trouble => Mood::Trouble,
            Ok(status) if status.broker.state == "online" => Mood::Well,
            Ok(status) if status.broker.attempt > 3 => Mood::Trouble,
            Err(Some(_)) => Mood::Trouble,
            _ => Mood::Waiting,
        }
    }

    /// The text, with nothing in it that changes all the time.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut say = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        say(&format!("Farm Tunnel, image {}", self.image));
        say("");
        if let Some(problem) = &self.taken.problem {
            say("THE CONFIG HAS A MISTAKE");
            say(&format!("  {problem}"));
            say(match &self.taken.good {
                Some(_) => {
                    "  The box goes on with the last good config. Correct farm-agent.toml beside this file."
                }
                None => "  Correct farm-agent.toml beside this file, and put the card back.",
            });
            say("");
        }
        for line in self.boot.lines() {
            say(&format!("ATTENTION: {line}"));
        }
        match self.agent {
            Ok(status) => {
                say(&format!("Farm:    {}", status.name));
                say(&format!("Farm id: {}", status.farm));
                say(&format!("Broker:  {}", broker(status)));
                let services = status.services.join(", ");
                say(&format!("Serves:  {}", if services.is_empty() { "nothing yet" } else { &services }));
                say(&format!("Phones:  {} paired", status.phones));
                status.alarms.iter().for_each(|alarm| say(&format!("ALARM:   {alarm}")));
            }
            Err(_) if self.taken.good.is_none() => {
                say("The farm's program waits for a config that it can read.")
            }
            Err(None) => say("The farm's program does not answer yet: it is starting."),
            Err(Some(words)) => {
                say("THE FARM'S PROGRAM CAN'T START; it tries again and again:");
                say(&format!("  {words}"));
            }
        }
        if let Some(invitation) = self.invitation {
            say("");
            say("To pair the first phone, scan farm-invitation.bmp beside this file, or open:");
            say(&format!("  {}", invitation.link));
            say(&format!("or type {}. Good for one phone, and for 7 days.", invitation.code));
        }
        text
    }

    /// The text as it is written: Windows line ends, for its oldest editor, and
    /// filled up to [`SIZE`].
    pub fn file(&self) -> Vec<u8> {
        let mut file = self.text().replace('\n', "\r\n").into_bytes();
        file.truncate(SIZE);
        file.resize(SIZE, b'\n');
        file
    }
}

fn broker(status: &Status) -> String {
    let broker = &status.broker;
    if broker.state == "online" {
        return format!("connected to {}", broker.url);
    }
    let mut text = format!("not connected to {} yet", broker.url);
    if let Some(reason) = &broker.reason {
        let _ = write!(text, ": {reason}");
    }
    text + "; it is tried again and again"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::take::take;
    use super::*;

    fn taken(text: &str) -> Taken {
        take(Ok(text.as_bytes()), None, Path::new("farm-agent.toml"))
    }

    fn view<'a>(taken: &'a Taken, agent: Result<&'a Status, Option<&'a str>>) -> View<'a> {
        View { taken, boot: "", agent, invitation: None, image: "0.1.0" }
    }

    #[test]
    fn a_mistake_is_the_first_thing_to_read() {
        let bad = taken("name = 1");
        let view = view(&bad, Err(None));
        let text = view.text();
        assert!(text.lines().nth(2).unwrap().contains("MISTAKE"), "{text}");
        assert!(text.contains("farm-agent.toml, line 1"), "{text}");
        assert_eq!(view.mood(), Mood::Trouble);
        let file = view.file();
        assert_eq!(file.len(), SIZE);
        assert!(file.windows(2).any(|pair| pair == b"\r\n"));
    }

    #[test]
    fn an_agent_that_cannot_start_is_quoted() {
        let good = taken("name = \"N\"\nbroker = \"wss://b.example\"\n");
        let view = view(&good, Err(Some("no space left")));
        assert!(view.text().contains("  no space left\n"), "{}", view.text());
        assert_eq!(view.mood(), Mood::Trouble);
    }

    #[test]
    fn the_file_never_grows() {
        let good = taken("name = \"N\"\nbroker = \"wss://b.example\"\n");
        let boot = "x".repeat(3 * SIZE);
        let mut view = view(&good, Err(None));
        view.boot = &boot;
        assert_eq!(view.file().len(), SIZE);
    }
}
