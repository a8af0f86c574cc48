//! The values of other libraries, from `tests/golden/clipping.json`.

use std::collections::BTreeSet;

use approx::relative_eq;
use gradus::clip::{self, Adaptive, Norm};
use gradus::prelude::*;
use ndarray::ArrayD;
use serde_json::Value;

type Tensors<A> = Vec<ArrayD<A>>;

/// A norm of 25 elements is summed in another order than PyTorch's, and a root and a division are rounded.
const F64_RELATIVE: f64 = 4.0 * f64::EPSILON;

/// PyTorch sums f32 gradients in f32, of which the last bits of the norm are lost; gradus sums in f64.
const F32_RELATIVE: f64 = 4.0 * f32::EPSILON as f64;

const CLIP_GRAD_NORM: &str = "clip_grad_norm_";
const PER_TENSOR: &str = "clip_grad_norm_ per tensor";
const CLIP_GRAD_VALUE: &str = "clip_grad_value_";
const CLIP_BY_GLOBAL_NORM: &str = "clip_by_global_norm";
const ADAPTIVE: &str = "adaptive, unit = index of axis 0";
const ADAPTIVE_GRAD_CLIP: &str = "adaptive_grad_clip";

/// The golden file.
struct Golden {
    shapes: Vec<Vec<usize>>,
    grads: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
    cases: Vec<Value>,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}")).iter()
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).map(|number| number.as_f64().unwrap()).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The golden file. The README has the number of its cases, so that a file that was cut short is noticed.
fn golden() -> Golden {
    let path = |name: &str| format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let read = |path: String| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let golden: Value = serde_json::from_str(&read(path("clipping.json"))).unwrap();
    assert_eq!(keys(&golden), BTreeSet::from(["cases", "generator", "grads", "params", "shapes", "versions"]));
    assert_eq!(keys(&golden["versions"]), BTreeSet::from(["jax", "optax", "torch"]));

    let cases: Vec<Value> = list(&golden["cases"]).cloned().collect();
    let row = format!("| `clipping.json` | `clipping.py` | {} |", cases.len());
    assert!(read(path("README.md")).contains(&row), "the README has no row {row}");
    let shape = |shape: &Value| list(shape).map(|length| length.as_u64().unwrap() as usize).collect();
    let shapes: Vec<Vec<usize>> = list(&golden["shapes"]).map(shape).collect();
    assert_eq!(shapes, [vec![3, 4], vec![5], vec![2, 2, 2]]);
    let tensors = |name: &str| list(&golden[name]).map(numbers).collect();
    Golden { grads: tensors("grads"), params: tensors("params"), shapes, cases }
}

impl Golden {
    /// Flat lists as tensors; with `by_column` such that the units of gradus, the indices of the first axis, are
    /// optax's, which are the places left when the first axis is summed over.
    fn tensors<A: Scalar>(&self, flat: &[Vec<f64>], scale: f64, by_column: bool) -> Tensors<A> {
        assert_eq!(flat.len(), self.shapes.len());
        let tensor = |(flat, shape): (&Vec<f64>, &Vec<usize>)| {
            let values = flat.iter().map(|value| A::from_f64(value * scale)).collect();
            let array = ArrayD::from_shape_vec(shape.clone(), values).unwrap();
            if !by_column || shape.len() == 1 {
                return array;
            }
            let columns = array.len() / shape[0];
            array.into_shape_with_order(vec![shape[0], columns]).unwrap().reversed_axes()
        };
        flat.iter().zip(&self.shapes).map(tensor).collect()
    }
}

/// The bits of every element: unlike values they tell 0 from −0. Widening to f64 is exact.
fn bits<A: Scalar>(tensors: &Tensors<A>) -> Vec<u64> {
    tensors.iter().flatten().map(|value| value.as_f64().to_bits()).collect()
}

/// A case of the golden file.
#[derive(Clone, Copy)]
struct Case<'a>(&'a Value);

impl<'a> Case<'a> {
    fn name(self) -> &'a str {
        self.0["name"].as_str().unwrap()
    }

    fn option(&self, name: &str) -> f64 {
        match &self.0["options"][name] {
            Value::String(infinite) if infinite == "inf" => f64::INFINITY,
            option => option.as_f64().unwrap_or_else(|| panic!("no {name} in {}", self.describe())),
        }
    }

    fn describe(&self) -> String {
        let Value::Object(case) = self.0 else { panic!("{} is no case", self.0) };
        format!("{} {} {} {}", case["library"], case["call"], case["options"], case["dtype"])
    }

    /// What would let a case be passed without comparing all of it.
    fn check(&self) {
        let (options, more): (&[&str], &[&str]) = match self.name() {
            CLIP_GRAD_NORM | PER_TENSOR => (&["max_norm", "norm_type"], &["norm"]),
            CLIP_GRAD_VALUE => (&["clip_value"], &[]),
            CLIP_BY_GLOBAL_NORM => (&["max_norm"], &["norm"]),
            ADAPTIVE => (&["clipping", "eps", "param_scale"], &[]),
            ADAPTIVE_GRAD_CLIP => (&["clipping", "eps", "param_scale"], &["note"]),
            name => panic!("unknown {name}"),
        };
        assert_eq!(keys(&self.0["options"]), options.iter().copied().collect(), "{}", self.describe());
        let expected = ["call", "clipped", "dtype", "library", "name", "options", "version"];
        assert_eq!(keys(self.0), expected.iter().chain(more).copied().collect(), "{}", self.describe());
        let version = self.0["version"].as_str().unwrap();
        match self.0["library"].as_str().unwrap() {
            "torch" => assert!(version.starts_with("2.15.0")),
            "optax" => assert_eq!(version, "0.2.8"),
            library => panic!("unknown {library}"),
        }
    }
}

/// What clipping made of a gradient tree.
struct Found<A> {
    norm: f64,
    clipped: Tensors<A>,
}

/// Clips by function and by adaptor, which must agree to the bit.
fn both_ways<A: Scalar>(
    grads: &Tensors<A>,
    params: &Tensors<A>,
    function: impl Fn(&mut Tensors<A>) -> gradus::Result<f64>,
    adaptor: impl Optimizer<A>,
) -> Found<A> {
    let mut clipped = grads.clone();
    let norm = function(&mut clipped).unwrap();
    let (mut opt, mut moved) = (adaptor, params.clone());
    let report = opt.step(&mut moved, grads).unwrap();
    assert_eq!(report.grad_norm.map(f64::to_bits), Some(norm.to_bits()));
    assert!(report.moved && opt.steps() == 1);
    let expected: Tensors<A> = params.iter().zip(&clipped).map(|(param, grad)| param - grad).collect();
    assert_eq!(bits(&moved), bits(&expected));
    Found { norm, clipped }
}

/// Clips as a case says.
fn clipped<A: Scalar>(golden: &Golden, case: Case<'_>) -> Found<A> {
    let by_column = case.name() == ADAPTIVE_GRAD_CLIP;
    let scale = case.0["options"]["param_scale"].as_f64().unwrap_or(0.0);
    let grads = &golden.tensors(&golden.grads, 1.0, by_column);
    let params = &golden.tensors(&golden.params, scale, by_column);
    let sgd = Sgd::new(1.0);
    let (max, p) = (|| case.option("max_norm"), || case.option("norm_type"));
    match case.name() {
        CLIP_GRAD_NORM if p() == 2.0 => {
            both_ways(grads, params, |grads| clip::global_norm(grads, max()), sgd.clip_global_norm(max()))
        }
        CLIP_GRAD_NORM => {
            both_ways(grads, params, |grads| Norm::global(max()).p(p()).clip(grads), sgd.clip_global_norm(max()).p(p()))
        }
        PER_TENSOR if p() == 2.0 => {
            both_ways(grads, params, |grads| clip::per_tensor_norm(grads, max()), sgd.clip_per_tensor_norm(max()))
        }
        PER_TENSOR => {
            let function = |grads: &mut _| Norm::per_tensor(max()).p(p()).clip(grads);
            both_ways(grads, params, function, sgd.clip_per_tensor_norm(max()).p(p()))
        }
        CLIP_GRAD_VALUE => {
            let limit = case.option("clip_value");
            both_ways(grads, params, |grads| clip::value(grads, limit), sgd.clip_value(limit))
        }
        CLIP_BY_GLOBAL_NORM => {
            let function = |grads: &mut _| Norm::global(max()).exact(true).clip(grads);
            both_ways(grads, params, function, sgd.clip_global_norm(max()).exact(true))
        }
        ADAPTIVE | ADAPTIVE_GRAD_CLIP => {
            let (clipping, eps) = (case.option("clipping"), case.option("eps"));
            let found = both_ways(
                grads,
                params,
                |grads| Adaptive::new(clipping).eps(eps).clip(grads, params),
                sgd.clone().clip_adaptive(clipping).eps(eps),
            );
            if eps == 1e-3 {
                let function = |grads: &mut _| clip::adaptive(grads, params, clipping);
                let by_default = both_ways(grads, params, function, sgd.clip_adaptive(clipping));
                assert_eq!(bits(&by_default.clipped), bits(&found.clipped));
            }
            found
        }
        name => panic!("unknown {name}"),
    }
}

/// The norm that a case expects: its own, or computed the obvious way.
fn expected_norm(golden: &Golden, case: Case<'_>) -> f64 {
    let all = || golden.grads.iter().flatten().copied();
    match case.name() {
        CLIP_GRAD_NORM | CLIP_BY_GLOBAL_NORM => case.0["norm"].as_f64().unwrap(),
        PER_TENSOR => naive_norm(numbers(&case.0["norm"]), case.option("norm_type")),
        CLIP_GRAD_VALUE => naive_norm(all(), f64::INFINITY),
        _ => naive_norm(all(), 2.0),
    }
}

fn naive_norm(values: impl IntoIterator<Item = f64>, p: f64) -> f64 {
    let magnitudes = values.into_iter().map(f64::abs);
    if p.is_infinite() {
        magnitudes.fold(0.0, f64::max)
    } else {
        magnitudes.map(|x| x.powf(p)).sum::<f64>().powf(1.0 / p)
    }
}

/// The worst relative error of a case with the norm and gradients that `found` has for it.
fn compare<A: Scalar>(golden: &Golden, case: Case<'_>, found: &Found<A>, relative: f64) -> Result<f64, String> {
    let columns = case.name() == ADAPTIVE_GRAD_CLIP;
    let expected: Vec<_> = list(&case.0["clipped"]).map(numbers).collect();
    let expected = golden.tensors::<A>(&expected, 1.0, columns);
    assert_eq!(found.clipped.len(), expected.len());
    let mut pairs = vec![(found.norm, expected_norm(golden, case))];
    for (found, expected) in found.clipped.iter().zip(&expected) {
        assert_eq!(found.shape(), expected.shape());
        pairs.extend(found.iter().zip(expected).map(|(found, expected)| (found.as_f64(), expected.as_f64())));
    }
    assert_eq!(pairs.len(), 26);
    let wrong =
        pairs.iter().find(|(found, expected)| !relative_eq!(*found, *expected, epsilon = 0.0, max_relative = relative));
    match wrong {
        Some((found, expected)) => Err(format!("{found} for {expected}: {}", case.describe())),
        None => Ok(pairs.iter().map(|(found, expected)| (found / expected - 1.0).abs()).fold(0.0, f64::max)),
    }
}

fn compare_any(golden: &Golden, case: Case<'_>, how: Case<'_>) -> Result<f64, String> {
    match case.0["dtype"].as_str().unwrap() {
        "f32" => compare(golden, case, &clipped::<f32>(golden, how), F32_RELATIVE),
        "f64" => compare(golden, case, &clipped::<f64>(golden, how), F64_RELATIVE),
        dtype => panic!("unknown {dtype}"),
    }
}

#[test]
fn golden_values() {
    let golden = golden();
    let mut names = BTreeSet::new();
    let mut worst = std::collections::BTreeMap::new();
    for case in golden.cases.iter().map(Case) {
        case.check();
        names.insert(case.name());
        let error = compare_any(&golden, case, case).unwrap_or_else(|error| panic!("{error}"));
        let worst = worst.entry((case.name(), case.0["dtype"].as_str().unwrap())).or_insert(0.0_f64);
        *worst = worst.max(error);
    }
    println!("{worst:?}");
    let expected = [CLIP_GRAD_NORM, PER_TENSOR, CLIP_GRAD_VALUE, CLIP_BY_GLOBAL_NORM, ADAPTIVE, ADAPTIVE_GRAD_CLIP];
    assert_eq!(names, expected.into());
}

/// PyTorch has a norm for every tensor where gradus returns that of the whole.
#[test]
fn per_tensor_is_global_on_each_tensor_alone() {
    let golden = golden();
    let cases: Vec<_> = golden.cases.iter().map(Case).filter(|case| case.name() == PER_TENSOR).collect();
    assert_eq!(cases.len(), 32);
    for case in cases.into_iter().filter(|case| case.0["dtype"] == "f64") {
        let together = clipped::<f64>(&golden, case).clipped;
        let mut alone = golden.tensors::<f64>(&golden.grads, 1.0, false);
        for (tensor, expected) in alone.iter_mut().zip(numbers(&case.0["norm"])) {
            let norm = Norm::global(case.option("max_norm")).p(case.option("norm_type")).clip(tensor).unwrap();
            assert!(relative_eq!(norm, expected, epsilon = 0.0, max_relative = F64_RELATIVE), "{}", case.describe());
        }
        assert_eq!(bits(&alone), bits(&together), "{}", case.describe());
    }
}

#[test]
fn a_limit_that_is_slightly_off_is_noticed() {
    let golden = golden();
    let mut noticed = BTreeSet::new();
    for case in golden.cases.iter().map(Case).filter(|case| case.0["dtype"] == "f64") {
        let unclipped = list(&case.0["clipped"]).map(numbers).eq(golden.grads.iter().cloned());
        let limit =
            ["max_norm", "clip_value", "clipping"].into_iter().find(|name| case.0["options"].get(name).is_some());
        let mut wrong = case.0.clone();
        wrong["options"][limit.unwrap()] = (case.option(limit.unwrap()) * (1.0 - 1e-9)).into();
        // A limit that nothing reaches may be another.
        assert_eq!(compare_any(&golden, case, Case(&wrong)).is_ok(), unclipped, "{}", case.describe());
        if !unclipped {
            noticed.insert(case.name());
        }
    }
    assert_eq!(noticed.len(), 6, "{noticed:?}");
}

#[test]
fn pytorchs_epsilon_is_noticed() {
    let golden = golden();
    let exact = golden.cases.iter().map(Case).find(|case| case.name() == CLIP_BY_GLOBAL_NORM).unwrap();
    let mut with_eps = exact.0.clone();
    with_eps["name"] = CLIP_GRAD_NORM.into();
    with_eps["options"]["norm_type"] = 2.0.into();
    assert!(compare_any(&golden, exact, exact).is_ok());
    assert!(compare_any(&golden, exact, Case(&with_eps)).is_err());
}
