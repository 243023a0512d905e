//! A link as a QR code: blocks for a terminal, a picture for a laptop.

use qrcode::render::unicode;
use qrcode::types::QrError;
use qrcode::{Color, QrCode};

/// Dots per module: a phone reads it off a screen at arm's length.
const SCALE: usize = 8;

/// Light modules around the code, which readers need.
const QUIET: usize = 4;

/// Bytes before the first row: file header, image header, two colours.
const HEADER: usize = 14 + 40 + 8;

/// Half blocks, two modules a character.
///
/// # Errors
/// [`QrError`] for a link that is too long for any code.
pub fn blocks(link: &str) -> Result<String, QrError> {
    let code = QrCode::new(link)?;
    // Light modules are drawn, since most terminals are dark.
    let drawing = code
        .render::<unicode::Dense1x2>()
        .dark_color(unicode::Dense1x2::Light)
        .light_color(unicode::Dense1x2::Dark)
        .build();
    Ok(drawing)
}

/// A black and white bitmap (BMP): every computer shows it, and its size
/// depends on nothing but the code's version.
///
/// # Errors
/// [`QrError`] for a link that is too long for any code.
pub fn bitmap(link: &str) -> Result<Vec<u8>, QrError> {
    let code = QrCode::new(link)?;
    let modules = code.to_colors();
    let width = code.width();
    let side = (width + 2 * QUIET) * SCALE;
    let stride = side.div_ceil(32) * 4;
    let size = HEADER + stride * side;

    let mut file = Vec::with_capacity(size);
    let word = |file: &mut Vec<u8>, value: usize| {
        // A code has at most 177 modules: some 300 kB.
        file.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    };
    file.extend_from_slice(b"BM");
    for value in [size, 0, HEADER, 40, side, side] {
        word(&mut file, value);
    }
    // One plane, one bit a dot.
    file.extend_from_slice(&[1, 0, 1, 0]);
    // Not compressed; its size; 2835 dots a metre; two colours, both important.
    for value in [0, stride * side, 2835, 2835, 2, 2] {
        word(&mut file, value);
    }
    file.extend_from_slice(&[0, 0, 0, 0, 255, 255, 255, 0]);
    for row in (0..side).rev() {
        let mut line = vec![0u8; stride];
        for column in 0..side {
            let module = |at: usize| (at / SCALE).checked_sub(QUIET).filter(|at| *at < width);
            let dark = match (module(row), module(column)) {
                (Some(y), Some(x)) => modules[y * width + x] == Color::Dark,
                _ => false,
            };
            if !dark {
                line[column / 8] |= 0x80 >> (column % 8);
            }
        }
        file.extend_from_slice(&line);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_the_code() {
        let link = "https://broker.example.org/#v=1&b=wss://broker.example.org&k=abc&s=def";
        let code = QrCode::new(link).unwrap();
        let file = bitmap(link).unwrap();
        let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!((&file[..2], number(2), number(10)), (&b"BM"[..], file.len(), HEADER));
        let side = number(18);
        assert_eq!(side, (code.width() + 2 * QUIET) * SCALE);
        let stride = side.div_ceil(32) * 4;
        let dark = |x: usize, y: usize| {
            let at = HEADER + (side - 1 - y) * stride + x / 8;
            file[at] & (0x80 >> (x % 8)) == 0
        };
        for (index, color) in code.to_colors().into_iter().enumerate() {
            let (x, y) = (index % code.width() + QUIET, index / code.width() + QUIET);
            assert_eq!(dark(x * SCALE + SCALE / 2, y * SCALE + SCALE / 2), color == Color::Dark);
        }
        assert!((0..side).all(|at| !dark(at, 0) && !dark(0, at)), "a light rim");
    }
}
