//! Every optimizer keeps every law: [`rows`] has the optimizers, this file the laws, [`levels`] those that compare SIMD levels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod convergence;
mod levels;
mod listed;
mod matrices;
mod properties;
mod rows;
#[cfg(feature = "federated")]
mod servers;
mod tensors;
mod value_stability;

use gradus::error::StepError;
use gradus::params::Layout;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::Cosine;
use gradus::{Error, Report};
use ndarray::{ArrayD, ArrayViewMut0, aview0, aview1};

use convergence::{on_rosenbrock as converges_on_rosenbrock, on_the_parabola as converges_on_the_parabola};
use levels::every_simd_level_gives_the_same_bits;
use rows::{Oracle, Row, Subject, rows};
use tensors::{Arranged, Arrangement, Bits, bits, number, numbers};

/// Makes a test of each law: for all rows, in both element types.
macro_rules! laws {
    ($($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                fn all<A: Scalar>() {
                    for row in rows::<A>() {
                        eprintln!("{} in {}", row.name, A::DTYPE); // shown when the law is broken
                        super::$law(&row);
                    }
                }
                all::<f32>();
                all::<f64>();
            }
        )*
    };
}

mod law {
    use super::*;

    laws! {
        agrees_with_the_update_rule_of_the_docs
        a_tensor_is_its_elements_one_by_one
        shape_and_slots_are_those_of_the_docs
        deterministic
        threads_do_not_change_the_bits
        every_simd_level_gives_the_same_bits
        memory_layouts_do_not_change_the_bits
        a_tree_is_its_leaves_one_by_one
        accumulating_equal_parts_is_the_step_of_their_mean
        no_gradient_leaves_the_tensor_and_its_state
        zero_gradient_moves_nothing
        a_constant_schedule_is_the_number
        an_error_changes_nothing
        a_resumed_run_is_the_uninterrupted_one
        a_step_allocates_nothing_that_grows_with_the_elements
        works_boxed_borrowed_and_on_another_thread
        converges_on_the_parabola
        converges_on_rosenbrock
    }
}

/// 0, 1, around the widths of SIMD registers (4, 8, 16), around a block, and several blocks with a tail.
const SIZES: [usize; 16] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 1000, 2048, 2049, 5003];

/// Large enough to be shared between threads, more than one share each.
const PARALLEL: usize = 100_003;

/// A learning rate that is another at every step.
fn changing(step: u64) -> f64 {
    0.05 / (1.0 + step as f64)
}

/// Steps with gradients from the streams 1, 2, …
fn run<A: Scalar>(opt: &mut (impl Optimizer<A> + ?Sized), params: &mut ArrayD<A>, steps: u64) {
    for step in 1..=steps {
        let grads = numbers(params.shape(), step);
        opt.step(params, &grads).unwrap();
    }
}

/// A single tensor and all that the optimizer remembers of it.
#[derive(PartialEq)]
struct Everything {
    param: Vec<Bits>,
    slots: Vec<(&'static str, Vec<Bits>)>,
    steps: (u64, u64),
    learning_rate: f64,
}

impl Everything {
    fn of<A: Scalar>(opt: &dyn Subject<A>, param: &ArrayD<A>) -> Self {
        Self {
            param: bits(param),
            slots: opt.slots("").into_iter().map(|(name, slot)| (name, bits(&slot))).collect(),
            steps: (opt.steps(), opt.tensor_steps("")),
            learning_rate: opt.learning_rate(),
        }
    }
}

/// Each step rounds a handful of times, differently here and there; slots pass their difference on.
fn tolerance<A: Scalar>(steps: u64) -> f64 {
    4.0 * steps as f64 * A::epsilon().as_f64()
}

fn agrees_with_the_update_rule_of_the_docs<A: Scalar>(row: &Row<A>) {
    match row.oracle {
        Oracle::Element(oracle) => elements_agree(row, oracle),
        Oracle::Matrix(oracle) => matrices::agree(row, oracle),
    }
}

fn elements_agree<A: Scalar>(row: &Row<A>, oracle: fn(i32, f64, f64, f64, &mut [f64; 3]) -> f64) {
    const STEPS: u64 = 10;
    for size in SIZES {
        let (mut opt, mut params) = (row.with(changing), numbers::<A>(&[size], 0));
        let mut expected: Vec<_> = params.iter().map(|param| (param.as_f64(), [0.0; 3])).collect();
        for step in 1..=STEPS {
            let grads = numbers(&[size], step);
            opt.step(&mut params, &grads).unwrap();
            for ((param, slots), grad) in expected.iter_mut().zip(&grads) {
                *param = oracle(step as i32, changing(step - 1), *param, grad.as_f64(), slots);
            }
        }
        let close = |ours: A, naive: f64| (ours.as_f64() - naive).abs() <= tolerance::<A>(STEPS) * naive.abs().max(1.0);
        for (at, (ours, (naive, _))) in params.iter().zip(&expected).enumerate() {
            assert!(close(*ours, *naive), "element {at} of {size}: {ours} is not {naive}");
        }
        for (number, (name, slot)) in opt.slots("").into_iter().enumerate() {
            for (ours, (_, naive)) in slot.iter().zip(&expected) {
                assert!(close(*ours, naive[number]), "{name} of {size}: {ours} is not {}", naive[number]);
            }
        }
    }
}

/// What the driver does to a tensor, SIMD, blocks and tail, is what the rule does to each element.
fn a_tensor_is_its_elements_one_by_one<A: Scalar>(row: &Row<A>) {
    if !row.is_elementwise() {
        return; // a matrix is more than its elements
    }
    for size in SIZES.into_iter().filter(|size| *size <= 1000) {
        let (mut opt, mut whole) = (row.with(changing), numbers::<A>(&[size], 0));
        let (mut single, mut elements) = (row.with(changing), whole.iter().copied().collect::<Vec<A>>());
        for step in 1..=3 {
            let grads = numbers(&[size], step);
            opt.step(&mut whole, &grads).unwrap();
            let mut params: Vec<_> = elements
                .iter_mut()
                .map(|element| ArrayViewMut0::from_shape((), std::slice::from_mut(element)).unwrap())
                .collect();
            let grads: Vec<_> = grads.iter().map(aview0).collect();
            single.step(&mut params, &grads).unwrap();
        }
        assert_eq!(bits(&whole), bits(&aview1(&elements)), "{size} elements");
    }
}

fn shape_and_slots_are_those_of_the_docs<A: Scalar>(row: &Row<A>) {
    for shape in row.takes(&[&[], &[5], &[2, 0, 3], &[3, 4], &[2, 1, 3, 2]]) {
        let (mut opt, mut params) = (row.with(0.1), numbers::<A>(shape, 0));
        assert!(opt.slots("").is_empty(), "no state before the first gradient");
        run(&mut opt, &mut params, 2);
        assert_eq!(params.shape(), shape);
        let slots = opt.slots("");
        if !shape.contains(&0) {
            assert_eq!(slots.iter().map(|(name, _)| *name).collect::<Vec<_>>(), row.slots);
        }
        // Those of a matrix have shapes of their own.
        assert!(!row.is_elementwise() || slots.iter().all(|(_, slot)| slot.shape() == shape));
        assert!(slots.iter().all(|(_, slot)| slot.iter().all(|value| value.is_finite())));
        assert_eq!((opt.steps(), opt.tensor_steps("")), (2, 2));
    }
}

fn deterministic<A: Scalar>(row: &Row<A>) {
    let once = || {
        let (mut opt, mut params) = (row.with(changing), numbers::<A>(&row.shape(PARALLEL), 0));
        run(&mut opt, &mut params, 3);
        Everything::of(&*opt, &params)
    };
    assert!(once() == once());
}

fn threads_do_not_change_the_bits<A: Scalar>(row: &Row<A>) {
    let shapes: [&[usize]; 5] = match row.is_elementwise() {
        true => [&[PARALLEL], &[3], &[0], &[250, 170], &[70_001]],
        // The first is large enough for its products to be shared between threads.
        false => [&[160, 130], &[3, 2], &[0, 4], &[50, 34], &[30, 2, 45]],
    };
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut opt = row.with(changing);
            let mut params: Vec<_> = shapes.iter().map(|shape| numbers::<A>(shape, 0)).collect();
            // The large matrix in a layout of its own, so that views are shared out as well as slices.
            let mut sliced = Arranged::new(&params[3], Arrangement::Sliced);
            for step in 1..=2 {
                let grads: Vec<_> = shapes.iter().map(|shape| numbers::<A>(shape, step)).collect();
                let [a, b, c, _, e] = &mut params[..] else { unreachable!() };
                opt.step(&mut (a, b, c, &mut sliced, e), &grads).unwrap();
            }
            params[3].assign(&sliced.view());
            let slots = (0..shapes.len()).flat_map(|tensor| opt.slots(&tensor.to_string()));
            let slots: Vec<_> = slots.map(|(_, slot)| bits(&slot)).collect();
            (params.iter().map(|param| bits(param)).collect::<Vec<_>>(), slots)
        })
    };
    let one = with_threads(1);
    assert!(one == with_threads(2), "two threads");
    assert!(one == with_threads(4), "four threads");
}

/// Parameter and gradient in any two layouts, smaller and larger than a block, and with clipping's scale.
fn memory_layouts_do_not_change_the_bits<A: Scalar>(row: &Row<A>) {
    let large: &[usize] = if row.is_elementwise() { &[47, 3, 31] } else { &[13, 3, 7] };
    for shape in row.takes(&[&[7], &[5, 6], &[2, 3, 4], large]) {
        let start = numbers::<A>(shape, 0);
        let in_layouts = |param: Arrangement, grad: Arrangement| {
            let (mut opt, mut params) = (row.with(changing).clip_global_norm(1.0), Arranged::new(&start, param));
            for step in 1..=2 {
                opt.step(&mut params, &Arranged::new(&numbers(shape, step), grad)).unwrap();
            }
            assert_eq!(params.surroundings(), Arranged::new(&start, param).surroundings());
            let slots: Vec<_> = opt.inner().slots("").into_iter().map(|(_, slot)| bits(&slot)).collect();
            (bits(&params.view()), slots)
        };
        let expected = in_layouts(Arrangement::C, Arrangement::C);
        assert!(expected.0 != bits(&start));
        for param in Arrangement::ALL {
            for grad in Arrangement::ALL {
                assert!(expected == in_layouts(param, grad), "{shape:?}: parameter {param:?}, gradient {grad:?}");
            }
        }
    }
}

fn a_tree_is_its_leaves_one_by_one<A: Scalar>(row: &Row<A>) {
    if row.joins_tensors() {
        return;
    }
    let shapes: [&[usize]; 4] = match row.is_elementwise() {
        true => [&[], &[6], &[3, 5], &[2, 2, 3]],
        false => [&[1, 1], &[1, 6], &[3, 5], &[2, 2, 3]],
    };
    let leaf = |number: usize, step: u64| numbers::<A>(shapes[number], 10 * step + number as u64);
    let mut tree: Vec<_> = (0..shapes.len()).map(|number| leaf(number, 0)).collect();
    let mut opt = row.with(changing);
    for step in 1..=3 {
        opt.step(&mut tree, &(leaf(0, step), (leaf(1, step)), leaf(2, step), leaf(3, step))).unwrap();
    }
    for (number, from_tree) in tree.iter().enumerate() {
        let (mut opt, mut alone) = (row.with(changing), leaf(number, 0));
        (1..=3).for_each(|step| _ = opt.step(&mut alone, &leaf(number, step)).unwrap());
        assert_eq!(bits(from_tree), bits(&alone), "leaf {number}");
    }
}

/// The parts are multiples of 2⁻¹⁰, so that sums and means are exact.
fn accumulating_equal_parts_is_the_step_of_their_mean<A: Scalar>(row: &Row<A>) {
    const PARTS: u64 = 4;
    let shape = row.shape(5003); // several blocks
    let coarse =
        |stream| numbers::<A>(&shape, stream).mapv(|x| (x * A::from_f64(1024.0)).round() / A::from_f64(1024.0));
    let (mut large, mut by_large) = (row.with(changing), numbers::<A>(&shape, 0));
    let (mut small, mut by_small) = (row.with(changing).accumulate(PARTS), by_large.clone());
    for step in 0..3 {
        let parts: Vec<_> = (0..PARTS).map(|part| coarse(1 + PARTS * step + part)).collect();
        let mean = parts.iter().fold(ArrayD::zeros(&shape[..]), |sum, part| sum + part);
        let mean = mean.mapv_into(|x| x / A::from_f64(PARTS as f64));
        large.step(&mut by_large, &mean).unwrap();
        let before = bits(&by_small);
        for (number, part) in parts.iter().enumerate() {
            assert_eq!(bits(&by_small), before, "moved early");
            let moved = small.step(&mut by_small, part).unwrap().moved;
            assert_eq!(moved, number as u64 + 1 == PARTS);
        }
        assert!(Everything::of(&*large, &by_large) == Everything::of(&**small.inner(), &by_small), "step {step}");
    }
}

/// A tensor that skips a step is, afterwards, where it would be had that step not been.
fn no_gradient_leaves_the_tensor_and_its_state<A: Scalar>(row: &Row<A>) {
    if row.joins_tensors() {
        return; // the history begins anew: see tests/lbfgs.rs
    }
    let start = numbers::<A>(&row.shape(9), 0);
    let grads = |step| numbers::<A>(&row.shape(9), step);
    let (mut opt, mut tree) = (row.with(0.05), (start.clone(), start.clone()));
    for (first, second) in
        [(Some(grads(1)), None), (None, None), (None, Some(grads(1))), (Some(grads(2)), Some(grads(2)))]
    {
        let before = tree.clone();
        let report = opt.step(&mut tree, &(&first, &second)).unwrap();
        assert_eq!(report.moved, first.is_some() || second.is_some());
        assert!(first.is_some() || bits(&tree.0) == bits(&before.0));
        assert!(second.is_some() || bits(&tree.1) == bits(&before.1));
    }
    let (mut alone, mut params) = (row.with(0.05), start);
    run(&mut alone, &mut params, 2);
    for (path, tensor) in [("0", &tree.0), ("1", &tree.1)] {
        assert_eq!(bits(tensor), bits(&params));
        assert_eq!(opt.tensor_steps(path), 2);
        assert!(opt.slots(path).iter().zip(alone.slots("")).all(|((_, a), (_, b))| bits(a) == bits(&b)));
    }
    assert_eq!(opt.steps(), 4);
}

fn zero_gradient_moves_nothing<A: Scalar>(row: &Row<A>) {
    let start = numbers::<A>(&row.shape(9), 0);
    let (mut opt, mut params) = (row.with(0.05), start.clone());
    for _ in 0..3 {
        opt.step(&mut params, &ArrayD::zeros(start.raw_dim())).unwrap();
    }
    assert_eq!(bits(&params) == bits(&start), row.rests);
    // With decay they shrink.
    assert!(row.rests || params.iter().zip(&start).all(|(now, then)| now.abs() < then.abs()));
}

fn a_constant_schedule_is_the_number<A: Scalar>(row: &Row<A>) {
    let with = |mut opt: Box<dyn Subject<A>>| {
        let mut params = numbers::<A>(&row.shape(17), 0);
        run(&mut opt, &mut params, 4);
        Everything::of(&*opt, &params)
    };
    let expected = with(row.with(0.03));
    assert!(expected == with(row.with(|_: u64| 0.03)));
    assert!(expected == with(row.with(Cosine::new(0.03, 2).floor(0.03))));
}

/// A failed step in the middle of a run: nothing has changed, and the run goes on as if it had not been.
fn an_error_changes_nothing<A: Scalar>(row: &Row<A>) {
    let wrong_at_2 = |fails: bool| move |step: u64| if fails && step == 2 { f64::NAN } else { 0.05 };
    let (mut opt, mut params) = (row.with(wrong_at_2(false)), numbers::<A>(&[3, 3], 0));
    let mut doomed = row.with(wrong_at_2(true));
    let mut doomed_params = params.clone();
    run(&mut opt, &mut params, 2);
    run(&mut doomed, &mut doomed_params, 2);
    let before = Everything::of(&*opt, &params);

    let grads = numbers::<A>(&[3, 3], 3);
    let error = doomed.step(&mut doomed_params, &grads).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::HyperParameter { name: "learning_rate", step: 2, .. })), "{error}");
    // `assert!` on equality: the two optimizers' learning rates differ, NaN on one side.
    assert_eq!(bits(&doomed_params), bits(&params));
    assert_eq!((doomed.steps(), doomed.tensor_steps("")), (2, 2));
    assert!(doomed.slots("").iter().zip(opt.slots("")).all(|((_, a), (_, b))| bits(a) == bits(&b)));

    let other_shape = numbers::<A>(&[9], 3);
    assert!(matches!(opt.step(&mut params, &other_shape).unwrap_err(), Error::Step(StepError::ShapeMismatch { .. })));
    assert!(Everything::of(&*opt, &params) == before);
    let none: [ArrayD<A>; 0] = [];
    assert!(matches!(opt.step(&mut params, &none).unwrap_err(), Error::Step(StepError::MissingGradient { .. })));
    assert!(Everything::of(&*opt, &params) == before);
    let mut strangers = other_shape.clone();
    assert!(matches!(
        opt.step(&mut strangers, &other_shape).unwrap_err(),
        Error::Step(StepError::ParametersChanged { .. })
    ));
    assert_eq!(bits(&strangers), bits(&other_shape));
    assert!(Everything::of(&*opt, &params) == before);
    let broken = grads.mapv(|x| x / A::zero());
    let mut checked = opt.clone().check_finite();
    assert!(matches!(
        checked.step(&mut params, &broken).unwrap_err(),
        Error::Step(StepError::NonFiniteGradient { .. })
    ));
    assert!(Everything::of(&**checked.inner(), &params) == before);

    let (mut straight, mut straight_params) = (row.with(0.05), numbers::<A>(&[3, 3], 0));
    run(&mut straight, &mut straight_params, 2);
    straight.step(&mut straight_params, &grads).unwrap();
    opt.step(&mut params, &grads).unwrap();
    assert!(Everything::of(&*opt, &params) == Everything::of(&*straight, &straight_params));
}

fn a_resumed_run_is_the_uninterrupted_one<A: Scalar>(row: &Row<A>) {
    let (steps, points) = (24, 20);
    let schedule = Cosine::new(0.05, 20).warmup(3);
    // Large enough for 8 bits, and not row by row: quantized state stands in the order of memory.
    let shape = if row.is_elementwise() { [43, 101] } else { [13, 9] };
    let matrix = || Arranged::new(&numbers::<A>(&shape, 0), Arrangement::F);
    let rounding = [Rounding::Stochastic, Rounding::Nearest].map(StatePrecision::Bf16);
    for precision in [StatePrecision::Full, StatePrecision::Blockwise8].into_iter().chain(rounding) {
        let fresh = || match precision {
            StatePrecision::Full => Some(row.with(schedule.clone())),
            less => row.with(schedule.clone()).state_precision(less),
        };
        let Some(first) = fresh() else { continue };
        let fresh = || fresh().unwrap();
        let (mut opt, mut params, mut after) = (first, matrix(), Vec::new());
        let step = |opt: &mut Box<dyn Subject<A>>, params: &mut Arranged<A>, number: u64| {
            opt.step(params, &numbers(&shape, number)).unwrap();
        };
        for number in 0..steps {
            after.push((opt.state_dict(), params.clone(), opt.clone()));
            step(&mut opt, &mut params, number);
        }
        for point in 0..points {
            let at = (number::<f64>(77, point).abs() * (steps - 1) as f64) as usize;
            let (state, mut params, mut copied) = after[at].clone();
            // Into one that has not begun, and into one that is elsewhere.
            let mut resumed = if point % 2 == 0 { fresh() } else { opt.clone() };
            resumed.load_state_dict(&state).unwrap();
            let mut copied_params = params.clone();
            step(&mut resumed, &mut params, at as u64);
            step(&mut copied, &mut copied_params, at as u64);
            let (expected, expected_params, _) = &after[at + 1];
            assert!(resumed.state_dict() == *expected && params == *expected_params, "{precision:?}, step {at}");
            assert!(copied.state_dict() == *expected && copied_params == *expected_params, "a clone, step {at}");
            assert_eq!(resumed.learning_rate(), copied.learning_rate());
        }
    }
}

/// Contiguous and not, with clipping and decay; what a step allocates is the same at 16 times the size.
fn a_step_allocates_nothing_that_grows_with_the_elements<A: Scalar>(row: &Row<A>) {
    if !row.is_elementwise() {
        return; // products need room: see `Matrixwise`
    }
    let allocated = |rows: usize, arrangement: Arrangement| {
        let mut opt = row.with(changing).clip_global_norm(1.0).group("**", Group::new().scale_weight_decay(0.5));
        let mut params = Arranged::new(&numbers::<A>(&[rows, 64], 0), arrangement);
        let grads = Arranged::new(&numbers::<A>(&[rows, 64], 1), arrangement);
        opt.step(&mut params, &grads).unwrap();
        // All in one thread, which is the one whose allocations are counted.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            let info = allocation_counter::measure(|| _ = opt.step(&mut params, &grads).unwrap());
            (info.count_total, info.bytes_total)
        })
    };
    for arrangement in [Arrangement::C, Arrangement::F, Arrangement::Sliced] {
        let (small, large) = (allocated(64, arrangement), allocated(1024, arrangement));
        assert!(small.0 > 0, "the counter counts");
        assert_eq!(small, large, "{arrangement:?}");
    }
}

fn works_boxed_borrowed_and_on_another_thread<A: Scalar>(row: &Row<A>) {
    let start = numbers::<A>(&row.shape(12), 0);
    let grads = numbers::<A>(&row.shape(12), 1);
    let (mut opt, mut expected) = (row.with(0.1), start.clone());
    let expected_report = opt.step(&mut expected, &grads).unwrap();
    let same = |report: Report, params: &ArrayD<A>| report == expected_report && bits(params) == bits(&expected);

    let (mut boxed, mut params): (Box<dyn Optimizer<A>>, _) = (Box::new(row.with(0.1)), start.clone());
    assert!(same(boxed.step(&mut params, &grads).unwrap(), &params));
    assert_eq!((boxed.steps(), boxed.learning_rate()), (1, 0.1));
    assert_eq!(boxed.layout().map(|layout| (**layout).clone()), Some(Layout::of(&params).unwrap()));

    let (mut opt, mut params) = (row.with(0.1), start.clone());
    assert!(same((&mut opt).clip_value(f64::MAX).into_inner().step(&mut params, &grads).unwrap(), &params));
    assert_eq!(opt.steps(), 1);

    let mut opt = row.with(0.1);
    let (report, params) = std::thread::scope(|scope| {
        let (mut params, grads) = (start.clone(), &grads);
        scope.spawn(move || (opt.step(&mut params, grads).unwrap(), params)).join().unwrap()
    });
    assert!(same(report, &params));
}
