//! What the kernel tells of the computer: temperatures, clocks, current, power mode, disks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use link::message::{DiskHealth, HardwareHealth};

/// Reads what there is; what a computer has not got is missing.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// `/`, or in tests a folder that looks like it.
    root: PathBuf,
    /// What lies where, of what the program writes.
    disks: Vec<(String, PathBuf)>,
}

/// Where a thermal zone begins to slow the computer down.
struct Zone {
    name: String,
    celsius: f64,
    slows_down_at: Option<f64>,
}

impl Hardware {
    /// Of this computer. `disks` says what lies in which folders.
    pub fn of_this(disks: Vec<(String, PathBuf)>) -> Self {
        Self {
            root: PathBuf::from("/"),
            disks,
        }
    }

    /// How it fares.
    pub fn health(&self) -> HardwareHealth {
        let zones = self.zones().into_iter();
        HardwareHealth {
            temperatures_celsius: zones.map(|zone| (zone.name, zone.celsius)).collect(),
            power_mode: self.power_mode(),
            over_current_events: self.over_current_events(),
            processor_clock_share: self.processor_clock_share(),
            disks: self
                .disks
                .iter()
                .filter_map(|(holds, at)| disk(holds, at))
                .collect(),
        }
    }

    /// What is wrong with it, if something is.
    pub fn problem(&self) -> Option<String> {
        let hot = self.zones().into_iter().find_map(|zone| {
            let limit = zone.slows_down_at.filter(|limit| zone.celsius >= *limit)?;
            Some(format!(
                "{} is {:.0} °C hot, and from {limit:.0} °C the computer slows itself down: does air reach the box?",
                zone.name, zone.celsius
            ))
        });
        hot.or_else(|| {
            let full = self.disks.iter().filter_map(|(holds, at)| disk(holds, at));
            full.into_iter()
                .find(|disk| disk.free_bytes < LEAST_FREE)
                .map(|disk| {
                    format!(
                        "the disk of the {} has {} MB left: make room on it",
                        disk.holds,
                        disk.free_bytes / 1_000_000
                    )
                })
        })
    }

    fn zones(&self) -> Vec<Zone> {
        let zones = entries(&self.root.join("sys/class/thermal"), "thermal_zone");
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let zone = |folder: PathBuf| {
            // A zone that is switched off, as a Jetson's are, gives an error and no number.
            let celsius = number(&folder.join("temp"))? / 1000.0;
            let name = text(&folder.join("type"))?;
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            let name = if *times > 1 {
                format!("{name} {times}")
            } else {
                name
            };
            let trips = (0..16).filter_map(|trip| {
                let kind = text(&folder.join(format!("trip_point_{trip}_type")))?;
                let at = number(&folder.join(format!("trip_point_{trip}_temp")))? / 1000.0;
                (matches!(kind.as_str(), "passive" | "hot") && at > 0.0).then_some(at)
            });
            Some(Zone {
                name,
                celsius,
                slows_down_at: trips.min_by(f64::total_cmp),
            })
        };
        zones.into_iter().filter_map(zone).collect()
    }

    /// As NVIDIA's `nvpmodel` keeps it.
    fn power_mode(&self) -> Option<String> {
        text(&self.root.join("var/lib/nvpmodel/status"))
    }

    /// As the Jetson's current monitors count them.
    fn over_current_events(&self) -> Option<u64> {
        let monitors = entries(&self.root.join("sys/class/hwmon"), "hwmon");
        let counts = monitors.iter().flat_map(|monitor| {
            (1..=3).filter_map(|n| number(&monitor.join(format!("oc{n}_event_cnt"))))
        });
        counts.map(|count| count as u64).reduce(|a, b| a + b)
    }

    fn processor_clock_share(&self) -> Option<f64> {
        let cores = entries(&self.root.join("sys/devices/system/cpu"), "cpu");
        let share = |core: &PathBuf| {
            let now = number(&core.join("cpufreq/scaling_cur_freq"))?;
            let most = number(&core.join("cpufreq/cpuinfo_max_freq"))?;
            (most > 0.0).then(|| now / most)
        };
        cores.iter().filter_map(share).min_by(f64::total_cmp)
    }
}

/// Below so many free bytes on a disk somebody has to make room.
const LEAST_FREE: u64 = 200_000_000;

/// The folder itself, or the nearest above it that there is, since ours may not be made yet.
fn disk(holds: &str, at: &Path) -> Option<DiskHealth> {
    let at = std::path::absolute(at).ok()?;
    let there = at.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(DiskHealth {
        holds: holds.to_owned(),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// Entries of a folder whose names are this and a number, in the order of the numbers.
fn entries(folder: &Path, name: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = found.filter_map(|entry| {
        let file_name = entry.file_name();
        let number: u32 = file_name.to_str()?.strip_prefix(name)?.parse().ok()?;
        Some((number, entry.path()))
    });
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(path: &Path) -> Option<f64> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A computer of files.
    fn computer(files: &[(&str, &str)]) -> (tempfile::TempDir, Hardware) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let hardware = Hardware {
            root: folder.path().to_owned(),
            disks: Vec::new(),
        };
        (folder, hardware)
    }

    const ORIN: &[(&str, &str)] = &[
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone0/temp", "61500\n"),
        (
            "sys/class/thermal/thermal_zone0/trip_point_0_type",
            "active\n",
        ),
        (
            "sys/class/thermal/thermal_zone0/trip_point_0_temp",
            "40000\n",
        ),
        (
            "sys/class/thermal/thermal_zone0/trip_point_1_type",
            "passive\n",
        ),
        (
            "sys/class/thermal/thermal_zone0/trip_point_1_temp",
            "99000\n",
        ),
        // Switched off: no temperature.
        ("sys/class/thermal/thermal_zone1/type", "gpu-thermal\n"),
        ("sys/class/thermal/thermal_zone2/type", "tj-thermal\n"),
        ("sys/class/thermal/thermal_zone2/temp", "63000\n"),
        ("sys/class/thermal/cooling_device0/type", "fan\n"),
        ("sys/class/hwmon/hwmon3/oc1_event_cnt", "2\n"),
        ("sys/class/hwmon/hwmon3/oc3_event_cnt", "1\n"),
        ("var/lib/nvpmodel/status", "pmode:0002 fmode:quiet\n"),
        (
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
            "1100000\n",
        ),
        (
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
            "2200000\n",
        ),
        (
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq",
            "2200000\n",
        ),
        (
            "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq",
            "2200000\n",
        ),
    ];

    #[test]
    fn what_a_jetson_tells_is_read() {
        let (_folder, hardware) = computer(ORIN);
        let health = hardware.health();
        let temperatures: Vec<_> = health.temperatures_celsius.into_iter().collect();
        assert_eq!(
            temperatures,
            [
                ("cpu-thermal".to_owned(), 61.5),
                ("tj-thermal".to_owned(), 63.0)
            ]
        );
        assert_eq!(health.over_current_events, Some(3));
        assert_eq!(health.power_mode.as_deref(), Some("pmode:0002 fmode:quiet"));
        assert_eq!(health.processor_clock_share, Some(0.5));
        assert_eq!(hardware.problem(), None);
    }

    #[test]
    fn a_hot_computer_says_so() {
        let (folder, hardware) = computer(ORIN);
        let temp = folder.path().join("sys/class/thermal/thermal_zone0/temp");
        fs::write(&temp, "99500\n").unwrap();
        let said = hardware.problem().unwrap();
        assert!(
            said.contains("cpu-thermal is 100 °C hot, and from 99 °C"),
            "{said}"
        );
        fs::write(&temp, "nonsense").unwrap();
        assert_eq!(hardware.problem(), None);
    }

    #[test]
    fn a_computer_that_tells_nothing_has_nothing_but_disks() {
        let (folder, mut hardware) = computer(&[]);
        assert_eq!(hardware.health(), HardwareHealth::default());
        // Not made yet, it is on the disk on which it will be.
        hardware.disks = vec![("outbox".to_owned(), folder.path().join("not/yet/there"))];
        let disks = hardware.health().disks;
        assert!(disks[0].free_bytes > 0 && disks[0].free_bytes <= disks[0].total_bytes);
    }
}
