//! Compression by rounding to bf16.

use super::Compression;
use crate::distributed::{Collective, Place};
use crate::error::Result;
use crate::params::Element;

/// Sends gradients as 16-bit floats of 8 bits' precision, for
/// [`DataParallel::compress`](crate::distributed::DataParallel::compress).
///
/// # Update rule
/// ```text
/// C(v) = v rounded to bf16, to nearest, ties to even
/// mean = (C(v₀) + C(v₁) + …)/n, summed in the order of the ranks in the element type
/// ```
/// A finite number stays finite: a number beyond the range of bf16 becomes the largest bf16. f64 is rounded to f32 first.
///
/// # State
/// Only the residuals, which are at most 1/256 of v.
///
/// # Conventions
/// PyTorch's `bf16_compress_hook` also sums in bf16 and keeps no residual.
///
/// Each rank sends 2 bytes per element by an all-gather and receives as many from every other rank. With an all-reduce, a rank receives
/// only about twice as many bytes as it sends. On more than a handful of ranks, prefer [`PowerSgd`](super::PowerSgd), which uses an
/// all-reduce.
///
/// # Example
/// ```
/// use gradus::distributed::{Alone, compress::Bf16};
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).data_parallel(Alone).compress(Bf16::new());
/// let mut w = array![0.0_f32];
/// (0..256).try_for_each(|_| opt.step(&mut w, &array![1.001]).map(drop))?; // 1.001 is 1 in bf16
/// assert!((w[0] + 256.0 * 1.001).abs() < 0.01);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// D. Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training* (2019), [arXiv:1905.12322](https://arxiv.org/abs/1905.12322).
#[derive(Debug, Clone, Default)]
pub struct Bf16 {
    codes: Vec<u8>,
    all: Vec<u8>,
}

/// Elements of a message, so that what all ranks send at once stays small.
const MESSAGE: usize = 1 << 20;

/// Bytes of an element.
const BYTES: usize = 2;

impl Bf16 {
    /// Creates the compression.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The upper half of the bits of the nearest number that has no lower half.
fn encode(value: f32) -> u16 {
    const LARGEST: u16 = 0x7f7f;
    const QUIET: u16 = 0x40;
    let bits = value.to_bits();
    let upper = (bits >> 16) as u16;
    if value.is_nan() {
        // Payloads in the lower half would be lost and leave an infinity.
        return upper | QUIET;
    }
    if value.is_infinite() {
        return upper;
    }
    // Half a unit, less the least bit where the last kept is even: so ties go to even.
    let rounded = ((bits + 0x7fff + u32::from(upper & 1)) >> 16) as u16;
    let sign = upper & 0x8000;
    sign | (rounded & 0x7fff).min(LARGEST)
}

fn decode(code: u16) -> f32 {
    f32::from_bits(u32::from(code) << 16)
}

/// An element as f32; what is finite stays so.
fn narrow<A: Element>(value: A) -> f32 {
    let narrow = value.as_f64() as f32;
    if value.is_finite() { narrow.clamp(f32::MIN, f32::MAX) } else { narrow }
}

impl<A: Element> Compression<A> for Bf16 {
    fn name(&self) -> &'static str {
        "bf16"
    }

    fn reduce(&mut self, group: &dyn Collective<A>, _: &[Place<'_>], values: &mut [A], rest: &mut [A]) -> Result<u64> {
        let size = group.size();
        for (values, rest) in values.chunks_mut(MESSAGE).zip(rest.chunks_mut(MESSAGE)) {
            let length = BYTES * values.len();
            self.codes.resize(length, 0);
            self.all.resize(length * size, 0);
            let elements = values.iter_mut().zip(&mut *rest);
            for ((value, rest), bytes) in elements.zip(self.codes.chunks_exact_mut(BYTES)) {
                let code = encode(narrow(*value));
                bytes.copy_from_slice(&code.to_le_bytes());
                *rest = *value - A::from_f64(decode(code).into());
            }
            group.all_gather_bytes(&self.codes, &mut self.all)?;
            for (rank, codes) in self.all.chunks_exact(length).enumerate() {
                for (value, bytes) in values.iter_mut().zip(codes.chunks_exact(BYTES)) {
                    let sent = A::from_f64(decode(u16::from_le_bytes([bytes[0], bytes[1]])).into());
                    *value = if rank == 0 { sent } else { *value + sent };
                }
            }
            let size = A::from_f64(size as f64);
            values.iter_mut().for_each(|value| *value /= size);
        }
        Ok((BYTES * values.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_nearest_and_ties_to_even() {
        let unit = 2.0_f32.powi(-7);
        let rounded = |value: f32| decode(encode(value));
        assert_eq!(rounded(1.0 + 0.49 * unit), 1.0);
        assert_eq!(rounded(1.0 + 0.5 * unit), 1.0);
        assert_eq!(rounded(1.0 + 0.51 * unit), 1.0 + unit);
        assert_eq!(rounded(1.0 + 1.5 * unit), 1.0 + 2.0 * unit);
        assert_eq!(rounded(-(1.0 + 1.5 * unit)), -(1.0 + 2.0 * unit));
        assert_eq!(rounded(2.0 - 0.5 * unit), 2.0);
        assert_eq!(rounded(-0.0).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(rounded(f32::from_bits(0x8000)), 0.0); // half of the smallest
        assert_eq!(rounded(f32::from_bits(0x8001)), f32::from_bits(0x1_0000));
    }

    #[test]
    fn what_is_finite_stays_so_and_nothing_else() {
        let largest = f32::from_bits(0x7f7f_0000);
        assert_eq!(decode(encode(f32::MAX)), largest);
        assert_eq!(decode(encode(f32::MIN)), -largest);
        assert_eq!(narrow(1e300), f32::MAX);
        assert_eq!(decode(encode(narrow(f64::NEG_INFINITY))), f32::NEG_INFINITY);
        assert_eq!(decode(encode(f32::INFINITY)), f32::INFINITY);
        for payload in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0x7fc0_0000] {
            assert!(decode(encode(f32::from_bits(payload))).is_nan());
        }
    }

    /// Every number of 16 bits is itself, and nothing between two neighbors is nearer to another.
    #[test]
    fn agrees_with_the_half_crate() {
        for bits in (0..=u32::MAX).step_by(65_521 / 4) {
            let value = f32::from_bits(bits);
            let expected = half::bf16::from_f32(value);
            if value.is_finite() && expected.is_finite() {
                assert_eq!(encode(value), expected.to_bits(), "{value}");
            }
        }
    }
}
