//! Options that every optimizer has, against the formulas in their docs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::error::{Error, StepError};
use gradus::rule::{
    Decay, DecayRate, Elementwise, Factored, FactoredRule, MatrixRule, Matrixwise, Rounding, Rule, StatePrecision,
};
use gradus::testing::Law;
use gradus::{
    AdEMAMix, AdaBelief, AdaHessian, AdaMuon, Adadelta, Adafactor, Adagrad, Adam, AdamMini, AdamW, AdamWScheduleFree,
    Adamax, Adan, Adopt, Apollo, ApolloMini, Asgd, Came, DAdaptAdam, DAdaptSgd, Dion, DoG, DoWG, LaProp, Lamb, Lars,
    Lion, Madgrad, Mars, MarsLion, Momentum, Muon, NAdam, NAdamW, Nesterov, NorMuon, NovoGrad, Optimizer, OptimizerExt,
    Prodigy, RAdam, RAdamScheduleFree, RAdamW, RmsProp, Rprop, Scion, Sgd, SgdScheduleFree, SignSgd, Signum,
    SimplifiedAdEMAMix, Sm3, Sophia, StableAdamW, Yogi,
};
use ndarray::{Array1, Array2, ArrayD, ShapeBuilder, Zip, array, s};

/// The direction is the difference of two parameters, which are near 1.
const TOLERANCE: f64 = 1e-11;

const LEARNING_RATE: f64 = 0.01;

fn wave(shape: (usize, usize), phase: f64) -> Array2<f64> {
    Array2::from_shape_fn(shape, |(i, j)| (i as f64 * 1.3 + j as f64 * 0.37 + phase).sin())
}

#[derive(Debug, Clone, Copy, Default)]
struct Case {
    cautious: bool,
    cautious_decay: bool,
    trust_ratio: bool,
    only_decayed: bool,
    update_clipping: bool,
    keep_norm: bool,
    decay_rate: Option<DecayRate>,
}

impl Case {
    /// Every option and every pair, at every rate of decay, and all at once.
    fn all() -> impl Iterator<Item = Self> {
        let max_learning_rate = 0.02;
        let rates = [
            None,
            Some(DecayRate::LearningRate),
            Some(DecayRate::Fixed),
            Some(DecayRate::Relative { max_learning_rate }),
            Some(DecayRate::Corrected { max_learning_rate }),
        ];
        (0..64)
            .flat_map(move |set| {
                let is_on = |option: usize| set >> option & 1 == 1;
                rates.map(|decay_rate| Self {
                    cautious: is_on(0),
                    cautious_decay: is_on(1),
                    trust_ratio: is_on(2),
                    update_clipping: is_on(3),
                    keep_norm: is_on(4),
                    only_decayed: is_on(5),
                    decay_rate,
                })
            })
            .filter(|case| case.count() <= 2 || case.count() >= 5)
    }

    fn count(self) -> usize {
        let Self { cautious, cautious_decay, trust_ratio, update_clipping, keep_norm, .. } = self;
        let all = [cautious, cautious_decay, trust_ratio, update_clipping, keep_norm];
        all.into_iter().filter(|is_on| *is_on).count()
    }

    fn without_options(self) -> Self {
        Self { decay_rate: self.decay_rate, ..Self::default() }
    }
}

/// v̂ and ε.
type Moment = (ArrayD<f64>, f64);

/// What the formulas need to know of an optimizer: λ of coupled and of decoupled decay, and v̂ and ε after a step.
struct Known<'o, O> {
    coupled: f64,
    decoupled: f64,
    moment: &'o dyn Fn(&O, i32) -> Option<Moment>,
}

/// What the options make of a step that the optimizer takes without them. `first` is the norm of the first parameter.
fn expected<O>(
    (param, plain, grad): (&Array2<f64>, &Array2<f64>, &Array2<f64>),
    (first, case, known): (f64, Case, &Known<'_, O>),
    moment: Option<Moment>,
) -> Array2<f64> {
    let Known { mut coupled, mut decoupled, .. } = *known;
    if case.decay_rate.is_some() {
        (coupled, decoupled) = (0.0, coupled + decoupled);
    }
    let rate = match case.decay_rate {
        None | Some(DecayRate::LearningRate) => LEARNING_RATE,
        Some(DecayRate::Fixed) => 1.0,
        Some(DecayRate::Relative { max_learning_rate }) => LEARNING_RATE / max_learning_rate,
        Some(DecayRate::Corrected { max_learning_rate }) => LEARNING_RATE * (LEARNING_RATE / max_learning_rate),
    };
    let decay = rate * decoupled;
    let is_fixed = case.decay_rate == Some(DecayRate::Fixed);
    let mut direction = (param * (1.0 - decay) - plain) / LEARNING_RATE;
    let grad = grad + &(param * coupled);
    if case.cautious {
        Zip::from(&mut direction).and(&grad).for_each(|d, g| *d = if *d * g > 0.0 { *d } else { 0.0 });
        let agreeing = direction.iter().filter(|d| **d != 0.0).count() as f64;
        direction *= direction.len() as f64 / (agreeing + 1.0);
    }
    let mut decaying = param.clone();
    if case.cautious_decay {
        Zip::from(&mut decaying).and(&direction).for_each(|p, d| *p = if *d * *p > 0.0 { *p } else { 0.0 });
    }
    let norm = |array: &Array2<f64>| array.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut factor = 1.0;
    if case.trust_ratio && (!case.only_decayed || coupled + decoupled > 0.0) {
        let update = &direction + &decaying * if is_fixed { 0.0 } else { decay / LEARNING_RATE };
        let (length, of_update) = (norm(param), norm(&update));
        factor = if length > 0.0 && of_update > 0.0 { length / of_update } else { 1.0 };
    }
    if let (true, Some((moment, eps))) = (case.update_clipping, moment) {
        let relative: f64 = grad.iter().zip(&moment).map(|(g, v)| g * g / v.max(eps * eps)).sum();
        factor /= (relative / grad.len() as f64).sqrt().max(1.0);
    }
    let decay = if is_fixed { decay } else { decay * factor };
    let moved = param - decaying * decay - direction * (LEARNING_RATE * factor);
    if case.keep_norm { &moved * (first / norm(&moved)) } else { moved }
}

/// Steps with the options, each beside the same step without them.
fn agrees<O: Optimizer<f64> + Clone + std::fmt::Debug>(
    opt: &O,
    case: Case,
    known: &Known<'_, O>,
    with: impl Fn(O, Case) -> O,
) {
    let shapes: &[_] = match case.count() {
        0 | 1 if case.decay_rate.is_none() && !case.only_decayed => &[(1, 1), (7, 3), (90, 400)],
        _ if case.decay_rate.is_none() => &[(7, 3), (45, 50)],
        _ => &[(7, 3)],
    };
    for &shape in shapes {
        let mut opt = with(opt.clone(), case);
        let mut param = wave(shape, 0.5);
        let first = param.iter().map(|x| x * x).sum::<f64>().sqrt();
        for step in 0..4 {
            let grad = wave(shape, 0.9 * f64::from(step));
            let (mut plain, mut without) = (param.clone(), with(opt.clone(), case.without_options()));
            without.step(&mut plain, &grad).unwrap();
            let moment = (known.moment)(&without, step + 1);
            let expected = expected((&param, &plain, &grad), (first, case, known), moment);
            opt.step(&mut param, &grad).unwrap();
            let error = (&param - &expected).iter().fold(0.0, |most: f64, error| error.abs().max(most));
            assert!(error < TOLERANCE, "{opt:?} at {shape:?}, step {step}: {error:e}");
        }
    }
}

/// Steps with options of which one is not possible.
fn refuses<O: Optimizer<f64>>(mut opt: O, expected: &str) {
    let mut param = wave((7, 3), 0.5);
    let error = opt.step(&mut param, &wave((7, 3), 0.0)).unwrap_err();
    let names = |error| matches!(error, Error::Step(StepError::OptionNotPossible { option, .. }) if option == expected);
    assert!(names(error), "not the error of {expected}");
    assert_eq!(param, wave((7, 3), 0.5));
}

#[test]
fn a_rule_that_averages_or_decays_itself_refuses_what_would_change_that() {
    refuses(SgdScheduleFree::new(LEARNING_RATE).cautious(true), "cautious");
    refuses(AdamWScheduleFree::new(LEARNING_RATE).trust_ratio(true), "trust_ratio");
    refuses(RAdamScheduleFree::new(LEARNING_RATE).keep_norm(true), "keep_norm");
    refuses(AdamWScheduleFree::new(LEARNING_RATE).decoupled_decay(DecayRate::Fixed), "decoupled_decay");
    refuses(NovoGrad::new(LEARNING_RATE).decoupled_decay(DecayRate::Fixed), "decoupled_decay");
    refuses(Adan::new(LEARNING_RATE).decoupled_decay(DecayRate::Fixed), "decoupled_decay");
    refuses(Adan::new(LEARNING_RATE).cautious_decay(true), "cautious_decay");
    refuses(Prodigy::new(LEARNING_RATE).cautious(true), "cautious");
    refuses(Prodigy::new(LEARNING_RATE).cautious_decay(true), "cautious_decay");
    refuses(DoG::new(LEARNING_RATE).keep_norm(true), "keep_norm");
    refuses(DoWG::new(LEARNING_RATE).decoupled_decay(DecayRate::Fixed), "decoupled_decay");
    refuses(DAdaptAdam::new(LEARNING_RATE).trust_ratio(true), "trust_ratio");
    refuses(DAdaptSgd::new(LEARNING_RATE).update_clipping(true), "update_clipping");
}

/// Calls a macro with each optimizer, the λ of its decay, coupled and decoupled, and, if it averages the squared gradient, the slot, β₂ and ε: those of
/// one without bias correction are β₂ = 0.
macro_rules! for_each_optimizer {
    ($call:ident) => {
        $call!(Sgd::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0);
        $call!(Mars::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(MarsLion::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(NovoGrad::new(LEARNING_RATE).decoupled(true).weight_decay(0.3), 0.0, 0.3);
        $call!(Momentum::new(LEARNING_RATE, 0.9), 0.0, 0.0);
        $call!(Momentum::new(LEARNING_RATE, 0.9).classical(true), 0.0, 0.0);
        $call!(Nesterov::new(LEARNING_RATE, 0.9).weight_decay(0.2), 0.2, 0.0);
        $call!(Lars::new(LEARNING_RATE, 0.9).weight_decay(0.2), 0.2, 0.0);
        $call!(RmsProp::new(LEARNING_RATE).momentum(0.5), 0.0, 0.0, "square_avg", 0.0, 1e-8);
        $call!(Adam::new(LEARNING_RATE).amsgrad(true).weight_decay(0.1), 0.1, 0.0, "exp_avg_sq", 0.999, 1e-8);
        $call!(Adam::new(LEARNING_RATE).nesterov(true).amsgrad(true), 0.0, 0.0, "exp_avg_sq", 0.999, 1e-8);
        $call!(AdamW::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3, "exp_avg_sq", 0.999, 1e-8);
        $call!(AdamW::new(LEARNING_RATE).weight_decay(0.3).beta2(0.9).eps(0.5), 0.0, 0.3, "exp_avg_sq", 0.9, 0.5);
        $call!(Lamb::new(LEARNING_RATE), 0.0, 0.01, "exp_avg_sq", 0.999, 1e-6);
        $call!(StableAdamW::new(LEARNING_RATE).nesterov(true), 0.0, 0.01, "exp_avg_sq", 0.99, 1e-6);
        $call!(NAdam::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0, "exp_avg_sq", 0.999, 1e-8);
        $call!(NAdamW::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3, "exp_avg_sq", 0.999, 1e-8);
        $call!(RAdam::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0, "exp_avg_sq", 0.999, 1e-8);
        $call!(RAdamW::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3, "exp_avg_sq", 0.999, 1e-8);
        $call!(Adamax::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0);
        $call!(Adagrad::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0);
        $call!(Adadelta::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0, "square_avg", 0.0, 1e-3);
        $call!(Lion::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdaBelief::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdaBelief::new(LEARNING_RATE).nesterov(true), 0.0, 0.0);
        $call!(Signum::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(SignSgd::new(LEARNING_RATE), 0.0, 0.0);
        $call!(Yogi::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(LaProp::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdEMAMix::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Sophia::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdaHessian::new(LEARNING_RATE).eps(0.1).weight_decay(0.3), 0.0, 0.3);
        $call!(SimplifiedAdEMAMix::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adopt::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adan::new(LEARNING_RATE).proximal(false).weight_decay(0.3), 0.0, 0.3);
        $call!(Madgrad::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0);
        $call!(Rprop::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0); // its direction is the whole step
        $call!(Asgd::new(LEARNING_RATE).lambda(0.0).weight_decay(0.1), 0.1, 0.0); // with its λ the direction has the decayed parameter
        $call!(Muon::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(NorMuon::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdaMuon::new(LEARNING_RATE), 0.0, 0.0);
        $call!(Dion::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Scion::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adafactor::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adafactor::new(LEARNING_RATE).beta1(0.9), 0.0, 0.0);
        $call!(AdamMini::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Sm3::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Came::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Apollo::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(ApolloMini::new(LEARNING_RATE).scale(1.0), 0.0, 0.0);
    };
}

/// Either driver.
trait Slots {
    fn state_slot(&self, slot: &str) -> Option<ArrayD<f64>>;

    fn decay(&self) -> Decay;
}

impl<R: Rule<f64>> Slots for Elementwise<R, f64> {
    fn state_slot(&self, slot: &str) -> Option<ArrayD<f64>> {
        self.slot("", slot)
    }

    fn decay(&self) -> Decay {
        self.rule().decay()
    }
}

impl<R: MatrixRule<f64>> Slots for Matrixwise<R, f64> {
    fn state_slot(&self, _: &str) -> Option<ArrayD<f64>> {
        None
    }

    fn decay(&self) -> Decay {
        self.rule().decay()
    }
}

impl<R: FactoredRule<f64>> Slots for Factored<R, f64> {
    fn state_slot(&self, _: &str) -> Option<ArrayD<f64>> {
        None
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }
}

#[test]
fn every_option_of_every_optimizer_is_the_formula() {
    std::thread::scope(|scope| {
        macro_rules! check {
            ($opt:expr, $coupled:expr, $decoupled:expr) => {
                check!($opt, $coupled, $decoupled, "", 0.0, 0.0);
            };
            ($opt:expr, $coupled:expr, $decoupled:expr, $slot:expr, $beta2:expr, $eps:expr) => {
                scope.spawn(|| {
                    for case in Case::all() {
                        // Its direction depends on the decayed parameter, which the options change.
                        if case.decay_rate.is_some() && stringify!($opt).starts_with("Madgrad") {
                            continue;
                        }
                        let moment = &|opt: &_, step| {
                            let corrected = |slot| slot / (1.0 - f64::powi($beta2, step));
                            Some((Slots::state_slot(opt, $slot).map(corrected)?, $eps))
                        };
                        let known = Known { coupled: $coupled, decoupled: $decoupled, moment };
                        let with = |opt, case: Case| {
                            let opt = same(opt, &$opt).cautious(case.cautious).cautious_decay(case.cautious_decay);
                            let opt = opt.trust_ratio(case.trust_ratio).always_adapt(!case.only_decayed);
                            let opt = opt.update_clipping(case.update_clipping).keep_norm(case.keep_norm);
                            case.decay_rate.into_iter().fold(opt, |opt, rate| opt.decoupled_decay(rate))
                        };
                        let is_coupled = Slots::decay(&$opt) == Decay::Coupled;
                        if case.update_clipping && $slot.is_empty() {
                            refuses(with($opt, case), "update_clipping");
                        } else if case.cautious_decay && is_coupled && case.decay_rate.is_none() {
                            refuses(with($opt, case), "cautious_decay");
                        } else {
                            agrees(&$opt, case, &known, with);
                        }
                    }
                });
            };
        }
        for_each_optimizer!(check);
    });
}

/// The first, of the type of both.
fn same<O>(opt: O, _: &O) -> O {
    opt
}

fn with_all(opt: AdamW<f64>) -> AdamW<f64> {
    opt.cautious(true).trust_ratio(true).cautious_decay(true).update_clipping(true).keep_norm(true)
}

#[test]
fn layouts_do_not_change_the_bits() {
    let shape = (61, 83);
    for precision in [StatePrecision::Full, StatePrecision::Bf16(Rounding::Nearest)] {
        let opt = || with_all(AdamW::<f64>::new(0.01)).state_precision(precision);
        let mut rows = wave(shape, 0.0);
        let mut columns = Array2::zeros(shape.f());
        columns.assign(&rows);
        let mut wide = Array2::zeros((2 * shape.0, 2 * shape.1));
        wide.slice_mut(s![..;2, ..;2]).assign(&rows);
        let (mut by_rows, mut by_columns, mut by_slices) = (opt(), opt(), opt());
        for step in 0..3 {
            let grads = wave(shape, f64::from(step));
            by_rows.step(&mut rows, &grads).unwrap();
            by_columns.step(&mut columns, &grads).unwrap();
            by_slices.step(&mut wide.slice_mut(s![..;2, ..;2]), &grads).unwrap();
        }
        assert_eq!(rows, columns, "{precision:?}");
        assert_eq!(rows, wide.slice(s![..;2, ..;2]), "{precision:?}");
    }
}

/// In 8 and 4 bits the blocks go along the memory, so that the bits depend on the layout.
#[test]
fn few_bits_of_state_lead_to_nearly_the_same_step() {
    let shape = (80, 90);
    let run = |precision, columns: bool| {
        let mut opt = with_all(AdamW::<f64>::new(0.01)).state_precision(precision);
        let mut param = if columns { Array2::zeros(shape.f()) } else { Array2::zeros(shape) };
        param.assign(&wave(shape, 0.0));
        for step in 0..5 {
            opt.step(&mut param, &wave(shape, 0.2 * f64::from(step))).unwrap();
        }
        param
    };
    let (exact, start) = (run(StatePrecision::Full, false), wave(shape, 0.0));
    let moved = (&exact - &start).mapv(f64::abs).sum();
    for (precision, part) in
        [(StatePrecision::Blockwise8, 0.1), (StatePrecision::Blockwise4(Rounding::Stochastic), 0.4)]
    {
        for columns in [false, true] {
            let error = (run(precision, columns) - &exact).mapv(f64::abs).sum();
            assert!(error < part * moved, "{precision:?}, {columns}: {error} of {moved}");
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn threads_do_not_change_the_bits() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut opt = with_all(AdamW::<f64>::new(0.01));
            let mut param = wave((500, 700), 0.0);
            (0..3).for_each(|step| _ = opt.step(&mut param, &wave((500, 700), f64::from(step))).unwrap());
            param
        })
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn a_cautious_step_by_hand() {
    // The second step's direction is 0.9·1 + g: (1.9, 0.4, 0.9); the gradients are 1, -0.5 and 0.
    let mut opt = Momentum::new(1.0, 0.9).cautious(true);
    let mut w = Array1::from(vec![0.0, 0.0, 0.0]);
    opt.step(&mut w, &Array1::from(vec![1.0, 1.0, 1.0])).unwrap();
    assert_eq!(w, Array1::from_elem(3, -0.75));
    opt.step(&mut w, &Array1::from(vec![1.0, -0.5, 0.0])).unwrap();
    assert_eq!(w, Array1::from(vec![-0.75 - 1.9 * 1.5, -0.75, -0.75]));
    assert_eq!(format!("{opt:?}"), "Momentum(learning_rate: 1, momentum: 0.9, cautious: true)");
}

#[test]
fn a_cautious_decay_by_hand() {
    let mut opt =
        Momentum::new(0.5, 0.5).weight_decay(0.5).decoupled_decay(DecayRate::LearningRate).cautious_decay(true);
    let mut w = array![4.0, 4.0, -4.0, 4.0];
    opt.step(&mut w, &array![1.0, -1.0, -1.0, 0.0]).unwrap();
    assert_eq!(w, array![2.5, 4.5, -2.5, 4.0]);
    let text = "decoupled_decay: LearningRate, cautious_decay: true)";
    assert!(format!("{opt:?}").ends_with(text), "{opt:?}");
}

#[test]
fn a_kept_norm_by_hand() {
    let mut opt = Sgd::new(1.0).keep_norm(true);
    let mut w = (array![3.0, 4.0], array![0.0]);
    opt.step(&mut w, &(array![0.0, 4.0], array![1.0])).unwrap();
    assert_eq!(w, (array![5.0, 0.0], array![-1.0]));
    opt.step(&mut w, &(array![5.0, -3.0], array![1.0])).unwrap();
    assert_eq!(w, (array![0.0, 5.0], array![-2.0]));
}

#[test]
fn a_kept_norm_is_in_the_state() {
    let build = || AdamW::<f64>::new(0.1).keep_norm(true);
    let (mut opt, mut w) = (build(), wave((3, 4), 0.0));
    opt.step(&mut w, &wave((3, 4), 1.0)).unwrap();
    let (state, mut resumed, mut same) = (opt.state_dict(), build(), &w * 2.0);
    resumed.load_state_dict(&state).unwrap();
    resumed.step(&mut same, &wave((3, 4), 2.0)).unwrap();
    let norm = |w: &Array2<f64>| w.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!((norm(&same) / norm(&wave((3, 4), 0.0)) - 1.0).abs() < 1e-14);
    let mut without = state.clone();
    assert!(without.remove("adamw/norm/"));
    assert!(build().load_state_dict(&without).is_err());
    let mut muon = Muon::<f64>::new(0.1).keep_norm(true);
    muon.step(&mut w, &wave((3, 4), 1.0)).unwrap();
    let mut resumed = Muon::<f64>::new(0.1).keep_norm(true);
    resumed.load_state_dict(&muon.state_dict()).unwrap();
    assert_eq!(resumed.state_dict(), muon.state_dict());
}

#[test]
fn a_largest_learning_rate_is_checked() {
    for max_learning_rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for rate in [DecayRate::Relative { max_learning_rate }, DecayRate::Corrected { max_learning_rate }] {
            let error = AdamW::new(0.1).decoupled_decay(rate).step(&mut array![1.0], &array![1.0]).unwrap_err();
            assert!(error.to_string().starts_with("max_learning_rate is "), "{error}");
        }
    }
}

#[test]
fn a_trust_ratio_by_hand() {
    let mut opt = Sgd::new(0.1).trust_ratio(true);
    let mut w = Array1::from(vec![3.0, 4.0]);
    opt.step(&mut w, &Array1::from(vec![0.0, 0.5])).unwrap();
    assert_eq!(w, Array1::from(vec![3.0, 3.5]));
    // Where nothing is, the ratio is 1.
    let mut zero = Array1::from(vec![0.0, 0.0]);
    Sgd::new(0.1).trust_ratio(true).step(&mut zero, &Array1::from(vec![1.0, 2.0])).unwrap();
    assert_eq!(zero, Array1::from(vec![-0.1, -0.2]));
    // A learning rate of 0 and a tensor without elements move nothing.
    Sgd::new(0.0).trust_ratio(true).step(&mut zero, &Array1::from(vec![1.0, 2.0])).unwrap();
    assert_eq!(zero, Array1::from(vec![-0.1, -0.2]));
    AdamW::new(0.1).trust_ratio(true).cautious(true).step(&mut Array1::<f32>::zeros(0), &Array1::zeros(0)).unwrap();
}

#[test]
fn a_rate_of_0_moves_nothing_in_any_form() {
    let rate = |step: u64| if step == 0 { 0.1 } else { 0.0 };
    let grads = Array1::from(vec![10.0]);
    let mut w = Array1::from(vec![1.0]);
    let mut opt = Momentum::new(rate, 0.9).classical(true).trust_ratio(true);
    opt.step(&mut w, &grads).unwrap();
    assert_eq!(w, Array1::from(vec![0.9]));
    opt.step(&mut w, &grads).unwrap();
    assert_eq!(w, Array1::from(vec![0.9]));
}

/// The smallest and the largest numbers of the type: a ratio beyond them is cut off, and no product of small numbers decides.
#[test]
fn numbers_at_the_ends_of_the_type() {
    let mut w = Array1::from(vec![1.0_f32, 1.0]);
    Sgd::new(0.1).trust_ratio(true).step(&mut w, &Array1::from(vec![1e-40, 0.0])).unwrap();
    assert!(w[0] < 1.0 && w[0] > 0.8 && w[1] == 1.0, "{w}");
    for (param, grad) in [(1e160_f64, 1e-160), (1e200, 1e-200), (1e-200, 1e200)] {
        let mut w = Array1::from(vec![param]);
        AdamW::new(0.1).trust_ratio(true).step(&mut w, &Array1::from(vec![grad])).unwrap();
        assert!(w[0].is_finite(), "{param} {grad}: {w}");
        let mut w = Array1::from(vec![param]);
        Sgd::new(0.1).trust_ratio(true).step(&mut w, &Array1::from(vec![grad])).unwrap();
        assert!(w[0].is_finite() && w[0] <= param, "{param} {grad}: {w}");
    }
    let mut w = Array1::from(vec![0.0_f32]);
    Sgd::new(0.1).cautious(true).step(&mut w, &Array1::from(vec![1e-23])).unwrap();
    assert!(w[0] < 0.0);
}

#[test]
fn clipping_comes_before_the_options() {
    // A gradient that is clipped no longer turns the momentum around, so that what agrees is another set.
    let (mut clipped, mut scaled) = (Array1::from(vec![3.0, 4.0]), Array1::from(vec![3.0, 4.0]));
    let momentum = || Momentum::new(0.1, 0.9).cautious(true);
    let (mut clip, mut plain) = (momentum().clip_global_norm(0.5).exact(true), momentum());
    for grads in [[0.3_f64, 0.4], [-30.0, 40.0]] {
        let grads = Array1::from(grads.to_vec());
        let norm: f64 = grads.dot(&grads).sqrt();
        clip.step(&mut clipped, &grads).unwrap();
        plain.step(&mut scaled, &(&grads * (0.5_f64 / norm).min(1.0))).unwrap();
    }
    assert!((&clipped - &scaled).iter().all(|error: &f64| error.abs() < 1e-15), "{clipped} {scaled}");
}

#[cfg(feature = "distributed")]
#[test]
fn parts_of_tensors_are_refused() {
    gradus::distributed::ThreadGroup::run(2, |group| {
        let mut opt = AdamW::<f64>::new(0.1).trust_ratio(true).sharded(group);
        let error = opt.step(&mut wave((2, 2), 0.0), &wave((2, 2), 1.0)).unwrap_err();
        assert!(error.to_string().contains("trust_ratio"), "{error}");
    });
}

#[test]
fn an_optimizer_with_options_keeps_every_law() {
    type Build = fn(gradus::Hyper) -> AdamW<f32>;

    let all: [(&str, Build); 7] = [
        ("cautious", |rate| AdamW::new(rate).cautious(true)),
        ("trust ratio", |rate| AdamW::new(rate).weight_decay(0.0).trust_ratio(true)),
        ("both", |rate| AdamW::new(rate).cautious(true).trust_ratio(true)),
        ("cautious decay", |rate| AdamW::new(rate).cautious_decay(true)),
        ("update clipping", |rate| AdamW::new(rate).update_clipping(true)),
        ("fixed decay", |rate| AdamW::new(rate).weight_decay(1e-4).decoupled_decay(DecayRate::Fixed)),
        ("kept norm", |rate| AdamW::new(rate).weight_decay(0.0).keep_norm(true)),
    ];
    for (name, build) in all {
        let laws = gradus::testing::optimizer::<f32, _>(build).named(name).debug();
        match name {
            "trust ratio" | "cautious decay" => laws.run(),
            // The bottoms have another norm.
            "kept norm" => laws.without(Law::Parabola).without(Law::Rosenbrock).run(),
            _ => laws.decays().run(),
        }
    }
}
