//! What reviewers decided comes back to the aircraft: a new animal in a bundle, and what a bundle would say of what is
//! stored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use callosity::bundles;
use ground::store::{Confirmed, Search, Store, Summary, Verdict, checked_name, folded};
use indicatif::ProgressBar;
use recognition::bundle::Bundle;
use recognition::identify::{HeadIdentification, Identifier};
use recognition::pixels::EncodedPhotograph;
use sha2::{Digest, Sha256};

use super::bundle::{EnrollArgs, enroll, enrolled_digests};
use super::ground::{Kept, runtime};
use super::{INTERRUPTED, PARTLY_FAILED, engine, interrupt, progress_bar};

/// Pictures of heads are taken from sightings on which somebody decided, for certain, that they are this animal; those that
/// the bundle has already are passed over. Sign what comes out with minisign and install it on the boxes with
/// `callosity bundle install`: the next flight knows the animal.
#[derive(clap::Args)]
pub struct Args {
    /// The animal, as reviewers named it
    #[arg(value_name = "ANIMAL")]
    animal: String,
    /// The bundle that the aircraft fly with; it stays as it is
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Directory of the new bundle; must not exist
    #[arg(short, long, value_name = "NEW_BUNDLE")]
    out: PathBuf,
    /// Most pictures of one flight, the largest heads first: those of one encounter resemble each other
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    each: u32,
    /// Put the new bundle into this file too, NAME.tar.zst, to be signed
    #[arg(long, value_name = "FILE")]
    pack: Option<PathBuf>,
    #[command(flatten)]
    engine: engine::Args,
    #[command(flatten)]
    kept: Kept,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let animal = checked_name(&args.animal)?;
    let bundle = Bundle::open(&args.bundle)?;
    let pictures = tempfile::tempdir().context("cannot make a folder for pictures")?;
    let (animal, photographs) = runtime()?.block_on(async {
        let store = args.kept.open().await?;
        let written = write_pictures(&store, &animal, args.each, &bundle, pictures.path()).await;
        store.close().await;
        written
    })?;
    let add = bundle
        .manifest()
        .individuals()
        .any(|known| *known == animal);
    let code = enroll(&EnrollArgs::of_heads(
        args.bundle.clone(),
        animal,
        photographs,
        args.out.clone(),
        add,
        args.engine.clone(),
    ))?;
    if let (Some(file), true) = (&args.pack, code == ExitCode::SUCCESS) {
        let new = Bundle::open(&args.out)?;
        bundles::pack(new.directory(), file)
            .with_context(|| format!("cannot pack it into {}", file.display()))?;
        let shown = file.display();
        println!("{shown}; now sign it: minisign -S -s YOUR.key -m {shown}");
    }
    Ok(code)
}

/// Writes pictures of an animal's heads as files; returns its name as it was first written, and the files.
async fn write_pictures(
    store: &Store,
    animal: &str,
    each: u32,
    bundle: &Bundle,
    folder: &std::path::Path,
) -> anyhow::Result<(String, Vec<PathBuf>)> {
    let mut by_flight: BTreeMap<_, Vec<Confirmed>> = BTreeMap::new();
    let mut after = None;
    loop {
        let confirmed = store.confirmed(after, 500).await?;
        let Some(last) = confirmed.last() else {
            break;
        };
        after = Some(last.message.occurrence_id);
        let of_it = confirmed.into_iter().filter(|confirmed| {
            confirmed.verdict != Verdict::NotAWhale
                && confirmed.animal.as_deref().map(folded) == Some(folded(animal))
        });
        for confirmed in of_it {
            by_flight
                .entry(confirmed.message.event_id)
                .or_default()
                .push(confirmed);
        }
    }
    ensure!(
        !by_flight.is_empty(),
        "nobody decided of any sighting, for certain, that it is {animal}: confirm some on the page first"
    );
    let mut known = enrolled_digests(bundle.manifest());
    let (mut name, mut files) = (animal.to_owned(), Vec::new());
    for sightings in by_flight.values_mut() {
        let size = |confirmed: &Confirmed| confirmed.message.head.head_length_pixels;
        sightings.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let mut taken = 0;
        for confirmed in sightings {
            let picture = confirmed
                .crop
                .as_deref()
                .map(|crop| store.pictures().get(crop));
            let Some(picture) = picture.transpose()?.flatten() else {
                continue;
            };
            if taken == each {
                break;
            }
            // Those that the bundle has count: of one encounter it gets no more by another run.
            taken += 1;
            if !known.insert(hex::encode(Sha256::digest(&picture))) {
                continue;
            }
            let file = folder.join(format!("{}.jpg", confirmed.message.occurrence_id));
            std::fs::write(&file, &picture)
                .with_context(|| format!("cannot write {}", file.display()))?;
            files.push(file);
            name = confirmed.animal.clone().unwrap_or(name);
        }
    }
    ensure!(
        !files.is_empty(),
        "the bundle has all pictures of {animal} already that it may have, or no sighting of it has a picture"
    );
    Ok((name, files))
}

/// Nothing is changed. Of each sighting with a picture of its head the bundle is asked who it is, by that picture alone;
/// sightings of which it says something else than the aircraft did are listed, with what a person decided.
#[derive(clap::Args)]
pub struct CompareArgs {
    /// The bundle, as a directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    engine: engine::Args,
    #[command(flatten)]
    kept: Kept,
}

pub fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    interrupt::install()?;
    let bundle = Bundle::open(&args.bundle)?;
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let identifier = Identifier::new(&bundle, &args.engine.config(Some(threads)))?;
    runtime()?.block_on(async {
        let store = args.kept.open().await?;
        let compared = compare_all(&store, &identifier).await;
        store.close().await;
        compared
    })
}

/// How often both say the same, and who was right where a person named the animal.
#[derive(Default)]
struct Agreement {
    looked_at: u64,
    changed: u64,
    decided: u64,
    right_before: u64,
    right_now: u64,
    without_picture: u64,
    failed: u64,
}

async fn compare_all(store: &Store, identifier: &Identifier) -> anyhow::Result<ExitCode> {
    let (_, all) = store.counts().await?;
    let bar = progress_bar(all);
    let mut agreement = Agreement::default();
    let mut search = Search {
        limit: Some(200),
        ..Search::default()
    };
    bar.suspend(|| {
        println!(
            "{:<36}  {:<20}  {:<24}  {:<24}  decided",
            "sighting", "time", "before", "now"
        )
    });
    loop {
        let sightings = store.search(&search).await?;
        if sightings.is_empty() {
            break;
        }
        search.offset = Some(search.offset.unwrap_or(0) + u32::try_from(sightings.len())?);
        for sighting in &sightings {
            if interrupt::asked() {
                return Ok(ExitCode::from(INTERRUPTED));
            }
            bar.inc(1);
            match look_again(store, identifier, sighting) {
                Ok(Some(now)) => tell(&bar, sighting, &now, &mut agreement),
                Ok(None) => agreement.without_picture += 1,
                Err(e) => {
                    agreement.failed += 1;
                    bar.suspend(|| eprintln!("callosity: sighting {}: {e:#}", sighting.id));
                }
            }
        }
    }
    bar.finish_and_clear();
    let Agreement {
        looked_at,
        changed,
        decided,
        right_before,
        right_now,
        without_picture,
        failed,
    } = agreement;
    println!(
        "{looked_at} sightings, {changed} of them otherwise now; of {decided} whose animal a person named for certain, \
         {right_before} were right before and {right_now} are now; {without_picture} have no picture, {failed} failed"
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    })
}

/// What the bundle says of a sighting's picture.
fn look_again(
    store: &Store,
    identifier: &Identifier,
    sighting: &Summary,
) -> anyhow::Result<Option<HeadIdentification>> {
    let picture = sighting
        .crop
        .as_deref()
        .map(|crop| store.pictures().get(crop));
    let Some(picture) = picture.transpose()?.flatten() else {
        return Ok(None);
    };
    let photograph = EncodedPhotograph::from_bytes(picture)?;
    match identifier.detect_head(&photograph)? {
        Some(head) => Ok(Some(identifier.judge(&head, identifier.neighbours()))),
        None => bail!("its picture has no pixels"),
    }
}

fn tell(
    bar: &ProgressBar,
    sighting: &Summary,
    now: &HeadIdentification,
    agreement: &mut Agreement,
) {
    let leading = now.best().map(|best| best.individual.clone());
    let said = |decision: &str, leading: Option<&str>| match (decision, leading) {
        ("unknown", _) | (_, None) => "unknown".to_owned(),
        (decision, Some(leading)) => format!("{decision} {leading}"),
    };
    let before = said(&sighting.proposal, sighting.leading.as_deref());
    let after = said(now.decision.name(), leading.as_deref());
    agreement.looked_at += 1;
    let standing = sighting.standing.as_ref();
    let animal = standing.and_then(|standing| standing.animal.as_deref());
    if let Some(animal) = animal.filter(|_| standing.is_some_and(|standing| !standing.possible)) {
        let right = |said: &str| said == format!("identified {animal}");
        agreement.decided += 1;
        agreement.right_before += u64::from(right(&before));
        agreement.right_now += u64::from(right(&after));
    }
    if before != after {
        agreement.changed += 1;
        let time = sighting.time.strftime("%Y-%m-%dT%H:%M:%SZ");
        let decided = animal.unwrap_or("-");
        bar.suspend(|| {
            println!(
                "{:<36}  {time:<20}  {before:<24}  {after:<24}  {decided}",
                sighting.id
            );
        });
    }
}
