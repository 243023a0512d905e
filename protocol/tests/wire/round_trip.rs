//! What is written is read as the same, by us and by another CBOR library.

use ciborium::Value;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::message::Message;
use crate::notation;
use crate::schema::Schema;
use crate::strategies::{self, config};

fn holds<T: Message>(strategy: BoxedStrategy<T>) {
    let schema = Schema::sent();
    TestRunner::new(config(200))
        .run(&strategy, |message| {
            let bytes = message.write().unwrap();
            prop_assert_eq!(&T::read(&bytes).unwrap(), &message);
            let mut rest = &bytes[..];
            let value: Value = ciborium::from_reader(&mut rest).unwrap();
            prop_assert!(rest.is_empty());
            notation::json(&value);
            let fits = schema.check(T::NAME, &value);
            prop_assert!(fits.is_ok(), "{fits:?}");
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{}: {e}", T::NAME));
}

#[test]
fn to_broker() {
    holds(strategies::to_broker());
}

#[test]
fn from_broker() {
    holds(strategies::from_broker());
}

#[test]
fn payload() {
    holds(strategies::payload());
}

#[test]
fn peer_signal() {
    holds(strategies::peer_signal());
}

#[test]
fn control() {
    holds(strategies::control());
}

#[test]
fn frame() {
    holds(strategies::frame());
}

#[test]
fn ping() {
    holds(strategies::ping());
}

#[test]
fn readings() {
    holds(strategies::readings_request());
    holds(strategies::readings_answer());
}
