use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
#[cfg(target_os = "linux")]
use callosity::camera::Live;
#[cfg(target_os = "linux")]
use callosity::camera::v4l2::{Address, V4l2Device, Wanted};
use callosity::camera::{Camera, Mask, MountedCamera, Replay, Watch, WatchedFolder};
use recognition::geometry::Point;

/// A camera as the command line names it: `KIND:WHICH[,OPTION]…`.
#[derive(Clone, Debug)]
pub struct CameraArgument {
    name: Option<String>,
    mask: Mask,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    #[cfg(target_os = "linux")]
    V4l2(Address, Wanted),
    Folder {
        folder: PathBuf,
        watch: Watch,
        all: bool,
    },
    Replay {
        folder: PathBuf,
        rate: f64,
        again_and_again: bool,
        live: bool,
        resume: bool,
        unplugged: Range<u64>,
    },
}

/// What is said of an option, once.
struct Options<'a> {
    kind: &'a str,
    left: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    fn new(kind: &'a str, text: impl Iterator<Item = &'a str>) -> Self {
        let option = |text: &'a str| match text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text.trim(), None),
        };
        Self {
            kind,
            left: text.map(option).collect(),
        }
    }

    fn take(&mut self, name: &str) -> anyhow::Result<Option<&'a str>> {
        let mut values = self.take_all(name)?;
        ensure!(values.len() < 2, "{name} is given twice");
        Ok(values.pop())
    }

    fn take_all(&mut self, name: &str) -> anyhow::Result<Vec<&'a str>> {
        let taken = self.left.extract_if(.., |(known, _)| *known == name);
        taken
            .map(|(_, value)| value.with_context(|| format!("{name} needs a value: {name}=…")))
            .collect()
    }

    fn take_flag(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left
            .retain(|&(known, value)| known != name || value.is_some());
        self.left.len() < before
    }

    fn finish(self, known: &str) -> anyhow::Result<()> {
        match self.left.first() {
            Some((name, _)) => bail!("{name} is no option of {}: it takes {known}", self.kind),
            None => Ok(()),
        }
    }
}

impl FromStr for CameraArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (kind, rest) = text
            .split_once(':')
            .context("a camera is v4l2:PATH-OR-SERIAL, folder:DIR or replay:DIR")?;
        let mut parts = rest.split(',');
        let which = parts.next().unwrap_or_default();
        let mut options = Options::new(kind, parts);
        let name = options.take("name")?.map(str::to_owned);
        if let Some(name) = &name {
            ensure!(!name.is_empty(), "a camera's name is empty");
        }
        let mut mask = Mask::default();
        for polygon in options.take_all("mask")? {
            mask.cover(corners(polygon)?)?;
        }
        ensure!(!which.is_empty(), "{kind}: which one?");
        let source = match kind {
            "v4l2" => v4l2(which, options)?,
            "folder" => folder(which, options)?,
            "replay" => replay(which, options)?,
            _ => bail!("{kind} is no kind of camera: there are v4l2, folder and replay"),
        };
        Ok(Self { name, mask, source })
    }
}

/// `X:Y/X:Y/X:Y`.
fn corners(polygon: &str) -> anyhow::Result<Vec<Point>> {
    let corner = |text: &str| {
        let (x, y) = text.split_once(':')?;
        Some(Point::new(x.parse().ok()?, y.parse().ok()?))
    };
    let corners: Option<Vec<Point>> = polygon.split('/').map(corner).collect();
    corners.with_context(|| {
        format!(
            "mask={polygon}: corners are X:Y/X:Y/X:Y, in shares of the frame's width and height"
        )
    })
}

fn rate(options: &mut Options) -> anyhow::Result<Option<f64>> {
    let Some(text) = options.take("rate")? else {
        return Ok(None);
    };
    let rate = text.parse().ok();
    let rate = rate.filter(|rate: &f64| (0.001..=1000.0).contains(rate));
    let rate = rate.with_context(|| format!("rate={text}: frames a second, from 0.001 to 1000"))?;
    Ok(Some(rate))
}

#[cfg(target_os = "linux")]
fn v4l2(which: &str, mut options: Options) -> anyhow::Result<Source> {
    let address = which.parse::<Address>()?;
    let mut wanted = Wanted {
        format: options.take("format")?.map(four_characters).transpose()?,
        size: options.take("size")?.map(size).transpose()?,
        rate: rate(&mut options)?,
        settings: Vec::new(),
    };
    for name in ["exposure", "gain", "white-balance", "focus"] {
        if let Some(value) = options.take(name)? {
            let Ok(setting) = value.parse();
            wanted.settings.push((name.to_owned(), setting));
        }
    }
    for (option, value) in std::mem::take(&mut options.left) {
        match (option.strip_prefix("control."), value) {
            (Some(name), Some(value)) => {
                let Ok(setting) = value.parse();
                wanted.settings.push((name.to_owned(), setting));
            }
            _ => options.left.push((option, value)),
        }
    }
    options.finish(
        "name, mask, format, size, rate, exposure, gain, white-balance, focus and control.NAME, as in format=MJPG",
    )?;
    Ok(Source::V4l2(address, wanted))
}

#[cfg(not(target_os = "linux"))]
fn v4l2(_: &str, _: Options) -> anyhow::Result<Source> {
    bail!("there is V4L2 on Linux only")
}

#[cfg(target_os = "linux")]
fn four_characters(text: &str) -> anyhow::Result<[u8; 4]> {
    let padded = format!("{text:<4}");
    let characters = <[u8; 4]>::try_from(padded.as_bytes()).ok();
    characters.with_context(|| format!("format={text}: four characters, such as MJPG, YUYV or Y10"))
}

#[cfg(target_os = "linux")]
fn size(text: &str) -> anyhow::Result<(u32, u32)> {
    let sides = text
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.with_context(|| format!("size={text}: WIDTHxHEIGHT, such as 1920x1080"))
}

fn folder(which: &str, mut options: Options) -> anyhow::Result<Source> {
    let watch = match options.take("watch")? {
        None | Some("auto") => Watch::Auto,
        Some("poll") => Watch::Poll,
        Some(other) => bail!("watch={other}: auto or poll"),
    };
    let all = options.take_flag("all");
    options.finish("name, mask, watch=auto or watch=poll, and all")?;
    Ok(Source::Folder {
        folder: which.into(),
        watch,
        all,
    })
}

/// `FIRST-LAST`.
fn frame_numbers(text: &str) -> anyhow::Result<Range<u64>> {
    let ends = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let (first, last): (u64, u64) = ends
        .filter(|(first, last)| first <= last && *last < u64::MAX)
        .with_context(|| format!("unplugged={text}: numbers of frames from 0, as FIRST-LAST"))?;
    Ok(first..last + 1)
}

fn replay(which: &str, mut options: Options) -> anyhow::Result<Source> {
    let source = Source::Replay {
        folder: which.into(),
        rate: rate(&mut options)?.unwrap_or(1.0),
        again_and_again: options.take_flag("loop"),
        live: options.take_flag("live"),
        resume: options.take_flag("resume"),
        unplugged: options.take("unplugged")?.map_or(Ok(0..0), frame_numbers)?,
    };
    options.finish("name, mask, rate, loop, live, resume and unplugged=FIRST-LAST")?;
    Ok(source)
}

impl CameraArgument {
    fn mount(self) -> anyhow::Result<MountedCamera> {
        let camera: Box<dyn Camera> = match self.source {
            #[cfg(target_os = "linux")]
            Source::V4l2(address, wanted) => {
                let name = self.name.unwrap_or_else(|| address.to_string());
                Box::new(Live::new(&name, V4l2Device::new(address, wanted)))
            }
            Source::Folder { folder, watch, all } => {
                let of_folder = || {
                    let name = folder.file_name().unwrap_or(folder.as_os_str());
                    name.to_string_lossy().into_owned()
                };
                let name = self.name.unwrap_or_else(of_folder);
                let camera = WatchedFolder::new(&name, &folder, watch)?;
                Box::new(if all { camera.looking_at_all() } else { camera })
            }
            Source::Replay {
                folder,
                rate,
                again_and_again,
                live,
                resume,
                unplugged,
            } => {
                let mut camera = Replay::open(&folder, rate, again_and_again)?
                    .named(self.name.as_deref().unwrap_or("replay"))
                    .unplugged(unplugged);
                if live {
                    camera = camera.as_live();
                }
                if resume {
                    camera = camera.resuming();
                }
                Box::new(camera)
            }
        };
        Ok(MountedCamera {
            camera,
            mask: self.mask,
        })
    }
}

/// The cameras that were named. Nothing is opened but folders that are replayed.
pub fn mount(arguments: Vec<CameraArgument>) -> anyhow::Result<Vec<MountedCamera>> {
    #[cfg(target_os = "linux")]
    {
        let mut addresses = BTreeSet::new();
        for argument in &arguments {
            if let Source::V4l2(address, _) = &argument.source {
                ensure!(
                    addresses.insert(address),
                    "{address} is named twice: two cameras cannot be one device"
                );
            }
        }
    }
    let mounted: Vec<MountedCamera> = arguments
        .into_iter()
        .map(CameraArgument::mount)
        .collect::<anyhow::Result<_>>()?;
    let mut names = BTreeSet::new();
    for camera in &mounted {
        let name = camera.camera.name();
        ensure!(
            names.insert(name),
            "two cameras are called {name}: give each a name of its own with name=…"
        );
    }
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let parsed = text.parse::<CameraArgument>();
        format!("{:#}", parsed.expect_err(text))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_with_all_options() {
        use callosity::camera::Setting;

        let argument: CameraArgument =
            "v4l2:by-path/pci-0000:00:14.0-usb-0:2:1.0,name=left,format=Y10,size=1920x1080,\
             rate=7.5,exposure=5,gain=auto,control.power_line_frequency=50 Hz,mask=0:0/0.2:0/0:1"
                .parse()
                .unwrap();
        assert_eq!(argument.name.as_deref(), Some("left"));
        assert!(argument.mask.covers(Point::new(5.0, 5.0), (100, 100)));
        let Source::V4l2(address, wanted) = argument.source else {
            panic!("not V4L2")
        };
        assert_eq!(address.to_string(), "pci-0000:00:14.0-usb-0:2:1.0");
        let settings = vec![
            ("exposure".to_owned(), Setting::Number(5)),
            ("gain".to_owned(), Setting::Auto),
            (
                "power_line_frequency".to_owned(),
                Setting::Item("50 Hz".to_owned()),
            ),
        ];
        let expected = Wanted {
            format: Some(*b"Y10 "),
            size: Some((1920, 1080)),
            rate: Some(7.5),
            settings,
        };
        assert_eq!(wanted, expected);
    }

    #[test]
    fn what_is_wrong_with_an_argument_is_said() {
        for (text, said) in [
            ("/dev/video0", "v4l2:PATH-OR-SERIAL"),
            ("v4l2:", "which one?"),
            ("v4l2:/dev/video0", "callosity cameras"),
            ("v4l2:SN1,format=MJPEG", "four characters"),
            ("v4l2:SN1,size=big", "WIDTHxHEIGHT"),
            ("v4l2:SN1,rate=0", "from 0.001"),
            ("v4l2:SN1,rate=5,rate=6", "given twice"),
            ("v4l2:SN1,zoom=3", "it takes name, mask, format"),
            ("v4l2:SN1,gain", "gain needs a value"),
            ("replay:a,unplugged=9-3", "as FIRST-LAST"),
            ("folder:/x,watch=never", "auto or poll"),
            ("folder:/x,mask=0:0/1:1", "three corners"),
            ("folder:/x,mask=0,0", "X:Y/X:Y/X:Y"),
            ("folder:/x,mask=0:0/640:0/640:480", "shares of the frame"),
            ("usb:1", "v4l2, folder and replay"),
        ] {
            assert!(refused(text).contains(said), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn cameras_have_names_and_devices_of_their_own() {
        let mounted = |texts: &[&str]| {
            let arguments = texts.iter().map(|text| text.parse().unwrap());
            let names = |mounted: Vec<MountedCamera>| {
                let names = mounted.iter().map(|m| m.camera.name().to_owned());
                names.collect::<Vec<_>>()
            };
            mount(arguments.collect())
                .map(names)
                .map_err(|e| e.to_string())
        };
        let folder = tempfile::tempdir().unwrap();
        let here = format!("folder:{}", folder.path().display());
        let left = format!("{here},name=left");
        let own = folder.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(
            mounted(&[&left, &here]),
            Ok(vec!["left".to_owned(), own.to_owned()])
        );
        assert!(
            mounted(&[&left, &left])
                .unwrap_err()
                .contains("are called left")
        );
        #[cfg(target_os = "linux")]
        {
            assert_eq!(mounted(&["v4l2:SN1"]), Ok(vec!["SN1".to_owned()]));
            let twice = mounted(&["v4l2:SN1,name=left", "v4l2:by-id/SN1,name=right"]);
            assert!(twice.unwrap_err().contains("named twice"));
        }
    }
}
