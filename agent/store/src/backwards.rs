//! Going backwards through an ordered map that is only asked forwards. Pure.
//!
//! sled itself looks for the last of all keys from a constant of a megabyte,
//! a tenth of the program on the card.

use std::ops::Bound;

use crate::table::RawRange;

/// The record with the largest key in `range`, or a larger one that was written
/// meanwhile. `first` gives the first one of a range; it is asked at most ten
/// times for each byte in which the keys differ, and again for what is written
/// meanwhile.
///
/// # Errors
/// Those of `first`.
pub(crate) fn last<K: AsRef<[u8]>, V, E>(
    range: &RawRange,
    mut first: impl FnMut(&RawRange) -> Result<Option<(K, V)>, E>,
) -> Result<Option<(K, V)>, E> {
    let mut from = |low| first(&RawRange { low, high: range.high.clone() });
    let Some(mut found) = from(range.low.clone())? else { return Ok(None) };
    // So many bytes of what was found are those of the largest key.
    let mut known = match &range.high {
        Bound::Included(high) | Bound::Excluded(high) => common(found.0.as_ref(), high),
        Bound::Unbounded => 0,
    };
    while let Some(beyond) = from(Bound::Excluded(found.0.as_ref().to_vec()))? {
        let mut least = move_on(&mut found, beyond, &mut known);
        let mut most = u8::MAX;
        while least < most {
            let middle = least + (most - least).div_ceil(2);
            let mut probe = found.0.as_ref()[..known].to_vec();
            probe.push(middle);
            match from(Bound::Included(probe))? {
                Some(record) => {
                    let before = known;
                    least = move_on(&mut found, record, &mut known);
                    // Written meanwhile, beyond all that was known: begin anew there.
                    if known < before {
                        most = u8::MAX;
                    }
                }
                None => most = middle - 1,
            }
        }
        known += 1;
    }
    Ok(Some(found))
}

/// Goes on to a `record` with a larger key; what is `known` shrinks to what both
/// begin with. Gives the least that the next byte of the largest key can be.
fn move_on<K: AsRef<[u8]>, V>(found: &mut (K, V), record: (K, V), known: &mut usize) -> u8 {
    *known = common(found.0.as_ref(), record.0.as_ref()).min(*known);
    *found = record;
    // The larger of two keys has a byte where they part.
    found.0.as_ref().get(*known).copied().unwrap_or(u8::MAX)
}

fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap, convert::Infallible};

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    type Map = BTreeMap<Vec<u8>, usize>;

    /// The last record, and how often the map was asked.
    fn last_of(map: &Map, range: &RawRange) -> (Option<(Vec<u8>, usize)>, usize) {
        let asked = Cell::new(0);
        let found = last(range, |range| {
            asked.set(asked.get() + 1);
            let mut inside = (!range.is_empty()).then(|| map.range((range.low.clone(), range.high.clone())));
            let first = inside.as_mut().and_then(Iterator::next);
            Ok::<_, Infallible>(first.map(|(key, value)| (key.clone(), *value)))
        });
        (found.unwrap(), asked.get())
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Few values, so that keys share beginnings and are beginnings of others.
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(254), Just(255)], 0..6)
    }

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
    }

    proptest! {
        #[test]
        fn it_is_what_the_map_itself_calls_the_last(
            keys in btree_set(key(), 0..40), low in bound(), high in bound(),
        ) {
            let map: Map = keys.into_iter().zip(0..).collect();
            let range = RawRange { low, high };
            let expected = (!range.is_empty())
                .then(|| map.range((range.low.clone(), range.high.clone())).next_back())
                .flatten()
                .map(|(key, value)| (key.clone(), *value));
            prop_assert_eq!(last_of(&map, &range).0, expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_meanwhile_is_found_or_not_and_breaks_nothing(
            keys in btree_set(key(), 1..20), late in proptest::collection::vec(key(), 0..60),
        ) {
            let mut map: Map = keys.into_iter().zip(0..).collect();
            let least = map.keys().next_back().cloned();
            let mut late = late.into_iter();
            let range = RawRange { low: Bound::Unbounded, high: Bound::Unbounded };
            let found = last(&range, |range| {
                let inside = map.range((range.low.clone(), range.high.clone())).next();
                let first = inside.map(|(key, value)| (key.clone(), *value));
                map.extend(late.next().map(|key| (key, 0)));
                Ok::<_, Infallible>(first)
            });
            let found = found.unwrap().map(|(key, _)| key);
            prop_assert!(found >= least, "{:?} of {:?}", found, least);
            prop_assert!(found.is_some_and(|key| map.contains_key(&key)));
        }
    }

    #[test]
    fn a_writer_that_appends_at_each_question_is_kept_up_with() {
        // Across the carries of the last two bytes.
        let mut map: Map = BTreeMap::new();
        let mut next = 250_u64;
        let mut append = |map: &mut Map| {
            map.insert(next.to_be_bytes().to_vec(), 0);
            next += if next < 70_000 { 37 } else { 0 };
        };
        append(&mut map);
        let range = RawRange { low: Bound::Unbounded, high: Bound::Unbounded };
        let found = last(&range, |range| {
            let inside = map.range((range.low.clone(), range.high.clone())).next();
            let first = inside.map(|(key, value)| (key.clone(), *value));
            append(&mut map);
            Ok::<_, Infallible>(first)
        });
        assert_eq!(found.unwrap().map(|(key, _)| key), map.keys().next_back().cloned());
    }

    #[test]
    fn many_records_take_few_questions() {
        let map: Map = (0..100_000_usize).map(|n| ((n as u64).to_be_bytes().to_vec(), n)).collect();
        let range = RawRange { low: Bound::Unbounded, high: Bound::Unbounded };
        let (found, asked) = last_of(&map, &range);
        assert_eq!(found.unwrap().1, 99_999);
        assert!(asked <= 8 * 10, "{asked}");
    }
}
