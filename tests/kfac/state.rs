//! A run that stops and goes on is the run that never stopped.

use gradus::curvature::{Kfac, Layer};
use gradus::error::StateError;
use gradus::{Error, LinearTap, StateDict, prelude::*};
use ndarray::{Array1, Array2};

use crate::numbers;

type Params = (Array2<f64>, Array1<f64>, Array2<f64>);
type Chain = gradus::adaptor::Adapted<Momentum<f64>, Kfac<f64>>;

const STEPS: u64 = 24;

fn fresh(eigen: bool) -> Chain {
    let opt = Momentum::new(0.05, 0.9).kfac().factors_every(2).inverses_every(3).layer("l", Layer::new("0").bias("1"));
    if eigen { opt.eigen(true) } else { opt }
}

fn start() -> Params {
    (numbers(3, 4, 1), Array1::zeros(3), numbers(2, 3, 2))
}

fn observe(opt: &mut Chain, number: u64) {
    let tap =
        |inputs: usize, outputs: usize, stream: u64| (numbers(6, inputs, stream), numbers(6, outputs, stream + 1));
    let (x, delta) = tap(4, 3, 100 + 4 * number);
    opt.observe("l", LinearTap::new(&x, &delta)).unwrap();
    let (x, delta) = tap(3, 2, 102 + 4 * number);
    opt.observe_empirical("2", LinearTap::new(&x, &delta)).unwrap();
}

fn step(opt: &mut Chain, params: &mut Params, number: u64) {
    let grads = (numbers(3, 4, 500 + number), Array1::from_elem(3, 0.1), numbers(2, 3, 600 + number));
    opt.step(params, &grads).unwrap();
    if number % 5 == 4 {
        opt.adapt_damping(1.0, 0.9).unwrap();
    }
}

/// At every step, before and after its taps.
#[test]
fn resumed_bit_for_bit() {
    for eigen in [false, true] {
        let (mut opt, mut params) = (fresh(eigen), start());
        let mut seen: Vec<(StateDict, StateDict, Params)> = vec![];
        for number in 0..STEPS {
            let before = opt.state_dict();
            observe(&mut opt, number);
            seen.push((before, opt.state_dict(), params.clone()));
            step(&mut opt, &mut params, number);
        }
        for (number, (before, between, at)) in seen.into_iter().enumerate() {
            for (state, observed) in [(before, false), (between, true)] {
                let (mut resumed, mut resumed_params) = (fresh(eigen), at.clone());
                resumed.load_state_dict(&state).unwrap();
                assert!(resumed.state_dict() == state, "{number}");
                for number in number as u64..STEPS {
                    if !observed || number > at_number(&state) {
                        observe(&mut resumed, number);
                    }
                    step(&mut resumed, &mut resumed_params, number);
                }
                assert!(resumed_params == params && resumed.state_dict() == opt.state_dict(), "{number}");
            }
        }
    }
}

/// What a step leaves in memory is written over by the next; a clone begins without.
#[test]
fn memory_of_earlier_steps_is_never_read() {
    for eigen in [false, true] {
        let (mut opt, mut params) = (fresh(eigen), start());
        for number in 0..STEPS {
            let (mut clone, mut clone_params) = (opt.clone(), params.clone());
            for (opt, params) in [(&mut opt, &mut params), (&mut clone, &mut clone_params)] {
                observe(opt, number);
                step(opt, params, number);
            }
            assert!(clone_params == params && clone.state_dict() == opt.state_dict(), "{number}");
        }
    }
}

/// The sums of a step's taps are written whole.
#[test]
fn pending_sums_are_symmetric() {
    let mut opt = fresh(false);
    for number in 0..STEPS {
        observe(&mut opt, number);
        step(&mut opt, &mut start(), number);
    }
    observe(&mut opt, 0);
    let mut other = fresh(false);
    observe(&mut other, 0);
    let x = numbers(6, 4, 100);
    for opt in [&opt, &other] {
        let found = opt.state_dict().tensor::<f64>("kfac/pending_input/l").unwrap();
        let expected = x.t().dot(&x);
        assert!(found.iter().zip(&expected).all(|(found, sum)| (found - sum).abs() < 1e-12), "{found}");
    }
}

fn at_number(state: &StateDict) -> u64 {
    state.text("momentum/steps").unwrap().parse().unwrap()
}

#[test]
fn what_is_missing_or_of_another_shape_is_named() {
    let (mut opt, mut params) = (fresh(false), start());
    observe(&mut opt, 0);
    step(&mut opt, &mut params, 0);
    observe(&mut opt, 1);
    observe(&mut opt, 2);
    let state = opt.state_dict();
    let before = fresh(false).state_dict();
    let own: Vec<String> = state.keys().filter(|key| key.starts_with("kfac/")).map(String::from).collect();
    assert!(own.len() > 12, "{own:?}");
    for key in own.iter().filter(|key| !key.contains("foretold") && !key.contains("row_sums")) {
        let (mut damaged, mut other) = (state.clone(), fresh(false));
        assert!(damaged.remove(key));
        let error = other.load_state_dict(&damaged).unwrap_err();
        assert!(
            matches!(
                error,
                Error::State(StateError::MissingEntry { .. }) | Error::State(StateError::UnexpectedEntry { .. })
            ),
            "{key}: {error}"
        );
        assert!(other.state_dict() == before, "{key}");
        if state.text(key).is_some() {
            let mut damaged = state.clone();
            damaged.insert_text(key.clone(), "many");
            assert!(
                matches!(other.load_state_dict(&damaged), Err(Error::State(StateError::EntryValue { .. }))),
                "{key}"
            );
        } else {
            let mut damaged = state.clone();
            damaged.insert_tensor(key.clone(), numbers(1, 2, 0).view());
            let error = other.load_state_dict(&damaged).unwrap_err();
            assert!(matches!(error, Error::State(StateError::EntryShape { .. })), "{key}: {error}");
        }
        assert!(other.state_dict() == before, "{key}");
    }
    let error = fresh(true).load_state_dict(&state).unwrap_err();
    assert!(matches!(error, Error::State(StateError::MissingEntry { .. })), "inverses are no eigenvectors: {error}");
}
