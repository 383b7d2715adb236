//! After a flight: what the aircraft's disk has and the link lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use callosity::archive::{self, Listed, Worth, without_metadata};
use callosity::clock::is_trusted;
use ground::store::{Pending, Store};
use ground::{Delivery, Received};
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use link::archive::ArchiveRecord;
use link::message::JPEG;
use link::topic::Platform;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ground::{Kept, runtime};
use super::{INTERRUPTED, PARTLY_FAILED, interrupt, progress_bar};

/// So many are read and stored in one go.
const TOGETHER: u32 = 128;

/// Times of one flight that can be trusted agree better: a clock is put right once.
const ONE_CLOCK: SignedDuration = SignedDuration::from_secs(2);

/// Pixels by which a head in a message may differ from the same head in a record, which is rounded otherwise.
const SAME_PLACE: f64 = 1.0;

/// The ground station must not run meanwhile. What is here stays; a second import of an archive changes nothing, and one
/// that was ended by Ctrl-C goes on where it is run again.
///
/// Messages come word for word, pictures of heads byte for byte as they were sent. A sighting that was sent while the
/// aircraft's clock was wrong gets the time that the aircraft knew later. What cannot be read is named and passed over (exit
/// code 2).
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the aircraft's archive, or of a copy of it
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Take the whole frame that shows each sighting best too, some megabytes each; export-training makes use of it
    #[arg(long)]
    frames: bool,
    #[command(flatten)]
    kept: Kept,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::install()?;
    let archive = archive::Store::open_existing(&args.archive)?;
    runtime()?.block_on(async {
        let store = args.kept.open().await?;
        let imported = Import::new(&archive, &store, args.frames)?.run().await;
        store.close().await;
        imported
    })
}

/// What was found, and what of it was new.
#[derive(Default)]
struct Counts {
    messages: u64,
    new_messages: u64,
    crops: u64,
    new_crops: u64,
    new_frames: u64,
    corrected: u64,
    not_corrected: u64,
    bad: u64,
}

/// What an archive knows of the clock of a flight.
#[derive(Default)]
struct FlightClock {
    /// UTC less flight time, in records whose time can be trusted: the least, the greatest.
    offsets: Option<(SignedDuration, SignedDuration)>,
}

impl FlightClock {
    fn hear(&mut self, record: &ArchiveRecord) {
        if !is_trusted(record.time_quality) {
            return;
        }
        let offset = record.time.duration_since(record.flight_time);
        self.offsets = Some(match self.offsets {
            Some((least, greatest)) => (least.min(offset), greatest.max(offset)),
            None => (offset, offset),
        });
    }

    /// `None` where nobody knows, or where the records do not agree.
    fn utc(&self, flight_time: Timestamp) -> Option<Timestamp> {
        let (least, greatest) = self.offsets?;
        if greatest - least > ONE_CLOCK {
            return None;
        }
        flight_time.checked_add(least).ok()
    }
}

/// A sighting of the store with what the archive's records add.
struct Sighted {
    pending: Pending,
    /// Of the frame that its newest revision is of.
    flight_time: Option<Timestamp>,
}

struct Import<'a> {
    archive: &'a archive::Store,
    store: &'a Store,
    frames: bool,
    bar: ProgressBar,
    counts: Counts,
    /// The latest picture of each sighting's head.
    latest_crops: BTreeMap<Uuid, String>,
    clocks: BTreeMap<Uuid, FlightClock>,
    sighted: BTreeMap<Uuid, BTreeMap<Uuid, Sighted>>,
}

impl<'a> Import<'a> {
    fn new(archive: &'a archive::Store, store: &'a Store, frames: bool) -> anyhow::Result<Self> {
        let pictures = archive.total(Worth::Crop)?.pictures + archive.total(Worth::Whale)?.pictures;
        let bar = progress_bar(archive.messages()? + pictures);
        Ok(Self {
            archive,
            store,
            frames,
            bar,
            counts: Counts::default(),
            latest_crops: BTreeMap::new(),
            clocks: BTreeMap::new(),
            sighted: BTreeMap::new(),
        })
    }

    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let whole =
            self.take_messages().await? && self.take_crops().await? && self.take_frames().await?;
        if whole {
            self.correct_times().await?;
        }
        self.bar.finish_and_clear();
        self.report();
        if !whole {
            println!("ended before all was read: the same command goes on");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Ok(match self.counts.bad {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(PARTLY_FAILED),
        })
    }

    /// Names what cannot be used, and counts it.
    fn bad(&mut self, what: &str, why: &str) {
        self.counts.bad += 1;
        self.bar.suspend(|| eprintln!("{what}: {why}"));
    }

    /// Returns whether all were read.
    async fn take_messages(&mut self) -> anyhow::Result<bool> {
        let mut after = 0;
        loop {
            if interrupt::asked() {
                return Ok(false);
            }
            let messages = self.archive.messages_after(after, TOGETHER)?;
            let Some((last, _)) = messages.last() else {
                return Ok(true);
            };
            after = *last;
            self.counts.messages += messages.len() as u64;
            self.bar.inc(messages.len() as u64);
            let mut deliveries = Vec::with_capacity(messages.len());
            for (key, message) in messages {
                let what = format!("message {key} of the archive, to {:?}", message.topic);
                let delivery =
                    Delivery::from_disk(&message.topic, &message.content_type, message.payload);
                match delivery {
                    // It is kept aside, where the page shows it.
                    Some(delivery) => {
                        if let Received::Malformed { reason, .. } = &delivery.received {
                            self.bad(&what, reason);
                        }
                        deliveries.push(delivery);
                    }
                    None => self.bad(&what, "aircraft send nothing there"),
                }
            }
            let kept = self.store.keep(&deliveries).await?;
            self.counts.new_messages += kept.sightings + kept.aircraft;
        }
    }

    /// Returns whether all were read.
    async fn take_crops(&mut self) -> anyhow::Result<bool> {
        let mut after = 0;
        loop {
            if interrupt::asked() {
                return Ok(false);
            }
            let pictures = self.archive.pictures_after(Worth::Crop, after, TOGETHER)?;
            let Some(last) = pictures.last() else {
                break;
            };
            after = last.key;
            self.bar.inc(pictures.len() as u64);
            let mut deliveries = Vec::with_capacity(pictures.len());
            for listed in &pictures {
                self.counts.crops += 1;
                match self.crop(listed).await {
                    Ok(delivery) => deliveries.push(delivery),
                    Err((path, e)) => self.bad(&path.display().to_string(), &format!("{e:#}")),
                }
            }
            let kept = self.store.keep(&deliveries).await?;
            self.counts.new_crops += kept.sightings;
        }
        for (sighting, picture) in std::mem::take(&mut self.latest_crops) {
            self.store.show_crop(sighting, &picture).await?;
        }
        Ok(true)
    }

    /// A picture of a head as it was sent.
    async fn crop(&mut self, listed: &Listed) -> Result<Delivery, (PathBuf, anyhow::Error)> {
        let record = self.record(listed).await?;
        let read = || {
            let head = record.heads.first().context("it is of no sighting")?;
            let platform: Platform = record.platform.parse()?;
            let jpeg = without_metadata(&fs::read(&listed.picture)?);
            ensure!(is_jpeg(&jpeg), "it is no JPEG");
            let digest = hex::encode(Sha256::digest(&jpeg));
            let topic = platform.crop(head.occurrence_id);
            let delivery =
                Delivery::from_disk(&topic, JPEG, jpeg).context("it is of no sighting")?;
            Ok((head.occurrence_id, digest, delivery))
        };
        let (sighting, digest, delivery) = read().map_err(|e| (listed.picture.clone(), e))?;
        self.latest_crops.insert(sighting, digest);
        Ok(delivery)
    }

    /// The record beside a picture; what it says of clocks and sightings is remembered.
    async fn record(&mut self, listed: &Listed) -> Result<ArchiveRecord, (PathBuf, anyhow::Error)> {
        let error = |e| (listed.record.clone(), e);
        let record = read_record(&listed.record).map_err(error)?;
        let flight = record.event_id;
        self.clocks.entry(flight).or_default().hear(&record);
        if !self.sighted.contains_key(&flight) {
            let sightings = self.store.of_flight(flight).await;
            let sightings = sightings.map_err(|e| error(e.into()))?.into_iter();
            let sightings = sightings.map(|pending| {
                let id = pending.message.occurrence_id;
                let sighted = Sighted {
                    pending,
                    flight_time: None,
                };
                (id, sighted)
            });
            self.sighted.insert(flight, sightings.collect());
        }
        for sighted in shown(self.sighted.get_mut(&flight), &record) {
            sighted.flight_time = Some(record.flight_time);
        }
        Ok(record)
    }

    /// Looks at frames with whales: their records tell of clocks, and some show a sighting best. Returns whether all were
    /// read.
    async fn take_frames(&mut self) -> anyhow::Result<bool> {
        let mut after = 0;
        loop {
            if interrupt::asked() {
                return Ok(false);
            }
            let pictures = self.archive.pictures_after(Worth::Whale, after, TOGETHER)?;
            let Some(last) = pictures.last() else {
                return Ok(true);
            };
            after = last.key;
            for listed in &pictures {
                self.bar.inc(1);
                let taken = match self.record(listed).await {
                    Ok(record) if self.frames => self.take_frame(listed, &record).await,
                    Ok(_) => Ok(()),
                    Err(bad) => Err(bad),
                };
                if let Err((path, e)) = taken {
                    self.bad(&path.display().to_string(), &format!("{e:#}"));
                }
            }
        }
    }

    async fn take_frame(
        &mut self,
        listed: &Listed,
        record: &ArchiveRecord,
    ) -> Result<(), (PathBuf, anyhow::Error)> {
        let error = |e| (listed.picture.clone(), e);
        let heads = u32::try_from(record.heads.len()).unwrap_or(u32::MAX);
        for sighted in shown(self.sighted.get_mut(&record.event_id), record) {
            if sighted.pending.has_frame {
                continue;
            }
            let jpeg = fs::read(&listed.picture).map_err(|e| error(e.into()))?;
            is_jpeg(&jpeg)
                .then_some(())
                .context("it is no JPEG, and the station keeps no other pictures")
                .map_err(error)?;
            self.store
                .keep_frame(&sighted.pending.message, heads, &jpeg)
                .await
                .map_err(|e| error(e.into()))?;
            sighted.pending.has_frame = true;
            self.counts.new_frames += 1;
        }
        Ok(())
    }

    /// Sightings that were sent with a time that is not to be trusted get the one that the flight's clock had when it knew
    /// better.
    async fn correct_times(&mut self) -> anyhow::Result<()> {
        for (flight, sightings) in &self.sighted {
            let clock = self.clocks.get(flight);
            for (id, sighted) in sightings {
                let quality = sighted.pending.message.time_quality;
                if quality.is_none_or(is_trusted) {
                    continue;
                }
                let right = sighted.flight_time.and_then(|time| clock?.utc(time));
                match right {
                    Some(right) if right == sighted.pending.time => {}
                    Some(right) => {
                        self.counts.corrected +=
                            u64::from(self.store.correct_time(*id, right).await?);
                    }
                    None => self.counts.not_corrected += 1,
                }
            }
        }
        Ok(())
    }

    fn report(&self) {
        let counts = &self.counts;
        println!(
            "{} messages, {} of them new",
            counts.messages, counts.new_messages
        );
        println!(
            "{} pictures of heads, {} of them new",
            counts.crops, counts.new_crops
        );
        if self.frames {
            println!("{} new frames that show a sighting best", counts.new_frames);
        }
        println!(
            "the times of {} sightings were put right; of {} nobody knows better than the aircraft did",
            counts.corrected, counts.not_corrected
        );
        println!("{} could not be read", counts.bad);
    }
}

/// Of a flight's sightings, those whose newest revision is of this picture's frame.
fn shown<'a>(
    sightings: Option<&'a mut BTreeMap<Uuid, Sighted>>,
    record: &'a ArchiveRecord,
) -> impl Iterator<Item = &'a mut Sighted> {
    let sightings = sightings.into_iter().flatten();
    sightings.filter_map(|(id, sighted)| {
        let message = &sighted.pending.message;
        let head = record.heads.iter().find(|head| head.occurrence_id == *id)?;
        // Frames are counted from nought again where the program was started again within a flight: the head must lie where
        // the message says as well.
        let (here, there) = (head.head.bonnet_pixels, message.head.bonnet_pixels);
        let is_same = message.frame.number == record.frame.number
            && message.camera.as_deref() == Some(&*record.camera)
            && (here.x - there.x).hypot(here.y - there.y) <= SAME_PLACE;
        is_same.then_some(sighted)
    })
}

fn read_record(path: &Path) -> anyhow::Result<ArchiveRecord> {
    let bytes = fs::read(path)?;
    ensure!(!bytes.is_empty(), "it is empty");
    serde_json::from_slice(&bytes).context("it is no record of a picture")
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xd8\xff")
}
