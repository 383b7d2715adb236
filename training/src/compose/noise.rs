use rand::Rng;

const SIDE: usize = 256;

/// A periodic field of fractal noise, mean 0 and standard deviation 1, made once and read anywhere.
pub(super) struct NoiseTile {
    values: Vec<f32>,
}

impl NoiseTile {
    /// Sums octaves of smoothed lattice noise from `coarsest` lattice cells across the tile up;
    /// each octave is `persistence` times as strong as the one before.
    pub fn new(rng: &mut impl Rng, coarsest: usize, octaves: u32, persistence: f32) -> Self {
        let mut values = vec![0.0; SIDE * SIDE];
        let mut strength = 1.0;
        for octave in 0..octaves {
            let cells = (coarsest << octave).min(SIDE);
            let lattice: Vec<f32> = (0..cells * cells)
                .map(|_| rng.random_range(-1.0..1.0))
                .collect();
            for y in 0..SIDE {
                for x in 0..SIDE {
                    values[y * SIDE + x] += strength * lattice_value(&lattice, cells, x, y);
                }
            }
            strength *= persistence;
        }
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
        values.iter_mut().for_each(|v| *v = (*v - mean) / std);
        Self { values }
    }

    /// The value at a position in lattice points of the tile, any real numbers.
    #[inline]
    pub fn read(&self, x: f32, y: f32) -> f32 {
        // Rounding down by comparison, which costs a tenth of a call of `floor`.
        let down = |v: f32| {
            let i = v as i32;
            i - i32::from((i as f32) > v)
        };
        let (ix, iy) = (down(x), down(y));
        let (fx, fy) = (ix as f32, iy as f32);
        let (x0, y0) = (ix as usize & (SIDE - 1), iy as usize & (SIDE - 1));
        let (x1, y1) = ((x0 + 1) & (SIDE - 1), (y0 + 1) & (SIDE - 1));
        let (u, v) = (x - fx, y - fy);
        let at = |x: usize, y: usize| self.values[y * SIDE + x];
        let top = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * u;
        let bottom = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * u;
        top + (bottom - top) * v
    }
}

fn lattice_value(lattice: &[f32], cells: usize, x: usize, y: usize) -> f32 {
    let scale = cells as f32 / SIDE as f32;
    let (x, y) = (x as f32 * scale, y as f32 * scale);
    let (x0, y0) = (x as usize, y as usize);
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - x0 as f32), ease(y - y0 as f32));
    let at = |x: usize, y: usize| lattice[(y % cells) * cells + x % cells];
    let top = at(x0, y0) + (at(x0 + 1, y0) - at(x0, y0)) * u;
    let bottom = at(x0, y0 + 1) + (at(x0 + 1, y0 + 1) - at(x0, y0 + 1)) * u;
    top + (bottom - top) * v
}

/// A [`NoiseTile`] seen through a random window, so that no two uses look the same.
#[derive(Clone, Copy)]
pub(super) struct NoiseView<'a> {
    tile: &'a NoiseTile,
    xx: f32,
    xy: f32,
    yx: f32,
    yy: f32,
    x0: f32,
    y0: f32,
}

impl<'a> NoiseView<'a> {
    /// `frequency` tile points for each unit, turned by `radians`, stretched by `stretch` along the
    /// turned x axis, at a random place.
    pub fn new(
        rng: &mut impl Rng,
        tile: &'a NoiseTile,
        frequency: f32,
        radians: f32,
        stretch: f32,
    ) -> Self {
        let (sin, cos) = radians.sin_cos();
        let fx = frequency / stretch;
        Self {
            tile,
            xx: cos * fx,
            xy: sin * fx,
            yx: -sin * frequency,
            yy: cos * frequency,
            x0: rng.random_range(0.0..SIDE as f32),
            y0: rng.random_range(0.0..SIDE as f32),
        }
    }

    /// The noise at a position in the caller's units: mean 0, standard deviation 1.
    #[inline]
    pub fn at(&self, x: f32, y: f32) -> f32 {
        self.tile.read(
            self.xx * x + self.xy * y + self.x0,
            self.yx * x + self.yy * y + self.y0,
        )
    }
}
