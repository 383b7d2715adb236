use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::bundle::Gallery;

/// How many photographs a photograph of the gallery is compared with, the nearest ones of other individuals.
const COHORT: usize = 100;
/// Deviations of cosines below it are taken for it: in a gallery of a few photographs they mean nothing.
const LEAST_DEVIATION: f64 = 0.01;
/// Photographs whose cohorts are sought at once.
const ROWS: usize = 64;

/// What a gallery as a whole says of a head: the [features](crate::bundle::UnknownFeature) of these names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Familiarity {
    /// How near the nearest photograph is, for one that is so near to others.
    pub relative_similarity: f64,
    /// Squared distance to the nearest individual's mean.
    pub mean_distance: f64,
    /// Squared distance to the catalogue's mean in units of its variety.
    pub mahalanobis_distance: f64,
}

impl Familiarity {
    /// With one more individual enrolled.
    #[must_use]
    pub fn with(self, relative_similarity: f64, mean_distance: f64) -> Self {
        Self {
            relative_similarity: self.relative_similarity.max(relative_similarity),
            mean_distance: self.mean_distance.min(mean_distance),
            ..self
        }
    }
}

/// Mean and standard deviation of the cosines of a photograph to those of other individuals that are nearest to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cohort {
    /// Mean.
    pub mean: f64,
    /// Standard deviation; never 0.
    pub deviation: f64,
}

impl Cohort {
    /// Of the cosines to all photographs of other individuals.
    fn of(mut cosines: Vec<f32>) -> Self {
        let nearest = if cosines.len() > COHORT {
            let (nearest, ..) = cosines.select_nth_unstable_by(COHORT, |a, b| b.total_cmp(a));
            nearest
        } else {
            &mut cosines[..]
        };
        // In one order, so that sums are the same however the nearest were found.
        nearest.sort_unstable_by(f32::total_cmp);
        let count = nearest.len().max(1) as f64;
        let mean = nearest.iter().map(|&c| f64::from(c)).sum::<f64>() / count;
        let square = |c: &f32| (f64::from(*c) - mean).powi(2);
        let variance = nearest.iter().map(square).sum::<f64>() / count;
        Self {
            mean,
            deviation: variance.sqrt().max(LEAST_DEVIATION),
        }
    }

    /// How many deviations a cosine to the photograph lies above those of its cohort.
    fn relative(&self, cosine: f32) -> f64 {
        (f64::from(cosine) - self.mean) / self.deviation
    }
}

/// A photograph with its cohort.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// A unit vector.
    pub embedding: ArrayView1<'a, f32>,
    /// By the catalogue.
    pub cohort: Cohort,
}

/// What must be known of a gallery to say how [familiar](Familiarity) a head is.
///
/// Cohorts, centre and variety are those of the catalogue's photographs: who is enrolled changes nothing in what is said
/// of others' photographs.
#[derive(Clone, Debug, PartialEq)]
pub struct GalleryStatistics {
    /// Photographs × length, unit vectors: the catalogue's, then those that were enrolled.
    embeddings: Array2<f32>,
    individuals: Vec<usize>,
    cohorts: Vec<Cohort>,
    /// Of each individual the mean of its photographs, and how many these are.
    means: Vec<(Array1<f64>, usize)>,
    /// How many of the photographs are the catalogue's.
    catalogue: usize,
    /// The catalogue's mean, and the inverse of its covariance.
    centre: Array1<f64>,
    precision: Array2<f64>,
}

impl GalleryStatistics {
    /// Of a gallery whose first `catalogue` individuals are the catalogue's. `None` where it has no two photographs of
    /// them that differ.
    pub fn of(gallery: &Gallery, catalogue: usize) -> Option<Self> {
        let photographs = 0..gallery.len();
        let (own, enrolled): (Vec<usize>, Vec<usize>) =
            photographs.partition(|&photograph| gallery.individual(photograph) < catalogue);
        let mut embeddings = Array2::zeros((own.len(), gallery.embedding_len()));
        for (mut row, &photograph) in embeddings.rows_mut().into_iter().zip(&own) {
            row.assign(&gallery.embedding(photograph));
        }
        let individuals: Vec<usize> = own.iter().map(|&p| gallery.individual(p)).collect();
        let centre = embeddings.mapv(f64::from).mean_axis(Axis(0))?;
        let precision = shrunken_precision(&embeddings.view(), &centre)?;
        let rows: Vec<usize> = (0..own.len()).collect();
        let cohorts = rows
            .par_chunks(ROWS)
            .flat_map_iter(|rows| {
                let cosines = embeddings.select(Axis(0), rows).dot(&embeddings.t());
                let each = rows.iter().enumerate().map(|(i, &row)| {
                    let all = cosines.row(i);
                    let others = all.iter().zip(&individuals);
                    let others = others.filter(|(_, individual)| **individual != individuals[row]);
                    Cohort::of(others.map(|(cosine, _)| *cosine).collect())
                });
                each.collect::<Vec<_>>()
            })
            .collect();
        let mut statistics = Self {
            catalogue: own.len(),
            means: Vec::new(),
            embeddings,
            individuals,
            cohorts,
            centre,
            precision,
        };
        for photograph in &own {
            statistics.add_to_mean(
                &gallery.embedding(*photograph),
                gallery.individual(*photograph),
            );
        }
        for photograph in enrolled {
            statistics.push(
                &gallery.embedding(photograph),
                gallery.individual(photograph),
            );
        }
        Some(statistics)
    }

    /// Adds a photograph of an individual that is enrolled, or one more of the catalogue's, which then is in no other's
    /// cohort.
    pub fn push(&mut self, embedding: &Array1<f32>, individual: usize) {
        self.cohorts
            .push(self.cohort(embedding.view(), Some(individual)));
        self.individuals.push(individual);
        self.embeddings
            .push_row(embedding.view())
            .expect("as long as the others");
        self.add_to_mean(embedding, individual);
    }

    fn add_to_mean(&mut self, embedding: &Array1<f32>, individual: usize) {
        let nothing = || (Array1::zeros(embedding.len()), 0);
        if self.means.len() <= individual {
            self.means.resize_with(individual + 1, nothing);
        }
        let (mean, count) = &mut self.means[individual];
        *count += 1;
        let share = 1.0 / *count as f64;
        mean.zip_mut_with(embedding, |mean, &v| {
            *mean += share * (f64::from(v) - *mean);
        });
    }

    /// The cohort of a photograph that is in the gallery or may come into it, of `individual` where that has photographs
    /// there.
    pub fn cohort(&self, embedding: ArrayView1<'_, f32>, individual: Option<usize>) -> Cohort {
        let catalogue = self.embeddings.slice(ndarray::s![..self.catalogue, ..]);
        let cosines = catalogue.dot(&embedding);
        let others = cosines.iter().zip(&self.individuals);
        let others = others.filter(|(_, own)| Some(**own) != individual);
        Cohort::of(others.map(|(cosine, _)| *cosine).collect())
    }

    /// How familiar a head is by its embedding, a unit vector.
    pub fn familiarity(&self, embedding: ArrayView1<'_, f32>) -> Familiarity {
        let cosines = self.embeddings.dot(&embedding);
        let relative = cosines.iter().zip(&self.cohorts);
        let relative = relative.map(|(&cosine, cohort)| cohort.relative(cosine));
        let met = self.means.iter().filter(|(_, count)| *count > 0);
        let away = embedding.mapv(f64::from) - &self.centre;
        Familiarity {
            relative_similarity: relative.fold(f64::NEG_INFINITY, f64::max),
            mean_distance: met
                .map(|(mean, _)| squared_distance(embedding, mean))
                .fold(f64::INFINITY, f64::min),
            mahalanobis_distance: away.dot(&self.precision.dot(&away)),
        }
    }
}

fn squared_distance(embedding: ArrayView1<'_, f32>, mean: &Array1<f64>) -> f64 {
    let each = embedding.iter().zip(mean);
    each.map(|(&a, b)| (f64::from(a) - b).powi(2)).sum()
}

/// How a head stands to the photographs of one individual, of which there is at least one: the relative similarity of the
/// nearest one, and the squared distance to their mean.
pub fn relation(embedding: ArrayView1<'_, f32>, photographs: &[Compared<'_>]) -> (f64, f64) {
    let mut relative = f64::NEG_INFINITY;
    let mut mean = Array1::<f64>::zeros(embedding.len());
    for photograph in photographs {
        let cosine = photograph.embedding.dot(&embedding);
        relative = relative.max(photograph.cohort.relative(cosine));
        mean.zip_mut_with(&photograph.embedding, |mean, &v| *mean += f64::from(v));
    }
    mean /= photographs.len().max(1) as f64;
    (relative, squared_distance(embedding, &mean))
}

/// The inverse of `C + t I`, where `C` is the covariance of the rows and `t` the mean of its diagonal.
fn shrunken_precision(
    embeddings: &ArrayView2<'_, f32>,
    centre: &Array1<f64>,
) -> Option<Array2<f64>> {
    let narrow = centre.mapv(|c| c as f32);
    let about_mean = embeddings - &narrow;
    let mut covariance = about_mean.t().dot(&about_mean).mapv(f64::from);
    covariance /= embeddings.nrows() as f64;
    let ridge = covariance.diag().mean().filter(|mean| *mean > 0.0)?;
    let length = covariance.nrows();
    let shrunken = DMatrix::from_fn(length, length, |i, j| {
        covariance[[i, j]] + if i == j { ridge } else { 0.0 }
    });
    let inverse = Cholesky::new(shrunken)?.inverse();
    Some(Array2::from_shape_fn((length, length), |(i, j)| {
        inverse[(i, j)]
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gallery(photographs: &[([f32; 2], u32)]) -> Gallery {
        let mut gallery = Gallery::new(2);
        for (embedding, individual) in photographs {
            gallery.push(embedding, *individual).unwrap();
        }
        gallery
    }

    const FOUR: [([f32; 2], u32); 4] = [
        ([1.0, 0.0], 0),
        ([0.0, 1.0], 0),
        ([-1.0, 0.0], 1),
        ([0.0, -1.0], 1),
    ];

    /// By hand: four photographs along the axes, two of each of two individuals. Their mean is 0 and their covariance
    /// ½ I, so that the shrunken one is I. Each has one photograph of the other individual at a cosine of −1 and one at
    /// 0: mean −½, deviation ½.
    #[test]
    fn four_photographs_by_hand() {
        let statistics = GalleryStatistics::of(&gallery(&FOUR), 2).unwrap();
        let of = |x: f32, y: f32| statistics.familiarity(ndarray::arr1(&[x, y]).view());
        let found = of(1.0, 0.0);
        assert!((found.relative_similarity - 3.0).abs() < 1e-6, "{found:?}");
        // The means are (½, ½) and (−½, −½).
        assert!((found.mean_distance - 0.5).abs() < 1e-6, "{found:?}");
        assert!((found.mahalanobis_distance - 1.0).abs() < 1e-6, "{found:?}");
        let found = of(0.6, -0.8);
        assert!((found.relative_similarity - 2.6).abs() < 1e-6, "{found:?}");
        let expected = 1.1f64.powi(2) + 0.3f64.powi(2);
        assert!((found.mean_distance - expected).abs() < 1e-6, "{found:?}");
    }

    /// Who is enrolled makes a head more familiar or changes nothing, and what was known stays as it was.
    #[test]
    fn enrolling_one_by_one_is_reading_them_all() {
        let enrolled = [([0.6, 0.8], 2), ([0.8, 0.6], 2), ([-0.6, 0.8], 3)];
        let mut all = FOUR.to_vec();
        all.extend(enrolled);
        let read = GalleryStatistics::of(&gallery(&all), 2).unwrap();
        let before = GalleryStatistics::of(&gallery(&FOUR), 2).unwrap();
        let mut pushed = before.clone();
        let whole = gallery(&all);
        for photograph in 4..7 {
            let individual = whole.individual(photograph);
            pushed.push(&whole.embedding(photograph), individual);
        }
        assert_eq!(pushed, read);
        for k in 0..16 {
            let angle = f64::from(k) * std::f64::consts::TAU / 16.0;
            let head = ndarray::arr1(&[angle.cos() as f32, angle.sin() as f32]);
            let (less, more) = (
                before.familiarity(head.view()),
                read.familiarity(head.view()),
            );
            assert!(more.relative_similarity >= less.relative_similarity);
            assert!(more.mean_distance <= less.mean_distance);
            assert_eq!(more.mahalanobis_distance, less.mahalanobis_distance);
            // One individual after the other, as a fit does that enrolls for a while.
            let of = |rows: std::ops::Range<usize>| {
                let kept: Vec<_> = rows.map(|row| whole.embedding(row)).collect();
                let compared: Vec<Compared<'_>> = kept
                    .iter()
                    .map(|kept| Compared {
                        embedding: kept.view(),
                        cohort: before.cohort(kept.view(), None),
                    })
                    .collect();
                relation(head.view(), &compared)
            };
            let by_hand = [of(4..6), of(6..7)]
                .into_iter()
                .fold(less, |familiarity, (s, d)| familiarity.with(s, d));
            assert!((by_hand.relative_similarity - more.relative_similarity).abs() < 1e-6);
            assert!((by_hand.mean_distance - more.mean_distance).abs() < 1e-6);
        }
    }

    #[test]
    fn photographs_that_do_not_differ_say_nothing() {
        assert_eq!(GalleryStatistics::of(&Gallery::new(2), 2), None);
        assert_eq!(GalleryStatistics::of(&gallery(&FOUR[..1]), 2), None);
        // Enrolled ones alone are no catalogue.
        assert_eq!(GalleryStatistics::of(&gallery(&FOUR), 0), None);
    }

    proptest! {
        /// By a definition that shares no code.
        #[test]
        fn the_cohort_is_of_the_nearest(mut cosines in prop::collection::vec(-1.0..1.0_f32, 1..300)) {
            let found = Cohort::of(cosines.clone());
            cosines.sort_by(|a, b| b.total_cmp(a));
            cosines.truncate(COHORT);
            let wide = Array1::from_iter(cosines.iter().map(|&c| f64::from(c)));
            prop_assert!((found.mean - wide.mean().unwrap()).abs() < 1e-9);
            prop_assert!((found.deviation - wide.std(0.0).max(LEAST_DEVIATION)).abs() < 1e-9);
        }
    }
}
