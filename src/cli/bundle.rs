use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use recognition::bundle::{Bundle, EnrolledPhotograph, Enrollment, Manifest, Role};
use recognition::identify::{Decision, Detection, HeadIdentification, Identifier, Neighbours};
use recognition::inference::{self, Engine};
use recognition::pixels::EncodedPhotograph;
use sha2::{Digest, Sha256};

use super::{INTERRUPTED, PARTLY_FAILED, bundle_install, engine, interrupt};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a bundle's manifest and files, and run its self-tests on this machine
    Check {
        /// The bundle's directory
        #[arg(value_name = "DIR", default_value_os_t = callosity::settings::default_bundle())]
        directory: PathBuf,
        /// Threads for each network [default: one for each core]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        threads: Option<u16>,
        #[command(flatten)]
        engine: engine::Args,
    },
    /// Teach a bundle a new whale from a few photographs, without training: writes a new bundle
    ///
    /// Photographs are compared with later ones by the bundle's embedding; the networks stay as they are. Three or
    /// more, of different encounters, are better than one. Each must show one whale.
    Enroll(EnrollArgs),
    /// Put a bundle into one file, to be signed and carried to a box
    Pack(bundle_install::PackArgs),
    /// Install a signed bundle on this box: verify, unpack, test its networks here, switch
    ///
    /// The next flight is with it. It is on trial until it has flown well for ten minutes: where it cannot be loaded, breaks
    /// recognition, or the program begins three times with it, the box goes back to the bundle before and remembers this
    /// one, so that it is not installed again. A loss of power at any moment leaves the old bundle or the new one.
    Install(bundle_install::InstallArgs),
    /// List the bundles of this box, and those that it rejected
    List(bundle_install::OnBoxArgs),
    /// Go back to the bundle before
    RollBack(bundle_install::OnBoxArgs),
}

#[derive(clap::Args)]
pub(super) struct EnrollArgs {
    /// The bundle's directory; it stays as it is
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Name of the whale, as it will be reported
    #[arg(long, value_name = "NAME")]
    individual: String,
    /// Photographs of that whale and no other (JPEG, PNG, TIFF)
    #[arg(required = true, value_name = "PHOTOGRAPH")]
    photographs: Vec<PathBuf>,
    /// Directory of the new bundle; must not exist
    #[arg(short, long, value_name = "NEW_BUNDLE")]
    out: PathBuf,
    /// The photographs are heads, already cut and turned as the bundle's head crop says
    #[arg(long)]
    aligned: bool,
    /// The bundle knows the whale already; add the photographs to those that it has
    #[arg(long)]
    add: bool,
    /// Threads for each network [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(flatten)]
    engine: engine::Args,
}

impl EnrollArgs {
    /// Photographs of heads that are cut and turned.
    pub(super) fn of_heads(
        bundle: PathBuf,
        individual: String,
        photographs: Vec<PathBuf>,
        out: PathBuf,
        add: bool,
        engine: engine::Args,
    ) -> Self {
        Self {
            bundle,
            individual,
            photographs,
            out,
            aligned: true,
            add,
            threads: None,
            engine,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check {
            directory,
            threads,
            engine,
        } => check(directory, threads, &engine),
        Command::Enroll(args) => enroll(&args),
        Command::Pack(args) => bundle_install::pack(&args),
        Command::Install(args) => bundle_install::install(&args),
        Command::List(args) => bundle_install::list(&args),
        Command::RollBack(args) => bundle_install::roll_back(&args),
    }
}

fn check(
    directory: PathBuf,
    threads: Option<u16>,
    engine: &engine::Args,
) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let bundle = Bundle::open(directory)?;
    let manifest = bundle.manifest();
    writeln!(
        out,
        "{} {}, made {}: {} individuals of {}",
        manifest.name,
        manifest.version,
        manifest.created,
        manifest.catalogue.individuals.len(),
        manifest.catalogue.scientific_name,
    )?;
    for role in Role::ALL {
        match manifest.network(role) {
            Some(network) => writeln!(
                out,
                "{:9} {}, {} × {} pixels, SHA-256 as in the manifest",
                role.name(),
                network.file,
                network.input.width,
                network.input.height
            )?,
            None => writeln!(out, "{:9} none", role.name())?,
        }
    }
    match (&manifest.gallery, bundle.gallery()?) {
        (Some(declared), Some(gallery)) => {
            let individuals = manifest.individuals().count();
            let photographs = gallery.photographs(individuals);
            writeln!(
                out,
                "gallery   {}, {} photographs of {} individuals, SHA-256 as in the manifest",
                declared.file,
                gallery.len(),
                photographs.iter().filter(|count| **count > 0).count()
            )?;
            let enrolled = manifest.individuals().zip(&photographs);
            for (name, count) in enrolled.skip(manifest.catalogue.individuals.len()) {
                let when = &manifest.provenance.enrollments;
                let when = when.iter().rfind(|e| e.individual == *name);
                let when = when.map_or(String::new(), |e| format!(", last {}", e.enrolled));
                writeln!(out, "enrolled  {name}: {}{when}", counted(*count))?;
            }
        }
        _ => writeln!(out, "gallery   none")?,
    }
    let engine = Engine::start(&engine.config(threads.map(usize::from)))?;
    match engine.library() {
        Some(library) => writeln!(out, "engine    {} ({})", engine.name(), library.display())?,
        None => writeln!(out, "engine    {}", engine.name())?,
    }
    let outcomes = inference::run_self_tests(&engine, &bundle).context("self-test")?;
    if outcomes.is_empty() {
        writeln!(out, "self-test none in the bundle; every network loads")?;
    }
    for outcome in &outcomes {
        writeln!(
            out,
            "self-test {}{} on {}: differs by {:.1e}, allowed {:.1e}: {}",
            outcome.role,
            if outcome.embedding {
                ", embedding,"
            } else {
                ""
            },
            outcome.engine,
            outcome.difference,
            outcome.tolerance,
            if outcome.passed() { "passed" } else { "FAILED" }
        )?;
    }
    Ok(if outcomes.iter().all(|outcome| outcome.passed()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    })
}

fn counted(photographs: usize) -> String {
    match photographs {
        1 => "1 photograph".to_owned(),
        count => format!("{count} photographs"),
    }
}

/// A photograph that is to be enrolled.
struct Shown<'a> {
    path: &'a Path,
    digest: String,
    head: Detection,
}

impl Shown<'_> {
    fn embedding(&self) -> &[f32] {
        // A bundle with a gallery has an embedding; its check says so.
        self.head.embedding().unwrap_or_default()
    }
}

/// SHA-256 of the photographs that were enrolled into a bundle.
pub(super) fn enrolled_digests(manifest: &Manifest) -> HashSet<String> {
    let enrollments = manifest.provenance.enrollments.iter();
    let photographs = enrollments.flat_map(|enrollment| &enrollment.photographs);
    photographs
        .map(|photograph| photograph.sha256.clone())
        .collect()
}

pub(super) fn enroll(args: &EnrollArgs) -> anyhow::Result<ExitCode> {
    let name = args.individual.as_str();
    let bundle = Bundle::open(&args.bundle)?;
    let manifest = bundle.manifest();
    let known = manifest.individuals().any(|i| i == name);
    let shown = args.bundle.display();
    ensure!(
        !known || args.add,
        "{shown} knows {name} already. Give another name, or --add to add the photographs to those it has"
    );
    ensure!(
        known || !args.add,
        "{shown} knows nobody called {name}, so nothing can be added. Leave out --add to enroll a new whale"
    );
    ensure!(
        args.out.symlink_metadata().is_err(),
        "{} is there already. Name another folder with --out",
        args.out.display()
    );
    interrupt::install()?;
    let threads = args.threads.map_or_else(
        || thread::available_parallelism().map_or(1, Into::into),
        usize::from,
    );
    let identifier = Identifier::new(&bundle, &args.engine.config(Some(threads)))?;
    let Some(before) = identifier.neighbours() else {
        bail!(
            "{shown} has no gallery, so nobody can be enrolled in it. Make it again with `callosity-train stack` \
             and `bundle`, which write one"
        );
    };

    let mut digests = enrolled_digests(manifest);
    let bar = ProgressBar::new(args.photographs.len() as u64).with_style(
        ProgressStyle::with_template("{bar:32} {pos}/{len}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let (mut photographs, mut failed) = (Vec::new(), 0);
    for path in &args.photographs {
        if interrupt::asked() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        match look(path, &identifier, args.aligned, &mut digests) {
            Ok(photograph) => photographs.push(photograph),
            Err(error) => {
                failed += 1;
                let path = path.display();
                bar.suspend(|| eprintln!("callosity: {path}: {error:#}"));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(
        failed == 0,
        "nothing was enrolled: {failed} of {} cannot be used. Leave them out or mend them",
        counted(args.photographs.len())
    );

    compare(name, &photographs, &identifier, before)?;
    let mut after = before.clone();
    after.enroll(name, photographs.iter().map(Shown::embedding))?;
    let enrollment = Enrollment {
        individual: name.to_owned(),
        enrolled: jiff::Timestamp::now()
            .round(jiff::Unit::Second)
            .context("the clock")?
            .to_string(),
        photographs: photographs
            .iter()
            .map(|photograph| EnrolledPhotograph {
                file: file_name(photograph.path),
                sha256: photograph.digest.clone(),
            })
            .collect(),
    };
    let new = bundle.enroll(&args.out, after.gallery(), enrollment)?;
    println!(
        "{}: {} {}, {} individuals, {} of them enrolled; {name} by {}",
        new.directory().display(),
        new.manifest().name,
        new.manifest().version,
        after.individuals().len(),
        after.enrolled().len(),
        counted(photographs.len())
    );
    Ok(ExitCode::SUCCESS)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Finds the one head of a photograph. `digests` are those of photographs that were enrolled before.
fn look<'a>(
    path: &'a Path,
    identifier: &Identifier,
    aligned: bool,
    digests: &mut HashSet<String>,
) -> anyhow::Result<Shown<'a>> {
    let digest = hex::encode(Sha256::digest(fs::read(path)?));
    ensure!(
        digests.insert(digest.clone()),
        "this photograph was enrolled already, here or before"
    );
    let photograph = EncodedPhotograph::open(path)?;
    let mut heads = if aligned {
        identifier.detect_head(&photograph)?.into_iter().collect()
    } else {
        identifier.detect_frame(&photograph)?
    };
    match (heads.pop(), heads.len()) {
        (Some(head), 0) => Ok(Shown { path, digest, head }),
        (None, _) => bail!("no head found. Give a photograph in which it is larger or clearer"),
        (Some(_), others) => bail!(
            "{} heads found, and nothing says whose is meant. Give a part of it with one whale",
            others + 1
        ),
    }
}

/// Says how like each other and whom in the bundle the photographs are, and warns where that is odd: by the
/// bundle's own decision, on each photograph as if the others were enrolled and it came later.
fn compare(
    name: &str,
    photographs: &[Shown],
    identifier: &Identifier,
    before: &Neighbours,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let width = photographs
        .iter()
        .map(|p| file_name(p.path).chars().count())
        .max();
    let width = width.unwrap_or(0).max("photograph".len());
    writeln!(
        out,
        "{:<width$}  head at      confidence  like the others  like whom in the bundle   if the others were enrolled",
        "photograph"
    )?;
    let mut warnings = Vec::new();
    for (i, photograph) in photographs.iter().enumerate() {
        let rest = || {
            let all = photographs.iter().enumerate();
            all.filter(move |(j, _)| *j != i).map(|(_, p)| p)
        };
        let cosine = |other: &Shown| -> f32 {
            let pairs = photograph.embedding().iter().zip(other.embedding());
            pairs.map(|(a, b)| a * b).sum()
        };
        let among = rest().map(cosine).reduce(f32::max);
        let similarities = before.similarities(photograph.embedding());
        let nearest = before
            .individuals()
            .iter()
            .zip(&similarities)
            .filter_map(|(individual, similarity)| Some((individual, (*similarity)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let alone = identifier.judge(&photograph.head, Some(before));
        let with_others = if rest().next().is_some() {
            let mut others = before.clone();
            others.enroll(name, rest().map(Shown::embedding))?;
            Some(identifier.judge(&photograph.head, Some(&others)))
        } else {
            None
        };
        let centre = photograph.head.landmarks.centre();
        let file = file_name(photograph.path);
        writeln!(
            out,
            "{file:<width$}  {:<11}  {:>10.2}  {:>15}  {:<24}  {}",
            format!("{:.0}, {:.0}", centre.x, centre.y),
            photograph.head.confidence,
            among.map_or("-".to_owned(), |cosine| format!("{cosine:.2}")),
            nearest.map_or("-".to_owned(), |(i, cosine)| format!("{i} {cosine:.2}")),
            with_others.as_ref().map_or("-".to_owned(), said)
        )?;
        if let Some(best) = alone.best()
            && alone.decision != Decision::Unknown
            && best.individual != name
        {
            warnings.push(format!(
                "{file} looks like {}, whom the bundle knows ({}). Is it the same whale?",
                best.individual,
                said(&alone)
            ));
        }
        if let Some(with_others) = with_others
            && (with_others.decision == Decision::Unknown
                || with_others
                    .best()
                    .is_none_or(|best| best.individual != name))
        {
            warnings.push(format!(
                "{file} is not much like the other photographs ({}). Do all show {name}?",
                said(&with_others)
            ));
        }
    }
    out.flush()?;
    if photographs.len() == 1 {
        warnings.push(
            "one photograph cannot be compared with others; give more where you have them"
                .to_owned(),
        );
    }
    for warning in warnings {
        eprintln!("callosity: warning: {warning}");
    }
    Ok(())
}

fn said(head: &HeadIdentification) -> String {
    let best = head.best().map_or(String::new(), |best| {
        format!(", {} {:.1} %", best.individual, 100.0 * best.probability)
    });
    format!("{}{best}", head.decision.name())
}
