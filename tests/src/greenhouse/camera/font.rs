//! Letters for the line of text a camera burns into its picture: 5 × 7 dots.

use super::canvas::{Canvas, Colour};

/// Dots to the next letter.
const ADVANCE: i32 = 6;

/// Writes `text` with dots of `size` pixels; letters without a glyph stay blank.
pub(super) fn write(canvas: &mut Canvas, x: i32, y: i32, size: i32, colour: Colour, text: &str) {
    for (place, letter) in (0..).zip(text.chars()) {
        for (row, bits) in (0..).zip(glyph(letter)) {
            for column in 0..5 {
                if bits & (0b1_0000 >> column) != 0 {
                    let (dx, dy) = (place * ADVANCE + column, row);
                    canvas.block(x + dx * size, y + dy * size, size, size, colour);
                }
            }
        }
    }
}

/// Seven rows, the leftmost dot in bit 4.
fn glyph(letter: char) -> [u8; 7] {
    match letter {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'N' => [17, 25, 21, 19, 17, 17, 17],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'V' => [17, 17, 17, 17, 17, 10, 4],
        '%' => [24, 25, 2, 4, 8, 19, 3],
        ':' => [0, 4, 0, 0, 0, 4, 0],
        '-' => [0, 0, 0, 14, 0, 0, 0],
        '.' => [0, 0, 0, 0, 0, 0, 4],
        _ => [0; 7],
    }
}
