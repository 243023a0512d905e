//! A QR code in a terminal: two modules to a character.

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code. The standard asks for four; two are enough for
/// phones on a screen, and let the code of a pairing link fit 24 rows.
const MARGIN: i32 = 2;

/// The rows of the code of `text`, dark on light whatever the terminal's colours
/// are; None when it is too long for a code.
pub(super) fn rows(text: &str) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = i32::try_from(code.width()).ok()?;
    let colors = code.to_colors();
    let dark = |x: i32, y: i32| {
        let inside = (0..width).contains(&x) && (0..width).contains(&y);
        inside && colors.get((y * width + x) as usize) == Some(&Color::Dark)
    };
    let row = |y: i32| -> String {
        let modules = (-MARGIN..width + MARGIN).map(|x| match (dark(x, y), dark(x, y + 1)) {
            (true, true) => ' ',
            (true, false) => '▄',
            (false, true) => '▀',
            (false, false) => '█',
        });
        // White blocks on black, said explicitly.
        format!("\x1b[97;40m{}\x1b[0m", modules.collect::<String>())
    };
    Some((-MARGIN..width + MARGIN).step_by(2).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pairing_link_fits_a_small_terminal() {
        let link = format!(
            "http://127.0.0.1:40000/#v=1&b=ws://127.0.0.1:40000&k={}&s={}",
            "k".repeat(43),
            "s".repeat(22)
        );
        let rows = rows(&link).unwrap();
        assert!(rows.len() <= 23, "{} rows", rows.len());
        let columns = rows[0].chars().filter(|c| matches!(c, ' ' | '▄' | '▀' | '█')).count();
        assert!(columns <= 80 && columns.div_ceil(2) == rows.len(), "{columns} columns");
        // The upper left finder pattern below the margin: a dark line, then its left side.
        assert!(rows[1].contains("██ ▄▄▄▄▄ █"), "{}", rows[1]);
    }

    #[test]
    fn too_much_is_no_code() {
        assert!(rows(&"x".repeat(4_000)).is_none());
    }
}
