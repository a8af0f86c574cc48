//! Averages over a fraction of the run, whose length can be chosen after training.

use crate::error::{ArgumentError, Error, Result};
use crate::schedule::Hyper;

/// The decay of an average over a fixed fraction of the run so far: a power function instead of an exponential one. Use it as the decay of
/// [`ema`](crate::OptimizerExt::ema).
///
/// # Formula
/// ```text
/// decay of step number t = (1 − 1/t)^(γ + 1)        the first step is number 1
/// width = √(γ + 1) / ((γ + 2) √(γ + 3))             the standard deviation of the average's times, over t
/// ```
/// The average after t steps has the weight (γ + 1) s^γ / t^(γ + 1) for step s. It forgets the start of the run, and is about `width · t` steps wide.
///
/// [`post_hoc_weights`] computes the average of any other width from saved ones of two widths.
///
/// # Example
/// ```
/// use gradus::{adaptor::PowerEma, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).ema(PowerEma::new(1.0));
/// let mut w = array![0.0_f64];
/// (0..3).try_for_each(|_| opt.step(&mut w, &array![-1.0]).map(drop))?; // 1, 2, 3
/// opt.swap(&mut w)?; // 1, then 1 + ¾·1, then 1.75 + 5/9·1.25
/// assert!((w[0] - 2.444444).abs() < 1e-6);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// T. Karras et al., *Analyzing and Improving the Training Dynamics of Diffusion Models* (2024),
/// [arXiv:2312.02696](https://arxiv.org/abs/2312.02696), section 3 and appendix C.
#[doc(alias("edm2", "PostHocEMA", "post-hoc EMA"))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerEma {
    gamma: f64,
}

impl PowerEma {
    /// The average with the power γ > −½. Another one is an error of the step.
    pub fn new(gamma: f64) -> Self {
        Self { gamma }
    }

    /// The average with this relative width. The paper uses 0.05 and 0.1.
    ///
    /// # Errors
    /// [`ArgumentError::Range`] unless 0 < width ≤ 1/√12.
    ///
    /// ```
    /// let average = gradus::adaptor::PowerEma::of_width(0.1)?;
    /// assert!((average.gamma() - 6.9372).abs() < 1e-4);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    pub fn of_width(width: f64) -> Result<Self> {
        let squared = width.powi(-2);
        // A width whose square has no finite inverse has no γ either.
        if !(width > 0.0 && squared >= WIDEST * (1.0 - 1e-12) && squared.is_finite()) {
            return Err(Error::argument("width", width, "above 0 and at most 1/√12 = 0.2887"));
        }
        // (γ + 2)²(γ + 3)/(γ + 1) = 1/width² rises with γ, and is above γ².
        let (mut low, mut high) = (0.0_f64, squared.sqrt());
        loop {
            let gamma = low + 0.5 * (high - low);
            if gamma <= low || gamma >= high {
                return Ok(Self { gamma });
            }
            let value = (gamma + 2.0) * (gamma + 2.0) * (gamma + 3.0) / (gamma + 1.0);
            if value < squared { low = gamma } else { high = gamma }
        }
    }

    /// The power γ.
    pub fn gamma(&self) -> f64 {
        self.gamma
    }

    /// The relative width.
    pub fn width(&self) -> f64 {
        (self.gamma + 1.0).sqrt() / ((self.gamma + 2.0) * (self.gamma + 3.0).sqrt())
    }

    /// The decay of the step after `step` steps.
    pub fn decay(&self, step: u64) -> f64 {
        // The power of a negative exponent would be infinite at the first step; NaN is out of the range of a decay.
        match self.gamma > LEAST {
            true => (1.0 - 1.0 / (step as f64 + 1.0)).powf(self.gamma + 1.0),
            false => f64::NAN,
        }
    }
}

/// 1/width² of γ = 0.
const WIDEST: f64 = 12.0;

/// Two averages have a finite product if each γ is above this.
const LEAST: f64 = -0.5;

impl From<PowerEma> for Hyper {
    fn from(average: PowerEma) -> Self {
        Self::from(move |step: u64| average.decay(step))
    }
}

/// The weights with which averages that were saved during training add up to one of another width or another time.
///
/// `saved` has the number of steps and the [`PowerEma`] of each saved average, `wanted` those of the average to make. The sum of
/// weight · average over all is the closest to it in the mean square over the run (appendix C.2 of the paper). Save averages of two widths, such as
/// 0.05 and 0.1, a few dozen times in a run.
///
/// # Errors
/// [`ArgumentError::Empty`] without saved averages; [`ArgumentError::Range`] for an average of no steps, for γ ≤ −½ or NaN, and if two saved averages are the same.
///
/// # Example
/// ```
/// use gradus::{adaptor::{PowerEma, post_hoc_weights}, tree};
/// # let saved = [vec![1.0_f32], vec![2.0], vec![3.0]]; // read from three files
///
/// let (narrow, wide) = (PowerEma::of_width(0.05)?, PowerEma::of_width(0.1)?);
/// let times = [(500, wide), (1000, narrow), (1000, wide)];
/// let weights = post_hoc_weights(&times, (1000, PowerEma::of_width(0.08)?))?;
/// let mut average = tree::zeros_like(&saved[0]);
/// for (weight, saved) in weights.iter().zip(&saved) {
///     tree::axpy(&mut average, *weight, saved)?;
/// }
/// assert!((weights.iter().sum::<f64>() - 1.0).abs() < 0.05);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Algorithm 3 of [`PowerEma`]'s paper.
pub fn post_hoc_weights(saved: &[(u64, PowerEma)], wanted: (u64, PowerEma)) -> Result<Vec<f64>> {
    if saved.is_empty() {
        return Err(Error::Argument(ArgumentError::Empty { argument: "saved" }));
    }
    for (steps, average) in saved.iter().chain([&wanted]) {
        if *steps == 0 {
            return Err(Error::argument("steps", 0.0, "at least 1"));
        }
        if !(average.gamma > LEAST && average.gamma.is_finite()) {
            return Err(Error::argument("gamma", average.gamma, "a finite number > -0.5"));
        }
    }
    let row = |own: &(u64, PowerEma)| {
        let products = saved.iter().map(|other| product(*own, *other));
        products.chain([product(*own, wanted)]).collect::<Vec<f64>>()
    };
    solve(saved.iter().map(row).collect()).map_err(|at| {
        Error::argument(
            "saved",
            at as f64,
            "averages of different steps or widths; the one at this place adds nothing to the others",
        )
    })
}

/// The integral of the product of two averages' weights over the run.
fn product((a_steps, a): (u64, PowerEma), (b_steps, b): (u64, PowerEma)) -> f64 {
    let (a_steps, b_steps) = (a_steps as f64, b_steps as f64);
    let exponent = if a_steps < b_steps { b.gamma } else { -a.gamma };
    let numerator = (a.gamma + 1.0) * (b.gamma + 1.0) * (a_steps / b_steps).powf(exponent);
    numerator / ((a.gamma + b.gamma + 1.0) * a_steps.max(b_steps))
}

/// The solution of linear equations, whose rows end with the right-hand side; or the first column that depends on those before.
fn solve(mut rows: Vec<Vec<f64>>) -> Result<Vec<f64>, usize> {
    let count = rows.len();
    for column in 0..count {
        let pivot = (column..count).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        let pivot = pivot.unwrap_or(column);
        let largest = rows[pivot][column];
        if !largest.is_finite() || largest == 0.0 {
            return Err(column);
        }
        rows.swap(column, pivot);
        let (above, below) = rows.split_at_mut(column + 1);
        let Some(pivot) = above.last() else { continue };
        for row in below {
            let factor = row[column] / largest;
            row.iter_mut().zip(pivot).skip(column).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let mut solution = vec![0.0; count];
    for at in (0..count).rev() {
        let known: f64 = (at + 1..count).map(|column| rows[at][column] * solution[column]).sum();
        solution[at] = (rows[at][count] - known) / rows[at][at];
    }
    Ok(solution)
}
