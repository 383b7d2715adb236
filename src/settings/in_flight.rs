use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::NamedTempFile;
use toml::{Table, Value};
use tracing::{error, warn};

use super::camera::{IMAGE_SETTINGS, SettingValue};
use super::{CameraSettings, Settings};
use crate::camera::Setting;

const FILE: &str = "set-in-flight.toml";

/// What was set in flight for cameras: exposure, gain, white balance, focus and further controls. It wins over everything
/// else until it is given back, and outlives the program. Clones share it.
#[derive(Clone, Debug)]
pub struct InFlight {
    path: PathBuf,
    set: Arc<Mutex<Table>>,
    /// The cameras as the settings have them without it.
    without: BTreeMap<String, CameraSettings>,
}

impl InFlight {
    /// What earlier flights set, from the state folder, over cameras that are set so without it. A file that is not as we write it is moved aside and said to be: the
    /// cameras then are as the settings say.
    pub fn open(state: &Path, without: BTreeMap<String, CameraSettings>) -> Self {
        let path = state.join(FILE);
        let set = read(&path).unwrap_or_else(|reason| {
            let aside = path.with_extension("toml.damaged");
            error!(
                "{} cannot be used and is moved to {}: {reason}",
                path.display(),
                aside.display()
            );
            if let Err(e) = fs::rename(&path, &aside) {
                warn!("{} cannot be moved: {e}", path.display());
            }
            Table::new()
        });
        Self {
            path,
            set: Arc::new(Mutex::new(set)),
            without,
        }
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that was set, as settings.
    pub(super) fn table(&self) -> Table {
        self.lock().clone()
    }

    /// The settings of a camera that were made in flight.
    pub fn of_camera(&self, camera: &str) -> Vec<(String, Setting)> {
        camera_settings(&self.lock(), camera).image_settings()
    }

    /// Keeps a setting of a camera, on the disk when this returns; with `None` it is given back to the settings file.
    /// Returns what the camera is to be set to now: `None` where the settings say nothing.
    ///
    /// # Errors
    /// It cannot be written; it holds until the program ends.
    pub fn set(
        &self,
        camera: &str,
        name: &str,
        setting: Option<&Setting>,
    ) -> io::Result<Option<Setting>> {
        let mut set = self.lock();
        let mut of_camera = camera_settings(&set, camera);
        of_camera.set(name, setting.map(SettingValue::from));
        let of_camera = Table::try_from(&of_camera).map_err(io::Error::other)?;
        let cameras = set
            .entry("camera")
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(cameras) = cameras {
            if of_camera.is_empty() {
                cameras.remove(camera);
            } else {
                cameras.insert(camera.to_owned(), Value::Table(of_camera));
            }
        }
        write(&self.path, &set.to_string())?;
        let given_back = || {
            let mut without = self.without.get(camera)?.image_settings().into_iter();
            without
                .find(|(known, _)| known == name)
                .map(|(_, setting)| setting)
        };
        Ok(setting.cloned().or_else(given_back))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // A table is whole after each statement.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn camera_settings(set: &Table, camera: &str) -> CameraSettings {
    let of_camera = set.get("camera").and_then(|cameras| cameras.get(camera));
    of_camera
        .and_then(|of_camera| of_camera.clone().try_into().ok())
        .unwrap_or_default()
}

/// # Errors
/// In words, why it cannot be used.
fn read(path: &Path) -> Result<Table, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(e) => return Err(e.to_string()),
    };
    let table: Table = toml::from_str(&text).map_err(|e| e.to_string())?;
    let settings: Settings = toml::from_str(&text).map_err(|e| e.to_string())?;
    let only_cameras = table.keys().all(|name| name == "camera");
    let only_images = table
        .get("camera")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table)
        .flat_map(Table::keys)
        .all(|name| IMAGE_SETTINGS.contains(&name.as_str()) || name == "controls");
    if only_cameras && only_images && settings.camera.values().all(|c| c.source.is_empty()) {
        Ok(table)
    } else {
        Err("it sets what is not set in flight".to_owned())
    }
}

/// Replaces a file by a whole one, on the disk when this returns.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(b"# What was set in flight; it wins over callosity.toml. Delete this file to undo all of it.\n")?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_in_flight_outlives_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let opened = || InFlight::open(folder.path(), BTreeMap::new());
        let in_flight = opened();
        assert!(in_flight.of_camera("left").is_empty());
        let number = Setting::Number(5);
        in_flight.set("left", "exposure", Some(&number)).unwrap();
        in_flight
            .set(
                "left",
                "power_line_frequency",
                Some(&Setting::Item("50 Hz".into())),
            )
            .unwrap();
        in_flight
            .set("right", "gain", Some(&Setting::Auto))
            .unwrap();
        let expected = vec![
            ("exposure".to_owned(), Setting::Number(5)),
            (
                "power_line_frequency".to_owned(),
                Setting::Item("50 Hz".into()),
            ),
        ];
        assert_eq!(opened().of_camera("left"), expected);
        in_flight.set("left", "exposure", None).unwrap();
        assert_eq!(opened().of_camera("left"), expected[1..]);
        assert_eq!(
            opened().of_camera("right"),
            [("gain".to_owned(), Setting::Auto)]
        );
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_stops_nobody() {
        for text in [
            "camera = 3",
            "[camera.left]\nexposure = [",
            "platform = \"other\"",
            "[camera.left]\nsource = \"replay:/tmp\"",
            "\0\0",
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(FILE), text).unwrap();
            let in_flight = InFlight::open(folder.path(), BTreeMap::new());
            assert!(in_flight.table().is_empty(), "{text}");
            let aside = folder.path().join("set-in-flight.toml.damaged");
            assert_eq!(fs::read_to_string(aside).unwrap(), text);
            in_flight
                .set("left", "gain", Some(&Setting::Number(3)))
                .unwrap();
            assert_eq!(
                InFlight::open(folder.path(), BTreeMap::new())
                    .of_camera("left")
                    .len(),
                1
            );
        }
    }
}
