//! Kronecker-factored curvature (K-FAC): natural gradient descent with a few small matrices per layer.
//!
//! [`Kfac`] is an adaptor around any optimizer. The training loop passes it a tap of each layer, and steps:
//!
//! ```
//! use gradus::curvature::sample;
//! use gradus::{LinearTap, prelude::*};
//! use ndarray::{Array1, Array2, Axis};
//! use rand::SeedableRng; // rand 0.10
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//!
//! let x = Array2::from_shape_fn((64, 4), |(i, j)| ((i * (j + 1)) as f64).sin());
//! let y = x.dot(&ndarray::array![[2.0], [-1.0], [0.5], [3.0]]) + 0.5;
//! let (mut w, mut b) = (Array2::zeros((1, 4)), Array1::zeros(1));
//!
//! let mut opt = Sgd::new(1.0).kfac().damping(1e-6).no_kl_clip().layer("linear", gradus::curvature::Layer::new("0").bias("1"));
//! for _ in 0..20 {
//!     let output = x.dot(&w.t()) + &b;
//!     let output_grad = sample::gaussian(&output, &mut rng); // of targets that the model itself would give
//!     opt.observe("linear", LinearTap::new(&x, &output_grad))?;
//!
//!     let error = (output - &y) / x.nrows() as f64; // the gradient of the mean of ½(output − y)²
//!     opt.step(&mut (&mut w, &mut b), &(error.t().dot(&x), error.sum_axis(Axis(0))))?;
//! }
//! assert!((b[0] - 0.5).abs() < 1e-2 && (w[[0, 3]] - 3.0_f64).abs() < 1e-2);
//! # Ok::<(), gradus::Error>(())
//! ```

mod adaptor;
mod damping;
mod factors;
mod layer;
mod observe;
pub mod sample;
mod scratch;
mod setters;
mod settings;
mod state;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::ArrayD;

use crate::adaptor::Adaptor;
use crate::error::Result;
use crate::kernel::product::faer::dot;
use crate::kernel::threads;
use crate::params::{Layout, Scalar, Values};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Grad, Optimizer, Report, Step, norm};

use factors::{Factors, Solver};
use settings::Settings;

pub use adaptor::Kfac;
pub use layer::Layer;

impl<A: Scalar> Kfac<A> {
    /// The factors that this step changes, as they will be after it: with decompositions where it is time.
    fn advance(&self, settings: &Settings) -> BTreeMap<String, Factors<A>> {
        let due = settings.at.is_multiple_of(self.inverses_every);
        let mut changed: Vec<_> = settings.places.iter().map(|(name, place)| (name, place, None)).collect();
        let Self { layers, pending, scratch, mode, .. } = self;
        threads::for_each(&mut changed, &|(name, place, changed)| {
            let known = layers.get(*name);
            let updated = match pending.get(*name) {
                Some(pending) => Some(Factors::updated(known, pending, place.bias.is_some(), settings.decay, scratch)),
                None => known.filter(|_| due).cloned(),
            };
            *changed = updated.map(|mut factors| {
                if due || matches!(*factors.solver, Solver::None) {
                    factors.refresh(*mode, settings.damping);
                }
                factors
            });
        });
        changed.into_iter().filter_map(|(name, _, factors)| Some((name.clone(), factors?))).collect()
    }

    /// The preconditioned gradients by tensor, and [Ση⟨V, ∇⟩, Ση²⟨V, ∇⟩] with the learning rate η of each.
    fn precondition(
        &self,
        settings: &Settings,
        changed: &BTreeMap<String, Factors<A>>,
        step: &Step<'_, A>,
        learning_rate: f64,
    ) -> (Vec<Option<ArrayD<A>>>, [f64; 2]) {
        let grads = settings.places.iter().filter_map(|(name, place)| {
            let factors = changed.get(name).or(self.layers.get(name))?;
            Some((factors, place, place.gradient(step)?, None))
        });
        let mut grads: Vec<_> = grads.collect();
        let scratch = &self.scratch;
        threads::for_each(&mut grads, &|(factors, place, grad, preconditioned)| {
            let mut whole = factors.precondition(grad, settings.damping, scratch);
            let mut product = match (whole.as_slice(), grad.as_slice()) {
                (Some(whole), Some(grad)) => dot(whole, grad),
                _ => unreachable!("they lie row by row"),
            };
            // What is not finite makes the product so, whatever it is multiplied with.
            if !product.is_finite() && !whole.as_slice().is_some_and(norm::finite) {
                whole.assign(grad);
                product = 0.0;
            }
            let products = if product == 0.0 { [0.0; 2] } else { place.products(product, &whole, grad) };
            *preconditioned = Some((whole, products));
        });
        let mut rates = vec![0.0; step.layout().len()];
        for (_, tensor) in step.iter() {
            rates[tensor.index()] = tensor.learning_rate.apply(learning_rate);
        }
        let (mut parts, mut sums) = (vec![None; step.layout().len()], [0.0; 2]);
        for (_, place, _, preconditioned) in grads {
            let Some((whole, products)) = preconditioned else { continue };
            for (at, product) in [Some(place.weight), place.bias].into_iter().flatten().zip(products) {
                sums[0] += rates[at] * product;
                sums[1] += rates[at] * rates[at] * product;
            }
            let (weight, bias) = place.part(whole, &step.layout().tensors()[place.weight]);
            parts[place.weight] = Some(weight);
            if let Some(at) = place.bias {
                parts[at] = bias;
            }
        }
        (parts, sums)
    }

    /// The step is made: it leaves its memory to the next, and frees what that before it left unused.
    fn keep(&mut self, changed: BTreeMap<String, Factors<A>>, grads: Vec<Option<ArrayD<A>>>) {
        let sums = std::mem::take(&mut self.pending).into_values().flat_map(|sums| [sums.input, sums.output]);
        let replaced = changed.into_iter().filter_map(|(name, factors)| self.layers.insert(name, factors));
        let matrices = sums.chain(replaced.flat_map(|factors| [factors.input, factors.output]));
        let buffers = matrices.map(|matrix| matrix.into_raw_vec_and_offset().0);
        let grads = grads.into_iter().flatten().map(|grad| grad.into_raw_vec_and_offset().0);
        buffers.chain(grads).for_each(|buffer| self.scratch.give(buffer));
        self.scratch.renew();
    }
}

impl<A: Scalar> Adaptor<A> for Kfac<A> {
    // The optimizer inside is checked with the original gradients: to precondition them is most of a step's work, and `accumulate` checks in
    // every call.
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.settings(step, inner.steps())?;
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let settings = self.settings(&step, inner.steps())?;
        let changed = self.advance(&settings);
        let (grads, [slope, size]) = self.precondition(&settings, &changed, &step, inner.learning_rate());
        let scale = settings.kl_clip.map_or(1.0, |kl_clip| {
            let scale = (kl_clip / size.abs()).sqrt();
            if scale < 1.0 { scale } else { 1.0 }
        });
        let layout = Arc::clone(step.layout());
        // The gradients of the step are those from here on: a shorter lifetime than the caller's.
        let mut step: Step<'_, A> = step;
        for (_, tensor) in step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some()) {
            if let Some(grad) = &grads[tensor.index()] {
                let mut grad = Grad::new(Values::new(grad.view()));
                grad.scale_by(scale);
                tensor.grad = Some(grad);
            }
        }
        let report = inner.apply(step)?;
        if report.moved {
            self.trust.stepped(-scale * slope + 0.5 * scale * scale * size);
        }
        self.layout.get_or_insert(layout);
        self.steps = inner.steps();
        self.keep(changed, grads);
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state::write(self, &mut state.node("kfac"));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let (read, hypers) = state::read(self, &mut state.node("kfac")?)?;
        let Self { layout, steps, layers, pending, trust, .. } = self;
        Ok(Commit::new(move || (*layout, *steps, *layers, *pending, *trust) = read).and(hypers))
    }
}
