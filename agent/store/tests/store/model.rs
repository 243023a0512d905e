//! Against a model: whatever was committed is there, in order, after any way
//! of ending.

use std::collections::BTreeMap;

use farm_store::{Batch, Store};
use proptest::prelude::*;

use crate::common::{PHONES, READINGS, State, all};

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Write>),
    /// Closed in order, or dropped as when the process ends.
    Reopen {
        close: bool,
    },
    /// The card is pulled out while the store is open.
    PullCard,
}

#[derive(Debug, Clone)]
struct Write {
    vital: bool,
    key: u64,
    value: Option<String>,
}

fn write() -> impl Strategy<Value = Write> {
    (prop::bool::weighted(0.2), 0u64..40, prop::option::weighted(0.7, (any::<u8>(), 0usize..300))).prop_map(
        |(vital, key, value)| Write { vital, key, value: value.map(|(n, len)| format!("{n}").repeat(len)) },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(write(), 0..8).prop_map(Step::Commit),
        1 => any::<bool>().prop_map(|close| Step::Reopen { close }),
        1 => Just(Step::PullCard),
    ]
}

type Model = BTreeMap<u64, String>;

fn check(store: &Store, phones: &Model, readings: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(&all(store, &PHONES), phones);
    prop_assert_eq!(&all(store, &READINGS), readings);
    for (table, model) in [(&PHONES, phones), (&READINGS, readings)] {
        let owned = |(key, value): (&u64, &String)| (*key, value.clone());
        prop_assert_eq!(store.first(table).expect("readable"), model.first_key_value().map(owned));
        prop_assert_eq!(store.last(table).expect("readable"), model.last_key_value().map(owned));
        let part: Vec<_> = model.range(7..23).take(5).map(owned).collect();
        prop_assert_eq!(store.range(table, 7..23, 5).expect("readable"), part);
        let back: Vec<_> = model.range(..=23).rev().take(5).map(owned).collect();
        prop_assert_eq!(store.range_back(table, ..=23, 5).expect("readable"), back);
        for key in [0, 7, 39] {
            prop_assert_eq!(&store.get(table, &key).expect("readable"), &model.get(&key).cloned());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_is_there(steps in prop::collection::vec(step(), 1..40)) {
        let mut state = State::new();
        let (mut store, _) = state.open();
        let (mut phones, mut readings) = (Model::new(), Model::new());
        for step in steps {
            match step {
                Step::Commit(writes) => {
                    let mut batch = Batch::new();
                    for Write { vital, key, value } in writes {
                        let (table, model) = if vital {
                            (&PHONES, &mut phones)
                        } else {
                            (&READINGS, &mut readings)
                        };
                        match value {
                            Some(value) => {
                                batch.put(table, &key, &value).unwrap();
                                model.insert(key, value);
                            }
                            None => {
                                batch.remove(table, &key).unwrap();
                                model.remove(&key);
                            }
                        }
                    }
                    store.commit_blocking(batch).unwrap();
                }
                Step::Reopen { close } => {
                    if close {
                        store.close_blocking();
                    } else {
                        drop(store);
                    }
                    let opened = state.open();
                    store = opened.0;
                    prop_assert_eq!(opened.1.alarms, []);
                }
                Step::PullCard => {
                    let copy = state.copy();
                    drop(store);
                    state = copy;
                    let opened = state.open();
                    store = opened.0;
                    prop_assert_eq!(opened.1.alarms, []);
                }
            }
            check(&store, &phones, &readings)?;
        }
    }
}
