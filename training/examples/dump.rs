use callosity_training::{
    cache::Cache, index::*, loader::*, recipe::Recipe, split::Split, tasks::*,
};
use std::{path::Path, sync::Arc};
fn main() {
    let r = Recipe::load(Path::new("/work/main/training/recipes/resnet-19.toml")).unwrap();
    let index = Index::load(Path::new("/work/runs/data/index.json")).unwrap();
    let split = Split::load(Path::new("/work/runs/data/split.json")).unwrap();
    let cache = Arc::new(
        Cache::open_or_build(
            &index,
            |p| p.kind == PhotographKind::Head,
            Path::new("/work/runs/data/cache"),
        )
        .unwrap(),
    );
    let t = ClassifierTask::new(&r, &index, &split, &cache, 0);
    let s = t.training();
    let (w, h) = (160u32, 80u32);
    let mut sheet = image::RgbImage::new(w * 6, h * 8);
    for k in 0..48u32 {
        let mut input = vec![0f32; s.input_len()];
        let mut target = [0f32];
        let mut rng = random(1, 2, k as u64);
        s.write(k as usize * 7, &mut rng, &mut input, &mut target);
        for y in 0..h {
            for x in 0..w {
                let px = |c: u32| {
                    ((input[(c * w * h + y * w + x) as usize] * 0.22 + 0.4) * 255.).clamp(0., 255.)
                        as u8
                };
                sheet.put_pixel(
                    (k % 6) * w + x,
                    (k / 6) * h + y,
                    image::Rgb([px(0), px(1), px(2)]),
                );
            }
        }
    }
    sheet.save("/tmp/dump.png").unwrap();
}
