use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a camera sits in the airframe, and its lens and sensor.
///
/// With all angles 0 it looks straight down and the top of its frames is ahead. The angles turn it from there as the
/// airframe would be turned, in the order roll, pitch, yaw (so with a roll of 30° it looks to the left, with a pitch of
/// 10° ahead of straight down, with a yaw of 90° the top of its frames is to the right).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mounting {
    /// Focal length of the lens.
    pub focal_length_millimeters: f64,
    /// Width of the part of the sensor that the frame's width shows, of the upright frame.
    pub sensor_width_millimeters: f64,
    /// Right side down.
    pub roll_degrees: f64,
    /// Nose up.
    pub pitch_degrees: f64,
    /// Clockwise from above.
    pub yaw_degrees: f64,
}

/// The mountings of all cameras, by the cameras' names.
pub type Mountings = BTreeMap<String, Mounting>;

/// A number of a mounting that cannot be.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{field} is {value}, and must be {least} to {most}")]
pub struct MountingError {
    /// The field.
    pub field: &'static str,
    /// What it says.
    pub value: f64,
    /// The least that it may be.
    pub least: f64,
    /// The most that it may be.
    pub most: f64,
}

impl Mounting {
    /// A camera that looks straight down, the top of its frames ahead.
    pub fn straight_down(focal_length_millimeters: f64, sensor_width_millimeters: f64) -> Self {
        Self {
            focal_length_millimeters,
            sensor_width_millimeters,
            roll_degrees: 0.0,
            pitch_degrees: 0.0,
            yaw_degrees: 0.0,
        }
    }

    /// # Errors
    /// A number cannot be.
    pub fn check(&self) -> Result<(), MountingError> {
        for (field, value, least, most) in [
            (
                "focal_length_millimeters",
                self.focal_length_millimeters,
                1.0,
                5000.0,
            ),
            (
                "sensor_width_millimeters",
                self.sensor_width_millimeters,
                1.0,
                500.0,
            ),
            ("roll_degrees", self.roll_degrees, -180.0, 180.0),
            ("pitch_degrees", self.pitch_degrees, -180.0, 180.0),
            ("yaw_degrees", self.yaw_degrees, -360.0, 360.0),
        ] {
            if !(least..=most).contains(&value) {
                return Err(MountingError {
                    field,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        let good = Mounting::straight_down(85.0, 35.9);
        assert_eq!(good.check(), Ok(()));
        let said = |mounting: Mounting| mounting.check().unwrap_err().to_string();
        for focal_length_millimeters in [0.0, f64::NAN, 6000.0] {
            let said = said(Mounting {
                focal_length_millimeters,
                ..good
            });
            assert!(said.contains("focal_length_millimeters is"), "{said}");
        }
        let said = said(Mounting {
            roll_degrees: 200.0,
            ..good
        });
        assert_eq!(said, "roll_degrees is 200, and must be -180 to 180");
    }
}
