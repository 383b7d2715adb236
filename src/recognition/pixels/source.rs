use super::{DecodeError, EncodedPhotograph, Faults, Photograph, RawImage};
use crate::geometry::Rectangle;

/// A frame as its source gave it.
#[derive(Debug)]
pub enum Image {
    /// The bytes of a JPEG, PNG or TIFF.
    Encoded(EncodedPhotograph),
    /// Uncompressed, as a sensor or its driver gives it.
    Raw(RawImage),
    /// In RGB already.
    Decoded(Photograph),
}

impl Image {
    /// The same, borrowed.
    pub fn as_ref(&self) -> ImageRef<'_> {
        match self {
            Self::Encoded(photograph) => ImageRef::Encoded(photograph),
            Self::Raw(image) => ImageRef::Raw(image),
            Self::Decoded(photograph) => ImageRef::Decoded(photograph),
        }
    }

    /// Width and height of the upright frame at full size, in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.as_ref().size()
    }

    /// What is wrong with it, as far as decoding has found out.
    pub fn faults(&self) -> Faults {
        self.as_ref().faults()
    }

    /// All of it; see [`ImageRef::decode_part`].
    ///
    /// # Errors
    /// As of `decode_part`.
    pub fn decode(&self, least_scale: f64) -> Result<Photograph, DecodeError> {
        let (width, height) = self.size();
        self.decode_part(&Rectangle::of_image(width, height), least_scale)
    }

    /// See [`ImageRef::decode_part`].
    ///
    /// # Errors
    /// As of that.
    pub fn decode_part(
        &self,
        part: &Rectangle,
        least_scale: f64,
    ) -> Result<Photograph, DecodeError> {
        self.as_ref().decode_part(part, least_scale)
    }
}

impl From<EncodedPhotograph> for Image {
    fn from(photograph: EncodedPhotograph) -> Self {
        Self::Encoded(photograph)
    }
}

impl From<RawImage> for Image {
    fn from(image: RawImage) -> Self {
        Self::Raw(image)
    }
}

impl From<Photograph> for Image {
    fn from(photograph: Photograph) -> Self {
        Self::Decoded(photograph)
    }
}

/// A borrowed [`Image`].
#[derive(Clone, Copy, Debug)]
pub enum ImageRef<'a> {
    /// The bytes of a JPEG, PNG or TIFF.
    Encoded(&'a EncodedPhotograph),
    /// Uncompressed.
    Raw(&'a RawImage),
    /// In RGB already.
    Decoded(&'a Photograph),
}

impl<'a> ImageRef<'a> {
    /// Width and height of the upright frame at full size, in pixels.
    pub fn size(self) -> (u32, u32) {
        match self {
            Self::Encoded(photograph) => photograph.size(),
            Self::Raw(image) => image.size(),
            Self::Decoded(photograph) => (photograph.frame_width, photograph.frame_height),
        }
    }

    /// The part of the upright frame that has pixels, as far as decoding has found out.
    pub fn readable(self) -> Rectangle {
        match self {
            Self::Encoded(photograph) => photograph.readable(),
            Self::Raw(_) | Self::Decoded(_) => {
                let (width, height) = self.size();
                Rectangle::of_image(width, height)
            }
        }
    }

    /// What is wrong with it, as far as decoding has found out.
    pub fn faults(self) -> Faults {
        match self {
            Self::Encoded(photograph) => photograph.faults(),
            Self::Raw(_) | Self::Decoded(_) => Faults::default(),
        }
    }

    /// Whether [`decode_part`](Self::decode_part) does less for a part than for the whole.
    pub fn is_decoded_in_part(self) -> bool {
        match self {
            Self::Encoded(photograph) => photograph.is_decoded_in_part(),
            Self::Raw(_) => true,
            Self::Decoded(_) => false,
        }
    }

    /// At least the `part`, in pixels of the upright frame at full size, that lies within the frame and is
    /// [readable](Self::readable), at the smallest of the scales 1, 1/2, 1/4 and 1/8 that is not below `least_scale`.
    /// What is decoded already is given as it is.
    ///
    /// # Errors
    /// It is damaged, of an unsupported kind, or takes too much memory at this scale.
    pub fn decode_part(
        self,
        part: &Rectangle,
        least_scale: f64,
    ) -> Result<Photograph, DecodeError> {
        match self {
            Self::Encoded(photograph) => photograph.decode_part(part, least_scale),
            Self::Raw(image) => image.decode_part(part, least_scale),
            Self::Decoded(photograph) => Ok(photograph.clone()),
        }
    }

    /// What is there without decoding.
    pub fn decoded(self) -> Option<&'a Photograph> {
        match self {
            Self::Decoded(photograph) => Some(photograph),
            Self::Encoded(_) | Self::Raw(_) => None,
        }
    }
}
