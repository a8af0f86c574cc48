//! Ranks that do not make the same call.

use gradus::distributed::{Collective, RankGroup};
use gradus::error::{ArgumentError, RankError};
use gradus::{Error, Result};
use gradus_mpi::MpiGroup;

use super::Test;

pub(crate) const TESTS: &[Test] = &[
    ("another length is an error on all", lengths),
    ("another call is an error on all", calls),
    ("another type is an error on all", types),
    ("another root is an error on all", roots),
    ("what is no call is refused by all", no_calls),
];

/// The last rank does something else; then all go on.
fn differ(group: &MpiGroup, one: impl Fn() -> Result<()>, other: impl Fn() -> Result<()>) -> String {
    let last = group.size() - 1;
    let end = if group.rank() == last { other() } else { one() };
    let error = end.unwrap_err();
    assert!(matches!(error, Error::Ranks(RankError::RanksDisagree { rank, .. }) if rank == last), "{error}");
    let mut values = [1.0_f32];
    group.all_reduce(&mut values).unwrap();
    assert_eq!(values, [group.size() as f32]);
    error.to_string()
}

fn lengths(group: &MpiGroup) {
    let text = differ(group, || group.all_reduce(&mut [1.0_f32; 3]), || group.all_reduce(&mut [1.0_f32; 4]));
    let last = group.size() - 1;
    assert!(text.starts_with(&format!("rank {last} has a call all_reduce(4 elements of 4 bytes, parts of 4, root 0;")));
    assert!(text.contains(" where rank 0 has a call all_reduce(3 elements of 4 bytes, parts of 3, root 0;"));
    let whole = vec![0_u8; group.size()];
    differ(
        group,
        || group.all_gather_bytes(&[1], &mut whole.clone()),
        || group.all_gather_bytes(&[1, 2], &mut whole.clone()),
    );
}

fn calls(group: &MpiGroup) {
    differ(group, || group.barrier(), || group.broadcast(&mut [0.0_f64], 0));
    differ(group, || group.all_reduce(&mut [0.0_f64]), || group.broadcast(&mut [0.0_f64], 0));
}

fn types(group: &MpiGroup) {
    differ(group, || group.all_reduce(&mut [1.0_f32; 3]), || group.all_reduce(&mut [1.0_f64; 3]));
}

fn roots(group: &MpiGroup) {
    differ(group, || group.broadcast(&mut [1.0_f32], 0), || group.broadcast(&mut [1.0_f32], 1));
}

fn no_calls(group: &MpiGroup) {
    let size = group.size();
    let mut whole = vec![0.0_f32; size + 1];
    let expected = Error::Argument(ArgumentError::Shape {
        argument: "the whole buffer",
        expected: vec![size],
        found: vec![size + 1],
    });
    assert_eq!(group.all_gather(&[1.0], &mut whole), Err(expected.clone()));
    assert_eq!(group.reduce_scatter(&whole, &mut [1.0]), Err(expected.clone()));
    assert_eq!(group.all_gather_bytes(&[1], &mut vec![0; size + 1]), Err(expected));
    assert_eq!(group.broadcast(&mut whole, size), Err(Error::Ranks(RankError::NoRank { rank: size, size })));
    group.barrier().unwrap();
}
