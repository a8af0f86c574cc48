//! Optimizers that get the Hessian's diagonal, from `curvature.json`.

use gradus::prelude::*;
use gradus::rule::Curved;
use ndarray::Array1;
use serde_json::Value;

use super::{F32_EPSILON, Tolerance, beside, grad, param, unit};

/// The same formulas; PyTorch averages by `lerp`.
const F64: Tolerance = Tolerance { absolute: 1e-14, relative: 1e-12 };

/// The same in f32. A quotient of averages amplifies the last bit of its divisor, where the average diagonal is near 0.
const F32: Tolerance = Tolerance { absolute: 32.0 * F32_EPSILON, relative: 32.0 * F32_EPSILON };

fn run<A: Scalar, R: Curved<A>>(mut opt: Elementwise<R, A>, case: &Value, golden: &Value) -> Vec<Vec<f64>> {
    let size = golden["size"].as_u64().unwrap() as usize;
    let steps = beside::recorded_steps(golden);
    let array = |element: &dyn Fn(usize) -> f64| Array1::from_shape_fn(size, |i| A::from_f64(element(i)));
    let (mut params, mut values) = (array(&param), Vec::new());
    for step in 0..steps[steps.len() - 1] {
        let is_due = step.is_multiple_of(golden["every"].as_u64().unwrap());
        let diagonal = array(&|i| 0.5 + unit((step + 1) * 1_000_003 * 7 + i as u64 + (1 << 42)));
        let after = case["after"].as_bool().unwrap();
        if is_due && !after {
            opt.curvature(&diagonal).unwrap();
        }
        opt.step(&mut params, &array(&|i| grad(step, i))).unwrap();
        if is_due && after {
            opt.curvature(&diagonal).unwrap();
        }
        if steps.contains(&opt.steps()) {
            values.push(params.iter().map(|x| x.as_f64()).collect());
        }
    }
    values
}

/// The parameters after the recorded steps; panics at an option that the optimizer does not have.
fn trajectory<A: Scalar>(case: &Value, golden: &Value) -> Vec<Vec<f64>> {
    macro_rules! with {
        ($kind:ident: $($number:ident)*; $($switch:ident)*) => {{
            let mut opt = $kind::<A>::new(case["learning_rate"].as_f64().unwrap());
            for (name, value) in case["options"].as_object().unwrap() {
                opt = match name.as_str() {
                    $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                    $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                    name => panic!("{} has no {name}", case["name"]),
                };
            }
            run(opt, case, golden)
        }};
    }
    match case["name"].as_str().unwrap() {
        "sophia" => with!(Sophia: beta1 beta2 gamma threshold eps weight_decay; bias_correction),
        "adahessian" => with!(AdaHessian: beta1 beta2 eps weight_decay;),
        name => panic!("nothing is called {name}"),
    }
}

#[test]
fn optimizers_with_a_diagonal_agree() {
    let golden = beside::golden("curvature");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let narrow = case["dtype"] == "f32";
        let found = if narrow { trajectory::<f32>(case, &golden) } else { trajectory::<f64>(case, &golden) };
        let tolerance = if narrow { F32 } else { F64 };
        let worst = beside::worst_of_tolerance(&found, case, tolerance);
        assert!(worst <= 1.0, "{} {} of {}: {worst} of the tolerance", case["name"], case["options"], case["library"]);
    }
}
