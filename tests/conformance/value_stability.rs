//! The numbers that each row gives, pinned. They are part of the interface: a change of the last bit is a change that
//! users see in their results, and is named in the CHANGELOG.

use gradus::prelude::*;
use gradus::testing::tensors::{number, numbers};
use ndarray::ArrayD;

use super::rows::{Pinned, Row, rows};

const STEPS: u64 = 5;

/// An element that starts at 0.75, or the element (1, 3) of a matrix of 5 × 5, after five steps.
fn end<A: Scalar>(row: &Row<A>) -> A {
    let mut opt = row.with(|step: u64| 0.05 / (1 + step) as f64);
    let start = if row.is_elementwise() { ArrayD::from_elem(vec![1], A::from_f64(0.75)) } else { numbers(&[5, 5], 0) };
    let mut params = start;
    for step in 1..=STEPS {
        // Smaller and smaller, so that AMSGrad's maximum matters.
        let scale = A::from_f64(step as f64);
        let mut at = 0;
        let grads = ArrayD::from_shape_simple_fn(params.raw_dim(), || {
            at += 1;
            number::<A>(step, at - 1) / scale
        });
        opt.step(&mut params, &grads).unwrap();
    }
    params[if row.is_elementwise() { &[0][..] } else { &[1, 3] }]
}

#[test]
fn every_row_gives_the_pinned_numbers() {
    let mut wrong = Vec::new();
    for (single, double) in rows().iter().zip(&rows()) {
        let (name, found) = (double.name, end::<f64>(double));
        let in_single: f32 = end(single);
        let is_pinned = match double.pinned {
            Pinned::Bits(single, double) => (in_single, found) == (single, double),
            Pinned::Near(pinned) => (found - pinned).abs() < 1e-11,
        };
        if !is_pinned {
            wrong.push(format!("{name}: {in_single:?}, {found:?}"));
        }
        assert_eq!(double.is_elementwise(), matches!(double.pinned, Pinned::Bits(..)), "{name}");
    }
    assert!(wrong.is_empty(), "not the pinned numbers, but\n{}", wrong.join("\n"));
}
