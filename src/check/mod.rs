//! Whether a backward pass is right: its gradients beside difference quotients of the loss.

mod comparison;
mod moved;
mod quotient;
mod sample;

use std::sync::Arc;

use num_traits::Float;

use crate::error::{ArgumentError, Error, LossError, Result, StepError, ensure_count};
use crate::params::{Element, Layout, Order, Params, ParamsMut, Scalar};
use crate::step::{Step, norm};

pub use comparison::{ComparedElement, ComparedTensor, Comparison};
use moved::{Moved, Place};
use quotient::{Judgement, Point};
use sample::Sample;

/// Compares every element of the gradients with a difference quotient of the loss: [`Gradients`] with its defaults.
///
/// `loss` is the loss at the parameters that it is given, and the same number whenever it is asked: without dropout, or
/// with the same one each time. It may be an `f64` where the parameters are `f32`. The parameters are moved in place, one
/// element at a time, and are bit for bit what they were when this returns.
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

/// Compares gradients with difference quotients of the loss, element by element.
///
/// # Rule
/// For the element θ of a parameter, its gradient g and the loss J as a function of θ alone:
/// ```text
/// d = h · max(1, |θ|)
/// q = (J(θ + d) − J(θ − d)) / 2d                   2d: from the one number to the other, as they are represented
/// ρ = 16ε (|J(θ + d)| + |J(θ − d)|) / 2d           what rounding in J may do to q
/// error = max(0, |g − q| − ρ) / max(|g|, |q|)      0 where both are 0
/// ```
/// The error is relative to the element itself, not to its tensor: 2 is a wrong sign, 1 a forgotten term, 0.5 a factor
/// of two, however small the element is beside others. Only what rounding explains is forgiven.
///
/// Where the error exceeds √ε, the loss is asked at θ ± 2d too, and the least of four errors counts: that of q, that of
/// the quotient of fourth order through the four points, and those of the quotients of one side, through θ, θ + d and
/// θ + 2d, and through θ, θ − d and θ − 2d, each with its own ρ. The first of these helps where the loss bends much, the
/// others beside a kink, such as a rectifier's: the side without it is smooth.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`step`](Self::step) h | ε^(1/3) | ε ≤ h ≤ 1 | how far an element is moved, relative to max(1, its size) |
/// | [`sample`](Self::sample) | all | ≥ 1 | how many elements of each tensor are compared |
///
/// A difference quotient errs by h²J‴/6, as the loss bends, and by εJ/h, as it is rounded. The default makes the two
/// alike if J and J‴ are: it is 6.1·10⁻⁶ in `f64` and 4.9·10⁻³ in `f32`.
///
/// # Conventions
/// **Check in `f64`**, a model that is trained in `f32` too if it is generic over its elements: right gradients then have
/// errors below 10⁻⁶. In `f32` a quotient has three digits, and 10⁻² is a tolerance; elements below ρ, there about
/// 4·10⁻⁴·|J|, are not seen. 16-bit trees are refused by the compiler, as their quotients would say nothing.
///
/// ε is that of the parameters' type, or of the loss's if that is coarser.
/// [`below_rounding`](ComparedTensor::below_rounding) counts the elements of which ρ leaves nothing to say. A loss that is a
/// small difference of large numbers is rounded more than ρ knows, and right gradients may then seem wrong: compare an untrained
/// model, whose loss is not small.
///
/// Exactly at a kink the derivatives of both sides pass for right. Where moving an element moves many rectifiers, there may
/// be kinks on both sides of it within 2d, and no quotient is good: take fewer examples or a smaller `step`.
///
/// The loss is asked twice, and then two or four times for each element.
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
    /// All elements, with the default step.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves an element by `step` · max(1, its size).
    pub fn step(mut self, step: f64) -> Self {
        self.step = Some(step);
        self
    }

    /// Compares so many elements of each tensor, or all if it has no more: one from each of so many equal parts of it,
    /// drawn by the seed.
    pub fn sample(mut self, elements: usize, seed: u64) -> Self {
        self.sample = Some((elements, seed));
        self
    }

    /// Compares the gradients with difference quotients of the loss: [`gradients`] has the conditions.
    ///
    /// A tensor for which the tree says `None` is not compared; [`Comparison::without_gradient`] names it.
    ///
    /// # Errors
    /// Those of [`Step::pair`], if the trees differ; [`StepError::NonFiniteGradient`]; [`StepError::NonFiniteParameter`] if an
    /// element is not finite, or would not be when it is moved; [`ArgumentError::NotFinite`] if the loss is not, [`LossError::LossChanged`], and
    /// [`LossError::NonFiniteLoss`] if it is not when an element has been moved; [`ArgumentError::Range`] for a setting outside its
    /// range; [`StepError::ParametersChanged`] if a walk of the tree shows other tensors than the one before. The parameters are
    /// what they were, also if the loss panics. Only a tree that hides an element after it was moved, or panics itself
    /// whenever it is walked from then on, keeps that one element where it is.
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
        if !norm::all_finite(&given) {
            return Err(norm::non_finite(&given));
        }
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
                let judgement = ruler.judge(&mut moved, &place, own[0].as_f64(), &mut loss)?;
                moved.back()?;
                compared.add(place.index, own[0].as_f64(), &judgement);
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
    ) -> Result<Judgement> {
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
        let judge = |points: &[Point]| Judgement::new(grad, points, at_rest, epsilon);

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
                best = Judgement { one_sided: side.error <= enough, ..side };
            }
        }
        Ok(best)
    }
}
