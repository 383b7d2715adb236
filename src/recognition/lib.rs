//! Recognises individual right whales in photographs: finds their heads, aligns them by bonnet and blowhead, and names
//! the whale.
//!
//! Pixels go one way: [`pixels`] decodes what a frame's heads need, [`identify`] runs the networks of a [`bundle`] on
//! it by [`inference`], in the coordinates of [`geometry`]. It knows nothing of cameras, flights and links; what flies
//! uses it and so does training.

pub mod annotate;
pub mod bundle;
pub mod geometry;
pub mod identify;
pub mod inference;
pub mod pixels;
pub mod virtual_survey;
