//! What a network's input costs: augmentation's warp, the head crop, and decoding for the finder.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use image::{Rgb, RgbImage};
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, HeadCrop, Landmarks, Point};
use recognition::pixels::{
    EncodedPhotograph, OUTSIDE_FRAME, encode_jpeg, prepare, reduce_to_fit, warp,
};

fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x ^ y) as u8, (x / 3 + y) as u8, (x + y / 5) as u8])
    })
}

fn pixels(c: &mut Criterion) {
    let head = pattern(224, 224);
    let augment = |size: f64, scale: f64| {
        Affine::translation(Point::new(-112.0, -112.0))
            .then(&Affine::rotation(0.1))
            .then(&Affine::scaling(scale, scale * 1.03))
            .then(&Affine::translation(Point::new(size / 2.0, size / 2.0)))
    };
    let small = augment(144.0, 144.0 / 224.0);
    c.bench_function("warp 224 to 144", |b| {
        b.iter(|| warp(black_box(&head), &small, 144, 144, [128; 3]));
    });
    let same = augment(224.0, 0.98);
    c.bench_function("warp 224 to 224", |b| {
        b.iter(|| warp(black_box(&head), &same, 224, 224, [128; 3]));
    });
    let input = NetworkInput {
        name: "image".into(),
        width: 144,
        height: 144,
        mean: [0.5; 3],
        std: [0.25; 3],
    };
    let mut values = vec![0.0; 3 * 144 * 144];
    c.bench_function("prepare 224 to 144", |b| {
        b.iter(|| prepare(black_box(&head), &small, &input, OUTSIDE_FRAME, &mut values));
    });

    let frame = pattern(4096, 3072);
    let landmarks = Landmarks {
        bonnet: Point::new(2200.0, 1500.0),
        blowhead: Point::new(2000.0, 1700.0),
    };
    let crop = HeadCrop::RIGHT_WHALE
        .crop_from_frame(&landmarks, 224, 224)
        .expect("the landmarks differ");
    c.bench_function("head crop from 12 megapixels", |b| {
        b.iter(|| warp(black_box(&frame), &crop, 224, 224, [128; 3]));
    });
    let fit = reduce_to_fit(frame.dimensions(), 384, 256);
    c.bench_function("12 megapixels to 384 × 256", |b| {
        b.iter(|| warp(black_box(&frame), &fit, 384, 256, [128; 3]));
    });

    let jpeg = encode_jpeg(&frame, 90).expect("an image of ordinary size");
    let encoded = EncodedPhotograph::from_bytes(jpeg).expect("it was just encoded");
    let mut group = c.benchmark_group("decode 12 megapixels");
    group.sample_size(10);
    for factor in [1, 2, 4, 8] {
        group.bench_function(format!("at 1/{factor}"), |b| {
            b.iter(|| {
                encoded
                    .decode(1.0 / f64::from(factor))
                    .expect("it was just encoded")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pixels);
criterion_main!(benches);
