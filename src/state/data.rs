//! The numbers of one tensor, whatever their type.

use ndarray::{ArrayView, ArrayViewD, IxDyn, ShapeBuilder};

use crate::params::Order;

/// Numbers of one type.
#[derive(Debug, Clone)]
#[allow(unnameable_types, reason = "the types of a sealed trait")]
pub enum Data {
    /// `f32`.
    F32(Vec<f32>),
    /// `f64`.
    F64(Vec<f64>),
    /// The bits of `bf16`.
    Bf16(Vec<u16>),
    /// The bits of `f16`.
    F16(Vec<u16>),
    /// Codes of 8 bits, or two of 4 bits.
    U8(Vec<u8>),
    /// Counts.
    U64(Vec<u64>),
}

/// The same expression for the vector inside, whatever its type.
macro_rules! each {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            Data::F32($values) => $body,
            Data::F64($values) => $body,
            Data::Bf16($values) | Data::F16($values) => $body,
            Data::U8($values) => $body,
            Data::U64($values) => $body,
        }
    };
}

impl Data {
    /// The type's name as it stands in Rust.
    pub(crate) fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bf16(_) => "bf16",
            Self::F16(_) => "f16",
            Self::U8(_) => "u8",
            Self::U64(_) => "u64",
        }
    }

    pub(crate) fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    pub(crate) fn bytes(&self) -> usize {
        each!(self, values => size_of_val(&values[..]))
    }

    /// The numbers without rounding, if they have a floating-point type.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn to_f64(&self) -> Option<Vec<f64>> {
        match self {
            Self::F32(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
            Self::F64(values) => Some(values.clone()),
            Self::Bf16(bits) => Some(bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16).into()).collect()),
            Self::F16(bits) => Some(bits.iter().map(|bits| of_f16(*bits)).collect()),
            Self::U8(_) | Self::U64(_) => None,
        }
    }

    /// The first number that is NaN or an infinity.
    pub(crate) fn first_non_finite(&self) -> Option<f64> {
        /// Of numbers in 16 bits these say that they are none, or infinite: the exponent's.
        const EXPONENTS: [u16; 2] = [0x7f80, 0x7c00];
        let bits = |values: &[u16], exponent: u16| {
            let bits = values.iter().find(|bits| **bits & exponent == exponent)?;
            let is_infinite = bits & !(exponent | 0x8000) == 0;
            let size = if is_infinite { f64::INFINITY } else { f64::NAN };
            Some(if bits & 0x8000 == 0 { size } else { -size })
        };
        match self {
            Self::F32(values) => values.iter().find(|value| !value.is_finite()).map(|value| f64::from(*value)),
            Self::F64(values) => values.iter().find(|value| !value.is_finite()).copied(),
            Self::Bf16(values) => bits(values, EXPONENTS[0]),
            Self::F16(values) => bits(values, EXPONENTS[1]),
            Self::U8(_) | Self::U64(_) => None,
        }
    }

    /// Some of the numbers, as far as there are so many.
    #[cfg(feature = "distributed")]
    pub(crate) fn range(&self, range: std::ops::Range<usize>) -> Self {
        macro_rules! range {
            ($($kind:ident)*) => {
                match self {
                    $(Self::$kind(values) => Self::$kind(values.get(range).unwrap_or_default().to_vec()),)*
                }
            };
        }
        range!(F32 F64 Bf16 F16 U8 U64)
    }

    /// Puts others of the same type behind these.
    #[cfg(feature = "distributed")]
    pub(crate) fn append(&mut self, other: &Self) {
        match (self, other) {
            (Self::F32(own), Self::F32(other)) => own.extend_from_slice(other),
            (Self::F64(own), Self::F64(other)) => own.extend_from_slice(other),
            (Self::Bf16(own), Self::Bf16(other)) | (Self::F16(own), Self::F16(other)) => own.extend_from_slice(other),
            (Self::U8(own), Self::U8(other)) => own.extend_from_slice(other),
            (Self::U64(own), Self::U64(other)) => own.extend_from_slice(other),
            _ => {}
        }
    }
}

/// The value of an `f16`, without the crate `half`.
#[cfg(feature = "checkpoint")]
fn of_f16(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2.0_f64.powi(-24),
        0x1f if mantissa == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1024.0 + mantissa) * 2.0_f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { size } else { -size }
}

/// Bit for bit, so that NaN is the same as itself.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            (Self::F64(a), Self::F64(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            (Self::Bf16(a), Self::Bf16(b)) | (Self::F16(a), Self::F16(b)) => a == b,
            (Self::U8(a), Self::U8(b)) => a == b,
            (Self::U64(a), Self::U64(b)) => a == b,
            _ => false,
        }
    }
}

/// Types that [`Data`] holds.
#[allow(unnameable_types, reason = "the types of a sealed trait")]
pub trait Stored: Copy + 'static {
    /// As data.
    fn pack(values: Vec<Self>) -> Data;

    /// The values, if the data have this type.
    fn unpack(data: &Data) -> Option<Vec<Self>>;
}

macro_rules! stored {
    ($($number:ty, $kind:ident, $to:expr, $from:expr;)*) => {
        $(
            impl Stored for $number {
                fn pack(values: Vec<Self>) -> Data {
                    Data::$kind(values.into_iter().map($to).collect())
                }

                fn unpack(data: &Data) -> Option<Vec<Self>> {
                    match data {
                        Data::$kind(values) => Some(values.iter().copied().map($from).collect()),
                        _ => None,
                    }
                }
            }
        )*
    };
}

stored! {
    f32, F32, |value| value, |value| value;
    f64, F64, |value| value, |value| value;
    u8, U8, |value| value, |value| value;
    u64, U64, |value| value, |value| value;
}

#[cfg(feature = "half")]
stored! {
    half::bf16, Bf16, half::bf16::to_bits, half::bf16::from_bits;
    half::f16, F16, half::f16::to_bits, half::f16::from_bits;
}

/// Row-major, from elements in any order of memory.
pub(crate) fn row_major<T: Copy>(values: &[T], order: Order, shape: &[usize]) -> Vec<T> {
    match (order, ArrayView::from_shape(IxDyn(shape).set_f(true), values)) {
        (Order::F, Ok(view)) => view.iter().copied().collect(),
        _ => values.to_vec(),
    }
}

/// Back to the order of memory, from row-major.
pub(crate) fn in_order<'d, T: Copy>(values: &'d [T], order: Order, shape: &[usize]) -> impl Iterator<Item = T> + 'd {
    let view: ArrayViewD<'d, T> = match (order, ArrayView::from_shape(IxDyn(shape), values)) {
        (Order::F, Ok(view)) => view.reversed_axes(),
        _ => ArrayView::from(values).into_dyn(),
    };
    view.into_iter().copied()
}
