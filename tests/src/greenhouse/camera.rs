//! The camera over the beds: a picture drawn from the readings, so that what
//! the vent, the sun and the water do can be seen, with the second in it.

use jpeg_encoder::{ColorType, Encoder, EncodingError};

use super::climate::Readings;

mod canvas;
mod font;
mod scene;

/// Width of a picture, pixels.
pub const WIDTH: u16 = 640;
/// Height of a picture, pixels.
pub const HEIGHT: u16 = 360;
/// Quality of the JPEG: a picture is 30–60 KB, as a cheap camera's.
const QUALITY: u8 = 80;

/// The picture belonging to `readings`, as a JPEG. Takes some milliseconds of
/// CPU (tens in a debug build).
///
/// # Errors
/// When the encoder fails, which it does only for sizes it can't write.
pub fn jpeg(readings: &Readings) -> Result<Vec<u8>, EncodingError> {
    let picture = scene::draw(readings);
    let mut out = Vec::with_capacity(64 * 1024);
    Encoder::new(&mut out, QUALITY).encode(picture.rgb(), WIDTH, HEIGHT, ColorType::Rgb)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::greenhouse::climate::Climate;

    #[test]
    fn every_second_gives_another_picture_of_a_sensible_size() {
        let mut climate = Climate::new(1_700_000_000);
        let first = jpeg(&climate.readings()).unwrap();
        climate.advance_to(1_700_000_001);
        let second = jpeg(&climate.readings()).unwrap();
        assert_ne!(first, second);
        for picture in [first, second] {
            assert!(picture.starts_with(&[0xFF, 0xD8, 0xFF]) && picture.ends_with(&[0xFF, 0xD9]));
            assert!((8_000..150_000).contains(&picture.len()), "{}", picture.len());
        }
    }

    #[test]
    fn the_same_readings_give_the_same_picture() {
        let readings = Climate::new(1_700_000_000).readings();
        assert_eq!(jpeg(&readings).unwrap(), jpeg(&readings).unwrap());
    }
}
