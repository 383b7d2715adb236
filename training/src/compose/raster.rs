use image::RgbImage;

/// Red, green and blue, nominally 0…255, not clipped.
pub(super) type Colour = [f32; 3];

#[inline]
pub(super) fn mix(a: Colour, b: Colour, share_of_b: f32) -> Colour {
    [
        a[0] + (b[0] - a[0]) * share_of_b,
        a[1] + (b[1] - a[1]) * share_of_b,
        a[2] + (b[2] - a[2]) * share_of_b,
    ]
}

#[inline]
pub(super) fn luminance(c: Colour) -> f32 {
    0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]
}

/// 0 below `from`, 1 above `to`, smooth between.
#[inline]
pub(super) fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// What is being painted: rows of colours.
#[derive(Clone)]
pub(super) struct Canvas {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Colour>,
}

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![[0.0; 3]; width * height],
        }
    }

    pub fn from_image(image: &RgbImage) -> Self {
        Self {
            width: image.width() as usize,
            height: image.height() as usize,
            pixels: image.pixels().map(|p| p.0.map(f32::from)).collect(),
        }
    }

    pub fn row_mut(&mut self, y: usize) -> &mut [Colour] {
        &mut self.pixels[y * self.width..(y + 1) * self.width]
    }

    pub fn to_image(&self) -> RgbImage {
        let bytes = self
            .pixels
            .iter()
            .flat_map(|c| c.map(|v| (v + 0.5).clamp(0.0, 255.0) as u8))
            .collect();
        RgbImage::from_raw(self.width as u32, self.height as u32, bytes)
            .expect("three bytes for each pixel")
    }

    /// Gaussian blur, edges repeated.
    pub fn blur(&mut self, sigma_x: f32, sigma_y: f32) {
        let (w, h) = (self.width, self.height);
        if let Some(kernel) = gaussian(sigma_x) {
            let r = kernel.len() / 2;
            let mut padded = vec![[0.0; 3]; w + 2 * r];
            for row in self.pixels.chunks_exact_mut(w) {
                padded[..r].fill(row[0]);
                padded[r..r + w].copy_from_slice(row);
                padded[r + w..].fill(row[w - 1]);
                for (x, out) in row.iter_mut().enumerate() {
                    let mut sum = [0.0; 3];
                    for (k, c) in kernel.iter().zip(&padded[x..]) {
                        for i in 0..3 {
                            sum[i] += k * c[i];
                        }
                    }
                    *out = sum;
                }
            }
        }
        if let Some(kernel) = gaussian(sigma_y) {
            let r = kernel.len() as isize / 2;
            let source = self.pixels.clone();
            for (y, row) in self.pixels.chunks_exact_mut(w).enumerate() {
                row.fill([0.0; 3]);
                for (j, k) in kernel.iter().enumerate() {
                    let from = (y as isize + j as isize - r).clamp(0, h as isize - 1) as usize;
                    for (out, c) in row.iter_mut().zip(&source[from * w..(from + 1) * w]) {
                        for i in 0..3 {
                            out[i] += k * c[i];
                        }
                    }
                }
            }
        }
    }
}

fn gaussian(sigma: f32) -> Option<Vec<f32>> {
    if sigma < 0.2 {
        return None;
    }
    let r = (sigma * 2.5).ceil() as i32;
    let weights: Vec<f32> = (-r..=r)
        .map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp())
        .collect();
    let sum: f32 = weights.iter().sum();
    Some(weights.into_iter().map(|w| w / sum).collect())
}

/// One level of a [`Texture`]: RGBA bytes; alpha says how much of the texel is to be trusted.
struct Level {
    width: usize,
    height: usize,
    texels: Vec<[u8; 4]>,
}

/// A picture prepared for reading at any reduction without aliasing.
pub(super) struct Texture {
    levels: Vec<Level>,
}

impl Texture {
    /// Takes `width × height` RGBA texels.
    pub fn new(width: usize, height: usize, texels: Vec<[u8; 4]>) -> Self {
        assert_eq!(texels.len(), width * height);
        let mut levels = vec![Level {
            width,
            height,
            texels,
        }];
        while let Some(last) = levels.last()
            && last.width >= 16
            && last.height >= 16
        {
            let (w, h) = (last.width / 2, last.height / 2);
            let mut texels = Vec::with_capacity(w * h);
            for y in 0..h {
                for x in 0..w {
                    let at = |i: usize, j: usize| last.texels[(2 * y + j) * last.width + 2 * x + i];
                    let four = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
                    texels.push(std::array::from_fn(|c| {
                        (four
                            .iter()
                            .map(|t| u16::from(t[c]))
                            .sum::<u16>()
                            .div_ceil(4)) as u8
                    }));
                }
            }
            levels.push(Level {
                width: w,
                height: h,
                texels,
            });
        }
        Self { levels }
    }

    /// The same for a photograph that is trusted everywhere.
    pub fn opaque(image: &RgbImage) -> Self {
        Self::new(
            image.width() as usize,
            image.height() as usize,
            image.pixels().map(|p| [p[0], p[1], p[2], 255]).collect(),
        )
    }

    pub fn width(&self) -> usize {
        self.levels[0].width
    }

    pub fn height(&self) -> usize {
        self.levels[0].height
    }

    pub fn texel(&self, x: usize, y: usize) -> [u8; 4] {
        self.levels[0].texels[y * self.levels[0].width + x]
    }

    /// A reader for output pixels that are `step` texels apart.
    pub fn at_step(&self, step: f32) -> Sampler<'_> {
        let index = (step.max(1e-3).log2() + 0.35).floor().max(0.0) as usize;
        let index = index.min(self.levels.len() - 1);
        let level = &self.levels[index];
        Sampler {
            level,
            scale_x: level.width as f32 / self.levels[0].width as f32,
            scale_y: level.height as f32 / self.levels[0].height as f32,
        }
    }
}

/// Reads a [`Texture`] bilinearly at one reduction, edges repeated.
pub(super) struct Sampler<'a> {
    level: &'a Level,
    scale_x: f32,
    scale_y: f32,
}

impl Sampler<'_> {
    /// Colour and trust (0…1) at a position in texels of the full texture.
    #[inline]
    pub fn read(&self, x: f32, y: f32) -> (Colour, f32) {
        let l = self.level;
        let x = (x * self.scale_x - 0.5).clamp(0.0, (l.width - 1) as f32);
        let y = (y * self.scale_y - 0.5).clamp(0.0, (l.height - 1) as f32);
        let (x0, y0) = (x as usize, y as usize);
        let (x1, y1) = ((x0 + 1).min(l.width - 1), (y0 + 1).min(l.height - 1));
        let (fx, fy) = (x - x0 as f32, y - y0 as f32);
        let texel = |x: usize, y: usize| l.texels[y * l.width + x].map(f32::from);
        let (a, b, c, d) = (texel(x0, y0), texel(x1, y0), texel(x0, y1), texel(x1, y1));
        let [r, g, b, trusted]: [f32; 4] = std::array::from_fn(|i| {
            let top = a[i] + (b[i] - a[i]) * fx;
            let bottom = c[i] + (d[i] - c[i]) * fx;
            top + (bottom - top) * fy
        });
        ([r, g, b], trusted / 255.0)
    }
}
