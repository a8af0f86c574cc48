//! The privacy spent by noisy steps.

use super::rdp::divergence;
use crate::error::{Error, Result, ensure_count};

/// Adds up the privacy spent by steps of the sampled Gaussian mechanism, with Rényi differential privacy.
///
/// A step samples each example (or client) with probability q, clips each part to the norm C, and adds Gaussian noise of standard deviation
/// σC to the sum. All steps together are (ε, δ)-differentially private: adding or removing one example changes the probability of any
/// outcome by at most a factor of exp(ε), except with probability δ.
///
/// # Update rule
/// ```text
/// rdp(α) ← rdp(α) + steps·D(α, q, σ)                            D = ln(E[r^α])/(α − 1), r the likelihood ratio of one step
/// ε = min over α of rdp(α) − (ln δ + ln α)/(α − 1) + ln((α − 1)/α)
/// ```
/// ε is at least 0, and 0 without steps. q = 0 costs nothing; q = 1 is the plain Gaussian mechanism, D = α/2σ².
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`orders`](Self::orders) α | 1.1, 1.2, … 10.9, 12, 13, … 63 | 1 < α ≤ 10 000 | orders at which the divergence is computed |
///
/// # State
/// One [`Spending`] per different (q, σ): [`spendings`](Self::spendings). After a restart, pass them to [`steps`](Self::steps) of a new
/// accountant.
///
/// # Conventions
/// The orders and the conversion are those of Opacus' `RDPAccountant`. Neighboring data sets differ by one added or removed example.
/// Examples must be sampled **independently** ([`GaussianMechanism::sample`](super::GaussianMechanism::sample)). For shuffled batches of
/// a fixed size, ε is not a guarantee.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) if q is outside 0 … 1, σ is not a finite number above 0, δ is not between 0 and 1, or an order is out of range.
///
/// # Example
/// ```
/// use gradus::federated::privacy::{Accountant, noise_for};
///
/// let mut accountant = Accountant::new();
/// accountant.steps(0.04, 1.5, 2250)?;
/// let spent = accountant.epsilon(1e-5)?;
/// assert!((spent.epsilon - 7.32911).abs() < 1e-5 && spent.order == 3.9);
///
/// let noise = noise_for(8.0, 1e-5, 0.04, 2000)?; // the σ to train with
/// assert!((noise - 1.3562).abs() < 1e-4);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// I. Mironov, K. Talwar and L. Zhang, *Rényi differential privacy of the sampled Gaussian mechanism* (2019), [arXiv:1908.10530](https://arxiv.org/abs/1908.10530),
/// sec. 3.3. B. Balle, G. Barthe, M. Gaboardi, J. Hsu and T. Sato, *Hypothesis testing interpretations and Rényi differential
/// privacy* (2020), [arXiv:1905.09982](https://arxiv.org/abs/1905.09982), theorem 21. C. L. Canonne, G. Kamath and T. Steinke, *The discrete Gaussian for differential
/// privacy* (2020), [arXiv:2004.00010](https://arxiv.org/abs/2004.00010), proposition 12.
#[doc(alias = "RDPAccountant")]
#[derive(Debug, Clone, PartialEq)]
pub struct Accountant {
    orders: Vec<f64>,
    spendings: Vec<Spending>,
}

/// A number of steps of one mechanism.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spending {
    /// The sampling probability q.
    pub rate: f64,
    /// The standard deviation σ of the noise, in units of the clipping norm.
    pub noise_multiplier: f64,
    /// The number of steps.
    pub steps: u64,
}

/// The privacy spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// The ε of (ε, δ)-differential privacy.
    pub epsilon: f64,
    /// The order that gives this ε.
    pub order: f64,
    /// Whether this is the smallest or largest of the orders. Orders beyond it might give a smaller ε.
    pub at_end: bool,
}

impl Default for Accountant {
    fn default() -> Self {
        let tenths = (1..100).map(|tenth| 1.0 + f64::from(tenth) / 10.0);
        Self { orders: tenths.chain((12..64).map(f64::from)).collect(), spendings: Vec::new() }
    }
}

impl Accountant {
    /// Creates an accountant with nothing spent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an accountant with these orders instead of Opacus' orders.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range) if there are no orders, or if an order is outside 1 < α ≤ 10 000.
    pub fn orders(mut self, orders: impl IntoIterator<Item = f64>) -> Result<Self> {
        /// The closed form has as many terms as the order is large.
        const LARGEST: f64 = 1e4;
        self.orders = orders.into_iter().collect();
        self.orders.sort_by(f64::total_cmp);
        let bad = |order: &&f64| !(**order > 1.0 && **order <= LARGEST);
        match self.orders.iter().find(bad) {
            Some(&order) => Err(Error::argument("order", order, "above 1 and at most 10000")),
            None => ensure_count("number of orders", self.orders.len() as u64).map(|()| self),
        }
    }

    /// Adds one step with sampling probability `rate` and noise of `noise_multiplier` times the clipping norm.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range).
    pub fn step(&mut self, rate: f64, noise_multiplier: f64) -> Result<()> {
        self.steps(rate, noise_multiplier, 1)
    }

    /// Adds several such steps.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range), also if the counter would overflow.
    pub fn steps(&mut self, rate: f64, noise_multiplier: f64, steps: u64) -> Result<()> {
        let all = self.after(rate, noise_multiplier, steps)?;
        let same = |known: &&mut Spending| known.rate == rate && known.noise_multiplier == noise_multiplier;
        match self.spendings.iter_mut().find(same) {
            Some(known) => known.steps = all,
            None if steps == 0 => {}
            None => self.spendings.push(Spending { rate, noise_multiplier, steps }),
        }
        Ok(())
    }

    /// How many steps of a mechanism there would be after so many more.
    pub(super) fn after(&self, rate: f64, noise_multiplier: f64, steps: u64) -> Result<u64> {
        check_mechanism(rate, noise_multiplier)?;
        let same = |known: &&Spending| known.rate == rate && known.noise_multiplier == noise_multiplier;
        let known = self.spendings.iter().find(same).map_or(0, |known| known.steps);
        known.checked_add(steps).ok_or_else(|| {
            let accepted = format!("at most {}, for {known} are counted already", u64::MAX - known);
            Error::argument("steps", steps as f64, accepted)
        })
    }

    /// One with these orders for which nothing was spent.
    pub(super) fn anew(&self) -> Self {
        Self { orders: self.orders.clone(), spendings: Vec::new() }
    }

    /// Makes every spending at least as large as it is there.
    pub(super) fn raise(&mut self, other: &Self) {
        for &there in &other.spendings {
            let same = |own: &&mut Spending| own.rate == there.rate && own.noise_multiplier == there.noise_multiplier;
            match self.spendings.iter_mut().find(same) {
                Some(own) => own.steps = own.steps.max(there.steps),
                None => self.spendings.push(there),
            }
        }
    }

    /// The steps taken, one entry per different mechanism, in the order of their first steps.
    pub fn spendings(&self) -> &[Spending] {
        &self.spendings
    }

    /// The ε spent so far at this δ.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range) unless 0 < δ < 1.
    pub fn epsilon(&self, delta: f64) -> Result<Spent> {
        check_delta(delta)?;
        Ok(self.convert(&self.divergences(), delta))
    }

    /// The smallest noise multiplier that keeps the total, after `steps` more steps at this rate, below `epsilon`.
    ///
    /// It is computed by bisection between 1e-9 and 1e9, and is at most one millionth larger than the smallest one.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range) if an argument is out of range or if no noise is enough, because ε is already spent or below the smallest value of
    /// the conversion.
    pub fn noise_for(&self, epsilon: f64, delta: f64, rate: f64, steps: u64) -> Result<f64> {
        const TOLERANCE: f64 = 1e-6;
        const MOST: f64 = 1e9;
        const LEAST: f64 = 1e-9;
        check_delta(delta)?;
        check_mechanism(rate, 1.0)?;
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(Error::argument("epsilon", epsilon, "a finite number above 0"));
        }
        let before = self.divergences();
        let with = |noise: f64| {
            let own = self.orders.iter().map(|&order| steps as f64 * divergence(rate, noise, order));
            let all: Vec<f64> = before.iter().zip(own).map(|(before, own)| before + own).collect();
            self.convert(&all, delta).epsilon
        };
        let least = with(MOST);
        if least > epsilon {
            let accepted = format!("at least {least} for these steps and orders, however large the noise");
            return Err(Error::argument("epsilon", epsilon, accepted));
        }
        let (mut low, mut high) = (1.0_f64, 1.0_f64);
        while with(high) > epsilon && high < MOST {
            (low, high) = (high, (high * 2.0).min(MOST));
        }
        while with(low) <= epsilon && low > LEAST {
            (low, high) = (low / 2.0, low);
        }
        while high - low > TOLERANCE * low {
            let middle = f64::midpoint(low, high);
            if with(middle) > epsilon { low = middle } else { high = middle }
        }
        Ok(high)
    }

    /// The divergence at every order.
    fn divergences(&self) -> Vec<f64> {
        let of = |spent: &Spending, order| spent.steps as f64 * divergence(spent.rate, spent.noise_multiplier, order);
        self.orders.iter().map(|&order| self.spendings.iter().map(|spent| of(spent, order)).sum()).collect()
    }

    /// From divergences to ε.
    fn convert(&self, divergences: &[f64], delta: f64) -> Spent {
        let epsilon = |(&order, &divergence): (&f64, &f64)| match divergence {
            0.0 => 0.0,
            _ => {
                let converted = divergence - (delta.ln() + order.ln()) / (order - 1.0) + ((order - 1.0) / order).ln();
                converted.max(0.0)
            }
        };
        let epsilons = self.orders.iter().zip(divergences).map(epsilon).enumerate();
        let (at, epsilon) = epsilons.min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or((0, f64::INFINITY));
        let at_end = epsilon > 0.0 && (at == 0 || at + 1 == self.orders.len());
        Spent { epsilon, order: self.orders.get(at).copied().unwrap_or(f64::NAN), at_end }
    }
}

/// The smallest noise multiplier with which `steps` steps with sampling probability `rate` are (`epsilon`, `delta`)-differentially private:
/// [`Accountant::noise_for`] with nothing spent before.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range).
pub fn noise_for(epsilon: f64, delta: f64, rate: f64, steps: u64) -> Result<f64> {
    Accountant::new().noise_for(epsilon, delta, rate, steps)
}

/// Whether these are a probability and a positive number.
pub(super) fn check_mechanism(rate: f64, noise_multiplier: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&rate) {
        return Err(Error::argument("rate", rate, "a probability, 0 to 1"));
    }
    if !(noise_multiplier > 0.0 && noise_multiplier.is_finite()) {
        return Err(Error::argument("noise_multiplier", noise_multiplier, "a finite number above 0"));
    }
    Ok(())
}

fn check_delta(delta: f64) -> Result<()> {
    match delta > 0.0 && delta < 1.0 {
        true => Ok(()),
        false => Err(Error::argument("delta", delta, "above 0 and below 1")),
    }
}
