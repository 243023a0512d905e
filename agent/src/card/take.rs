//! What to make of the installer's file: the config to run with, what is wrong
//! with the one on the card, and the box's own settings.

use std::path::Path;

use crate::config::{Config, MAX_FILE, Wifi};

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What the agent runs with: the card's config in UTF-8, else the last good
    /// one, else the card's as it is, so that the agent says the same mistake.
    pub config: String,
    /// The card's config has a mistake: what, and where.
    pub problem: Option<String>,
    /// What `config` says, when it can be read.
    pub good: Option<Good>,
}

/// What the box needs to know of a good config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// The farm's name.
    pub name: String,
    /// It is not the card's but the one before.
    pub former: bool,
    /// The Wi-Fi to join.
    pub wifi: Option<Wifi>,
    /// Who may log in.
    pub ssh_key: Option<String>,
}

/// Judges the card's file. `card` is its content, or why it can't be read;
/// `former` the last good one; `path` is where the installer finds the file.
pub fn take(card: Result<&[u8], &str>, former: Option<&str>, path: &Path) -> Taken {
    let text = match card {
        Ok(bytes) => decode(bytes),
        Err(why) => Err(format!("{} can't be read: {why}", path.display())),
    };
    let read = |text: &str| Config::from_text(text, path).map_err(|error| error.to_string());
    let problem = match text.as_deref().map_err(Clone::clone).and_then(read) {
        Ok(config) => {
            let config_text = text.unwrap_or_default();
            return Taken { config: config_text, problem: None, good: Some(good(config, false)) };
        }
        Err(problem) => Some(problem),
    };
    match former.map(|former| (former, read(former))) {
        Some((former, Ok(config))) => {
            Taken { config: former.to_owned(), problem, good: Some(good(config, true)) }
        }
        _ => Taken { config: text.unwrap_or_default(), problem, good: None },
    }
}

fn good(config: Config, former: bool) -> Good {
    Good { name: config.name, former, wifi: config.wifi, ssh_key: config.ssh_key }
}

/// Text as editors on laptops save it: UTF-8, or UTF-16 with its mark.
fn decode(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it has {} bytes, {MAX_FILE} are allowed", bytes.len()));
    }
    let wide = |order: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| order([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().map_err(|e| e.to_string())
    };
    let text = match bytes {
        [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string()),
    };
    text.map_err(|why| format!("it is no plain text ({why}): save it as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"North\"\nbroker = \"wss://broker.example.org\"\n";

    fn took(card: &[u8], former: Option<&str>) -> Taken {
        take(Ok(card), former, Path::new("farm-agent.toml"))
    }

    #[test]
    fn however_an_editor_saves_it() {
        let windows = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
        let wide =
            |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { windows.encode_utf16().flat_map(bytes).collect() };
        for card in
            [GOOD.into(), windows.clone().into_bytes(), wide(u16::to_le_bytes), wide(u16::to_be_bytes)]
        {
            let taken = took(&card, None);
            assert_eq!(taken.problem, None);
            assert_eq!(taken.good.unwrap().name, "North");
            assert!(Config::from_text(&taken.config, Path::new("x")).is_ok(), "the agent reads it too");
        }
    }

    #[test]
    fn a_mistake_is_named_and_the_last_good_config_goes_on() {
        let taken = took(b"name = \"North\"\nbrokr = \"wss://b\"\n", Some(GOOD));
        assert!(taken.problem.as_ref().unwrap().contains("line 2"), "{taken:?}");
        assert_eq!((taken.config.as_str(), taken.good.unwrap().former), (GOOD, true));
        let taken = took(b"brokr = 1", None);
        assert_eq!((taken.config.as_str(), taken.good), ("brokr = 1", None));
        for garbage in [&b"\xff\xfe\x00\xd8"[..], b"\x80\x81", &[b'#'; 70_000]] {
            assert!(took(garbage, Some(GOOD)).problem.is_some());
        }
        let gone = take(Err("no such file"), Some(GOOD), Path::new("farm-agent.toml"));
        assert!(gone.problem.unwrap().contains("farm-agent.toml"));
    }
}
