//! What an optimizer is asked is what it is then given: adaptors describe the step before they ask about it.

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Result, Step};
use ndarray::{Array1, array, s};

type Pair = (Array1<f64>, Array1<f64>);
type Boxed = Box<dyn Optimizer<f64>>;

/// A name, an optimizer, and gradients for it.
type Chain = (&'static str, fn() -> Boxed, fn() -> Pair);

fn pair(x: f64, y: f64) -> Pair {
    (array![x, x], array![y, y])
}

fn params() -> Pair {
    pair(1.0, 2.0)
}

/// Chains in which an outer adaptor decides whether an inner one accepts the step, and steps that tell the orders apart.
const CHAINS: &[Chain] = &[
    ("a frozen NaN", || Box::new(Sgd::new(1.0).check_finite().freeze("1")), || pair(1.0, f64::NAN)),
    ("a NaN let through", || Box::new(Sgd::new(1.0).freeze("1").check_finite()), || pair(1.0, f64::NAN)),
    (
        "a NaN in another branch",
        || Box::new(Sgd::new(1.0).check_finite().route("1", Sgd::new(1.0))),
        || pair(1.0, f64::NAN),
    ),
    (
        "a NaN in its branch",
        || Box::new(Sgd::new(1.0).route("1", Sgd::new(1.0).check_finite())),
        || pair(1.0, f64::NAN),
    ),
    ("limits before norms", || Box::new(Sgd::new(1.0).clip_global_norm(1.0).clip_value(1.0)), || pair(1e308, 1e308)),
    ("norms before limits", || Box::new(Sgd::new(1.0).clip_value(1.0).clip_global_norm(1.0)), || pair(1e308, 1e308)),
    (
        "units before norms",
        || Box::new(Sgd::new(1.0).clip_global_norm(1.0).clip_per_tensor_norm(1.0)),
        || (array![1e308], array![1e308, 1e308]),
    ),
    (
        "parameters read twice",
        || Box::new(Sgd::new(1.0).clip_adaptive(0.1).clip_adaptive(0.5).maximize()),
        || pair(3.0, 4.0),
    ),
    (
        "a rate too large for its group alone",
        || Box::new(Sgd::new(1e200).group("1", Group::new().scale_learning_rate(1e200))),
        || pair(1.0, 1.0),
    ),
    (
        "a rate saved by its group",
        || {
            let huge = Group::new().scale_learning_rate(1e200);
            Box::new(Sgd::new(1e200).group("1", huge).group("**", Group::new().learning_rate(1e-200)))
        },
        || pair(1.0, 1.0),
    ),
    (
        "a decay too large in an inner group",
        || {
            let huge = || Group::new().scale_weight_decay(1e200);
            Box::new(AdamW::new(0.1).group("0", huge()).maximize().group("0", huge()))
        },
        || pair(1.0, 1.0),
    ),
    (
        "divided before its norm is taken",
        || Box::new(Sgd::new(1.0).clip_global_norm(1.0).unscale(1024.0)),
        || pair(1e308, 1e308),
    ),
    ("every second call", || Box::new(Sgd::new(1.0).check_finite().accumulate(2)), || pair(1.0, 1.0)),
];

fn checked(opt: &dyn Optimizer<f64>, grads: &Pair) -> Result<()> {
    opt.check(&Step::pair(&mut params(), grads, opt.layout())?)
}

/// A result to compare: an error that holds NaN does not equal itself.
fn said<T>(result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| error.to_string())
}

#[test]
fn check_says_what_apply_does() {
    for (name, make, grads) in CHAINS {
        let mut opt = make();
        for call in 0..3 {
            let asked = said(checked(&opt, &grads()));
            let taken = said(opt.step(&mut params(), &grads()).map(drop));
            assert_eq!(asked, taken, "{name}, call {call}");
        }
    }
    // Not all are refused and not all are taken.
    let refused = CHAINS.iter().filter(|(_, make, grads)| checked(&make(), &grads()).is_err()).count();
    assert!(refused > 3 && refused < CHAINS.len() - 3, "{refused}");
}

/// An adaptor that asks first changes nothing about what is accepted.
#[test]
fn whoever_asks_first_accepts_the_same() {
    let asking: &[fn(Boxed) -> Boxed] = &[
        |opt| Box::new(opt.accumulate(1)),
        |opt| Box::new(opt.ema(0.9)),
        |opt| Box::new(opt.swa(0, 1)),
        |opt| Box::new(opt.lookahead(2, 0.5)),
        |opt| Box::new(opt.layerwise_decay(1.0, ["**"])),
        |opt| Box::new(Sgd::new(1.0).route("**", opt)),
    ];
    for (name, make, grads) in CHAINS {
        let (mut alone, mut expected) = (make(), params());
        let result = said(alone.step(&mut expected, &grads()).map(|report| report.moved));
        for (number, wrap) in asking.iter().enumerate() {
            let (mut opt, mut moved) = (wrap(make()), params());
            let outer = said(opt.step(&mut moved, &grads()).map(|report| report.moved));
            assert_eq!(outer, result, "{name} in {number}");
            let bits = |w: &Pair| w.0.iter().chain(&w.1).map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&moved), bits(&expected), "{name} in {number}");
        }
    }
}

/// What the second branch refuses only once it is described must not find the first branch gone ahead.
#[test]
fn no_branch_goes_ahead_of_a_refusal() {
    let huge = || Group::new().scale_learning_rate(1e200);
    let mut opt = Momentum::new(0.1, 0.9).route("1", Sgd::new(1e200).group("1", huge()));
    let mut w = params();
    let error = opt.step(&mut w, &pair(1.0, 1.0)).unwrap_err();
    assert!(
        matches!(&error, Error::Step(StepError::HyperParameter { path: Some(path), .. }) if path == "1"),
        "{error}"
    );
    assert_eq!((w, opt.steps()), (params(), 0));
}

/// Whoever has nothing but the public interface can ask the same way.
#[test]
fn a_preview_is_read_and_described_like_the_step_and_leaves_it_alone() {
    let mut w = (array![[1.0, 2.0], [3.0, 4.0]].reversed_axes(), array![5.0]);
    let grads = (array![[1.0, 2.0], [3.0, 4.0]], Some(array![6.0]));
    let mut step = Step::pair(&mut w, &grads, None).unwrap();
    step.iter_mut().for_each(|(_, tensor)| tensor.grad.as_mut().unwrap().scale_by(2.0));
    let mut preview = step.preview();
    for ((info, tensor), (_, seen)) in step.iter().zip(preview.iter()) {
        let (param, param_seen) = (tensor.param(), seen.param());
        assert_eq!(param.view(info.shape()), param_seen.view(info.shape()));
        let read = |tensor: &gradus::Tensor<'_, f64>| tensor.grad.as_ref().unwrap().to_array(info.shape());
        assert_eq!(read(tensor), read(seen));
        assert_eq!(tensor.index(), seen.index());
    }
    for (_, tensor) in preview.iter_mut() {
        tensor.grad = None;
        tensor.learning_rate.scale = f64::NAN;
    }
    assert!(Sgd::new(1.0).check(&preview).is_ok(), "without gradients nobody's rate matters");
    drop(preview);
    Sgd::new(0.5).apply(step).unwrap();
    assert_eq!(w, (array![[0.0, 1.0], [-1.0, 0.0]], array![-1.0]));
}

#[test]
fn what_is_written_to_a_preview_goes_to_a_copy() {
    let mut w = (array![[1.0, 2.0], [3.0, 4.0]].reversed_axes(), array![5.0, 0.0, 6.0]);
    let before = w.clone();
    let grads = (array![[1.0, 1.0], [1.0, 1.0]], array![1.0, 1.0]);
    let mut params = (&mut w.0, w.1.slice_mut(s![..;2]));
    let step = Step::pair(&mut params, &grads, None).unwrap();
    let mut preview = step.preview();
    for (info, tensor) in preview.iter_mut() {
        assert!(tensor.update(info, |mut param, _| param.fill(7.0)));
        assert!(tensor.param().view(info.shape()).iter().all(|value| *value == 7.0));
    }
    drop(preview);
    drop(step);
    assert_eq!(w, before);
}

/// Each micro-batch is finite, their sum is not: the call that would move is refused, in all branches.
#[test]
fn a_sum_that_overflows_stops_every_branch() {
    let summing = || Sgd::new(0.5).clip_global_norm(1.0).accumulate(2);
    let mut opt = Sgd::new(0.5).accumulate(2).route("1", summing());
    let mut w = params();
    opt.step(&mut w, &pair(1.0, 1e308)).unwrap();
    let error = opt.step(&mut w, &pair(1.0, 1e308)).unwrap_err();
    assert!(matches!(&error, Error::Step(StepError::NonFiniteGradient { path, .. }) if path == "1"), "{error}");
    assert_eq!((&w, opt.steps()), (&params(), 0));
    opt.step(&mut w, &pair(3.0, -1e308)).unwrap(); // instead of the refused one
    assert_eq!((w, opt.steps()), (pair(0.0, 2.0), 1));
}

/// Beside one that never saw the refused call: the averages, and what belongs to them, are as before.
#[test]
fn an_average_is_not_begun_by_a_refused_step() {
    let make = || Sgd::new(|step: u64| if step == 0 { 1.0 } else { 0.5 }).check_finite().freeze("1").ema(0.5);
    let (mut opt, mut w, mut average) = (make(), params(), pair(9.0, 9.0));
    assert!(opt.step(&mut w, &pair(f64::NAN, 0.0)).is_err());
    opt.read(&mut average).unwrap();
    assert_eq!(average, pair(9.0, 9.0), "nothing to read yet");
    // What it was refused for is not remembered: another tree is welcome.
    opt.step(&mut (array![1.0], array![1.0]), &(array![1.0], array![f64::NAN])).unwrap();
}
