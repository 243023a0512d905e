//! No bytes whatever make a reader panic, take long or take much memory, and
//! what it accepts it can write again.

use std::time::{Duration, Instant};

use farm_protocol::base64url;
use farm_protocol::codec::MAX_MESSAGE;
use farm_protocol::id::{FarmId, SessionId};
use farm_protocol::invitation::Invitation;
use farm_protocol::keys::{DeviceKey, Purpose};
use farm_protocol::signal::{Expected, Signed};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use crate::message::KINDS;
use crate::strategies::{any_message, config, peer_signal};
use crate::vectors::messages;

/// One damage to valid bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Drop(Index, Index),
    Double(Index, Index),
    Splice(Index, Index, Vec<u8>),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let range = |a: &Index, b: &Index| {
            let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Set(at, value) => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Drop(a, b) => drop(bytes.drain(range(a, b))),
            Self::Double(a, b) => {
                let range = range(a, b);
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copy);
            }
            Self::Splice(a, b, other) => {
                let range = range(a, b);
                bytes.splice(range, other.iter().copied());
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let part = (any_message(), at(), at()).prop_map(|((_, bytes), a, b)| {
        let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
        bytes[a.min(b)..a.max(b)].to_vec()
    });
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        // The heads of every major type, and what ends or tags.
        4 => (at(), prop_oneof![any::<u8>(), (0..8u8, 0..32u8).prop_map(|(major, info)| major << 5 | info)])
            .prop_map(|(at, value)| Damage::Set(at, value)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), at()).prop_map(|(a, b)| Damage::Drop(a, b)),
        1 => (at(), at()).prop_map(|(a, b)| Damage::Double(a, b)),
        2 => (at(), at(), part).prop_map(|(a, b, part)| Damage::Splice(a, b, part)),
    ]
}

fn read_by_all(bytes: &[u8]) {
    for kind in KINDS {
        let _ = (kind.rewrite)(bytes);
    }
}

#[test]
fn random_bytes() {
    let body = vec(any::<u8>(), 0..200);
    TestRunner::new(config(2_000))
        .run(&(body, any::<bool>()), |(body, enveloped)| {
            let head: &[u8] = if enveloped { &[0x82, 0x01, 0xa1] } else { &[] };
            read_by_all(&[head, &body].concat());
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn damaged_messages() {
    TestRunner::new(config(2_000))
        .run(&(any_message(), vec(damage(), 1..5)), |((_, mut bytes), damages)| {
            for damage in &damages {
                damage.apply(&mut bytes);
            }
            read_by_all(&bytes);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// A paired phone that turns on its farm signs properly.
#[test]
fn damaged_bodies_properly_signed() {
    let phone = DeviceKey::from_seed([7; 32]).unwrap();
    let key = phone.public();
    TestRunner::new(config(200))
        .run(&(peer_signal(), vec(damage(), 0..3)), |(signal, damages)| {
            let mut body = signal.sign(&phone).unwrap().body;
            for damage in &damages {
                damage.apply(&mut body);
            }
            let signed = Signed { signature: phone.sign(Purpose::Signal, &body), body };
            let (farm, session): (FarmId, SessionId) = (signal.farm, signal.session);
            let opened = signed.open(Expected { key: &key, from: signal.from, farm, session });
            if let Ok(opened) = opened {
                prop_assert_eq!((opened.from, opened.farm, opened.session), (signal.from, farm, session));
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn every_truncation_is_refused() {
    for case in messages::cases() {
        // Every cut of the short ones, some of the long ones.
        let step = case.bytes.len().div_ceil(300);
        for end in (0..case.bytes.len()).step_by(step) {
            for kind in KINDS {
                let result = (kind.rewrite)(&case.bytes[..end]);
                assert!(result.is_err(), "{} cut to {end} bytes is a {}", case.name, kind.name);
            }
        }
    }
}

#[test]
fn any_link_or_code() {
    let text = prop_oneof![
        "[ -~]{0,60}",
        "https://a/#(v=1|b=[%a-f0-9+:/]{0,9}|k=[A-Za-z0-9_-]{40,46}|s=[A-Za-z0-9_-]{10,24}|&){0,9}",
        "[0-9A-Za-z -]{10,24}",
        vec(any::<char>(), 0..40).prop_map(String::from_iter),
    ];
    TestRunner::new(config(1_000))
        .run(&text, |text| {
            let _ = text.parse::<FarmId>();
            let _ = base64url::decode(&text);
            match text.parse::<Invitation>() {
                Ok(Invitation::Link(link)) => {
                    let again = link.to_string().parse();
                    prop_assert_eq!(again, Ok(Invitation::Link(link)));
                }
                Ok(Invitation::Code(secret)) => {
                    let code = secret.code().unwrap();
                    prop_assert_eq!(code.parse(), Ok(Invitation::Code(secret)));
                }
                Err(_) => {}
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// Peak of the process's address space in bytes: memory that was asked for,
/// touched or not.
#[cfg(target_os = "linux")]
fn asked_for() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kilobytes = peak.and_then(|peak| peak.split_whitespace().next());
    kilobytes.unwrap().parse::<u64>().unwrap() * 1024
}

/// The longest that one message may take, in a debug build on a busy machine.
/// Reading is linear: a full message takes milliseconds, while anything
/// quadratic in its length would take minutes.
const PATIENCE: Duration = Duration::from_secs(5);

fn read_in_time(name: &str, bytes: &[u8]) {
    let started = Instant::now();
    read_by_all(bytes);
    let took = started.elapsed();
    assert!(took < PATIENCE, "{name}: {took:?}");
}

/// Lengths that claim far more than there is, in every place of a message.
#[test]
fn claims_cost_nothing() {
    #[cfg(target_os = "linux")]
    let before = asked_for();
    let mut samples: Vec<Vec<u8>> = KINDS
        .iter()
        .map(|kind| {
            let cases = messages::cases().into_iter().filter(|case| case.kind == kind.name);
            cases.max_by_key(|case| (case.bytes.len() < 160, case.bytes.len())).unwrap().bytes
        })
        .collect();
    samples.push(vec![0x82, 0x01, 0x00]);
    for bytes in samples {
        for major in 2..=5u8 {
            for length in [1u64 << 31, 1 << 40, u64::MAX] {
                let claim = [&[major << 5 | 0x1b][..], &length.to_be_bytes()].concat();
                for at in 0..bytes.len() {
                    let claimed = [&bytes[..at], &claim, &bytes[at..]].concat();
                    read_by_all(&claimed);
                    let claimed = [&bytes[..at], &claim, &bytes[at + 1..]].concat();
                    read_by_all(&claimed);
                }
            }
        }
    }
    // The tests beside this one reserve some for their threads; a claim that
    // was believed would show as 2 GiB at least.
    #[cfg(target_os = "linux")]
    {
        let more = asked_for() - before;
        assert!(more < 1 << 30, "{more} bytes were asked for");
    }
}

/// Full messages of nothing but nesting, empty parts or repeated fields.
#[test]
fn full_messages_take_no_time() {
    let fill = |head: &[u8], unit: &[u8]| -> Vec<u8> {
        let room = MAX_MESSAGE - head.len();
        let body = unit.iter().copied().cycle().take(room / unit.len() * unit.len());
        head.iter().copied().chain(body).collect()
    };
    let envelope = b"\x82\x01";
    let welcome = b"\x82\x01\xa1\x67welcome\xbf\x61x";
    for (name, bytes) in [
        ("arrays in arrays", fill(envelope, b"\x81")),
        ("maps in maps", fill(envelope, b"\xa1\x61a")),
        ("maps in maps of one name", fill(envelope, b"\xa1\x67welcome")),
        ("tags on tags", fill(envelope, b"\xc1")),
        ("endless arrays", fill(envelope, b"\x9f")),
        ("endless bytes in pieces", fill(b"\x82\x01\x5f", b"\x41a")),
        ("endless text in pieces", fill(b"\x82\x01\x7f", b"\x61a")),
        ("endless map of one name", fill(b"\x82\x01\xbf", b"\x61a\x00")),
        ("unknown fields", fill(welcome, b"\x00\x61y")),
        ("unknown field, nested", fill(welcome, b"\x81")),
        (
            "many streams",
            fill(b"\x82\x01\xa1\x65hello\xa1\x67streams\x9f", b"\xa3\x61s\x00\x61r\x00\x61c\x00"),
        ),
        ("many phones", fill(b"\x82\x01\xa1\x66access\xa1\x66phones\x9f", b"\x5401234567890123456789")),
        ("zeros", fill(b"", b"\x00")),
        ("ones", fill(b"", b"\xff")),
        ("over the limit", vec![0x81; 10 * MAX_MESSAGE]),
    ] {
        read_in_time(name, &bytes);
    }
}
