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
    DecodeError, Development, EncodedPhotograph, Image, PixelFormat, RawImage, WhiteBalance, YCbCr,
    YCbCrMatrix,
};

pub use controls::{Control, ControlKind, MenuItem};
pub use devices::{Address, AddressError, VideoDevice};

use super::{Device, DeviceError, Exposure, Setting, Settings, Stream};
use buffers::Buffers;
use devices::Claim;
use ioctl::{Interface, zeroed};

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
    /// How a sensor's samples become a photograph.
    pub samples: Samples,
}

/// How a sensor's samples become a photograph: those behind a Bayer filter, and monochrome ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Samples {
    /// Whether they are proportional to light, and are developed; else they are sRGB already. `None`: as
    /// [`PixelFormat::is_linear`] has it. What drivers say of it is not believed: many of those that give what the sensor
    /// measured call it sRGB.
    pub linear: Option<bool>,
    /// The sample where there is no light.
    pub black_level: u32,
    /// What balances the colours.
    pub white_balance: WhiteBalance,
}

impl Samples {
    /// How frames of a format are developed.
    ///
    /// # Errors
    /// In words: this cannot be done with the format.
    pub fn development(self, format: Option<PixelFormat>) -> Result<Development, String> {
        let depth = format.and_then(PixelFormat::depth);
        let Some((format, depth)) = format.zip(depth) else {
            return if self.linear == Some(true) {
                Err("what the camera gives are no samples of a sensor, which could be linear: leave samples = \"linear\" \
                     out, or ask for another format"
                    .to_owned())
            } else {
                Ok(Development::AsIs)
            };
        };
        if !self.linear.unwrap_or(format.is_linear()) {
            return Ok(Development::AsIs);
        }
        if self.black_level >= depth.largest() {
            let largest = depth.largest();
            return Err(format!(
                "samples of {format} are 0 to {largest}: the black level of {} leaves nothing of them, set a lower one",
                self.black_level
            ));
        }
        Ok(Development::Linear {
            black_level: self.black_level,
            white_balance: self.white_balance,
        })
    }
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
    development: Development,
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
        let interface = capture_interface(&file, &found.path)?
            .ok_or_else(|| unsuitable(&found, "it does not give frames by streaming"))?;
        let given = negotiate(&file, interface, &found, &self.wanted)?;
        let changes = self.settings.changes();
        let refused = controls::make(&file, &self.settings.since(0));
        let buffers = Buffers::start(&file, interface, BUFFERS)
            .map_err(|(doing, source)| system(doing, source))?;
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

/// By which interface a device gives frames into mapped buffers; `None` where it does not.
fn capture_interface(file: &File, path: &str) -> Result<Option<Interface>, DeviceError> {
    let mut capability: sys::v4l2_capability = zeroed();
    ioctl::call(file, vidioc::VIDIOC_QUERYCAP, &mut capability)
        .map_err(|e| system(&format!("asking {path} what it can do"), e))?;
    let can = if capability.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0 {
        capability.device_caps
    } else {
        capability.capabilities
    };
    let interface = if can & sys::V4L2_CAP_VIDEO_CAPTURE != 0 {
        Some(Interface::SinglePlanar)
    } else if can & sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0 {
        Some(Interface::MultiPlanar)
    } else {
        None
    };
    Ok(interface.filter(|_| can & sys::V4L2_CAP_STREAMING != 0))
}

/// What is used of a driver's format, by either interface.
struct Pixels {
    format: [u8; 4],
    size: (u32, u32),
    stride: u32,
    colorspace: u32,
    encoding: u32,
    quantization: u32,
    /// Pieces of memory in which a frame lies.
    planes: u8,
}

impl Pixels {
    fn of(format: &sys::v4l2_format, interface: Interface) -> Self {
        match interface {
            Interface::SinglePlanar => {
                // SAFETY: of the union the driver has filled in `pix`, for single-planar capture was asked for; all of it
                // are numbers, for which any bytes will do.
                let pixels = unsafe { format.fmt.pix };
                Self {
                    format: pixels.pixelformat.to_le_bytes(),
                    size: (pixels.width, pixels.height),
                    stride: pixels.bytesperline,
                    colorspace: pixels.colorspace,
                    // SAFETY: both members of the union are the same number.
                    encoding: unsafe { pixels.__bindgen_anon_1.ycbcr_enc },
                    quantization: pixels.quantization,
                    planes: 1,
                }
            }
            Interface::MultiPlanar => {
                // SAFETY: likewise `pix_mp`, for multi-planar capture was asked for.
                let pixels = unsafe { format.fmt.pix_mp };
                let [first, ..] = pixels.plane_fmt;
                Self {
                    format: pixels.pixelformat.to_le_bytes(),
                    size: (pixels.width, pixels.height),
                    stride: first.bytesperline,
                    colorspace: pixels.colorspace,
                    // SAFETY: as above.
                    encoding: unsafe { pixels.__bindgen_anon_1.ycbcr_enc }.into(),
                    quantization: pixels.quantization.into(),
                    planes: pixels.num_planes,
                }
            }
        }
    }

    /// Puts format and size into a question: whole pictures, not fields of television; rows as long as the driver has
    /// them.
    fn ask(&self, format: &mut sys::v4l2_format, interface: Interface) {
        let fourcc = u32::from_le_bytes(self.format);
        let (width, height) = self.size;
        let field = sys::v4l2_field_V4L2_FIELD_NONE;
        match interface {
            Interface::SinglePlanar => {
                // SAFETY: as in `of`.
                let mut pixels = unsafe { format.fmt.pix };
                (pixels.pixelformat, pixels.width, pixels.height) = (fourcc, width, height);
                (pixels.field, pixels.bytesperline, pixels.sizeimage) = (field, 0, 0);
                format.fmt.pix = pixels;
            }
            Interface::MultiPlanar => {
                // SAFETY: as in `of`.
                let mut pixels = unsafe { format.fmt.pix_mp };
                (pixels.pixelformat, pixels.width, pixels.height) = (fourcc, width, height);
                let mut planes = pixels.plane_fmt;
                for plane in &mut planes {
                    (plane.bytesperline, plane.sizeimage) = (0, 0);
                }
                (pixels.field, pixels.plane_fmt) = (field, planes);
                format.fmt.pix_mp = pixels;
            }
        }
    }

    /// How the driver's Y′CbCr is meant. What a driver leaves open is BT.601, and of limited range unless a JPEG is meant.
    fn colour(&self) -> YCbCr {
        let high_definition = self.colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_REC709;
        let matrix = match self.encoding {
            sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709
            | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709 => YCbCrMatrix::Bt709,
            sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020 => YCbCrMatrix::Bt2020,
            sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT if high_definition => {
                YCbCrMatrix::Bt709
            }
            _ => YCbCrMatrix::Bt601,
        };
        let full_range = match self.quantization {
            sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE => true,
            sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE => false,
            _ => self.colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG,
        };
        YCbCr { matrix, full_range }
    }
}

/// Asks for what is wanted and looks at what is given.
fn negotiate(
    file: &File,
    interface: Interface,
    found: &VideoDevice,
    wanted: &Wanted,
) -> Result<Given, DeviceError> {
    let formats = formats(file, interface);
    let mut format: sys::v4l2_format = zeroed();
    format.type_ = interface.buffer_type();
    ioctl::call(file, vidioc::VIDIOC_G_FMT, &mut format)
        .map_err(|e| system("asking the driver for its format", e))?;
    let mut pixels = Pixels::of(&format, interface);
    let readable = || formats.iter().copied().find(|format| is_read(*format));
    pixels.format = match wanted.format {
        Some(format) => format,
        None if is_read(pixels.format) => pixels.format,
        None => readable().unwrap_or(pixels.format),
    };
    pixels.size = wanted.size.unwrap_or(pixels.size);
    pixels.ask(&mut format, interface);
    ioctl::call(file, vidioc::VIDIOC_S_FMT, &mut format)
        .map_err(|e| system("asking the driver for a format", e))?;
    let pixels = Pixels::of(&format, interface);
    if let Some(why) = not_read(&pixels) {
        let offered: Vec<String> = formats.into_iter().map(named).collect();
        let offered = offered.join(", ");
        return Err(unsuitable(found, format!("{why}; it offers {offered}")));
    }
    let development = wanted
        .samples
        .development(PixelFormat::from_four_characters(pixels.format))
        .map_err(|why| unsuitable(found, why))?;
    Ok(Given {
        format: pixels.format,
        width: pixels.size.0,
        height: pixels.size.1,
        stride: pixels.stride,
        rate: set_rate(file, interface, wanted.rate),
        colour: pixels.colour(),
        development,
    })
}

/// Why frames that a driver gives cannot be read; `None` where they can.
fn not_read(pixels: &Pixels) -> Option<String> {
    let format = four_characters(pixels.format);
    if !is_read(pixels.format) {
        Some(format!("gives {format}, which is not read"))
    } else if pixels.planes != 1 {
        Some(format!(
            "gives {format} in {} pieces of memory, which is not read: ask for a format whose frames lie in one",
            pixels.planes
        ))
    } else {
        None
    }
}

/// With a mark where it cannot be asked for.
fn named(format: [u8; 4]) -> String {
    let mark = if is_read(format) { "" } else { " (not read)" };
    four_characters(format) + mark
}

/// Asks for a rate where one is wanted; returns that which is given, where the driver knows it.
fn set_rate(file: &File, interface: Interface, wanted: Option<f64>) -> Option<f64> {
    let mut parameters: sys::v4l2_streamparm = zeroed();
    parameters.type_ = interface.buffer_type();
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

fn is_read(format: [u8; 4]) -> bool {
    JPEG_FORMATS.contains(&format) || PixelFormat::from_four_characters(format).is_some()
}

/// What a driver offers, as four characters each.
fn formats(file: &File, interface: Interface) -> Vec<[u8; 4]> {
    // No driver has a thousand; one that does not come to an end is cut off.
    let format = |index| {
        let mut description: sys::v4l2_fmtdesc = zeroed();
        (description.type_, description.index) = (interface.buffer_type(), index);
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
            development,
            ..
        } = self.given;
        match PixelFormat::from_four_characters(self.given.format) {
            Some(format) => {
                let stride = stride as usize;
                let raw = RawImage::new(format, (width, height), stride, bytes, colour)?;
                Ok(raw.developed(development).into())
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
        let interface = capture_interface(&file, &device.path)?;
        Ok((file, interface))
    });
    let (usable, formats, controls) = match opened {
        Ok((_, None)) => return None,
        Ok((file, Some(interface))) => {
            let offered = formats(&file, interface).into_iter();
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

#[cfg(test)]
mod tests {
    use recognition::pixels::WhiteBalance;

    use super::*;

    #[test]
    fn what_lies_in_several_pieces_is_refused_in_words() {
        let pixels = |format: &[u8; 4], planes| Pixels {
            format: *format,
            size: (640, 480),
            stride: 640,
            colorspace: 0,
            encoding: 0,
            quantization: 0,
            planes,
        };
        assert_eq!(not_read(&pixels(b"NV12", 1)), None);
        let said = not_read(&pixels(b"NV12", 2)).unwrap();
        assert!(
            said.contains("in 2 pieces of memory") && said.contains("ask for"),
            "{said}"
        );
        let said = not_read(&pixels(b"NM12", 2)).unwrap();
        assert_eq!(said, "gives NM12, which is not read");
    }

    #[test]
    fn samples_are_developed_where_a_sensor_gave_them() {
        let format = |name: &[u8; 4]| PixelFormat::from_four_characters(*name);
        let own = Samples {
            black_level: 64,
            white_balance: WhiteBalance::Gains([2.0, 1.0, 1.5]),
            ..Samples::default()
        };
        let linear = Development::Linear {
            black_level: own.black_level,
            white_balance: own.white_balance,
        };
        for name in [b"RG10", b"BA81", b"pRAA", b"Y10 ", b"Y12 ", b"Y10B"] {
            assert_eq!(own.development(format(name)), Ok(linear));
            let srgb = Samples {
                linear: Some(false),
                ..own
            };
            assert_eq!(srgb.development(format(name)), Ok(Development::AsIs));
        }
        let forced = Samples {
            linear: Some(true),
            ..own
        };
        assert_eq!(own.development(format(b"GREY")), Ok(Development::AsIs));
        assert_eq!(forced.development(format(b"GREY")), Ok(linear));
        for name in [b"YUYV", b"RGB3", b"MJPG"] {
            assert_eq!(own.development(format(name)), Ok(Development::AsIs));
            let said = forced.development(format(name)).unwrap_err();
            assert!(said.contains("samples = \"linear\""), "{said}");
        }
        let black = Samples {
            black_level: 1023,
            ..own
        };
        let said = black.development(format(b"RG10")).unwrap_err();
        assert!(
            said.contains("0 to 1023") && said.contains("lower"),
            "{said}"
        );
    }
}
