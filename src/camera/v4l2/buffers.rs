use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ::v4l::v4l_sys as sys;
use ::v4l::v4l2::vidioc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ioctl::{Interface, Planes, call, call_buffer, zeroed};
use crate::camera::Exposure;

/// Memory that a driver shares with us.
struct Mapped {
    start: *mut std::ffi::c_void,
    length: usize,
}

// SAFETY: the memory belongs to this value alone, wherever it is.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(file: &File, Extent { offset, length }: Extent) -> io::Result<Self> {
        // SAFETY: new memory for which the system finds a place; `offset` is what the driver gave for this buffer.
        let start = unsafe {
            ::v4l::v4l2::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset.into(),
            )
        }?;
        Ok(Self { start, length })
    }

    /// A copy of what a driver has put there; of what would lie beyond the end, nothing.
    fn copy(&self, bytes: Range<usize>) -> Vec<u8> {
        let start = bytes.start.min(self.length);
        let length = bytes.end.min(self.length).saturating_sub(start);
        let mut copy = Vec::with_capacity(length);
        // SAFETY: so many bytes are mapped and there is room for them; the driver has handed the buffer over and does not
        // write to it until it is queued again. Should a broken one do so, any bytes are valid.
        unsafe {
            let from = self.start.cast::<u8>().add(start);
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), length);
            copy.set_len(length);
        }
        copy
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more. Where it fails the memory stays mapped.
        let _ = unsafe { ::v4l::v4l2::munmap(self.start, self.length) };
    }
}

/// Where a buffer lies in what a device has for mapping.
struct Extent {
    offset: u32,
    length: usize,
}

impl Extent {
    fn of(interface: Interface, buffer: &sys::v4l2_buffer, planes: &Planes) -> Self {
        match interface {
            Interface::SinglePlanar => Self {
                // SAFETY: of mapped buffers the driver has filled in the offset, a number.
                offset: unsafe { buffer.m.offset },
                length: buffer.length as usize,
            },
            Interface::MultiPlanar => Self {
                // SAFETY: as above.
                offset: unsafe { planes[0].m.mem_offset },
                length: planes[0].length as usize,
            },
        }
    }
}

/// Buffers that a driver fills with frames, streaming until they are dropped.
pub(super) struct Buffers {
    interface: Interface,
    mapped: Vec<Mapped>,
    /// A handle of its own on the open device, to end streaming by.
    file: File,
}

/// What was being done, and what the system said.
type Failure = (&'static str, io::Error);

impl Buffers {
    /// Begins to stream.
    pub fn start(file: &File, interface: Interface, count: u32) -> Result<Self, Failure> {
        let at = |doing| move |e| (doing, e);
        let mut buffers = Self {
            interface,
            mapped: Vec::new(),
            file: file.try_clone().map_err(at("opening the device"))?,
        };
        let mut request = requested(interface, count);
        call(file, vidioc::VIDIOC_REQBUFS, &mut request)
            .map_err(at("asking the driver for buffers"))?;
        for index in 0..request.count {
            let (buffer, planes) = call_buffer(file, vidioc::VIDIOC_QUERYBUF, interface, index)
                .map_err(at("asking the driver for a buffer"))?;
            let extent = Extent::of(interface, &buffer, &planes);
            let mapped = Mapped::new(file, extent).map_err(at("mapping a buffer"))?;
            buffers.mapped.push(mapped);
        }
        for index in 0..request.count {
            queue(file, interface, index).map_err(at("giving the driver a buffer"))?;
        }
        if buffers.mapped.is_empty() {
            let none = io::Error::from(io::ErrorKind::OutOfMemory);
            return Err(("asking the driver for buffers", none));
        }
        let mut kind = interface.buffer_type();
        call(file, vidioc::VIDIOC_STREAMON, &mut kind).map_err(at("starting the camera"))?;
        Ok(buffers)
    }

    /// The next frame, waited for no longer than `timeout`, and whether its buffer could be given back to the driver.
    pub fn take(
        &self,
        file: &File,
        timeout: Duration,
    ) -> io::Result<Option<(Exposure, io::Result<()>)>> {
        let mut waiting = [PollFd::new(file, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut waiting, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let events = waiting[0].revents();
        let (buffer, planes) = match call_buffer(file, vidioc::VIDIOC_DQBUF, self.interface, 0) {
            Ok(taken) => taken,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // The driver has no frame and never will have one.
                if events.intersects(PollFlags::ERR | PollFlags::HUP) {
                    return Err(io::Error::other("the driver reports an error"));
                }
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let Some(mapped) = self.mapped.get(buffer.index as usize) else {
            return Err(io::Error::other(
                "the driver gave a buffer that is not ours",
            ));
        };
        let filled = match self.interface {
            Interface::SinglePlanar => 0..buffer.bytesused,
            // The bytes in use count from the plane's beginning.
            Interface::MultiPlanar => planes[0].data_offset..planes[0].bytesused,
        };
        let bytes = mapped.copy(filled.start as usize..filled.end as usize);
        let exposure = Exposure {
            flagged: buffer.flags & sys::V4L2_BUF_FLAG_ERROR != 0 || bytes.is_empty(),
            bytes,
            sequence: buffer.sequence,
            stamp: stamp(&buffer),
        };
        Ok(Some((exposure, queue(file, self.interface, buffer.index))))
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // A device that is gone refuses all of this, and needs none of it.
        let mut kind = self.interface.buffer_type();
        let _ = call(&self.file, vidioc::VIDIOC_STREAMOFF, &mut kind);
        self.mapped.clear();
        let mut request = requested(self.interface, 0);
        let _ = call(&self.file, vidioc::VIDIOC_REQBUFS, &mut request);
    }
}

fn requested(interface: Interface, count: u32) -> sys::v4l2_requestbuffers {
    let mut request: sys::v4l2_requestbuffers = zeroed();
    request.count = count;
    request.type_ = interface.buffer_type();
    request.memory = sys::v4l2_memory_V4L2_MEMORY_MMAP;
    request
}

fn queue(file: &File, interface: Interface, index: u32) -> io::Result<()> {
    call_buffer(file, vidioc::VIDIOC_QBUF, interface, index).map(drop)
}

/// When the frame was taken, where the driver says so by the monotonic clock.
fn stamp(buffer: &sys::v4l2_buffer) -> Option<Duration> {
    let clock = buffer.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK;
    if clock != sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC {
        return None;
    }
    let seconds = u64::try_from(buffer.timestamp.tv_sec).ok()?;
    let microseconds = u32::try_from(buffer.timestamp.tv_usec).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(microseconds.into()))
}
