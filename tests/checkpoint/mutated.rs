//! Mutated files are an error or load the same: never a panic, a hang, or more memory than the file is long.

use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use ndarray::{Array1, Array2};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MUTATIONS: usize = 10_000;

/// Copies of the numbers, and of the names several times.
const MEMORY: u64 = 40;

fn build() -> impl Optimizer<f32> {
    AdamW::new(0.1).ema(0.9).accumulate(2)
}

fn model() -> (Array2<f32>, Array1<f32>) {
    (Array2::ones((3, 4)), Array1::zeros(5))
}

/// Some bits, an end that is missing, bytes in between, or another header.
fn mutate(bytes: &mut Vec<u8>, random: &mut impl Rng) {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    match random.random_range(0..8) {
        0 => (0..random.random_range(1..20)).for_each(|_| {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }),
        1 => {
            let at = random.random_range(0..8 + header);
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        2 => bytes.truncate(random.random_range(0..bytes.len())),
        3 => bytes[..8].copy_from_slice(&(random.next_u64() >> random.random_range(0..64)).to_le_bytes()),
        4 => {
            let at = random.random_range(0..=bytes.len());
            bytes.splice(at..at, (0..random.random_range(1..40)).map(|_| random.random::<u8>()).collect::<Vec<_>>());
        }
        // A digit of the header becomes many: sizes and offsets that no file has.
        5 => {
            let digits: Vec<usize> = (8..8 + header).filter(|at| bytes[*at].is_ascii_digit()).collect();
            let at = digits[random.random_range(0..digits.len())];
            let number: String = (0..random.random_range(1..20)).map(|_| random.random_range('0'..='9')).collect();
            bytes.splice(at..=at, number.bytes());
            bytes[..8].copy_from_slice(&((header + number.len() - 1) as u64).to_le_bytes());
        }
        6 => (8..8 + header).for_each(|at| bytes[at] = random.random()),
        _ => *bytes = (0..random.random_range(0..300)).map(|_| random.random()).collect(),
    }
}

#[test]
fn ten_thousand_times() {
    let (mut opt, mut params) = (build(), model());
    (0..3).for_each(|_| _ = opt.step(&mut params, &model()).unwrap());
    let saved = Checkpoint::of(&params, &opt).unwrap();
    let original = saved.to_bytes().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut refused = 0;
    for number in 0..MUTATIONS {
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut random);
        let (mut resumed, mut loaded) = (build(), model());
        let before = (resumed.state_dict(), loaded.clone());
        let mut result = Ok(());
        let used = allocation_counter::measure(|| {
            result = Checkpoint::from_bytes(&bytes).and_then(|file| file.load(&mut loaded, &mut resumed));
        });
        assert!(used.bytes_max <= MEMORY * (bytes.len() as u64 + 1000), "mutation {number}: {used:?}");
        if result.is_err() {
            refused += 1;
            assert!((resumed.state_dict(), loaded) == before, "mutation {number}");
        } else {
            assert!(resumed.state_dict() == opt.state_dict() && loaded == params, "mutation {number}");
        }
    }
    assert!(refused > MUTATIONS * 9 / 10, "{refused}");
}

/// Sizes whose sum or product is beyond a `usize`.
#[test]
fn a_hostile_header() {
    for tensor in [
        r#"{"dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,18446744073709551612]}"#,
        r#"{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}"#,
        r#"{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}"#,
        r#"{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}"#,
        r#"{"dtype":"F4","shape":[3],"data_offsets":[0,2]}"#,
    ] {
        let header = format!(r#"{{"w":{tensor}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        Checkpoint::from_bytes(&bytes).unwrap_err();
    }
    let header = r#"{"__metadata__":{"format":"gradus","version":"1","layout":"[[\"w\",[4294967296,4294967296]]]"}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    Checkpoint::from_bytes(&bytes).unwrap_err();
}
