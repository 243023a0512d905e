//! Crockford's base 32 in lower case: what people read aloud and what fits a
//! host name. No padding; `i`, `l`, `o` are read as 1, 1, 0.

use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};

static CROCKFORD: LazyLock<Encoding> = LazyLock::new(|| {
    let mut rules = Specification::new();
    rules.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    rules.translate.from.push_str("ABCDEFGHJKMNPQRSTVWXYZiIlLoO");
    rules.translate.to.push_str("abcdefghjkmnpqrstvwxyz111100");
    rules.ignore.push_str("- ");
    rules.encoding().expect("the alphabet above is a valid specification")
});

/// Encodes, most significant bit first; the last character is padded with
/// zero bits.
pub fn encode(bytes: &[u8]) -> String {
    CROCKFORD.encode(bytes)
}

/// Decodes; case, hyphens and blanks are ignored. `None` for any other
/// character or for padding bits that are not zero.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    CROCKFORD.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_may_type_it_their_way() {
        let code = encode(&[0x08, 0x42, 0xff, 0x00, 0x11]);
        assert_eq!(code.len(), 8);
        assert_eq!(decode(&code.to_uppercase()), decode(&code));
        assert_eq!(decode("1O-Il"), decode("1011"));
        assert_eq!(decode("u"), None);
    }

    proptest! {
        #[test]
        fn round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,80}") {
            let _ = decode(&text);
        }
    }
}
