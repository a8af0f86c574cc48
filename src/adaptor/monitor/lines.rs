//! Records as lines of text.

use std::borrow::Cow;
use std::io::Write;

use super::record::Record;
use crate::step::TensorReport;

/// The first line of a CSV file.
pub(super) const HEADER: &str =
    "step,tensor,grad_norm,used_grad_norm,clipped,param_norm,update_norm,ratio,learning_rate\n";

/// One line per tensor.
pub(super) fn csv(record: &Record, out: &mut Vec<u8>) {
    for tensor in &*record.tensors {
        let TensorReport { path, grad_norm, used_grad_norm, clipped, param_norm, update_norm, learning_rate } = tensor;
        let (path, used, rate, ratio) =
            (field(path), or_empty(*used_grad_norm), or_empty(*learning_rate), tensor.ratio());
        // A vector takes all.
        _ = writeln!(
            out,
            "{},{path},{grad_norm:?},{used},{clipped},{param_norm:?},{update_norm:?},{ratio:?},{rate}",
            record.step
        );
    }
}

fn or_empty(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| format!("{number:?}"))
}

/// A field as RFC 4180 has it.
fn field(text: &str) -> Cow<'_, str> {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")).into(),
        false => text.into(),
    }
}

/// One line.
pub(super) fn json(record: &Record, out: &mut Vec<u8>) {
    let tensors = record.tensors.iter().map(|tensor| {
        let TensorReport { path, grad_norm, used_grad_norm, clipped, param_norm, update_norm, learning_rate } = tensor;
        format!(
            "{{\"tensor\":{},\"grad_norm\":{},\"used_grad_norm\":{},\"clipped\":{clipped},\"param_norm\":{},\
             \"update_norm\":{},\"ratio\":{},\"learning_rate\":{}}}",
            string(path),
            number(*grad_norm),
            number(*used_grad_norm),
            number(*param_norm),
            number(*update_norm),
            number(tensor.ratio()),
            number(*learning_rate),
        )
    });
    let tensors = tensors.collect::<Vec<_>>().join(",");
    let (step, rate, loss) = (record.step, number(record.learning_rate), number(record.loss));
    _ = writeln!(out, "{{\"step\":{step},\"learning_rate\":{rate},\"loss\":{loss},\"tensors\":[{tensors}]}}");
}

/// A number, or `null` if JSON has none for it.
fn number(number: impl Into<Option<f64>>) -> String {
    match number.into() {
        Some(number) if number.is_finite() => format!("{number:?}"),
        _ => "null".into(),
    }
}

fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\0'..' ' => quoted += &format!("\\u{:04x}", u32::from(letter)),
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}
