//! Any tree and layout: the right element is moved, and everything is put back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gradus::check;
use gradus::params::for_each;
use gradus::prelude::*;
use ndarray::{Array0, Array1, Array2, Array3, ArrayD, IxDyn, ShapeBuilder, arr0, array, s};

use super::TOLERANCE;

fn bits<T: Params<Elem = f64> + ?Sized>(tree: &T) -> Vec<u64> {
    let mut all = Vec::new();
    for_each(tree, |_, shape, values| {
        values.iter().for_each(|values| all.extend(values.view(shape).iter().map(|x| x.to_bits())));
    });
    all
}

/// Half the sum of squares, each times 1, 2, 3 … in the order of the walk, row by row: its gradient is known.
fn loss<T: Params<Elem = f64> + ?Sized>(tree: &T) -> f64 {
    let (mut sum, mut factor) = (0.0, 0.0);
    for_each(tree, |_, shape, values| {
        for x in values.iter().flat_map(|values| values.view(shape).to_owned()) {
            factor += 1.0;
            sum += factor * x * x / 2.0;
        }
    });
    sum
}

/// Values that are not alike; zeros of either sign among them.
fn value(number: usize) -> f64 {
    if number % 5 == 4 { -0.0 } else { ((number * 104_729) as f64 * 0.37).sin() }
}

#[derive(Params, Clone)]
struct Everything {
    rows: Array2<f64>,
    columns: Array2<f64>,
    cube: Array3<f64>,
    number: Array0<f64>,
    nothing: Array2<f64>,
    high: ArrayD<f64>,
    list: Vec<(Array1<f64>, Option<Array1<f64>>)>,
}

fn everything() -> Everything {
    let mut columns = Array2::zeros((3, 4).f());
    columns.indexed_iter_mut().for_each(|((i, j), x)| *x = value(i * 4 + j));
    Everything {
        rows: Array2::from_shape_fn((2, 3), |(i, j)| value(i * 3 + j)),
        columns,
        cube: Array3::from_shape_fn((2, 3, 2), |(i, j, k)| value(i * 6 + j * 2 + k)),
        number: arr0(0.75),
        nothing: Array2::zeros((0, 3)),
        high: ArrayD::from_shape_fn(IxDyn(&[1, 2, 1, 2, 1, 2]), |index| value(index[1] * 4 + index[3] * 2 + index[5])),
        list: vec![(array![0.5, -0.25], None), (array![1.0], Some(array![2.0]))],
    }
}

/// The gradient of [`loss`].
fn grads<T: ParamsMut<Elem = f64> + Clone>(tree: &T) -> T {
    let (mut grads, mut factor) = (tree.clone(), 0.0);
    gradus::params::for_each_mut(&mut grads, |_, shape, values| {
        let Some(mut values) = values else { return };
        values.view_mut(shape).iter_mut().for_each(|x| {
            factor += 1.0;
            *x *= factor;
        });
    });
    grads
}

#[test]
fn every_tensor_of_a_tree() {
    let mut tree = everything();
    let before = bits(&tree);
    let found = check::gradients(&mut tree, &grads(&everything()), loss).unwrap();
    assert!(found.worst_error() < TOLERANCE, "{found}");
    assert_eq!(found.checked(), before.len());
    let paths: Vec<_> = found.tensors().iter().map(|tensor| (&*tensor.path, tensor.checked)).collect();
    assert_eq!(
        paths,
        [
            ("rows", 6),
            ("columns", 12),
            ("cube", 12),
            ("number", 1),
            ("nothing", 0),
            ("high", 8),
            ("list.0.0", 2),
            ("list.1.0", 1),
            ("list.1.1", 1)
        ]
    );
    assert!(found.tensors()[4].worst.is_none());
    assert_eq!(bits(&tree), before);
}

/// One element of the tree.
type Pick = fn(&mut Everything) -> &mut f64;

#[test]
fn the_index_is_that_of_the_element() {
    let right = grads(&everything());
    let planted: [(&str, &[usize], Pick); 6] = [
        ("rows", &[1, 2], |tree| &mut tree.rows[[1, 2]]),
        ("columns", &[2, 2], |tree| &mut tree.columns[[2, 2]]),
        ("cube", &[1, 0, 1], |tree| &mut tree.cube[[1, 0, 1]]),
        ("number", &[], |tree| &mut tree.number[()]),
        ("high", &[0, 1, 0, 0, 0, 1], |tree| &mut tree.high[[0, 1, 0, 0, 0, 1]]),
        ("list.1.1", &[0], |tree| tree.list[1].1.as_mut().map(|tensor| &mut tensor[0]).unwrap()),
    ];
    for (path, index, pick) in planted {
        let mut wrong = right.clone();
        *pick(&mut wrong) *= -1.0;
        let found = check::gradients(&mut everything(), &wrong, loss).unwrap();
        let worst = found.worst().unwrap();
        assert_eq!((&*worst.path, &*worst.index), (path, index));
        assert!((worst.error - 2.0).abs() < TOLERANCE);
        let others = found.tensors().iter().filter(|tensor| tensor.path != path && tensor.checked > 0);
        assert!(others.into_iter().all(|tensor| tensor.worst_error() < TOLERANCE), "{found}");
    }
}

#[test]
fn views_with_gaps_and_backwards_and_a_gradient_in_another_order() {
    let mut large = Array2::from_shape_fn((6, 8), |(i, j)| value(i * 8 + j));
    let before = bits(&large);
    let mut view = large.slice_mut(s![..;2, ..;-3]);
    let mut given = Array2::zeros(view.dim().f());
    given.assign(&grads(&view.to_owned()));
    let found = check::gradients(&mut view, &given, loss).unwrap();
    assert!(found.worst_error() < TOLERANCE && found.checked() == 9, "{found}");

    given[[2, 1]] = 0.5;
    let found = check::gradients(&mut view.reversed_axes(), &given.reversed_axes(), |view| loss(&view.t().to_owned()));
    let found = found.unwrap();
    assert_eq!(found.worst().unwrap().index, [1, 2]);
    assert_eq!(bits(&large), before);
}

#[test]
fn a_list_without_a_size_and_a_tuple_of_references() {
    let mut list = vec![array![1.0, 2.0], array![3.0]];
    let slice: &mut [Array1<f64>] = &mut list;
    let given = grads(&slice.to_vec());
    assert!(check::gradients(slice, &given, loss).unwrap().worst_error() < TOLERANCE);

    let (mut w, mut b) = (array![[1.0, 2.0]], array![3.0]);
    let found = check::gradients(&mut (&mut w, &mut b), &(array![[1.0, 2.0]], array![6.0]), |(w, b)| {
        (w[[0, 0]] * w[[0, 0]] + w[[0, 1]] * w[[0, 1]]) / 2.0 + b[0] * b[0]
    });
    assert!(found.unwrap().worst_error() < TOLERANCE);
}

#[test]
fn a_loss_that_panics_leaves_the_parameters_as_they_were() {
    let (before, given) = (bits(&everything()), grads(&everything()));
    // Twice at rest, at the first elements, and in the second look that a wrong gradient gets.
    for (number, factor) in [(0, 1.0), (1, 1.0), (2, 1.0), (7, 1.0), (30, 1.0), (3, -1.0), (4, -1.0)] {
        let (mut tree, mut asked) = (everything(), 0);
        let mut given = given.clone();
        given.rows[[0, 0]] *= factor;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            check::gradients(&mut tree, &given, |tree| {
                assert!(number <= 1 || asked != number || bits(tree) != before, "it is moved when it is asked");
                if asked == number {
                    std::panic::resume_unwind(Box::new("no loss"));
                }
                asked += 1;
                loss(tree)
            })
        }));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "no loss");
        assert_eq!(bits(&tree), before, "{number}");
    }
}

/// Whatever is allocated for an element does not grow with the tensor.
#[test]
fn nothing_is_copied() {
    const ELEMENTS: usize = 1 << 18;
    let (mut w, given) = (Array1::<f64>::zeros(ELEMENTS), Array1::<f64>::zeros(ELEMENTS));
    let some = check::Gradients::new().sample(100, 1);
    let memory = allocation_counter::measure(|| _ = some.compare(&mut w, &given, |w| w[0]).unwrap());
    assert!(memory.bytes_total < 64 * 1024, "{memory:?}");
}
