//! What a model bundle is: a directory of ONNX networks and the manifest that says how to use them.
//!
//! This room owns the manifest's format and the checks that a bundle passes before anything in it is
//! used. It does not run networks (that is [`inference`](crate::inference)) and does not decide who a
//! whale is (that is [`identify`](crate::identify)). The training crate writes manifests through the
//! same types.

mod check;
mod enroll;
mod error;
mod gallery;
mod manifest;
mod open;

pub use error::{BundleError, ManifestProblem};
pub use gallery::{Gallery, GalleryError};
pub use manifest::{
    Aligner, Catalogue, CloserLook, Confidence, DecisionAims, DecisionRule, Embedding,
    EnrolledPhotograph, Enrollment, Ensemble, FORMAT_VERSION, Finder, GalleryFile, LastLayer,
    MANIFEST_FILE, Manifest, NeighbourModel, Network, NetworkInput, NetworkProvenance, Provenance,
    ReachedAims, SelfTest, UnknownFeature, UnknownModel, UnknownScore, WeightedFeature,
};
pub use open::{Bundle, Role, SelfTestVectors};
