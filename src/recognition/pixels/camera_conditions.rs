use std::fmt;

use image::RgbImage;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::jpeg::Jpeg;
use super::tensor::{EncodeError, encode_jpeg};

/// The light that haze scatters into the lens, in grey levels of red, green and blue: bright and a little blue.
const HAZE_VEIL: [f32; 3] = [200.0, 208.0, 216.0];

/// Weights of red, green and blue in luma (ITU-R BT.601, as in JPEG).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// A picture's value, as a share of white, is the light to the power of 1 over this.
const ENCODING_GAMMA: f32 = 2.2;

/// The noise of a sensor, in electrons of a pixel.
///
/// Light that is the share L of white makes L · [`white`](Self::white) electrons, and what is read is normally
/// distributed around that: with variance L · `white` (shot noise) + `read`² in each value for itself,
/// and with the deviation [`row`](Self::row) in each row as a whole. Light is the picture's value, as a share of 255,
/// to the power of 2.2; sums are clipped at no light and at white.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SensorNoise {
    /// Electrons at white, above 0: the fewer, the stronger the shot noise. Full wells hold some 10,000; a
    /// sensor at n times its lowest sensitivity is white at an n-th of them.
    pub white: f32,
    /// Standard deviation that reading adds to each value, in electrons.
    pub read: f32,
    /// Standard deviation of what reading adds to a whole row, the same in all channels, in electrons: the
    /// bands across a picture that a rolling shutter's sensor shows.
    pub row: f32,
}

impl SensorNoise {
    /// Draws what is read where the light is that share of white; again such a share, unclipped.
    fn read(&self, light: f32, row: f32, rng: &mut (impl Rng + ?Sized)) -> f32 {
        let electrons = light * self.white;
        let deviation = (electrons + self.read * self.read).sqrt();
        (electrons + deviation * normal(rng) + row) / self.white
    }
}

fn normal(rng: &mut (impl Rng + ?Sized)) -> f32 {
    StandardNormal.sample(rng)
}

/// What a camera, its settings and the air before it do to a picture. [`Default`] is [`AS_IS`](Self::AS_IS),
/// which does nothing.
///
/// [`apply`](Self::apply) works on the picture's encoded values v, 0…255, in this order:
///
/// | | value | |
/// |---|---|---|
/// | blur | | of the lens, out of focus or in motion |
/// | haze | v + (veil − v) · `haze` | veil: 200, 208, 216 in red, green, blue |
/// | exposure and white balance | v · `exposure` · `gains` + `offset` | |
/// | noise | [`SensorNoise`] | at what is exposed, so an under-exposed picture is noisier |
/// | clipping | to 0…255 | |
/// | tone curve | 255 · (v / 255)^`gamma` | |
/// | grey | v · (1 − `grey`) + luma · `grey` | luma = 0.299 R + 0.587 G + 0.114 B |
/// | rounding | to the nearest | |
/// | file | | a JPEG with chrominance at half resolution |
///
/// Blur and noise are of the picture's own pixels: the same condition is milder on a head that is shown larger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CameraCondition {
    /// Standard deviation of the Gaussian by which the picture is blurred, in pixels; 0 leaves it sharp. It is cut off
    /// at two to three times that (1.5: at 3 pixels).
    pub blur: f32,
    /// Share of the light that haze replaces by its own, 0…1.
    pub haze: f32,
    /// Factors of encoded red, green and blue that another white balance makes, 0 and more.
    pub gains: [f32; 3],
    /// Factor of all encoded values, 0 and more.
    pub exposure: f32,
    /// Grey levels added to all values.
    pub offset: f32,
    /// The sensor's noise.
    pub noise: Option<SensorNoise>,
    /// Exponent of the tone curve, above 0: above 1 darkens what lies between black and white.
    pub gamma: f32,
    /// How far colours are taken to their luma, 0…1: 1 is a monochrome camera or old film.
    pub grey: f32,
    /// Quality of the JPEG that the picture went through, 1…100.
    pub jpeg_quality: Option<u8>,
}

impl Default for CameraCondition {
    fn default() -> Self {
        Self::AS_IS
    }
}

impl CameraCondition {
    /// Changes nothing.
    pub const AS_IS: Self = Self {
        blur: 0.0,
        haze: 0.0,
        gains: [1.0; 3],
        exposure: 1.0,
        offset: 0.0,
        noise: None,
        gamma: 1.0,
        grey: 0.0,
        jpeg_quality: None,
    };
    /// Another white balance: red × 0.75, blue × 1.25.
    pub const WHITE_BALANCE: Self = Self {
        gains: [0.75, 1.0, 1.25],
        ..Self::AS_IS
    };
    /// All values × 0.35.
    pub const UNDER_EXPOSED: Self = Self {
        exposure: 0.35,
        ..Self::AS_IS
    };
    /// All values × 1.6 + 20: highlights are clipped.
    pub const OVER_EXPOSED: Self = Self {
        exposure: 1.6,
        offset: 20.0,
        ..Self::AS_IS
    };
    /// A monochrome camera, or old film.
    pub const GREY: Self = Self {
        grey: 1.0,
        ..Self::AS_IS
    };
    /// A tone curve of exponent 1.9, which darkens.
    pub const GAMMA: Self = Self {
        gamma: 1.9,
        ..Self::AS_IS
    };
    /// Half of the light is haze.
    pub const HAZE: Self = Self {
        haze: 0.5,
        ..Self::AS_IS
    };
    /// A small sensor at a high sensitivity: 400 electrons at white, 3 of reading. About 6 grey levels in the middle,
    /// more in the dark.
    pub const NOISE: Self = Self {
        noise: Some(SensorNoise {
            white: 400.0,
            read: 3.0,
            row: 0.0,
        }),
        ..Self::AS_IS
    };
    /// The same with bands: rows differ by 8 electrons.
    pub const ROLLING_NOISE: Self = Self {
        noise: Some(SensorNoise {
            white: 400.0,
            read: 3.0,
            row: 8.0,
        }),
        ..Self::AS_IS
    };
    /// A Gaussian of 1.5 pixels.
    pub const BLUR: Self = Self {
        blur: 1.5,
        ..Self::AS_IS
    };
    /// A JPEG of quality 20.
    pub const JPEG_20: Self = Self {
        jpeg_quality: Some(20),
        ..Self::AS_IS
    };

    /// The conditions under which bundles are measured, with the names that tables show.
    pub const MEASURED: [(&'static str, Self); 10] = [
        ("as is", Self::AS_IS),
        ("white balance", Self::WHITE_BALANCE),
        ("under-exposed", Self::UNDER_EXPOSED),
        ("over-exposed", Self::OVER_EXPOSED),
        ("grey", Self::GREY),
        ("gamma", Self::GAMMA),
        ("haze", Self::HAZE),
        ("noise", Self::NOISE),
        ("blur", Self::BLUR),
        ("jpeg 20", Self::JPEG_20),
    ];

    /// The [`exposure`](Self::exposure) of so many stops: one more doubles the light, not the encoded values.
    pub fn exposure_of_stops(stops: f32) -> f32 {
        (stops / ENCODING_GAMMA).exp2()
    }

    /// Changes a picture as this camera would have taken it. Only noise draws random numbers.
    ///
    /// # Errors
    /// With a [`jpeg_quality`](Self::jpeg_quality): where it is not in 1…100 or a side of the picture is above
    /// 65,500 pixels. The picture is then as it was before its file.
    pub fn apply(
        &self,
        picture: &mut RgbImage,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<(), EncodeError> {
        if picture.is_empty() {
            return Ok(());
        }
        if self.blur > 0.0 {
            *picture = image::imageops::blur(picture, self.blur);
        }
        self.expose(picture, rng);
        if let Some(quality) = self.jpeg_quality {
            *picture = through_jpeg(picture, quality)?;
        }
        Ok(())
    }

    /// All that is done to each value.
    fn expose(&self, picture: &mut RgbImage, rng: &mut (impl Rng + ?Sized)) {
        // What the sensor gets, as a share of white: light where there is noise to be added, otherwise developed at once.
        let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| {
            std::array::from_fn(|value| {
                let value = value as f32;
                let seen = value + (HAZE_VEIL[channel] - value) * self.haze;
                let exposed = seen * self.exposure * self.gains[channel] + self.offset;
                let share = (exposed / 255.0).max(0.0);
                match self.noise {
                    Some(_) => share.powf(ENCODING_GAMMA),
                    None => develop(share, self.gamma),
                }
            })
        });
        let width = picture.width() as usize;
        for row in picture.chunks_exact_mut(3 * width) {
            let band = self.noise.map_or(0.0, |noise| noise.row * normal(rng));
            for pixel in row.as_chunks_mut::<3>().0 {
                let mut values: [f32; 3] =
                    std::array::from_fn(|c| tables[c][usize::from(pixel[c])]);
                if let Some(noise) = &self.noise {
                    values = values.map(|light| {
                        let light = noise.read(light, band, rng).max(0.0);
                        develop(light, self.gamma / ENCODING_GAMMA)
                    });
                }
                if self.grey > 0.0 {
                    let luma: f32 = values.iter().zip(LUMA).map(|(v, weight)| v * weight).sum();
                    // In this form all three are the luma itself where `grey` is 1.
                    values = values.map(|v| v * (1.0 - self.grey) + luma * self.grey);
                }
                // `as` saturates, and the half rounds.
                *pixel = values.map(|v| (v + 0.5) as u8);
            }
        }
    }
}

/// What it does, in the order in which it does it, such as `red × 0.75, blue × 1.25`; `unchanged` where it does
/// nothing.
impl fmt::Display for CameraCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut add = |does: bool, part: String| {
            if does {
                parts.push(part);
            }
        };
        add(self.blur > 0.0, format!("blur of {} pixels", self.blur));
        add(
            self.haze > 0.0,
            format!("{} % haze", rounded(100.0 * self.haze)),
        );
        add(self.exposure != 1.0, format!("all × {}", self.exposure));
        for (channel, gain) in ["red", "green", "blue"].iter().zip(self.gains) {
            add(gain != 1.0, format!("{channel} × {gain}"));
        }
        add(self.offset > 0.0, format!("+ {}", self.offset));
        add(self.offset < 0.0, format!("− {}", -self.offset));
        if let Some(SensorNoise { white, read, row }) = self.noise {
            let rows = if row > 0.0 {
                format!(" and {row} of rows")
            } else {
                String::new()
            };
            add(
                true,
                format!("noise of {white} electrons at white, {read} of reading{rows}"),
            );
        }
        add(self.gamma != 1.0, format!("gamma {}", self.gamma));
        add(self.grey == 1.0, "grey".to_owned());
        add(
            self.grey > 0.0 && self.grey < 1.0,
            format!("{} % grey", rounded(100.0 * self.grey)),
        );
        if let Some(quality) = self.jpeg_quality {
            add(true, format!("JPEG of quality {quality}"));
        }
        if parts.is_empty() {
            parts.push("unchanged".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// To a tenth.
fn rounded(value: f32) -> f32 {
    (10.0 * value).round() / 10.0
}

/// The grey level of a share of white, 0 or more, unrounded.
fn develop(share: f32, exponent: f32) -> f32 {
    255.0 * share.min(1.0).powf(exponent)
}

fn through_jpeg(picture: &RgbImage, quality: u8) -> Result<RgbImage, EncodeError> {
    let bytes = encode_jpeg(picture, quality)?;
    let decoded = Jpeg::read_header(&bytes).and_then(|jpeg| jpeg.decode(&bytes, jpeg.whole(1)));
    let (decoded, _) = decoded.expect("a JPEG that has just been written can be read");
    Ok(decoded)
}
