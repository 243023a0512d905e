//! The devices that all vectors speak of.

use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId, Slot};
use farm_protocol::keys::{DeviceKey, Nonce};

/// Bytes that tell what they are and whether one is missing.
pub(crate) fn count<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first.wrapping_add(i as u8))
}

pub(crate) const FARM_SEED: [u8; 32] = [1; 32];
pub(crate) const PHONE_SEED: [u8; 32] = [2; 32];
pub(crate) const STRANGER_SEED: [u8; 32] = [3; 32];

pub(crate) fn farm() -> DeviceKey {
    DeviceKey::from_seed(FARM_SEED).unwrap()
}

pub(crate) fn phone() -> DeviceKey {
    DeviceKey::from_seed(PHONE_SEED).unwrap()
}

pub(crate) fn stranger() -> DeviceKey {
    DeviceKey::from_seed(STRANGER_SEED).unwrap()
}

pub(crate) fn farm_id() -> FarmId {
    FarmId::of(&farm().public())
}

pub(crate) fn phone_id() -> PhoneId {
    PhoneId::of(&phone().public())
}

pub(crate) fn session(slot: u8) -> SessionId {
    SessionId { phone: phone_id(), slot: Slot::new(slot).unwrap() }
}

pub(crate) fn farm_boot() -> BootId {
    BootId::from_bytes(count(0xa0))
}

pub(crate) fn phone_boot() -> BootId {
    BootId::from_bytes(count(0xb0))
}

pub(crate) fn nonce(first: u8) -> Nonce {
    Nonce::from_bytes(count(first))
}

/// The third turn of the second start: 2 * 2^22 + 3.
pub(crate) fn epoch() -> Epoch {
    Epoch::of_start(2).next().next().next()
}

/// [`epoch`] on the wire.
pub(crate) const EPOCH: u64 = 8_388_611;

/// The largest number on the wire: 2^53 - 1.
pub(crate) const MOST: u64 = 9_007_199_254_740_991;
