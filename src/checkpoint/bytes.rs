//! One tensor of a safetensors file.

use std::borrow::Cow;

use safetensors::{Dtype, View};

use crate::state::StateTensor;
use crate::state::data::Data;

/// A tensor as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bytes {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// As the format writes it, and as it is called in Rust, whatever the crate that reads it calls it.
pub(super) fn names_of(dtype: Dtype) -> (&'static str, &'static str) {
    match dtype {
        Dtype::F32 => ("F32", "f32"),
        Dtype::F64 => ("F64", "f64"),
        Dtype::BF16 => ("BF16", "bf16"),
        Dtype::F16 => ("F16", "f16"),
        Dtype::U8 => ("U8", "u8"),
        Dtype::U16 => ("U16", "u16"),
        Dtype::U32 => ("U32", "u32"),
        Dtype::U64 => ("U64", "u64"),
        Dtype::I8 => ("I8", "i8"),
        Dtype::I16 => ("I16", "i16"),
        Dtype::I32 => ("I32", "i32"),
        Dtype::I64 => ("I64", "i64"),
        Dtype::BOOL => ("BOOL", "bool"),
        _ => ("another type", "another type"),
    }
}

impl Bytes {
    pub(super) fn of(tensor: &StateTensor) -> Self {
        macro_rules! little_endian {
            ($values:expr, $number:ty) => {{
                let mut bytes = vec![0; size_of_val(&$values[..])];
                let chunks = bytes.chunks_exact_mut(size_of::<$number>());
                chunks.zip($values).for_each(|(bytes, value)| bytes.copy_from_slice(&value.to_le_bytes()));
                bytes
            }};
        }
        let (dtype, bytes) = match &tensor.data {
            Data::F32(values) => (Dtype::F32, little_endian!(values, f32)),
            Data::F64(values) => (Dtype::F64, little_endian!(values, f64)),
            Data::Bf16(bits) => (Dtype::BF16, little_endian!(bits, u16)),
            Data::F16(bits) => (Dtype::F16, little_endian!(bits, u16)),
            Data::U8(values) => (Dtype::U8, values.clone()),
            Data::U64(values) => (Dtype::U64, little_endian!(values, u64)),
        };
        Self { dtype, shape: tensor.shape.to_vec(), bytes }
    }

    /// The type's name in Rust.
    pub(super) fn dtype(&self) -> &'static str {
        names_of(self.dtype).1
    }

    /// Whether parameters may have this type.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F64 | Dtype::BF16 | Dtype::F16)
    }

    /// The numbers, if they have a type that states have.
    pub(super) fn to_tensor(&self) -> Option<StateTensor> {
        macro_rules! numbers {
            ($number:ty) => {
                self.bytes.as_chunks().0.iter().map(|bytes| <$number>::from_le_bytes(*bytes)).collect()
            };
        }
        let data = match self.dtype {
            Dtype::F32 => Data::F32(numbers!(f32)),
            Dtype::F64 => Data::F64(numbers!(f64)),
            Dtype::BF16 => Data::Bf16(numbers!(u16)),
            Dtype::F16 => Data::F16(numbers!(u16)),
            Dtype::U8 => Data::U8(self.bytes.clone()),
            Dtype::U64 => Data::U64(numbers!(u64)),
            _ => return None,
        };
        Some(StateTensor { shape: self.shape.as_slice().into(), data })
    }

    /// The only number of a tensor of integers.
    pub(super) fn integer(&self) -> Option<i128> {
        macro_rules! number {
            ($number:ty) => {
                <$number>::from_le_bytes(self.bytes.as_slice().try_into().ok()?).into()
            };
        }
        Some(match self.dtype {
            Dtype::U8 => number!(u8),
            Dtype::U16 => number!(u16),
            Dtype::U32 => number!(u32),
            Dtype::U64 => number!(u64),
            Dtype::I8 => number!(i8),
            Dtype::I16 => number!(i16),
            Dtype::I32 => number!(i32),
            Dtype::I64 => number!(i64),
            _ => return None,
        })
    }
}
