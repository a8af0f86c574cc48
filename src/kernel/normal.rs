//! Draws from the standard normal distribution from a counter: the same bits on every machine.

use super::split_mix::{GAMMA, finish, mixed};

/// The draws of the elements of one tensor in one step: a function of seed, step, path and element alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normal(u64);

impl Normal {
    pub(crate) fn new(seed: u64, step: u64, path: &str) -> Self {
        let key = mixed(mixed(seed).wrapping_add(step));
        // Each byte and its place: so "ab" and "ba", and a path that is longer by a zero, differ.
        Self(path.bytes().fold(mixed(key), |key, byte| mixed(key ^ (u64::from(byte) + 1))))
    }

    /// The draw of the element of this index.
    pub(crate) fn of(self, element: u64) -> f64 {
        let bits = finish(self.0.wrapping_add(element.wrapping_mul(GAMMA)));
        // The middle of one of 2⁵² equal parts of 0 … 1: neither 0 nor 1.
        quantile(((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64)
    }
}

/// A polynomial, whose last coefficient is the constant one.
fn polynomial(x: f64, coefficients: [f64; 8]) -> f64 {
    coefficients.into_iter().fold(0.0, |sum, own| sum * x + own)
}

/// The inverse of the standard normal distribution function, with a relative error of 1e-15: M. J. Wichura's algorithm AS 241 (1988), PPND16. It uses
/// only `+ − × ÷ √`, and so does the logarithm below.
fn quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * polynomial(r, CENTRAL.0) / polynomial(r, CENTRAL.1);
    }
    let r = (-ln(if q < 0.0 { p } else { 1.0 - p })).sqrt();
    let (x, (above, below)) = if r <= 5.0 { (r - 1.6, TAIL) } else { (r - 5.0, FAR_TAIL) };
    let value = polynomial(x, above) / polynomial(x, below);
    if q < 0.0 { -value } else { value }
}

/// The natural logarithm of a positive normal number: `f64::ln` differs between machines in the last bit.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    // Between √½ and √2, so that the series below is short.
    let (m, k) =
        if fraction > std::f64::consts::SQRT_2 { (0.5 * fraction, exponent + 1) } else { (fraction, exponent) };
    // ln m = 2·(z + z³/3 + z⁵/5 + …), |z| ≤ 0.172
    let z = (m - 1.0) / (m + 1.0);
    let square = z * z;
    let series = (0..12).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    k as f64 * std::f64::consts::LN_2 + 2.0 * z * series
}

type Ratio = ([f64; 8], [f64; 8]);

#[rustfmt::skip]
const CENTRAL: Ratio = (
    [
        2.509_080_928_730_122_7e3, 3.343_057_558_358_813e4, 6.726_577_092_700_87e4, 4.592_195_393_154_987e4,
        1.373_169_376_550_946e4, 1.971_590_950_306_551_3e3, 1.331_416_678_917_843_8e2, 3.387_132_872_796_366_6,
    ],
    [
        5.226_495_278_852_545e3, 2.872_908_573_572_194_3e4, 3.930_789_580_009_271e4, 2.121_379_430_158_659_7e4,
        5.394_196_021_424_751e3, 6.871_870_074_920_579e2, 4.231_333_070_160_091e1, 1.0,
    ],
);

#[rustfmt::skip]
const TAIL: Ratio = (
    [
        7.745_450_142_783_414e-4, 2.272_384_498_926_918_4e-2, 2.417_807_251_774_506e-1, 1.270_458_252_452_368_4,
        3.647_848_324_763_204_5, 5.769_497_221_460_691, 4.630_337_846_156_546, 1.423_437_110_749_683_5,
    ],
    [
        1.050_750_071_644_416_9e-9, 5.475_938_084_995_345e-4, 1.519_866_656_361_645_7e-2, 1.481_039_764_274_800_8e-1,
        6.897_673_349_851e-1, 1.676_384_830_183_803_8, 2.053_191_626_637_759, 1.0,
    ],
);

#[rustfmt::skip]
const FAR_TAIL: Ratio = (
    [
        2.010_334_399_292_288_1e-7, 2.711_555_568_743_487_6e-5, 1.242_660_947_388_078_4e-3, 2.653_218_952_657_612_4e-2,
        2.965_605_718_285_049e-1, 1.784_826_539_917_291_3, 5.463_784_911_164_114, 6.657_904_643_501_103,
    ],
    [
        2.044_263_103_389_939_8e-15, 1.421_511_758_316_446e-7, 1.846_318_317_510_054_8e-5, 7.868_691_311_456_133e-4,
        1.487_536_129_085_061_5e-2, 1.369_298_809_227_358e-1, 5.998_322_065_558_879e-1, 1.0,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms() {
        for x in [1e-300, 1e-16, 0.075, 0.5, 0.7, 0.9999, 1.0, 1.4, 1.5, 3.0, 1e10] {
            let expected = f64::ln(x);
            assert!((ln(x) - expected).abs() <= 4.0 * f64::EPSILON * expected.abs(), "{x}: {} {expected}", ln(x));
        }
    }

    /// `scipy.special.ndtri` of scipy 1.17.1. In the tail a rounding of p is one of the logarithm.
    #[test]
    fn quantiles() {
        let expected = [
            (1e-15, -7.941_345_326_170_998),
            (1e-12, -7.034_483_825_301_131),
            (1e-6, -4.753_424_308_822_899),
            (0.01, -2.326_347_874_040_840_8),
            (0.0749, -1.440_238_267_527_963_5),
            (0.0751, -1.438_825_392_752_540_3),
            (0.25, -0.674_489_750_196_081_7),
            (0.4, -0.253_347_103_135_799_7),
            (0.5, 0.0),
            (0.6, 0.253_347_103_135_799_7),
            (0.9, 1.281_551_565_544_600_4),
            (0.99, 2.326_347_874_040_840_8),
            (0.999_999, 4.753_424_308_817_087),
        ];
        for (p, expected) in expected {
            let found = quantile(p);
            assert!((found - expected).abs() <= 2e-15 * expected.abs(), "{p}: {found} {expected}");
        }
    }

    #[test]
    fn paths_have_draws_of_their_own() {
        let first = |path: &str| Normal::new(1, 2, path).of(3);
        let mut all = ["", "a", "b", "ab", "ba", "a.b", "\0", "\0\0"].map(first);
        all.sort_by(f64::total_cmp);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
    }
}
