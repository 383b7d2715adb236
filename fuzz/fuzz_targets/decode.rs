//! Any bytes are a photograph or a clear error.
#![no_main]

use callosity::pixels::EncodedPhotograph;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
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
});
