//! From a photograph to identified heads: finder, aligner, ensemble and decision.
//!
//! ```text
//! frame, reduced ─► finder, closer look ─► heads, roughly ─► aligner ─► landmarks ─► head crop ─► ensemble ─► decision
//!                                                                                        gallery, neighbours ─┘
//! ```
//!
//! Pure: the same photograph and bundle give the same answer. It touches no disk and no network, and
//! the clock only to say how long each stage took.
//!
//! # What is decoded
//! The frame is decoded at the scale that the finder needs, so an empty one costs little. Where the finder
//! looks closer, what lies around the peaks is decoded once more, as the closer look needs it; around those
//! that the first look is sure of at once as all that follows needs it, up to the heads' crops. Only where a doubtful
//! one then turns out to be a head is more decoded later.
//!
//! # Heads at the edge
//! Rows that an incomplete photograph lacks count as outside of the frame. A found head whose centre lies
//! outside, in the padding of the finder's input, is none. A
//! single landmark outside the frame is kept and reported where it is estimated to be. Outside the
//! frame, the inputs of finder and aligner are mid-grey, and the ensemble's crop is black: so are the
//! head photographs that it learnt from. (Where training's augmentation leaves such a photograph
//! itself, it shows mid-grey.) Landmarks that come so near to each other, or so far from
//! where the head was found, that they cannot be a head's are not used: the estimate of the round
//! before stands.

pub mod aligner;
mod appearance;
mod decision;
mod ensemble;
mod finder;
mod frame_pixels;
mod identifier;
mod neighbours;
mod pooling;
mod report;
mod statistics;

pub use appearance::{Appearance, AppearanceKind, Likeness};
pub use ensemble::{
    Evidence, Opinion, Similarities, concentration, opinion, raise as raise_probabilities,
    view as ensemble_view,
};
pub use finder::FoundHead;
pub use identifier::{Detection, Identifier, IdentifyError};
pub use neighbours::{Neighbours, mean_embedding};
pub use pooling::{FrameCorrelation, PooledOpinion};
pub use report::{
    Candidate, Decision, FrameDetections, FrameIdentification, FrameReport, HeadIdentification,
    Identification, StageTimes,
};
pub use statistics::{Cohort, Compared, Familiarity, GalleryStatistics, relation};
