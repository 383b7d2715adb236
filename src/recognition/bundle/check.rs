use std::collections::HashSet;
use std::path::{Component, Path};

use super::{Manifest, ManifestProblem, NeighbourModel, Network, Role, UnknownScore};

/// Above this an input is an error in the manifest rather than a network's wish.
const LARGEST_SIDE: u32 = 8192;

/// Above this, rounds and views are an error in the manifest.
const MOST_PASSES: u32 = 64;

/// Above this, an embedding's length is an error in the manifest.
const LONGEST_EMBEDDING: usize = 1 << 16;

/// Columns of the distribution table that an individual's label must not shadow.
const RESERVED_LABELS: [&str; 2] = ["image", "unknown"];

fn problem(
    field: impl Into<String>,
    value: impl std::fmt::Debug,
    must: impl Into<String>,
) -> ManifestProblem {
    ManifestProblem {
        field: field.into(),
        value: format!("{value:?}"),
        must: must.into(),
    }
}

fn require(
    holds: bool,
    field: impl Into<String>,
    value: impl std::fmt::Debug,
    must: &str,
) -> Result<(), ManifestProblem> {
    if holds {
        Ok(())
    } else {
        Err(problem(field, value, must))
    }
}

fn safe_path(field: &str, path: &str) -> Result<(), ManifestProblem> {
    // A backslash is a separator on one system and part of a name on another.
    let safe = !path.is_empty()
        && !path.contains(['\\', '\0', ':'])
        && !path.split('/').any(str::is_empty)
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    require(
        safe,
        field,
        path,
        "a path inside the bundle: relative, with /, without . and ..",
    )
}

fn fraction(field: &str, value: f64) -> Result<(), ManifestProblem> {
    require(
        (0.0..=1.0).contains(&value),
        field,
        value,
        "between 0 and 1",
    )
}

fn passes(field: &str, value: u32) -> Result<(), ManifestProblem> {
    require(
        (1..=MOST_PASSES).contains(&value),
        field,
        value,
        "between 1 and 64",
    )
}

fn digest(field: impl Into<String>, sha256: &str) -> Result<(), ManifestProblem> {
    let hexadecimal = sha256.len() == 64
        && sha256
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    require(
        hexadecimal,
        field,
        sha256,
        "64 lower-case hexadecimal digits",
    )
}

/// A label that no other has; `seen` are those so far.
fn label<'a>(
    field: &str,
    label: &'a str,
    seen: &mut HashSet<&'a str>,
) -> Result<(), ManifestProblem> {
    require(!label.trim().is_empty(), field, label, "not empty")?;
    require(
        !RESERVED_LABELS.contains(&label),
        field,
        label,
        "another word: `image` and `unknown` have a meaning of their own",
    )?;
    require(
        seen.insert(label),
        field,
        label,
        "there once: two individuals have this label",
    )
}

fn network(role: Role, network: &Network) -> Result<(), ManifestProblem> {
    let field = |name: &str| format!("{role}.network.{name}");
    safe_path(&field("file"), &network.file)?;
    digest(field("sha256"), &network.sha256)?;
    require(
        !network.output.is_empty(),
        field("output"),
        &network.output,
        "the name of an output",
    )?;
    let input = &network.input;
    require(
        !input.name.is_empty(),
        field("input.name"),
        &input.name,
        "the name of an input",
    )?;
    for (name, side) in [("input.width", input.width), ("input.height", input.height)] {
        require(
            (1..=LARGEST_SIDE).contains(&side),
            field(name),
            side,
            "between 1 and 8192",
        )?;
    }
    require(
        input.mean.iter().all(|m| m.is_finite()),
        field("input.mean"),
        input.mean,
        "finite numbers",
    )?;
    require(
        input.std.iter().all(|s| s.is_finite() && *s > 0.0),
        field("input.std"),
        input.std,
        "finite and above 0",
    )
}

impl Manifest {
    /// Checks every value that can be judged without the bundle's files, except
    /// [`format_version`](Self::format_version) and
    /// [`minimum_program_version`](Self::minimum_program_version), which depend on the program.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<(), ManifestProblem> {
        require(!self.name.trim().is_empty(), "name", &self.name, "a name")?;
        require(
            !self.created.trim().is_empty(),
            "created",
            &self.created,
            "a time, RFC 3339",
        )?;
        self.check_catalogue()?;

        for role in Role::ALL {
            if let Some(declared) = self.network(role) {
                network(role, declared)?;
            }
        }
        self.check_finder()?;
        self.check_aligner()?;
        self.check_ensemble()?;
        self.check_gallery()?;
        self.check_networks()?;
        self.check_self_tests()
    }

    /// What is said of how networks came about, where it is said: tools take networks by it.
    fn check_networks(&self) -> Result<(), ManifestProblem> {
        let networks = &self.provenance.networks;
        if networks.is_empty() {
            return Ok(());
        }
        let mut names = HashSet::new();
        for (i, network) in networks.iter().enumerate() {
            let field = |name: &str| format!("provenance.networks[{i}].{name}");
            let name = &network.name;
            require(
                !name.trim().is_empty() && names.insert(name),
                field("name"),
                name,
                "a name that no other network has",
            )?;
            digest(field("recipe_sha256"), &network.recipe_sha256)?;
            if let Some(weights) = &network.weights_sha256 {
                digest(field("weights_sha256"), weights)?;
            }
            if let Some(split) = &network.split_digest {
                digest(field("split_digest"), split)?;
            }
        }
        for role in Role::ALL {
            let found = networks.iter().filter(|network| network.role == role);
            let found = found.count();
            let fits = match (self.network(role), role) {
                (None, _) => found == 0,
                (Some(_), Role::Ensemble) => found >= 1,
                (Some(_), Role::Finder | Role::Aligner) => found == 1,
            };
            require(
                fits,
                "provenance.networks",
                format!("{found} of role {role}"),
                "one for the finder, one for the aligner and one for each classifier, where the bundle has them",
            )?;
        }
        Ok(())
    }

    fn check_catalogue(&self) -> Result<(), ManifestProblem> {
        let individuals = &self.catalogue.individuals;
        require(
            !individuals.is_empty(),
            "catalogue.individuals",
            individuals,
            "at least one label",
        )?;
        let mut seen = HashSet::new();
        for (i, individual) in individuals.iter().enumerate() {
            label(
                &format!("catalogue.individuals[{i}]"),
                individual,
                &mut seen,
            )?;
        }
        let enrolled = self.gallery.iter().flat_map(|gallery| &gallery.enrolled);
        for (i, individual) in enrolled.enumerate() {
            label(&format!("gallery.enrolled[{i}]"), individual, &mut seen)?;
        }
        Ok(())
    }

    fn check_finder(&self) -> Result<(), ManifestProblem> {
        let Some(finder) = &self.finder else {
            return require(
                self.aligner.is_none(),
                "finder",
                "absent",
                "there where there is an aligner, for nothing tells the aligner where to look",
            );
        };
        let input = &finder.network.input;
        let stride = finder.stride;
        require(
            stride > 0 && input.width.is_multiple_of(stride) && input.height.is_multiple_of(stride),
            "finder.stride",
            stride,
            "a divisor of the input's width and height",
        )?;
        fraction("finder.threshold", finder.threshold.into())?;
        if let Some(look) = &finder.closer_look {
            fraction(
                "finder.closer_look.candidate_threshold",
                look.candidate_threshold.into(),
            )?;
            let further = look
                .further_head_lengths_pixels
                .iter()
                .map(|&length| ("finder.closer_look.further_head_lengths_pixels", length));
            let first = (
                "finder.closer_look.head_length_pixels",
                look.head_length_pixels,
            );
            for (field, length) in std::iter::once(first).chain(further) {
                require(
                    length.is_finite() && length > 0.0,
                    field,
                    length,
                    "finite and above 0",
                )?;
            }
            require(
                (1..=4).contains(&look.views),
                "finder.closer_look.views",
                look.views,
                "1 to 4",
            )?;
        }
        let radius = finder.suppression_radius_head_lengths;
        require(
            radius.is_finite() && radius >= 0.0,
            "finder.suppression_radius_head_lengths",
            radius,
            "finite and not below 0",
        )?;
        require(
            finder.maximum_heads >= 1,
            "finder.maximum_heads",
            finder.maximum_heads,
            "at least 1",
        )
    }

    fn check_aligner(&self) -> Result<(), ManifestProblem> {
        let Some(aligner) = &self.aligner else {
            return Ok(());
        };
        let field = aligner.field_head_lengths;
        require(
            field.is_finite() && field > 0.0 && field <= 100.0,
            "aligner.field_head_lengths",
            field,
            "above 0, at most 100",
        )?;
        passes("aligner.rounds", aligner.rounds)?;
        passes("aligner.views", aligner.views)
    }

    fn check_ensemble(&self) -> Result<(), ManifestProblem> {
        let crop = &self.ensemble.head_crop;
        fraction("ensemble.head_crop.bonnet_x", crop.bonnet_x)?;
        fraction("ensemble.head_crop.blowhead_x", crop.blowhead_x)?;
        fraction("ensemble.head_crop.landmark_y", crop.landmark_y)?;
        require(
            // A crop around landmarks that nearly coincide is wider than any frame.
            crop.bonnet_x - crop.blowhead_x >= 0.01,
            "ensemble.head_crop.bonnet_x",
            crop.bonnet_x,
            "above blowhead_x, by 0.01 or more",
        )?;
        require(
            (0.01..=100.0).contains(&crop.aspect),
            "ensemble.head_crop.aspect",
            crop.aspect,
            "between 0.01 and 100",
        )?;
        passes("ensemble.views", self.ensemble.views)?;

        let decision = &self.decision;
        require(
            decision.temperature.is_finite() && decision.temperature > 0.0,
            "decision.temperature",
            decision.temperature,
            "finite and above 0",
        )?;
        require(
            decision.power.is_finite() && decision.power > 0.0,
            "decision.power",
            decision.power,
            "finite and above 0",
        )?;
        for (field, value) in [
            ("decision.unknown.slope", decision.unknown.slope),
            ("decision.unknown.intercept", decision.unknown.intercept),
        ] {
            require(value.is_finite(), field, value, "finite")?;
        }
        self.check_unknown_features()?;
        if let Some(aims) = &decision.aims {
            let reached = &aims.reached;
            for (field, value) in [
                ("precision", Some(aims.precision)),
                ("strangers", Some(aims.strangers)),
                ("stranger_share", Some(aims.stranger_share)),
                ("reached.precision", reached.precision),
                ("reached.known_identified", Some(reached.known_identified)),
                ("reached.strangers_identified", reached.strangers_identified),
            ] {
                fraction(&format!("decision.aims.{field}"), value.unwrap_or(0.0))?;
            }
        }
        fraction(
            "decision.unknown_threshold",
            decision.unknown_threshold.into(),
        )?;
        fraction(
            "decision.identified_threshold",
            decision.identified_threshold.into(),
        )
    }

    fn check_unknown_features(&self) -> Result<(), ManifestProblem> {
        let model = &self.decision.unknown;
        require(
            (model.score == UnknownScore::Features) != model.features.is_empty(),
            "decision.unknown.features",
            model.features.len(),
            "at least one with the score \"features\", and none with another",
        )?;
        let mut seen = HashSet::new();
        for (i, weighted) in model.features.iter().enumerate() {
            let field = |name: &str| format!("decision.unknown.features[{i}].{name}");
            let name = weighted.feature.name();
            require(
                seen.insert(weighted.feature),
                field("feature"),
                name,
                "there once only",
            )?;
            require(
                self.gallery.is_some() || !weighted.feature.needs_gallery(),
                field("feature"),
                name,
                "one that needs no gallery where the bundle has none",
            )?;
            for (name, value) in [("mean", weighted.mean), ("weight", weighted.weight)] {
                require(value.is_finite(), field(name), value, "finite")?;
            }
            require(
                weighted.deviation.is_finite() && weighted.deviation > 0.0,
                field("deviation"),
                weighted.deviation,
                "finite and above 0",
            )?;
        }
        Ok(())
    }

    fn check_gallery(&self) -> Result<(), ManifestProblem> {
        if let Some(embedding) = &self.ensemble.embedding {
            require(
                !embedding.output.is_empty() && embedding.output != self.ensemble.network.output,
                "ensemble.embedding.output",
                &embedding.output,
                "the name of an output other than that of the logits",
            )?;
            require(
                (1..=LONGEST_EMBEDDING).contains(&embedding.length),
                "ensemble.embedding.length",
                embedding.length,
                "between 1 and 65536",
            )?;
        }
        let Some(gallery) = &self.gallery else {
            return Ok(());
        };
        require(
            self.ensemble.embedding.is_some(),
            "ensemble.embedding",
            "absent",
            "there where there is a gallery, for nothing else can be compared with it",
        )?;
        safe_path("gallery.file", &gallery.file)?;
        digest("gallery.sha256", &gallery.sha256)?;
        let NeighbourModel {
            slope,
            intercept,
            share,
        } = gallery.neighbours;
        require(
            slope.is_finite() && slope > 0.0,
            "gallery.neighbours.slope",
            slope,
            "finite and above 0",
        )?;
        require(
            intercept.is_finite(),
            "gallery.neighbours.intercept",
            intercept,
            "finite",
        )?;
        fraction("gallery.neighbours.share", share.into())
    }

    fn check_self_tests(&self) -> Result<(), ManifestProblem> {
        for (i, test) in self.self_test.iter().enumerate() {
            let field = |name: &str| format!("self_test[{i}].{name}");
            let role = Role::from_name(&test.role);
            require(
                role.is_some_and(|role| self.network(role).is_some()),
                field("role"),
                &test.role,
                "the role of a network in the bundle: finder, aligner or ensemble",
            )?;
            require(
                !test.embedding
                    || (role == Some(Role::Ensemble) && self.ensemble.embedding.is_some()),
                field("embedding"),
                test.embedding,
                "false, but of an ensemble with an embedding",
            )?;
            safe_path(&field("input"), &test.input)?;
            safe_path(&field("output"), &test.output)?;
            require(
                test.tolerance.is_finite() && test.tolerance >= 0.0,
                field("tolerance"),
                test.tolerance,
                "finite and not below 0",
            )?;
        }
        Ok(())
    }
}
