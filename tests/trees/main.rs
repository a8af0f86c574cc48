//! Everything that can be a tree of parameters, with its paths; the step is the same for all.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lying;
#[cfg(any(feature = "faer", feature = "nalgebra"))]
mod matrices;
mod numbers;
mod values;

use std::collections::BTreeMap;
use std::fmt::Debug;

use gradus::error::StepError;
use gradus::params::{Layout, Visitor, for_each, for_each_mut};
use gradus::prelude::*;
use gradus::{Error, Scalar};
use ndarray::{
    ArcArray, Array, Array0, Array1, Array2, Array3, ArrayD, ArrayView1, CowArray, Dimension, Ix1, IxDyn, ShapeBuilder,
    arr0, array, aview1, s,
};

fn paths(tree: &(impl Params + ?Sized)) -> Vec<String> {
    Layout::of(tree).unwrap().paths().map(String::from).collect()
}

/// The elements of a tree in the order of its walk, row-major.
fn elements<T: Params<Elem = f64> + ?Sized>(tree: &T) -> Vec<f64> {
    let mut all = Vec::new();
    for_each(tree, |_, shape, values| {
        if let Some(values) = values {
            all.extend(values.view(shape).iter().copied());
        }
    });
    all
}

/// Where two steps take a list of elements whose gradients are half of them.
fn two_steps(start: &[f64]) -> Vec<f64> {
    let (mut opt, mut w) = (Adam::new(0.1), Array1::from(start.to_vec()));
    for _ in 0..2 {
        let grads = &w * 0.5;
        opt.step(&mut w, &grads).unwrap();
    }
    w.to_vec()
}

/// Two steps on a tree must take its elements where they take a vector of them, to the last bit.
fn moves_as_a_vector<T: ParamsMut<Elem = f64> + ?Sized, G: Params<Elem = f64>>(
    tree: &mut T,
    grads: impl Fn(&[f64]) -> G,
) {
    let start = elements(tree);
    let expected = two_steps(&start);
    let mut opt = Adam::new(0.1);
    for _ in 0..2 {
        let halves: Vec<f64> = elements(tree).iter().map(|x| x * 0.5).collect();
        let mut tree = &mut *tree;
        opt.step(&mut tree, &grads(&halves)).unwrap();
    }
    assert_eq!(elements(tree), expected);
    assert!(start.is_empty() || start != expected);
}

/// A tensor of any shape with elements from a counter.
fn counted<D: Dimension>(shape: impl ShapeBuilder<Dim = D>) -> Array<f64, D> {
    let mut count = 0.0;
    let mut array = Array::zeros(shape);
    array.iter_mut().for_each(|x| {
        count += 1.0;
        *x = count / 8.0;
    });
    array
}

fn shaped<D: Dimension>(like: &Array<f64, D>) -> impl Fn(&[f64]) -> Array<f64, D> + use<D> {
    let dim = like.raw_dim();
    move |values| Array::from_shape_vec(dim.clone(), values.to_vec()).unwrap()
}

#[test]
fn arrays_of_every_dimension() {
    fn check<D: Dimension>(mut array: Array<f64, D>) {
        assert_eq!(paths(&array), [""]);
        let grads = shaped(&array);
        moves_as_a_vector(&mut array, grads);
    }
    check(arr0(3.0));
    check(counted(5));
    check(counted((2, 3)));
    check(counted((2, 3, 2)));
    check(counted((2, 1, 2, 2)));
    check(counted((2, 1, 2, 1, 3)));
    check(counted((1, 2, 1, 2, 1, 2)));
    check(counted(IxDyn(&[2, 3, 1, 1, 2, 1, 2, 1])));
    check(counted(IxDyn(&[])));
    check(counted(0));
    check(counted((3, 0, 2)));
    check(counted((3, 4).f()));
    check(counted((2, 3, 4).f()));
}

#[test]
fn views_in_every_layout() {
    let base: Array3<f64> = counted((5, 6, 4));
    let in_view = |tree: &mut dyn FnMut(&mut Array3<f64>)| {
        let mut array = base.clone();
        tree(&mut array);
        array
    };
    let grads = |shape: &[usize]| {
        let shape = shape.to_vec();
        move |values: &[f64]| ArrayD::from_shape_vec(shape.clone(), values.to_vec()).unwrap()
    };
    in_view(&mut |array| moves_as_a_vector(&mut array.slice_mut(s![1..4, ..;2, 1..]), grads(&[3, 3, 3])));
    in_view(&mut |array| moves_as_a_vector(&mut array.slice_mut(s![..;-1, ..;-2, ..]), grads(&[5, 3, 4])));
    in_view(&mut |array| moves_as_a_vector(&mut array.view_mut().reversed_axes(), grads(&[4, 6, 5])));
    in_view(&mut |array| moves_as_a_vector(&mut array.view_mut().permuted_axes([1, 2, 0]), grads(&[6, 4, 5])));
    in_view(&mut |array| moves_as_a_vector(&mut array.slice_mut(s![2, .., 1]), grads(&[6])));
    in_view(&mut |array| moves_as_a_vector(&mut array.slice_mut(s![4, 5, 3]), grads(&[])));
    in_view(&mut |array| moves_as_a_vector(&mut array.slice_mut(s![.., ..0, ..]), grads(&[5, 0, 4])));
    in_view(&mut |array| moves_as_a_vector(&mut array.view_mut().into_dyn(), grads(&[5, 6, 4])));

    let moved = in_view(&mut |array| {
        let (_, mut right) = array.view_mut().split_at(ndarray::Axis(1), 3);
        moves_as_a_vector(&mut right, grads(&[5, 3, 4]));
    });
    assert_eq!(moved.slice(s![.., ..3, ..]), base.slice(s![.., ..3, ..]), "what the view does not show stays");
}

/// Copy-on-write, reference-counted, borrowed: whatever ndarray can write.
#[test]
fn every_kind_of_array() {
    let start: Array1<f64> = counted(7);
    let grads = shaped(&start);
    let mut shared: ArcArray<f64, Ix1> = start.clone().into_shared();
    let kept = shared.clone();
    moves_as_a_vector(&mut shared, &grads);
    assert_eq!(kept, start, "another owner of the same memory keeps its values");
    let mut on_write = CowArray::from(start.view());
    moves_as_a_vector(&mut on_write, &grads);
    let mut numbers = [1.0, 2.0, 3.0];
    moves_as_a_vector(&mut ndarray::aview_mut1(&mut numbers), |values| Array1::from(values.to_vec()));
    assert_ne!(numbers, [1.0, 2.0, 3.0]);
    let mut owned = start.clone();
    moves_as_a_vector(&mut *owned, &grads);
    assert_ne!(owned, start);
}

/// Gradients need only be read.
#[test]
fn gradients_in_every_form() {
    let same = |grads: &dyn Params<Elem = f64>| {
        let mut w = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        Adam::new(0.1).step(&mut w, grads).unwrap();
        w
    };
    let row = array![0.5, -0.25, 2.0];
    let grads = array![[0.5, -0.25, 2.0], [0.5, -0.25, 2.0]];
    let expected = same(&grads);
    assert_eq!(same(&row.broadcast((2, 3)).unwrap()), expected);
    assert_eq!(same(&grads.view()), expected);
    assert_eq!(same(&grads.clone().into_dyn()), expected);
    assert_eq!(same(&grads.t().to_owned().reversed_axes()), expected);
    assert_eq!(same(&grads.clone().into_shared()), expected);
    assert_eq!(same(&&grads), expected);
    assert_eq!(same(&Box::new(grads.clone())), expected);
    assert_eq!(same(&Some(grads.clone())), expected);
    assert_eq!(same(&&mut grads.clone()), expected);
}

#[test]
fn containers_and_their_paths() {
    let pair = || (counted((2, 3)), counted(2));
    let flat = |values: &[f64]| {
        (Array2::from_shape_vec((2, 3), values[..6].to_vec()).unwrap(), aview1(&values[6..8]).to_owned())
    };

    let mut tuple = pair();
    assert_eq!(paths(&tuple), ["0", "1"]);
    moves_as_a_vector(&mut tuple, flat);

    let (mut w, mut b) = pair();
    let mut borrowed = (&mut w, &mut b);
    assert_eq!(paths(&borrowed), ["0", "1"]);
    moves_as_a_vector(&mut borrowed, flat);
    assert_eq!((w, b), tuple);

    let mut layers = vec![pair(), pair()];
    assert_eq!(paths(&layers), ["0.0", "0.1", "1.0", "1.1"]);
    moves_as_a_vector(&mut layers, |values| [flat(values), flat(&values[8..])]);

    let mut fixed = [pair(), pair()];
    assert_eq!(paths(&fixed), ["0.0", "0.1", "1.0", "1.1"]);
    moves_as_a_vector(&mut fixed, |values| vec![flat(values), flat(&values[8..])]);
    assert_eq!(fixed.to_vec(), layers);
    let mut boxed: Box<[(Array2<f64>, Array1<f64>)]> = vec![pair(), pair()].into();
    assert_eq!(paths(&boxed), ["0.0", "0.1", "1.0", "1.1"]);
    moves_as_a_vector(&mut boxed, |values| (flat(values), flat(&values[8..])));
    assert_eq!(boxed.to_vec(), layers);

    let mut named =
        BTreeMap::from([("head".to_owned(), vec![counted(2)]), ("body".to_owned(), vec![counted(3), counted(1)])]);
    assert_eq!(paths(&named), ["body.0", "body.1", "head.0"]);
    moves_as_a_vector(&mut named, |values| {
        let of = |range: std::ops::Range<usize>| aview1(&values[range]).to_owned();
        BTreeMap::from([("body", vec![of(0..3), of(3..4)]), ("head", vec![of(4..6)])])
    });

    let mut optional = (Some(counted(3)), None::<Array1<f64>>, Box::new(Some((counted(2),))));
    assert_eq!(paths(&optional), ["0", "2.0"]);
    moves_as_a_vector(&mut optional, |values| {
        (aview1(&values[..3]).to_owned(), None::<Array1<f64>>, (aview1(&values[3..]).to_owned(),))
    });

    let mut deep = vec![BTreeMap::from([("a", (vec![counted(2)], counted(1)))])];
    assert_eq!(paths(&deep), ["0.a.0.0", "0.a.1"]);
    moves_as_a_vector(&mut deep, |values| {
        vec![BTreeMap::from([("a", (vec![aview1(&values[..2]).to_owned()], aview1(&values[2..]).to_owned()))])]
    });

    let mut many: Vec<Array0<f64>> = (0..120).map(|i| arr0(f64::from(i) + 1.0)).collect();
    assert_eq!(paths(&many)[99..102], ["99", "100", "101"]);
    moves_as_a_vector(&mut many, |values| values.iter().map(|x| arr0(*x)).collect::<Vec<_>>());

    let mut nothing: Vec<Array1<f64>> = Vec::new();
    assert!(paths(&nothing).is_empty());
    let report = Sgd::new(0.1).step(&mut nothing, &Vec::<Array1<f64>>::new()).unwrap();
    assert!(!report.moved);
}

#[test]
fn tuples_of_up_to_twelve() {
    let one = || array![1.0_f32];
    let mut tuple = (one(), one(), one(), one(), one(), one(), one(), one(), one(), one(), one(), one());
    let grads = tuple.clone();
    Sgd::new(0.5).step(&mut tuple, &grads).unwrap();
    let half = || array![0.5_f32];
    let halves = (half(), half(), half(), half(), half(), half(), half(), half(), half(), half(), half(), half());
    assert_eq!(format!("{tuple:?}"), format!("{halves:?}"));
    assert_eq!(paths(&tuple).last().unwrap(), "11");
}

/// Gradients are found by their paths, in whatever order or container they come.
#[test]
fn gradients_are_matched_by_path() {
    /// A tree that shows named vectors in the order given.
    struct Listed(Vec<(&'static str, Array1<f64>)>);

    impl Params for Listed {
        type Elem = f64;

        fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
            self.0.iter().for_each(|(name, tensor)| visitor.field(name, tensor));
        }
    }

    let params = || BTreeMap::from([("a", array![1.0]), ("b", array![2.0]), ("c", array![3.0])]);
    let grads = [("a", array![0.1]), ("b", array![0.2]), ("c", array![0.3])];
    let mut expected = params();
    Sgd::new(1.0).step(&mut expected, &BTreeMap::from(grads.clone())).unwrap();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut opt = Sgd::new(1.0);
        let listed = Listed(order.map(|number| grads[number].clone()).into());
        for _ in 0..2 {
            let mut moved = params();
            opt.step(&mut moved, &listed).unwrap();
            assert_eq!(moved, expected, "{order:?}");
        }
        let mut twice = order.map(|number| grads[number].clone()).to_vec();
        twice[2] = twice[0].clone();
        let error = opt.step(&mut params(), &Listed(twice)).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::DuplicatePath { .. })), "{error}");
    }

    let mut tuple = (array![1.0], array![2.0]);
    Sgd::new(1.0).step(&mut tuple, &vec![array![0.5], array![0.5]]).unwrap();
    assert_eq!(tuple, (array![0.5], array![1.5]));
}

/// `None` for a subtree leaves all of it.
/// A key may have dots; then it can look like something below its neighbor.
#[test]
fn no_gradient_for_a_tensor_says_nothing_of_those_whose_keys_begin_alike() {
    let map = |keys: &[&str]| keys.iter().map(|key| (key.to_string(), Some(array![1.0]))).collect::<BTreeMap<_, _>>();
    let (mut params, mut grads) = (map(&["a", "a.b", "a.c"]), map(&["a", "a.b", "a.c"]));
    grads.insert("a".into(), None);
    Sgd::new(1.0).step(&mut params, &grads).unwrap();
    let after = [1.0, 0.0, 0.0].map(|value| Some(array![value]));
    assert_eq!(params.values().cloned().collect::<Vec<_>>(), after);
    for wrong_order in [false, true] {
        let mut grads = vec![("a", None), ("a.c", Some(array![1.0]))];
        if wrong_order {
            grads.reverse();
        }
        let error = Sgd::new(1.0).step(&mut params, &Pairs(grads)).unwrap_err();
        assert_eq!(error, Error::Step(StepError::MissingGradient { path: "a.b".into() }));
    }
}

/// The tensor it was meant for is missed, so nothing passes silently.
#[test]
fn no_gradient_for_what_is_not_there() {
    let mut params = (array![1.0], None::<Array1<f64>>, array![1.0]);
    Sgd::new(1.0).step(&mut params, &(array![1.0], None::<Array1<f64>>, array![1.0])).unwrap();
    assert_eq!(params, (array![0.0], None, array![0.0]));
    let mut params = BTreeMap::from([("bias", array![1.0])]);
    let error = Sgd::new(1.0).step(&mut params, &BTreeMap::from([("biaz", None::<Array1<f64>>)])).unwrap_err();
    assert_eq!(error, Error::Step(StepError::MissingGradient { path: "bias".into() }));
}

/// Named tensors in an order of one's own.
struct Pairs(Vec<(&'static str, Option<Array1<f64>>)>);

impl Params for Pairs {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        self.0.iter().for_each(|(name, tensor)| visitor.field(name, tensor));
    }
}

#[test]
fn a_subtree_without_gradient() {
    let layer = || (array![1.0], array![2.0]);
    let mut model = (layer(), vec![layer(), layer()]);
    let mut opt = Momentum::new(1.0, 0.5);
    let grad = || (array![0.5], array![0.5]);
    type Layer = (Array1<f64>, Array1<f64>);
    opt.step(&mut model, &(None::<Layer>, vec![Some(grad()), None])).unwrap();
    assert_eq!(model, (layer(), vec![(array![0.5], array![1.5]), layer()]));
    opt.step(&mut model, &(Some(grad()), None::<Vec<Layer>>)).unwrap();
    assert_eq!(model.0, (array![0.5], array![1.5]));
    assert_eq!(model.1[1], layer());
    assert_eq!(["0.0", "0.1", "1.0.0", "1.1.0"].map(|path| opt.tensor_steps(path)), [1, 1, 1, 0]);
    let report = opt.step(&mut model, &None::<Layer>).unwrap();
    assert!(!report.moved);

    let missing = opt.step(&mut model, &(Some(grad()),)).unwrap_err();
    assert_eq!(missing, Error::Step(StepError::MissingGradient { path: "1.0.0".into() }));
}

/// Whoever has only a slice.
#[test]
fn slices_through_views() {
    let (mut params, grads) = (vec![1.0_f32, 2.0], vec![0.5_f32, 0.5]);
    Sgd::new(1.0).step(&mut ndarray::aview_mut1(&mut params), &ArrayView1::from(&grads)).unwrap();
    assert_eq!(params, [0.5, 1.5]);
}

/// Reading and writing a tree without an optimizer.
#[test]
fn walking_a_tree() {
    fn doubled<A: Scalar + Debug>(tree: &mut impl ParamsMut<Elem = A>) {
        for_each_mut(tree, |_, shape, values| {
            if let Some(mut values) = values {
                values.view_mut(shape).mapv_inplace(|x| x + x);
            }
        });
    }
    let mut tree = (array![1.0, 2.0], None::<Array1<f64>>, array![[3.0]]);
    doubled(&mut tree);
    assert_eq!(elements(&tree), [2.0, 4.0, 6.0]);
    assert_eq!(Layout::of(&tree).unwrap().elements(), 3);
    let mut seen = Vec::new();
    for_each(&tree, |path, shape, values| seen.push((path.to_string(), shape.to_vec(), values.is_some())));
    assert_eq!(seen, [("0".into(), vec![2], true), ("1".into(), vec![], false), ("2".into(), vec![1, 1], true)]);
}
