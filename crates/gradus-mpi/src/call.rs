//! What a rank is about to do, in words that it sends to the others before it does it.

use gradus::Error;
use gradus::error::RankError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Barrier,
    AllGatherBytes,
    AllReduce,
    ReduceScatter,
    AllGather,
    Broadcast,
    /// The last call of a rank.
    Leave,
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::Barrier,
        Self::AllGatherBytes,
        Self::AllReduce,
        Self::ReduceScatter,
        Self::AllGather,
        Self::Broadcast,
        Self::Leave,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Barrier => "barrier",
            Self::AllGatherBytes => "all_gather_bytes",
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Broadcast => "broadcast",
            Self::Leave => "leave",
        }
    }
}

/// A call and everything about it in which ranks must agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// The bytes of an element.
    pub(crate) width: usize,
    /// The elements of the longest buffer.
    pub(crate) whole: usize,
    /// The elements of one rank, where the call has parts.
    pub(crate) part: usize,
    pub(crate) root: usize,
    pub(crate) longest_message: usize,
    pub(crate) fixed_order: bool,
}

/// The length of a call in words.
pub(crate) const WORDS: usize = 7;

impl Call {
    pub(crate) fn words(&self) -> [u64; WORDS] {
        let numbers = [self.width, self.whole, self.part, self.root, self.longest_message];
        let [width, whole, part, root, longest_message] = numbers.map(|number| number as u64);
        [self.operation as u64, width, whole, part, root, longest_message, u64::from(self.fixed_order)]
    }
}

/// Returns an error, the same on all ranks, unless all of them are about to make the same call.
pub(crate) fn compare(calls: &[u64]) -> Result<(), Error> {
    let (calls, _) = calls.as_chunks::<WORDS>();
    let leaves = |call: &[u64; WORDS]| call[0] == Operation::Leave as u64;
    match calls.iter().position(|call| *call != calls[0]) {
        None => Ok(()),
        Some(other) => Err(match calls.iter().position(leaves) {
            Some(rank) => Error::Ranks(RankError::RankLeft { rank }),
            None => {
                let [expected, found] = [0, other].map(|rank| describe(&calls[rank]));
                Error::Ranks(RankError::RanksDisagree { rank: other, expected, found })
            }
        }),
    }
}

fn describe([operation, width, whole, part, root, longest, fixed]: &[u64; WORDS]) -> String {
    let name = Operation::ALL.iter().find(|known| **known as u64 == *operation).map_or("unknown", |known| known.name());
    let order = if *fixed == 0 { "any" } else { "fixed" };
    format!(
        "a call {name}({whole} elements of {width} bytes, parts of {part}, root {root}; messages of at most {longest}, \
         order {order})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call {
        operation: Operation::AllReduce,
        width: 4,
        whole: 3,
        part: 3,
        root: 0,
        longest_message: 8,
        fixed_order: false,
    };

    fn compared(calls: [Call; 3]) -> Result<(), Error> {
        compare(&calls.map(|call| call.words()).concat())
    }

    #[test]
    fn whatever_differs_is_told() {
        assert_eq!(compared([CALL; 3]), Ok(()));
        let others = [
            Call { operation: Operation::Barrier, ..CALL },
            Call { width: 8, ..CALL },
            Call { whole: 4, ..CALL },
            Call { part: 4, ..CALL },
            Call { root: 1, ..CALL },
            Call { longest_message: 9, ..CALL },
            Call { fixed_order: true, ..CALL },
        ];
        for other in others {
            match compared([CALL, CALL, other]) {
                Err(Error::Ranks(RankError::RanksDisagree { rank: 2, expected, found })) => assert_ne!(expected, found),
                end => panic!("{other:?}: {end:?}"),
            }
        }
        let leave = Call { operation: Operation::Leave, ..CALL };
        assert_eq!(compared([CALL, leave, leave]), Err(Error::Ranks(RankError::RankLeft { rank: 1 })));
        assert_eq!(compared([leave; 3]), Ok(()));
    }

    #[test]
    fn a_call_is_described_in_full() {
        let expected = "a call all_reduce(3 elements of 4 bytes, parts of 3, root 0; messages of at most 8, order any)";
        assert_eq!(describe(&CALL.words()), expected);
    }
}
