//! An RGB buffer and the few shapes the scene needs. Shapes are clipped.

use super::{HEIGHT, WIDTH};

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

const W: i32 = WIDTH as i32;
const H: i32 = HEIGHT as i32;

/// A picture being drawn.
pub(super) struct Canvas {
    pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn new() -> Self {
        Self { pixels: vec![0; usize::from(WIDTH) * usize::from(HEIGHT) * 3] }
    }

    /// The pixels, three bytes each, row by row.
    pub(super) fn rgb(&self) -> &[u8] {
        &self.pixels
    }

    /// Fills a rectangle.
    pub(super) fn block(&mut self, x: i32, y: i32, width: i32, height: i32, colour: Colour) {
        let (from, to) = (x.clamp(0, W), (x + width).clamp(0, W));
        for row in y.clamp(0, H)..(y + height).clamp(0, H) {
            let line = &mut self.pixels[index(from, row)..index(from, row) + 3 * (to - from) as usize];
            for pixel in line.chunks_exact_mut(3) {
                pixel.copy_from_slice(&colour);
            }
        }
    }

    /// Fills a circle around `x`, `y`.
    pub(super) fn disc(&mut self, x: i32, y: i32, radius: i32, colour: Colour) {
        for dy in -radius..=radius {
            let half = f64::from(radius * radius - dy * dy).sqrt() as i32;
            self.block(x - half, y + dy, 2 * half + 1, 1, colour);
        }
    }

    /// Passes every pixel of the rows `from..to` through `change`.
    pub(super) fn map(&mut self, from: i32, to: i32, change: impl Fn(Colour) -> Colour) {
        for pixel in self.pixels[index(0, from)..index(0, to)].chunks_exact_mut(3) {
            let changed = change([pixel[0], pixel[1], pixel[2]]);
            pixel.copy_from_slice(&changed);
        }
    }
}

fn index(x: i32, y: i32) -> usize {
    ((y * W + x) * 3) as usize
}

/// `from` moved towards `to` by `share` (0..=1).
pub(super) fn blend(from: Colour, to: Colour, share: f64) -> Colour {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|i| (f64::from(from[i]) + (f64::from(to[i]) - f64::from(from[i])) * share) as u8)
}
