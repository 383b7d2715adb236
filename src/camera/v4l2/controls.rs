use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;

use ::v4l::v4l_sys as sys;
use ::v4l::v4l2::vidioc;

use super::super::Setting;
use super::ioctl::{call, zeroed};

/// Most controls that are looked at: no driver has as many.
const MOST_CONTROLS: usize = 1024;
/// Most items of a menu that are looked at.
const MOST_ITEMS: i64 = 256;

/// What kind of value a control takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// A whole number.
    Integer,
    /// 0 or 1.
    Boolean,
    /// One of several items.
    Menu,
    /// Does something when it is set.
    Button,
    /// Something else, which cannot be set here.
    Other,
}

/// An item of a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MenuItem {
    /// Its value.
    pub value: i64,
    /// What the driver calls it.
    pub name: String,
}

/// Something of a camera that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name in lower case with underscores, such as `exposure_time_absolute`.
    pub name: String,
    /// What kind of value it takes.
    pub kind: ControlKind,
    /// Least value.
    pub minimum: i64,
    /// Largest value.
    pub maximum: i64,
    /// Value without anybody setting it.
    pub default: i64,
    /// Value now; `None` where the driver does not say.
    pub value: Option<i64>,
    /// Items, of a menu.
    pub items: Vec<MenuItem>,
    /// Whether it can be set at all.
    pub settable: bool,
}

/// Such as `gain 0…100, 12 now`.
impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match self.kind {
            ControlKind::Integer => write!(f, " {}…{}", self.minimum, self.maximum)?,
            ControlKind::Boolean => write!(f, " 0 or 1")?,
            ControlKind::Menu => {
                let items: Vec<String> = self
                    .items
                    .iter()
                    .map(|item| format!("{} = {}", item.value, item.name))
                    .collect();
                write!(f, " {}", items.join(", "))?;
            }
            ControlKind::Button | ControlKind::Other => {}
        }
        match self.value {
            Some(value) => write!(f, "; {value} now"),
            None => Ok(()),
        }
    }
}

/// A setting that cameras know by several controls.
struct Common {
    name: &'static str,
    /// Of the values, that which the camera has is set.
    values: &'static [u32],
    /// What chooses between the camera and us, with the values that mean "camera" (the first that it takes) and "us".
    automatic: Option<(u32, &'static [i64], i64)>,
}

/// Exposure times are in units of 100 µs, white balance in kelvin, as the kernel defines them.
const COMMON: [Common; 4] = [
    Common {
        name: "exposure",
        values: &[sys::V4L2_CID_EXPOSURE_ABSOLUTE, sys::V4L2_CID_EXPOSURE],
        // 0 is all automatic, 3 automatic time by a fixed aperture, which is what most can do.
        automatic: Some((sys::V4L2_CID_EXPOSURE_AUTO, &[0, 3], 1)),
    },
    Common {
        name: "gain",
        values: &[sys::V4L2_CID_GAIN, sys::V4L2_CID_ANALOGUE_GAIN],
        automatic: Some((sys::V4L2_CID_AUTOGAIN, &[1], 0)),
    },
    Common {
        name: "white_balance",
        values: &[sys::V4L2_CID_WHITE_BALANCE_TEMPERATURE],
        automatic: Some((sys::V4L2_CID_AUTO_WHITE_BALANCE, &[1], 0)),
    },
    Common {
        name: "focus",
        values: &[sys::V4L2_CID_FOCUS_ABSOLUTE],
        automatic: Some((sys::V4L2_CID_FOCUS_AUTO, &[1], 0)),
    },
];

/// The controls of a device, asked for one by one: what a driver describes badly is left out or shown as far as it goes.
pub(super) fn list(file: &File) -> Vec<Control> {
    let mut controls = Vec::new();
    let mut before = 0;
    while controls.len() < MOST_CONTROLS {
        let mut query: sys::v4l2_queryctrl = zeroed();
        query.id = before | sys::V4L2_CTRL_FLAG_NEXT_CTRL;
        if call(file, vidioc::VIDIOC_QUERYCTRL, &mut query).is_err() || query.id <= before {
            break;
        }
        before = query.id;
        let Some(mut control) = describe(&query) else {
            continue;
        };
        if control.kind == ControlKind::Menu {
            control.items = items(file, &control, query.type_);
        }
        let mut value: sys::v4l2_control = zeroed();
        value.id = control.id;
        if call(file, vidioc::VIDIOC_G_CTRL, &mut value).is_ok() {
            control.value = Some(value.value.into());
        }
        controls.push(control);
    }
    controls
}

/// `None` for headings and what is switched off.
fn describe(query: &sys::v4l2_queryctrl) -> Option<Control> {
    let kind = match query.type_ {
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_CTRL_CLASS => return None,
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => {
            ControlKind::Integer
        }
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => ControlKind::Boolean,
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU
        | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => ControlKind::Menu,
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => ControlKind::Button,
        _ => ControlKind::Other,
    };
    let name = normalised(&text(&query.name));
    let off = query.flags & sys::V4L2_CTRL_FLAG_DISABLED != 0;
    if off || name.is_empty() {
        return None;
    }
    let fixed = sys::V4L2_CTRL_FLAG_READ_ONLY | sys::V4L2_CTRL_FLAG_GRABBED;
    Some(Control {
        id: query.id,
        name,
        kind,
        minimum: query.minimum.into(),
        maximum: query.maximum.into(),
        default: query.default_value.into(),
        value: None,
        items: Vec::new(),
        settable: kind != ControlKind::Other && query.flags & fixed == 0,
    })
}

fn items(file: &File, control: &Control, kind: u32) -> Vec<MenuItem> {
    let first = control.minimum.max(0);
    let last = control.maximum.min(first.saturating_add(MOST_ITEMS));
    let item = |value: i64| {
        let mut query: sys::v4l2_querymenu = zeroed();
        (query.id, query.index) = (control.id, u32::try_from(value).ok()?);
        // Drivers leave items out.
        call(file, vidioc::VIDIOC_QUERYMENU, &mut query).ok()?;
        // SAFETY: any bytes are valid in both members of the union; the kind of menu says which is meant. The structure is
        // packed: both are copied.
        let name = unsafe {
            if kind == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU {
                let number = query.__bindgen_anon_1.value;
                number.to_string()
            } else {
                let name = query.__bindgen_anon_1.name;
                text(&name)
            }
        };
        Some(MenuItem { value, name })
    };
    (first..=last).filter_map(item).collect()
}

/// Up to the first zero, or all of it where a driver wrote none.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// Letters and digits in lower case, anything else an underscore, as `v4l2-ctl` has it.
fn normalised(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("_")
}

/// Makes settings; returns those that could not be made, by name, and why.
pub(super) fn make(file: &File, wanted: &[(String, Setting)]) -> BTreeMap<String, String> {
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let listed = list(file);
    let controls: BTreeMap<u32, &Control> = listed.iter().map(|c| (c.id, c)).collect();
    let make = |name: &str, setting: &Setting| {
        for (id, value) in steps(&controls, name, setting)? {
            set(file, id, value).map_err(|e| format!("the driver refuses it ({e})"))?;
        }
        Ok::<(), String>(())
    };
    let refused = wanted.iter().filter_map(|(name, setting)| {
        let why = make(name, setting).err()?;
        Some((name.clone(), format!("{setting}: {why}")))
    });
    refused.collect()
}

fn set(file: &File, id: u32, value: i64) -> std::io::Result<()> {
    let mut control: sys::v4l2_control = zeroed();
    control.id = id;
    control.value =
        i32::try_from(value).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    call(file, vidioc::VIDIOC_S_CTRL, &mut control)
}

/// The controls to set, with their values, in order; or why there are none.
fn steps(
    controls: &BTreeMap<u32, &Control>,
    name: &str,
    setting: &Setting,
) -> Result<Vec<(u32, i64)>, String> {
    let name = normalised(name);
    let Some(common) = COMMON.iter().find(|common| common.name == name) else {
        let control = controls.values().find(|control| control.name == name);
        let control = control.ok_or("the camera has no such control")?;
        return Ok(vec![(control.id, value(control, setting)?)]);
    };
    let automatic = common
        .automatic
        .and_then(|(id, on, off)| Some((*controls.get(&id)?, on, off)));
    if *setting == Setting::Auto {
        let (control, on, _) = automatic.ok_or("the camera cannot choose it")?;
        let takes = |value: &&i64| check(control, **value).is_ok();
        let on = on.iter().find(takes).ok_or("the camera cannot choose it")?;
        return Ok(vec![(control.id, *on)]);
    }
    let control = common.values.iter().find_map(|id| controls.get(id));
    let control = control.ok_or("the camera has no such control")?;
    let mut steps = Vec::new();
    // As long as the camera chooses, many refuse a value.
    steps.extend(automatic.map(|(control, _, off)| (control.id, off)));
    steps.push((control.id, value(control, setting)?));
    Ok(steps)
}

/// A setting as the control's value.
fn value(control: &Control, setting: &Setting) -> Result<i64, String> {
    let value = match setting {
        Setting::Number(number) => *number,
        Setting::Auto => return Err("the camera cannot choose it".to_owned()),
        Setting::Item(name) => {
            let mut items = control.items.iter();
            let item = items.find(|item| normalised(&item.name) == normalised(name));
            let names = || {
                let names: Vec<&str> = control.items.iter().map(|i| i.name.as_str()).collect();
                format!("it takes {}", names.join(", "))
            };
            item.ok_or_else(|| {
                if control.items.is_empty() {
                    "it takes a number".to_owned()
                } else {
                    names()
                }
            })?
            .value
        }
    };
    check(control, value)?;
    Ok(value)
}

/// Whether a control takes a value, as far as its driver says.
fn check(control: &Control, value: i64) -> Result<(), String> {
    if !control.settable {
        return Err("the camera does not let it be set".to_owned());
    }
    let range = control.minimum..=control.maximum;
    // A range that is none says nothing; the driver has the last word.
    if control.kind != ControlKind::Button && !range.is_empty() && !range.contains(&value) {
        return Err(format!(
            "it takes {} to {}",
            control.minimum, control.maximum
        ));
    }
    let is_item = control.items.iter().any(|item| item.value == value);
    if control.kind == ControlKind::Menu && !control.items.is_empty() && !is_item {
        return Err(format!("there is no item {value}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn control(id: u32, kind: ControlKind, minimum: i64, maximum: i64) -> Control {
        Control {
            id,
            name: format!("control_{id:x}"),
            kind,
            minimum,
            maximum,
            default: 0,
            value: None,
            items: Vec::new(),
            settable: true,
        }
    }

    fn item(value: i64, name: &str) -> MenuItem {
        MenuItem {
            value,
            name: name.into(),
        }
    }

    /// As a Logitech C920 has them: menus with items left out.
    fn webcam() -> Vec<Control> {
        let mut automatic = control(sys::V4L2_CID_EXPOSURE_AUTO, ControlKind::Menu, 0, 3);
        automatic.items = vec![item(1, "Manual Mode"), item(3, "Aperture Priority Mode")];
        let mut fixed = control(0x77, ControlKind::Integer, 0, 10);
        (fixed.settable, fixed.name) = (false, "privacy".into());
        vec![
            automatic,
            control(
                sys::V4L2_CID_EXPOSURE_ABSOLUTE,
                ControlKind::Integer,
                3,
                2047,
            ),
            control(sys::V4L2_CID_GAIN, ControlKind::Integer, 0, 255),
            fixed,
        ]
    }

    fn steps_of(name: &str, setting: &str) -> Result<Vec<(u32, i64)>, String> {
        let controls = webcam();
        let by_id = controls.iter().map(|c| (c.id, c)).collect();
        steps(&by_id, name, &setting.parse().unwrap())
    }

    #[test]
    fn a_value_is_set_after_the_camera_no_longer_chooses() {
        let manual = (sys::V4L2_CID_EXPOSURE_AUTO, 1);
        assert_eq!(
            steps_of("exposure", "5"),
            Ok(vec![manual, (sys::V4L2_CID_EXPOSURE_ABSOLUTE, 5)])
        );
        // Of the automatic modes, one that this camera has.
        assert_eq!(
            steps_of("exposure", "auto"),
            Ok(vec![(sys::V4L2_CID_EXPOSURE_AUTO, 3)])
        );
        // There is nothing to switch off.
        assert_eq!(steps_of("gain", "7"), Ok(vec![(sys::V4L2_CID_GAIN, 7)]));
    }

    #[test]
    fn what_cannot_be_set_says_why() {
        let why = |name, setting| steps_of(name, setting).unwrap_err();
        assert_eq!(why("exposure", "9999"), "it takes 3 to 2047");
        assert_eq!(why("gain", "auto"), "the camera cannot choose it");
        assert_eq!(why("gain", "much"), "it takes a number");
        assert_eq!(why("focus", "3"), "the camera has no such control");
        assert_eq!(why("zoom", "3"), "the camera has no such control");
        assert_eq!(why("privacy", "1"), "the camera does not let it be set");
        let menu = format!("control_{:x}", sys::V4L2_CID_EXPOSURE_AUTO);
        assert_eq!(why(&menu, "0"), "there is no item 0");
        assert_eq!(
            why(&menu, "sport"),
            "it takes Manual Mode, Aperture Priority Mode"
        );
        assert_eq!(
            steps_of(&menu, "manual mode"),
            Ok(vec![(sys::V4L2_CID_EXPOSURE_AUTO, 1)])
        );
    }

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        assert_eq!(
            normalised("Exposure Time, Absolute"),
            "exposure_time_absolute"
        );
        assert_eq!(
            normalised("White Balance, Automatic"),
            "white_balance_automatic"
        );
        assert_eq!(normalised(" -- "), "");
    }

    proptest! {
        /// Whatever a driver writes into its description, there is a control or none, and setting it gives steps or a
        /// reason.
        #[test]
        fn a_badly_described_control_does_no_harm(
            bytes in prop::collection::vec(any::<u8>(), size_of::<sys::v4l2_queryctrl>()),
            kind in 0..12_u32,
            number: i64,
        ) {
            let mut query: sys::v4l2_queryctrl = zeroed();
            query.name.copy_from_slice(&bytes[8..40]);
            let word = |at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            (query.id, query.type_) = (word(0) as u32, kind);
            (query.minimum, query.maximum, query.step) = (word(40), word(44), word(48));
            (query.default_value, query.flags) = (word(52), word(56) as u32);
            if let Some(control) = describe(&query) {
                prop_assert!(!control.name.is_empty() && !control.to_string().is_empty());
                let by_id = [(control.id, &control)].into_iter().collect();
                for setting in [Setting::Auto, Setting::Number(number), Setting::Item("x".into())] {
                    if let Ok(steps) = steps(&by_id, &control.name, &setting) {
                        prop_assert!(steps.iter().all(|step| step.0 == control.id));
                    }
                }
            }
        }
    }
}
