use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use link::archive::KeptBecause;
use link::message::TimeQuality;
use proptest::prelude::*;

use super::*;
use crate::archive::test_record::record;

const TIME: &str = "2026-03-01T14:15:59.123Z";
const CAMERA: &str = "2026-03-01_000000000007/left";

fn open(folder: &Path, budget: u64) -> Store {
    Store::open(&Settings {
        budget: Some(budget),
        ..Settings::new(folder.to_owned())
    })
    .unwrap()
}

/// A picture of so many bytes. Each minute has a frame, so that numbers are in the names.
fn put(
    store: &mut Store,
    number: u64,
    worth: Worth,
    bytes: usize,
) -> Result<Written, ArchiveError> {
    let record = ArchiveRecord {
        kept_because: match worth {
            Worth::Empty => KeptBecause::EveryNth,
            Worth::Whale => KeptBecause::Whale,
            Worth::Crop => KeptBecause::Crop,
        },
        ..record(number, TIME)
    };
    store.put(record, worth, "jpg", &vec![number as u8; bytes])
}

/// All files below a folder with their contents.
fn walk(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter();
    let files = files
        .map(Result::unwrap)
        .filter(|file| file.file_type().is_file());
    files
        .map(|file| {
            let name = file.path().strip_prefix(folder).unwrap().to_str().unwrap();
            (name.to_owned(), fs::read(file.path()).unwrap())
        })
        .filter(|(name, _)| !name.starts_with(INDEX))
        .collect()
}

/// The pictures that the index knows, oldest first.
fn pictures(store: &Store) -> Vec<String> {
    let mut pictures = Vec::new();
    store
        .index
        .for_each(|entry| pictures.push(entry.picture))
        .unwrap();
    pictures
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The program ends before the nth step, without a word.
    Killed(usize),
    /// The nth step fails.
    Fails(usize, io::ErrorKind),
}

struct Killed;

fn injected(fault: Fault) -> Box<dyn FnMut() -> io::Result<()> + Send> {
    let mut steps = 0;
    Box::new(move || {
        steps += 1;
        match fault {
            Fault::Killed(step) if step == steps => resume_unwind(Box::new(Killed)),
            Fault::Fails(step, kind) if step == steps => Err(kind.into()),
            _ => Ok(()),
        }
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        3 => (1..24_usize).prop_map(Fault::Killed),
        1 => (1..24_usize).prop_map(|step| Fault::Fails(step, io::ErrorKind::StorageFull)),
        1 => (1..24_usize).prop_map(|step| Fault::Fails(step, io::ErrorKind::Other)),
    ]
}

const BUDGET: u64 = 1_800_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever ends the program and whichever step fails: each file is somebody else's and untouched, or whole and in the
    /// index; each entry of the index has its files; what goes to make room is what is worth least and of that the oldest,
    /// never what is pinned, and never more than was needed for the bytes counted.
    #[test]
    fn nothing_is_lost_leaked_or_taken_from_others(
        steps in prop::collection::vec((0..3_usize, 1000..600_000_usize, fault(), prop::bool::weighted(0.15)), 6..20)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut others = BTreeMap::new();
        let mut plant = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            others.insert(name.to_owned(), content.as_bytes().to_vec());
        };
        plant("holiday.jpg", "somebody's");
        plant(&format!("{CAMERA}/notes.txt"), "somebody's too");
        // Names that pictures of ours are to have.
        plant(&format!("{CAMERA}/20260301T141559.123Z_000000.jpg"), "first");
        plant(&format!("{CAMERA}/20260301T141559.123Z_000002.json"), "second");
        plant(&format!("{CAMERA}/.00000000-1.picture.part"), "third");
        let mut store = open(folder.path(), BUDGET);
        // By age: name, worth, pinned.
        let mut model: Vec<(String, Worth, bool)> = Vec::new();
        for (number, (worth, bytes, fault, pinned)) in steps.into_iter().enumerate() {
            let worth = Worth::ALL[worth];
            store.before_step = injected(fault);
            let done = catch_unwind(AssertUnwindSafe(|| put(&mut store, number as u64, worth, bytes)));
            if let Err(panic) = &done {
                prop_assert!(panic.is::<Killed>(), "another panic");
            }
            if !matches!(done, Ok(Ok(_))) {
                drop(store);
                store = open(folder.path(), BUDGET);
            }
            store.before_step = injected(Fault::None);

            let now = pictures(&store);
            let mut candidates: Vec<_> = model.iter().filter(|(_, of, pinned)| *of <= worth && !pinned).cloned().collect();
            candidates.sort_by_key(|(_, worth, _)| *worth);
            let gone = model.iter().filter(|(name, ..)| !now.contains(name)).count();
            let mut allowed: BTreeSet<_> = model.iter().map(|(name, ..)| name.clone()).collect();
            for (name, ..) in candidates.iter().take(gone) {
                allowed.remove(name);
            }
            let kept: BTreeSet<_> = now.iter().filter(|name| model.iter().any(|(of, ..)| of == *name)).cloned().collect();
            prop_assert_eq!(&kept, &allowed, "what went was not what is worth least");
            model.retain(|(name, ..)| kept.contains(name));
            let new: Vec<_> = now.iter().filter(|name| !kept.contains(*name)).collect();
            if let Ok(Ok(written)) = &done {
                prop_assert_eq!(&new, &[&written.picture]);
                prop_assert_eq!(written.deleted.empty + written.deleted.whales, gone as u64);
                prop_assert!(store.index.picture_bytes().unwrap() <= BUDGET);
            }
            prop_assert!(new.len() <= 1);
            // A picture that a fault cut short is there whole or not at all.
            for name in new {
                if pinned {
                    prop_assert_eq!(store.pin(name, true).unwrap(), 1);
                }
                model.push((name.clone(), worth, pinned));
                let content = fs::read(folder.path().join(name)).unwrap();
                prop_assert_eq!(content, vec![number as u8; bytes]);
                let said = fs::read(folder.path().join(name).with_extension("json")).unwrap();
                let said: ArchiveRecord = serde_json::from_slice(&said).unwrap();
                prop_assert!(name.ends_with(&said.picture));
            }

            let mut files = walk(folder.path());
            for (name, content) in &others {
                let found = files.remove(name);
                prop_assert_eq!(found.as_ref(), Some(content), "{} of somebody else", name);
            }
            let ours: BTreeSet<_> = now.iter().flat_map(|name| {
                [name.clone(), name.replace(".jpg", ".json")]
            }).collect();
            prop_assert_eq!(files.keys().cloned().collect::<BTreeSet<_>>(), ours);
            prop_assert!(store.index.unfinished().unwrap().is_empty());
            let bytes: u64 = now.iter().map(|name| {
                bytes_on_disk(files[name].len() as u64, files[&name.replace(".jpg", ".json")].len() as u64)
            }).sum();
            prop_assert_eq!(bytes, store.index.picture_bytes().unwrap());
            let pinned = model.iter().filter(|(.., pinned)| *pinned).count();
            prop_assert_eq!(store.pinned().unwrap().pictures, pinned as u64);
        }
    }
}

#[test]
fn a_frame_without_a_whale_takes_the_place_of_no_whale() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 1_500_000);
    for number in 0..20 {
        if let Err(e) = put(&mut store, number, Worth::Whale, 200_000) {
            panic!("{e}");
        }
    }
    let before = pictures(&store);
    assert!(before.len() < 7, "{before:?}");
    let refused = put(&mut store, 20, Worth::Empty, 400_000).unwrap_err();
    assert!(refused.is_full());
    assert!(
        refused.to_string().contains("of 1500000 bytes are used"),
        "{refused}"
    );
    assert_eq!(pictures(&store), before);
    assert_eq!(
        store
            .pin(&record(0, TIME).event_id.to_string(), true)
            .unwrap(),
        before.len()
    );
    assert!(
        put(&mut store, 21, Worth::Whale, 400_000)
            .unwrap_err()
            .is_full()
    );
    assert_eq!(pictures(&store), before, "all are pinned");
    let sighting = record(0, TIME).heads[0].occurrence_id.to_string();
    assert_eq!(store.pin(&sighting, false).unwrap(), before.len());
    let written = put(&mut store, 22, Worth::Crop, 400_000).unwrap();
    assert!(written.deleted.whales >= 1);
}

#[test]
fn what_others_changed_or_moved_is_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 1_500_000);
    let of = |camera: &str, number| ArchiveRecord {
        camera: camera.to_owned(),
        kept_because: KeptBecause::EveryNth,
        ..record(number, TIME)
    };
    let mut name = |camera, number| {
        let content = vec![1; 300_000];
        store
            .put(of(camera, number), Worth::Empty, "jpg", &content)
            .unwrap()
            .picture
    };
    let (edited, moved) = (name("left", 0), name("right", 1));
    fs::write(folder.path().join(&edited), "retouched").unwrap();
    // Somebody moves a camera's folder to another disk and leaves a link.
    let camera = folder.path().join(&moved).parent().unwrap().to_owned();
    let there = elsewhere.path().join("right");
    fs::create_dir(&there).unwrap();
    for file in fs::read_dir(&camera).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), there.join(file.file_name())).unwrap();
    }
    fs::remove_dir_all(&camera).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&there, &camera).unwrap();
    for number in 2..14 {
        put(&mut store, number, Worth::Empty, 300_000).unwrap();
    }
    assert_eq!(fs::read(folder.path().join(&edited)).unwrap(), b"retouched");
    assert_eq!(fs::read_dir(&there).unwrap().count(), 2);
    assert!(!pictures(&store).contains(&moved));
    // Nor is anything written through the link.
    let refused = store
        .put(of("right", 20), Worth::Whale, "jpg", &[1; 10])
        .unwrap_err();
    assert!(
        matches!(refused, ArchiveError::LeadsElsewhere { .. }),
        "{refused}"
    );
    assert_eq!(fs::read_dir(&there).unwrap().count(), 2);
}

#[test]
fn pictures_of_one_name_and_of_no_trusted_time_all_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), u64::MAX);
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(put(&mut store, 4, Worth::Whale, 10).unwrap().picture);
    }
    let undated = ArchiveRecord {
        time_quality: TimeQuality::Unset,
        time: "1970-01-01T00:00:10Z".parse().unwrap(),
        ..record(5, TIME)
    };
    names.push(
        store
            .put(undated, Worth::Whale, "jpg", &[1; 10])
            .unwrap()
            .picture,
    );
    assert_eq!(
        names[..3],
        ["", "-2", "-3"].map(|n| format!("{CAMERA}/20260301T141559.123Z_000004{n}.jpg"))
    );
    assert!(
        names[3].starts_with("undated_000000000007/left/undated-"),
        "{}",
        names[3]
    );
    assert!(!names[3].contains("1970") && !names[3].contains("2026"));
    assert_eq!(walk(folder.path()).len(), 8);
    let mut wrong = Vec::new();
    fs::remove_file(folder.path().join(&names[1])).unwrap();
    assert_eq!(
        store
            .verify(|name, found| wrong.push((name.to_owned(), found)))
            .unwrap(),
        4
    );
    assert_eq!(wrong, [(names[1].clone(), Found::Missing)]);
}

#[test]
fn a_damaged_index_is_moved_aside_and_what_it_knew_is_let_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 1_500_000);
    let old = put(&mut store, 0, Worth::Empty, 100_000).unwrap().picture;
    drop(store);
    fs::write(folder.path().join(INDEX), vec![0x5a; 40_000]).unwrap();
    let mut store = open(folder.path(), 1_500_000);
    assert!(pictures(&store).is_empty());
    for number in 0..12 {
        put(&mut store, number, Worth::Empty, 200_000).unwrap();
    }
    assert_eq!(fs::read(folder.path().join(old)).unwrap(), vec![0; 100_000]);
    assert!(folder.path().join("index.damaged-1.sqlite").exists());
}

#[test]
fn an_archive_belongs_to_one_process_and_its_folder_to_its_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 1_500_000);
    let second = Store::open(&Settings::new(folder.path().to_owned()));
    let error = second.err().unwrap();
    assert!(matches!(error, ArchiveError::InUse { .. }), "{error}");
    let none = Store::open_existing(&folder.path().join("none"))
        .err()
        .unwrap();
    assert!(matches!(none, ArchiveError::NoArchive { .. }), "{none}");
    assert!(!folder.path().join("none").exists());
    // The disk is pulled: the folder that is there now is an empty one below it.
    fs::rename(folder.path(), folder.path().with_extension("gone")).unwrap();
    fs::create_dir(folder.path()).unwrap();
    let error = put(&mut store, 0, Worth::Whale, 10).unwrap_err();
    assert!(matches!(error, ArchiveError::OtherDisk { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::remove_dir_all(folder.path().with_extension("gone")).unwrap();
}

/// What another process asks to keep while this one has the archive stays, from when it was told so; and goes when it asks
/// for that.
#[test]
fn what_others_ask_to_pin_is_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let none = Store::ask(&folder.path().join("none"), "x", true).unwrap_err();
    assert!(matches!(none, ArchiveError::NoArchive { .. }), "{none}");
    let mut store = open(folder.path(), BUDGET);
    let first = put(&mut store, 0, Worth::Empty, 200_000).unwrap().picture;
    Store::ask(folder.path(), &first, true).unwrap();
    // Cut short by a loss of power, and nothing that is there.
    let pins = pins::path(&folder.path().join(INDEX));
    let mut half = fs::read(&pins).unwrap();
    half.extend(b"\n{\"what\":\"unp");
    fs::write(&pins, half).unwrap();
    Store::ask(folder.path(), "nothing-that-is-there.jpg", true).unwrap();
    for number in 1..30 {
        put(&mut store, number, Worth::Empty, 200_000).unwrap();
    }
    assert!(folder.path().join(&first).exists());
    assert_eq!(store.pinned().unwrap().pictures, 1);
    assert_eq!(fs::metadata(&pins).unwrap().len(), 0);
    // In the order in which it was asked.
    let last = pictures(&store).last().unwrap().clone();
    for (what, pinned) in [(&last, true), (&first, true), (&first, false)] {
        Store::ask(folder.path(), what, pinned).unwrap();
    }
    for number in 30..60 {
        put(&mut store, number, Worth::Empty, 200_000).unwrap();
    }
    assert!(!folder.path().join(&first).exists());
    assert!(folder.path().join(&last).exists());
    // Asked when nobody has the archive open.
    drop(store);
    let newest = pictures(&open(folder.path(), BUDGET))
        .last()
        .unwrap()
        .clone();
    Store::ask(folder.path(), &newest, true).unwrap();
    assert_eq!(open(folder.path(), BUDGET).pinned().unwrap().pictures, 2);
}

/// Asked at any moment: what is there when the answer comes is there in the end.
#[test]
fn nothing_is_deleted_after_it_was_promised_to_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), BUDGET);
    put(&mut store, 0, Worth::Empty, 100_000).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let promised = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut promised = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) && promised.len() < 8 {
                // The oldest is the next to go.
                let files = walk_names(folder.path());
                let oldest = files.iter().find(|name| !promised.contains(*name));
                if let Some(oldest) = oldest {
                    Store::ask(folder.path(), oldest, true).unwrap();
                    if folder.path().join(oldest).exists() {
                        promised.push(oldest.clone());
                    }
                }
                std::thread::yield_now();
            }
            promised
        });
        for number in 1..150 {
            put(&mut store, number, Worth::Empty, 100_000).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(!promised.is_empty());
    for name in &promised {
        assert!(folder.path().join(name).exists(), "{name} of {promised:?}");
    }
}

/// Pictures that are whole, oldest first.
fn walk_names(folder: &Path) -> Vec<String> {
    let Ok(files) = fs::read_dir(folder.join(CAMERA)) else {
        return Vec::new();
    };
    let names = files
        .flatten()
        .map(|file| file.file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(".jpg"))
        .map(|name| format!("{CAMERA}/{name}"))
        .collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Records get their dates when the time becomes known; whatever ends that, each is there with its date or as it was,
    /// nothing is left over, and another attempt dates the rest.
    #[test]
    fn records_are_dated_whatever_comes_between(
        faults in prop::collection::vec(fault(), 4..5),
        taken in 1..2_000_000_i64, by in 1..1_000_000_000_i64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), u64::MAX);
        let since = crate::clock::built();
        let told = since + jiff::SignedDuration::from_millis(taken);
        let correction = Correction {
            since,
            by: jiff::SignedDuration::from_secs(by),
            is_new: true,
        };
        let flight = record(0, TIME).event_id;
        let undated = |number: u64, time| ArchiveRecord {
            time,
            time_quality: TimeQuality::Unset,
            flight_time: told,
            ..record(number, TIME)
        };
        for number in 0..faults.len() as u64 {
            store.put(undated(number, told), Worth::Whale, "jpg", &[1; 10]).unwrap();
        }
        // Another clock told this one; and one that has its date.
        let earlier = since - jiff::SignedDuration::from_secs(1);
        let other = store.put(undated(9, earlier), Worth::Whale, "jpg", &[1; 10]).unwrap().picture;
        put(&mut store, 10, Worth::Whale, 10).unwrap();
        let before = walk(folder.path());
        for fault in faults {
            let waiting = store.undated(flight).unwrap();
            store.before_step = injected(fault);
            let done = catch_unwind(AssertUnwindSafe(|| {
                waiting.iter().try_for_each(|entry| store.date(entry, &correction).map(drop))
            }));
            if !matches!(done, Ok(Ok(()))) {
                drop(store);
                store = open(folder.path(), u64::MAX);
            }
            let now = walk(folder.path());
            prop_assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
            prop_assert!(store.index.being_dated().unwrap().is_empty());
        }
        store.before_step = injected(Fault::None);
        for entry in store.undated(flight).unwrap() {
            store.date(&entry, &correction).unwrap();
        }
        let mut wrong = Vec::new();
        store.verify(|name, _| wrong.push(name.to_owned())).unwrap();
        prop_assert!(wrong.is_empty(), "{:?}", wrong);
        let right = correction.right(told).unwrap();
        for (name, content) in walk(folder.path()).iter().filter(|(name, _)| name.ends_with(".json")) {
            let record: ArchiveRecord = serde_json::from_slice(content).unwrap();
            let is_other = *name == other.replace(".jpg", ".json");
            if name.starts_with("undated_") && !is_other {
                prop_assert_eq!((record.time, record.time_quality), (right, TimeQuality::Corrected));
                prop_assert_eq!(record.flight_time, told);
            } else {
                prop_assert_eq!(content, &before[name]);
            }
        }
    }
}

/// Prints what the README says: how long it takes to open an archive of a million pictures, and to write one more.
#[test]
#[ignore = "takes a minute; prints figures"]
fn a_million_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(INDEX);
    drop(open(folder.path(), u64::MAX));
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
             INSERT INTO picture (picture, record, picture_bytes, record_bytes, disk_bytes, worth, complete, flight,
                                  occurrences)
             SELECT 'flight/camera/' || i || '.jpg', 'flight/camera/' || i || '.json', 3000000, 1000, 3006464,
                    i % 3, 1, 'flight ' || (i / 10000), '[]' FROM n;
             COMMIT;",
        )
        .unwrap();
    drop(database);
    let begin = Instant::now();
    let mut store = open(folder.path(), u64::MAX);
    let opened = begin.elapsed();
    assert_eq!(store.total(Worth::Whale).unwrap().pictures, 333_334);
    let begin = Instant::now();
    put(&mut store, 0, Worth::Whale, 3_000_000).unwrap();
    let wrote = begin.elapsed();
    store.budget = 3_006_464 * 999_000 + store.index.bytes();
    let begin = Instant::now();
    let deleted = put(&mut store, 1, Worth::Whale, 3_000_000).unwrap().deleted;
    eprintln!(
        "opened in {opened:.1?}; one more picture of 3 MB in {wrote:.1?}; another one for which {deleted:?} in {:.1?}; \
         index of {} MB",
        begin.elapsed(),
        store.index.bytes() / 1_000_000
    );
}

/// Against a map in memory: messages stay in the order in which they were first said, one of the same number takes the place
/// of the one before it, other runs have numbers of their own, and what was kept is there when the archive is opened again.
#[test]
fn messages_are_kept_in_order_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let message = |said: u8| ArchivedMessage {
        topic: format!("callosity/v1/test/{}", said % 3),
        content_type: "application/json".to_owned(),
        payload: vec![said; usize::from(said)],
    };
    let mut expected: Vec<((u128, i64), ArchivedMessage)> = Vec::new();
    let mut state = 1_u32;
    for _ in 0..20 {
        let mut store = open(folder.path(), u64::MAX);
        for run in 1..3 {
            let mut several: Vec<(i64, ArchivedMessage)> = Vec::new();
            for _ in 0..5 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (number, said) = (i64::from(state >> 27), (state >> 16) as u8);
                several.push((number, message(said)));
            }
            store.keep_messages(Uuid::from_u128(run), &several).unwrap();
            for (number, message) in several {
                match expected.iter_mut().find(|(key, _)| *key == (run, number)) {
                    // Where it goes does not change.
                    Some((_, earlier)) => earlier.payload = message.payload,
                    None => expected.push(((run, number), message)),
                }
            }
        }
        drop(store);
        let store = open(folder.path(), u64::MAX);
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = store.messages_after(after, 7).unwrap();
            let Some((last, _)) = page.last() else {
                break;
            };
            after = *last;
            found.extend(page.into_iter().map(|(_, message)| message));
        }
        assert_eq!(found.len() as u64, store.messages().unwrap());
        assert!(found.iter().eq(expected.iter().map(|(_, message)| message)));
    }
}

#[test]
fn messages_have_room_made_for_them_and_are_refused_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 1_000_000);
    for number in 0..5 {
        put(&mut store, number, Worth::Empty, 100_000).unwrap();
    }
    let message = |bytes: usize| ArchivedMessage {
        topic: "callosity/v1/test/sighting".to_owned(),
        content_type: "application/json".to_owned(),
        payload: vec![7; bytes],
    };
    let run = Uuid::from_u128(1);
    store.keep_messages(run, &[(1, message(400_000))]).unwrap();
    assert!(store.total(Worth::Empty).unwrap().pictures < 5);
    let refused = store.keep_messages(run, &[(2, message(2_000_000))]);
    assert!(refused.unwrap_err().is_full());
    assert_eq!(store.messages().unwrap(), 1);
}
