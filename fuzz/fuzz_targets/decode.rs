//! Any bytes are a photograph, whole, incomplete or in a raw file, or a clear error, whole and in part.
#![no_main]

use recognition::geometry::Rectangle;
use recognition::pixels::EncodedPhotograph;
use libfuzzer_sys::fuzz_target;

// libFuzzer's own hook aborts at any panic; those of decoders that are caught are no failure here.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |bytes: &[u8]| {
    let Ok(encoded) = EncodedPhotograph::from_bytes(bytes.to_vec()) else {
        return;
    };
    let encoded = encoded.accepting_incomplete();
    if let Ok(photograph) = encoded.decode(0.125) {
        let (width, height) = encoded.size();
        assert_eq!(
            (photograph.frame_width, photograph.frame_height),
            (width, height)
        );
        let readable = encoded.readable();
        assert!(photograph.part.contains(&readable));
        assert!(f64::from(photograph.pixels.width()) >= readable.width() / 8.0);
        assert!(f64::from(photograph.pixels.height()) >= readable.height() / 8.0);
        assert!((0.5..=1.0).contains(&encoded.faults().share_read()));
    }
    let (width, height) = encoded.size();
    let middle = Rectangle::of_image(width, height).grown(-f64::from(width.min(height)) / 3.0);
    if let Ok(photograph) = encoded.decode_part(&middle, 0.5) {
        assert!(photograph.part.contains(&middle.clamped(&encoded.readable())));
    }
});
