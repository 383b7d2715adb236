//! Video devices of Linux, as `v4l2` gives them: webcams and capture cards on USB, machine vision cameras, the CSI
//! cameras of a Jetson.
//!
//! A device is named by where it is plugged in or by its serial number, never by `/dev/videoN`: those numbers are given
//! anew at each start. It is opened non-blocking and waited for with a time limit. [`list`] says what there is.
//!
//! The constants, structures and calls of the kernel come from the crate `v4l`. Its own stream and device are not
//! used: they fail after a time-out, and panic where a device that was pulled out cannot be closed in order, or describes
//! a control or a colour space in a way that they do not know.

mod buffers;
mod controls;
mod devices;
mod ioctl;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::v4l::v4l_sys as sys;
use ::v4l::v4l2::vidioc;
use recognition::pixels::{
    DecodeError, EncodedPhotograph, Image, PixelFormat, RawImage, YCbCr, YCbCrMatrix,
};

pub use controls::{Control, ControlKind, MenuItem};
pub use devices::{Address, AddressError, VideoDevice};

use super::{Device, DeviceError, Exposure, Setting, Settings, Stream};
use buffers::Buffers;
use devices::Claim;
use ioctl::zeroed;

/// Where Linux describes its devices.
const SYSFS: &str = "/sys";
const DEV: &str = "/dev";

/// Buffers that the driver fills while we look at others.
const BUFFERS: u32 = 4;

const JPEG_FORMATS: [[u8; 4]; 2] = [*b"MJPG", *b"JPEG"];

/// What a camera is asked for; what is `None` stays as the driver has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Four characters, such as `MJPG`, `YUYV` or `RG12`.
    pub format: Option<[u8; 4]>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Frames a second.
    pub rate: Option<f64>,
    /// Settings by name, in the order in which they are made.
    pub settings: Vec<(String, Setting)>,
}

/// What a driver gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Four characters.
    pub format: [u8; 4],
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Bytes from the beginning of a row to that of the next; 0 for JPEGs.
    pub stride: u32,
    /// Frames a second, where the driver says.
    pub rate: Option<f64>,
    colour: YCbCr,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = four_characters(self.format);
        write!(f, "{format} {} × {}", self.width, self.height)?;
        if let Some(rate) = self.rate {
            write!(f, " at {rate:.1} a second")?;
        }
        Ok(())
    }
}

fn four_characters(format: [u8; 4]) -> String {
    let printable = |byte: u8| {
        if byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            ' '
        }
    };
    let text: String = format.map(printable).into_iter().collect();
    text.trim_end().to_owned()
}

/// A video device, opened by [`Live`](super::Live).
pub struct V4l2Device {
    address: Address,
    wanted: Wanted,
    settings: Settings,
}

impl V4l2Device {
    /// Nothing is opened yet.
    pub fn new(address: Address, wanted: Wanted) -> Self {
        let settings = Settings::default();
        for (name, setting) in &wanted.settings {
            settings.set(name, setting.clone());
        }
        Self {
            address,
            wanted,
            settings,
        }
    }
}

impl Device for V4l2Device {
    type Stream = V4l2Stream;

    fn settings(&self) -> Option<Settings> {
        Some(self.settings.clone())
    }

    fn open(&mut self) -> Result<V4l2Stream, DeviceError> {
        let found = self.address.find(Path::new(SYSFS), Path::new(DEV))?;
        let claim = Claim::of(&found)?;
        let file = found.open()?;
        let capture = capture_capabilities(&file, &found.path)?;
        if !capture {
            return Err(unsuitable(&found, "it does not give frames by streaming"));
        }
        let given = negotiate(&file, &found, &self.wanted)?;
        let changes = self.settings.changes();
        let refused = controls::make(&file, &self.settings.since(0));
        let buffers =
            Buffers::start(&file, BUFFERS).map_err(|(doing, source)| system(doing, source))?;
        Ok(V4l2Stream {
            buffers,
            file,
            asked: asked(&self.wanted),
            given,
            settings: self.settings.clone(),
            changes,
            refused,
            failed: None,
            _claim: claim,
        })
    }
}

fn unsuitable(found: &VideoDevice, reason: impl Into<String>) -> DeviceError {
    DeviceError::Unsuitable {
        device: found.path.clone(),
        reason: reason.into(),
    }
}

fn system(doing: &str, source: std::io::Error) -> DeviceError {
    DeviceError::System {
        doing: doing.to_owned(),
        source,
    }
}

/// Whether a device gives frames into mapped buffers.
fn capture_capabilities(file: &File, path: &str) -> Result<bool, DeviceError> {
    let mut capability: sys::v4l2_capability = zeroed();
    ioctl::call(file, vidioc::VIDIOC_QUERYCAP, &mut capability)
        .map_err(|e| system(&format!("asking {path} what it can do"), e))?;
    let can = if capability.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0 {
        capability.device_caps
    } else {
        capability.capabilities
    };
    let needed = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_STREAMING;
    Ok(can & needed == needed)
}

/// Asks for what is wanted and looks at what is given.
fn negotiate(file: &File, found: &VideoDevice, wanted: &Wanted) -> Result<Given, DeviceError> {
    let formats = formats(file);
    let mut format: sys::v4l2_format = zeroed();
    format.type_ = ioctl::CAPTURE;
    ioctl::call(file, vidioc::VIDIOC_G_FMT, &mut format)
        .map_err(|e| system("asking the driver for its format", e))?;
    // SAFETY: of the union the driver has filled in `pix`, for single-planar capture was asked for; all of it are
    // numbers, for which any bytes will do.
    let mut pixels = unsafe { format.fmt.pix };
    pixels.pixelformat = match wanted.format {
        Some(format) => u32::from_le_bytes(format),
        None => {
            let present = pixels.pixelformat.to_le_bytes();
            let readable = formats.iter().copied().find(|format| is_read(*format));
            let choice = if is_read(present) {
                present
            } else {
                readable.unwrap_or(present)
            };
            u32::from_le_bytes(choice)
        }
    };
    if let Some((width, height)) = wanted.size {
        (pixels.width, pixels.height) = (width, height);
    }
    // Whole pictures, not fields of television; rows as long as the driver has them.
    pixels.field = sys::v4l2_field_V4L2_FIELD_NONE;
    (pixels.bytesperline, pixels.sizeimage) = (0, 0);
    format.fmt.pix = pixels;
    ioctl::call(file, vidioc::VIDIOC_S_FMT, &mut format)
        .map_err(|e| system("asking the driver for a format", e))?;
    // SAFETY: as above.
    let pixels = unsafe { format.fmt.pix };
    let given = pixels.pixelformat.to_le_bytes();
    if !is_read(given) {
        let offered: Vec<String> = formats.into_iter().map(four_characters).collect();
        return Err(unsuitable(
            found,
            format!(
                "gives {}, which is not read; it offers {}",
                four_characters(given),
                offered.join(", ")
            ),
        ));
    }
    Ok(Given {
        format: given,
        width: pixels.width,
        height: pixels.height,
        stride: pixels.bytesperline,
        rate: set_rate(file, wanted.rate),
        colour: colour(&pixels),
    })
}

/// Asks for a rate where one is wanted; returns that which is given, where the driver knows it.
fn set_rate(file: &File, wanted: Option<f64>) -> Option<f64> {
    let mut parameters: sys::v4l2_streamparm = zeroed();
    parameters.type_ = ioctl::CAPTURE;
    ioctl::call(file, vidioc::VIDIOC_G_PARM, &mut parameters).ok()?;
    if let Some(rate) = wanted {
        let interval = sys::v4l2_fract {
            numerator: 1000,
            denominator: (1000.0 * rate).round().clamp(1.0, 1e9) as u32,
        };
        parameters.parm.capture.timeperframe = interval;
        ioctl::call(file, vidioc::VIDIOC_S_PARM, &mut parameters).ok()?;
    }
    // SAFETY: of the union the driver has filled in `capture`; these are numbers.
    let interval = unsafe { parameters.parm.capture.timeperframe };
    let rate = f64::from(interval.denominator) / f64::from(interval.numerator);
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

/// How the driver's Y′CbCr is meant. What a driver leaves open is BT.601, and of limited range unless a JPEG is meant.
fn colour(pixels: &sys::v4l2_pix_format) -> YCbCr {
    // SAFETY: both members of the union are the same number.
    let encoding = unsafe { pixels.__bindgen_anon_1.ycbcr_enc };
    let high_definition = pixels.colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_REC709;
    let matrix = match encoding {
        sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709
        | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709 => YCbCrMatrix::Bt709,
        sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020 => YCbCrMatrix::Bt2020,
        sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT if high_definition => YCbCrMatrix::Bt709,
        _ => YCbCrMatrix::Bt601,
    };
    let full_range = match pixels.quantization {
        sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE => true,
        sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE => false,
        _ => pixels.colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG,
    };
    YCbCr { matrix, full_range }
}

fn is_read(format: [u8; 4]) -> bool {
    JPEG_FORMATS.contains(&format) || PixelFormat::from_four_characters(format).is_some()
}

/// What a driver offers, as four characters each.
fn formats(file: &File) -> Vec<[u8; 4]> {
    // No driver has a thousand; one that does not come to an end is cut off.
    let format = |index| {
        let mut description: sys::v4l2_fmtdesc = zeroed();
        (description.type_, description.index) = (ioctl::CAPTURE, index);
        ioctl::call(file, vidioc::VIDIOC_ENUM_FMT, &mut description).ok()?;
        Some(description.pixelformat.to_le_bytes())
    };
    (0..1000).map_while(format).collect()
}

/// Sizes that a driver offers in a format, in words.
fn sizes(file: &File, format: [u8; 4]) -> Vec<String> {
    let size = |index| {
        let mut size: sys::v4l2_frmsizeenum = zeroed();
        (size.index, size.pixel_format) = (index, u32::from_le_bytes(format));
        ioctl::call(file, vidioc::VIDIOC_ENUM_FRAMESIZES, &mut size).ok()?;
        // SAFETY: the type says which member of the union the driver has filled in; they are numbers.
        Some(unsafe {
            if size.type_ == sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
                let size = size.__bindgen_anon_1.discrete;
                format!("{} × {}", size.width, size.height)
            } else {
                let s = size.__bindgen_anon_1.stepwise;
                format!(
                    "{} × {} to {} × {}",
                    s.min_width, s.min_height, s.max_width, s.max_height
                )
            }
        })
    };
    let mut sizes: Vec<String> = (0..256).map_while(size).collect();
    sizes.dedup();
    sizes
}

/// In words, what is wanted.
fn asked(wanted: &Wanted) -> String {
    let mut words = Vec::new();
    words.extend(wanted.format.map(four_characters));
    words.extend(
        wanted
            .size
            .map(|(width, height)| format!("{width} × {height}")),
    );
    words.extend(wanted.rate.map(|rate| format!("at {rate:.1} a second")));
    words.join(" ")
}

/// An open video device.
pub struct V4l2Stream {
    /// Unmapped before the file is closed.
    buffers: Buffers,
    file: File,
    asked: String,
    given: Given,
    settings: Settings,
    /// The last change of settings that was made.
    changes: u64,
    /// Settings that could not be made, by name, and why.
    refused: BTreeMap<String, String>,
    /// Why the next frame will not come, found out while this one was taken.
    failed: Option<DeviceError>,
    _claim: Claim,
}

impl V4l2Stream {
    /// What the driver gives.
    pub fn given(&self) -> &Given {
        &self.given
    }
}

impl Stream for V4l2Stream {
    fn next(&mut self, timeout: Duration) -> Result<Option<Exposure>, DeviceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let changes = self.settings.changes();
        if changes != self.changes {
            let wanted = self.settings.since(self.changes);
            for (name, _) in &wanted {
                self.refused.remove(name);
            }
            self.refused.extend(controls::make(&self.file, &wanted));
            self.changes = changes;
        }
        let Some((exposure, queued)) = self
            .buffers
            .take(&self.file, timeout)
            .map_err(|e| system("waiting for a frame", e))?
        else {
            return Ok(None);
        };
        // The frame is good all the same.
        self.failed = queued
            .err()
            .map(|e| system("giving a buffer back to the driver", e));
        Ok(Some(exposure))
    }

    fn image(&self, bytes: Vec<u8>) -> Result<Image, DecodeError> {
        let Given {
            width,
            height,
            stride,
            colour,
            ..
        } = self.given;
        match PixelFormat::from_four_characters(self.given.format) {
            Some(format) => {
                Ok(RawImage::new(format, (width, height), stride as usize, bytes, colour)?.into())
            }
            None => Ok(EncodedPhotograph::from_bytes(bytes)?
                .accepting_incomplete()
                .into()),
        }
    }

    fn format(&self) -> String {
        if self.asked.is_empty() {
            self.given.to_string()
        } else {
            format!("{} (asked for: {})", self.given, self.asked)
        }
    }

    fn period(&self) -> Option<Duration> {
        let rate = self.given.rate.filter(|rate| *rate > 1e-3)?;
        Some(Duration::from_secs_f64(1.0 / rate))
    }

    fn complaint(&self) -> Option<String> {
        let said = self
            .refused
            .iter()
            .map(|(name, why)| format!("{name}: {why}"));
        (!self.refused.is_empty()).then(|| said.collect::<Vec<_>>().join("; "))
    }
}

/// A device that gives frames, with what it offers.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The device.
    pub device: VideoDevice,
    /// Whether it can be used; else why not.
    pub usable: Result<(), String>,
    /// What it offers: four characters, whether they are read, and the sizes in words.
    pub formats: Vec<(String, bool, Vec<String>)>,
    /// Its controls.
    pub controls: Vec<Control>,
}

/// The video devices of this machine that give frames, and those that cannot be looked at.
///
/// # Errors
/// The system's list cannot be read.
pub fn list() -> std::io::Result<Vec<Listed>> {
    let devices = VideoDevice::all(Path::new(SYSFS), Path::new(DEV))?;
    Ok(devices.into_iter().filter_map(look_at).collect())
}

/// `None` for a device that gives no frames.
fn look_at(device: VideoDevice) -> Option<Listed> {
    let opened = device.open().and_then(|file| {
        let captures = capture_capabilities(&file, &device.path)?;
        Ok((file, captures))
    });
    let (usable, formats, controls) = match opened {
        Ok((_, false)) => return None,
        Ok((file, true)) => {
            let offered = formats(&file).into_iter();
            let offered = offered.map(|f| (four_characters(f), is_read(f), sizes(&file, f)));
            (Ok(()), offered.collect(), controls::list(&file))
        }
        Err(error) => (Err(error.to_string()), Vec::new(), Vec::new()),
    };
    Some(Listed {
        device,
        usable,
        formats,
        controls,
    })
}

/// Where a node lies.
fn node(dev: &Path, name: &str) -> PathBuf {
    dev.join(name)
}
