use half::f16;
use ndarray::{Array1, Array2, ArrayView1};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

/// Name of the tensor of embeddings.
const EMBEDDING: &str = "embedding";
/// Name of the tensor of individuals.
const INDIVIDUAL: &str = "individual";
/// How far a stored embedding's length may be from 1: half precision takes less than a thousandth.
const LENGTH_TOLERANCE: f32 = 0.01;

/// Why a gallery cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GalleryError {
    /// It is no safetensors file or has other tensors.
    #[error("this is no gallery: {0}")]
    Format(String),
    /// An embedding has another length than the bundle's, or is no unit vector.
    #[error(
        "the embedding of photograph {row} {what}, but must be a unit vector of {length} values"
    )]
    Embedding {
        /// The photograph, from 0.
        row: usize,
        /// What is wrong.
        what: String,
        /// Values of an embedding of the bundle.
        length: usize,
    },
    /// A photograph is of nobody in the bundle.
    #[error("photograph {row} is of individual {individual}, and the bundle has {individuals}")]
    Individual {
        /// The photograph, from 0.
        row: usize,
        /// Its individual, from 0.
        individual: u32,
        /// Individuals of the bundle.
        individuals: usize,
    },
    /// An enrolled individual has no photograph.
    #[error("{individual} is enrolled, and none of the photographs is of it")]
    NoPhotograph {
        /// The individual.
        individual: String,
    },
}

/// Embeddings of photographs whose individuals are known.
///
/// The file is [safetensors](https://huggingface.co/docs/safetensors): it states the type and shape of what it
/// holds, cannot hold code, and is read by a library here and in one line elsewhere. Two tensors, in any order of
/// rows: `embedding`, `float16`, photographs × length, unit vectors; and `individual`, `uint32`, photographs,
/// places among [`Manifest::individuals`](super::Manifest::individuals). Half precision halves the file and moves
/// a cosine by less than 0.001; what is kept in memory is what was rounded, so that writing again changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Gallery {
    /// Photographs × length; values that half precision can say.
    embeddings: Array2<f32>,
    /// What rounding left of each row's length, inverted.
    scales: Vec<f32>,
    individuals: Vec<u32>,
}

impl Gallery {
    /// Without photographs, for embeddings of this length.
    pub fn new(length: usize) -> Self {
        Self {
            embeddings: Array2::zeros((0, length)),
            scales: Vec::new(),
            individuals: Vec::new(),
        }
    }

    /// Adds a photograph: its embedding, a unit vector, and its individual's place.
    ///
    /// # Errors
    /// The embedding has another length than the others or is no unit vector.
    pub fn push(&mut self, embedding: &[f32], individual: u32) -> Result<(), GalleryError> {
        let (row, length) = (self.len(), self.embedding_len());
        let wrong = |what| GalleryError::Embedding { row, what, length };
        let rounded: Array1<f32> = embedding
            .iter()
            .map(|&value| f16::from_f32(value).to_f32())
            .collect();
        if rounded.len() != length {
            return Err(wrong(format!("has {} values", rounded.len())));
        }
        let norm = rounded.dot(&rounded).sqrt();
        // Asked so that a NaN is refused too.
        let unit = (norm - 1.0).abs() <= LENGTH_TOLERANCE;
        if !unit {
            return Err(wrong(format!("is {norm} long")));
        }
        self.embeddings
            .push_row(rounded.view())
            .expect("as long as the others");
        self.scales.push(1.0 / norm);
        self.individuals.push(individual);
        Ok(())
    }

    /// Reads a file's bytes: embeddings of `length` values of the first `individuals` individuals.
    ///
    /// # Errors
    /// It is no gallery, or not one of these.
    pub fn read(bytes: &[u8], length: usize, individuals: usize) -> Result<Self, GalleryError> {
        let format = |error: safetensors::SafeTensorError| GalleryError::Format(error.to_string());
        let tensors = SafeTensors::deserialize(bytes).map_err(format)?;
        let embedding = tensors.tensor(EMBEDDING).map_err(format)?;
        let individual = tensors.tensor(INDIVIDUAL).map_err(format)?;
        let rows = match (embedding.shape(), individual.shape()) {
            (&[rows, columns], &[labels])
                if rows == labels
                    && columns == length
                    && embedding.dtype() == Dtype::F16
                    && individual.dtype() == Dtype::U32 =>
            {
                rows
            }
            (embeddings, labels) => {
                return Err(GalleryError::Format(format!(
                    "it has embeddings of type {:?} and shape {embeddings:?} and individuals of type {:?} and \
                     shape {labels:?}; the bundle wants F16 [N, {length}] and U32 [N]",
                    embedding.dtype(),
                    individual.dtype()
                )));
            }
        };
        let mut gallery = Self::new(length);
        gallery
            .embeddings
            .reserve_rows(rows)
            .map_err(|error| GalleryError::Format(error.to_string()))?;
        let (halves, _) = embedding.data().as_chunks::<2>();
        let (labels, _) = individual.data().as_chunks::<4>();
        for (row, (values, label)) in halves.chunks_exact(length.max(1)).zip(labels).enumerate() {
            let individual = u32::from_le_bytes(*label);
            if individual as usize >= individuals {
                return Err(GalleryError::Individual {
                    row,
                    individual,
                    individuals,
                });
            }
            let values: Vec<f32> = values
                .iter()
                .map(|half| f16::from_le_bytes(*half).to_f32())
                .collect();
            gallery.push(&values, individual)?;
        }
        Ok(gallery)
    }

    /// The file's bytes. The same gallery gives the same ones.
    pub fn write(&self) -> Vec<u8> {
        let halves: Vec<u8> = self
            .embeddings
            .iter()
            .flat_map(|&value| f16::from_f32(value).to_le_bytes())
            .collect();
        let labels: Vec<u8> = self
            .individuals
            .iter()
            .flat_map(|label| label.to_le_bytes())
            .collect();
        let view = |dtype, shape: Vec<usize>, data| {
            TensorView::new(dtype, shape, data).expect("as many bytes as its shape says")
        };
        let tensors = [
            (
                EMBEDDING,
                view(Dtype::F16, self.embeddings.shape().to_vec(), &halves),
            ),
            (INDIVIDUAL, view(Dtype::U32, vec![self.len()], &labels)),
        ];
        serialize(tensors, &None).expect("names and shapes can be said in JSON")
    }

    /// How many photographs there are.
    pub fn len(&self) -> usize {
        self.individuals.len()
    }

    /// Whether there are no photographs.
    pub fn is_empty(&self) -> bool {
        self.individuals.is_empty()
    }

    /// Values of one embedding.
    pub fn embedding_len(&self) -> usize {
        self.embeddings.ncols()
    }

    /// How many photographs each of the first `individuals` individuals has.
    pub fn photographs(&self, individuals: usize) -> Vec<usize> {
        let mut counts = vec![0; individuals];
        for &individual in &self.individuals {
            if let Some(count) = counts.get_mut(individual as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// A photograph's embedding, from 0: a unit vector.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn embedding(&self, photograph: usize) -> Array1<f32> {
        &self.embeddings.row(photograph) * self.scales[photograph]
    }

    /// The place of a photograph's individual.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn individual(&self, photograph: usize) -> usize {
        self.individuals[photograph] as usize
    }

    /// The cosine of an embedding (a unit vector) to the nearest photograph of each of the first
    /// `individuals` individuals; `None` for one without photographs.
    ///
    /// # Panics
    /// Where the embedding has another length than the gallery's.
    pub fn similarities(&self, embedding: &[f32], individuals: usize) -> Vec<Option<f32>> {
        let mut nearest = vec![None; individuals];
        let cosines = self.embeddings.dot(&ArrayView1::from(embedding));
        let rows = cosines.iter().zip(&self.scales).zip(&self.individuals);
        for ((cosine, scale), &individual) in rows {
            if let Some(nearest) = nearest.get_mut(individual as usize) {
                let cosine = cosine * scale;
                *nearest = Some(nearest.map_or(cosine, |before: f32| before.max(cosine)));
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: usize = 6;
    const INDIVIDUALS: usize = 5;

    fn unit(values: &[f32]) -> Vec<f32> {
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.iter().map(|v| v / norm).collect()
    }

    /// Embeddings and individuals of some photographs.
    fn rows() -> impl Strategy<Value = Vec<(Vec<f32>, u32)>> {
        let vector = prop::collection::vec(-1.0..1.0_f32, LENGTH)
            .prop_filter("a direction", |v| v.iter().any(|v| v.abs() > 0.1))
            .prop_map(|v| unit(&v));
        prop::collection::vec((vector, 0..INDIVIDUALS as u32), 1..20)
    }

    fn gallery(rows: &[(Vec<f32>, u32)]) -> Gallery {
        let mut gallery = Gallery::new(LENGTH);
        for (embedding, individual) in rows {
            gallery.push(embedding, *individual).unwrap();
        }
        gallery
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(rows in rows()) {
            let gallery = gallery(&rows);
            let written = gallery.write();
            let read = Gallery::read(&written, LENGTH, INDIVIDUALS).unwrap();
            prop_assert_eq!(&read, &gallery);
            prop_assert_eq!(read.write(), written);
        }

        #[test]
        fn the_order_of_photographs_changes_nothing(
            (rows, shuffled) in rows().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle())),
        ) {
            let probe = &rows[0].0;
            let found = gallery(&rows).similarities(probe, INDIVIDUALS);
            prop_assert_eq!(gallery(&shuffled).similarities(probe, INDIVIDUALS), found);
        }

        /// By a definition that shares no code, and to the precision that the file promises.
        #[test]
        fn similarities_are_the_largest_cosines(rows in rows(), probe in rows()) {
            let probe = &probe[0].0;
            let found = gallery(&rows).similarities(probe, INDIVIDUALS);
            for (individual, found) in found.into_iter().enumerate() {
                let own = rows.iter().filter(|row| row.1 as usize == individual);
                let cosines = own.map(|row| row.0.iter().zip(probe).map(|(a, b)| a * b).sum::<f32>());
                match cosines.reduce(f32::max) {
                    Some(expected) => prop_assert!((found.unwrap() - expected).abs() < 1e-3),
                    None => prop_assert_eq!(found, None),
                }
            }
        }

        #[test]
        fn a_photograph_of_the_gallery_is_its_own_nearest_neighbour(rows in rows()) {
            let gallery = gallery(&rows);
            for (embedding, individual) in &rows {
                let found = gallery.similarities(embedding, INDIVIDUALS);
                let own = found[*individual as usize].unwrap();
                prop_assert!((own - 1.0).abs() < 1e-3);
                prop_assert!(found.iter().flatten().all(|other| *other <= own + 1e-3));
            }
        }

        #[test]
        fn no_bytes_make_the_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Gallery::read(&bytes, LENGTH, INDIVIDUALS).is_err());
        }

        /// A file that differs in one byte is still a gallery or an error in words.
        #[test]
        fn no_changed_byte_makes_the_reading_panic(
            rows in rows(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = gallery(&rows).write();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            match Gallery::read(&bytes, LENGTH, INDIVIDUALS) {
                Ok(gallery) => prop_assert_eq!(gallery.embedding_len(), LENGTH),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let mut gallery = Gallery::new(2);
        let said = |error: GalleryError| error.to_string();
        assert!(said(gallery.push(&[1.0], 0).unwrap_err()).contains("has 1 values"));
        assert!(said(gallery.push(&[0.5, 0.5], 0).unwrap_err()).contains("0.707"));
        assert!(said(gallery.push(&[0.0, 0.0], 0).unwrap_err()).contains("is 0 long"));
        assert!(said(gallery.push(&[f32::NAN, 1.0], 0).unwrap_err()).contains("NaN"));
        gallery.push(&[0.6, 0.8], 3).unwrap();
        let bytes = gallery.write();
        let error = said(Gallery::read(&bytes, 2, 3).unwrap_err());
        assert!(error.contains("individual 3"), "{error}");
        let error = said(Gallery::read(&bytes, 3, 4).unwrap_err());
        assert!(
            error.contains("[1, 2]") && error.contains("[N, 3]"),
            "{error}"
        );
    }
}
