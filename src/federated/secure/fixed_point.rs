//! Numbers as integers.

use crate::error::{Error, Result};

/// The conversion of numbers to integers: multiply by a power of two and round to nearest, ties to even.
///
/// Integers are in Z_2³², from −2³¹ to 2³¹ − 1. Each of n clients may send at most (2³¹ − 1)/n, so the sum cannot overflow.
///
/// ```
/// use gradus::federated::secure::FixedPoint;
///
/// let fixed = FixedPoint::new(16, 10)?;
/// assert_eq!(fixed.encode(-1.5), Some(-98304)); // × 65536
/// assert!(fixed.largest() > 3276.7 && fixed.encode(3277.0).is_none());
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedPoint {
    fraction_bits: u32,
    clients: usize,
}

impl FixedPoint {
    /// Creates the conversion for numbers with `fraction_bits` fractional bits and sums of `clients` clients.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range) if there are more than 30 bits, or not 1 to 2³¹ − 1 clients.
    pub fn new(fraction_bits: u32, clients: usize) -> Result<Self> {
        if fraction_bits > 30 {
            return Err(Error::argument("fraction_bits", f64::from(fraction_bits), "at most 30"));
        }
        if !(1..=i32::MAX as usize).contains(&clients) {
            return Err(Error::argument("clients", clients as f64, "1 to 2147483647"));
        }
        Ok(Self { fraction_bits, clients })
    }

    /// The number of clients.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// The largest absolute value that one client can send.
    pub fn largest(&self) -> f64 {
        f64::from(self.most()) / self.scale()
    }

    /// The integer nearest to a number; `None` if it is out of range or not a number.
    pub fn encode(&self, value: f64) -> Option<i32> {
        let scaled = (value * self.scale()).round_ties_even();
        (scaled.abs() <= f64::from(self.most())).then_some(scaled as i32)
    }

    /// The number that an integer stands for, exactly.
    pub fn decode(&self, integer: i32) -> f64 {
        f64::from(integer) / self.scale()
    }

    fn scale(&self) -> f64 {
        f64::from(1_u32 << self.fraction_bits)
    }

    fn most(&self) -> i32 {
        i32::MAX / i32::try_from(self.clients).unwrap_or(i32::MAX)
    }
}
