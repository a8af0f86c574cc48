//! K-FAC, with a tap for every matrix.

use std::sync::Arc;

use gradus::curvature::Kfac;
use gradus::params::Layout;
use gradus::prelude::*;
use gradus::rule::StatePrecision;
use gradus::testing::tensors::numbers;
use gradus::{Commit, LinearTap, Report, Result, StateReader, StateWriter, Step};
use ndarray::{Array2, ArrayD};

use super::decomposition::power;
use crate::rows::{Oracle, Pinned, Row, Subject};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "kfac", slots: &["input_factor", "output_factor"], rests: true, parabola: 0.1, rosenbrock: (3e-4, 40_000),
            pinned: Pinned::Near(-0.4827191361130269),
            optimizer: |lr| Box::new(Tapped(Sgd::new(lr).kfac().damping(0.1).inverses_every(1).no_kl_clip())),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| *p -= &(kfac(t, g, memory) * lr)) },
    ]
}

/// What a layer of this shape sees at its t-th tap.
fn seen(t: u64, outputs: usize, inputs: usize) -> (Array2<f64>, Array2<f64>) {
    let tap = |columns: usize, stream: u64| numbers::<f32>(&[6, columns], stream).mapv(f64::from);
    let matrix = |tensor: ArrayD<f64>| tensor.into_dimensionality().unwrap();
    (matrix(tap(inputs, 1000 + 2 * t)), matrix(tap(outputs, 1001 + 2 * t)))
}

/// (G + √λ/π I)⁻¹ ∇ (A + π√λ I)⁻¹ with means of all taps so far, at most 20.
fn kfac(t: i32, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>) -> Array2<f64> {
    let (input, delta) = seen(t as u64, g.nrows(), g.ncols());
    let kept = (1.0 - 1.0 / f64::from(t)).min(0.95);
    let fresh = [input.t().dot(&input) / 6.0, delta.t().dot(&delta) / 6.0];
    *memory = match &memory[..] {
        [a, g] => vec![a * kept + &fresh[0] * (1.0 - kept), g * kept + &fresh[1] * (1.0 - kept)],
        _ => fresh.to_vec(),
    };
    let mean = |at: usize| memory[at].diag().mean().unwrap();
    let (pi, root) = ((mean(0) / mean(1)).sqrt(), 0.1_f64.sqrt());
    power(&memory[1], root / pi, -1.0).dot(g).dot(&power(&memory[0], pi * root, -1.0))
}

/// K-FAC with a tap for every matrix that has a gradient.
#[derive(Debug, Clone)]
struct Tapped<A>(gradus::adaptor::Adapted<Sgd<A>, Kfac<A>>);

impl<A: Scalar> Tapped<A> {
    fn updates(&self, path: &str) -> u64 {
        self.0.state_dict().text(&format!("kfac/updates/{path}")).map_or(0, |count| count.parse().unwrap())
    }
}

impl<A: Scalar> Optimizer<A> for Tapped<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.0.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        self.0.check(&step)?;
        for (info, _) in step.grads().filter(|(info, _)| info.shape().len() > 1) {
            let (outputs, inputs) = (info.shape()[0], info.shape()[1..].iter().product());
            let (input, delta) = seen(self.updates(info.path()) + 1, outputs, inputs);
            let (input, delta) = (input.mapv(A::from_f64), delta.mapv(A::from_f64));
            self.0.observe(info.path(), LinearTap::new(&input, &delta))?;
        }
        self.0.apply(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.0.conclude(result)
    }

    fn replace_learning_rate(&mut self, learning_rate: gradus::Hyper) {
        self.0.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
        self.0.part(of)
    }

    fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        self.0.part_mut(of)
    }

    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.0.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.0.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.0.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        self.0.read_state(state)
    }
}

impl<A: Scalar> Subject<A> for Tapped<A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)> {
        let state = self.0.state_dict();
        let slot = |name: &'static str| Some((name, state.tensor(&format!("kfac/{name}/{path}"))?));
        ["input_factor", "output_factor"].into_iter().filter_map(slot).collect()
    }

    fn tensor_steps(&self, path: &str) -> u64 {
        self.updates(path)
    }

    fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        None
    }
}
