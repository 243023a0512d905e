//! `text.json`: bytes as people and links carry them.

use farm_protocol::id::FarmId;
use farm_protocol::{base32, base64url};
use serde_json::{Value as Json, json};

use super::fixtures::*;
use crate::notation::hex;

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    for (bytes, text) in [
        (&b""[..], ""),
        (b"\x00", "00"),
        (b"\xff", "zw"),
        (b"f", "cr"),
        (b"fo", "csqg"),
        (b"foo", "csqpy"),
        (b"foob", "csqpyrg"),
        (b"fooba", "csqpyrk1"),
        (b"foobar", "csqpyrk1e8"),
        (b"\x00\x44\x32\x14\xc7", "01234567"),
    ] {
        assert_eq!(base32::encode(bytes), text);
        assert_eq!(base32::decode(text).as_deref(), Some(bytes));
        out.push(json!({
            "name": format!("base32 of {}", hex(bytes)),
            "type": "base32", "hex": hex(bytes), "text": text,
        }));
    }
    for (text, read) in [
        ("CSQPYRK1", Some(&b"fooba"[..])),
        ("csqp-yrk1", Some(b"fooba")),
        (" csqp yrk1 ", Some(b"fooba")),
        ("CSQPYRKI", Some(b"fooba")),
        ("csqpyrkl", Some(b"fooba")),
        ("0o", Some(b"\0")),
        ("u0", None),
        ("0!", None),
        ("é0", None),
        // An impossible length, and bits left over.
        ("0", None),
        ("000", None),
        ("01", None),
        ("zz", None),
    ] {
        assert_eq!(base32::decode(text).as_deref(), read, "{text}");
        out.push(json!({
            "name": format!("base32 {text:?} is read as {}", read.map_or("nothing".to_owned(), hex)),
            "type": "base32-read", "text": text, "hex": read.map(hex),
        }));
    }
    for (text, read) in [
        ("", Some(&b""[..])),
        ("Zg", Some(b"f")),
        ("Zm9vYg", Some(b"foob")),
        ("-_8", Some(b"\xfb\xff")),
        ("Zg==", None),
        ("Z", None),
        ("Zh", None),
        ("+/8", None),
        (" Zg", None),
    ] {
        assert_eq!(base64url::decode(text).as_deref(), read, "{text}");
        if let Some(bytes) = read {
            assert_eq!(base64url::encode(bytes), text);
        }
        out.push(json!({
            "name": format!("base64url {text:?} is read as {}", read.map_or("nothing".to_owned(), hex)),
            "type": "base64url-read", "text": text, "hex": read.map(hex),
        }));
    }
    let id = farm_id();
    let whole = id.to_string();
    for (name, text, right) in [
        ("as it is shown", whole.clone(), true),
        ("in capitals and groups", grouped(&whole), true),
        ("a character short", whole[..31].to_owned(), false),
        ("a character long", format!("{whole}0"), false),
        ("with a foreign character", whole.replace(&whole[..1], "u"), false),
        ("after a book", format!("{}{whole}", "-".repeat(49)), false),
        ("nothing", String::new(), false),
    ] {
        assert_eq!(text.parse::<FarmId>().ok(), right.then_some(id), "{name}");
        out.push(json!({
            "name": format!("a farm's id, {name}"),
            "type": "farm-id", "text": text, "hex": right.then(|| hex(id.as_bytes())),
        }));
    }
    out.into()
}

fn grouped(id: &str) -> String {
    let groups: Vec<&str> = (0..id.len()).step_by(4).map(|at| &id[at..at + 4]).collect();
    groups.join("-").to_uppercase()
}
