//! Any bytes are an error or a checkpoint: `cargo +nightly fuzz run checkpoint`.
#![no_main]

use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use libfuzzer_sys::fuzz_target;
use ndarray::Array1;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Checkpoint::from_bytes(bytes) else { return };
    let (mut params, mut opt) = (Array1::<f32>::zeros(3), Adam::new(0.1).ema(0.9).accumulate(2));
    if file.load(&mut params, &mut opt).is_ok() {
        let again = Checkpoint::of(&params, &opt).and_then(|file| file.to_bytes());
        assert!(again.is_ok(), "what was loaded can be saved");
    }
});
