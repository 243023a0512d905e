//! Every failure in every context: the decision, jitter included.

use farm_tunnel::backoff::Jitter;
use farm_tunnel::recovery::{Context, Failure, decide};
use serde_json::{Value, json};

use super::nanos;

pub(super) fn table() -> Vec<Value> {
    let mut rows = Vec::new();
    for failure in Failure::ALL {
        for attempt in [0, 1, 2, 3, 6, 20] {
            for bits in 0..16_u8 {
                let context = Context {
                    attempt,
                    farm_present: bits & 1 == 0,
                    broker_link: bits & 2 == 0,
                    network_up: bits & 4 == 0,
                    watched: bits & 8 == 0,
                };
                let seed = rows.len() as u64;
                let decision = decide(failure, &context, &mut Jitter::new(seed));
                rows.push(json!([
                    failure.name(),
                    attempt,
                    context.farm_present,
                    context.broker_link,
                    context.network_up,
                    context.watched,
                    seed,
                    decision.strategy.name(),
                    decision.relay_only,
                    decision.retry_after.map(nanos),
                ]));
            }
        }
    }
    rows
}
