use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::node;
use crate::camera::DeviceError;

/// How a camera is named: where it is plugged in, such as `pci-0000:00:14.0-usb-0:2:1.0`, as `/dev/v4l/by-path` has it; its
/// name in `/dev/v4l/by-id`; or the serial number of its USB device.
///
/// `by-path/` or `by-id/` before it, and `-video-index0` after it, may be left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// A name by which no camera can be found again.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// A number that the next start gives to another.
    #[error(
        "{0} is whatever camera came first this time: name it by its path or serial number, which `callosity cameras` \
         lists"
    )]
    Node(String),
    /// Nothing.
    #[error("a camera needs a path or a serial number; `callosity cameras` lists them")]
    Empty,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let name = text.strip_prefix("/dev/v4l/").unwrap_or(text);
        let name = ["by-path/", "by-id/"]
            .iter()
            .find_map(|folder| name.strip_prefix(folder))
            .unwrap_or(name);
        let number = name
            .strip_prefix("/dev/video")
            .or(name.strip_prefix("video"));
        let is_number = |rest: &str| rest.chars().all(|c| c.is_ascii_digit());
        if number.is_some_and(is_number) || name.starts_with("/dev/") {
            return Err(AddressError::Node(text.to_owned()));
        }
        if name.is_empty() {
            return Err(AddressError::Empty);
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Address {
    /// The device that is meant, as it is plugged in now.
    pub(super) fn find(&self, sysfs: &Path, dev: &Path) -> Result<VideoDevice, DeviceError> {
        let all = VideoDevice::all(sysfs, dev).map_err(|source| DeviceError::System {
            doing: format!("listing {}", sysfs.join("class/video4linux").display()),
            source,
        })?;
        let mut found: Vec<VideoDevice> = all.into_iter().filter(|d| d.is_named(&self.0)).collect();
        // A camera's other nodes carry what describes its frames.
        if found.len() > 1 && !self.0.contains("-video-index") {
            let first = found.iter().map(|device| device.index).min();
            found.retain(|device| Some(device.index) == first);
        }
        match found.len() {
            0 => Err(DeviceError::Missing(self.0.clone())),
            1 => Ok(found.remove(0)),
            _ => Err(DeviceError::Ambiguous {
                address: self.0.clone(),
                found: found.into_iter().map(|device| device.path).collect(),
            }),
        }
    }
}

/// A video device as Linux describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoDevice {
    /// Where it is plugged in, as `/dev/v4l/by-path` would have it; with `/` and what the driver calls it where a driver has
    /// several devices in one place.
    pub path: String,
    /// Of the USB device; many makers give all of theirs the same, or none.
    pub serial: Option<String>,
    /// What the driver calls it.
    pub name: String,
    /// Which of the device's nodes it is, from 0.
    pub index: u32,
    /// The node of today, such as `/dev/video0`.
    pub node: PathBuf,
    /// Names that udev has given it.
    links: Vec<String>,
    /// Where sysfs describes it.
    place: PathBuf,
    /// Major and minor number.
    number: Option<(u32, u32)>,
}

impl VideoDevice {
    /// All there are, by path.
    pub(super) fn all(sysfs: &Path, dev: &Path) -> io::Result<Vec<Self>> {
        let class = sysfs.join("class/video4linux");
        let entries = match fs::read_dir(&class) {
            // Without any device there is no such folder.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let links = links(dev);
        let mut devices = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("video") {
                // One that is pulled out meanwhile is not there.
                devices.extend(Self::read(sysfs, dev, &name, &links));
            }
        }
        tell_apart(&mut devices);
        devices.sort_by(|a, b| (&a.path, a.index).cmp(&(&b.path, b.index)));
        Ok(devices)
    }

    fn read(sysfs: &Path, dev: &Path, name: &str, links: &[(PathBuf, String)]) -> Option<Self> {
        let class = sysfs.join("class/video4linux").join(name);
        let place = class.canonicalize().ok()?;
        let line = |path: PathBuf| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        // The device that it is a node of; its folder lies above.
        let parent = class.join("device").canonicalize().ok();
        let root = sysfs.canonicalize().ok()?;
        let described = parent.as_deref().unwrap_or(&place);
        let serial = described
            .ancestors()
            .take_while(|folder| folder.starts_with(&root))
            .find(|folder| folder.join("idVendor").exists())
            .and_then(|usb| line(usb.join("serial")));
        let number = line(class.join("dev")).and_then(|text| {
            let (major, minor) = text.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let node = node(dev, name);
        let target = node.canonicalize().unwrap_or_else(|_| node.clone());
        let named = links.iter().filter(|(to, _)| *to == target);
        Some(Self {
            path: path_of(described.strip_prefix(&root).unwrap_or(described)),
            serial,
            name: line(class.join("name")).unwrap_or_default(),
            index: line(class.join("index"))
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            links: named.map(|(_, name)| name.clone()).collect(),
            node,
            place,
            number,
        })
    }

    fn is_named(&self, name: &str) -> bool {
        let suffix = format!("-video-index{}", self.index);
        let is = |known: &str| {
            known == name
                || known.strip_suffix(&suffix) == Some(name)
                || name.strip_suffix(&suffix) == Some(known)
        };
        is(&self.path)
            || self.links.iter().any(|link| is(link))
            || self.serial.as_deref() == Some(name)
    }

    /// Opens it so that nothing waits for the device.
    pub(super) fn open(&self) -> Result<File, DeviceError> {
        let failed = |source| DeviceError::System {
            doing: format!("opening {} ({})", self.node.display(), self.path),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.node)
            .map_err(failed)?;
        // The number may have been given to another camera since.
        let opened = rustix::fs::fstat(&file)
            .map_err(|e| failed(e.into()))?
            .st_rdev;
        let opened = (rustix::fs::major(opened), rustix::fs::minor(opened));
        if self.number.is_some_and(|number| number != opened) {
            return Err(DeviceError::Missing(self.path.clone()));
        }
        Ok(file)
    }
}

/// Adds what the driver calls them to the paths of devices that it has in one place. By the place alone they are named too,
/// which is ambiguous.
fn tell_apart(devices: &mut [VideoDevice]) {
    let places: Vec<_> = devices.iter().map(|d| (d.path.clone(), d.index)).collect();
    for device in devices {
        let place = (device.path.clone(), device.index);
        if places.iter().filter(|other| **other == place).count() > 1 {
            device.path = format!("{}/{}", place.0, device.name);
            device.links.push(place.0);
        }
    }
}

/// What links of `/dev/v4l` lead to, and their names.
fn links(dev: &Path) -> Vec<(PathBuf, String)> {
    let folders = ["v4l/by-path", "v4l/by-id"].into_iter();
    let entries = folders.filter_map(|folder| fs::read_dir(dev.join(folder)).ok());
    let links = entries.flatten().flatten().filter_map(|entry| {
        let to = entry.path().canonicalize().ok()?;
        Some((to, entry.file_name().to_string_lossy().into_owned()))
    });
    links.collect()
}

/// Where a device is plugged in, of its folder in sysfs, as udev's `path_id` says it: the last PCI or platform device
/// above it and, on USB, the ports on the way. The number of a USB bus is not part of it, for it changes.
fn path_of(folder: &Path) -> String {
    let parts: Vec<&str> = folder.iter().filter_map(|part| part.to_str()).collect();
    let mut words: Vec<String> = Vec::new();
    let mut on_platform = false;
    // Along the way down; what is nearer replaces what it lies in.
    for (i, part) in parts.iter().enumerate() {
        if is_pci(part) {
            words = vec![format!("pci-{part}")];
            on_platform = false;
        } else if let Some(ports) = usb_interface(part) {
            words.retain(|word| !word.starts_with("usb-"));
            words.push(format!("usb-0:{ports}"));
        } else if is_usb_bus(part) {
            on_platform = false;
        } else if (i > 0 && parts[i - 1] == "platform") || (on_platform && part.contains('.')) {
            words = vec![format!("platform-{part}")];
            on_platform = true;
        }
    }
    if words.is_empty() {
        return parts.join("-");
    }
    words.join("-")
}

/// Such as `0000:00:14.0`.
fn is_pci(part: &str) -> bool {
    let numbers: Vec<&str> = part.split([':', '.']).collect();
    let hexadecimal = |text: &&str| text.chars().all(|c| c.is_ascii_hexdigit());
    numbers.len() == 4
        && numbers.iter().all(hexadecimal)
        && [4, 2, 2, 1] == [0, 1, 2, 3].map(|i| numbers[i].len())
}

/// Of `1-2.3:1.0`, what follows the number of the bus.
fn usb_interface(part: &str) -> Option<&str> {
    let (bus, rest) = part.split_once('-')?;
    let is_interface = rest.contains(':')
        && rest
            .chars()
            .all(|c| c.is_ascii_digit() || c == '.' || c == ':');
    (is_interface && bus.chars().all(|c| c.is_ascii_digit())).then_some(rest)
}

/// Such as `usb1`.
fn is_usb_bus(part: &str) -> bool {
    let number = part.strip_prefix("usb");
    number.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
}

/// Devices that are open.
static CLAIMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The right to a device, until it is dropped: two cameras of a flight cannot be one device by two names.
pub(super) struct Claim(PathBuf);

impl Claim {
    pub fn of(device: &VideoDevice) -> Result<Self, DeviceError> {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        if !claimed.insert(device.place.clone()) {
            return Err(DeviceError::Taken(device.path.clone()));
        }
        Ok(Self(device.place.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with devices plugged in, as sysfs and udev describe it.
    struct Machine {
        folder: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for below in ["sys/class/video4linux", "dev/v4l/by-path", "dev/v4l/by-id"] {
                fs::create_dir_all(folder.path().join(below)).unwrap();
            }
            Self { folder }
        }

        fn sysfs(&self) -> PathBuf {
            self.folder.path().join("sys")
        }

        fn dev(&self) -> PathBuf {
            self.folder.path().join("dev")
        }

        /// `place` is the device's folder below `/sys/devices`; a USB device has the serial number in the one above.
        fn plug(&self, node: &str, place: &str, index: u32, serial: Option<&str>) {
            let device = self.sysfs().join("devices").join(place);
            let described = device.join("video4linux").join(node);
            fs::create_dir_all(&described).unwrap();
            symlink(&device, described.join("device")).unwrap();
            fs::write(described.join("name"), "Test Cam\n").unwrap();
            fs::write(described.join("index"), format!("{index}\n")).unwrap();
            fs::write(described.join("dev"), "81:0\n").unwrap();
            if place.contains("usb") {
                let usb = device.parent().unwrap();
                fs::write(usb.join("idVendor"), "1d6b\n").unwrap();
                if let Some(serial) = serial {
                    fs::write(usb.join("serial"), format!("{serial}\n")).unwrap();
                }
            }
            symlink(
                &described,
                self.sysfs().join("class/video4linux").join(node),
            )
            .unwrap();
            fs::write(self.dev().join(node), "").unwrap();
        }

        fn unplug(&self, node: &str) {
            fs::remove_file(self.sysfs().join("class/video4linux").join(node)).unwrap();
            fs::remove_file(self.dev().join(node)).unwrap();
        }

        fn find(&self, address: &str) -> Result<PathBuf, String> {
            let address: Address = address.parse().map_err(|e: AddressError| e.to_string())?;
            let found = address.find(&self.sysfs(), &self.dev());
            let found = found.map_err(|e| e.to_string())?;
            Ok(found.node.strip_prefix(self.dev()).unwrap().to_owned())
        }
    }

    const LEFT: &str = "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0";
    const RIGHT: &str = "pci0000:00/0000:00:14.0/usb1/1-3/1-3.1/1-3.1:1.0";
    const LEFT_PATH: &str = "pci-0000:00:14.0-usb-0:2:1.0";
    const RIGHT_PATH: &str = "pci-0000:00:14.0-usb-0:3.1:1.0";

    #[test]
    fn two_alike_do_not_swap_when_their_numbers_do() {
        let machine = Machine::new();
        machine.plug("video0", LEFT, 0, None);
        machine.plug("video1", LEFT, 1, None);
        machine.plug("video2", RIGHT, 0, None);
        assert_eq!(machine.find(LEFT_PATH), Ok("video0".into()));
        assert_eq!(machine.find(RIGHT_PATH), Ok("video2".into()));
        for node in ["video0", "video1", "video2"] {
            machine.unplug(node);
        }
        assert!(
            machine
                .find(LEFT_PATH)
                .unwrap_err()
                .contains("is not there")
        );
        machine.plug(
            "video0",
            &RIGHT.replace("usb1/1-", "usb3/3-").replace("/1-", "/3-"),
            0,
            None,
        );
        machine.plug(
            "video7",
            &LEFT.replace("usb1/1-", "usb3/3-").replace("/1-", "/3-"),
            0,
            None,
        );
        // Neither did the number of the bus matter.
        assert_eq!(machine.find(LEFT_PATH), Ok("video7".into()));
        assert_eq!(machine.find(RIGHT_PATH), Ok("video0".into()));
    }

    #[test]
    fn a_drivers_devices_in_one_place_are_told_apart_by_its_names() {
        let machine = Machine::new();
        for (node, name) in [
            ("video0", "vivid-000-vid-cap"),
            ("video1", "vivid-001-vid-cap"),
        ] {
            let place = "platform/vivid.0";
            machine.plug(node, place, 0, None);
            let described = machine.sysfs().join("devices").join(place);
            fs::write(described.join("video4linux").join(node).join("name"), name).unwrap();
        }
        assert_eq!(
            machine.find("platform-vivid.0/vivid-000-vid-cap"),
            Ok("video0".into())
        );
        assert_eq!(
            machine.find("platform-vivid.0/vivid-001-vid-cap"),
            Ok("video1".into())
        );
        let said = machine.find("platform-vivid.0").unwrap_err();
        assert!(
            said.contains(
                "any of platform-vivid.0/vivid-000-vid-cap, platform-vivid.0/vivid-001-vid-cap"
            ),
            "{said}"
        );
    }

    #[test]
    fn serial_numbers_and_links_name_a_camera() {
        let machine = Machine::new();
        machine.plug("video0", LEFT, 0, Some("SN123"));
        machine.plug("video1", LEFT, 1, Some("SN123"));
        machine.plug("video3", RIGHT, 0, Some("SN124"));
        let link = |folder: &str, name: &str, node: &str| {
            symlink(
                machine.dev().join(node),
                machine.dev().join("v4l").join(folder).join(name),
            )
            .unwrap();
        };
        link(
            "by-id",
            "usb-Callosity_Test_Cam_SN123-video-index0",
            "video0",
        );
        link(
            "by-id",
            "usb-Callosity_Test_Cam_SN123-video-index1",
            "video1",
        );
        link("by-path", "platform-something-else-video-index0", "video3");
        for address in [
            "SN123",
            "usb-Callosity_Test_Cam_SN123",
            "by-id/usb-Callosity_Test_Cam_SN123-video-index0",
            "/dev/v4l/by-id/usb-Callosity_Test_Cam_SN123-video-index0",
            "pci-0000:00:14.0-usb-0:2:1.0-video-index0",
        ] {
            assert_eq!(machine.find(address), Ok("video0".into()), "{address}");
        }
        let second = "usb-Callosity_Test_Cam_SN123-video-index1";
        assert_eq!(machine.find(second), Ok("video1".into()));
        assert_eq!(
            machine.find("by-path/platform-something-else"),
            Ok("video3".into())
        );
    }

    #[test]
    fn one_serial_number_on_two_cameras_names_neither() {
        let machine = Machine::new();
        machine.plug("video0", LEFT, 0, Some("0001"));
        machine.plug("video2", RIGHT, 0, Some("0001"));
        let said = machine.find("0001").unwrap_err();
        assert!(
            said.contains(LEFT_PATH) && said.contains(RIGHT_PATH),
            "{said}"
        );
    }

    #[test]
    fn numbers_of_the_day_are_refused() {
        for address in [
            "/dev/video0",
            "video12",
            "/dev/v4l/by-path/video3",
            "/dev/sda",
        ] {
            let refused = address.parse::<Address>();
            assert!(matches!(refused, Err(AddressError::Node(_))), "{address}");
        }
        assert_eq!("by-id/".parse::<Address>(), Err(AddressError::Empty));
    }

    #[test]
    fn a_device_is_one_cameras_at_a_time() {
        let machine = Machine::new();
        machine.plug("video0", LEFT, 0, Some("SN123"));
        let find = |address: &str| {
            let address: Address = address.parse().unwrap();
            address.find(&machine.sysfs(), &machine.dev()).unwrap()
        };
        let claim = Claim::of(&find("SN123")).unwrap();
        let refused = Claim::of(&find(LEFT_PATH)).err().unwrap();
        assert!(matches!(refused, DeviceError::Taken(_)));
        drop(claim);
        assert!(Claim::of(&find(LEFT_PATH)).is_ok());
    }

    /// As `udevadm test-builtin path_id` prints them.
    #[test]
    fn paths_are_those_of_udev() {
        for (folder, path) in [
            (LEFT, LEFT_PATH),
            (RIGHT, RIGHT_PATH),
            ("platform/vivid.0", "platform-vivid.0"),
            (
                "pci0000:00/0000:00:1c.4/0000:03:00.0/usb4/4-1/4-1.2/4-1.2:1.0",
                "pci-0000:03:00.0-usb-0:1.2:1.0",
            ),
            (
                "platform/3610000.usb/usb1/1-2/1-2.1/1-2.1:1.0",
                "platform-3610000.usb-usb-0:2.1:1.0",
            ),
            (
                "platform/3610000.usb/usb1/1-2/1-2.1/1-2.1.3/1-2.1.3:1.2",
                "platform-3610000.usb-usb-0:2.1.3:1.2",
            ),
            (
                "platform/bus@0/13e00000.host1x/15c00000.vi",
                "platform-15c00000.vi",
            ),
        ] {
            let folder = Path::new("devices").join(folder);
            assert_eq!(path_of(&folder), path);
        }
    }

    #[test]
    fn a_machine_without_cameras_has_none() {
        let empty = tempfile::tempdir().unwrap();
        let all = VideoDevice::all(empty.path(), empty.path());
        assert_eq!(all.unwrap(), []);
    }
}
