//! Every call beside loops over what all ranks have.

use gradus::distributed::{Collective, RankGroup};
use gradus::error::RankError;
use gradus::{Error, Scalar};
use gradus_mpi::MpiGroup;

use super::Test;

pub(crate) const TESTS: &[Test] = &[
    ("sums are those of a loop, f32", sums::<f32>),
    ("sums are those of a loop, f64", sums::<f64>),
    ("every rank has the same sums", the_same_everywhere),
    ("numbers go where they should, f32", moves::<f32>),
    ("numbers go where they should, f64", moves::<f64>),
    ("bytes go where they should", bytes),
    ("threads of a rank call in turn", threads),
    ("MPI starts once", once),
];

pub(crate) const LENGTHS: [usize; 7] = [0, 1, 2, 3, 7, 64, 1001];

/// Numbers of many sizes, so that their sum depends on the order.
pub(crate) fn value<A: Scalar>(rank: usize, at: usize) -> A {
    let wave = ((rank * 31 + at * 7) as f64 * 0.37).sin();
    A::from_f64(wave * 10_f64.powi((at * 5 + rank * 3) as i32 % 7 - 3))
}

pub(crate) fn values<A: Scalar>(rank: usize, elements: usize) -> Vec<A> {
    (0..elements).map(|at| value(rank, at)).collect()
}

/// A sum of n numbers in any order is off by at most (n − 1) ε Σ|x|; the loop's own sum is in f64.
fn assert_sum<A: Scalar>(found: A, size: usize, at: usize) {
    let terms = || (0..size).map(|rank| value::<A>(rank, at).as_f64());
    let (exact, bound) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>() * size as f64);
    let error = (found.as_f64() - exact).abs();
    assert!(error <= bound * A::epsilon().as_f64(), "element {at}: {found} where the sum is {exact}");
}

fn sums<A: Scalar>(group: &MpiGroup)
where
    MpiGroup: Collective<A>,
{
    let (rank, size) = (group.rank(), group.size());
    for elements in LENGTHS {
        let mut all = values::<A>(rank, elements);
        group.all_reduce(&mut all).unwrap();
        all.iter().enumerate().for_each(|(at, found)| assert_sum(*found, size, at));

        let mut own = vec![A::zero(); elements];
        group.reduce_scatter(&values::<A>(rank, elements * size), &mut own).unwrap();
        own.iter().enumerate().for_each(|(at, found)| assert_sum(*found, size, rank * elements + at));
    }
}

fn the_same_everywhere(group: &MpiGroup) {
    for elements in LENGTHS {
        let mut sums = values::<f32>(group.rank(), elements);
        group.all_reduce(&mut sums).unwrap();
        let mut all = vec![0.0; elements * group.size()];
        group.all_gather(&sums, &mut all).unwrap();
        for others in all.chunks(elements.max(1)) {
            assert!(others.iter().zip(&sums).all(|(other, own)| other.to_bits() == own.to_bits()));
        }
    }
}

fn moves<A: Scalar>(group: &MpiGroup)
where
    MpiGroup: Collective<A>,
{
    let (rank, size) = (group.rank(), group.size());
    for elements in LENGTHS {
        let own = values::<A>(rank, elements);
        let mut all = vec![A::nan(); elements * size];
        group.all_gather(&own, &mut all).unwrap();
        let expected: Vec<A> = (0..size).flat_map(|rank| values(rank, elements)).collect();
        assert_eq!(all, expected);

        for root in 0..size {
            let mut values = own.clone();
            group.broadcast(&mut values, root).unwrap();
            assert_eq!(values, self::values(root, elements));
        }
    }
}

fn bytes(group: &MpiGroup) {
    for length in LENGTHS {
        let of = |rank: usize| (0..length).map(move |at| (rank * 100 + at) as u8);
        let mut all = vec![0; length * group.size()];
        group.all_gather_bytes(&of(group.rank()).collect::<Vec<_>>(), &mut all).unwrap();
        assert!(all.into_iter().eq((0..group.size()).flat_map(of)));
    }
}

fn threads(group: &MpiGroup) {
    fn shared(_: &(impl Send + Sync)) {}
    shared(group);
    for _ in 0..3 {
        let sum = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut values = [1.0_f32];
                group.all_reduce(&mut values).map(|()| values[0])
            });
            other.join().unwrap()
        });
        assert_eq!(sum, Ok(group.size() as f32));
    }
}

fn once(_: &MpiGroup) {
    let again = MpiGroup::world().unwrap_err();
    assert!(matches!(again, Error::Ranks(RankError::Transport { .. })));
    assert_eq!(again.to_string(), "world: MPI has been started before in this process");
}
