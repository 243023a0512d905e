//! Which of the page's languages a visitor reads (RFC 9110 section 12.5.4).

/// The languages the page speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English, also when nothing fits.
    English,
    /// Russian.
    Russian,
}

impl Language {
    /// The tag for `<html lang>`.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Russian => "ru",
        }
    }

    /// The language a tag such as `ru-RU` names, if it is one of ours.
    #[must_use]
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split('-').next().unwrap_or_default();
        [Self::English, Self::Russian]
            .into_iter()
            .find(|language| primary.eq_ignore_ascii_case(language.tag()))
    }

    /// The visitor's favourite among ours by an `Accept-Language` header; the
    /// first named wins a tie.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let mut best = (0_u16, Self::English);
        for item in header.split(',') {
            let mut parts = item.split(';');
            let Some(language) = Self::from_tag(parts.next().unwrap_or_default()) else {
                continue;
            };
            let weight = parts.find_map(quality).unwrap_or(1_000);
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }
}

/// `q=0.8` in thousandths; something unreadable counts as refused.
fn quality(parameter: &str) -> Option<u16> {
    let value = parameter.trim().strip_prefix("q=")?;
    let value: f64 = value.parse().unwrap_or(0.0);
    Some((value.clamp(0.0, 1.0) * 1_000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_favourite_wins() {
        for (header, expected) in [
            ("", Language::English),
            ("de", Language::English),
            ("ru", Language::Russian),
            ("ru-RU,ru;q=0.9,en-US;q=0.8", Language::Russian),
            ("en-US,en;q=0.9,ru;q=0.8", Language::English),
            ("de, ru;q=0.3, en;q=0.2", Language::Russian),
            ("en;q=0.5, RU;q=0.7", Language::Russian),
            ("ru;q=0", Language::English),
            ("ru;q=nonsense, en;q=0.1", Language::English),
        ] {
            assert_eq!(Language::accepted(header), expected, "{header:?}");
        }
    }
}
