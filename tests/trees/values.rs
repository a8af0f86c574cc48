//! Trees as values: against a loop over the elements, in every layout and number of threads, and PyTorch.

use std::collections::BTreeMap;

use gradus::adaptor::Freeze;
use gradus::error::{ArgumentError, StepError};
use gradus::prelude::*;
use gradus::tree::{self, Count};
use gradus::{Error, Scalar};
use ndarray::{Array1, Array2, ArrayD, ArrayViewMutD, Axis, IxDyn, Slice, array, s};
use serde_json::Value;

/// Elements that have rounding errors.
fn wave<A: Element>(elements: usize, phase: f64) -> Vec<A> {
    (0..elements).map(|at| A::from_f64((at as f64 * 0.73 + phase).sin() * 1.3)).collect()
}

/// The same tensor in every layout: row-major, column-major, with gaps, backwards.
fn in_layouts<A: Element>(shape: &[usize], values: &[A], mut check: impl FnMut(ArrayViewMutD<'_, A>)) {
    let plain = ArrayD::from_shape_vec(shape, values.to_vec()).unwrap();
    check(plain.clone().view_mut());
    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
    let mut columns = ArrayD::zeros(IxDyn(&reversed)).reversed_axes();
    columns.assign(&plain);
    check(columns.view_mut());
    if !shape.is_empty() {
        for step in [2, -1, -3] {
            let wide: Vec<usize> =
                shape.iter().map(|length| length * usize::try_from(isize::abs(step)).unwrap()).collect();
            let mut gaps = ArrayD::zeros(IxDyn(&wide));
            let mut view = gaps.view_mut();
            view.slice_each_axis_inplace(|_| Slice::new(0, None, step));
            view.assign(&plain);
            check(view);
        }
    }
}

const SHAPES: [&[usize]; 8] = [&[], &[0], &[1], &[17], &[3, 0, 2], &[70, 40], &[3, 5, 9], &[2, 9000]];

/// What a function on trees makes of two elements.
type Plain = fn(f64, f64, f64) -> f64;

fn between(from: f64, to: f64, part: f64) -> f64 {
    if part.abs() < 0.5 { from + part * (to - from) } else { to - (to - from) * (1.0 - part) }
}

/// Each in f64 equals the loop, to the last bit, in every pair of layouts.
#[test]
fn arithmetic_is_that_of_a_loop() {
    type Function = fn(&mut ArrayViewMutD<'_, f64>, &ArrayViewMutD<'_, f64>, f64) -> gradus::Result<()>;
    let functions: [(Function, Plain); 4] = [
        (|to, from, tau| tree::lerp(to, from, tau), between),
        (|to, from, alpha| tree::axpy(to, alpha, from), |to, from, alpha| to + alpha * from),
        (|to, _, factor| tree::scale(to, factor), |to, _, factor| to * factor),
        (|to, from, _| tree::copy(to, from), |_, from, _| from),
    ];
    for shape in SHAPES {
        let elements = shape.iter().product();
        let (target, source) = (wave(elements, 0.0), wave(elements, 2.0));
        for (function, plain) in functions {
            for factor in [0.0, 0.1, 0.5, 1.0, -3.0] {
                let loop_over = target.iter().zip(&source).map(|(to, from)| plain(*to, *from, factor));
                let expected: Vec<f64> = loop_over.collect();
                in_layouts(shape, &source, |from| {
                    in_layouts(shape, &target, |mut to| {
                        function(&mut to, &from, factor).unwrap();
                        assert!(to.iter().eq(&expected), "{shape:?} {:?} {factor}", to.strides());
                    });
                });
            }
        }
    }
}

#[test]
fn sums_have_the_bits_of_no_layout() {
    for shape in SHAPES {
        let elements: usize = shape.iter().product();
        let (a, b) = (wave::<f32>(elements, 0.0), wave::<f32>(elements, 2.0));
        let in_f64 = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let pairs: Vec<(f64, f64)> = in_f64(&a).into_iter().zip(in_f64(&b)).collect();
        let dot = pairs.iter().map(|(a, b)| a * b).sum::<f64>();
        let norm = pairs.iter().map(|(a, _)| a * a).sum::<f64>().sqrt();
        let distance = pairs.iter().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let mut found = None;
        in_layouts(shape, &a, |a| {
            in_layouts(shape, &b, |b| {
                let now = (tree::dot(&a, &b).unwrap(), tree::norm(&a).unwrap(), tree::distance(&a, &b).unwrap());
                assert_eq!(*found.get_or_insert(now), now);
                assert!(tree::is_finite(&a));
            });
        });
        let (found_dot, found_norm, found_distance) = found.unwrap();
        let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-13 * (1.0 + norm * norm);
        assert!(near(found_dot, dot) && near(found_norm, norm) && near(found_distance, distance), "{shape:?}");
    }
}

/// PyTorch rounds `1 − τ` as gradus does, and f32 factors once; an addition may be fused there.
const F64_RELATIVE: f64 = 2.0 * f64::EPSILON;
const F32_RELATIVE: f64 = 2.0 * f32::EPSILON as f64;

#[test]
fn pytorch_s_numbers() {
    fn unit(k: u64) -> f64 {
        let mut z = k.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    }
    fn check<A: Scalar>(case: &Value, allowed: f64) {
        let [mut target, source] =
            [0, 40].map(|start| (start..start + 40).map(|k| A::from_f64(unit(k))).collect::<Vec<A>>());
        let factor = case["factor"].as_f64().unwrap();
        match case["call"].as_str().unwrap() {
            "lerp_" => tree::lerp(&mut target, &source, factor).unwrap(),
            "add_" => tree::axpy(&mut target, factor, &source).unwrap(),
            "mul_" => tree::scale(&mut target, factor).unwrap(),
            other => panic!("unknown call {other}"),
        }
        let expected = case["result"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap());
        assert_eq!(expected.len(), target.len());
        for (found, expected) in target.iter().zip(expected) {
            assert!((found.as_f64() - expected).abs() <= allowed, "{case}: {found}");
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/trees.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/README.md")).unwrap();
    assert!(readme.contains(&format!("| `trees.json` | `trees.py` | {} |", cases.len())));
    for case in cases {
        match case["dtype"].as_str().unwrap() {
            "float64" => check::<f64>(case, F64_RELATIVE),
            _ => check::<f32>(case, F32_RELATIVE),
        }
    }
}

#[test]
fn both_ends_are_exact() {
    let (target, source) = (wave::<f32>(5000, 0.0), wave::<f32>(5000, 2.0));
    let mut now = target.clone();
    tree::lerp(&mut now, &source, 0.0).unwrap();
    assert!(now == target);
    tree::lerp(&mut now, &source, 1.0).unwrap();
    assert!(now == source);
    // A factor that f32 does not have moves what it can move.
    let mut large = vec![0.0_f32];
    tree::lerp(&mut large, &[3e38_f32], 1e-60).unwrap();
    assert_eq!(large, [(3e38_f64 * 1e-60) as f32]);
    let mut large = vec![1e30_f32];
    tree::scale(&mut large, 1e-50).unwrap();
    let scaled = f64::from(1e30_f32) * 1e-50;
    assert_eq!(large, [scaled as f32]);
    tree::axpy(&mut large, 1e-50, &[1e30_f32]).unwrap();
    assert_eq!(large, [(f64::from(scaled as f32) + scaled) as f32]);
}

#[cfg(feature = "rayon")]
#[test]
fn threads_do_not_change_the_bits() {
    let shapes: [&[usize]; 5] = [&[70_001], &[300, 200], &[1], &[3], &[90, 300]];
    let tensors = |phase: f64, columns: bool| -> Vec<ArrayD<f32>> {
        let tensor = |shape: &&[usize]| {
            let tensor = ArrayD::from_shape_vec(*shape, wave(shape.iter().product(), phase)).unwrap();
            if !columns {
                return tensor;
            }
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            let mut turned = ArrayD::zeros(IxDyn(&reversed)).reversed_axes();
            turned.assign(&tensor);
            turned
        };
        shapes.iter().map(tensor).collect()
    };
    for (own, other) in [(false, false), (false, true), (true, false), (true, true)] {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut target, source) = (tensors(0.0, own), tensors(2.0, other));
                // The first two tensors in gaps as well: a view is divided across its axes.
                let mut gaps = Array2::<f32>::zeros((600, 200));
                let mut lines = gaps.slice_mut(s![..;2, ..]);
                tree::copy(&mut lines, &target[1]).unwrap();
                tree::lerp(&mut lines, &source[1], 0.3).unwrap();
                tree::lerp(&mut target, &source, 0.3).unwrap();
                assert!(lines.iter().eq(&target[1]));
                tree::axpy(&mut target, 0.7, &source).unwrap();
                tree::scale(&mut target, 1.1).unwrap();
                let sums = [tree::dot(&target, &source), tree::distance(&target, &source), tree::norm(&target)];
                (target, sums.map(|sum| sum.unwrap().to_bits()))
            })
        };
        let expected = run(1);
        assert!(run(2) == expected && run(4) == expected);
    }
}

#[test]
fn types_are_converted() {
    let values = [1.0 / 3.0, -2e-5, 1e30, 0.0];
    let mut single = vec![0.0_f32; 4];
    tree::cast(&mut single, &values).unwrap();
    assert_eq!(single, values.map(|x| x as f32));
    let mut double = Array1::<f64>::zeros(4);
    tree::cast(&mut double, &single).unwrap();
    assert_eq!(double.to_vec(), values.map(|x| f64::from(x as f32)));
    let mut large = vec![0.0_f32];
    tree::cast(&mut large, &vec![1e300]).unwrap();
    assert_eq!(large, [f32::INFINITY]);
}

#[cfg(feature = "half")]
#[test]
fn sixteen_bits_are_computed_in_f64() {
    use half::{bf16, f16};

    fn check<H: Element>() {
        let [target, source] = [0.0, 2.0].map(|phase| wave::<H>(3000, phase));
        let (mut lerped, mut added, mut scaled) = (target.clone(), target.clone(), target.clone());
        tree::lerp(&mut lerped, &source, 0.05).unwrap();
        tree::axpy(&mut added, 1e-3, &source).unwrap();
        tree::scale(&mut scaled, 0.3).unwrap();
        for (at, (to, from)) in target.iter().zip(&source).map(|(to, from)| (to.as_f64(), from.as_f64())).enumerate() {
            assert_eq!(lerped[at], H::from_f64(between(to, from, 0.05)));
            assert_eq!(added[at], H::from_f64(to + 1e-3 * from));
            assert_eq!(scaled[at], H::from_f64(to * 0.3));
        }
        let mut wide = vec![0.0_f32; 3000];
        tree::cast(&mut wide, &target).unwrap();
        assert!(wide.iter().zip(&target).all(|(wide, own)| f64::from(*wide) == own.as_f64()));
        let expected = target.iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt();
        assert!((tree::norm(&target).unwrap() / expected - 1.0).abs() < 1e-13);
    }
    check::<bf16>();
    check::<f16>();
}

/// A map has another order than a list, and the same paths.
#[test]
fn trees_are_matched_by_path() {
    let list = || {
        vec![
            vec![1.0],
            vec![2.0, 3.0],
            vec![4.0],
            vec![5.0; 11],
            vec![0.0],
            vec![0.0],
            vec![0.0],
            vec![0.0],
            vec![0.0],
            vec![0.0],
            vec![6.0],
        ]
    };
    let mut map: BTreeMap<String, Vec<f64>> =
        list().into_iter().enumerate().map(|(at, own)| (at.to_string(), own)).collect();
    let (mut sums, expected) = (list(), list().concat().iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    tree::axpy(&mut sums, 1.0, &map).unwrap();
    assert_eq!(sums.concat(), expected);
    tree::copy(&mut map, &sums).unwrap();
    assert_eq!((&map["10"], &map["1"]), (&vec![12.0], &vec![4.0, 6.0]));
    let squares = expected.iter().map(|x| x * x).sum::<f64>();
    assert_eq!((tree::dot(&map, &sums).unwrap(), tree::distance(&sums, &map).unwrap()), (squares, 0.0));
}

fn trees_error(path: &str, first: Option<&[usize]>, second: Option<&[usize]>) -> Error {
    let [first, second] = [first, second].map(|shape| shape.map(<[usize]>::to_vec));
    Error::Argument(ArgumentError::Trees { path: path.into(), first, second })
}

/// Nothing is changed, and the error names the first tensor that differs.
#[test]
fn other_trees_are_refused() {
    type Tree = BTreeMap<&'static str, Vec<f64>>;
    let own = || Tree::from([("a", vec![1.0]), ("b", vec![2.0, 3.0]), ("c", vec![4.0])]);
    let cases: [(Tree, Error, &str); 4] = [
        (
            Tree::from([("a", vec![1.0]), ("c", vec![4.0])]),
            trees_error("b", Some(&[2]), None),
            r#"the trees differ: tensor "b" is only in the first tree"#,
        ),
        (
            Tree::from([("a", vec![1.0]), ("b", vec![2.0]), ("c", vec![])]),
            trees_error("b", Some(&[2]), Some(&[1])),
            r#"the trees differ: tensor "b" has shape [2] in the first tree and [1] in the second"#,
        ),
        (
            Tree::from([("a", vec![1.0]), ("aa", vec![1.0]), ("b", vec![2.0, 3.0]), ("c", vec![4.0]), ("d", vec![])]),
            trees_error("aa", None, Some(&[1])),
            r#"the trees differ: tensor "aa" is only in the second tree"#,
        ),
        (Tree::new(), trees_error("a", Some(&[1]), None), r#"the trees differ: tensor "a" is only in the first tree"#),
    ];
    for (other, expected, text) in cases {
        assert_eq!(expected.to_string(), text);
        let mut target = own();
        assert_eq!(tree::lerp(&mut target, &other, 0.5), Err(expected.clone()));
        assert_eq!(tree::axpy(&mut target, 0.5, &other), Err(expected.clone()));
        assert_eq!(tree::copy(&mut target, &other), Err(expected.clone()));
        assert_eq!(tree::cast(&mut target, &other), Err(expected.clone()));
        assert_eq!(tree::dot(&target, &other), Err(expected.clone()));
        assert_eq!(tree::distance(&target, &other), Err(expected));
        assert_eq!(target, own());
    }
    // An empty option is no tensor.
    let error = tree::axpy(&mut (1.0, Some(2.0)), 1.0, &(1.0, None::<f64>));
    assert_eq!(error, Err(trees_error("1", Some(&[]), None)));
    let mut target = (1.0, None::<f64>);
    tree::axpy(&mut target, 1.0, &(1.0, None::<f64>)).unwrap();
    assert_eq!(target, (2.0, None));
}

#[test]
fn factors_are_finite() {
    let (mut target, source) = (vec![1.0], [2.0]);
    for factor in [f64::NAN, f64::INFINITY] {
        let results = [
            ("tau", tree::lerp(&mut target, &source, factor)),
            ("alpha", tree::axpy(&mut target, factor, &source)),
            ("factor", tree::scale(&mut target, factor)),
        ];
        for (name, result) in results {
            let error = result.unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{name} is ")) && error.ends_with("it must be a finite number"),
                "{error}"
            );
        }
    }
    assert_eq!(target, [1.0]);
}

#[test]
fn rows_count_as_zeros_elsewhere() {
    let rows = || (Rows::new(vec![3, 0, 3], array![[1.0, 1.0], [5.0, 0.0], [1.0, 2.0]]), 1.0);
    let dense = (rows().0.to_dense(4).unwrap(), 1.0);
    let mut sums = (Array2::ones((4, 2)), 1.0);
    let expected = &dense.0 * 0.5 + 1.0;
    tree::axpy(&mut sums, 0.5, &rows()).unwrap();
    assert_eq!(sums, (expected, 1.5));
    assert_eq!(tree::dot(&sums, &rows()), tree::dot(&sums, &dense));
    assert_eq!(tree::distance(&sums, &rows()), tree::distance(&sums, &dense));
    assert_eq!(tree::norm(&rows()).unwrap(), tree::norm(&dense).unwrap());
    assert!(tree::is_finite(&rows()) && tree::count(&rows()).elements == 7);

    let unusable = |name, result: gradus::Result<()>| match result {
        Err(Error::Step(StepError::RowsUnusable { name: found, path, .. })) => assert_eq!((found, &*path), (name, "0")),
        other => panic!("{other:?}"),
    };
    unusable("lerp", tree::lerp(&mut sums, &rows(), 0.5));
    unusable("copy", tree::copy(&mut sums, &rows()));
    unusable("cast", tree::cast(&mut sums, &rows()));
    unusable("dot", tree::dot(&rows(), &sums).map(drop));
    unusable("distance", tree::distance(&rows(), &sums).map(drop));
    let wrong = Rows::new(vec![1], array![[1.0], [2.0]]);
    assert!(matches!(tree::norm(&wrong), Err(Error::Step(StepError::RowCount { .. }))));
    let outside = (Rows::new(vec![4], array![[1.0, 1.0]]), 1.0);
    assert!(matches!(tree::axpy(&mut sums, 1.0, &outside), Err(Error::Step(StepError::RowOutOfRange { row: 4, .. }))));
}

#[test]
fn zeros_keep_the_rest() {
    let tree = (vec![1.0, f64::NAN], Some(2.0), None::<f64>, [3.0; 2]);
    assert_eq!(tree::zeros_like(&tree), (vec![0.0, 0.0], Some(0.0), None, [0.0; 2]));
}

#[test]
fn what_is_not_finite_is_found() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = wave::<f32>(5000, 0.0);
        assert!(tree::is_finite(&values) && tree::is_finite(&[f32::MAX, f32::MIN]));
        values[4321] = bad;
        assert!(!tree::is_finite(&values) && !tree::is_finite(&(1.0_f32, values)));
    }
    assert!(tree::is_finite(&None::<f32>));
    let near = |norm: gradus::Result<f64>| (norm.unwrap() / 5e200 - 1.0).abs() < 1e-15;
    assert!(near(tree::norm(&[3e200, 4e200])) && near(tree::distance(&[3e200, 0.0], &[0.0, 4e200])));
    assert!(tree::norm(&[f64::NAN]).unwrap().is_nan());
}

#[test]
fn what_is_counted() {
    let tree = (Array2::<f32>::zeros((3, 4)), None::<f32>, vec![vec![0.0_f32; 5], vec![]], 1.0_f32);
    let count = tree::count(&tree);
    assert_eq!((count.tensors, count.elements, count.bytes), (4, 18, 72));
    assert_eq!(
        (tree::count(&None::<f64>), tree::count(&[1.0]).to_string()),
        (Count::default(), "1 tensor, 1 element, 8 bytes".into())
    );
    let summary = tree::summary(&tree).unwrap();
    assert_eq!(summary.count(), count);
    let rows: Vec<_> = summary.tensors().iter().map(|row| (&*row.path, &*row.shape, row.elements, row.bytes)).collect();
    assert_eq!(rows, [("0", &[3, 4][..], 12, 48), ("2.0", &[5], 5, 20), ("2.1", &[0], 0, 0), ("3", &[], 1, 4)]);
    let table = tree::summary(&Array1::<f64>::zeros(1_234_567)).unwrap().to_string();
    assert_eq!(table.lines().nth(1), Some("(root)     [1234567]  1,234,567  9,876,536"), "{table}");
}

/// Each tensor's groups, and whether it is frozen.
fn roles(opt: &(impl OptimizerExt<f64> + ?Sized), tree: &impl Params<Elem = f64>) -> Vec<(String, bool, String)> {
    let summary = opt.summary(tree).unwrap();
    summary.tensors().iter().map(|row| (row.path.clone(), row.frozen, row.groups.join(" + "))).collect()
}

#[test]
fn an_optimizer_says_what_it_does_with_each_tensor() {
    let model =
        || BTreeMap::from(["body.bias", "body.weight", "head.bias", "head.weight"].map(|name| (name, array![1.0])));
    let expected = |roles: [(bool, &str); 4]| -> Vec<(String, bool, String)> {
        model().keys().zip(roles).map(|(path, (frozen, groups))| ((*path).into(), frozen, groups.into())).collect()
    };
    let plain = Adam::<f64>::new(0.1);
    assert_eq!(roles(&plain, &model()), expected([(false, ""); 4]));

    let mut chain = Adam::new(0.1)
        .group("**.bias", Group::no_decay())
        .group("body.**", Group::new().scale_learning_rate(0.1))
        .clip_global_norm(1.0)
        .ema(0.9)
        .freeze("body.weight")
        .accumulate(2)
        .boxed();
    let both = expected([(false, "body.** + **.bias"), (true, "body.**"), (false, "**.bias"), (false, "")]);
    assert_eq!(roles(&chain, &model()), both);
    let mut params = model();
    for _ in 0..3 {
        chain.step(&mut params, &model()).unwrap();
        assert_eq!(roles(&*chain, &params), both);
    }
    let before = chain.state_dict();
    roles(&chain, &params);
    assert!(chain.state_dict() == before);
    chain.find_mut::<Freeze>().unwrap().unfreeze_all();
    assert!(roles(&chain, &params).iter().all(|(_, frozen, _)| !frozen));

    let routed = Sgd::new(0.1).route("head.*", Adam::new(0.1).group("*.bias", Group::no_decay())).freeze("head.bias");
    let both = [(false, ""), (false, ""), (true, "route head.* + *.bias"), (false, "route head.*")];
    assert_eq!(roles(&routed, &model()), expected(both));
    let layers = Sgd::new(0.1).layerwise_decay(0.5, ["body.**", "head.**"]).sam(0.05);
    let [lower, upper] = ["layerwise_decay 0.5", "layerwise_decay 1"].map(|group| (false, group));
    assert_eq!(roles(&layers, &model()), expected([lower, lower, upper, upper]));

    let error = Sgd::new(0.1).freeze("tail").summary(&model()).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::PatternUnmatched { .. })));
    let error = chain.summary(&array![1.0]).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })));
}

#[test]
fn slices_of_trees() {
    let mut memory = wave::<f64>(10, 0.0);
    let source = memory.clone();
    tree::scale(&mut memory[2..4], 0.0).unwrap();
    tree::copy(&mut memory[..2], &source[8..]).unwrap();
    assert_eq!(memory[..4], [source[8], source[9], 0.0, 0.0]);
    let boxed: Box<dyn Params<Elem = f64>> = Box::new(source.clone());
    assert_eq!(tree::norm(&*boxed), tree::norm(&source));
    let mut columns = Array2::<f64>::zeros((10, 2));
    tree::copy(&mut columns.index_axis_mut(Axis(1), 0), &source).unwrap();
    assert!(columns.column(0).iter().eq(&source));
}
