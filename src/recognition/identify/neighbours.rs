use ndarray::ArrayView1;

use super::{Familiarity, GalleryStatistics};
use crate::bundle::{Bundle, BundleError, Gallery, GalleryError, NeighbourModel};

/// Photographs of known individuals, by whom a head is named that is like them: a bundle's gallery, to which
/// more may be enrolled.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    gallery: Gallery,
    model: NeighbourModel,
    individuals: Vec<String>,
    /// How many of them are the catalogue's.
    catalogue: usize,
    /// Where the bundle's decision asks for them.
    statistics: Option<GalleryStatistics>,
}

impl Neighbours {
    /// A bundle's gallery, where it has one.
    ///
    /// # Errors
    /// The gallery is not the one that was checked.
    pub fn of(bundle: &Bundle) -> Result<Option<Self>, BundleError> {
        let manifest = bundle.manifest();
        let (Some(declared), Some(gallery)) = (&manifest.gallery, bundle.gallery()?) else {
            return Ok(None);
        };
        let catalogue = manifest.catalogue.individuals.len();
        let features = &manifest.decision.unknown.features;
        let statistics = features.iter().any(|f| f.feature.needs_statistics());
        Ok(Some(Self {
            statistics: statistics
                .then(|| GalleryStatistics::of(&gallery, catalogue))
                .flatten(),
            gallery,
            model: declared.neighbours.clone(),
            individuals: manifest.individuals().cloned().collect(),
            catalogue,
        }))
    }

    /// The photographs.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// What similarity is worth.
    pub fn model(&self) -> &NeighbourModel {
        &self.model
    }

    /// Everybody who can be named: the catalogue's individuals, then the enrolled ones.
    pub fn individuals(&self) -> &[String] {
        &self.individuals
    }

    /// Those who are not in the catalogue.
    pub fn enrolled(&self) -> &[String] {
        &self.individuals[self.catalogue..]
    }

    /// The cosine of an embedding to the nearest photograph of each individual; `None` for one without
    /// photographs.
    ///
    /// # Panics
    /// Where the embedding is not as long as the gallery's.
    pub fn similarities(&self, embedding: &[f32]) -> Vec<Option<f32>> {
        self.gallery.similarities(embedding, self.individuals.len())
    }

    /// What the gallery as a whole says of an embedding; `None` where the bundle's decision does not ask for it.
    ///
    /// # Panics
    /// Where the embedding is not as long as the gallery's.
    pub fn familiarity(&self, embedding: &[f32]) -> Option<Familiarity> {
        let statistics = self.statistics.as_ref()?;
        Some(statistics.familiarity(ArrayView1::from(embedding)))
    }

    /// Adds photographs of an individual, who is enrolled if nobody has that name.
    ///
    /// # Errors
    /// An embedding is no unit vector of the right length; those before it have been added.
    pub fn enroll<'e>(
        &mut self,
        individual: &str,
        embeddings: impl IntoIterator<Item = &'e [f32]>,
    ) -> Result<(), GalleryError> {
        let known = self.individuals.iter().position(|i| i == individual);
        let place = known.unwrap_or_else(|| {
            self.individuals.push(individual.to_owned());
            self.individuals.len() - 1
        });
        for embedding in embeddings {
            self.gallery.push(embedding, place as u32)?;
            if let Some(statistics) = &mut self.statistics {
                // What the gallery rounded, so that a bundle that is read again says the same.
                statistics.push(&self.gallery.embedding(self.gallery.len() - 1), place);
            }
        }
        Ok(())
    }
}

/// The mean of a head's views' embeddings, over its length: the head's embedding. 0 everywhere where the views
/// cancel each other out or there are none.
pub fn mean_embedding<'v>(views: impl Iterator<Item = &'v [f32]>) -> Vec<f32> {
    let mut sum: Vec<f64> = Vec::new();
    for view in views {
        sum.resize(view.len(), 0.0);
        for (sum, value) in sum.iter_mut().zip(view) {
            *sum += f64::from(*value);
        }
    }
    let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    sum.into_iter().map(|v| (v * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_mean_of_views_is_a_unit_vector_in_any_order(
            (views, shuffled) in prop::collection::vec(prop::collection::vec(0.1..1.0_f32, 5), 1..6)
                .prop_flat_map(|views| (Just(views.clone()), Just(views).prop_shuffle())),
        ) {
            let mean = mean_embedding(views.iter().map(Vec::as_slice));
            let norm: f32 = mean.iter().map(|v| v * v).sum();
            prop_assert!((norm - 1.0).abs() < 1e-5);
            let again = mean_embedding(shuffled.iter().map(Vec::as_slice));
            prop_assert!(mean.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn views_that_cancel_each_other_out_are_like_nobody() {
        let views = [[0.6, 0.8], [-0.6, -0.8]];
        assert_eq!(
            mean_embedding(views.iter().map(|v| v.as_slice())),
            [0.0, 0.0]
        );
    }
}
