//! Records as TensorBoard's event files: TFRecords of `tensorflow.Event` messages in protobuf's wire format.
//!
//! ```text
//! TFRecord   length: u64, crc(length): u32, bytes, crc(bytes): u32        all little-endian
//! crc(x)     rotate_right(crc32c(x), 15) + 0xa282ead8
//! Event      1: wall_time double, 2: step int64, 3: file_version string, 5: summary Summary
//! Summary    1: repeated Value
//! Value      1: tag string, 2: simple_value float
//! ```

use super::record::Record;

/// The wire types of protobuf: those of a varint, of 8 bytes, of a length with bytes, and of 4 bytes.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const WITH_LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The first record of a file.
pub(super) fn version(time: f64, out: &mut Vec<u8>) {
    let mut event = Vec::new();
    key(1, EIGHT_BYTES, &mut event);
    event.extend(time.to_le_bytes());
    bytes(3, b"brain.Event:2", &mut event);
    framed(&event, out);
}

/// A record with the scalars of a step.
pub(super) fn record(record: &Record, time: f64, out: &mut Vec<u8>) {
    let mut summary = Vec::new();
    let mut scalar = |tag: &str, number: f64| {
        let mut value = Vec::new();
        bytes(1, tag.as_bytes(), &mut value);
        key(2, FOUR_BYTES, &mut value);
        value.extend((number as f32).to_le_bytes());
        bytes(1, &value, &mut summary);
    };
    scalar("learning_rate", record.learning_rate);
    record.loss.into_iter().for_each(|loss| scalar("loss", loss));
    for tensor in &*record.tensors {
        let path = if tensor.path.is_empty() { "(root)" } else { &tensor.path };
        let numbers = [
            ("grad_norm", Some(tensor.grad_norm)),
            ("used_grad_norm", tensor.used_grad_norm),
            ("param_norm", Some(tensor.param_norm)),
            ("update_norm", Some(tensor.update_norm)),
            ("update_ratio", Some(tensor.ratio())),
            ("tensor_learning_rate", tensor.learning_rate),
        ];
        for (name, number) in numbers {
            number.into_iter().for_each(|number| scalar(&format!("{name}/{path}"), number));
        }
    }
    let mut event = Vec::new();
    key(1, EIGHT_BYTES, &mut event);
    event.extend(time.to_le_bytes());
    key(2, VARINT, &mut event);
    varint(record.step, &mut event);
    bytes(5, &summary, &mut event);
    framed(&event, out);
}

fn key(field: u64, wire: u64, out: &mut Vec<u8>) {
    varint(field << 3 | wire, out);
}

fn bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    key(field, WITH_LENGTH, out);
    varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn framed(bytes: &[u8], out: &mut Vec<u8>) {
    let length = (bytes.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(bytes);
    out.extend(masked_crc(bytes).to_le_bytes());
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC, bit by bit: event files are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let next = |crc: u32| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| next(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the catalog of parametrised CRC algorithms.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
