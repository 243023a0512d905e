//! `invitations.json`: links and codes.

use data_encoding::BASE64URL_NOPAD;
use farm_protocol::invitation::{Invitation, InvitationError, Link, Secret};
use serde_json::{Value as Json, json};

use super::fixtures::*;
use crate::notation::hex;

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    links(&mut out);
    codes(&mut out);
    refused(&mut out);
    out.into()
}

fn key_and_secret() -> String {
    let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    format!("k={}&s={}", part(farm().public().as_bytes()), part(&count::<16>(0)))
}

fn links(out: &mut Vec<Json>) {
    let rest = key_and_secret();
    for (name, app, broker, escaped) in [
        (
            "an ordinary one",
            "https://app.example.org/",
            "wss://broker.example.org",
            "wss://broker.example.org",
        ),
        (
            "port and path",
            "https://app.example.org/farm/",
            "wss://broker.example.org:8443/v1",
            "wss://broker.example.org:8443/v1",
        ),
        (
            "escaped",
            "http://localhost:8080/",
            "ws://[::1]:8080/?a=b&c=d#e+f %",
            "ws://[::1]:8080/?a%3Db%26c%3Dd%23e%2Bf%20%25",
        ),
        ("not Latin", "https://поле.example/", "wss://ферма.example", "wss://ферма.example"),
    ] {
        let text = format!("{app}#v=1&b={escaped}&{rest}");
        let link = Link {
            app: app.to_owned(),
            broker: broker.to_owned(),
            farm: farm().public(),
            secret: Secret::from_bytes(&count::<16>(0)).unwrap(),
        };
        assert_eq!(link.to_string(), text);
        assert_eq!(text.parse(), Ok(Invitation::Link(link)));
        push_link(out, name, &text, app, broker, &count::<16>(0), true);
    }
    // Written otherwise than we write it, meant the same.
    let key = BASE64URL_NOPAD.encode(farm().public().as_bytes());
    let code = BASE64URL_NOPAD.encode(&count::<10>(0xf0));
    for (name, text, secret) in [
        (
            "other order, unknown part, lower-case escape, blanks around",
            format!("\n https://a.example/#x=1&{rest}&b=wss%3a//b.example&v=1 "),
            &count::<16>(0)[..],
        ),
        (
            "a code's secret in a link",
            format!("https://a.example/#v=1&b=wss://b.example&k={key}&s={code}"),
            &count::<10>(0xf0),
        ),
        (
            "the first of two counts",
            format!("https://a.example/#v=1&b=wss://b.example&b=wss://c.example&{rest}"),
            &count::<16>(0),
        ),
    ] {
        let Ok(Invitation::Link(link)) = text.parse() else {
            panic!("{name}: {:?}", text.parse::<Invitation>())
        };
        assert_eq!(link.secret, Secret::from_bytes(secret).unwrap());
        assert_eq!((&*link.app, &*link.broker), ("https://a.example/", "wss://b.example"));
        push_link(out, name, &text, "https://a.example/", "wss://b.example", secret, false);
    }
}

fn push_link(
    out: &mut Vec<Json>,
    name: &str,
    text: &str,
    app: &str,
    broker: &str,
    secret: &[u8],
    canonical: bool,
) {
    out.push(json!({
        "name": format!("link: {name}"),
        "type": "link",
        "text": text,
        "app": app,
        "broker": broker,
        "farm": hex(farm().public().as_bytes()),
        "secret": hex(secret),
        "canonical": canonical,
    }));
}

fn codes(out: &mut Vec<Json>) {
    for (name, text, secret, canonical) in [
        ("as it is shown", "Y3RZ-5WZM-YQVF-FY7S", count::<10>(0xf0), true),
        ("in lower case", "y3rz-5wzm-yqvf-fy7s", count::<10>(0xf0), false),
        ("with blanks", " y3rz 5wzm yqvf fy7s\n", count::<10>(0xf0), false),
        ("in one", "y3rz5wzmyqvffy7s", count::<10>(0xf0), false),
        ("zeros", "0000-0000-0000-0000", [0; 10], true),
        ("zeros as letters", "oooo-OOOO-0000-0000", [0; 10], false),
        ("ones as letters", "iiII-llLL-1111-1111", *b"\x08\x42\x10\x84\x21\x08\x42\x10\x84\x21", false),
    ] {
        let expected = Secret::from_bytes(&secret).unwrap();
        assert_eq!(text.parse(), Ok(Invitation::Code(expected.clone())), "{name}: {:?}", expected.code());
        assert_eq!(expected.code().as_deref() == Some(text), canonical, "{name}");
        out.push(json!({
            "name": format!("code: {name}"),
            "type": "code",
            "text": text,
            "secret": hex(&secret),
            "canonical": canonical,
        }));
    }
}

fn refused(out: &mut Vec<Json>) {
    let rest = key_and_secret();
    let good = format!("https://a.example/#v=1&b=wss://b.example&{rest}");
    assert!(good.parse::<Invitation>().is_ok());
    for (name, text, error) in [
        ("nothing", String::new(), "not an invitation"),
        ("a word", "hello".to_owned(), "not an invitation"),
        ("a code a character short", "Y3RZ-5WZM-YQVF-FY7".to_owned(), "not an invitation"),
        ("a code a character long", "Y3RZ-5WZM-YQVF-FY7S-0".to_owned(), "not an invitation"),
        ("a code with u", "U3RZ-5WZM-YQVF-FY7S".to_owned(), "not an invitation"),
        ("a link without a fragment", "https://a.example/".to_owned(), "not an invitation"),
        ("no version", good.replace("v=1&", ""), "not an invitation"),
        ("over 1024 bytes", format!("{good}&x={}", "x".repeat(1024)), "not an invitation"),
        ("a newer version", good.replace("v=1", "v=2"), "version 2"),
        ("no broker", good.replace("b=wss://b.example&", ""), "part b"),
        ("an empty broker", good.replace("b=wss://b.example", "b="), "part b"),
        ("half an escape", good.replace("b=wss:", "b=wss%3"), "part b"),
        ("a sign in an escape", good.replace("b=wss:", "b=wss%+1"), "part b"),
        ("an escape that is no UTF-8", good.replace("b=wss:", "b=wss%ff"), "part b"),
        ("no key", good.replace("&k=", "&q="), "part k"),
        ("a key with a foreign character", good.replace("&k=", "&k=+"), "part k"),
        ("a key too long", good.replace("&k=", "&k=AAAA"), "part k"),
        ("no secret", good.replace("&s=", "&q="), "part s"),
        ("a secret too long", good.replace("&s=", "&s=AAAA"), "part s"),
        ("a secret with padding", format!("{good}=="), "part s"),
    ] {
        let found = match text.parse::<Invitation>() {
            Err(InvitationError::NotAnInvitation) => "not an invitation".to_owned(),
            Err(InvitationError::Version(version)) => format!("version {version}"),
            Err(InvitationError::Part(part)) => format!("part {part}"),
            Ok(invitation) => panic!("{name}: {invitation:?}"),
        };
        assert_eq!(found, error, "{name}");
        out.push(json!({
            "name": format!("refused: {name}"),
            "type": "refused",
            "text": text,
            "error": error,
        }));
    }
}
