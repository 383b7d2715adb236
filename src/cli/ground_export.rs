//! From what reviewers decided to a data set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use ground::store::{Confirmed, Store, Verdict};

use super::ground::{Kept, runtime};
use super::{INTERRUPTED, interrupt};

/// Only definite decisions are taken: possible ones and those that cannot tell are left out. The folder has
///
/// - heads/ and heads.csv: pictures of heads with the animal's name;
///
/// - frames/ and frames.csv: whole frames with bonnet and blowhead of each head, where `callosity ground import --frames`
///   brought them and each head in them was decided on;
///
/// - not_whales/: pictures that reviewers said show no whale;
///
/// - rejected.csv: pictures with the names that the machine proposed first and a reviewer rejected;
///
/// - attribution.csv: licence and photographer of each picture, with aircraft, time, place, and who decided.
///
/// `callosity-train import OUT` reads heads and frames and passes over the rest.
#[derive(clap::Args)]
pub struct Args {
    /// A folder that does not exist yet or is empty
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Licence of the pictures, such as CC-BY-4.0; it stands with each
    #[arg(long, value_name = "TEXT")]
    licence: String,
    /// Whom to name with each picture [default: the aircraft and its camera]
    #[arg(long, value_name = "NAME")]
    photographer: Option<String>,
    #[command(flatten)]
    kept: Kept,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::install()?;
    ensure!(!args.licence.trim().is_empty(), "--licence: it is empty");
    let is_free = match fs::read_dir(&args.out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    };
    ensure!(
        is_free,
        "{} is no empty folder: name one that does not exist yet",
        args.out.display()
    );
    runtime()?.block_on(async {
        let store = args.kept.open().await?;
        let exported = Export::new(args)?.run(&store).await;
        store.close().await;
        exported
    })
}

type Table = csv::Writer<fs::File>;

struct Export<'a> {
    args: &'a Args,
    heads: Table,
    frames: Table,
    rejected: Table,
    attribution: Table,
    /// Of each frame, the heads that were decided on.
    by_frame: BTreeMap<String, Vec<Confirmed>>,
    named: u64,
    not_whales: u64,
    pairs: u64,
    whole_frames: u64,
    frames_left_out: u64,
    without_picture: u64,
    animals: BTreeSet<String>,
}

impl<'a> Export<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        for folder in ["heads", "frames", "not_whales"] {
            let folder = args.out.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let table = |name: &str, columns: &str| -> anyhow::Result<Table> {
            let path = args.out.join(name);
            let table = csv::Writer::from_path(&path);
            let mut table = table.with_context(|| format!("cannot write {}", path.display()))?;
            table.write_record(columns.split(','))?;
            Ok(table)
        };
        let corners = "bonnet_x,bonnet_y,blowhead_x,blowhead_y";
        Ok(Self {
            args,
            heads: table("heads.csv", "image,whale")?,
            frames: table("frames.csv", &format!("image,whale,width,height,{corners}"))?,
            rejected: table("rejected.csv", "file,whale,reviewer,decided,proposed_by")?,
            attribution: table(
                "attribution.csv",
                "file,licence,photographer,platform,camera,flight,sighting,time,latitude,longitude,reviewer,decided",
            )?,
            by_frame: BTreeMap::new(),
            named: 0,
            not_whales: 0,
            pairs: 0,
            whole_frames: 0,
            frames_left_out: 0,
            without_picture: 0,
            animals: BTreeSet::new(),
        })
    }

    async fn run(mut self, store: &Store) -> anyhow::Result<ExitCode> {
        let mut after = None;
        loop {
            if interrupt::asked() {
                println!(
                    "ended before all was written: delete {} and run it again",
                    self.args.out.display()
                );
                return Ok(ExitCode::from(INTERRUPTED));
            }
            let confirmed = store.confirmed(after, 100).await?;
            let Some(last) = confirmed.last() else {
                break;
            };
            after = Some(last.message.occurrence_id);
            for confirmed in confirmed {
                self.head(store, &confirmed)?;
                if let Some(frame) = confirmed.frame.clone() {
                    self.by_frame.entry(frame).or_default().push(confirmed);
                }
            }
        }
        for (picture, heads) in std::mem::take(&mut self.by_frame) {
            self.frame(store, &picture, &heads)?;
        }
        for table in [
            &mut self.heads,
            &mut self.frames,
            &mut self.rejected,
            &mut self.attribution,
        ] {
            table.flush()?;
        }
        println!(
            "{}: {} heads of {} animals, {} pictures without a whale, {} rejected names, {} frames; left out: {} \
             frames with heads on which nobody decided, {} sightings without a picture",
            self.args.out.display(),
            self.named,
            self.animals.len(),
            self.not_whales,
            self.pairs,
            self.whole_frames,
            self.frames_left_out,
            self.without_picture,
        );
        Ok(ExitCode::SUCCESS)
    }

    /// The picture of a head, with what was decided on it.
    fn head(&mut self, store: &Store, confirmed: &Confirmed) -> anyhow::Result<()> {
        let message = &confirmed.message;
        let picture = confirmed.crop.as_deref();
        let picture = picture.map(|name| store.pictures().get(name)).transpose()?;
        let Some(picture) = picture.flatten() else {
            self.without_picture += 1;
            return Ok(());
        };
        let image = format!("{}.jpg", message.occurrence_id);
        let is_whale = confirmed.verdict != Verdict::NotAWhale;
        let file = format!("{}/{image}", if is_whale { "heads" } else { "not_whales" });
        write(&self.args.out.join(&file), &picture)?;
        self.attribute(&file, confirmed)?;
        if !is_whale {
            self.not_whales += 1;
            return Ok(());
        }
        let animal = confirmed.animal.as_deref().unwrap_or_default();
        self.heads.write_record([image.as_str(), animal])?;
        self.animals.insert(animal.to_owned());
        self.named += 1;
        let proposed = message.candidates.first().map(|c| c.organism_id.as_str());
        if let Some(proposed) = proposed.filter(|proposed| *proposed != animal) {
            let decided = confirmed.decided.to_string();
            let (reviewer, by) = (confirmed.person.as_str(), message.identified_by.as_str());
            self.rejected
                .write_record([file.as_str(), proposed, reviewer, &decided, by])?;
            self.pairs += 1;
        }
        Ok(())
    }

    /// A whole frame with its heads. Who learns where heads are takes what is not marked for water, so that a frame with a
    /// head on which nobody decided would teach what is wrong.
    fn frame(&mut self, store: &Store, picture: &str, heads: &[Confirmed]) -> anyhow::Result<()> {
        let in_it = heads.iter().map(|c| c.heads_in_frame).max().unwrap_or(0) as usize;
        let content = store.pictures().get(picture)?;
        let (Some(content), true) = (content, heads.len() == in_it) else {
            self.frames_left_out += 1;
            return Ok(());
        };
        let whales: Vec<_> = heads
            .iter()
            .filter(|c| c.verdict != Verdict::NotAWhale)
            .collect();
        let Some(first) = whales.first() else {
            return Ok(());
        };
        let image = format!("{picture}.jpg");
        let file = format!("frames/{image}");
        write(&self.args.out.join(&file), &content)?;
        self.attribute(&file, first)?;
        self.whole_frames += 1;
        for confirmed in whales {
            let (frame, head) = (&confirmed.message.frame, &confirmed.message.head);
            self.frames.write_record([
                image.clone(),
                confirmed.animal.clone().unwrap_or_default(),
                frame.width_pixels.to_string(),
                frame.height_pixels.to_string(),
                head.bonnet_pixels.x.to_string(),
                head.bonnet_pixels.y.to_string(),
                head.blowhead_pixels.x.to_string(),
                head.blowhead_pixels.y.to_string(),
            ])?;
        }
        Ok(())
    }

    fn attribute(&mut self, file: &str, confirmed: &Confirmed) -> anyhow::Result<()> {
        let message = &confirmed.message;
        let camera = message.camera.clone().unwrap_or_default();
        let photographer = self.args.photographer.clone();
        let photographer = photographer
            .unwrap_or_else(|| format!("{} {camera}", message.platform).trim().to_owned());
        let place = message.georeference.place;
        let degrees = |degrees: Option<f64>| degrees.map(|d| d.to_string()).unwrap_or_default();
        self.attribution.write_record([
            file.to_owned(),
            self.args.licence.trim().to_owned(),
            photographer,
            message.platform.clone(),
            camera,
            message
                .event_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            message.occurrence_id.to_string(),
            confirmed.time.to_string(),
            degrees(place.map(|p| p.decimal_latitude)),
            degrees(place.map(|p| p.decimal_longitude)),
            confirmed.person.clone(),
            confirmed.decided.to_string(),
        ])?;
        Ok(())
    }
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
