//! Factors and limits that leave the element type where the clipped gradient does not: the nearest numbers all the same.

use gradus::adaptor::Transform;
use gradus::clip::{self, Adaptive, Norm, Value};
use gradus::prelude::*;
use ndarray::{Array1, array};

use super::Probe;

#[cfg(feature = "half")]
mod halves {
    use gradus::Element;
    use half::{bf16, f16};

    use super::*;

    /// What the clipped elements are in exact arithmetic, each to the nearest number of the type.
    fn nearest<A: Element>(grads: &Array1<A>, factor: f64) -> Array1<A> {
        grads.mapv(|grad| A::from_f64(grad.as_f64() * factor))
    }

    /// A million gradients whose factor rounds to 0 in f16, or to one of few digits.
    #[test]
    fn a_million_gradients_have_the_norm_asked_for() {
        for (value, each) in [(60_000.0, 0.001_000_4), (10_000.0, 0.001_000_4), (600.0, 0.001_000_4)] {
            let mut grads = Array1::from_elem(1_000_000, f16::from_f64(value));
            let expected = Array1::from_elem(1_000_000, f16::from_f64(1e-3));
            clip::global_norm(&mut grads, 1.0).unwrap();
            assert!((grads[0].to_f64() - each).abs() < 1e-7 && grads == expected, "{value}: {}", grads[0]);
        }
    }

    fn every_clip_is_to_the_nearest<A: Element>(largest: f64) {
        let grads: Array1<A> = (0..1000).map(|i| A::from_f64(largest * (f64::from(i) * 0.37).sin())).collect();
        let sum: f64 = grads.iter().map(|grad| grad.as_f64().powi(2)).sum();
        let params = Array1::from_elem(1000, A::from_f64(0.25));
        let size = (1000.0_f64 / 16.0).sqrt();
        for limit in [1.0, 1e-3, 1e-6] {
            let factor = limit / sum.sqrt();
            let clipped = |clip: &dyn Fn(&mut Array1<A>)| {
                let mut grads = grads.clone();
                clip(&mut grads);
                grads
            };
            let close = |found: &Array1<A>, factor: f64| {
                // One unit in the last place for the norm, which is a sum of a thousand squares in another order.
                let ulp = |x: A| {
                    (x.as_f64() * A::epsilon().as_f64())
                        .abs()
                        .max(A::min_positive_value().as_f64() * A::epsilon().as_f64())
                };
                found.iter().zip(&nearest(&grads, factor)).all(|(a, b)| (a.as_f64() - b.as_f64()).abs() <= ulp(*b))
            };
            let exact = clipped(&|grads| _ = Norm::global(limit).exact(true).clip(grads).unwrap());
            assert!(close(&exact, factor), "{limit}");
            assert_eq!(
                clipped(&|grads| _ = Norm::per_tensor(limit).exact(true).clip(grads).unwrap()),
                exact,
                "{limit}"
            );
            let torch = clipped(&|grads| _ = clip::global_norm(grads, limit).unwrap());
            assert!(close(&torch, limit / (sum.sqrt() + 1e-6)), "{limit}");
            let adaptive = clipped(&|grads| _ = clip::adaptive(grads, &params, limit).unwrap());
            assert!(close(&adaptive, limit * size / sum.sqrt()), "{limit}");
            let value = clipped(&|grads| _ = clip::value(grads, limit).unwrap());
            let expected = grads.mapv(|grad| A::from_f64(grad.as_f64().clamp(-limit, limit)));
            assert_eq!(value, expected, "{limit}");
        }
    }

    #[test]
    fn every_clip_in_place_is_to_the_nearest_half() {
        every_clip_is_to_the_nearest::<f16>(6e4);
        every_clip_is_to_the_nearest::<f16>(3.0);
        every_clip_is_to_the_nearest::<bf16>(1e38);
        every_clip_is_to_the_nearest::<bf16>(3.0);
    }

    /// Outside of the master weights, too: the factor is applied in f32.
    #[test]
    fn a_clip_outside_the_master_weights() {
        let grads = || Array1::from_elem(1_000_000, f16::from_f64(60_000.0));
        let step = |opt: &mut dyn Optimizer<f16>| {
            let mut params = Array1::from_elem(1_000_000, f16::ZERO);
            opt.step(&mut params, &grads()).unwrap();
            assert!((params[7].to_f64() + 1e-3).abs() < 1e-6, "{}", params[7]);
        };
        step(&mut Sgd::new(1.0).clip_global_norm(1.0).master_weights());
        step(&mut Sgd::new(1.0).master_weights().clip_global_norm(1.0));
        step(&mut Sgd::new(1.0).master_weights().clip_adaptive(1.0).eps(1.0));
        step(&mut Sgd::new(1.0).master_weights().clip_value(1e-3));
    }
}

/// The factors are 1e-40, 1e-46 and, in f64, 1e-310 and 1e-320.
#[test]
fn a_factor_below_the_normal_numbers() {
    /// The roundings of norm, factor and product.
    fn close<A: Scalar>(found: &Array1<A>, expected: f64, what: &str) {
        let relative = (found[0].as_f64() / expected - 1.0).abs();
        assert!(relative < 4.0 * A::epsilon().as_f64() && found[1] == -found[0], "{what}: {found} is not {expected:e}");
    }
    fn check<A: Scalar>(value: f64, limit: f64) {
        let grads = || array![A::from_f64(value), A::from_f64(-value)];
        let params = array![A::one(), A::one()];
        let root = std::f64::consts::SQRT_2;
        let in_place = |clip: &dyn Fn(&mut Array1<A>) -> gradus::Result<f64>, expected: f64, what: &str| {
            let mut grads = grads();
            clip(&mut grads).unwrap();
            close(&grads, expected, what);
        };
        in_place(&|grads| clip::global_norm(grads, limit), limit / root, "global");
        in_place(&|grads| clip::per_tensor_norm(grads, limit), limit / root, "per tensor");
        in_place(&|grads| Norm::global(limit).p(f64::INFINITY).exact(true).clip(grads), limit, "largest");
        in_place(&|grads| clip::adaptive(grads, &params, limit), limit, "adaptive");
        in_place(&|grads| clip::value(grads, limit), limit, "value");
        fn seen<A: Scalar>(clipper: impl Transform<A> + Clone, grads: &Array1<A>) -> Array1<A> {
            let (mut opt, mut params) = (Probe::default().transform(clipper.clone()), array![A::one(), A::one()]);
            opt.step(&mut params, grads).unwrap();
            // A sweep reads what `to_array` shows.
            Sgd::new(1.0).transform(clipper).step(&mut params, grads).unwrap();
            let seen = opt.inner().seen[0].clone();
            assert!(params.iter().zip(&seen).all(|(param, grad)| *param == A::one() - *grad), "{seen}");
            seen.into_dimensionality().unwrap()
        }
        close(&seen(Norm::global(limit), &grads()), limit / root, "global");
        close(&seen(Norm::per_tensor(limit).exact(true), &grads()), limit / root, "per tensor");
        close(&seen(Value::new(limit), &grads()), limit, "value");
        close(&seen(Adaptive::new(limit), &grads()), limit, "adaptive");
    }
    check::<f32>(1e38, 1e-2);
    check::<f32>(1e30, 1e-16);
    check::<f32>(1e38, 1e-30);
    check::<f64>(1e300, 1e-10);
    check::<f64>(1e300, 1e-20);
    check::<f64>(1e300, 1e-300);
}

/// Several factors together: each is a number of the type, their product is not.
#[test]
fn factors_that_leave_the_type_together() {
    let mut opt = Probe::<f32>::default().clip_global_norm(1e-15).exact(true).unscale(1e30).accumulate(1);
    opt.step(&mut array![0.0], &array![1e38_f32]).unwrap();
    let seen = opt.inner().inner().inner().seen[0][0];
    assert!((f64::from(seen) / 1e-15 - 1.0).abs() < 4.0 * f64::from(f32::EPSILON), "{seen:e}");
}

/// A limit that no number of the type but 0 keeps would stop the training and say that it moved.
#[test]
fn a_limit_that_rounds_to_zero_is_refused() {
    fn said<A: Scalar>(clipper: impl Transform<A>) -> String {
        let (mut opt, mut params) = (Sgd::new(1.0).transform(clipper), array![A::one()]);
        let error = opt.step(&mut params, &array![A::one()]).unwrap_err();
        assert!(params[0] == A::one() && opt.steps() == 0);
        error.to_string()
    }
    for found in [said::<f32>(Norm::global(1e-46)), said::<f32>(Norm::per_tensor(1e-46).exact(true))] {
        assert!(
            found.starts_with("max_norm is 1e-46 ") && found.ends_with("0 or at least 1.401298464324817e-45 as f32"),
            "{found}"
        );
    }
    let found = said::<f32>(Value::new(1e-46));
    assert!(
        found.starts_with("limit is 1e-46 ") && found.ends_with("0 or at least 1.401298464324817e-45 as f32"),
        "{found}"
    );
    // 0 is 0, and what is larger than any number limits nothing.
    for limit in [0.0, 1e39, f64::MAX] {
        let mut grads = array![1.0_f32, -2.0];
        clip::value(&mut grads, limit).unwrap();
        assert_eq!(grads, if limit == 0.0 { array![0.0, 0.0] } else { array![1.0, -2.0] });
        clip::global_norm(&mut grads, limit).unwrap();
        assert_eq!(grads, if limit == 0.0 { array![0.0, 0.0] } else { array![1.0, -2.0] });
    }
}
