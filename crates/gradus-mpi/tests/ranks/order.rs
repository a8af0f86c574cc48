//! The order of the sums, where it is fixed.

use gradus::Scalar;
use gradus::distributed::{Collective, RankGroup, ThreadGroup};
use gradus_mpi::MpiGroup;

use super::Test;
use super::collectives::{LENGTHS, values};

pub(crate) const TESTS: &[Test] = &[
    ("in fixed order the bits are those of threads, f32", as_threads::<f32>),
    ("in fixed order the bits are those of threads, f64", as_threads::<f64>),
    ("in fixed order both sums have the same bits", as_each_other),
];

/// The sum of all and the own part of it, of numbers of which every rank has `part` for each rank.
fn both_sums<A: Scalar, G: Collective<A>>(group: &G, part: usize) -> [Vec<A>; 2] {
    let mut all = values(group.rank(), part * group.size());
    let mut own = vec![A::zero(); part];
    group.reduce_scatter(&all, &mut own).unwrap();
    group.all_reduce(&mut all).unwrap();
    [all, own]
}

fn as_threads<A: Scalar>(group: &MpiGroup)
where
    MpiGroup: Collective<A>,
    ThreadGroup: Collective<A>,
{
    for part in LENGTHS {
        let threads = ThreadGroup::run(group.size(), |group| both_sums::<A, _>(&group, part));
        // Equal numbers that are not zero have equal bits, and none of these sums is zero.
        assert_eq!(both_sums(group, part), threads[group.rank()]);
        assert!(threads[0].iter().flatten().all(|sum| *sum != A::zero()));
    }
}

fn as_each_other(group: &MpiGroup) {
    for part in LENGTHS {
        let [all, own] = both_sums::<f32, _>(group, part);
        assert_eq!(all[part * group.rank()..][..part], own);
    }
}
