//! A convolution is a linear layer of its unfolded input.

use gradus::curvature::{rows, unfold};
use gradus::error::ArgumentError;
use gradus::{Error, LinearTap, prelude::*};
use ndarray::{Array2, Array4};

use crate::{close, number, numbers};

fn images(batch: usize, channels: usize, height: usize, width: usize) -> Array4<f64> {
    let mut at = 0;
    Array4::from_shape_simple_fn((batch, channels, height, width), || {
        at += 1;
        number(1, at)
    })
}

/// The convolution written out, (batch, out, height, width).
fn convolved(
    images: &Array4<f64>,
    kernel: &Array4<f64>,
    stride: (usize, usize),
    padding: (usize, usize),
) -> Array4<f64> {
    let (batch, channels, height, width) = images.dim();
    let (outputs, _, kernel_height, kernel_width) = kernel.dim();
    let rows = (height + 2 * padding.0 - kernel_height) / stride.0 + 1;
    let columns = (width + 2 * padding.1 - kernel_width) / stride.1 + 1;
    Array4::from_shape_fn((batch, outputs, rows, columns), |(n, o, y, x)| {
        let mut sum = 0.0;
        for c in 0..channels {
            for i in 0..kernel_height {
                for j in 0..kernel_width {
                    let (y, x) = ((y * stride.0 + i) as isize, (x * stride.1 + j) as isize);
                    let (y, x) = (y - padding.0 as isize, x - padding.1 as isize);
                    if y >= 0 && x >= 0 && y < height as isize && x < width as isize {
                        sum += kernel[[o, c, i, j]] * images[[n, c, y as usize, x as usize]];
                    }
                }
            }
        }
        sum
    })
}

#[test]
fn unfolded_inputs_times_the_kernel_are_the_convolution() {
    let cases =
        [((3, 2), (1, 1), (0, 0)), ((3, 3), (2, 1), (1, 1)), ((1, 1), (1, 1), (0, 0)), ((2, 4), (3, 2), (2, 3))];
    for (kernel, stride, padding) in cases {
        let images = images(2, 3, 5, 6);
        let weights = numbers(4, 3 * kernel.0 * kernel.1, 2);
        let expected = convolved(
            &images,
            &weights.clone().into_shape_with_order((4, 3, kernel.0, kernel.1)).unwrap(),
            stride,
            padding,
        );
        let found = unfold(images.view(), kernel, stride, padding).unwrap().dot(&weights.t());
        let (batch, outputs, height, width) = expected.dim();
        let expected = expected.permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
        let expected = expected.into_shape_with_order((batch * height * width, outputs)).unwrap();
        assert!(close(&found, &expected, 1e-13), "{kernel:?} {stride:?} {padding:?}");
    }
    let images = images(1, 1, 3, 3);
    for (kernel, stride, words) in [
        ((4, 1), (1, 1), "kernel has shape [4, 1] where [3, 1] is needed"),
        ((0, 1), (1, 1), "kernel has shape [0, 1] where [1, 1] is needed"),
        ((1, 1), (0, 1), "stride has shape [0, 1] where [1, 1] is needed"),
    ] {
        assert_eq!(unfold(images.view(), kernel, stride, (0, 0)).unwrap_err().to_string(), words);
    }
    for padding in [(usize::MAX, 0), (0, usize::MAX / 2), (usize::MAX / 4, usize::MAX / 4), (1 << 31, 1 << 30)] {
        let error = unfold(images.view(), (1, 1), (1, 1), padding).unwrap_err();
        assert_eq!(error, Error::Argument(ArgumentError::TooLarge { argument: "unfolded input" }));
    }
}

/// The gradient of the kernel is that of the unfolded input and the rows of the output's gradient: (x ⋆ k)·δ is linear in k.
#[test]
fn rows_belong_to_the_unfolded_input() {
    let ((kernel, stride, padding), x) = (((2, 3), (2, 1), (1, 1)), images(3, 2, 5, 4));
    let shape = convolved(&x, &Array4::zeros((4, 2, 2, 3)), stride, padding).dim();
    let mut at = 0;
    let delta = Array4::from_shape_simple_fn(shape, || {
        at += 1;
        number(7, at)
    });
    let (patches, delta_rows) = (unfold(x.view(), kernel, stride, padding).unwrap(), rows(delta.view()));
    let tap = LinearTap::new(&patches, &delta_rows).positions(shape.2 * shape.3);
    let (weight, bias) = (tap.weight_grad().unwrap(), tap.bias_grad().unwrap());
    let mut expected = Array2::zeros((4, 12));
    for ((output, column), expected) in expected.indexed_iter_mut() {
        let mut unit = Array4::zeros((4, 2, 2, 3));
        unit[[output, column / 6, column / 3 % 2, column % 3]] = 1.0;
        *expected = (convolved(&x, &unit, stride, padding) * &delta).sum() / 3.0;
    }
    assert!(close(&weight, &expected, 1e-13), "{weight} {expected}");
    for (output, bias) in bias.iter().enumerate() {
        assert!((bias - delta.index_axis(ndarray::Axis(1), output).sum() / 3.0).abs() < 1e-13);
    }
}

/// The kernel (out, in, 2, 2) moves as the matrix (out, in·4) with the same tap does.
#[test]
fn a_kernel_is_stepped_as_its_matrix() {
    let patches = unfold(images(3, 2, 4, 4).view(), (2, 2), (1, 1), (0, 0)).unwrap();
    let positions = patches.nrows() / 3;
    let (delta, grad, start) = (numbers(patches.nrows(), 5, 3), numbers(5, 8, 4), numbers(5, 8, 5));
    let tap = LinearTap::new(&patches, &delta).positions(positions);
    let step = |matrix: bool| -> Array2<f64> {
        let mut opt = Sgd::new(1.0).kfac();
        opt.observe("", tap).unwrap();
        let (mut flat, mut kernel) = (start.clone(), start.clone().into_shape_with_order((5, 2, 2, 2)).unwrap());
        match matrix {
            true => opt.step(&mut flat, &grad).unwrap(),
            false => opt.step(&mut kernel, &grad.clone().into_shape_with_order((5, 2, 2, 2)).unwrap()).unwrap(),
        };
        if matrix { flat } else { kernel.into_shape_with_order((5, 8)).unwrap() }
    };
    assert_eq!(step(true), step(false));
    assert_ne!(step(true), &start - &grad);
}
