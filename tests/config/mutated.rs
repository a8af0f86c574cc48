//! Mutated files are an error or build: never a panic.

use gradus::config::Config;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{adaptors, optimizers, schedules};

const MUTATIONS: usize = 4_000;

/// Some characters become others, or a piece is lost, doubled, or moved.
fn mutate(text: &mut Vec<u8>, random: &mut impl Rng) {
    const WORDS: [&[u8]; 12] = [
        b"inf",
        b"nan",
        b"-1",
        b"1e308",
        b"9223372036854775807",
        b"0",
        b"[",
        b"{",
        b"'",
        b"\n[[then]]\n",
        b"true",
        b"**",
    ];
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..text.len());
        let end = random.random_range(at..text.len().min(at + 20));
        match random.random_range(0..5) {
            0 => text[at] = random.random_range(b' '..=b'~'),
            1 => _ = text.drain(at..end),
            2 => _ = text.splice(at..end, WORDS[random.random_range(0..WORDS.len())].iter().copied()).count(),
            3 => {
                let piece = text[at..end].to_vec();
                let to = random.random_range(0..text.len());
                _ = text.splice(to..to, piece).count();
            }
            _ => {
                // A digit becomes many.
                let digits: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_digit()).collect();
                let Some(at) = digits.get(random.random_range(0..digits.len().max(1))) else { continue };
                let number: Vec<u8> =
                    (0..random.random_range(1..20)).map(|_| random.random_range(b'0'..=b'9')).collect();
                _ = text.splice(*at..=*at, number).count();
            }
        }
        if text.is_empty() {
            text.push(b'a');
        }
    }
}

#[test]
fn a_mutated_file_is_an_error_or_builds() {
    let schedules = schedules::rows();
    let schedules = schedules.iter().map(|(text, _)| format!("[optimizer]\nname = 'Sgd'\nlearning_rate = {text}\n"));
    let adaptors = adaptors::rows();
    let adaptors = adaptors.iter().map(|(then, _)| adaptors::text(then));
    let right: Vec<String> =
        optimizers::rows().into_iter().map(|row| row.text).chain(schedules).chain(adaptors).collect();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (mut refused, mut built) = (0, 0);
    for _ in 0..MUTATIONS {
        let toml = &right[random.random_range(0..right.len())];
        let in_json = random.random::<bool>();
        let text = if in_json { Config::from_toml(toml).unwrap().to_json().unwrap() } else { toml.clone() };
        let mut bytes = text.into_bytes();
        mutate(&mut bytes, &mut random);
        let text = String::from_utf8_lossy(&bytes);
        let read = if in_json { Config::from_json(&text) } else { Config::from_toml(&text) };
        match read.and_then(|config| Ok((config.build::<f32>()?, config))) {
            Ok((_, config)) => {
                built += 1;
                assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config, "{text}");
                assert_eq!(Config::from_json(&config.to_json().unwrap()).unwrap(), config, "{text}");
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(refused > MUTATIONS / 4 && built > MUTATIONS / 20, "{refused} {built}");
}
