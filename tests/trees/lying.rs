//! Trees that show other tensors in each walk: another number, order, shape or path, or values elsewhere. Whatever reads or
//! writes them returns an error that changed nothing, or goes by one of the walks. Never a panic.
//!
//! `GRADUS_TREES` is how many, `GRADUS_SEED` where they begin.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gradus::error::ArgumentError;
use gradus::params::{Layout, Visitor, VisitorMut};
use gradus::prelude::*;
use gradus::{Error, check, clip};
use ndarray::{ArrayD, Axis, IxDyn, Slice};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TREES: u64 = 1_000;
const SHAPES: [&[usize]; 6] = [&[2, 3], &[3, 2], &[6], &[1], &[0, 4], &[2, 3]];
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "a.b", ""];
const WALKS: usize = 12;

/// A tensor, and what the walk that goes on now shows of it.
#[derive(Clone)]
struct Leaf {
    tensor: ArrayD<f64>,
    shown: Cell<Shown>,
}

#[derive(Clone, Copy)]
struct Shown {
    leaf: usize,
    name: &'static str,
    /// How many of its first rows, if not all.
    rows: usize,
    absent: bool,
}

impl Shown {
    fn slice(&self, length: usize) -> Slice {
        Slice::from(0..self.rows.min(length))
    }
}

impl Params for Leaf {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        let shown = self.shown.get();
        match shown.absent {
            true => visitor.absent(),
            false => visitor.tensor(self.tensor.slice_axis(Axis(0), shown.slice(self.tensor.shape()[0]))),
        }
    }
}

impl ParamsMut for Leaf {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        let (shown, length) = (self.shown.get(), self.tensor.shape()[0]);
        match shown.absent {
            true => visitor.absent(),
            false => visitor.tensor(self.tensor.slice_axis_mut(Axis(0), shown.slice(length))),
        }
    }
}

/// Tensors, and which of them each walk shows.
#[derive(Clone)]
struct Liar {
    leaves: Vec<Leaf>,
    walks: Vec<Vec<Shown>>,
    walk: Cell<usize>,
    /// The walk that panics at its end.
    panics: Option<usize>,
}

impl Liar {
    /// The first walks are honest; then each is or is not.
    fn new(phase: usize, honest: usize, random: &mut impl Rng) -> Self {
        let all = |leaf| Shown { leaf, name: NAMES[leaf], rows: usize::MAX, absent: false };
        let truth: Vec<_> = (0..SHAPES.len()).map(all).collect();
        let leaf = |(at, shape): (usize, &&[usize])| {
            let mut number = (phase + 10 * at) as f64; // no element is like another
            let tensor = ArrayD::from_shape_simple_fn(IxDyn(shape), || {
                number += 1.0;
                number / 8.0
            });
            Leaf { tensor, shown: Cell::new(all(at)) }
        };
        let walks = (0..WALKS).map(|walk| match walk < honest || random.random() {
            true => truth.clone(),
            false => lie(truth.clone(), random),
        });
        let leaves = SHAPES.iter().enumerate().map(leaf).collect();
        Self { leaves, walks: walks.collect(), walk: Cell::new(0), panics: None }
    }

    fn next(&self) -> Vec<Shown> {
        let walk = self.walk.get();
        self.walk.set(walk + 1);
        let shown = self.walks[walk % WALKS].clone();
        shown.iter().for_each(|shown| self.leaves[shown.leaf].shown.set(*shown));
        shown
    }

    fn end(&self) {
        assert!(self.panics.is_none_or(|walk| self.walk.get() <= walk), "a tree that panics");
    }

    fn bits(&self) -> Vec<u64> {
        self.leaves.iter().flat_map(|leaf| leaf.tensor.iter().map(|x| x.to_bits())).collect()
    }

    fn square(&self) -> f64 {
        self.leaves.iter().flat_map(|leaf| &leaf.tensor).map(|x| x * x).sum()
    }
}

fn lie(mut walk: Vec<Shown>, random: &mut impl Rng) -> Vec<Shown> {
    for _ in 0..random.random_range(1..3) {
        if walk.is_empty() {
            break;
        }
        let at = random.random_range(0..walk.len());
        match random.random_range(0..7) {
            0 => _ = walk.remove(at),
            1 => walk.shuffle(random),
            2 => walk[at].name = NAMES.choose(random).unwrap(),
            3 => walk[at].rows = random.random_range(0..3),
            4 => walk[at].absent = true,
            5 => walk.truncate(at),
            // The values of another tensor at this path.
            _ => walk[at].leaf = random.random_range(0..SHAPES.len()),
        }
    }
    let mut seen = [false; SHAPES.len()];
    walk.retain(|shown| !std::mem::replace(&mut seen[shown.leaf], true)); // no tensor can be borrowed twice
    walk
}

impl Params for Liar {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        self.next().iter().for_each(|shown| visitor.field(shown.name, &self.leaves[shown.leaf]));
        self.end();
    }
}

impl ParamsMut for Liar {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        let shown = self.next();
        self.end();
        let mut leaves: Vec<_> = self.leaves.iter_mut().map(Some).collect();
        shown.iter().for_each(|shown| visitor.field(shown.name, leaves[shown.leaf].take().unwrap()));
    }
}

/// Optimizers that walk trees in ways of their own.
#[rustfmt::skip] // one chain, one line
fn chains() -> [Box<dyn Optimizer<f64>>; 9] {
    [
        Box::new(Adam::new(0.1).weight_decay(0.1)),
        Box::new(Momentum::new(0.1, 0.9).ema(0.9).clip_global_norm(1.0)),
        Box::new(Adam::new(0.1).clip_adaptive(0.1).lookahead(2, 0.5)),
        Box::new(Adam::new(0.1).swa(1, 1).clip_per_tensor_norm(1.0).accumulate(2)),
        Box::new(AdamW::new(0.1).route("c", Momentum::new(0.1, 0.9)).freeze("d")),
        Box::new(Adam::new(0.1).group("a", Group::no_decay()).skip_nonfinite()),
        Box::new(AdamW::new(0.05).route("[!cd]", Muon::new(0.02))),
        Box::new(Lbfgs::new(0.1)),
        Box::new(RmsProp::new(0.1).check_finite().clip_value(1.0)),
    ]
}

fn set(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Runs `case` for many seeds: it may fail, not panic.
fn for_each_seed(case: impl Fn(&mut ChaCha8Rng)) {
    let first = set("GRADUS_SEED", 0);
    for seed in first..first + set("GRADUS_TREES", TREES) {
        let run = || case(&mut ChaCha8Rng::seed_from_u64(seed));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_ok(), "GRADUS_SEED={seed}");
    }
}

/// What must hold after an error.
fn unchanged<T>(result: &Result<T, Error>, tree: &Liar, before: &[u64]) {
    if let Err(error) = result {
        assert!(tree.bits() == before, "{error}");
    }
}

#[test]
fn a_step_goes_by_one_walk() {
    for_each_seed(|random| {
        let mut opt = chains().into_iter().nth(random.random_range(0..9)).unwrap();
        let honest = random.random_range(0..3);
        let (mut params, grads) = (Liar::new(0, honest, random), Liar::new(100, honest, random));
        for _ in 0..5 {
            let (before, state) = (params.bits(), opt.state_dict());
            let result = opt.step(&mut params, &grads);
            unchanged(&result, &params, &before);
            assert!(result.is_ok() || opt.state_dict() == state);
        }
    });
}

#[test]
fn averages_are_exchanged_with_one_walk_or_not_at_all() {
    for_each_seed(|random| {
        let (mut opt, mut swa) = (Sgd::new(0.5).ema(0.5), Sgd::new(0.5).swa(0, 1));
        let (mut params, grads) = (Liar::new(0, WALKS, random), Liar::new(100, WALKS, random));
        opt.step(&mut params, &grads).unwrap();
        swa.step(&mut params, &grads).unwrap();
        for _ in 0..5 {
            let mut liar = Liar::new(50, random.random_range(0..3), random);
            let (before, state) = (liar.bits(), (opt.state_dict(), swa.state_dict()));
            let result = match random.random_range(0..4) {
                0 => opt.read(&mut liar),
                1 => swa.read(&mut liar),
                2 => opt.swap(&mut liar),
                _ => swa.swap(&mut liar),
            };
            unchanged(&result, &liar, &before);
            assert!(result.is_ok() || (opt.state_dict(), swa.state_dict()) == state);
        }
    });
}

#[test]
fn gradients_are_clipped_whole_or_not_at_all() {
    for_each_seed(|random| {
        let honest = random.random_range(0..4);
        let (mut grads, params) = (Liar::new(0, honest, random), Liar::new(9, honest, random));
        let before = grads.bits();
        let which = random.random_range(0..4);
        let result = match which {
            0 => clip::global_norm(&mut grads, 1.0),
            1 => clip::per_tensor_norm(&mut grads, 1.0),
            2 => clip::value(&mut grads, 1.0),
            _ => clip::adaptive(&mut grads, &params, 0.01),
        };
        unchanged(&result, &grads, &before);
        // One factor for all that the last walk has shown.
        if let (0, Ok(1.1..)) = (which, result) {
            let elements = |shown: &Shown| {
                let tensor = &grads.leaves[shown.leaf].tensor;
                tensor.len() / tensor.shape()[0].max(1) * tensor.shape()[0].min(shown.rows)
            };
            let shown = &grads.walks[grads.walk.get() - 1];
            let expected: usize = shown.iter().filter(|shown| !shown.absent).map(elements).sum();
            assert_eq!(grads.bits().iter().zip(&before).filter(|(now, before)| now != before).count(), expected);
        }
    });
}

#[test]
fn a_gradient_check_leaves_at_most_the_element_that_was_hidden() {
    for_each_seed(|random| {
        let honest = if random.random() { WALKS } else { random.random_range(0..8) };
        let mut params = Liar::new(0, honest, random);
        let grads = ["a", "b", "c", "d", "e", "f"].map(|name| {
            let leaf = &params.leaves[NAMES.iter().position(|other| *other == name).unwrap()];
            (name, leaf.tensor.mapv(|x| 2.0 * x))
        });
        let grads = std::collections::BTreeMap::from(grads);
        if random.random() {
            params.panics = Some(random.random_range(0..20));
        }
        let honest = honest == WALKS && params.panics.is_none();
        let (before, mut left) = (params.bits(), random.random_range(2..40));
        let result = catch_unwind(AssertUnwindSafe(|| {
            check::Gradients::new().sample(1, 3).compare(&mut params, &grads, |tree: &Liar| {
                left -= 1;
                assert!(left > 0, "a loss that panics");
                tree.square()
            })
        }));
        let moved = params.bits().iter().zip(&before).filter(|(now, before)| now != before).count();
        let most = usize::from(!honest && !matches!(result, Ok(Ok(_))));
        assert!(moved <= most, "{moved} elements, {result:?}");
    });
}

#[cfg(feature = "checkpoint")]
#[test]
fn a_file_is_loaded_whole_or_not_at_all() {
    use gradus::checkpoint::Checkpoint;
    for_each_seed(|random| {
        let (mut opt, mut params) = (Adam::new(0.1).ema(0.5), Liar::new(0, WALKS, random));
        opt.step(&mut params, &Liar::new(100, WALKS, random)).unwrap();
        let saved = Checkpoint::of(&params, &opt).unwrap();
        _ = Checkpoint::of(&Liar::new(0, 0, random), &opt).and_then(|file| file.to_bytes());
        let (mut liar, mut other) = (Liar::new(50, random.random_range(0..2), random), Adam::new(0.1).ema(0.5));
        let (before, state) = (liar.bits(), other.state_dict());
        let with_state = random.random();
        let result = if with_state { saved.load(&mut liar, &mut other) } else { saved.load_params(&mut liar) };
        unchanged(&result, &liar, &before);
        assert!(result.is_ok() && with_state || other.state_dict() == state);
        // No number of the file is one of the tree's.
        assert!(result.is_err() || liar.bits().iter().zip(&before).all(|(now, before)| now != before));
    });
}

/// The number of elements of trees that no memory holds.
#[test]
fn elements_are_counted_or_the_tree_is_refused() {
    let one = ArrayD::from_elem(IxDyn(&[]), 1.0);
    let large = one.broadcast(IxDyn(&[1 << 31, 1 << 31])).unwrap();
    assert_eq!(Layout::of(&(&large, &large, &large)).unwrap().elements(), 3 << 62);
    let error = Layout::of(&vec![large; 4]).unwrap_err();
    assert_eq!(error.to_string(), "the tree would be too large to address");
    let info = gradus::params::TensorInfo::new("w", &[usize::MAX, 2]);
    assert_eq!(info.elements(), usize::MAX);
    assert!(matches!(Layout::new(vec![info]), Err(Error::Argument(ArgumentError::TooLarge { .. }))));
}
