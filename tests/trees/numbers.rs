//! Numbers that are in no array: slices, `Vec`s, structs of scalars.

use std::collections::{BTreeMap, HashMap};
use std::slice;

use gradus::error::StepError;
use gradus::params::{Layout, Sorted, Visitor, VisitorMut, for_each};
use gradus::prelude::*;
use gradus::{Error, Scalar};
use ndarray::{Array, Array0, Array1, Array2, Array3, array, aview1};

use super::{elements, moves_as_a_vector, paths};

fn shapes(tree: &impl Params) -> Vec<Vec<usize>> {
    Layout::of(tree).unwrap().tensors().iter().map(|info| info.shape().to_vec()).collect()
}

#[test]
fn a_list_of_numbers_is_one_tensor() {
    fn check<T: ParamsMut<Elem = f64>>(mut tree: T) {
        assert_eq!((paths(&tree), shapes(&tree)), (vec![String::new()], vec![vec![3]]));
        moves_as_a_vector(&mut tree, <[f64]>::to_vec);
        moves_as_a_vector(&mut tree, |halves| Array1::from(halves.to_vec()));
        moves_as_a_vector(&mut tree, |halves| Box::<[f64]>::from(halves));
        moves_as_a_vector(&mut tree, |halves| <[f64; 3]>::try_from(halves).unwrap());
    }
    let mut memory = [1.0, 2.0, 3.0, 4.0];
    check(&mut memory[1..]);
    assert!(memory[0] == 1.0 && memory[1] != 2.0);
    check(vec![1.0, 2.0, 3.0]);
    check([1.0, 2.0, 3.0]);
    check(&mut vec![1.0, 2.0, 3.0]);
    check(Box::<[f64]>::from([1.0, 2.0, 3.0]));
    check(Some(vec![1.0, 2.0, 3.0]));
    check(array![1.0, 2.0, 3.0]);

    let (mut opt, mut single) = (Sgd::new(0.5), vec![1.0_f32, 2.0]);
    opt.step(&mut single, &[1.0_f32, -2.0]).unwrap();
    assert_eq!(single, [0.5, 3.0]);
    opt.step(&mut &mut single[..], &&[0.0_f32, 2.0][..]).unwrap();
    assert_eq!(single, [0.5, 2.0]);
}

/// Their lengths are the tensor's axes.
#[test]
fn a_list_of_arrays_of_numbers_is_one_tensor() {
    let points = vec![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    assert_eq!((paths(&points), shapes(&points)), (vec![String::new()], vec![vec![2, 3]]));
    assert_eq!(elements(&points), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    moves_as_a_vector(&mut points.clone(), |halves| Array2::from_shape_vec((2, 3), halves.to_vec()).unwrap());
    moves_as_a_vector(&mut points.clone(), |halves| halves.as_chunks::<3>().0.to_vec());

    let mut deep = [[[1.0, 2.0]; 3]; 1];
    assert_eq!(shapes(&deep), [[1, 3, 2]]);
    moves_as_a_vector(&mut deep, |halves| Array3::from_shape_vec((1, 3, 2), halves.to_vec()).unwrap());

    let (none, empty): (Vec<[f64; 3]>, [[f64; 0]; 2]) = (vec![], [[]; 2]);
    assert_eq!((shapes(&none), shapes(&empty)), (vec![vec![0, 3]], vec![vec![2, 0]]));
    // A `Vec` of `Vec`s may have rows of several lengths.
    assert_eq!(shapes(&vec![vec![1.0, 2.0], vec![3.0]]), [[2], [1]]);
}

#[test]
fn a_list_of_lists_of_trees_has_a_level_for_each() {
    let mut lists = [[(array![1.0], array![2.0]), (array![3.0], array![4.0])]; 1];
    assert_eq!(paths(&lists), ["0.0.0", "0.0.1", "0.1.0", "0.1.1"]);
    moves_as_a_vector(&mut lists, |halves| {
        let pair = |at: usize| (aview1(&halves[at..at + 1]).to_owned(), array![halves[at + 1]]);
        vec![vec![pair(0), pair(2)]]
    });
    let empty: [[Array1<f64>; 0]; 3] = [[], [], []];
    assert!(paths(&empty).is_empty());
    assert_eq!(paths(&[[Some(1.0), None], [None, Some(2.0)]]), ["0.0", "1.1"]);
}

#[test]
fn a_number_is_a_tensor_without_dimensions() {
    let mut number = 3.0;
    assert_eq!((paths(&number), shapes(&number)), (vec![String::new()], vec![vec![]]));
    moves_as_a_vector(&mut number, |halves| halves[0]);
    moves_as_a_vector(&mut number, |halves| Array0::from_elem((), halves[0]));
    let mut pair = (1.0, array![2.0, 3.0]);
    moves_as_a_vector(&mut pair, |halves| (halves[0], halves[1..].to_vec()));
    assert_eq!(paths(&BTreeMap::from([("a", 1.0), ("b", 2.0)])), ["a", "b"]);
    let (mut a, mut b) = (1.0, 2.0);
    moves_as_a_vector(&mut vec![&mut a, &mut b], |halves| vec![Some(halves[0]), Some(halves[1])]);
    assert!(a != 1.0 && b != 2.0);
}

/// A struct without the derive macro.
struct Fit<A> {
    amplitude: A,
    rates: Vec<A>,
    offset: Array1<A>,
}

impl<A: Element> Params for Fit<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.field("amplitude", &self.amplitude);
        visitor.field("rates", &self.rates);
        visitor.field("offset", &self.offset);
    }
}

impl<A: Element> ParamsMut for Fit<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        visitor.field("amplitude", &mut self.amplitude);
        visitor.field("rates", &mut self.rates);
        visitor.field("offset", &mut self.offset);
    }
}

/// Code that knows no more of the elements than their trait has numbers and lists of them, too.
#[test]
fn generic_code_has_numbers() {
    fn step<A: Scalar>(fit: &mut Fit<A>) {
        let grads = (A::one(), vec![A::one()]);
        let mut beside = (A::one(), vec![A::one()]);
        Sgd::new(0.5).step(&mut beside, &grads).unwrap();
        let grads = Fit { amplitude: beside.0, rates: beside.1, offset: Array::ones(2) };
        Sgd::new(0.5).step(fit, &grads).unwrap();
    }
    fn check<A: Scalar>() {
        let mut fit = Fit { amplitude: A::one(), rates: vec![A::one()], offset: Array::ones(2) };
        assert_eq!(paths(&fit), ["amplitude", "rates", "offset"]);
        step(&mut fit);
        let all = [fit.amplitude, fit.rates[0], fit.offset[1]];
        assert_eq!(all.map(A::as_f64), [0.75, 0.75, 0.5]);
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_hash_map_is_sorted() {
    let names = ["b", "c.weight", "a", "c"];
    let values = || names.map(|name| (name.to_owned(), array![1.0, 2.0]));
    let (mut params, grads) = (HashMap::from(values()), HashMap::from(values()));
    let sorted = ["a", "b", "c", "c.weight"];
    assert_eq!(paths(&Sorted(&params)), sorted);
    assert_eq!(paths(&Sorted(&mut params)), sorted);

    let mut opt = Sgd::new(0.5);
    opt.step(&mut Sorted(&mut params), &Sorted(&grads)).unwrap();
    assert!(params.values().all(|w| w == array![0.5, 1.0]));
    let mut owned = Sorted(params);
    opt.step(&mut owned, &BTreeMap::from(values())).unwrap();
    assert!(owned.values().all(|w| w == array![0.0, 0.0]) && owned["a"] == array![0.0, 0.0]);
    owned.insert("d".into(), array![1.0]);
    let error = opt.step(&mut owned, &Sorted(&grads)).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::MissingGradient { path }) if path == "d"), "no error names d");

    // Any keys that are names, and any hasher.
    let mut numbers = HashMap::<&str, f32, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>::default();
    numbers.extend([("y", 2.0), ("x", 1.0)]);
    let mut all = Vec::new();
    for_each(&Sorted(&numbers), |path, _, values| {
        all.extend(values.and_then(|values| Some((path.to_string(), values.view(&[]).first().copied()?))));
    });
    assert_eq!(all, [("x".to_owned(), 1.0), ("y".to_owned(), 2.0)]);
}

/// The number lies where it lay: nothing is copied.
#[test]
fn numbers_are_lent() {
    let numbers = [1.0, 2.0];
    for_each(&numbers, |_, _, values| {
        let values = values.unwrap();
        assert!(std::ptr::eq(values.view(&[2]).as_ptr(), numbers.as_ptr()));
    });
    let number = 1.0;
    for_each(&number, |_, _, values| {
        let values = values.unwrap();
        assert!(std::ptr::eq(values.view(&[]).as_ptr(), slice::from_ref(&number).as_ptr()));
    });
}
