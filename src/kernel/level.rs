//! Sets of SIMD instructions.

use std::fmt;

use pulp::Arch;

/// A set of SIMD instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Level {
    /// What the compiler was told to expect of the target: SSE2 on x86-64.
    Baseline,
    /// ARM's NEON, 128 bits.
    Neon,
    /// WebAssembly's `simd128`, 128 bits.
    Simd128,
    /// x86-64-v3, 256 bits: AVX2, FMA, BMI and LZCNT. Intel from Haswell (2013), AMD from Excavator (2015).
    V3,
    /// x86-64-v4, 512 bits: v3 and AVX-512 F, BW, CD, DQ and VL. Intel's servers from Skylake (2017), AMD from Zen 4 (2022).
    V4,
}

impl Level {
    /// The name, as `GRADUS_SIMD` has it: `baseline`, `neon`, `simd128`, `v3` or `v4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Neon => "neon",
            Self::Simd128 => "simd128",
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }

    /// The instructions, if the machine has them. Each is named, so that a level that `pulp` was built without does not
    /// compile, and one that another crate adds to it (wasm's relaxed SIMD, whose bits may differ) is not used.
    #[inline]
    pub(crate) fn arch(self) -> Option<Arch> {
        match self {
            Self::Baseline => Some(Arch::Scalar),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::V3 => pulp::x86::V3::try_new().map(Arch::V3),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::V4 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            #[cfg(target_arch = "wasm32")]
            Self::Simd128 => pulp::wasm::Simd128::try_new().map(Arch::Simd128),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
