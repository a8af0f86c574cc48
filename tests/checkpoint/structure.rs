//! Files of which the structure is mutated, with a checksum that is right: an error that changes nothing, or a state that can
//! be stepped and saved. Never a panic.
//!
//! `GRADUS_FILES` is how many, `GRADUS_SEED` where they begin.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gradus::Error;
use gradus::checkpoint::Checkpoint;
use gradus::error::StepError;
use gradus::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::chains::{CHAINS, grads, tree};
use crate::parts::Parts;

const FILES: u64 = 2_000;

/// Numbers as text and in shapes that arithmetic does not expect.
const NUMBERS: [u64; 10] =
    [0, 1, 2, 255, 1 << 32, (1 << 53) + 1, (1 << 62) + 1, i64::MAX as u64, u64::MAX - 1, u64::MAX];

const TEXTS: [&str; 14] = [
    "",
    "-1",
    "+1",
    " 1",
    "1.5",
    "1e400",
    "-0",
    "NaN",
    "inf",
    "-inf",
    "true",
    "false",
    "5e-324",
    "340282366920938463463374607431768211456",
];

fn any<'a, T>(all: &'a BTreeMap<String, T>, random: &mut impl Rng) -> Option<&'a String> {
    let keys: Vec<_> = all.keys().collect();
    keys.choose(random).copied()
}

fn number(random: &mut impl Rng) -> u64 {
    if random.random() { *NUMBERS.choose(random).unwrap() } else { random.random_range(0..70) }
}

fn shape(random: &mut impl Rng) -> Vec<u64> {
    (0..random.random_range(0..4)).map(|_| number(random)).collect()
}

/// Changes one thing: an entry of the state, the layout, a name, a shape, a type, a number.
fn mutate(parts: &mut Parts, random: &mut impl Rng) {
    let Parts { metadata, tensors } = parts;
    let (Some(key), Some(name)) = (any(metadata, random).cloned(), any(tensors, random).cloned()) else { return };
    let other = any(tensors, random).cloned().unwrap_or_default();
    match random.random_range(0..14) {
        0 => _ = metadata.insert(key, number(random).to_string()),
        1 => _ = metadata.insert(key, (*TEXTS.choose(random).unwrap()).into()),
        2 => _ = metadata.remove(&key),
        3 => {
            let text = metadata.remove(&key).unwrap();
            metadata.insert(format!("{key}{}", random.random_range(0..3)), text);
        }
        4..=6 => {
            let Some(Ok(mut layout)) = metadata.get("layout").map(|text| serde_json::from_str::<Value>(text)) else {
                return;
            };
            if let Some(entries) = layout.as_array_mut().filter(|entries| !entries.is_empty()) {
                let (at, to) = (random.random_range(0..entries.len()), random.random_range(0..entries.len()));
                match random.random_range(0..6) {
                    0 => entries.swap(at, to),
                    1 => _ = entries.remove(at),
                    2 => entries.push(json!([format!("new.{at}"), shape(random)])),
                    3 => entries[at][0] = entries[to][0].clone(),
                    4 => entries[at][1] = json!(shape(random)),
                    _ => {
                        let lengths = entries[at][1].as_array_mut().unwrap();
                        let axis = random.random_range(0..=lengths.len());
                        match lengths.get_mut(axis) {
                            Some(length) => *length = json!(number(random)),
                            None => lengths.push(json!(number(random))),
                        }
                    }
                }
            }
            metadata.insert("layout".into(), layout.to_string());
        }
        7 => _ = tensors.remove(&name),
        8 => {
            let (a, b) = (tensors.remove(&name), tensors.remove(&other));
            tensors.extend(a.map(|a| (other.clone(), a)).into_iter().chain(b.map(|b| (name.clone(), b))));
        }
        9 => {
            let entry = tensors[&name].clone();
            tensors.insert(format!("{name}{}", random.random_range(0..3)), entry);
        }
        10 => tensors.get_mut(&name).unwrap().shape = shape(random),
        11 => {
            let entry = tensors.get_mut(&name).unwrap();
            let size = *[1_usize, 2, 4, 8].choose(random).unwrap();
            entry.dtype = (*["F32", "F64", "BF16", "F16", "U8", "U64", "I64", "BOOL"].choose(random).unwrap()).into();
            entry.shape = vec![(entry.bytes.len() / size) as u64];
        }
        12 => {
            let entry = tensors.get_mut(&name).unwrap();
            let length = entry.bytes.len();
            entry.bytes.resize(random.random_range(0..=length + 8), 0xff);
        }
        _ => {
            let entry = tensors.get_mut(&name).unwrap();
            let with = if random.random() {
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]
            } else {
                number(random).to_le_bytes()
            };
            let size = entry.bytes.len().min(8);
            entry.bytes[..size].copy_from_slice(&with[..size]);
        }
    }
}

/// What no writer of the format would do to a header.
fn mutate_header(header: &mut Value, random: &mut impl Rng) {
    let Some(all) = header.as_object_mut() else { return };
    let keys: Vec<String> = all.keys().cloned().collect();
    let Some(key) = keys.choose(random) else { return };
    let entry = &mut all[key];
    if !entry["data_offsets"].is_array() {
        *entry = json!([1, {"format": null}, "gradus"]); // the metadata
        return;
    }
    match random.random_range(0..6) {
        0 => entry["data_offsets"][random.random_range(0..2)] = json!(number(random)),
        1 => entry["data_offsets"] = json!([number(random), number(random)]),
        2 => entry["shape"] = json!(shape(random)),
        3 => *entry = json!([entry["dtype"], entry["shape"], entry["data_offsets"]]),
        4 => entry["shape"] = json!([-1, 0.5, "3", null]),
        _ => entry["data_offsets"] = json!(shape(random)),
    }
}

fn set(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_structure_panics() {
    let originals: Vec<Parts> = CHAINS
        .iter()
        .map(|(_, build)| {
            let (mut opt, mut params) = (build(), tree(1));
            (0..5).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
            let file = Checkpoint::of(&params, &opt).unwrap().note("epoch", 3).to_bytes().unwrap();
            let again = Checkpoint::from_bytes(&Parts::of(&file).join(|_| ())).unwrap();
            assert!(again == Checkpoint::from_bytes(&file).unwrap());
            Parts::of(&file)
        })
        .collect();
    let (first, mut loaded) = (set("GRADUS_SEED", 0), 0);
    let count = set("GRADUS_FILES", FILES);
    let mut failures = Vec::new();
    for seed in first..first + count {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let at = (seed % CHAINS.len() as u64) as usize;
        let (name, build) = CHAINS[at];
        let mut parts = originals[at].clone();
        (0..random.random_range(1..4)).for_each(|_| mutate(&mut parts, &mut random));
        let header = random.random_range(0..4) == 0;
        let bytes = parts.join(|value| {
            if header {
                mutate_header(value, &mut random)
            }
        });
        let (mut opt, mut params) = (build(), tree(9));
        let before = (opt.state_dict(), params.clone());
        let run = || match Checkpoint::from_bytes(&bytes).and_then(|file| file.load(&mut params, &mut opt)) {
            Err(error) => {
                assert!(opt.state_dict() == before.0 && params == before.1, "{error}");
                false
            }
            Ok(()) => {
                _ = opt.step(&mut params, &grads(5));
                Checkpoint::of(&params, &opt).and_then(|file| file.to_bytes()).unwrap();
                true
            }
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(right) => loaded += u64::from(right),
            Err(_) => failures.push(format!("{name}, GRADUS_SEED={seed}")),
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(count < 100 || loaded > 0 && loaded < count, "{loaded} of {count} were loaded");
}

/// The layout of the state says that a parameter is larger than it is: nothing is made of that size.
#[test]
fn a_state_of_other_shapes_is_refused_before_it_takes_memory() {
    let (side, saved) = (1_u64 << 24, "[65,67]");
    for (name, build) in CHAINS {
        let (mut opt, mut params) = (build(), tree(1));
        (0..2).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        let mut parts = Parts::of(&Checkpoint::of(&params, &opt).unwrap().to_bytes().unwrap());
        let layout = parts.metadata["layout"].replace(saved, &format!("[{side},{side}]"));
        assert!(layout != parts.metadata["layout"]);
        parts.metadata.insert("layout".into(), layout);
        let (bytes, mut loaded) = (parts.join(|_| ()), tree(9));
        let (before, state) = (loaded.clone(), opt.state_dict());
        let mut result = Ok(());
        let used = allocation_counter::measure(|| {
            result = Checkpoint::from_bytes(&bytes).and_then(|file| file.load(&mut loaded, &mut opt));
        });
        let expected = Error::Step(StepError::ParametersChanged {
            expected: format!("\"a.weight\" of shape [{side}, {side}]"),
            found: "\"a.weight\" of shape [65, 67]".into(),
        });
        assert_eq!(result.unwrap_err(), expected, "{name}");
        assert!(loaded == before && opt.state_dict() == state, "{name}");
        assert!(used.bytes_max < 20 * bytes.len() as u64, "{name}: {used:?}");
    }
}

/// The layout of the state has a tensor that is none of the parameters, and the state counts its steps: nothing is made of its size.
#[test]
fn a_tensor_that_is_nowhere_takes_no_memory() {
    let side = 1_u64 << 24;
    for (name, build) in CHAINS {
        let (mut opt, mut params) = (build(), tree(1));
        (0..2).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        let mut parts = Parts::of(&Checkpoint::of(&params, &opt).unwrap().to_bytes().unwrap());
        let mut layout: Value = serde_json::from_str(&parts.metadata["layout"]).unwrap();
        layout.as_array_mut().unwrap().push(json!(["zzz", [side, side]]));
        parts.metadata.insert("layout".into(), layout.to_string());
        let counts: Vec<_> = parts.tensors.iter().filter(|(key, _)| key.ends_with("step/a.weight")).collect();
        let counts: Vec<_> =
            counts.iter().map(|(key, entry)| (key.replace("a.weight", "zzz"), (*entry).clone())).collect();
        parts.tensors.extend(counts);
        let (bytes, mut loaded, mut fresh) = (parts.join(|_| ()), tree(9), build());
        let before = (loaded.clone(), fresh.state_dict());
        let mut result = Ok(());
        let used = allocation_counter::measure(|| {
            result = Checkpoint::from_bytes(&bytes).and_then(|file| file.load(&mut loaded, &mut fresh));
        });
        if result.is_err() {
            assert!(loaded == before.0 && fresh.state_dict() == before.1, "{name}");
        }
        assert!(used.bytes_max < 20 * bytes.len() as u64, "{name}: {used:?}");
    }
}
