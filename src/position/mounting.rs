use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a camera sits in the airframe, and its lens and sensor.
///
/// With all angles 0 it looks straight down and the top of its frames is ahead. The angles turn it from there as the
/// airframe would be turned, in the order roll, pitch, yaw (so with a roll of 30° it looks to the left, with a pitch of
/// 10° ahead of straight down, with a yaw of 90° the top of its frames is to the right).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mounting {
    /// Focal length of the lens.
    pub focal_length_millimeters: f64,
    /// Width of the part of the sensor that the frame's width shows, of the upright frame.
    pub sensor_width_millimeters: f64,
    /// Right side down.
    #[serde(default)]
    pub roll_degrees: f64,
    /// Nose up.
    #[serde(default)]
    pub pitch_degrees: f64,
    /// Clockwise from above.
    #[serde(default)]
    pub yaw_degrees: f64,
}

/// The mountings of all cameras, by the cameras' names.
pub type Mountings = BTreeMap<String, Mounting>;

/// A file of mountings that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountingError {
    /// It cannot be read.
    #[error("cannot read the camera mountings {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML of mountings.
    #[error(
        "the camera mountings {} are not as they should be: {reason}; each camera is a table such as\n\
         [left]\nfocal_length_millimeters = 50\nsensor_width_millimeters = 35.9\nroll_degrees = -30",
        path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        reason: String,
    },
    /// A number cannot be.
    #[error(
        "camera {camera} in {}: {field} is {value}, and must be {least} to {most}",
        path.display()
    )]
    Range {
        /// The file.
        path: PathBuf,
        /// The camera's name.
        camera: String,
        /// The field.
        field: &'static str,
        /// What it says.
        value: f64,
        /// The least that it may be.
        least: f64,
        /// The most that it may be.
        most: f64,
    },
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

    /// Reads a TOML file with a table for each camera.
    ///
    /// # Errors
    /// It cannot be read, has other fields, or numbers that cannot be.
    pub fn read_all(path: &Path) -> Result<Mountings, MountingError> {
        let text = std::fs::read_to_string(path).map_err(|source| MountingError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mountings: Mountings = toml::from_str(&text).map_err(|e| MountingError::Parse {
            path: path.to_owned(),
            reason: e.to_string().trim().to_owned(),
        })?;
        for (camera, mounting) in &mountings {
            mounting.check(path, camera)?;
        }
        Ok(mountings)
    }

    fn check(&self, path: &Path, camera: &str) -> Result<(), MountingError> {
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
                return Err(MountingError::Range {
                    path: path.to_owned(),
                    camera: camera.to_owned(),
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

    fn read(text: &str) -> Result<Mountings, MountingError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mountings.toml");
        std::fs::write(&path, text).unwrap();
        Mounting::read_all(&path)
    }

    #[test]
    fn a_file_names_its_cameras() {
        let good = "[left]\nfocal_length_millimeters = 85\nsensor_width_millimeters = 35.9\nroll_degrees = 32.5\n\
                    [right]\nfocal_length_millimeters = 85.0\nsensor_width_millimeters = 35.9\nroll_degrees = -32.5\n";
        let read = read(good).unwrap();
        assert_eq!(read["left"].roll_degrees, 32.5);
        assert_eq!(read["right"].yaw_degrees, 0.0);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let lens = "[left]\nsensor_width_millimeters = 36\nfocal_length_millimeters = ";
        for (text, named) in [
            (
                format!("{lens}0"),
                "focal_length_millimeters is 0, and must be 1 to 5000",
            ),
            (format!("{lens}nan"), "focal_length_millimeters is NaN"),
            (format!("{lens}50\nroll_degrees = 200"), "camera left"),
            (
                format!("{lens}50\nrol_degrees = 20"),
                "unknown field `rol_degrees`",
            ),
            (
                "[left]\nfocal_length_millimeters = 50".to_owned(),
                "sensor_width_millimeters",
            ),
            ("left = 3".to_owned(), "such as"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
            assert!(error.contains("mountings.toml"), "{error}");
        }
    }
}
