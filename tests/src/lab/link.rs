//! A slow link: this machine's kernel can't delay packets, so two TUN devices
//! are joined by threads that do.

mod tun;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

use super::LabError;
use super::namespace::Namespace;

/// Between two looks whether it should end.
const LOOK_MS: u16 = 100;
/// The largest packet that a TUN device hands out, bytes.
const LARGEST: usize = 65_536;

/// What a link does to packets, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// From one end to the other, milliseconds.
    pub delay_ms: u64,
    /// Bits a second.
    pub rate: u64,
    /// Packets lost of a hundred.
    pub loss_percent: u64,
    /// What waits for its turn for longer than this is dropped, milliseconds.
    pub buffer_ms: u64,
}

/// A good LTE connection: 80 ms round trip, 20 Mbit/s, 1 % loss.
pub(super) const LTE: Shape = Shape { delay_ms: 40, rate: 20_000_000, loss_percent: 1, buffer_ms: 200 };

/// A running link; its devices go when it is dropped.
pub(super) struct Link {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Link {
    /// Joins two namespaces by a device in each; both are up.
    pub(super) fn join(
        (one, first): (&Namespace, &str),
        (other, second): (&Namespace, &str),
        shape: Shape,
    ) -> Result<Self, LabError> {
        let open = |namespace: &Namespace, name: &str| -> Result<File, LabError> {
            let device =
                namespace.within(|| tun::open(name))?.map_err(LabError::io("making a TUN device"))?;
            namespace.ip(&format!("link set {name} up"))?;
            Ok(device)
        };
        let (left, right) = (open(one, first)?, open(other, second)?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut link = Self { stop, threads: Vec::new() };
        let copy = |file: &File| file.try_clone().map_err(LabError::io("copying a TUN device"));
        // Both ways lose their own packets.
        link.carry(copy(&left)?, copy(&right)?, Shaper::new(shape, 1))?;
        link.carry(right, left, Shaper::new(shape, 2))?;
        Ok(link)
    }

    fn carry(&mut self, from: File, to: File, shaper: Shaper) -> Result<(), LabError> {
        let (queue, due) = channel();
        let stop = self.stop.clone();
        self.thread(move || take(from, &queue, shaper, &stop))?;
        self.thread(move || deliver(to, &due))
    }

    fn thread(&mut self, work: impl FnOnce() + Send + 'static) -> Result<(), LabError> {
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(work);
        self.threads.push(thread.map_err(LabError::io("starting a link"))?);
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

type Packet = (Instant, Vec<u8>);

/// Takes packets until told to stop, and gives each its time.
fn take(mut from: File, queue: &Sender<Packet>, mut shaper: Shaper, stop: &AtomicBool) {
    let mut packet = vec![0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut ready, LOOK_MS), Ok(1..)) {
            continue;
        }
        // A device that is down gives errors until it is up again or gone.
        let Ok(length) = from.read(&mut packet) else { continue };
        if let Some(due) = shaper.admit(length, Instant::now())
            && queue.send((due, packet[..length].to_vec())).is_err()
        {
            return;
        }
    }
}

/// Hands packets on when they are due, in their order.
fn deliver(mut to: File, due: &Receiver<Packet>) {
    while let Ok((at, packet)) = due.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        // One that the other end does not take is lost, as packets may be.
        let _ = to.write(&packet);
    }
}

/// When packets arrive.
struct Shaper {
    shape: Shape,
    /// When the last bit of all admitted packets has left.
    free: Option<Instant>,
    random: u64,
}

impl Shaper {
    fn new(shape: Shape, seed: u64) -> Self {
        Self { shape, free: None, random: seed }
    }

    /// When a packet of this length arrives; None when it is lost.
    fn admit(&mut self, length: usize, now: Instant) -> Option<Instant> {
        let start = self.free.map_or(now, |free| free.max(now));
        let waits = start.duration_since(now);
        if self.is_lost() || waits > Duration::from_millis(self.shape.buffer_ms) {
            return None;
        }
        let left = start + Duration::from_secs_f64(length as f64 * 8.0 / self.shape.rate as f64);
        self.free = Some(left);
        Some(left + Duration::from_millis(self.shape.delay_ms))
    }

    fn is_lost(&mut self) -> bool {
        // A linear congruential generator (Knuth's MMIX): enough for dice.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 100 < self.shape.loss_percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_take_their_time_and_their_turn() {
        let shape = Shape { delay_ms: 40, rate: 8_000, loss_percent: 0, buffer_ms: 1_500 };
        let mut shaper = Shaper::new(shape, 7);
        let now = Instant::now();
        let after = |ms| Some(now + Duration::from_millis(ms));
        assert_eq!(shaper.admit(1_000, now), after(1_040));
        assert_eq!(shaper.admit(1_000, now), after(2_040));
        assert_eq!(shaper.admit(1_000, now), None, "the buffer is full");
        let later = now + Duration::from_secs(10);
        assert_eq!(shaper.admit(1_000, later), Some(later + Duration::from_millis(1_040)));
    }

    #[test]
    fn about_one_of_a_hundred_is_lost() {
        let mut shaper = Shaper::new(LTE, 1);
        let lost = (0..100_000).filter(|_| shaper.is_lost()).count();
        assert!((800..1_200).contains(&lost), "{lost}");
    }
}
