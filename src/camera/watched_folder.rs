use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use recognition::pixels::{EncodedPhotograph, READ_ENDINGS, is_photograph};
use tracing::{info, warn};
use walkdir::WalkDir;

use super::{Backlog, Camera, CameraError, Captured, Dated, Frame, FrameTag, UnusableFrame};
use crate::clock::{SystemClock, TimeSource};
use crate::network_share::NetworkShare;

/// Time between two looks at a folder that tells nothing by itself, and at files that nobody said are complete.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that nobody said is complete is so when it has not changed for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Pause before a folder that cannot be read is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Folders below one another that are looked into.
const DEPTH: usize = 16;
/// Photographs that wait by default where all are to be looked at.
const BACKLOG: usize = 4;
/// A camera's clock that is further behind is not believed.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// A camera's clock that is further ahead is not believed.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);

/// How new files are heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// The system tells, except on a network share, which is looked at again and again.
    #[default]
    Auto,
    /// The folder is looked at again and again.
    Poll,
}

/// A folder that other software fills with photographs, such as that of a camera's maker; folders in it belong to it.
///
/// A file is looked at when it is complete: when who wrote it has closed it, or has given it its name. On a network share,
/// where another machine writes, it is complete when it has not changed for two seconds. What was there at the start is
/// not looked at. A raw file beside a photograph of its name is passed over.
///
/// Where EXIF says when and where a photograph was taken, the frame does so too.
pub struct WatchedFolder {
    name: Arc<str>,
    folder: PathBuf,
    watch: Watch,
    all: bool,
    watching: Option<Watching>,
    /// Whether what is there has been passed over.
    begun: bool,
    retry_at: Option<Instant>,
    seen: Seen,
    number: u64,
    told: Option<String>,
}

/// Files by what is known of them.
#[derive(Default)]
struct Seen {
    /// The watched folder.
    root: PathBuf,
    /// Size and time of change of those that were looked at.
    done: HashMap<PathBuf, (u64, SystemTime)>,
    /// The same of those that may not be complete, and since when that is so.
    growing: HashMap<PathBuf, (u64, SystemTime, Instant)>,
    /// Complete and not looked at yet.
    ready: VecDeque<PathBuf>,
}

struct Watching {
    /// Tells of changes as long as it is held; `None` where the folder is looked at again and again.
    watcher: Option<RecommendedWatcher>,
    changes: Receiver<notify::Result<Event>>,
    looked: Option<Instant>,
}

impl WatchedFolder {
    /// `name` is what it is called in messages.
    ///
    /// # Errors
    /// It is a file. A folder that is not there yet, such as a share that is not mounted, is waited for.
    pub fn new(name: &str, folder: &Path, watch: Watch) -> Result<Self, CameraError> {
        if folder.exists() && !folder.is_dir() {
            return Err(CameraError::Watch {
                folder: folder.to_owned(),
                reason: "it is not a folder".to_owned(),
            });
        }
        Ok(Self {
            name: name.into(),
            folder: folder.to_owned(),
            watch,
            all: false,
            watching: None,
            begun: false,
            retry_at: None,
            seen: Seen {
                root: folder.to_owned(),
                ..Seen::default()
            },
            number: 0,
            told: None,
        })
    }

    /// Looks at all photographs, however late; else, as with any live camera, at the newest where they come faster than
    /// they are looked at.
    pub fn looking_at_all(mut self) -> Self {
        self.all = true;
        self
    }

    fn begin(&mut self) -> Result<Watching, String> {
        let folder = self.folder.display();
        if let Err(e) = fs::read_dir(&self.folder) {
            return Err(format!("cannot list {folder}: {e}"));
        }
        let (tell, changes) = mpsc::channel();
        // Changes by other machines go untold on a share.
        let polls = self.watch == Watch::Poll || NetworkShare::of(&self.folder).is_some();
        let watcher = if polls {
            None
        } else {
            let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
                watcher.watch(&self.folder, RecursiveMode::Recursive)?;
                Ok(watcher)
            });
            watcher
                .inspect_err(|e| warn!("{folder} is looked at again and again: {e}"))
                .ok()
        };
        if !self.begun {
            // Only then is the folder's content known.
            self.seen.pass_over(&self.folder)?;
            self.begun = true;
        } else {
            // What came while nobody watched.
            self.seen.look(&self.folder)?;
        }
        let how = if watcher.is_some() {
            "is watched"
        } else {
            "is looked at each second"
        };
        info!("camera {}: {folder} {how}", self.name);
        Ok(Watching {
            watcher,
            changes,
            looked: None,
        })
    }

    fn fail(&mut self, reason: String) -> Captured {
        self.watching = None;
        self.retry_at = Some(Instant::now() + RETRY);
        if self.told.as_ref() != Some(&reason) {
            warn!("camera {}: {reason}", self.name);
            self.told = Some(reason.clone());
        }
        Captured::Trouble(reason)
    }

    fn frame(&mut self, path: &Path) -> Captured {
        let name = path.strip_prefix(&self.folder).unwrap_or(path);
        let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
        let mut tag = FrameTag {
            file: Some(parts.join("/")),
            ..FrameTag::new(self.name.clone(), self.number, SystemClock.monotonic())
        };
        self.number += 1;
        match EncodedPhotograph::open_unnamed(path) {
            Ok(photograph) => {
                let taken = photograph.taken();
                tag.place = taken.place;
                if let Some(time) = taken.time {
                    (tag.moment, tag.dated) = exposed(time, tag.moment, SystemClock.wall());
                }
                let image = photograph.accepting_incomplete().into();
                Captured::Frame(Box::new(Frame { tag, image }))
            }
            Err(e) => Captured::Unusable(UnusableFrame {
                tag,
                reason: e.to_string(),
            }),
        }
    }
}

/// When a photograph was exposed that came at the moment `came`, as the clock on the wall says when the camera's clock
/// told `taken`.
fn exposed(taken: Timestamp, came: Duration, wall: Timestamp) -> (Duration, Dated) {
    let age = wall.duration_since(taken);
    if !(-AHEAD..=OLDEST).contains(&age) {
        return (came, Dated::Doubtful);
    }
    let age = Duration::try_from(age).unwrap_or_default();
    (came.saturating_sub(age), Dated::Exposed)
}

impl Watching {
    /// Hears of changes, no longer than `timeout`.
    fn hear(&mut self, folder: &Path, seen: &mut Seen, timeout: Duration) -> Result<(), String> {
        if self.watcher.is_some() {
            match self.changes.recv_timeout(timeout) {
                Ok(Ok(event)) => self.take(&event, seen),
                Ok(Err(e)) => return Err(format!("watching {} failed: {e}", folder.display())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("watching {} ended", folder.display()));
                }
            }
            while let Ok(Ok(event)) = self.changes.try_recv() {
                self.take(&event, seen);
            }
        } else {
            std::thread::sleep(timeout);
        }
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            if self.watcher.is_none() {
                seen.look(folder)?;
            } else if !folder.is_dir() {
                return Err(format!("{} is gone", folder.display()));
            }
            seen.settle();
            self.looked = Some(Instant::now());
        }
        Ok(())
    }

    fn take(&mut self, event: &Event, seen: &mut Seen) {
        let complete = matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
        );
        let may_be_folder = complete
            || matches!(
                event.kind,
                EventKind::Create(CreateKind::Folder | CreateKind::Any)
            );
        for path in &event.paths {
            if may_be_folder && path.is_dir() {
                // Files may have come before the folder was watched.
                let _ = seen.look(path);
            } else if complete {
                seen.is_complete(path);
            }
        }
        if event.need_rescan() {
            warn!("more changes than the system could tell: the folder is looked through");
            for path in &event.paths {
                let _ = seen.look(path);
            }
        }
    }
}

impl Seen {
    /// What is there is of no interest.
    fn pass_over(&mut self, folder: &Path) -> Result<(), String> {
        for (path, size, changed) in photographs(folder)? {
            self.done.insert(path, (size, changed));
        }
        Ok(())
    }

    /// Finds files that are new or have changed.
    fn look(&mut self, folder: &Path) -> Result<(), String> {
        for (path, size, changed) in photographs(folder)? {
            if self.done.get(&path) == Some(&(size, changed)) {
                continue;
            }
            let known = self.growing.get(&path);
            if known.is_none_or(|known| (known.0, known.1) != (size, changed)) {
                self.growing.insert(path, (size, changed, Instant::now()));
            }
        }
        Ok(())
    }

    /// Takes files that have not changed for a while as complete.
    fn settle(&mut self) {
        let now = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        let mut settled = Vec::new();
        self.growing.retain(|path, (size, changed, since)| {
            match now(path) {
                // It is gone.
                None => return false,
                Some(state) if state != (*size, *changed) => {
                    (*size, *changed) = state;
                    *since = Instant::now();
                }
                Some(_) if *size > 0 && since.elapsed() >= SETTLED_AFTER => {
                    settled.push(path.clone());
                }
                Some(_) => {}
            }
            true
        });
        settled.sort();
        for path in settled {
            self.is_complete(&path);
        }
    }

    /// Whether it lies below the watched folder in one whose name begins with a dot, where software prepares files.
    fn is_hidden(&self, path: &Path) -> bool {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        below
            .iter()
            .any(|part| part.as_encoded_bytes().starts_with(b"."))
    }

    /// A file is complete; if it is a photograph and was not looked at as it is, it will be.
    fn is_complete(&mut self, path: &Path) {
        self.growing.remove(path);
        if !is_photograph(path) || self.is_hidden(path) {
            return;
        }
        // A temporary file may be gone under its first name.
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let state = (metadata.len(), changed);
        if !metadata.is_file() || self.done.get(path) == Some(&state) {
            return;
        }
        self.done.insert(path.to_owned(), state);
        if !has_photograph_beside(path) {
            self.ready.push_back(path.to_owned());
        }
    }
}

/// Whether a raw file has beside it a photograph of its name that is read.
fn has_photograph_beside(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    if READ_ENDINGS.contains(&ending.to_lowercase().as_str()) {
        return false;
    }
    READ_ENDINGS.iter().any(|ending| {
        path.with_extension(ending).exists() || path.with_extension(ending.to_uppercase()).exists()
    })
}

/// Photographs below a folder with size and time of change.
fn photographs(folder: &Path) -> Result<Vec<(PathBuf, u64, SystemTime)>, String> {
    let mut found = Vec::new();
    let walk = WalkDir::new(folder).max_depth(DEPTH).into_iter();
    let visible = walk.filter_entry(|entry| {
        entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
    });
    for entry in visible {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_photograph(entry.path()) => {
                if let Ok(metadata) = entry.metadata()
                    && let Ok(changed) = metadata.modified()
                {
                    found.push((entry.into_path(), metadata.len(), changed));
                }
            }
            Err(e) if e.depth() == 0 => {
                return Err(format!("cannot list {}: {e}", folder.display()));
            }
            // A file or folder that went meanwhile.
            _ => {}
        }
    }
    Ok(found)
}

impl Camera for WatchedFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn backlog(&self) -> Backlog {
        if self.all {
            Backlog::Bounded(BACKLOG)
        } else {
            Backlog::Newest
        }
    }

    fn next(&mut self, timeout: Duration) -> Captured {
        if self.watching.is_none() {
            if let Some(at) = self.retry_at
                && Instant::now() < at
            {
                std::thread::sleep(timeout);
                return Captured::Nothing;
            }
            match self.begin() {
                Ok(watching) => self.watching = Some(watching),
                Err(reason) => return self.fail(reason),
            }
        }
        if self.seen.ready.is_empty() {
            let Some(watching) = &mut self.watching else {
                return Captured::Nothing;
            };
            if let Err(reason) = watching.hear(&self.folder, &mut self.seen, timeout) {
                return self.fail(reason);
            }
        }
        match self.seen.ready.pop_front() {
            Some(path) => {
                self.told = None;
                self.frame(&path)
            }
            None => Captured::Nothing,
        }
    }

    fn close(&mut self) {
        self.watching = None;
    }

    fn format(&self) -> Option<String> {
        let watching = self.watching.as_ref()?;
        let how = if watching.watcher.is_some() {
            "watched"
        } else {
            "looked at each second"
        };
        Some(format!("photographs in {}, {how}", self.folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use image::RgbImage;
    use recognition::pixels::encode_jpeg;

    use super::*;

    const TICK: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Watched {
        folder: tempfile::TempDir,
        camera: WatchedFolder,
    }

    fn jpeg() -> Vec<u8> {
        encode_jpeg(&RgbImage::new(64, 48), 80).unwrap()
    }

    impl Watched {
        fn new(watch: Watch) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("before.jpg"), jpeg()).unwrap();
            let mut camera = WatchedFolder::new("left", folder.path(), watch).unwrap();
            assert!(matches!(camera.next(TICK), Captured::Nothing));
            Self { folder, camera }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// The next frame's file, or why it is none.
        fn next(&mut self) -> Result<String, String> {
            let start = Instant::now();
            loop {
                match self.camera.next(TICK) {
                    Captured::Frame(frame) => return Ok(frame.tag.file.unwrap()),
                    Captured::Unusable(frame) => return Err(frame.reason),
                    Captured::Trouble(reason) => return Err(reason),
                    _ => assert!(start.elapsed() < PATIENCE, "no frame came"),
                }
            }
        }

        /// Nothing comes for longer than a complete file takes to come.
        fn is_silent(&mut self) {
            let start = Instant::now();
            while start.elapsed() < SETTLED_AFTER + 2 * LOOK_EVERY {
                if let Captured::Frame(frame) = self.camera.next(TICK) {
                    panic!("{:?} came", frame.tag.file);
                }
            }
        }
    }

    #[test]
    fn files_come_when_they_are_complete_and_once() {
        for watch in [Watch::Auto, Watch::Poll] {
            let mut watched = Watched::new(watch);
            fs::write(watched.path("a.JPG"), jpeg()).unwrap();
            assert_eq!(watched.next().unwrap(), "a.JPG");
            // Written under another name first.
            fs::write(watched.path("b.jpg.part"), jpeg()).unwrap();
            fs::rename(watched.path("b.jpg.part"), watched.path("b.jpg")).unwrap();
            assert_eq!(watched.next().unwrap(), "b.jpg");
            fs::write(watched.path("notes.txt"), "calm").unwrap();
            fs::write(watched.path(".c.jpg"), jpeg()).unwrap();
            fs::write(watched.path("broken.jpg"), "not a photograph").unwrap();
            assert!(watched.next().unwrap_err().contains("neither JPEG"));
            // Overwritten with something else.
            let other = encode_jpeg(&RgbImage::new(80, 48), 80).unwrap();
            fs::write(watched.path("a.JPG"), other).unwrap();
            assert_eq!(watched.next().unwrap(), "a.JPG");
            watched.is_silent();
        }
    }

    #[test]
    fn a_file_that_is_still_written_waits() {
        for watch in [Watch::Auto, Watch::Poll] {
            let mut watched = Watched::new(watch);
            let bytes = jpeg();
            let mut file = fs::File::create(watched.path("slow.jpg")).unwrap();
            for piece in bytes.chunks(bytes.len() / 5 + 1) {
                file.write_all(piece).unwrap();
                let start = Instant::now();
                while start.elapsed() < LOOK_EVERY {
                    assert!(matches!(watched.camera.next(TICK), Captured::Nothing));
                }
            }
            drop(file);
            assert_eq!(watched.next().unwrap(), "slow.jpg");
        }
    }

    #[test]
    fn folders_below_belong_to_it() {
        for watch in [Watch::Auto, Watch::Poll] {
            let mut watched = Watched::new(watch);
            // Made and filled at once, so that the file may come before the folder is watched.
            fs::create_dir_all(watched.path("flight 7/left")).unwrap();
            fs::write(watched.path("flight 7/left/1.jpg"), jpeg()).unwrap();
            assert_eq!(watched.next().unwrap(), "flight 7/left/1.jpg");
            fs::write(watched.path("flight 7/left/2.jpg"), jpeg()).unwrap();
            assert_eq!(watched.next().unwrap(), "flight 7/left/2.jpg");
            fs::create_dir(watched.path(".cache")).unwrap();
            fs::write(watched.path(".cache/3.jpg"), jpeg()).unwrap();
            watched.is_silent();
        }
    }

    #[test]
    fn a_folder_that_goes_and_returns_is_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let share = folder.path().join("share");
        let mut camera = WatchedFolder::new("left", &share, Watch::Auto).unwrap();
        assert!(
            matches!(camera.next(TICK), Captured::Trouble(_)),
            "it is not there"
        );
        fs::create_dir(&share).unwrap();
        let mut watched = Watched { folder, camera };
        let start = Instant::now();
        while watched.camera.watching.is_none() {
            assert!(start.elapsed() < PATIENCE);
            watched.camera.next(TICK);
        }
        fs::write(watched.path("share/1.jpg"), jpeg()).unwrap();
        assert_eq!(watched.next().unwrap(), "1.jpg");
        fs::rename(&share, watched.path("gone")).unwrap();
        let said = watched.next().unwrap_err();
        assert!(said.contains("share"), "{said}");
        fs::rename(watched.path("gone"), &share).unwrap();
        // Before it is watched again.
        fs::write(watched.path("share/2.jpg"), jpeg()).unwrap();
        assert_eq!(watched.next().unwrap(), "2.jpg");
    }

    #[test]
    fn exif_says_when_and_where() {
        let dated = |time: Timestamp| {
            let local = time.to_zoned(jiff::tz::TimeZone::UTC);
            let ascii = |tag, text: String| exif::Field {
                tag,
                ifd_num: exif::In::PRIMARY,
                value: exif::Value::Ascii(vec![text.into_bytes()]),
            };
            let fields = [
                ascii(
                    exif::Tag::DateTimeOriginal,
                    local.strftime("%Y:%m:%d %H:%M:%S").to_string(),
                ),
                ascii(exif::Tag::OffsetTimeOriginal, "+00:00".into()),
            ];
            let mut writer = exif::experimental::Writer::new();
            fields.iter().for_each(|field| writer.push_field(field));
            let mut tiff = std::io::Cursor::new(Vec::new());
            writer.write(&mut tiff, false).unwrap();
            let content = [b"Exif\0\0".as_slice(), &tiff.into_inner()].concat();
            let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
            let jpeg = jpeg();
            [&jpeg[..2], &[0xff, 0xe1], &length, &content, &jpeg[2..]].concat()
        };
        let folder = tempfile::tempdir().unwrap();
        let mut camera = WatchedFolder::new("left", folder.path(), Watch::Auto).unwrap();
        let mut tag_of = |taken: Timestamp| {
            let path = folder.path().join("dated.jpg");
            fs::write(&path, dated(taken)).unwrap();
            match camera.frame(&path) {
                Captured::Frame(frame) => frame.tag,
                _ => panic!("no frame"),
            }
        };
        let second = |time: Timestamp| time.round(jiff::Unit::Second).unwrap();
        let ago = |moment: Duration| SystemClock.monotonic().saturating_sub(moment).as_secs();
        let tag = tag_of(second(SystemClock.wall() - SignedDuration::from_mins(5)));
        assert_eq!(tag.dated, Dated::Exposed);
        assert!((299..=330).contains(&ago(tag.moment)), "{tag:?}");
        for never in [
            second(SystemClock.wall() + SignedDuration::from_hours(2)),
            "2014-06-01T12:00:00Z".parse().unwrap(),
        ] {
            let tag = tag_of(never);
            assert_eq!(tag.dated, Dated::Doubtful);
            assert!(ago(tag.moment) < 30, "{tag:?}");
        }
        // Appended to, as by slow software that writes metadata later, it is another file.
        let mut seen = Seen {
            root: folder.path().to_owned(),
            ..Seen::default()
        };
        let path = folder.path().join("dated.jpg");
        seen.is_complete(&path);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[0]).unwrap();
        seen.is_complete(&path);
        assert_eq!(seen.ready.len(), 2);
    }
}
