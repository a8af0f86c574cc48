//! Checks before training: [`gradients`] compares a backward pass with finite differences of the loss, and [`RangeTest`] finds a learning rate.

mod comparison;
mod moved;
mod quotient;
mod range_test;
mod sample;

use std::sync::Arc;

use num_traits::Float;

use crate::error::{ArgumentError, Error, LossError, Result, StepError, ensure_count};
use crate::params::{Element, Layout, Order, Params, ParamsMut, Scalar};
use crate::step::{Step, norm};

pub use comparison::{ComparedElement, ComparedTensor, Comparison};
use moved::{Moved, Place};
use quotient::{Judgment, Point};
pub use range_test::{RangeCurve, RangeTest};
use sample::Sample;

/// Compares every element of the gradients with a finite difference of the loss: [`Gradients`] with its defaults.
///
/// `loss` computes the loss at the given parameters. It must be deterministic: without dropout, or with the same mask in every call. It may
/// return an `f64` for `f32` parameters. The parameters are moved in place, one element at a time, and are bit-identical to their old values
/// when this returns.
///
/// ```
/// use gradus::check;
/// use ndarray::array;
///
/// let (mut weight, mut bias) = (array![[1.0, -2.0], [0.5, 3.0]], array![0.25, -1.0]);
/// let x = array![3.0, 1.0];
/// let out: ndarray::Array1<f64> = weight.dot(&x) + &bias; // the loss is out·out/2
/// let outer = ndarray::Array2::from_shape_fn((2, 2), |(i, j)| out[i] * x[j]);
///
/// let forgotten = (outer, ndarray::Array1::zeros(2)); // the bias is out too
/// let found = check::gradients(&mut (&mut weight, &mut bias), &forgotten, |(weight, bias)| {
///     let out = weight.dot(&x) + &**bias;
///     out.dot(&out) / 2.0
/// })?;
/// assert!(found.tensors()[0].worst_error() < 1e-6, "{found}");
/// assert!((found.tensors()[1].worst_error() - 1.0).abs() < 1e-6, "{found}");
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Errors
/// Those of [`Gradients::compare`].
#[doc(alias = "gradcheck")]
pub fn gradients<P, L>(
    params: &mut P,
    grads: &dyn Params<Elem = P::Elem>,
    loss: impl FnMut(&P) -> L,
) -> Result<Comparison>
where
    P: ParamsMut<Elem: Scalar> + ?Sized,
    L: Element,
{
    Gradients::new().compare(params, grads, loss)
}

/// Compares gradients with finite differences of the loss, element by element.
///
/// # Rule
/// For the element θ of a parameter, its gradient g and the loss J as a function of θ alone:
/// ```text
/// d = h · max(1, |θ|)
/// q = (J(θ + d) − J(θ − d)) / 2d                   2d: the difference of the two representable numbers
/// ρ = 16ε (|J(θ + d)| + |J(θ − d)|) / 2d           the largest effect of J's rounding on q
/// error = max(0, |g − q| − ρ) / max(|g|, |q|)      0 where both are 0
/// ```
/// The error is relative to the element itself, not to its tensor: 2 is a wrong sign, 1 a missing term, and 0.5 a wrong factor of two,
/// however small the element is. Only an error that rounding can explain counts as 0.
///
/// If the error exceeds √ε, the loss is also evaluated at θ ± 2d, and the smallest of four errors is used, each with its own ρ:
/// - the error of q;
/// - the error of the fourth-order difference through the four points, which helps if the loss is strongly curved;
/// - the errors of the one-sided differences through θ, θ + d, θ + 2d and through θ, θ − d, θ − 2d, which help near a kink, such as that of
///   a rectifier.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`step`](Self::step) h | ε^(1/3) | ε ≤ h ≤ 1 | distance by which an element is moved, relative to max(1, its magnitude) |
/// | [`sample`](Self::sample) | all | ≥ 1 | number of elements compared per tensor |
///
/// A finite difference has an error of h²J‴/6 from curvature and of εJ/h from rounding. The default makes both about equal if J and J‴ have
/// about the same size: it is 6.1·10⁻⁶ in `f64` and 4.9·10⁻³ in `f32`.
///
/// # Conventions
/// **Check in `f64`.** Make a model that you train in `f32` generic over its element type. Correct gradients then have errors below 10⁻⁶. In
/// `f32` a finite difference has three digits: use a tolerance of 10⁻². Elements smaller than ρ, about 4·10⁻⁴·|J| in `f32`, cannot be
/// checked. Trees of 16 bits do not compile, because their finite differences are useless.
///
/// ε belongs to the type of the parameters, or of the loss if that is coarser. [`below_rounding`](ComparedTensor::below_rounding) counts the
/// elements too small to be checked. If the loss is a small difference of large numbers, its rounding error is larger than ρ assumes, and
/// correct gradients may appear wrong. Check an untrained model, whose loss is not small.
///
/// Exactly at a kink, the derivative of either side is accepted. If moving an element moves many rectifiers, there may be kinks on both
/// sides within 2d, and no finite difference is accurate. Use fewer examples or a smaller `step`.
///
/// The loss is evaluated twice, plus two or four times per element.
///
/// # Errors
/// Those of [`compare`](Self::compare).
///
/// # Example
/// ```
/// use gradus::check::Gradients;
/// use ndarray::Array2;
///
/// let mut w = Array2::from_shape_fn((300, 200), |(i, j)| ((i + 3 * j) as f64).sin());
/// let grads = w.mapv(f64::cos); // of the sum of sines
/// let found = Gradients::new().sample(40, 7).compare(&mut w, &grads, |w| w.mapv(f64::sin).sum())?;
/// assert!(found.worst_error() < 1e-6, "{found}");
/// assert_eq!(found.checked(), 40);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Nocedal and S. J. Wright, *Numerical Optimization*, 2nd ed., Springer 2006, section 8.1; G. L. Steele, D. Lea and
/// C. H. Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014 (SplitMix64, which draws the samples).
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "settings compare nothing; call `compare`"]
pub struct Gradients {
    step: Option<f64>,
    sample: Option<(usize, u64)>,
}

impl Gradients {
    /// Creates a check of all elements with the default step.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves an element by `step` · max(1, its magnitude).
    pub fn step(mut self, step: f64) -> Self {
        self.step = Some(step);
        self
    }

    /// Compares at most `elements` elements of each tensor: the tensor is divided into this many equal parts, and one element is drawn from
    /// each with the seed.
    pub fn sample(mut self, elements: usize, seed: u64) -> Self {
        self.sample = Some((elements, seed));
        self
    }

    /// Compares the gradients with finite differences of the loss. [`gradients`] lists the requirements.
    ///
    /// A tensor whose gradient is `None` is not compared; [`Comparison::without_gradient`] names it.
    ///
    /// # Errors
    /// - those of [`Step::pair`] if the trees differ;
    /// - [`StepError::NonFiniteGradient`];
    /// - [`StepError::NonFiniteParameter`] if an element is not finite, or would not be after it is moved;
    /// - [`ArgumentError::NotFinite`] if the loss is not finite, and [`LossError::NonFiniteLoss`] if it is not finite after an element was moved;
    /// - [`LossError::LossChanged`] if the loss is not deterministic;
    /// - [`ArgumentError::Range`] if a setting is out of range;
    /// - [`StepError::ParametersChanged`] if the tree shows other tensors in a later walk.
    ///
    /// The parameters are then unchanged, also if the loss panics. There is one exception: if the tree hides an element after it was moved,
    /// or panics in every later walk, that element cannot be restored.
    pub fn compare<P, L>(
        &self,
        params: &mut P,
        grads: &dyn Params<Elem = P::Elem>,
        mut loss: impl FnMut(&P) -> L,
    ) -> Result<Comparison>
    where
        P: ParamsMut<Elem: Scalar> + ?Sized,
        L: Element,
    {
        let epsilon = P::Elem::epsilon().as_f64().max(L::epsilon().as_f64());
        let step = self.checked_step(P::Elem::epsilon().as_f64(), epsilon)?;
        let mut sample = self.checked_sample()?;
        let pairs = Step::of_grads(grads, Layout::of(params)?)?;
        let layout = Arc::clone(pairs.layout());
        let given: Vec<_> = pairs.grads().collect();
        norm::ensure_finite(&given)?;
        let at_rest = loss(params).as_f64();
        if !at_rest.is_finite() {
            return Err(Error::Argument(ArgumentError::NotFinite {
                argument: "the loss",
                index: Vec::new(),
                value: at_rest,
            }));
        }
        let again = loss(params).as_f64();
        if again != at_rest {
            return Err(Error::Loss(LossError::LossChanged { first: at_rest, second: again }));
        }

        let ruler = Ruler { step, epsilon, at_rest };
        let mut comparison = Comparison::default();
        for (info, tensor) in pairs.iter() {
            let Some(grad) = &tensor.grad else {
                comparison.without_gradient.push(info.path().into());
                continue;
            };
            let mut compared = ComparedTensor::new(info.path());
            for element in sample.of(info.elements()) {
                let mut own = [P::Elem::from_f64(0.0)];
                grad.read_raw(info.shape(), Order::C, element, &mut own);
                let place = Place { info, tensor: tensor.index(), index: norm::unravel(element, info.shape()) };
                let mut moved = Moved::new(params, &layout, &place)?;
                let judgment = ruler.judge(&mut moved, &place, own[0].as_f64(), &mut loss)?;
                moved.back()?;
                compared.add(place.index, own[0].as_f64(), &judgment);
            }
            comparison.tensors.push(compared);
        }
        Ok(comparison)
    }

    fn checked_step(&self, own_epsilon: f64, epsilon: f64) -> Result<f64> {
        match self.step {
            None => Ok(epsilon.cbrt()),
            Some(step) if (own_epsilon..=1.0).contains(&step) => Ok(step),
            Some(value) => Err(Error::Argument(ArgumentError::Range {
                argument: "step",
                value,
                accepted: format!("from {own_epsilon:e} to 1"),
            })),
        }
    }

    fn checked_sample(&self) -> Result<Sample> {
        self.sample.map_or(Ok(()), |(elements, _)| ensure_count("sample", elements as u64))?;
        Ok(Sample::new(self.sample))
    }
}

/// What the elements are measured with.
struct Ruler {
    step: f64,
    epsilon: f64,
    /// The loss at the parameters as they are.
    at_rest: f64,
}

impl Ruler {
    fn judge<P: ParamsMut<Elem: Scalar> + ?Sized, L: Element>(
        &self,
        moved: &mut Moved<'_, P>,
        place: &Place<'_>,
        grad: f64,
        loss: &mut impl FnMut(&P) -> L,
    ) -> Result<Judgment> {
        let Self { step, epsilon, at_rest } = *self;
        let home = moved.home().as_f64();
        let by = step * home.abs().max(1.0);
        if !P::Elem::from_f64(home.abs() + 2.0 * by).is_finite() {
            let (path, index) = (place.info.path().into(), place.index.clone());
            return Err(Error::Step(StepError::NonFiniteParameter { path, index, value: home }));
        }
        let mut at = |steps: f64| {
            let there = P::Elem::from_f64(home + steps * by);
            Ok(Point { shift: there.as_f64() - home, loss: loss(moved.to(there)?).as_f64() })
        };
        let judge = |points: &[Point]| Judgment::new(grad, points, at_rest, epsilon);

        let (right, left) = (at(1.0)?, at(-1.0)?);
        if let Some(&Point { loss: value, .. }) = [&right, &left].into_iter().find(|point| !point.loss.is_finite()) {
            return Err(Error::Loss(LossError::NonFiniteLoss {
                path: place.info.path().into(),
                index: place.index.clone(),
                value,
            }));
        }
        let mut best = judge(&[right, left]);
        let enough = epsilon.sqrt();
        if best.error <= enough {
            return Ok(best);
        }
        let (far_right, far_left) = (at(2.0)?, at(-2.0)?);
        let rest = Point { shift: 0.0, loss: at_rest };
        let both = judge(&[right, left, far_right, far_left]);
        if both.error < best.error {
            best = both;
        }
        for side in [[rest, right, far_right], [rest, left, far_left]] {
            let side = judge(&side);
            if best.error > enough && side.error < best.error {
                best = Judgment { one_sided: side.error <= enough, ..side };
            }
        }
        Ok(best)
    }
}
