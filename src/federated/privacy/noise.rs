//! Random numbers that nobody can foresee.

use std::fmt;

use rand::rngs::SysRng;
use rand::{RngExt, SeedableRng, TryRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;

use crate::error::{Error, FederatedError, Result};

/// ChaCha20 with a key from the operating system.
///
/// Not `Clone`: a copy would give the same numbers again, and who has both sums would know the noise.
pub(crate) struct Noise(ChaCha20Rng);

/// 32 bytes that nobody knows, from the operating system.
pub(crate) fn system_key() -> Result<[u8; 32]> {
    let mut key = [0; 32];
    let filled = SysRng.try_fill_bytes(&mut key);
    filled.map(|()| key).map_err(|error| Error::Federated(FederatedError::Entropy { reason: error.to_string() }))
}

impl Noise {
    pub(crate) fn from_system() -> Result<Self> {
        Ok(Self(ChaCha20Rng::from_seed(system_key()?)))
    }

    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// True with this probability, 0 … 1.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    /// From the standard normal distribution.
    pub(crate) fn normal(&mut self) -> f64 {
        self.0.sample(StandardNormal)
    }
}

impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Noise(…)") // the state is a secret
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    const DRAWS: usize = 1_000_000;

    /// Drawn once: a million draws take seconds without optimization.
    static NORMAL: LazyLock<Vec<f64>> = LazyLock::new(|| {
        let mut noise = Noise::seeded(20);
        (0..DRAWS).map(|_| noise.normal()).collect()
    });

    #[test]
    fn a_million_draws_are_normal() {
        let moment = |power: i32| NORMAL.iter().map(|x| x.powi(power)).sum::<f64>() / DRAWS as f64;
        // Five standard errors of each: √(Var(xᵖ)/draws), of Var 1, 2, 15 and 96.
        for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = 5.0 * (f64::sqrt(variance) / 1000.0);
            assert!((moment(power) - expected).abs() < error, "moment {power}: {}", moment(power));
        }
        let deviation = (moment(2) - moment(1).powi(2)).sqrt();
        assert!((deviation - 1.0).abs() < 0.01, "{deviation}");
    }

    #[test]
    fn a_million_draws_have_the_distribution_of_kolmogorov_and_smirnov() {
        let mut draws = NORMAL.clone();
        draws.sort_by(f64::total_cmp);
        let normal = |x: f64| libm::erfc(-x / std::f64::consts::SQRT_2) / 2.0;
        let step = 1.0 / DRAWS as f64;
        let distance = draws.iter().enumerate().map(|(at, &x)| (normal(x) - (at as f64 + 0.5) * step).abs());
        // A distance of 1.95/√n is exceeded once in a thousand.
        assert!(distance.fold(0.0, f64::max) < 1.95e-3);
    }

    #[test]
    fn neighbors_are_independent() {
        let product: f64 = NORMAL.chunks(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / (DRAWS / 2) as f64;
        // Five standard errors.
        assert!(product.abs() < 5.0 / (DRAWS as f64 / 2.0).sqrt(), "{product}");
    }

    #[test]
    fn the_system_never_gives_the_same_key() {
        let (mut one, mut other) = (Noise::from_system().unwrap(), Noise::from_system().unwrap());
        assert_ne!(one.normal(), other.normal());
        assert_ne!(system_key().unwrap(), system_key().unwrap());
        assert_eq!(format!("{one:?}"), "Noise(…)");
    }
}
