//! The element types: `f32` and `f64`, and with the feature `half` the 16-bit floats.

use super::Element;

/// An element type that rules compute in: `f32` or `f64`. The trait is sealed.
///
/// Rules may rely on IEEE 754 arithmetic: results do not depend on the number of threads, the SIMD width or the memory layout. For 16-bit
/// parameters, use `OptimizerExt::master_weights`, `stochastic_rounding` or `kahan`.
#[diagnostic::on_unimplemented(
    message = "rules do not compute in `{Self}`",
    note = "rules compute in `f32` and `f64`; 16-bit parameters are stepped by `….master_weights()`, `….stochastic_rounding(seed)` or `….kahan()`, feature `half`"
)]
pub trait Scalar: Element + sealed::Computed {}

impl Scalar for f32 {}
impl Scalar for f64 {}

#[allow(unnameable_types, reason = "sealed")]
mod sealed {
    use crate::kernel::cube_root::CubeRoot;

    /// What rules and optional features ask of numbers that are computed with.
    #[cfg(feature = "second-order")]
    pub trait Computed: CubeRoot + crate::kernel::product::Real {}
    #[cfg(not(feature = "second-order"))]
    pub trait Computed: CubeRoot {}
    impl Computed for f32 {}
    impl Computed for f64 {}
}

impl Element for f32 {
    const DTYPE: &'static str = "f32";

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for f64 {
    const DTYPE: &'static str = "f64";

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn as_f64(self) -> f64 {
        self
    }
}

/// Whether a number is finite in this type, and 0 only if it is 0.
pub(crate) fn is_kept<A: Element>(value: f64) -> bool {
    let rounded = A::from_f64(value);
    rounded.is_finite() && (rounded == A::zero()) == (value == 0.0)
}

#[cfg(feature = "half")]
macro_rules! half {
    ($($float:ident)*) => {
        $(
            impl Element for half::$float {
                const DTYPE: &'static str = stringify!($float);

                #[inline(always)]
                fn from_f64(value: f64) -> Self {
                    Self::from_f64(value)
                }

                #[inline(always)]
                fn as_f64(self) -> f64 {
                    self.to_f64()
                }
            }
        )*
    };
}

#[cfg(feature = "half")]
half!(bf16 f16);
