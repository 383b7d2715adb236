//! From the bytes of a photograph to a network's input. The only place where pixels become tensors:
//! flight and training both prepare a network's input by the functions of this room.
//!
//! Owns which files are photographs ([`Folder`]), decoding ([`Image`]: [`EncodedPhotograph`], [`RawImage`], [`Photograph`]),
//! resampling ([`warp`]), normalisation ([`write_input`], [`prepare`]), and what other cameras would have
//! made of a picture ([`CameraCondition`]). Knows neither networks nor heads: which transform to use is said by
//! [`geometry`](crate::geometry), whose coordinate convention holds here too.

mod camera_conditions;
mod decode;
mod development;
mod faults;
mod folder;
mod jpeg;
mod jpeg_eighth;
mod raw;
mod raw_image;
mod sensor_samples;
mod source;
mod taken;
mod tensor;
mod tiff_directory;
mod tiff_ycbcr;
mod warp;

pub use camera_conditions::{CameraCondition, SensorNoise};
pub use decode::{
    DecodeError, EncodedPhotograph, MAX_DECODED_BYTES, MAX_FILE_BYTES, MAX_PIXELS, Photograph,
};
pub use development::{Development, WhiteBalance};
pub use faults::{Faults, Incomplete};
pub use folder::{Folder, READ_ENDINGS, is_photograph};
pub use raw_image::{BayerOrder, PixelFormat, RawImage, YCbCr, YCbCrMatrix};
pub use sensor_samples::Depth;
pub use source::{Image, ImageRef};
pub use taken::{Place, Taken};
pub use tensor::{
    EncodeError, OUTSIDE_FRAME, OUTSIDE_HEAD_PHOTOGRAPH, encode_jpeg, prepare, prepare_views,
    reduce_to_fit, write_input,
};
pub use warp::{warp, warp_views};
