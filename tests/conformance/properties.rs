//! Random trees in random layouts on random numbers of threads: always the bits of one contiguous tensor.

use gradus::clip::{self, Norm};
use gradus::prelude::*;
use gradus::testing::tensors::{Arranged, Arrangement, bits};
use ndarray::{Array1, ArrayD};
use proptest::prelude::*;

use super::rows::{Row, rows};

/// One tensor of a random tree: its shape and how parameter and gradient lie in memory.
type Leaf = (Vec<usize>, Arrangement, Arrangement);

fn arrangements() -> impl Strategy<Value = Arrangement> {
    prop::sample::select(Arrangement::ALL.to_vec())
}

/// Up to five tensors of rank 0 to 4, empty ones too.
fn trees() -> impl Strategy<Value = Vec<Leaf>> {
    prop::collection::vec((prop::collection::vec(0..9_usize, 0..5), arrangements(), arrangements()), 1..6)
}

/// Numbers from 10⁻⁸ to 10⁸ of either sign, and zeros.
fn values(count: usize) -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        1 => Just(0.0),
        9 => (-8.0..8.0, prop::bool::ANY).prop_map(|(exponent, negative): (f64, bool)| {
            let size = 10.0_f64.powf(exponent);
            if negative { -size } else { size }
        }),
    ];
    prop::collection::vec(value, count)
}

/// A tree, its parameters and two gradients, each as one long list.
fn problems() -> impl Strategy<Value = (Vec<Leaf>, [Vec<f64>; 3])> {
    trees().prop_flat_map(|tree| {
        let count = tree.iter().map(|(shape, ..)| shape.iter().product::<usize>()).sum();
        (Just(tree), [values(count), values(count), values(count)])
    })
}

/// Cuts a list into the tensors of a tree.
fn cut<A: Scalar>(tree: &[Leaf], mut values: &[f64], arrangement: impl Fn(&Leaf) -> Arrangement) -> Vec<Arranged<A>> {
    let tensor = |leaf: &Leaf| {
        let (own, rest) = values.split_at(leaf.0.iter().product());
        values = rest;
        let own = own.iter().map(|value| A::from_f64(*value)).collect();
        Arranged::new(&ArrayD::from_shape_vec(leaf.0.clone(), own).unwrap(), arrangement(leaf))
    };
    tree.iter().map(tensor).collect()
}

fn whole<A: Scalar>(values: &[f64]) -> Array1<A> {
    values.iter().map(|value| A::from_f64(*value)).collect()
}

fn any_tree_is_one_tensor<A: Scalar>(row: &Row<A>, tree: &[Leaf], [start, grads @ ..]: &[Vec<f64>; 3], threads: usize) {
    let (mut plain, mut params) = (row.with(0.01).clip_value(1e3), whole::<A>(start));
    for grads in grads {
        plain.step(&mut params, &whole::<A>(grads)).unwrap();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut arranged = cut::<A>(tree, start, |leaf| leaf.1);
    pool.install(|| {
        let mut opt = row.with(0.01).clip_value(1e3);
        for grads in grads {
            opt.step(&mut arranged, &cut::<A>(tree, grads, |leaf| leaf.2)).unwrap();
        }
    });
    let flat: Vec<A> = arranged.iter().flat_map(|tensor| tensor.view().iter().copied().collect::<Vec<_>>()).collect();
    assert_eq!(bits(&Array1::from(flat)), bits(&params), "{}", row.name);
}

fn the_norm_is_that_of_the_naive_sum<A: Scalar>(tree: &[Leaf], values: &[f64]) {
    /// Pairwise sums of squares in f64 lose less than this on a few thousand elements.
    const TOLERANCE: f64 = 1e-14;
    let naive = whole::<A>(values).iter().map(|value| value.as_f64().powi(2)).sum::<f64>().sqrt();
    let mut norms = Vec::new();
    for arrangement in Arrangement::ALL {
        let mut grads = cut::<A>(tree, values, |_| arrangement);
        let norm = clip::global_norm(&mut grads, f64::MAX).unwrap();
        assert!((norm - naive).abs() <= TOLERANCE * naive, "{norm} is not {naive}");
        norms.push(norm.to_bits());

        Norm::global(1.0).exact(true).clip(&mut grads).unwrap();
        let clipped = clip::global_norm(&mut grads, f64::MAX).unwrap();
        let tolerance = 4.0 * A::epsilon().as_f64(); // factor, products and both norms round
        assert!((clipped - naive.min(1.0)).abs() <= tolerance, "{norm} became {clipped}");
    }
    assert!(norms.iter().all(|norm| *norm == norms[0]), "{norms:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn layouts_trees_and_threads(problem in problems(), threads in 1..5_usize) {
        let (tree, values) = problem;
        rows::<f32>().iter().filter(|row| row.is_elementwise()).for_each(|row| any_tree_is_one_tensor(row, &tree, &values, threads));
        rows::<f64>().iter().filter(|row| row.is_elementwise()).for_each(|row| any_tree_is_one_tensor(row, &tree, &values, threads));
    }

    #[test]
    fn norms(problem in problems()) {
        let (tree, [values, ..]) = problem;
        the_norm_is_that_of_the_naive_sum::<f32>(&tree, &values);
        the_norm_is_that_of_the_naive_sum::<f64>(&tree, &values);
    }
}
