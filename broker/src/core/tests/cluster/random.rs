//! Anything happens in any order, messages are lost, and then they are not:
//! all brokers agree again, and the newest run of each device is somewhere.

use std::time::Duration;

use proptest::prelude::*;

use super::super::world::Device;
use super::SECOND;
use super::net::Net;
use crate::core::cluster::{ASK_AGAIN, BEAT_EVERY, LEASE};

const BROKERS: usize = 3;
const DEVICES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Enter(usize, usize),
    Restart(usize),
    Leave(usize),
    Lose(usize, usize),
    Hear(usize, usize),
    Engine(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..BROKERS, 0..DEVICES).prop_map(|(b, d)| Step::Enter(b, d)),
        1 => (0..DEVICES).prop_map(Step::Restart),
        2 => (0..DEVICES).prop_map(Step::Leave),
        2 => (0..BROKERS, 0..BROKERS).prop_map(|(a, b)| Step::Lose(a, b)),
        1 => (0..BROKERS, 0..BROKERS).prop_map(|(a, b)| Step::Hear(a, b)),
        1 => any::<bool>().prop_map(Step::Engine),
        2 => (1u64..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn all_agree_once_they_hear_each_other(steps in prop::collection::vec(step(), 1..40)) {
        let mut net = Net::of(BROKERS);
        let mut devices: Vec<Device> = (0..DEVICES as u8)
            .map(|n| if n % 2 == 0 { Device::farm(n) } else { Device::phone(n) })
            .collect();
        // Each device's own view: with its newest run, at this broker.
        let mut at = [None; DEVICES];
        for step in steps {
            match step {
                Step::Enter(broker, device) => {
                    let mine = &devices[device];
                    // A broker with news of a newer run may refuse: not what is tested here.
                    at[device] = Some((broker, net.enter(broker, mine)));
                }
                Step::Restart(device) => devices[device].restart(),
                Step::Leave(device) => {
                    if let Some((broker, connection)) = at[device].take()
                        && !net.worlds[broker].is_closed(connection)
                    {
                        net.close(broker, connection);
                    }
                }
                Step::Lose(from, to) => drop(net.lossy.insert((from, to))),
                Step::Hear(from, to) => drop(net.lossy.remove(&(from, to))),
                Step::Engine(there) => net.engine(there),
                Step::Wait(millis) => net.run(Duration::from_millis(millis)),
            }
            net.check();
        }
        net.engine(true);
        net.run(BEAT_EVERY + 2 * ASK_AGAIN + LEASE + SECOND);
        net.check();
        for device in &devices {
            let place = net.place_of(device);
            prop_assert!(place.is_ok(), "{place:?}");
        }
        // And who comes now is there.
        for (n, device) in devices.iter().enumerate() {
            net.enter(n % BROKERS, device);
            prop_assert_eq!(net.place_of(device), Ok(Some(n % BROKERS)));
        }
        net.check();
    }
}
