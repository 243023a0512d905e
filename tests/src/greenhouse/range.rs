//! Byte ranges (RFC 9110 section 14).

/// What a `Range` header asks of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Everything: no header, one we don't know, or several ranges (which a
    /// server may answer with the whole, section 14.2).
    Whole,
    /// The bytes `start..end`, not empty, within the body.
    Part {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Nothing that exists: answer 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a body of `length` bytes.
#[must_use]
pub fn parse(header: Option<&str>, length: u64) -> Asked {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Asked::Whole;
    };
    match (number(first), number(last)) {
        (Ok(None), Ok(Some(0))) => Asked::Unsatisfiable,
        (Ok(None), Ok(Some(suffix))) if length > 0 => {
            Asked::Part { start: length.saturating_sub(suffix), end: length }
        }
        (Ok(Some(start)), Ok(last)) => {
            if last.is_some_and(|last| last < start) {
                return Asked::Whole;
            }
            let end = last.map_or(length, |last| last.saturating_add(1).min(length));
            if start < end { Asked::Part { start, end } } else { Asked::Unsatisfiable }
        }
        (Ok(None), Ok(Some(_))) => Asked::Unsatisfiable,
        _ => Asked::Whole,
    }
}

/// Digits or nothing; a comma, a sign or letters are an error.
fn number(text: &str) -> Result<Option<u64>, ()> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(());
    }
    text.parse().map(Some).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_hundred_bytes() {
        let part = |start, end| Asked::Part { start, end };
        for (header, expected) in [
            (None, Asked::Whole),
            (Some("bytes=0-0"), part(0, 1)),
            (Some("bytes=10-19"), part(10, 20)),
            (Some("bytes=90-"), part(90, 100)),
            (Some("bytes=90-500"), part(90, 100)),
            (Some("bytes=-7"), part(93, 100)),
            (Some("bytes=-700"), part(0, 100)),
            (Some("bytes=100-"), Asked::Unsatisfiable),
            (Some("bytes=-0"), Asked::Unsatisfiable),
            (Some("bytes=5-4"), Asked::Whole),
            (Some("bytes=0-1,5-6"), Asked::Whole),
            (Some("bytes=-"), Asked::Whole),
            (Some("bytes=a-b"), Asked::Whole),
            (Some("bytes=99999999999999999999-"), Asked::Whole),
            (Some("lines=1-2"), Asked::Whole),
        ] {
            assert_eq!(parse(header, 100), expected, "{header:?}");
        }
        assert_eq!(parse(Some("bytes=-5"), 0), Asked::Unsatisfiable);
    }
}
