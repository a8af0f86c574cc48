//! The polynomials of the Newton–Schulz iteration.

use crate::error::{ArgumentError, Error, Result};
use crate::params::Scalar;

/// The polynomials aX + (bXXᵀ + c(XXᵀ)²)X of the Newton–Schulz iteration, one triple (a, b, c) each.
///
/// If there are more iterations than triples, the last one repeats; if there are fewer, the first ones are used. An array or a `Vec` of triples becomes
/// [`List`](Self::List).
///
/// ```
/// use gradus::{Muon, optimizer::MuonCoefficients};
///
/// let opt = Muon::<f32>::new(0.02).coefficients(MuonCoefficients::PolarExpress).iterations(6);
/// let opt = Muon::<f32>::new(0.02).coefficients([[3.0, -3.2, 1.2], [1.875, -1.25, 0.375]]);
/// assert!(format!("{opt:?}").contains("coefficients: List([[3.0, -3.2, 1.2], [1.875, -1.25, 0.375]])"));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MuonCoefficients {
    /// Jordan's triple for all iterations. Five turn singular values from 0.002 to 1 of the norm into 0.68 to 1.21.
    Jordan,
    /// Five triples, each for its own iteration. They turn singular values from 0.002 to 1 of the norm into 0.85 to 1.15. optax has them as `dion`, timm
    /// as `quintic`.
    Dion,
    /// Polar Express: eight triples for singular values from 0.001 to 1 of the norm. Five iterations turn them into 0.86 to 1.14, six into 0.997 to 1.002,
    /// eight into 1.
    PolarExpress,
    /// Your own triples, at least one. An iteration that grows without bound makes the parameters infinite; try it on single numbers between 0 and 1 first.
    List(Vec<[f64; 3]>),
}

impl MuonCoefficients {
    /// One triple per iteration, without end.
    pub(super) fn triples(&self) -> impl Iterator<Item = [f64; 3]> {
        let listed = match self {
            Self::Jordan => &JORDAN[..],
            Self::Dion => &DION,
            Self::PolarExpress => &POLAR_EXPRESS,
            Self::List(list) => list,
        };
        listed.iter().copied().chain(listed.last().into_iter().flat_map(|last| std::iter::repeat(*last)))
    }

    /// Returns an error unless there is a triple, and every number of the list is finite in `A`.
    pub(super) fn ensure<A: Scalar>(&self) -> Result<()> {
        let Self::List(list) = self else { return Ok(()) };
        if list.is_empty() {
            return Err(Error::Argument(ArgumentError::Empty { argument: "coefficients" }));
        }
        for (at, triple) in list.iter().enumerate() {
            if let Some((which, value)) = triple.iter().enumerate().find(|(_, value)| !A::from_f64(**value).is_finite())
            {
                let value = A::from_f64(*value).as_f64();
                return Err(Error::Argument(ArgumentError::NotFinite {
                    argument: "coefficients",
                    index: vec![at, which],
                    value,
                }));
            }
        }
        Ok(())
    }
}

impl From<Vec<[f64; 3]>> for MuonCoefficients {
    fn from(list: Vec<[f64; 3]>) -> Self {
        Self::List(list)
    }
}

impl<const N: usize> From<[[f64; 3]; N]> for MuonCoefficients {
    fn from(list: [[f64; 3]; N]) -> Self {
        Self::List(list.into())
    }
}

/// Steepest at 0, and no point of 0 … 1 that five iterations throw out.
const JORDAN: [[f64; 3]; 1] = [[3.4445, -4.7750, 2.0315]];

const DION: [[f64; 3]; 5] = [
    [4.0848, -6.8946, 2.9270],
    [3.9505, -6.3029, 2.6377],
    [3.7418, -5.5913, 2.3037],
    [2.8769, -3.1427, 1.2046],
    [2.8366, -3.0525, 1.2012],
];

/// The authors' numbers, each polynomial for an interval that is 1 % longer, so that rounding does not leave it.
const POLAR_EXPRESS: [[f64; 3]; 8] = [
    [8.237312490495555, -23.157747414558198, 16.680568411445915],
    [4.082441999064835, -2.893047735332586, 0.5252849256975648],
    [3.9263479922546582, -2.8547468034765298, 0.5318022422894988],
    [3.2982187133085143, -2.424541981026706, 0.48632008358844075],
    [2.2970369434552573, -1.63662558125903, 0.4002628455953627],
    [1.8763805351440397, -1.2347896577722228, 0.35891887501668385],
    [1.8564423485617974, -1.2132449880935525, 0.3568003487825883],
    [1.8749994008682747, -1.2499988017229169, 0.3749994008546422],
];
