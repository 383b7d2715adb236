use std::fmt;

use clap::ValueEnum;
use recognition::pixels::CameraCondition;

/// The cameras of the virtual survey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Camera {
    /// The one on whose pictures networks are trained
    #[default]
    AsIs,
    /// Another white balance: less red, more blue
    WhiteBalance,
    /// Too dark
    UnderExposed,
    /// Too bright: highlights are clipped
    OverExposed,
    /// Monochrome
    Mono,
    /// Another tone curve, which darkens
    Gamma,
    /// Through haze
    Haze,
    /// A sensor at a high sensitivity
    Noise,
    /// The same with noise that rows share, which shows as bands
    RollingNoise,
    /// Out of focus
    Blur,
    /// JPEGs of low quality
    #[value(name = "jpeg-20")]
    Jpeg20,
}

impl Camera {
    /// What it does to a picture.
    pub fn condition(self) -> CameraCondition {
        match self {
            Self::AsIs => CameraCondition::AS_IS,
            Self::WhiteBalance => CameraCondition::WHITE_BALANCE,
            Self::UnderExposed => CameraCondition::UNDER_EXPOSED,
            Self::OverExposed => CameraCondition::OVER_EXPOSED,
            Self::Mono => CameraCondition::GREY,
            Self::Gamma => CameraCondition::GAMMA,
            Self::Haze => CameraCondition::HAZE,
            Self::Noise => CameraCondition::NOISE,
            Self::RollingNoise => CameraCondition::ROLLING_NOISE,
            Self::Blur => CameraCondition::BLUR,
            Self::Jpeg20 => CameraCondition::JPEG_20,
        }
    }
}

/// The name on the command line.
impl fmt::Display for Camera {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
