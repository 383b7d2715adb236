//! Any bytes are a photograph or a clear error, whole and in part.
#![no_main]

use callosity::geometry::Rectangle;
use callosity::pixels::EncodedPhotograph;
use libfuzzer_sys::fuzz_target;

// libFuzzer's own hook aborts at any panic; those of decoders that are caught are no failure here.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |bytes: &[u8]| {
    let Ok(encoded) = EncodedPhotograph::from_bytes(bytes.to_vec()) else {
        return;
    };
    if let Ok(photograph) = encoded.decode(0.125) {
        let (width, height) = encoded.size();
        assert_eq!(
            (photograph.frame_width, photograph.frame_height),
            (width, height)
        );
        assert!(photograph.pixels.width() >= width.div_ceil(8));
        assert!(photograph.pixels.height() >= height.div_ceil(8));
    }
    let (width, height) = encoded.size();
    let middle = Rectangle::of_image(width, height).grown(-f64::from(width.min(height)) / 3.0);
    if let Ok(photograph) = encoded.decode_part(&middle, 0.5) {
        assert!(photograph.part.contains(&middle));
    }
});
