//! Every optimizer and adaptor keeps every law of [`gradus::testing`]: [`rows`] has the optimizers, [`adaptors`] the adaptors. This file
//! adds the laws that only this crate's optimizers have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adaptors;
mod levels;
mod listed;
mod matrices;
mod memory;
mod moments;
mod parameter_free;
#[cfg(feature = "second-order")]
mod preconditioned;
mod properties;
mod rows;
#[cfg(feature = "federated")]
mod servers;
mod smallest;
mod tensors;
mod value_stability;

use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::Cosine;
use gradus::testing::Law;
use gradus::testing::tensors::{Arranged, Arrangement, numbers};
use ndarray::ArrayD;

use levels::every_simd_level_gives_the_same_bits;
use rows::{Row, Subject, rows};

/// Makes a test of each law: for all rows, in both element types if it is optimized. A law of [`gradus::testing`] is named after the test.
macro_rules! laws {
    ($($(#[$attribute:meta])* $test:ident $(: $($law:ident)+)?;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                fn all<A: Scalar>() {
                    for row in rows::<A>() {
                        eprintln!("{} in {}", row.name, A::DTYPE); // shown when the law is broken
                        laws!(@run row $test $($($law)+)?);
                    }
                }
                // Unoptimized, one type takes minutes; .ci/run asks for both, optimized.
                #[cfg(not(debug_assertions))]
                all::<f32>();
                all::<f64>();
            }
        )*
    };
    (@run $row:ident $test:ident) => { super::$test(&$row) };
    (@run $row:ident $test:ident $($law:ident)+) => {{ $($row.laws().run_one(Law::$law);)+ }};
}

mod law {
    use super::*;

    laws! {
        agrees_with_the_update_rule_of_the_docs: Oracle;
        a_tensor_is_its_elements_one_by_one: ElementsAlone;
        shape_and_slots_are_those_of_the_docs;
        slots_that_are_never_negative_are_named;
        state_in_4_bits_goes_the_same_way;
        deterministic: Deterministic;
        threads_do_not_change_the_bits: Threads;
        every_simd_level_gives_the_same_bits;
        memory_layouts_do_not_change_the_bits: MemoryLayouts;
        a_tree_is_its_leaves_one_by_one: Leaves;
        accumulating_equal_parts_is_the_step_of_their_mean: Accumulation;
        no_gradient_leaves_the_tensor_and_its_state: NoGradient OwnSteps;
        zero_gradient_moves_nothing: ZeroGradient;
        a_constant_schedule_is_the_number: ConstantSchedule;
        the_learning_rate_is_that_of_the_next_step: LearningRate;
        a_group_has_its_own_learning_rate: Groups;
        check_is_apply: CheckIsApply;
        an_error_changes_nothing: Errors;
        a_resumed_run_is_the_uninterrupted_one;
        a_clone_continues_as_the_original;
        a_state_that_does_not_fit_is_refused: StrictLoading;
        a_step_allocates_nothing_that_grows_with_the_elements;
        works_boxed_borrowed_and_on_another_thread: Boxed;
        debug_is_one_short_line: Debug;
        converges_on_the_parabola: Parabola;
        #[cfg_attr(debug_assertions, ignore = "takes minutes if it is not optimized; .ci/run asks for it, optimized")]
        converges_on_rosenbrock: Rosenbrock;
    }
}

/// A learning rate that is another at every step.
fn changing(step: u64) -> f64 {
    0.05 / (1.0 + step as f64)
}

fn shape_and_slots_are_those_of_the_docs<A: Scalar>(row: &Row<A>) {
    row.laws().run_one(Law::Shapes);
    let shapes: [&[usize]; 5] = [&[], &[5], &[2, 0, 3], &[3, 4], &[2, 1, 3, 2]];
    for shape in shapes.into_iter().filter(|shape| row.is_elementwise() || shape.len() >= 2) {
        let (mut opt, mut params) = (row.with(0.1), numbers::<A>(shape, 0));
        assert!(opt.slots("").is_empty(), "no state before the first gradient");
        for step in 1..=2 {
            opt.step(&mut params, &numbers(shape, step)).unwrap();
        }
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

/// With gradients of both signs. Without its name, a slot that the rule divides by would be rounded to 0 in 4 bits.
fn slots_that_are_never_negative_are_named<A: Scalar>(row: &Row<A>) {
    if row.with(0.1).state_precision(StatePrecision::Full).is_none() {
        return;
    }
    let (mut opt, mut params) = (row.with(0.01), numbers::<A>(&[300], 0));
    for step in 1..=6 {
        opt.step(&mut params, &numbers(&[300], step)).unwrap();
    }
    let slots = opt.slots("").into_iter().filter(|(_, slot)| slot.iter().all(|value| *value >= A::zero()));
    // Sophia's estimates may have both signs; those of its row are positive.
    let named = slots.map(|(name, _)| name).filter(|name| *name != "hessian_moment");
    assert_eq!(named.collect::<Vec<_>>(), opt.non_negative());
}

/// Steps down a parabola, in the direction of full state.
fn state_in_4_bits_goes_the_same_way<A: Scalar>(row: &Row<A>) {
    let start = numbers::<A>(&[4096], 0);
    let moved = |precision| {
        let (mut opt, mut params) = (row.with(1e-3).state_precision(precision)?, start.clone());
        for _ in 0..20 {
            let grads = params.clone();
            opt.step(&mut params, &grads).unwrap();
        }
        Some((params - &start).mapv(|change| change.as_f64()))
    };
    let Some(full) = moved(StatePrecision::Full) else { return };
    for rounding in [Rounding::Stochastic, Rounding::Nearest] {
        let few = moved(StatePrecision::Blockwise4(rounding)).unwrap();
        let product = |one: &ArrayD<f64>, other: &ArrayD<f64>| (one * other).sum();
        let cosine = product(&full, &few) / (product(&full, &full) * product(&few, &few)).sqrt();
        let ratio = (product(&few, &few) / product(&full, &full)).sqrt();
        let is_same = cosine > 0.9 && (0.5..2.0).contains(&ratio);
        assert!(is_same || row.is_coarse_in_4_bits(), "{rounding:?}: {cosine}, {ratio}");
    }
}

fn a_resumed_run_is_the_uninterrupted_one<A: Scalar>(row: &Row<A>) {
    row.laws_of_precisions().iter().for_each(|laws| laws.run_one(Law::Resume));
}

fn a_clone_continues_as_the_original<A: Scalar>(row: &Row<A>) {
    let shape = if row.is_elementwise() { [43, 101] } else { [13, 9] };
    let schedule = Cosine::new(0.05, 20).warmup(3);
    let (mut opt, mut params) = (row.with(schedule), Arranged::new(&numbers::<A>(&shape, 0), Arrangement::F));
    let step = |opt: &mut Box<dyn Subject<A>>, params: &mut Arranged<A>, stream: u64| {
        opt.step(params, &numbers(&shape, stream)).unwrap();
    };
    for number in 0..6 {
        let (mut copied, mut copied_params) = (opt.clone(), params.clone());
        step(&mut opt, &mut params, number);
        step(&mut copied, &mut copied_params, number);
        assert!(copied.state_dict() == opt.state_dict() && copied_params == params, "a clone, step {number}");
        assert_eq!(copied.learning_rate(), opt.learning_rate());
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
