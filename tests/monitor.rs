//! A monitor around chains whose steps cannot be measured while they are taken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use gradus::adaptor::{Adaptor, Monitor};
use gradus::params::Layout;
use gradus::prelude::*;
use gradus::{Commit, Report, Result, Rows, StateReader, StateWriter, Step};
use ndarray::{Array1, Array2, array};

/// Moves parameters itself, before the optimizer inside.
struct Halve;

impl Adaptor<f64> for Halve {
    fn check(&self, step: &Step<'_, f64>, inner: &dyn Optimizer<f64>) -> Result<()> {
        inner.check(step)
    }

    fn apply(&mut self, mut step: Step<'_, f64>, inner: &mut dyn Optimizer<f64>) -> Result<Report> {
        inner.check(&step)?;
        for (info, tensor) in step.iter_mut() {
            tensor.update(info, |mut param, _| param *= 0.5);
        }
        inner.apply(step)
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::new(|| {}))
    }
}

/// The norms of parameter and update that the monitor of a chain reports of its first tensor.
fn norms(report: &Report) -> [f64; 2] {
    let tensor = &report.tensors().unwrap()[0];
    [tensor.param_norm, tensor.update_norm]
}

#[test]
fn moves_of_an_adaptor_are_measured() {
    let mut opt = gradus::adaptor::Adapted::new(Sgd::new(1.0), Halve).monitor(Monitor::every(1));
    let mut w = array![3.0, 4.0];
    let report = opt.step(&mut w, &array![1.0, 0.0]).unwrap();
    assert_eq!(w, array![0.5, 2.0]);
    assert_eq!(norms(&report), [5.0, 10.25_f64.sqrt()]);
}

/// The last call of a window has no rows; the sum has.
#[test]
fn a_sum_of_rows_is_measured() {
    let mut opt = Sgd::new(1.0).accumulate(2).sum(true).monitor(Monitor::every(1));
    let mut table = Array2::from_elem((4, 2), 1.0);
    opt.step(&mut table, &Some(Rows::new(vec![2], array![[3.0, 4.0]]))).unwrap();
    let report = opt.step(&mut table, &None::<Array2<f64>>).unwrap();
    assert_eq!(table[(2, 0)], -2.0);
    assert_eq!(norms(&report), [8.0_f64.sqrt(), 5.0]);
    opt.step(&mut table, &Some(Rows::new(vec![1], array![[3.0, 4.0]]))).unwrap();
    assert_eq!(norms(&opt.flush(&mut table).unwrap())[1], 5.0);
}

/// Sums of squares of blocks that were scaled differently.
#[test]
fn blocks_of_very_different_sizes() {
    let mut w = Array1::from_elem(4096, 1e200);
    w.slice_mut(ndarray::s![..2048]).fill(1e-200);
    let report = Sgd::new(1.0).monitor(Monitor::every(1)).step(&mut w, &Array1::zeros(4096)).unwrap();
    let [param, update] = norms(&report);
    assert!((param / (1e200 * 2048_f64.sqrt()) - 1.0).abs() < 1e-12 && update == 0.0, "{param}");
}

#[test]
fn a_router_passes_on_what_is_inside() {
    let inside = || Sgd::new(0.1).monitor(Monitor::every(1));
    let mut opt = inside().route("1", inside());
    let (mut w, grads) = ((array![1.0], array![2.0]), (array![1.0], array![1.0]));
    let report = opt.step(&mut w, &grads).unwrap();
    let paths: Vec<_> = report.tensors().unwrap().iter().map(|tensor| tensor.path.as_str()).collect();
    assert_eq!(paths, ["0", "1"]);
}

#[cfg(feature = "half")]
#[test]
fn what_is_clipped_outside_of_master_weights_is_told() {
    let mut opt = Sgd::new(0.1).master_weights().clip_global_norm(1e-3).monitor(Monitor::every(1));
    let report = opt.step(&mut array![half::f16::ONE], &array![half::f16::ONE]).unwrap();
    assert!(report.tensors().unwrap()[0].clipped);
}
