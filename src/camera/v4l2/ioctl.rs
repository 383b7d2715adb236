use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ::v4l::v4l_sys as sys;
use ::v4l::v4l2::vidioc::_IOC_TYPE;

/// The kind of buffers and formats that are used: frames in one plane.
pub(super) const CAPTURE: u32 = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;

/// The kernel's structures of `videodev2.h`, in which any bytes are valid.
///
/// # Safety
/// Only for structures of numbers, arrays and unions of these, and pointers.
pub(super) unsafe trait Plain {}

macro_rules! plain {
    ($($structure:ty),+ $(,)?) => {
        // SAFETY: they are as the trait says.
        $(unsafe impl Plain for $structure {})+
    };
}

plain!(
    sys::v4l2_buffer,
    sys::v4l2_capability,
    sys::v4l2_control,
    sys::v4l2_fmtdesc,
    sys::v4l2_format,
    sys::v4l2_frmsizeenum,
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
    let size = (request >> 16) & 0x3fff;
    assert_eq!(size as usize, size_of::<T>(), "another structure is meant");
    loop {
        // SAFETY: the file is open, and the kernel reads and writes as many bytes as the request says, which are those
        // of `argument`; any that it writes are valid there.
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
