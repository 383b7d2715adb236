//! Where the aircraft is and how it lies in the air, and where on the sea a pixel of a frame is.
//!
//! - [`Gpsd`]: a client of gpsd's JSON protocol (gpsd_json(5)), on a thread of its own.
//! - [`History`]: fixes and attitudes of the last minutes by the monotonic clock; [`History::at`] interpolates.
//! - [`Mounting`]: how a camera sits in the airframe, and its lens and sensor.
//! - `georeference`: pixel → latitude, longitude, uncertainty, and back; footprints; lengths. Pure.
//!
//! Axes of the airframe: forward, right, down. Angles are those of aviation: roll with the right side down, pitch with
//! the nose up, heading and yaw clockwise from above are positive.

mod georeference;
mod gpsd;
mod history;
mod mounting;
mod report;

pub use georeference::{Carried, Length, Location, View};
pub use gpsd::{Gpsd, GpsdAddress, GpsdAddressError, Positioning};
pub use history::{Altitude, Attitude, Fix, History, Pose, Source};
pub use mounting::{Mounting, MountingError, Mountings};
