//! Parameters of 16 bits: through f32 master weights, and without copies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Element, Error};
use half::{bf16, f16};
use ndarray::{Array, Array1, Array2, Dimension, ShapeBuilder, array, s};

mod narrow;

fn number(i: usize) -> f64 {
    ((i * 7919) as f64 * 0.61).sin()
}

fn matrix<A: Element>(size: (usize, usize), phase: usize) -> Array2<A> {
    Array2::from_shape_fn(size, |(i, j)| A::from_f64(number(phase + i * size.1 + j)))
}

/// Beside f32 parameters that take the same gradients: the master weights are they, to the last bit, and the 16-bit
/// parameters are they rounded; in every layout, on any number of threads.
fn is_the_f32_run_rounded<H: Element>() {
    for (size, threads) in [((3, 5), 1), ((211, 307), 1), ((211, 307), 2), ((211, 307), 4)] {
        let start = matrix::<H>(size, 0);
        let mut fortran = Array2::<H>::zeros(size.f());
        fortran.assign(&start);
        let mut wide = Array2::<H>::zeros((2 * size.0, 2 * size.1));
        let mut sliced = wide.slice_mut(s![..;2, ..;2]);
        sliced.assign(&start);
        let mut narrow = (start.clone(), &mut fortran, &mut sliced);
        let mut wide = start.mapv(|x| x.as_f64() as f32);
        let chain = || AdamW::new(|step: u64| 0.1 / (step + 1) as f64).clip_value(0.5);
        let (mut opt, mut plain) = (chain().master_weights::<H>(), chain());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for step in 1..4 {
            let grads = matrix::<H>(size, 31 * step);
            pool.install(|| opt.step(&mut narrow, &(&grads, &grads, &grads)).unwrap());
            plain.step(&mut wide, &grads.mapv(|x| x.as_f64() as f32)).unwrap();
        }
        let rounded = wide.mapv(|x| H::from_f64(f64::from(x)));
        assert!(narrow.0 == rounded && *narrow.1 == rounded && *narrow.2 == rounded, "{size:?} on {threads}");
        for path in ["0", "1", "2"] {
            assert_eq!(opt.master(path).unwrap(), wide.clone().into_dyn());
        }
        assert_eq!((opt.steps(), opt.inner().inner().tensor_steps("1")), (3, 3));
    }
}

#[test]
fn bf16_is_the_f32_run_rounded() {
    is_the_f32_run_rounded::<bf16>();
}

#[test]
fn f16_is_the_f32_run_rounded() {
    is_the_f32_run_rounded::<f16>();
}

#[test]
fn small_steps_add_up() {
    let (mut through, mut w) = (Sgd::new(1.0).master_weights(), array![f16::ONE]);
    for _ in 0..1000 {
        through.step(&mut w, &array![f16::from_f64(1e-4)]).unwrap();
    }
    assert!((w[0].to_f64() - 0.9).abs() < 1e-3, "{w}");
}

/// Gathering in f32 keeps what 16-bit sums would lose, and an average of 16-bit parameters follows them.
#[test]
fn adaptors_inside_and_outside() {
    let mut opt = Sgd::new(1.0).accumulate(2).master_weights::<bf16>().ema(0.5);
    let mut w = array![bf16::ZERO, bf16::ZERO];
    let grads = [array![bf16::from_f64(256.0), bf16::ONE], array![bf16::ONE, bf16::ONE]];
    assert!(!opt.step(&mut w, &grads[0]).unwrap().moved);
    assert!(opt.step(&mut w, &grads[1]).unwrap().moved);
    assert_eq!(opt.inner().master("").unwrap(), array![-128.5_f32, -1.0].into_dyn());
    opt.step(&mut w, &grads[1]).unwrap();
    opt.step(&mut w, &grads[1]).unwrap();
    let mut average = w.clone();
    opt.read(&mut average).unwrap();
    assert_eq!(average[1], bf16::from_f64(-1.5));
}

#[test]
fn loss_scaling_in_the_right_place() {
    let mut opt = Sgd::new(1.0).clip_global_norm(1.0).exact(true).unscale(65536.0).master_weights::<f16>();
    let mut w = array![f16::ZERO];
    let report = opt.step(&mut w, &array![f16::from_f64(32768.0)]).unwrap();
    assert_eq!((report.grad_norm, w[0].to_f64()), (Some(0.5), -0.5));
    let mut wrong = Sgd::new(1.0).unscale(0.0);
    let error = wrong.step(&mut array![0.0], &array![1.0]).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::HyperParameter { name: "loss_scale", .. })), "{error}");
}

/// The scale of a half is applied in f32, also where units have factors of their own before it.
#[test]
fn a_scale_beyond_the_halves_is_applied_to_wider_numbers() {
    let mut opt = Sgd::new(1.0).master_weights().clip_adaptive(0.5).unscale(1e-6);
    let mut w = array![[f16::ONE, f16::ONE]];
    opt.step(&mut w, &array![[f16::from_f32(3e-6), f16::from_f32(4e-6)]]).unwrap();
    let unit = 0.5 * 2.0_f32.sqrt();
    for (w, share) in w.iter().zip([0.6, 0.8]) {
        assert!((w.to_f32() - (1.0 - share * unit)).abs() < 0.01, "{w}");
    }
}

#[test]
fn errors_change_nothing() {
    let mut opt = Adam::new(0.1).check_finite().master_weights::<bf16>();
    let mut w = (array![bf16::ONE], array![bf16::ONE]);
    let grads = (array![bf16::ONE], array![bf16::ONE]);
    opt.step(&mut w, &grads).unwrap();
    let (before, masters) = (w.clone(), ["0", "1"].map(|path| opt.master(path)));
    let error = opt.step(&mut w, &(array![bf16::ONE], array![bf16::NAN])).unwrap_err();
    assert_eq!(error.to_string(), "gradient \"1\" is NaN at index [0]");
    let other = opt.step(&mut array![bf16::ONE], &array![bf16::ONE]).unwrap_err();
    assert!(matches!(other, Error::Step(StepError::ParametersChanged { .. })), "{other}");
    assert_eq!((&w, opt.steps()), (&before, 1));
    assert_eq!(["0", "1"].map(|path| opt.master(path)), masters);

    // A router asks before it moves.
    let mut routed =
        Sgd::<f32>::new(1.0).master_weights().route("1", Adam::new(0.1).check_finite().master_weights::<bf16>());
    let error = routed.step(&mut w, &(array![bf16::ONE], array![bf16::INFINITY])).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{error}");
    assert_eq!(w, before);
}

#[test]
fn tensors_without_gradient_stay() {
    let mut opt = Sgd::new(1.0).master_weights();
    let mut w = (array![bf16::ONE], array![bf16::ONE]);
    opt.step(&mut w, &(None::<Array1<bf16>>, array![bf16::ONE])).unwrap();
    assert_eq!(w, (array![bf16::ONE], array![bf16::ZERO]));
}

/// The parameters may be loaded anew after a first step that was refused: their values are not yet kept.
#[test]
fn a_refused_first_step_keeps_no_master_weights() {
    let mut opt = Sgd::new(0.5).check_finite().master_weights::<bf16>();
    let one = bf16::from_f32(1.0);
    assert!(opt.step(&mut array![bf16::from_f32(8.0)], &array![bf16::NAN]).is_err());
    assert!(opt.master("").is_none() && opt.layout().is_none());
    let mut loaded = array![one, one];
    opt.step(&mut loaded, &array![one, one]).unwrap();
    assert_eq!(loaded, array![bf16::from_f32(0.5), bf16::from_f32(0.5)]);
}

/// Master weights, the state inside and 16-bit averages outside: resumed at every step, also through a file.
/// Interrupted before every step, also through a file, a run ends where it ends without.
fn interrupt<H: Element, D: Dimension, O: Optimizer<H>>(
    build: impl Fn() -> O,
    tensor: impl Fn(usize) -> Array<H, D>,
    steps: usize,
) {
    let (mut opt, mut w) = (build(), tensor(0));
    let mut seen = Vec::new();
    for step in 0..steps {
        seen.push((opt.state_dict(), w.clone()));
        opt.step(&mut w, &tensor(7 * step + 1)).unwrap();
    }
    for (at, (state, mut resumed_w)) in seen.into_iter().enumerate() {
        let mut resumed = build();
        resumed.load_state_dict(&state).unwrap();
        #[cfg(feature = "checkpoint")]
        {
            use gradus::checkpoint::Checkpoint;

            let bytes = Checkpoint::of(&resumed_w, &resumed).unwrap().to_bytes().unwrap();
            (resumed, resumed_w) = (build(), tensor(99));
            Checkpoint::from_bytes(&bytes).unwrap().load(&mut resumed_w, &mut resumed).unwrap();
        }
        (at..steps).for_each(|step| _ = resumed.step(&mut resumed_w, &tensor(7 * step + 1)).unwrap());
        assert!(resumed_w == w && resumed.state_dict() == opt.state_dict(), "interrupted at {at}");
    }
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    fn run<H: Element>() {
        let number = |i: usize| H::from_f64(((i * 104_729) as f64 * 0.37).sin());
        let vector = |phase: usize| Array1::from_shape_fn(40, |i| number(i + phase));
        interrupt(|| AdamW::new(0.1).accumulate(2).master_weights::<H>().ema(0.9), vector, 12);
    }
    run::<bf16>();
    run::<f16>();
    let state = Sgd::<f32>::new(1.0).master_weights::<bf16>().state_dict();
    let error = Sgd::<f32>::new(1.0).master_weights::<f16>().load_state_dict(&state).unwrap_err();
    assert_eq!(error.to_string(), "entry \"master_weights/dtype\" is \"bf16\"; it must be f16");
}

/// Averages outside follow what has moved: also by a gradient gathered before, and nothing that is frozen inside.
#[test]
fn averages_outside_follow_what_moves() {
    let one = || array![bf16::ONE];
    let mut opt = Sgd::new(1.0).accumulate(2).sum(true).master_weights().ema(0.5);
    let (mut w, mut average) = (one(), one());
    for grad in [Some(one()), None, Some(one()), None] {
        opt.step(&mut w, &grad).unwrap();
    }
    opt.read(&mut average).unwrap();
    assert_eq!((w[0].to_f64(), average[0].to_f64()), (-1.0, -0.5));

    let mut opt = Sgd::new(1.0).freeze("0").master_weights().swa(1, 1);
    let mut w = (one(), one());
    opt.step(&mut w, &(one(), one())).unwrap();
    w.0 = array![bf16::from_f64(5.0)];
    opt.step(&mut w, &(one(), one())).unwrap();
    let mut average = (one(), one());
    opt.read(&mut average).unwrap();
    assert_eq!((average, w.0[0].to_f64()), ((one(), array![bf16::from_f64(-0.5)]), 5.0));
}

/// Sums of 16-bit gradients leave the range where their mean does not, and lose small parts beside large ones.
#[test]
fn gradients_are_gathered_in_f32() {
    fn check<H: Element>(grad: f64) {
        let grads = array![H::from_f64(grad), H::from_f64(grad / 2.0)];
        let expected = grads.mapv(|grad| H::from_f64(-1e-4 * grad.as_f64()));
        let (mut opt, mut w) = (Sgd::new(1e-4).accumulate(4).master_weights(), array![H::zero(), H::zero()]);
        for call in 0..4 {
            assert_eq!(opt.step(&mut w, &grads).unwrap().moved, call == 3);
        }
        assert_eq!(w, expected);
        let said = format!(
            "gradients of {} cannot be summed; write accumulate(4) before master_weights(), stochastic_rounding() or kahan(), where gradients \
             are f32",
            H::DTYPE
        );
        for mut outside in [
            Box::new(Sgd::new(1e-4).master_weights().accumulate(4)) as Box<dyn Optimizer<H>>,
            Box::new(Sgd::new(1e-4).master_weights().accumulate(4).sum(true).ema(0.5).clip_value(1.0)),
        ] {
            let error = outside.step(&mut w, &grads).unwrap_err();
            assert_eq!((error.to_string(), &w, outside.steps()), (said.clone(), &expected, 0));
            assert!(outside.layout().is_none());
        }
        // Of one nothing is summed.
        Sgd::new(1e-4).master_weights().accumulate(1).step(&mut w, &grads).unwrap();
        assert_ne!(w, expected);
    }
    check::<f16>(30_000.0);
    check::<bf16>(30_000.0);
    check::<bf16>(5e37);
}

/// A weight below the numbers of f16 is not 0.
#[test]
fn averages_of_halves_follow_slowly() {
    let mut opt = Sgd::new(1.0).master_weights().ema(1.0 - 1e-8).warmup(true);
    let mut w = array![f16::ZERO];
    opt.step(&mut w, &array![f16::ZERO]).unwrap();
    let mut opt = opt.into_inner().ema(1.0 - 1e-8);
    opt.step(&mut w, &array![f16::ZERO]).unwrap();
    opt.step(&mut w, &array![f16::from_f64(-30_000.0)]).unwrap();
    let mut average = array![f16::ZERO];
    opt.read(&mut average).unwrap();
    assert!((average[0].to_f64() - 3e-4).abs() < 1e-6, "{average}");

    let mut opt = Sgd::new(1.0).master_weights().lookahead(1, 1e-8);
    let mut w = array![f16::ZERO];
    opt.step(&mut w, &array![f16::from_f64(-30_000.0)]).unwrap();
    assert!((w[0].to_f64() - 3e-4).abs() < 1e-6, "{w}");
}

/// Also where nothing has an element.
#[test]
fn other_parameters_are_told_where_all_are_empty() {
    let empty = |path: &str| std::collections::BTreeMap::from([(path.to_owned(), Array1::<bf16>::zeros(0))]);
    for mut opt in [
        Box::new(Sgd::new(1.0).master_weights()) as Box<dyn Optimizer<bf16>>,
        Box::new(Lbfgs::new(0.1).master_weights()),
        Box::new(Sgd::new(1.0).skip_nonfinite().master_weights().clip_per_tensor_norm(1.0).non_finite(NonFinite::Skip)),
    ] {
        opt.step(&mut empty("a"), &empty("a")).unwrap();
        let before = opt.state_dict();
        let error = opt.step(&mut empty("b"), &empty("b")).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{error}");
        assert_eq!(opt.state_dict(), before);
        let mut resumed = opt;
        resumed.load_state_dict(&before).unwrap();
        assert!(resumed.step(&mut empty("b"), &empty("b")).is_err());
    }
}
