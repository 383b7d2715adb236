use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ::v4l::v4l_sys as sys;
use ::v4l::v4l2::vidioc::_IOC_TYPE;

/// By which of its two interfaces a driver gives frames. Of both, frames that lie in one piece of memory are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    /// Frames lie in one piece.
    SinglePlanar,
    /// Frames may lie in several pieces, their planes: as drivers of cameras in systems on a chip have it.
    MultiPlanar,
}

impl Interface {
    /// What formats, buffers and streaming are called in questions to the driver.
    pub fn buffer_type(self) -> u32 {
        match self {
            Self::SinglePlanar => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
            Self::MultiPlanar => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
        }
    }
}

/// As many planes as a frame can have.
pub(super) type Planes = [sys::v4l2_plane; sys::VIDEO_MAX_PLANES as usize];

/// The kernel's structures of `videodev2.h`, in which any bytes are valid.
///
/// # Safety
/// Only for structures of numbers, arrays and unions of these, and pointers; and of pointers only where the kernel follows
/// none of them, whatever the request that the structure is for.
pub(super) unsafe trait Plain {}

macro_rules! plain {
    ($($structure:ty),+ $(,)?) => {
        // SAFETY: they are as the trait says.
        $(unsafe impl Plain for $structure {})+
    };
}

plain!(
    sys::v4l2_capability,
    sys::v4l2_control,
    sys::v4l2_fmtdesc,
    sys::v4l2_format,
    sys::v4l2_frmsizeenum,
    sys::v4l2_plane,
    sys::v4l2_queryctrl,
    sys::v4l2_querymenu,
    sys::v4l2_requestbuffers,
    sys::v4l2_streamparm,
    // The kind of buffers, of which streaming begins and ends.
    u32,
);

/// A structure of zeros, with which a question to the kernel begins.
pub(super) fn zeroed<T: Plain>() -> T {
    // SAFETY: zeros are valid in it.
    unsafe { std::mem::zeroed() }
}

/// Asks the driver; a signal that comes in between does not end it.
///
/// `request` is one whose argument is a `T`: its size is part of the number, and is compared.
pub(super) fn call<T: Plain>(file: &File, request: _IOC_TYPE, argument: &mut T) -> io::Result<()> {
    // SAFETY: the structure holds no pointer that the kernel follows.
    unsafe { submit(file, request, argument) }
}

/// Asks the driver about a buffer: the one of this index, or whichever is ready. What it says of the buffer's planes
/// comes with the answer; a driver with one plane says it in the buffer alone.
pub(super) fn call_buffer(
    file: &File,
    request: _IOC_TYPE,
    interface: Interface,
    index: u32,
) -> io::Result<(sys::v4l2_buffer, Planes)> {
    let mut planes: Planes = std::array::from_fn(|_| zeroed());
    // SAFETY: it is made of numbers, unions of these, and pointers, of all of which zeros are valid.
    let mut buffer: sys::v4l2_buffer = unsafe { std::mem::zeroed() };
    buffer.index = index;
    buffer.type_ = interface.buffer_type();
    buffer.memory = sys::v4l2_memory_V4L2_MEMORY_MMAP;
    if interface == Interface::MultiPlanar {
        buffer.length = planes.len() as u32;
        buffer.m.planes = planes.as_mut_ptr();
    }
    // SAFETY: of a buffer of many planes the kernel reads and writes `length` of them at `m.planes`, which is where `planes`
    // lies; of a buffer of one plane it follows no pointer.
    unsafe { submit(file, request, &mut buffer) }?;
    Ok((buffer, planes))
}

/// # Safety
/// Where the kernel follows pointers in `argument`, what they lead to must be there for it to read and write.
unsafe fn submit<T>(file: &File, request: _IOC_TYPE, argument: &mut T) -> io::Result<()> {
    let size = (request >> 16) & 0x3fff;
    assert_eq!(size as usize, size_of::<T>(), "another structure is meant");
    loop {
        // SAFETY: the file is open, and the kernel reads and writes as many bytes as the request says, which are those
        // of `argument`, where any that it writes are valid; and what the caller has seen to.
        let done = unsafe {
            ::v4l::v4l2::ioctl(
                file.as_raw_fd(),
                request,
                std::ptr::from_mut(argument).cast(),
            )
        };
        match done {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
