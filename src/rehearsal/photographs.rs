//! Reference photographs of drawn whales.

use std::fs;
use std::io;
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::pixels::encode_jpeg;
use recognition::virtual_survey::{HeadView, Individual, render_head};

/// Photographs of each individual.
const PHOTOGRAPHS: usize = 2;
/// Width and height of a photograph in pixels.
const SIZE: (u32, u32) = (512, 256);
const JPEG_QUALITY: u8 = 90;

/// Draws photographs of individuals as a ground station expects a catalogue: into a folder of each one's name in `folder`.
///
/// # Errors
/// A file or folder cannot be written.
pub fn draw_photographs(folder: &Path, individuals: &[Individual]) -> io::Result<()> {
    individuals.par_iter().try_for_each(|individual| {
        let of_animal = folder.join(&individual.name);
        let failed = |e: io::Error| {
            let shown = of_animal.display();
            io::Error::new(
                e.kind(),
                format!("cannot write photographs into {shown}: {e}"),
            )
        };
        fs::create_dir_all(&of_animal).map_err(failed)?;
        let mut rng = ChaCha8Rng::seed_from_u64(individual.whale.seed());
        for number in 1..=PHOTOGRAPHS {
            let view = HeadView::draw(&mut rng);
            let picture = render_head(&individual.whale, &view, SIZE.0, SIZE.1);
            let bytes = encode_jpeg(&picture, JPEG_QUALITY).map_err(io::Error::other)?;
            fs::write(of_animal.join(format!("drawn-{number}.jpg")), bytes).map_err(failed)?;
        }
        Ok(())
    })
}
