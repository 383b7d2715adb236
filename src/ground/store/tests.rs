use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use link::codec::{Encoding, decode_as};
use link::message::{
    BasisOfRecord, Candidate, Decision, FrameReference, Georeference, Head, PixelPosition, Place,
    Sighting, SightingState,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::*;
use crate::receiver::{Delivery, Received};

const PASSWORD: &str = "a long enough password";

pub(crate) fn sighting(number: u128, revision: u32) -> Sighting {
    Sighting {
        occurrence_id: Uuid::from_u128(number),
        state: SightingState::New,
        revision,
        event_date: Timestamp::from_millisecond(1_790_000_000_000 + 1000 * number as i64).unwrap(),
        platform: "N57RW".into(),
        event_id: Some(Uuid::from_u128(7)),
        camera: Some("left".into()),
        basis_of_record: BasisOfRecord::MachineObservation,
        scientific_name: "Eubalaena glacialis".into(),
        identified_by: "callosity".into(),
        decision: Decision::Identified,
        organism_id: Some("Comet".into()),
        unknown_probability: Some(0.1),
        candidates: [("Comet", 0.7), ("Marble", 0.2)]
            .map(|(name, probability)| Candidate {
                organism_id: name.into(),
                probability,
            })
            .into(),
        provisional_id: None,
        frames_seen: Some(revision + 1),
        frame: FrameReference {
            number: 3,
            file: None,
            width_pixels: 3072,
            height_pixels: 2048,
            incomplete: None,
            damaged: None,
        },
        head: Head {
            bonnet_pixels: PixelPosition { x: 100.0, y: 100.0 },
            blowhead_pixels: PixelPosition { x: 50.0, y: 100.0 },
            head_length_pixels: 50.0,
            confidence: 0.9,
        },
        time_quality: None,
        georeference: Georeference {
            place: Some(Place {
                decimal_latitude: 41.9,
                decimal_longitude: -69.9,
                coordinate_uncertainty_in_meters: 15.0,
                fix_age_seconds: 0.5,
            }),
            ..Georeference::default()
        },
    }
}

pub(crate) fn delivery(topic: &str, encoding: Option<Encoding>, payload: Vec<u8>) -> Delivery {
    let content_type = encoding.map(|encoding| encoding.content_type().to_owned());
    let received = decode_as(content_type.as_deref(), &payload);
    Delivery {
        topic: topic.to_owned(),
        platform: topic.split('/').nth(2).unwrap().parse().unwrap(),
        is_retained: false,
        received: match received {
            Ok(sighting) => Received::Sighting(sighting),
            Err(e) => Received::Malformed {
                topic: topic.to_owned(),
                reason: e.to_string(),
            },
        },
        content_type,
        payload: Bytes::from(payload),
    }
}

pub(crate) fn of_sighting(sighting: &Sighting, encoding: Encoding) -> Delivery {
    let topic = format!("callosity/v1/{}/sighting", sighting.platform);
    delivery(&topic, Some(encoding), encoding.encode(sighting))
}

fn of_crop(number: u128, jpeg: &[u8]) -> Delivery {
    let sighting = Uuid::from_u128(number);
    Delivery {
        topic: format!("callosity/v1/N57RW/crop/{sighting}"),
        platform: "N57RW".parse().unwrap(),
        is_retained: false,
        content_type: Some("image/jpeg".to_owned()),
        payload: Bytes::copy_from_slice(jpeg),
        received: Received::Crop {
            sighting,
            jpeg: jpeg.to_vec(),
        },
    }
}

/// Address of a PostgreSQL server on which these tests run, instead of on SQLite.
const SERVER: &str = "CALLOSITY_TEST_POSTGRESQL";

/// On PostgreSQL each folder has a database of its own.
async fn open(folder: &Path) -> Store {
    let Ok(server) = std::env::var(SERVER) else {
        return Store::open(folder, None).await.unwrap();
    };
    let digest = hex::encode(Sha256::digest(folder.to_string_lossy().as_bytes()));
    let database = format!("t{}", &digest[..24]);
    DRIVERS.call_once(install_default_drivers);
    let administrator = AnyPoolOptions::new().max_connections(1);
    let administrator = administrator
        .connect(&format!("{server}/postgres"))
        .await
        .unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {database}"));
    if let Err(e) = sqlx::query(create).execute(&administrator).await {
        assert!(e.to_string().contains("already exists"), "{e}");
    }
    administrator.close().await;
    let address = format!("{server}/{database}");
    Store::open(folder, Some(&address)).await.unwrap()
}

fn is_postgresql() -> bool {
    std::env::var_os(SERVER).is_some()
}

/// A server of one's own, without a password, on a free port of loopback; ended when dropped.
struct Postgresql {
    programs: PathBuf,
    folder: tempfile::TempDir,
    address: String,
}

impl Postgresql {
    fn start() -> Option<Self> {
        let installed = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten();
        let programs = installed.map(|version| version.path().join("bin"));
        let programs = programs
            .filter(|programs| programs.join("initdb").exists())
            .max()?;
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display().to_string();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            programs,
            address: format!("postgres://postgres@127.0.0.1:{port}"),
            folder,
        };
        // It does not run as root.
        let owned = Command::new("chown").args(["postgres", &here]).status();
        assert!(!is_root() || owned.unwrap().success());
        server.run(
            "initdb",
            &[
                "--auth",
                "trust",
                "--username",
                "postgres",
                "--encoding",
                "UTF8",
            ],
        );
        let options = format!(
            "-k {here} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        );
        server.run(
            "pg_ctl",
            &[
                "--wait",
                "--log",
                &format!("{here}/log"),
                "--options",
                &options,
                "start",
            ],
        );
        Some(server)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("--pgdata").arg(self.folder.path().join("data"));
        let status = command
            .args(arguments)
            .current_dir("/")
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{command:?}");
    }
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        self.run("pg_ctl", &["--mode", "immediate", "stop"]);
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

/// All other tests of this module, on a real PostgreSQL.
#[test]
fn the_same_holds_on_postgresql() {
    if is_postgresql() {
        return;
    }
    let Some(server) = Postgresql::start() else {
        eprintln!("SKIPPED: PostgreSQL is not installed");
        return;
    };
    let tested = Command::new(std::env::current_exe().unwrap())
        .args(["store::tests", "--test-threads", "2"])
        .env(SERVER, &server.address)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(
        tested.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&tested.stderr)
    );
    assert!(
        said.contains("a_decision_is_of_one_sighting_and_never_overwrites ... ok"),
        "{said}"
    );
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// What happens to a store: messages come in one go, with repetitions and in any order, or the program ends and begins anew.
#[derive(Clone, Debug)]
enum Event {
    Messages(Vec<(u128, u32, bool)>),
    Crop(u128, u8),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let message = (1..5_u128, 0..4_u32, any::<bool>());
    let event = prop_oneof![
        6 => prop::collection::vec(message, 1..6).prop_map(Event::Messages),
        3 => (1..5_u128, 0..2_u8).prop_map(|(number, picture)| Event::Crop(number, picture)),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 1..12)
}

/// What a store has of sightings: each with its number of revisions and its pictures.
async fn held(store: &Store) -> Vec<(Summary, u32, BTreeSet<String>)> {
    let mut held = Vec::new();
    for summary in store.search(&Search::default()).await.unwrap() {
        let details = store.sighting(summary.id).await.unwrap().unwrap();
        held.push((
            summary,
            details.revisions,
            details.crops.into_iter().collect(),
        ));
    }
    held
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against sets in memory: each revision and each crop once, the newest revision shown, whatever came in which order,
    /// as JSON or CBOR, and however often the program ended in between.
    #[test]
    fn what_came_is_kept_once(events in events()) {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = open(folder.path()).await;
            let mut revisions: BTreeSet<(u128, u32)> = BTreeSet::new();
            let mut crops: BTreeMap<u128, BTreeSet<u8>> = BTreeMap::new();
            let mut repeated = 0;
            let mut kept_as_repeated = 0;
            for event in events {
                match event {
                    Event::Messages(messages) => {
                        let deliveries: Vec<_> = messages.iter().map(|(number, revision, cbor)| {
                            let encoding = if *cbor { Encoding::Cbor } else { Encoding::Json };
                            repeated += u64::from(!revisions.insert((*number, *revision)));
                            of_sighting(&sighting(*number, *revision), encoding)
                        }).collect();
                        kept_as_repeated += store.keep(&deliveries).await.unwrap().repeated;
                    }
                    Event::Crop(number, picture) => {
                        let new = crops.entry(number).or_default().insert(picture);
                        repeated += u64::from(!new);
                        let jpeg = [0xff, 0xd8, 0xff, picture, number as u8];
                        kept_as_repeated += store.keep(&[of_crop(number, &jpeg)]).await.unwrap().repeated;
                    }
                    Event::Restart => {
                        // As a kill would: nothing is closed in order, but for the lock.
                        drop(store);
                        store = open(folder.path()).await;
                    }
                }
            }
            assert_eq!(kept_as_repeated, repeated);
            let shown = store.search(&Search::default()).await.unwrap();
            let mut newest: BTreeMap<u128, u32> = BTreeMap::new();
            for (number, revision) in &revisions {
                newest.insert(*number, *revision);
            }
            let expected: Vec<_> = newest.iter().rev().map(|(n, r)| (Uuid::from_u128(*n), *r)).collect();
            let found: Vec<_> = shown.iter().map(|s| (s.id, s.revision)).collect();
            assert_eq!(found, expected);
            for s in &shown {
                assert_eq!(s.frames_seen, Some(s.revision + 1));
                let number = s.id.as_u128();
                let details = store.sighting(s.id).await.unwrap().unwrap();
                let count = revisions.range((number, 0)..=(number, u32::MAX)).count();
                assert_eq!(details.revisions as usize, count);
                let of_it = crops.get(&number).cloned().unwrap_or_default();
                let pictures: BTreeSet<u8> = details.crops.iter()
                    .map(|name| store.pictures().get(name).unwrap().unwrap()[3]).collect();
                assert_eq!(&pictures, &of_it);
                assert_eq!(s.crop.is_some(), !of_it.is_empty());
            }
        });
    }

    /// What came live, in any order, and then all of it from the aircraft's disk gives what all of it live gives, and
    /// once more changes nothing.
    #[test]
    fn a_disk_completes_what_came_live(
        flight in prop::collection::vec((1..4_u128, 0..3_u8), 1..12),
        live in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        block_on(async {
            // As an aircraft says it: a crop is never before its sighting.
            let mut said: Vec<(Delivery, Option<(Uuid, String)>)> = Vec::new();
            let mut revisions: BTreeMap<u128, u32> = BTreeMap::new();
            for (number, picture) in flight {
                let revision = revisions.entry(number).or_default();
                said.push((of_sighting(&sighting(number, *revision), Encoding::Cbor), None));
                *revision += 1;
                let jpeg = [0xff, 0xd8, 0xff, picture, number as u8];
                let name = hex::encode(Sha256::digest(jpeg));
                said.push((of_crop(number, &jpeg), Some((Uuid::from_u128(number), name))));
            }
            // A picture is made once: of two that are the same the first is meant.
            let mut seen = BTreeSet::new();
            said.retain(|(_, crop)| crop.as_ref().is_none_or(|crop| seen.insert(crop.clone())));
            let (expected, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let all = open(expected.path()).await;
            for (delivery, _) in &said {
                all.keep(std::slice::from_ref(delivery)).await.unwrap();
            }
            let expected = held(&all).await;
            let store = open(data.path()).await;
            for index in live {
                store.keep(std::slice::from_ref(&index.get(&said).0)).await.unwrap();
            }
            for again in [false, true] {
                let from_disk = said.iter().map(|(d, _)| {
                    Delivery::from_disk(&d.topic, d.content_type.as_deref().unwrap(), d.payload.to_vec()).unwrap()
                });
                let kept = store.keep(&from_disk.collect::<Vec<_>>()).await.unwrap();
                assert!(!again || kept.repeated == said.len() as u64);
                let latest: BTreeMap<_, _> = said.iter().filter_map(|(_, crop)| crop.clone()).collect();
                for (sighting, picture) in latest {
                    let new = store.show_crop(sighting, &picture).await.unwrap();
                    assert!(!(again && new));
                }
                assert_eq!(held(&store).await, expected);
            }
        });
    }

    /// Against a filter in memory.
    #[test]
    fn a_search_finds_what_fits(
        places in prop::collection::vec((-60.0..60.0_f64, -180.0..180.0_f64, 0..3_usize, 0..4_usize), 1..30),
        (south, height, west, width) in (-60.0..40.0_f64, 0.0..60.0_f64, -180.0..180.0_f64, 0.0..359.0_f64),
        animal in 0..3_usize,
        verdict in prop::option::of(0..3_usize),
        window in (0..30_i64, 0..30_i64),
        by_area in any::<bool>(), by_animal in any::<bool>(), by_time in any::<bool>(),
    ) {
        const NAMES: [&str; 3] = ["Comet", "Marble", "Thistle"];
        const VERDICTS: [Option<Verdict>; 4] =
            [None, Some(Verdict::Identified), Some(Verdict::CannotTell), Some(Verdict::NotAWhale)];
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path()).await;
            for (number, (latitude, longitude, name, decided)) in (1..).zip(&places) {
                let mut s = sighting(number, 0);
                s.candidates[0].organism_id = NAMES[*name].into();
                let place = s.georeference.place.as_mut().unwrap();
                (place.decimal_latitude, place.decimal_longitude) = (*latitude, *longitude);
                store.keep(&[of_sighting(&s, Encoding::Json)]).await.unwrap();
                if let Some(verdict) = VERDICTS[*decided] {
                    // Persons name the next one.
                    let decision = decision(0, verdict, Some(NAMES[(name + 1) % 3]));
                    store.decide(s.occurrence_id, &decision, "Ana").await.unwrap();
                }
            }
            let wrapped = if west + width > 180.0 { west + width - 360.0 } else { west + width };
            let start = sighting(0, 0).event_date;
            let at = |seconds: i64| start + jiff::SignedDuration::from_secs(seconds);
            let search = Search {
                area: by_area.then_some(Area { south, west, north: south + height, east: wrapped }),
                animal: by_animal.then(|| NAMES[animal].to_owned()),
                verdict: verdict.and_then(|v| VERDICTS[v]),
                from: by_time.then(|| at(window.0.min(window.1))),
                to: by_time.then(|| at(window.0.max(window.1))),
                ..Search::default()
            };
            let found: Vec<_> = store.search(&search).await.unwrap().iter().map(|s| s.id.as_u128()).collect();
            let fits = |number: i64, (latitude, longitude, name, decided): &(f64, f64, usize, usize)| {
                let east_of_west = (longitude - west).rem_euclid(360.0);
                let named = match VERDICTS[*decided] {
                    None => Some(*name),
                    Some(Verdict::Identified) => Some((name + 1) % 3),
                    Some(_) => None,
                };
                (!by_area || (*latitude >= south && *latitude <= south + height && east_of_west <= width))
                    && (!by_animal || named == Some(animal))
                    && search.verdict.is_none_or(|v| VERDICTS[*decided] == Some(v))
                    && (!by_time || (window.0.min(window.1)..window.0.max(window.1)).contains(&number))
            };
            let mut expected: Vec<_> = (1..).zip(&places)
                .filter(|(number, place)| fits(*number, place))
                .map(|(number, _)| number as u128).collect();
            expected.reverse();
            assert_eq!(found, expected);
        });
    }
}

fn decision(decisions: u32, verdict: Verdict, animal: Option<&str>) -> NewDecision {
    NewDecision {
        revision: 0,
        decisions,
        verdict,
        animal: animal.map(str::to_owned),
        possible: false,
        note: None,
    }
}

#[tokio::test]
async fn a_decision_is_of_one_sighting_and_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    // Two animals of one frame.
    let (one, other) = (sighting(1, 0), sighting(2, 0));
    let both = [&one, &other].map(|s| of_sighting(s, Encoding::Json));
    store.keep(&both).await.unwrap();
    let (id, beside) = (one.occurrence_id, other.occurrence_id);
    let standing = async |id| store.sighting(id).await.unwrap().unwrap().summary.standing;
    let identified = Verdict::Identified;

    store
        .decide(id, &decision(0, identified, Some("Comet")), "Ana")
        .await
        .unwrap();
    // Whoever did not know of that is told, and changes nothing.
    let late = store
        .decide(id, &decision(0, Verdict::NotAWhale, None), "Ben")
        .await;
    let Err(DecisionError::Conflict(history)) = late else {
        panic!("{late:?}");
    };
    assert_eq!(history[0].person, "Ana");
    assert_eq!(standing(id).await.unwrap().animal.as_deref(), Some("Comet"));

    let corrected = NewDecision {
        possible: true,
        note: Some("  the left lip ".to_owned()),
        ..decision(1, identified, Some(" marble"))
    };
    let decided = store.decide(id, &corrected, "Ben").await.unwrap();
    // As the aircraft writes it.
    assert_eq!(decided.animal.as_deref(), Some("Marble"));
    assert_eq!(decided.note.as_deref(), Some("the left lip"));

    // A later revision of the machine leaves the decision, and the decision the proposal.
    let mut later = sighting(1, 1);
    later.candidates[0].organism_id = "Thistle".into();
    store
        .keep(&[of_sighting(&later, Encoding::Json)])
        .await
        .unwrap();
    let details = store.sighting(id).await.unwrap().unwrap();
    assert_eq!(details.summary.leading.as_deref(), Some("Thistle"));
    let stands = details.summary.standing.unwrap();
    assert_eq!(
        (stands.animal.as_deref(), stands.possible),
        (Some("Marble"), true)
    );

    // Each undo takes back what stands; nothing is left to undo then.
    for (known, expected) in [(2, Some("Comet")), (3, None)] {
        store
            .decide(id, &decision(known, Verdict::Undone, None), "Ana")
            .await
            .unwrap();
        assert_eq!(
            standing(id).await.and_then(|s| s.animal).as_deref(),
            expected
        );
    }
    let nothing = store
        .decide(id, &decision(4, Verdict::Undone, None), "Ana")
        .await;
    assert!(
        matches!(nothing, Err(DecisionError::NothingToUndo)),
        "{nothing:?}"
    );
    assert_eq!(store.sighting(id).await.unwrap().unwrap().history.len(), 4);
    assert_eq!(standing(beside).await, None);
    assert!(matches!(
        store
            .decide(
                Uuid::from_u128(9),
                &decision(0, identified, Some("Comet")),
                "Ana"
            )
            .await,
        Err(DecisionError::NoSighting(_))
    ));
}

#[tokio::test]
async fn of_many_who_decide_at_once_one_is_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store
        .keep(&[of_sighting(&sighting(1, 0), Encoding::Json)])
        .await
        .unwrap();
    let id = Uuid::from_u128(1);
    let people: Vec<String> = (0..12).map(|n| format!("person {n}")).collect();
    let wishes = people.iter().map(|person| {
        let store = &store;
        async move {
            store
                .decide(id, &decision(0, Verdict::CannotTell, None), person)
                .await
        }
    });
    let decided = futures_util::future::join_all(wishes).await;
    let first: Vec<_> = decided.iter().flatten().collect();
    assert_eq!(first.len(), 1);
    let details = store.sighting(id).await.unwrap().unwrap();
    assert_eq!(details.history.len(), 1);
    assert_eq!(details.summary.standing.unwrap().person, first[0].person);
}

#[tokio::test]
async fn provisional_names_are_new_and_names_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store
        .add_animals(&["Snow".to_owned(), "NA".to_owned()])
        .await
        .unwrap();
    let both = [1, 2].map(|n| of_sighting(&sighting(n, 0), Encoding::Json));
    store.keep(&both).await.unwrap();
    let fresh = |animal| decision(0, Verdict::NotInCatalogue, animal);
    let id = Uuid::from_u128(1);
    for (animal, expected) in [
        (None, "needs the name"),
        (Some("unknown"), "is no name"),
        (Some(" SNOW"), "is in the catalogue"),
    ] {
        let refused = store.decide(id, &fresh(animal), "Ana").await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    store
        .decide(id, &fresh(Some("Foundling")), "Ana")
        .await
        .unwrap();
    // Seen again under the same name.
    let again = store
        .decide(Uuid::from_u128(2), &fresh(Some("foundling")), "Ben")
        .await
        .unwrap();
    assert_eq!(again.animal.as_deref(), Some("Foundling"));
    let animals = store.animals().await.unwrap();
    let provisional = animals
        .iter()
        .filter(|a| a.provisional)
        .map(|a| a.name.as_str());
    assert_eq!(provisional.collect::<Vec<_>>(), ["Foundling"]);
    assert!(animals.iter().all(|a| a.name != "NA"));
}

#[tokio::test]
async fn what_makes_no_sense_is_set_aside_once_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let nonsense = |n: u32| {
        delivery(
            "callosity/v1/N57RW/sighting",
            None,
            format!("{{{n}").into_bytes(),
        )
    };
    let two = [nonsense(1), nonsense(1)];
    let kept = store.keep(&two).await.unwrap();
    assert_eq!((kept.set_aside, kept.repeated), (1, 1));
    // A crop that is none, a text that PostgreSQL would not take, another platform's sighting.
    let mut with_nul = sighting(1, 0);
    with_nul.identified_by = "a\0b".into();
    let mut stolen = sighting(2, 1);
    stolen.platform = "OTHER".into();
    let strange = [
        of_crop(1, b"<svg onload=alert(1)>"),
        of_sighting(&with_nul, Encoding::Json),
        of_sighting(&sighting(2, 0), Encoding::Json),
        of_sighting(&stolen, Encoding::Json),
    ];
    let kept = store.keep(&strange).await.unwrap();
    assert_eq!((kept.set_aside, kept.sightings), (3, 1));
    let shown = store.search(&Search::default()).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (shown[0].platform.as_str(), shown[0].revision),
        ("N57RW", 0)
    );
    let many: Vec<_> = (0..10_050).map(nonsense).collect();
    store.keep(&many).await.unwrap();
    let (newest, count) = store.set_aside(5).await.unwrap();
    assert_eq!((newest.len(), count), (5, 10_000));
}

#[tokio::test]
async fn a_folder_is_one_process_own_and_is_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path()).await;
    let second = Store::open(folder.path(), None).await.err().unwrap();
    assert!(matches!(second, StoreError::InUse(_)), "{second}");
    let elsewhere = tempfile::tempdir().unwrap();
    let address = Store::open(elsewhere.path(), Some("mysql://me:secret@host/db")).await;
    let error = address.err().unwrap().to_string();
    assert!(
        error.contains("host/db") && !error.contains("secret"),
        "{error}"
    );
    // A folder with what a URL would take for more than a path.
    let odd = elsewhere.path().join("50 % ? # é");
    let store = open(&odd).await;
    store
        .keep(&[of_sighting(&sighting(1, 0), Encoding::Json)])
        .await
        .unwrap();
    assert!(is_postgresql() || odd.join("ground.sqlite").exists());
}

#[tokio::test]
async fn secrets_are_stored_hashed_and_links_are_good_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let invitation = store.invite(Role::Administrator).await.unwrap().token;
    assert!(matches!(
        store.accept("0", "Ana", PASSWORD.into()).await,
        Err(AccountError::NoInvitation)
    ));
    assert!(matches!(
        store.accept(&invitation, "Ana", "short".into()).await,
        Err(AccountError::ShortPassword)
    ));
    let ana = store
        .accept(&invitation, " Ana  Silva ", PASSWORD.into())
        .await
        .unwrap();
    assert_eq!(ana.account.name, "Ana Silva");
    assert!(matches!(
        store.accept(&invitation, "Ben", PASSWORD.into()).await,
        Err(AccountError::NoInvitation)
    ));
    // A name that is taken does not use the link up.
    let second = store.invite(Role::Reviewer).await.unwrap().token;
    assert!(matches!(
        store.accept(&second, "ana silva", PASSWORD.into()).await,
        Err(AccountError::Taken(_))
    ));
    let ben = store.accept(&second, "Ben", PASSWORD.into()).await.unwrap();
    assert_eq!(
        store.session(&ben.token).await.unwrap(),
        Some(ben.account.clone())
    );
    assert_eq!(store.session("").await.unwrap(), None);

    assert!(matches!(
        store.log_in("Ben", "another password".into()).await,
        Err(AccountError::Wrong)
    ));
    assert!(matches!(
        store.log_in("Nobody", PASSWORD.into()).await,
        Err(AccountError::Wrong)
    ));
    let again = store.log_in("BEN", PASSWORD.into()).await.unwrap();
    store.log_out(&again.token).await.unwrap();
    assert_eq!(store.session(&again.token).await.unwrap(), None);

    assert!(matches!(
        store.remove_account("Ana Silva").await,
        Err(AccountError::LastAdministrator)
    ));
    assert_eq!(store.accounts().await.unwrap().len(), 2);
    store.remove_account("Ben").await.unwrap();
    assert_eq!(store.session(&ben.token).await.unwrap(), None);

    store.close().await;
    if is_postgresql() {
        return;
    }
    let stored = std::fs::read(folder.path().join("ground.sqlite")).unwrap();
    for secret in [PASSWORD, &invitation, &second, &ana.token] {
        let found = stored
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} is stored readable");
    }
}

/// The indexes are there for these questions.
#[tokio::test]
async fn no_search_walks_over_all_sightings() {
    if is_postgresql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for (condition, order) in [
        (
            "event_date >= 1 AND event_date < 2",
            "event_date DESC, occurrence_id DESC",
        ),
        ("animal = 'Comet'", "event_date DESC, occurrence_id DESC"),
        (
            "verdict IS NULL AND first_candidate = 'Comet'",
            "event_date DESC, occurrence_id DESC",
        ),
        ("verdict IS NULL", "doubt DESC, event_date DESC"),
        ("latitude >= 1 AND latitude <= 2", "event_date DESC"),
    ] {
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(format!(
            "EXPLAIN QUERY PLAN SELECT * FROM sightings WHERE {condition} ORDER BY {order} LIMIT 100"
        )))
        .fetch_all(&store.readers)
        .await
        .unwrap();
        let uses_index = plan.iter().any(|(.., step)| step.contains("USING INDEX"));
        assert!(uses_index, "{condition}: {plan:?}");
    }
}

/// Times searches among a million sightings and prints them; asserts only that they find something.
#[ignore = "a measurement: cargo test --release -p callosity-ground --lib -- --ignored --nocapture a_million"]
#[tokio::test]
async fn a_million_sightings_are_searched() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    // Ten years of them over the north-west Atlantic; 400 animals; one in ten waits for review.
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999) \
         INSERT INTO sightings (occurrence_id, revision, platform, event_id, camera, event_date, state, frames_seen, \
             latitude, longitude, uncertainty_meters, proposal, first_candidate, first_probability, unknown_probability, doubt, \
             decisions, verdict, animal, possible, decided_by, decided) \
         SELECT printf('01900000-0000-7000-8000-%012x', i), 1, 'N' || (i % 20), 'flight ' || (i / 300), 'left', \
             1500000000000 + i * 315000, 'end', 3, 25 + abs(random() % 300000) / 10000.0, \
             -80 + abs(random() % 400000) / 10000.0, 15, 'identified', 'whale ' || (i * 7919 % 400), 0.9, 0.05, \
             abs(random() % 1000) / 1000.0, CASE WHEN i % 10 THEN 1 ELSE 0 END, \
             CASE WHEN i % 10 THEN 'identified' END, CASE WHEN i % 10 THEN 'whale ' || (i * 7919 % 400) END, 0, \
             CASE WHEN i % 10 THEN 'person ' || (i % 5) END, CASE WHEN i % 10 THEN 1600000000000 + i END FROM n",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    sqlx::query("ANALYZE").execute(&store.writer).await.unwrap();
    let at = |ms| Some(timestamp(ms).unwrap());
    let bay = Area {
        south: 41.5,
        west: -70.8,
        north: 42.2,
        east: -69.9,
    };
    let animal = Some("whale 77".to_owned());
    let searches = [
        ("newest", Search::default()),
        (
            "page 1000",
            Search {
                offset: Some(100_000),
                ..Search::default()
            },
        ),
        (
            "review queue",
            Search {
                order: Order::Review,
                ..Search::default()
            },
        ),
        (
            "a month",
            Search {
                from: at(1_600_000_000_000),
                to: at(1_602_592_000_000),
                ..Search::default()
            },
        ),
        (
            "an animal",
            Search {
                animal: animal.clone(),
                ..Search::default()
            },
        ),
        (
            "an animal in a bay",
            Search {
                animal,
                area: Some(bay),
                ..Search::default()
            },
        ),
        (
            "a bay",
            Search {
                area: Some(bay),
                ..Search::default()
            },
        ),
        (
            "a bay in a month",
            Search {
                area: Some(bay),
                from: at(1_600_000_000_000),
                to: at(1_602_592_000_000),
                ..Search::default()
            },
        ),
        (
            "a verdict",
            Search {
                verdict: Some(Verdict::Identified),
                ..Search::default()
            },
        ),
        (
            "by a person",
            Search {
                person: Some("person 3".into()),
                ..Search::default()
            },
        ),
        (
            "a flight",
            Search {
                flight: Some("flight 1000".into()),
                ..Search::default()
            },
        ),
    ];
    for (name, search) in searches {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..5 {
            let begun = std::time::Instant::now();
            found = store.search(&search).await.unwrap().len();
            times.push(begun.elapsed());
        }
        times.sort();
        println!(
            "{name:<20} {found:>4} found, median {:>7.1?}, longest {:>7.1?}",
            times[2], times[4]
        );
        assert!(found > 0, "{name}");
    }
    let begun = std::time::Instant::now();
    store.counts().await.unwrap();
    println!("{:<20} {:>21.1?}", "counts", begun.elapsed());
}

#[tokio::test]
async fn frames_and_corrected_times_are_of_the_newest_revision_and_only_what_is_definite_is_confirmed()
 {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let flight = Uuid::from_u128(7);
    for number in 1..=3 {
        store
            .keep(&[of_sighting(&sighting(number, 0), Encoding::Json)])
            .await
            .unwrap();
    }
    assert!(
        store
            .of_flight(Uuid::from_u128(8))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        store
            .of_flight(flight)
            .await
            .unwrap()
            .iter()
            .all(|s| !s.has_frame)
    );

    store
        .keep_frame(&sighting(1, 0), 2, b"\xff\xd8\xff first")
        .await
        .unwrap();
    store
        .decide(
            Uuid::from_u128(1),
            &decision(0, Verdict::Identified, Some("Comet")),
            "Ada",
        )
        .await
        .unwrap();
    let possible = NewDecision {
        possible: true,
        ..decision(0, Verdict::Identified, Some("Comet"))
    };
    store
        .decide(Uuid::from_u128(2), &possible, "Ada")
        .await
        .unwrap();
    store
        .decide(
            Uuid::from_u128(3),
            &decision(0, Verdict::CannotTell, None),
            "Ada",
        )
        .await
        .unwrap();
    let confirmed = store.confirmed(None, 10).await.unwrap();
    assert_eq!(confirmed.len(), 1);
    assert_eq!(confirmed[0].message, sighting(1, 0));
    assert_eq!(
        (confirmed[0].animal.as_deref(), confirmed[0].heads_in_frame),
        (Some("Comet"), 2)
    );
    let frame = confirmed[0].frame.as_deref().unwrap();
    assert_eq!(
        store.pictures().get(frame).unwrap().unwrap(),
        b"\xff\xd8\xff first"
    );
    assert!(
        store
            .confirmed(Some(Uuid::from_u128(1)), 10)
            .await
            .unwrap()
            .is_empty()
    );

    // A newer revision is of another frame.
    store
        .keep(&[of_sighting(&sighting(1, 1), Encoding::Json)])
        .await
        .unwrap();
    assert_eq!(store.confirmed(None, 10).await.unwrap()[0].frame, None);
    assert!(!store.of_flight(flight).await.unwrap()[0].has_frame);
    store
        .keep_frame(&sighting(1, 1), 1, b"\xff\xd8\xff second")
        .await
        .unwrap();
    store
        .keep_frame(&sighting(1, 0), 2, b"\xff\xd8\xff first")
        .await
        .unwrap();
    let confirmed = store.confirmed(None, 10).await.unwrap();
    assert_eq!(
        confirmed[0].heads_in_frame, 1,
        "an older frame does not take the place of a newer one"
    );
    assert!(store.of_flight(flight).await.unwrap()[0].has_frame);

    let time: Timestamp = "2026-03-01T14:00:00Z".parse().unwrap();
    assert!(store.correct_time(Uuid::from_u128(1), time).await.unwrap());
    assert!(!store.correct_time(Uuid::from_u128(1), time).await.unwrap());
    assert!(!store.correct_time(Uuid::from_u128(99), time).await.unwrap());
    let shown = store.sighting(Uuid::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(
        (shown.summary.time, shown.message.event_date),
        (time, sighting(1, 1).event_date)
    );
    assert!(
        !store
            .show_crop(Uuid::from_u128(1), "a picture that nobody has")
            .await
            .unwrap()
    );
}
