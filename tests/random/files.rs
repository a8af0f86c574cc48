//! Files and states that somebody has changed, knowing what is in them: loaded whole or not at all, and stepped.

use std::collections::BTreeMap;

use gradus::StateDict;
use gradus::checkpoint::{Checkpoint, torch};
use ndarray::{ArrayD, IxDyn};
use rand::RngExt;

use crate::actions::Boxed;
use crate::build::{Context, Number, Ranks, build};
use crate::dials::Dials;
use crate::parts::{Entry, Parts};
use crate::programs::{self, Kind, Program};
use crate::report::{Draw, Failure, Outcome, caught, random};
use crate::runs::states;
use crate::trees::Tree;

/// How many times the file's length loading may need, and what it may need beside: state of 8 bits and matrices are spread out, and
/// names are held several times.
const MEMORY: (u64, u64) = (60, 200_000);

pub(crate) fn case(seed: u64) -> Outcome {
    let program = programs::draw(seed);
    match program.kind {
        Kind::F32 => mutated::<f32>(&program),
        Kind::F64 => mutated::<f64>(&program),
        Kind::F16 => mutated::<half::f16>(&program),
        Kind::Bf16 => mutated::<half::bf16>(&program),
    }
}

impl Parts {
    /// Changes one thing; returns what.
    fn mutate(&mut self, random: &mut impl RngExt) -> String {
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        let keys: Vec<String> = self.metadata.keys().filter(|key| *key != "checksum").cloned().collect();
        if names.is_empty() || random.chance(0.5) {
            return mutate_texts(&mut self.metadata, &random.pick(&keys), random);
        }
        let name = random.pick(&names);
        let Entry { dtype, shape, bytes } = self.tensors.get_mut(&name).unwrap();
        let width = width(dtype);
        match random.below(9) {
            0..3 if !bytes.is_empty() => {
                let at = random.below(bytes.len() / width) * width;
                let value = extreme(dtype, random);
                bytes[at..at + width].copy_from_slice(&value[..width]);
                return format!("{name}: element {} is {value:?}", at / width);
            }
            3 => {
                *shape = vec![bytes.len() as u64 / width as u64];
            }
            4 => {
                shape.reverse();
                shape.insert(0, 1);
            }
            5 if !shape.is_empty() => {
                let at = random.below(shape.len());
                shape[at] = random.pick(&[0, 1, 2, 3, 5, u64::from(u32::MAX), u64::MAX, u64::MAX / 2]);
                let elements = shape.iter().try_fold(1_u64, |product, length| product.checked_mul(*length));
                if let Some(elements) = elements.filter(|elements| *elements < 1000) {
                    bytes.resize(elements as usize * width, 0);
                }
            }
            6 => {
                let other = random.pick(&["F32", "F64", "F16", "BF16", "U8", "U64", "I64", "I32"]).to_owned();
                let elements = bytes.len() / width;
                bytes.resize(elements * self::width(&other), 0);
                *dtype = other;
            }
            7 => _ = self.tensors.remove(&name),
            _ => {
                let tensor = self.tensors[&name].clone();
                let to = if random.chance(0.5) { random.pick(&names) } else { format!("{name}x") };
                self.tensors.insert(to.clone(), tensor);
                return format!("{name} is also {to}");
            }
        }
        format!("{name} is {:?}", self.tensors.get(&name).map(|entry| (&entry.dtype, &entry.shape)))
    }
}

fn width(dtype: &str) -> usize {
    match dtype {
        "U8" => 1,
        "F16" | "BF16" => 2,
        "F32" | "I32" => 4,
        _ => 8,
    }
}

/// A number at the end of a type's range, in bytes.
fn extreme(dtype: &str, random: &mut impl RngExt) -> [u8; 8] {
    let float = random.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, -0.0, 1e38, 1e300, 1e-300, 1e-45]);
    let word = random.pick(&[0, 1, u64::MAX, u64::MAX - 1, u64::MAX / 2, 1 << 53]);
    let mut bytes = [0; 8];
    match dtype {
        "F32" => bytes[..4].copy_from_slice(&(float as f32).to_le_bytes()),
        "F64" => bytes = float.to_le_bytes(),
        "BF16" => bytes[..2].copy_from_slice(&half::bf16::from_f64(float).to_le_bytes()),
        "F16" => bytes[..2].copy_from_slice(&half::f16::from_f64(float).to_le_bytes()),
        _ => bytes = word.to_le_bytes(),
    }
    bytes
}

fn mutate_texts(texts: &mut BTreeMap<String, String>, key: &str, random: &mut impl RngExt) -> String {
    match random.below(8) {
        0 => {
            texts.remove(key);
            return format!("without {key}");
        }
        1 => {
            let text = texts[key].clone();
            let other = format!("{key}{}", random.pick(&["x", "#2", "/", "/steps", "0"]));
            texts.insert(other.clone(), text);
            return format!("{other} too");
        }
        _ => {}
    }
    let text = texts.get_mut(key).unwrap();
    let digits: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
    if digits.len() > 1 && random.chance(0.5) {
        // One number in a longer text, as in a layout.
        let at = random.pick(&digits);
        let number = random.pick(&[
            "0",
            "1",
            "18446744073709551615",
            "4294967296",
            "9223372036854775807",
            "-1",
            "99999999999999999999",
        ]);
        text.replace_range(at..=at, number);
    } else if text.starts_with('[') && random.chance(0.5) {
        *text = random
            .pick(&[
                "[]",
                "null",
                "[[\"w\",[]]]",
                "[[\"w\",[2]],[\"w\",[2]]]",
                "[[\"\",[18446744073709551615,2]]]",
                "{}",
            ])
            .into();
    } else {
        let values = [
            "0",
            "1",
            "2",
            "-1",
            "18446744073709551615",
            "18446744073709551614",
            "9223372036854775808",
            "NaN",
            "inf",
            "-inf",
            "-0",
            "1e308",
            "1e-320",
            "",
            "true",
            "false",
            "F",
            "none",
            "torn",
            "3 4 5 6",
            "NaN NaN 0 0",
            "1e400",
        ];
        *text = random.pick(&values).into();
    }
    format!("{key} is {text:?}")
}

/// Some bits, an end that is missing, bytes in between.
fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut impl RngExt) -> String {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    match random.below(5) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => bytes[..8].copy_from_slice(&(random.next_u64() >> random.below(64)).to_le_bytes()),
        2 => {
            let at = random.below(bytes.len());
            bytes.splice(at..at, (0..1 + random.below(30)).map(|_| random.random::<u8>()).collect::<Vec<_>>());
        }
        3 => (0..1 + random.below(20)).for_each(|_| {
            let at = random.below(8 + header);
            bytes[at] ^= 1 << random.below(8);
        }),
        _ => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
    }
    "bytes".into()
}

/// The same kinds of changes in a state that is no file.
fn mutate_state(state: &mut StateDict, random: &mut impl RngExt) -> String {
    let keys: Vec<String> = state.keys().map(str::to_owned).collect();
    if keys.is_empty() {
        return String::new();
    }
    let key = random.pick(&keys);
    if let Some(text) = state.text(&key) {
        let mut texts = BTreeMap::from([(key.clone(), text.to_owned())]);
        let what = mutate_texts(&mut texts, &key, random);
        state.remove(&key);
        texts.into_iter().for_each(|(key, text)| state.insert_text(key, text));
        return what;
    }
    let shape = crate::trees::shape(random);
    match random.below(4) {
        0 => _ = state.remove(&key),
        1 => state.insert_tensor(&key, ArrayD::<f32>::from_elem(IxDyn(&shape), f32::NAN).view()),
        2 => state.insert_tensor(&key, ArrayD::<f64>::from_elem(IxDyn(&shape), -1.0).view()),
        _ => state.insert_tensor(format!("{key}x"), ArrayD::<f64>::zeros(IxDyn(&shape)).view()),
    }
    format!("{key} is another tensor")
}

fn fresh<A: Number>(program: &Program) -> Boxed<A> {
    build(&program.chain, &mut Context { dials: &mut Dials::default(), ranks: Ranks::Alone })
}

fn train<A: Number>(opt: &mut Boxed<A>, params: &mut Tree<A>, seed: u64, steps: u64) {
    for step in 0..steps {
        (0..program_depth()).for_each(|depth| _ = opt.act(depth, &crate::actions::Action::BeginRound(step), params));
        (0..program_depth()).for_each(|depth| _ = opt.act(depth, &crate::actions::Action::Tap(step), params));
        let grads: Tree<A> = params.like(1.0, &mut random(seed, 20 + step), &mut random(seed, 40 + step));
        _ = opt.step(params, &grads);
    }
}

/// Adaptors that rounds and taps may be meant for.
fn program_depth() -> usize {
    6
}

fn mutated<A: Number>(program: &Program) -> Outcome {
    let mut random = random(program.seed, 15);
    let seed = program.seed;
    let mut params: Tree<A> =
        program.tree.like(1.0, &mut crate::report::random(seed, 1), &mut crate::report::random(seed, 2));
    let mut opt = fresh::<A>(program);
    train(&mut opt, &mut params, seed, 3);
    let start = params.clone();
    let Ok(file) = Checkpoint::of(&params, &opt).map(|file| file.note("epoch", 3)) else { return Ok(()) };
    let saved = file.to_bytes().map_err(|error| Failure::new("a file cannot be written", error))?;
    let mut parts = Parts::of(&saved);
    if Checkpoint::from_bytes(&parts.join(|_| ())).as_ref() != Ok(&file) {
        return Err(Failure::new("the tester does not know the format", program));
    }
    for _ in 0..4 {
        // Into a chain that is fresh, or has trained.
        let mut other = fresh::<A>(program);
        if random.chance(0.3) {
            train(&mut other, &mut start.clone(), seed, 2);
        }
        let mut into = start.clone();
        let before = (other.state_dict(), into.memory());
        let what;
        let mut result = Ok(Ok(()));
        let (mut used, mut length) = (0, 0);
        if random.chance(0.3) {
            let mut state = opt.state_dict();
            what = mutate_state(&mut state, &mut random);
            result = caught(|| other.load_state_dict(&state));
        } else {
            let bytes = if random.chance(0.75) {
                let said: Vec<_> = (0..1 + random.below(5) / 4).map(|_| parts.mutate(&mut random)).collect();
                what = said.join(", ");
                let bytes = match random.chance(0.95) {
                    true => parts.join(|_| ()),
                    false => parts.join_unchecked(|_| ()),
                };
                parts = Parts::of(&saved);
                bytes
            } else {
                let mut bytes = saved.clone();
                what = mutate_bytes(&mut bytes, &mut random);
                bytes
            };
            length = bytes.len() as u64;
            used = allocation_counter::measure(|| {
                result = caught(|| {
                    let file = Checkpoint::from_bytes(&bytes)?;
                    _ = torch::import(&file, "adam", &into, 1);
                    file.load(&mut into, &mut other)
                });
            })
            .bytes_max;
        }
        let failure = |kind: &str, told: String| Err(Failure::new(kind, format!("{program}\n  {what}\n  {told}")));
        if used > MEMORY.0 * length + MEMORY.1 {
            return failure("loading needs much memory", format!("{used} bytes for a file of {length}"));
        }
        match result {
            Err(panic) => return failure(&format!("loading panics at {}", panic.place), panic.message),
            Ok(Err(error)) => {
                let after = other.state_dict();
                if before.0 != after {
                    return failure("a file is loaded in part", format!("{error}: {}", states(&before.0, &after)));
                }
                if into.memory() != before.1 {
                    return failure("parameters are loaded in part", error.to_string());
                }
            }
            Ok(Ok(())) => {
                if let Err(panic) = caught(|| train(&mut other, &mut into, seed, 3)) {
                    return failure(&format!("what was loaded panics at {}", panic.place), panic.message);
                }
                let state = other.state_dict();
                match caught(|| fresh::<A>(program).load_state_dict(&state)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return failure("what was loaded and stepped is refused", error.to_string()),
                    Err(panic) => return failure(&format!("loading panics at {}", panic.place), panic.message),
                }
            }
        }
    }
    Ok(())
}
