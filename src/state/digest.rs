//! A digest of 64 bits, to see whether ranks or saved states have the same data.
//!
//! FNV-1a. It is the same on every machine, with every compiler and in every version of this crate, which the hasher of the
//! standard library does not promise. It finds differences, not forgeries.

/// FNV's offset basis and prime; a byte is taken in by `h ← (h ⊕ byte) · PRIME`.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// A digest in the making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(BASIS)
    }

    /// Takes in bytes, by FNV-1a.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(PRIME));
    }

    /// Takes in eight bytes at once, so that tensors cost no more than reading them: FNV-1a's step on the whole number, after which
    /// the upper half is brought into the lower. Two numbers never have the same digest.
    #[cfg(any(feature = "distributed", test))]
    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(PRIME);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// Takes in a text and its length, so that "ab", "c" and "a", "bc" differ.
    #[cfg(feature = "federated")]
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut digest = Digest::new();
        digest.bytes(bytes);
        digest.finish()
    }

    /// Test vectors of the reference implementation (Fowler, Noll, Vo).
    #[test]
    fn bytes_are_those_of_fnv() {
        assert_eq!(of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(of(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// Numbers in saved states: they may not change.
    #[test]
    fn numbers_stay_what_they_are() {
        let of = |numbers: &[u64]| {
            let mut digest = Digest::new();
            numbers.iter().for_each(|number| digest.number(*number));
            digest.finish()
        };
        // By hand, in Python: h = (h ^ n) * PRIME % 2**64; h ^= h >> 32.
        assert_eq!(of(&[0]), 0xaf63_bd4c_2962_0a93);
        assert_eq!(of(&[1, 2]), 0x6883_576a_3914_f3ec);
        assert_eq!(of(&[1.5_f64.to_bits()]), 0xd02b_bd4c_562a_0a93);
        // What a plain product of words would miss: two signs that change together.
        let signs = |sign: f64| of(&[(sign * 1.0).to_bits(), (sign * 2.0).to_bits()]);
        assert_ne!(signs(1.0), signs(-1.0));
        assert_ne!(of(&[0, 1]), of(&[1, 0]));
    }
}
