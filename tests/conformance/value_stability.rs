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
    let mut other = Vec::new();
    for (single, double) in rows().iter().zip(&rows()) {
        let (name, found) = (double.name, end::<f64>(double));
        match double.pinned {
            Pinned::Bits(in_single, in_double) => {
                let in_both = (end::<f32>(single), found);
                if in_both != (in_single, in_double) {
                    other.push(format!("{name}: Pinned::Bits{in_both:?}"));
                }
            }
            Pinned::Near(pinned) if (found - pinned).abs() < 1e-11 => {}
            Pinned::Near(_) => other.push(format!("{name}: Pinned::Near({found:?})")),
        }
        let has_products = !double.is_elementwise() && !double.is_factored() && !double.is_parameter_free();
        assert_eq!(has_products, matches!(double.pinned, Pinned::Near(_)), "{name}");
    }
    assert!(other.is_empty(), "not the pinned numbers, but\n{}", other.join("\n"));
}
