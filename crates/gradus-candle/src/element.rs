//! The element types that both libraries know.

use candle_core::{CpuStorage, WithDType};
use half::{bf16, f16};

/// An element type of variables: `f32`, `f64`, `bf16`, `f16`. The trait is sealed.
///
/// 16-bit variables need [`master_weights`](gradus::OptimizerExt::master_weights).
pub trait CandleElement: gradus::Element + WithDType + sealed::Sealed {}

pub(crate) mod sealed {
    use super::CpuStorage;

    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed: Sized {
        /// The elements of a storage, if it is of this type.
        fn elements(storage: &CpuStorage) -> Option<&[Self]>;

        /// [`elements`](Self::elements) that can be written.
        fn elements_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    }
}

macro_rules! element {
    ($($element:ident $variant:ident),*) => {$(
        impl CandleElement for $element {}

        impl sealed::Sealed for $element {
            fn elements(storage: &CpuStorage) -> Option<&[Self]> {
                if let CpuStorage::$variant(elements) = storage { Some(elements) } else { None }
            }

            fn elements_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(elements) = storage { Some(elements) } else { None }
            }
        }
    )*};
}

element!(f32 F32, f64 F64, bf16 BF16, f16 F16);
