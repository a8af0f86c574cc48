//! Compressed gradients: what is sent, what is left, and what comes of it.

use gradus::distributed::compress::{Bf16, Compression, PowerSgd, TopK};
use gradus::distributed::{Alone, Collective, Place, RankGroup, ThreadGroup};
use gradus::error::{StateError, StepError};
use gradus::params::{Layout, TensorInfo};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, Array2, Array3, array};

use crate::digits::{self, Digits};
use crate::ranks::{Engine, Regression, Tree, assert_same_on_all, bits, difference, matrix, number};

type Make<A> = fn() -> Box<dyn Compression<A>>;

fn all<A: Scalar>() -> [(&'static str, Make<A>); 4] {
    [
        ("bf16", || Box::new(Bf16::new())),
        ("top_k", || Box::new(TopK::new(0.3))),
        ("power_sgd", || Box::new(PowerSgd::new(1))),
        ("power_sgd of rank 2", || Box::new(PowerSgd::new(2).seed(7))),
    ]
}

/// A matrix, a vector, three axes and a scalar.
const SHAPES: [&[usize]; 4] = [&[12, 9], &[7], &[4, 3, 5], &[]];

fn layout() -> Layout {
    let infos = SHAPES.iter().enumerate().map(|(number, shape)| TensorInfo::new(number.to_string(), shape));
    Layout::new(infos.collect()).unwrap()
}

fn values<A: Scalar>(stream: u64, elements: usize) -> Vec<A> {
    (0..elements).map(|at| number::<A>(stream, at as u64)).collect()
}

/// Acceptance: e′ = g + e − C(g + e), bit for bit, and 0 is what is left of what was sent as it is.
pub(crate) fn what_is_left_is_what_was_not_sent<A: Scalar>() {
    let layout = layout();
    let places = Place::of(&layout, 0..SHAPES.len());
    for (name, make) in all::<A>() {
        let mut compression = make();
        let mut residual = vec![A::zero(); layout.elements()];
        for step in 0..5 {
            let grads = values::<A>(step, layout.elements());
            let given: Vec<A> = grads.iter().zip(&residual).map(|(grad, residual)| *grad + *residual).collect();
            let (mut sent, mut rest) = (given.clone(), vec![A::nan(); given.len()]);
            compression.reduce(&Alone, &places, &mut sent, &mut rest).unwrap();
            compression.commit();
            // With one rank the mean is what that one sends.
            let expected: Vec<u64> = given.iter().zip(&sent).map(|(v, c)| (*v - *c).as_f64().to_bits()).collect();
            let found: Vec<u64> = rest.iter().map(|rest| rest.as_f64().to_bits()).collect();
            assert_eq!(found, expected, "{name} in {}, step {step}", A::DTYPE);
            assert!(rest.iter().any(|rest| *rest != A::zero()), "{name}");
            residual = rest;
        }
    }
}

#[test]
fn what_is_left_is_what_was_not_sent_in_both_types() {
    what_is_left_is_what_was_not_sent::<f32>();
    what_is_left_is_what_was_not_sent::<f64>();
}

/// The residuals that an optimizer saves: parameters that begin at 0 show what was sent.
#[test]
fn the_optimizer_keeps_what_is_left() {
    for (name, make) in all::<f64>() {
        let node = name.split(' ').next().unwrap();
        let mut opt = Sgd::new(1.0).data_parallel(Alone).compress(Wrapped(make()));
        let mut residual = Array2::<f64>::zeros((12, 9));
        for step in 0..4 {
            let (grads, mut params) = (matrix((12, 9), step), Array2::zeros((12, 9)));
            opt.step(&mut params, &grads).unwrap();
            let sent = params.mapv(|x: f64| 0.0 - x);
            let expected = (&grads + &residual) - sent;
            let found = opt.state_dict().tensor::<f64>(&format!("{node}/residual/")).unwrap();
            assert_eq!(bits(&found), bits(&expected), "{name}, step {step}");
            residual = expected;
        }
    }
}

/// A boxed compression.
struct Wrapped<A>(Box<dyn Compression<A>>);

impl<A: Scalar> Compression<A> for Wrapped<A> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn check(&self) -> gradus::Result<()> {
        self.0.check()
    }

    fn reduce(
        &mut self,
        group: &dyn Collective<A>,
        places: &[Place<'_>],
        values: &mut [A],
        rest: &mut [A],
    ) -> gradus::Result<u64> {
        self.0.reduce(group, places, values, rest)
    }

    fn commit(&mut self) {
        self.0.commit();
    }

    fn write_state(&self, state: &mut gradus::StateWriter<'_>, layout: &Layout) {
        self.0.write_state(state, layout);
    }

    fn read_state<'s>(&'s mut self, state: &gradus::StateReader<'_>) -> gradus::Result<gradus::Commit<'s>> {
        self.0.read_state(state)
    }
}

/// On several ranks: the mean of what the ranks send, the same bits on all, and nothing lost in the sum of all.
pub(crate) fn all_ranks_get_the_mean(group: &impl Engine) {
    // f64 rounds some hundred products.
    const ROUNDING: f64 = 1e-13;
    let layout = layout();
    let places = Place::of(&layout, 0..SHAPES.len());
    let size = group.size() as f64;
    for (name, make) in all::<f64>() {
        let mut compression = make();
        for step in 0..3 {
            let given = values::<f64>(10 * step + group.rank() as u64, layout.elements());
            let (mut mean, mut rest) = (given.clone(), given.clone());
            compression.reduce(group, &places, &mut mean, &mut rest).unwrap();
            compression.commit();
            assert_same_on_all(group, &Array1::from(mean.clone()));
            let mut sent: Vec<f64> = given.iter().zip(&rest).map(|(given, rest)| given - rest).collect();
            group.all_reduce(&mut sent).unwrap();
            for (mean, sent) in mean.iter().zip(&sent) {
                assert!((mean - sent / size).abs() < ROUNDING, "{name}: {mean} {sent}");
            }
        }
    }
}

#[test]
fn all_threads_get_the_mean() {
    [2, 3].into_iter().for_each(|size| drop(ThreadGroup::run(size, |group| all_ranks_get_the_mean(&group))));
}

/// One subspace iteration by hand; on the same matrix again and again it finds the best approximation of its rank.
#[test]
fn power_sgd_finds_the_leading_directions() {
    let (layout, diagonal) = (Layout::of(&Array2::<f64>::zeros((6, 5))).unwrap(), [8.0, 4.0, 0.5, 0.25, 0.1]);
    let places = Place::of(&layout, [0]);
    let mut matrix = Array2::zeros((6, 5));
    (0..5).for_each(|i| matrix[[i, i]] = diagonal[i]);
    let mut compression = PowerSgd::new(2);
    let mut rest = vec![0.0; 30];
    for _ in 0..30 {
        let mut values = matrix.clone().into_raw_vec_and_offset().0;
        let bytes = compression.reduce(&Alone, &places, &mut values, &mut rest).unwrap();
        assert_eq!(bytes, 2 * (6 + 5) * 8);
        compression.commit();
    }
    let lost = rest.iter().map(|x| x * x).sum::<f64>();
    let best: f64 = diagonal[2..].iter().map(|x| x * x).sum();
    assert!((lost - best).abs() < 1e-12, "{lost} {best}");
}

/// Gradients of any size, whose squares or cubes f32 has no numbers for: a power of two changes nothing else.
#[test]
fn power_sgd_takes_gradients_of_any_size() {
    let layout = Layout::of(&Array2::<f32>::zeros((12, 9))).unwrap();
    let places = Place::of(&layout, [0]);
    let run = |scale: f32| {
        let mut compression = PowerSgd::new(2);
        let results = (0..3).map(|step| {
            let mut values: Vec<f32> = values::<f32>(step, 108).iter().map(|value| value * scale).collect();
            compression.reduce(&Alone, &places, &mut values, &mut [0.0; 108]).unwrap();
            compression.commit();
            values.iter().map(|value| value / scale).collect::<Vec<f32>>()
        });
        results.collect::<Vec<_>>()
    };
    let expected = run(1.0);
    for power in [-90, 90] {
        assert_eq!(run(2.0_f32.powi(power)), expected, "2^{power}");
    }
}

/// The bytes of each: 2 an element; 12 for each of the k largest; P and Q, and vectors as they are.
#[test]
fn the_bytes_are_those_of_the_docs() {
    let bytes = |compression: Box<dyn Compression<f64>>| {
        let mut opt = Sgd::new(1.0).data_parallel(Alone).compress(Wrapped(compression));
        let mut params = (Array2::zeros((12, 9)), Array1::zeros(7), Array3::zeros((4, 3, 5)));
        let grads = (matrix((12, 9), 1), Array1::ones(7), Array3::ones((4, 3, 5)));
        (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
        assert_eq!(opt.traffic().total, 2 * opt.traffic().last_step);
        opt.traffic().last_step
    };
    assert_eq!(bytes(Box::new(Bf16::new())), 2 * (108 + 7 + 60));
    assert_eq!(bytes(Box::new(TopK::new(0.1))), 12 * (11 + 1 + 6));
    assert_eq!(bytes(Box::new(PowerSgd::new(2))), 8 * (2 * (12 + 9) + 7 + 2 * (4 + 15)));
    // 4·(4 + 15) elements instead of 60 would be more.
    assert_eq!(bytes(Box::new(PowerSgd::new(4))), 8 * (4 * (12 + 9) + 7 + 60));
}

/// Acceptance: the transformer of the examples, its matrices and, as they are, its vectors.
#[test]
fn power_sgd_sends_a_tenth_of_the_transformer() {
    const SHARE: f64 = 0.1;
    const WIDTH: usize = 96;
    let block = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)];
    let shapes = [(13, WIDTH), (8, WIDTH)].into_iter().chain(block).chain(block);
    let matrices: Vec<Array2<f32>> = shapes.map(|shape| matrix(shape, 1)).collect();
    let grads = (matrices, vec![Array1::<f32>::ones(WIDTH); 10]);
    let mut params = grads.clone();
    let mut opt = Sgd::new(0.1).data_parallel(Alone).compress(PowerSgd::new(4));
    opt.step(&mut params, &grads).unwrap();
    let whole = 4 * Layout::of(&params).unwrap().elements();
    let share = opt.traffic().last_step as f64 / whole as f64;
    assert!(share <= SHARE, "{share}");
}

/// Acceptance: the loss on digits after as many steps as without.
pub(crate) fn power_sgd_ends_as_well(group: &impl Engine) {
    const STEPS: usize = 300;
    const WITHIN: f64 = 1.02;
    let digits = Digits::load();
    let place = (group.rank(), group.size());
    let inner = || Momentum::new(0.1, 0.9);
    let train = |opt: &mut dyn Optimizer<f32>| {
        let model = digits::train(opt, &digits, place, STEPS).unwrap();
        assert_same_on_all(group, &model);
        digits::loss(&model, &digits)
    };
    let mut whole = inner().data_parallel(group);
    let mut compressed = inner().data_parallel(group).compress(PowerSgd::new(4));
    let (expected, found) = (train(&mut whole), train(&mut compressed));
    assert!(found < WITHIN * expected, "{found} where everything sent gives {expected}");
    assert!(compressed.traffic().total * 4 < whole.traffic().total);
}

#[test]
fn power_sgd_ends_as_well_on_4_threads() {
    ThreadGroup::run(4, |group| power_sgd_ends_as_well(&group));
}

/// The others still learn: on the small regression they come near what is sent whole.
#[test]
fn all_of_them_learn() {
    const NEAR: f64 = 0.05;
    ThreadGroup::run(2, |group| {
        let data = Regression::<f32>::new(16);
        let train = |opt: &mut dyn Optimizer<f32>| {
            let mut params = Regression::start(5);
            for call in 0..400 {
                let grads = data.part(&params, call, (group.rank(), 2));
                opt.step(&mut params, &grads).unwrap();
            }
            assert_same_on_all(&group, &params);
            params
        };
        let expected = train(&mut Sgd::new(0.2).data_parallel(&group));
        // Rank 2 would not pay for a matrix of 5 × 3.
        for (name, make) in all::<f32>().into_iter().take(3) {
            let found = train(&mut Sgd::new(0.2).data_parallel(&group).compress(Wrapped(make())));
            assert!(difference(&found, &expected) < NEAR, "{name}: {}", difference(&found, &expected));
            assert_ne!(bits(&found), bits(&expected), "{name}");
        }
    });
}

/// Residuals and bases are saved; each rank goes on from its own.
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    ThreadGroup::run(2, |group| {
        for (name, make) in all::<f64>() {
            let data = Regression::<f64>::new(8);
            let new = || AdamW::new(0.1).data_parallel(&group).compress(Wrapped(make()));
            let run = |opt: &mut dyn Optimizer<f64>, params: &mut Tree<f64>, calls: std::ops::Range<usize>| {
                for call in calls {
                    let (weight, bias) = data.part(params, call, (group.rank(), 2));
                    opt.step(params, &(weight, (call > 1).then_some(bias))).unwrap();
                }
            };
            for point in [0, 1, 4] {
                let (mut opt, mut params) = (new(), Regression::start(5));
                run(&mut opt, &mut params, 0..point);
                let (mut resumed, mut resumed_params) = (new(), params.clone());
                resumed.load_state_dict(&opt.state_dict()).unwrap();
                run(&mut opt, &mut params, point..7);
                run(&mut resumed, &mut resumed_params, point..7);
                assert_eq!(bits(&resumed_params), bits(&params), "{name} from {point}");
                assert!(resumed.state_dict() == opt.state_dict(), "{name} from {point}");
            }
        }
    });
}

/// A state of another compression, or one that lacks something, is refused.
#[test]
fn a_state_is_read_strictly() {
    let new = || Sgd::<f64>::new(0.1).data_parallel(Alone).compress(PowerSgd::new(1));
    let mut opt = new();
    opt.step(&mut Array2::zeros((5, 4)), &matrix((5, 4), 1)).unwrap();
    let state = opt.state_dict();
    let refused = |change: fn(&mut StateDict)| {
        let (mut opt, mut state) = (new(), state.clone());
        change(&mut state);
        let error = opt.load_state_dict(&state).unwrap_err();
        assert!(opt.state_dict() == new().state_dict());
        error
    };
    let error = refused(|state| _ = state.remove("power_sgd/basis/"));
    assert_eq!(error.to_string(), "entry \"power_sgd/bases\" is \"1\"; it must be the number of bases");
    let error = refused(|state| _ = state.remove("power_sgd/residual/"));
    assert_eq!(error.to_string(), "entry \"power_sgd/residuals\" is \"1\"; it must be the number of residuals");
    let error = refused(|state| state.insert_tensor("power_sgd/basis/", array![[1.0_f64]].view()));
    assert!(matches!(error, Error::State(StateError::EntryShape { .. })), "{error}");
    let error = Sgd::<f64>::new(0.1).data_parallel(Alone).compress(Bf16::new()).load_state_dict(&state).unwrap_err();
    assert!(matches!(error, Error::State(StateError::WrongAlgorithm { .. })), "{error}");
}

/// NaN and infinities: an error leaves the residuals, what is let through reaches all ranks and does not come back.
#[test]
fn what_is_not_finite_does_not_stay() {
    ThreadGroup::run(2, |group| {
        for (name, make) in all::<f32>() {
            for bad in [f32::NAN, f32::INFINITY] {
                let start = || (Array2::<f32>::zeros((12, 9)), Array1::<f32>::zeros(7));
                let grads = |step: u64| (matrix((12, 9), step + group.rank() as u64), Array1::ones(7));
                let mut spoiled = grads(2);
                if group.rank() == 1 {
                    spoiled.0[[3, 4]] = bad;
                }
                let mut opt = Sgd::new(1.0).data_parallel(&group).compress(Wrapped(make()));
                let mut params = start();
                opt.step(&mut params, &grads(1)).unwrap();
                let before = (params.clone(), opt.state_dict());
                opt.step(&mut params, &spoiled).unwrap_err();
                assert!((params, opt.state_dict()) == before, "{name}");

                let mut opt = opt.non_finite(NonFinite::Allow);
                let mut params = start();
                assert!(opt.step(&mut params, &spoiled).unwrap().moved);
                assert_same_on_all(&group, &params);
                assert!(!params.0[[3, 4]].is_finite(), "{name}: {bad}");
                for _ in 0..2 {
                    let mut params = start();
                    opt.step(&mut params, &grads(3)).unwrap();
                    assert!(params.0.iter().all(|value| value.is_finite()), "{name}: {bad}");
                }
            }
        }
    });
}

/// What the optimizer inside refuses after all was sent leaves residuals and bases.
#[test]
fn a_refusal_inside_leaves_what_is_left() {
    for (name, make) in all::<f32>() {
        let clipped = Sgd::new(1.0).clip_global_norm(1.0);
        let mut opt = clipped.data_parallel(Alone).non_finite(NonFinite::Allow).compress(Wrapped(make()));
        let mut params = matrix((12, 9), 0);
        opt.step(&mut params, &matrix((12, 9), 1)).unwrap();
        let before = (params.clone(), opt.state_dict(), opt.traffic());
        let mut bad = matrix((12, 9), 2);
        bad[[0, 0]] = f32::NAN;
        let error = opt.step(&mut params, &bad).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{error}");
        assert!((params, opt.state_dict(), opt.traffic()) == before, "{name}");
    }
}

/// What a step allocates is the same at 16 times the size.
#[test]
fn a_step_allocates_nothing_that_grows_with_the_elements() {
    let allocated = |rows: usize, compression: Box<dyn Compression<f32>>| {
        let mut opt = Sgd::new(0.1).data_parallel(Alone).compress(Wrapped(compression));
        let (mut params, grads) = (matrix::<f32>((rows, 64), 0), matrix((rows, 64), 1));
        (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
        allocation_counter::measure(|| _ = opt.step(&mut params, &grads).unwrap()).bytes_total
    };
    for make in [|| Box::new(Bf16::new()) as _, || Box::new(TopK::new(0.1)) as Box<dyn Compression<f32>>] {
        let (small, large) = (allocated(64, make()), allocated(1024, make()));
        // The shape stands in what the ranks agree about.
        assert!(small > 0 && large <= small + 64, "{small} {large}");
    }
}

/// Hyper-parameters out of range, on all ranks or on one.
#[test]
fn hyper_parameters_are_checked() {
    fn refused(compression: impl Compression<f64> + 'static) -> String {
        let mut w = array![1.0];
        let error = Sgd::new(1.0).data_parallel(Alone).compress(compression).step(&mut w, &array![1.0]).unwrap_err();
        assert_eq!(w, array![1.0]);
        error.to_string()
    }
    assert_eq!(refused(TopK::new(0.0)), "ratio is 0; it must be a number in 0 < ratio ≤ 1");
    assert_eq!(refused(TopK::new(f64::NAN)), "ratio is NaN; it must be a number in 0 < ratio ≤ 1");
    assert_eq!(refused(PowerSgd::new(0)), "rank is 0; it must be at least 1");
    let ends = ThreadGroup::run(2, |group| {
        let rank = 1 + group.rank();
        let mut opt = Sgd::new(1.0).data_parallel(group).compress(PowerSgd::new(rank));
        opt.step(&mut Array2::<f64>::zeros((9, 9)), &matrix((9, 9), 1)).unwrap_err().to_string()
    });
    let expected = "rank 1 has gradients by power_sgd of rank 2 from seed 0 where rank 0 has gradients by power_sgd of \
                    rank 1 from seed 0";
    assert_eq!(ends, [expected; 2]);
}
