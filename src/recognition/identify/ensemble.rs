use serde::{Deserialize, Serialize};

use super::{Familiarity, aligner};
use crate::bundle::{DecisionRule, NeighbourModel, UnknownFeature, UnknownModel, UnknownScore};
use crate::geometry::{Affine, Point};

/// Probabilities that an ensemble's logits mean, averaged over views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    /// For each individual, given that the whale is one of them: those of the catalogue, then the enrolled
    /// ones.
    pub probabilities: Vec<f32>,
    /// That it is none of them.
    pub unknown: f32,
}

/// How like each individual's photographs a head is, and what that is worth.
#[derive(Clone, Copy, Debug)]
pub struct Similarities<'a> {
    /// What it is worth.
    pub model: &'a NeighbourModel,
    /// The cosine to the nearest photograph of each individual, those of the catalogue first; `None` where
    /// the gallery has none of it.
    pub nearest: &'a [Option<f32>],
    /// What the gallery as a whole says, where it is asked for.
    pub familiarity: Option<Familiarity>,
}

impl Similarities<'_> {
    /// From the catalogue's logits over the temperature to those of all individuals, as [`NeighbourModel`]
    /// says.
    fn blend(&self, scaled: &mut Vec<f64>) {
        let share = f64::from(self.model.share);
        let (catalogue, enrolled) = self.nearest.split_at(scaled.len().min(self.nearest.len()));
        for (logit, nearest) in scaled.iter_mut().zip(catalogue) {
            if let Some(similarity) = nearest {
                *logit = (1.0 - share) * *logit + share * self.model.logit(*similarity);
            }
        }
        // Nothing speaks for whom neither a network nor a photograph knows.
        scaled.extend(
            enrolled
                .iter()
                .map(|nearest| nearest.map_or(f64::NEG_INFINITY, |s| self.model.logit(s))),
        );
    }

    /// The similarities to the individual with the nearest photograph and to the next one.
    fn two_nearest(&self) -> [Option<f32>; 2] {
        let mut two = [None::<f32>; 2];
        for &similarity in self.nearest.iter().flatten() {
            if two[0].is_none_or(|first| similarity > first) {
                two = [Some(similarity), two[0]];
            } else if two[1].is_none_or(|second| similarity > second) {
                two[1] = Some(similarity);
            }
        }
        two
    }
}

/// How far a classifier's view strays, as a fraction of the aligner's variations: landmarks are known by now.
const STRENGTH: f64 = 0.4;

/// The transform, within a head crop of `width × height` pixels, that makes its `index`th view; the
/// first leaves it as it is. None is mirrored, as the aligner's are: a mirrored whale is another one.
pub fn view(index: u32, width: u32, height: u32) -> Affine {
    let full = aligner::variation(index, width, height);
    let towards = |value: f64, identity: f64| identity + STRENGTH * (value - identity);
    // Blended about the middle of the crop, where a turn or a stretch moves nothing.
    let centre = Point::new(f64::from(width) / 2.0, f64::from(height) / 2.0);
    let moved = full.apply(centre) - centre;
    Affine {
        xx: towards(full.xx, 1.0),
        xy: towards(full.xy, 0.0),
        x0: 0.0,
        yx: towards(full.yx, 0.0),
        yy: towards(full.yy, 1.0),
        y0: 0.0,
    }
    .about(centre)
    .then(&Affine::translation(moved * STRENGTH))
}

/// Raises probabilities to a power above 0 and scales them to sum 1 again. Their order stays.
pub fn raise(probabilities: &mut [f64], power: f64) {
    if power == 1.0 {
        return;
    }
    // Over the largest one, so that no power makes all of them vanish.
    let largest = probabilities.iter().copied().fold(0.0, f64::max);
    let mut sum = 0.0;
    for p in &mut *probabilities {
        *p = (*p / largest).powf(power);
        sum += *p;
    }
    probabilities.iter_mut().for_each(|p| *p /= sum);
}

/// How much probabilities lie on few individuals: [`UnknownScore::Concentration`].
pub fn concentration(probabilities: impl Iterator<Item = f64>) -> f64 {
    probabilities.map(|p| p * p).sum::<f64>().ln()
}

/// −Σ p ln p, in nats.
fn entropy(probabilities: impl Iterator<Item = f64>) -> f64 {
    let each = probabilities.filter(|p| *p > 0.0);
    -each.map(|p| p * p.ln()).sum::<f64>()
}

/// What views, neighbours and gallery say of a head, before anything is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// For each individual, averaged over views and not raised to a power.
    probabilities: Vec<f64>,
    free_energy: f64,
    view_agreement: f64,
    two_nearest: [Option<f32>; 2],
    familiarity: Option<Familiarity>,
}

impl Evidence {
    /// From the logits of each view, and where there is a gallery the similarities to it. Views without logits give
    /// `None`.
    pub fn of<'a>(
        temperature: f64,
        similarities: Option<Similarities<'_>>,
        views: impl Iterator<Item = &'a [f32]>,
    ) -> Option<Self> {
        let mut probabilities: Vec<f64> = Vec::new();
        let (mut free_energy, mut entropies, mut count) = (0.0, 0.0, 0.0);
        for logits in views {
            let mut scaled: Vec<f64> = logits.iter().map(|&l| f64::from(l) / temperature).collect();
            if let Some(similarities) = &similarities {
                similarities.blend(&mut scaled);
            }
            let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scaled.iter().map(|l| (l - largest).exp()).sum();
            probabilities.resize(scaled.len(), 0.0);
            for (total, l) in probabilities.iter_mut().zip(&scaled) {
                *total += (l - largest).exp() / sum;
            }
            entropies += entropy(scaled.iter().map(|l| (l - largest).exp() / sum));
            free_energy += largest + sum.ln();
            count += 1.0;
        }
        if count == 0.0 || probabilities.is_empty() {
            return None;
        }
        probabilities.iter_mut().for_each(|p| *p /= count);
        Some(Self {
            view_agreement: entropies / count - entropy(probabilities.iter().copied()),
            probabilities,
            free_energy: free_energy / count,
            two_nearest: similarities.map_or([None; 2], |s| s.two_nearest()),
            familiarity: similarities.and_then(|s| s.familiarity),
        })
    }

    /// A feature; `None` where what it needs is not there.
    pub fn feature(&self, feature: UnknownFeature) -> Option<f64> {
        let familiarity = |of: fn(&Familiarity) -> f64| self.familiarity.as_ref().map(of);
        match feature {
            UnknownFeature::FreeEnergy => Some(self.free_energy),
            UnknownFeature::Concentration => {
                Some(concentration(self.probabilities.iter().copied()))
            }
            UnknownFeature::ViewAgreement => Some(self.view_agreement),
            UnknownFeature::Similarity => self.two_nearest[0].map(f64::from),
            UnknownFeature::SimilarityGap => match self.two_nearest {
                [Some(first), Some(second)] => Some(f64::from(first) - f64::from(second)),
                _ => None,
            },
            UnknownFeature::RelativeSimilarity => familiarity(|f| f.relative_similarity),
            UnknownFeature::MeanDistance => familiarity(|f| f.mean_distance),
            UnknownFeature::MahalanobisDistance => familiarity(|f| f.mahalanobis_distance),
        }
    }

    /// Probability that the head is of none of the individuals.
    pub fn unknown(&self, model: &UnknownModel) -> f64 {
        let score = match model.score {
            UnknownScore::FreeEnergy => self.free_energy,
            UnknownScore::Concentration => concentration(self.probabilities.iter().copied()),
            UnknownScore::Features => {
                let each = model.features.iter().filter_map(|weighted| {
                    let away = self.feature(weighted.feature)? - f64::from(weighted.mean);
                    Some(f64::from(weighted.weight) * away / f64::from(weighted.deviation))
                });
                each.sum()
            }
        };
        let odds = f64::from(model.intercept) + f64::from(model.slope) * score;
        1.0 / (1.0 + (-odds).exp())
    }

    /// For each individual, given that the whale is one of them, raised to a power.
    pub fn raised(mut self, power: f64) -> Vec<f64> {
        raise(&mut self.probabilities, power);
        self.probabilities
    }
}

/// From the logits of each view, and where there is a gallery the similarities to it, to probabilities. Views
/// without logits give `None`.
pub fn opinion<'a>(
    decision: &DecisionRule,
    similarities: Option<Similarities<'_>>,
    views: impl Iterator<Item = &'a [f32]>,
) -> Option<Opinion> {
    let evidence = Evidence::of(f64::from(decision.temperature), similarities, views)?;
    let unknown = evidence.unknown(&decision.unknown) as f32;
    let probabilities = evidence.raised(f64::from(decision.power));
    Some(Opinion {
        probabilities: probabilities.into_iter().map(|p| p as f32).collect(),
        unknown,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bundle::{Confidence, WeightedFeature};

    fn decision(temperature: f32) -> DecisionRule {
        DecisionRule {
            temperature,
            power: 1.0,
            unknown: UnknownModel {
                score: UnknownScore::FreeEnergy,
                slope: -1.0,
                intercept: 2.0,
                features: Vec::new(),
            },
            unknown_threshold: 0.5,
            identified_threshold: 0.5,
            confidence: Confidence::Candidate,
            aims: None,
        }
    }

    /// By hand: softmax of (ln 1, ln 3) is (1/4, 3/4), and the logarithm of the sum is ln 4.
    #[test]
    fn probabilities_and_unknown_by_hand() {
        let logits = [0.0, 3.0_f32.ln()];
        let opinion = opinion(&decision(1.0), None, [logits.as_slice()].into_iter()).unwrap();
        assert!((opinion.probabilities[0] - 0.25).abs() < 1e-6);
        assert!((opinion.probabilities[1] - 0.75).abs() < 1e-6);
        let expected = 1.0 / (1.0 + (-(2.0 - 4.0_f64.ln())).exp());
        assert!((f64::from(opinion.unknown) - expected).abs() < 1e-6);
    }

    /// By hand: probabilities (1/4, 3/4) and (3/4, 1/4) average to halves, whose squares sum to a half; one
    /// view alone has 10/16.
    #[test]
    fn concentration_by_hand() {
        let mut decision = decision(1.0);
        decision.unknown.score = UnknownScore::Concentration;
        decision.power = 3.0;
        let views = [[0.0, 3.0_f32.ln()], [3.0_f32.ln(), 0.0]];
        for (views, sum) in [(&views[..], 0.5_f64), (&views[..1], 0.625)] {
            let views = views.iter().map(<[f32; 2]>::as_slice);
            let found = opinion(&decision, None, views).unwrap();
            let expected = 1.0 / (1.0 + (-(2.0 - sum.ln())).exp());
            assert!(
                (f64::from(found.unknown) - expected).abs() < 1e-6,
                "{found:?}"
            );
        }
    }

    const MODEL: NeighbourModel = NeighbourModel {
        slope: 8.0,
        intercept: -3.0,
        share: 0.25,
    };

    /// By hand: logits (2, 0) at temperature 2 are (1, 0). The first one's photographs are at 0.5, so its
    /// neighbour logit is 1 and changes nothing; the second one has none; the enrolled one at 0.5 stands
    /// with a logit of 1.
    #[test]
    fn neighbours_by_hand() {
        let similarities = Similarities {
            model: &MODEL,
            nearest: &[Some(0.5), None, Some(0.5), None],
            familiarity: None,
        };
        let logits = [2.0, 0.0];
        let views = [logits.as_slice(); 3].into_iter();
        let found = opinion(&decision(2.0), Some(similarities), views).unwrap();
        let e = std::f64::consts::E;
        for (found, expected) in found.probabilities.iter().zip([e, 1.0, e, 0.0]) {
            assert!((f64::from(*found) - expected / (2.0 * e + 1.0)).abs() < 1e-6);
        }
        assert_eq!(found.probabilities.len(), 4);
        let expected = 1.0 / (1.0 + (-(2.0 - (2.0 * e + 1.0).ln())).exp());
        assert!((f64::from(found.unknown) - expected).abs() < 1e-6);
        // At similarity 0 its neighbour logit is −3: a quarter of the way from 1.
        let similarities = Similarities {
            model: &MODEL,
            nearest: &[Some(0.0), None],
            familiarity: None,
        };
        let found = opinion(
            &decision(2.0),
            Some(similarities),
            [logits.as_slice()].into_iter(),
        )
        .unwrap();
        assert!((found.probabilities[0] - 0.5).abs() < 1e-6, "{found:?}");
    }

    /// By hand: two views with probabilities (1, 0) and (½, ½) agree less than ln 2 by the entropies of ¾ and ¼ and of
    /// halves; the individuals' nearest photographs are at 0.9 and 0.4.
    #[test]
    fn features_by_hand() {
        let views = [[60.0, 0.0], [0.0, 0.0]];
        let model = NeighbourModel {
            share: 0.0,
            ..MODEL
        };
        let similarities = Similarities {
            model: &model,
            nearest: &[Some(0.4), Some(0.9)],
            familiarity: Some(Familiarity {
                relative_similarity: 2.5,
                mean_distance: 0.25,
                mahalanobis_distance: 7.0,
            }),
        };
        let of = |similarities| {
            Evidence::of(1.0, similarities, views.iter().map(<[f32; 2]>::as_slice)).unwrap()
        };
        let (evidence, alone) = (of(Some(similarities)), of(None));
        let ln = f64::ln;
        let agreement = 0.5 * ln(2.0) + 0.75 * ln(0.75) + 0.25 * ln(0.25);
        let expected = [
            (UnknownFeature::FreeEnergy, (60.0 + ln(2.0)) / 2.0),
            (UnknownFeature::Concentration, ln(0.625)),
            (UnknownFeature::ViewAgreement, agreement),
            (UnknownFeature::Similarity, 0.9),
            (UnknownFeature::SimilarityGap, 0.5),
            (UnknownFeature::RelativeSimilarity, 2.5),
            (UnknownFeature::MeanDistance, 0.25),
            (UnknownFeature::MahalanobisDistance, 7.0),
        ];
        assert_eq!(expected.map(|(feature, _)| feature), UnknownFeature::ALL);
        for (feature, expected) in expected {
            let found = evidence.feature(feature).unwrap();
            assert!((found - expected).abs() < 1e-6, "{feature:?}: {found}");
            assert_eq!(alone.feature(feature).is_none(), feature.needs_gallery());
        }

        let weighted = |feature, mean, deviation, weight| WeightedFeature {
            feature,
            mean,
            deviation,
            weight,
        };
        let model = UnknownModel {
            score: UnknownScore::Features,
            slope: -1.0,
            intercept: 0.5,
            features: vec![
                weighted(UnknownFeature::Similarity, 0.5, 0.2, 3.0),
                weighted(UnknownFeature::MahalanobisDistance, 5.0, 4.0, -2.0),
            ],
        };
        // 3 · 2 − 2 · ½ = 5.
        let expected = 1.0 / (1.0 + 4.5f64.exp());
        assert!((evidence.unknown(&model) - expected).abs() < 1e-6);
        // What is not there says nothing.
        let expected = 1.0 / (1.0 + (-0.5f64).exp());
        assert!((alone.unknown(&model) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_first_view_is_the_crop_itself() {
        assert_eq!(view(0, 224, 160), Affine::IDENTITY);
    }

    proptest! {
        #[test]
        fn any_finite_logits_give_probabilities(
            views in prop::collection::vec(prop::collection::vec(-1e30..1e30_f32, 5), 1..4),
            temperature in 0.01..100.0_f32,
            power in 0.01..100.0_f32,
        ) {
            let decision = DecisionRule { power, ..decision(temperature) };
            let opinion = opinion(&decision, None, views.iter().map(Vec::as_slice)).unwrap();
            let sum: f32 = opinion.probabilities.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
            prop_assert!((0.0..=1.0).contains(&opinion.unknown));
        }

        /// A power keeps the order and the odds' signs, and leaves "unknown" alone; with one view it is an
        /// inverse temperature.
        #[test]
        fn a_power_sharpens(
            views in prop::collection::vec(prop::collection::vec(-5.0..5.0_f32, 6), 1..4),
            power in 0.2..5.0_f32,
        ) {
            let say = |power, temperature, views: &[Vec<f32>]| {
                let decision = DecisionRule { power, ..decision(temperature) };
                opinion(&decision, None, views.iter().map(Vec::as_slice)).unwrap()
            };
            let (plain, raised) = (say(1.0, 1.0, &views), say(power, 1.0, &views));
            prop_assert_eq!(plain.unknown, raised.unknown);
            for i in 0..6 {
                for j in 0..6 {
                    let (p, q) = (plain.probabilities[i], plain.probabilities[j]);
                    let (a, b) = (raised.probabilities[i], raised.probabilities[j]);
                    if p > 1.001 * q {
                        prop_assert!(a > b);
                        let (expected, odds) = ((p / q).ln() * power, (a / b).ln());
                        prop_assert!((odds - expected).abs() < 1e-2 + 1e-3 * expected, "{odds} {expected}");
                    }
                }
            }
            let one = &views[..1];
            let (raised, colder) = (say(power, 1.0, one), say(1.0, 1.0 / power, one));
            for (a, b) in raised.probabilities.iter().zip(&colder.probabilities) {
                prop_assert!((a - b).abs() < 1e-5);
            }
        }

        /// An individual that is enrolled takes from all others in proportion, and "unknown" falls, the
        /// more the more the head is like it.
        #[test]
        fn who_is_enrolled_takes_from_all_alike(
            logits in prop::collection::vec(-8.0..8.0_f32, 4),
            nearest in prop::collection::vec(prop::option::of(-1.0..1.0_f32), 4),
            (low, high) in (-1.0..1.0_f32, 0.01..0.5_f32).prop_map(|(s, more)| (s, (s + more).min(1.0))),
        ) {
            let say = |enrolled: Option<f32>| {
                let mut nearest = nearest.clone();
                nearest.extend(enrolled.map(Some));
                let similarities = Similarities { model: &MODEL, nearest: &nearest, familiarity: None };
                opinion(&decision(1.0), Some(similarities), [logits.as_slice()].into_iter()).unwrap()
            };
            let (without, less, more) = (say(None), say(Some(low)), say(Some(high)));
            prop_assert!(less.unknown <= without.unknown && more.unknown <= less.unknown);
            prop_assert!(more.probabilities[4] >= less.probabilities[4]);
            for k in 0..4 {
                let left = without.probabilities[k] * (1.0 - more.probabilities[4]);
                prop_assert!((more.probabilities[k] - left).abs() < 1e-5);
            }
        }

        /// Where neighbours have no share and nobody is enrolled, a gallery changes nothing.
        #[test]
        fn a_gallery_without_share_changes_nothing(
            logits in prop::collection::vec(-30.0..30.0_f32, 5),
            nearest in prop::collection::vec(prop::option::of(-1.0..1.0_f32), 5),
        ) {
            let model = NeighbourModel { share: 0.0, ..MODEL };
            let similarities = Similarities { model: &model, nearest: &nearest, familiarity: None };
            let views = || [logits.as_slice()].into_iter();
            prop_assert_eq!(
                opinion(&decision(1.3), Some(similarities), views()),
                opinion(&decision(1.3), None, views())
            );
        }

        /// A classifier's views keep the landmarks within a tenth of the crop of where they belong.
        #[test]
        fn views_stray_little(index in 0..13_u32) {
            let crop = crate::geometry::HeadCrop::RIGHT_WHALE;
            let truth = crop.landmarks(224, 224);
            let seen = truth.map(&view(index, 224, 224));
            prop_assert!(seen.bonnet.distance(truth.bonnet) < 22.4);
            prop_assert!(seen.blowhead.distance(truth.blowhead) < 22.4);
        }
    }
}
