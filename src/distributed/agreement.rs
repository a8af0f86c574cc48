//! How ranks find out, before anything is moved, whether all can take a step and whether it is the same one.

use super::group::Group;
use crate::error::{Error, Result};

/// What a rank makes of a step, and what all make of it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Go,
    Skip,
}

const GO: u8 = 0;
const SKIP: u8 = 1;
const REFUSE: u8 = 2;

/// Tells the others this rank's word and what its step is about, and returns the word of all: an error if one of them refuses or
/// their steps differ, to skip if one of them skips.
///
/// The `digest` stands for what must be the same everywhere; `describe` tells it, a line for each part, if it is not. Costs a message
/// of nine bytes.
pub(super) fn agree(
    group: &impl Group,
    own: Result<Word>,
    digest: u64,
    describe: impl FnOnce() -> Vec<String>,
) -> Result<Word> {
    const LENGTH: usize = 1 + size_of::<u64>();
    let code = match &own {
        Ok(Word::Go) => GO,
        Ok(Word::Skip) => SKIP,
        Err(_) => REFUSE,
    };
    let mut message = [code; LENGTH];
    message[1..].copy_from_slice(&digest.to_le_bytes());
    let mut all = vec![0; LENGTH * group.size()];
    group.all_gather_bytes(&message, &mut all)?;
    let mut words = all.chunks(LENGTH);
    if let Some(rank) = words.clone().position(|word| word[0] == REFUSE) {
        let reason = own.as_ref().err().map(Error::to_string).unwrap_or_default();
        let mut reasons = texts(group, &reason)?;
        return Err(own.err().unwrap_or_else(|| Error::RankRefused { rank, reason: reasons.swap_remove(rank) }));
    }
    if words.clone().any(|word| word[1..] != all[1..LENGTH]) {
        let lines = texts(group, &describe().join("\n"))?;
        return Err(difference(&lines));
    }
    Ok(if words.any(|word| word[0] == SKIP) { Word::Skip } else { Word::Go })
}

/// The texts of all ranks.
fn texts(group: &impl Group, own: &str) -> Result<Vec<String>> {
    let mut lengths = vec![0; size_of::<u64>() * group.size()];
    group.all_gather_bytes(&(own.len() as u64).to_le_bytes(), &mut lengths)?;
    let lengths =
        lengths.chunks(size_of::<u64>()).map(|bytes| bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)));
    let lengths: Vec<_> = lengths.collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut padded = own.as_bytes().to_vec();
    padded.resize(longest, 0);
    let mut all = vec![0; longest * group.size()];
    group.all_gather_bytes(&padded, &mut all)?;
    let text = |(text, length): (&[u8], usize)| String::from_utf8_lossy(&text[..length]).into_owned();
    Ok(match longest {
        0 => vec![String::new(); group.size()],
        _ => all.chunks(longest).zip(lengths).map(text).collect(),
    })
}

/// The first line in which a rank differs from rank 0.
fn difference(texts: &[String]) -> Error {
    let lines = |rank: usize| texts[rank].lines().map(str::to_owned).chain(["nothing more".to_owned()]);
    let differ = |rank: usize| lines(0).zip(lines(rank)).find(|(expected, found)| expected != found);
    let found = (1..texts.len()).find_map(|rank| Some((rank, differ(rank)?)));
    let (rank, (expected, found)) =
        found.unwrap_or_else(|| (0, ("one step".to_owned(), "another that is described alike".to_owned())));
    Error::RanksDisagree { rank, expected, found }
}

#[cfg(test)]
mod tests {
    use super::super::ThreadGroup;
    use super::*;

    fn words(own: impl Fn(usize) -> Result<Word> + Sync, digest: impl Fn(usize) -> u64 + Sync) -> Vec<Result<Word>> {
        ThreadGroup::run(3, |group| {
            let rank = group.rank();
            let lines = || vec!["a tensor".to_owned(), format!("digest {}", digest(rank))];
            agree(&group, own(rank), digest(rank), lines)
        })
    }

    #[test]
    fn all_act_alike() {
        assert_eq!(words(|_| Ok(Word::Go), |_| 7), vec![Ok(Word::Go); 3]);
        let skips = words(|rank| Ok(if rank == 1 { Word::Skip } else { Word::Go }), |_| 7);
        assert_eq!(skips, vec![Ok(Word::Skip); 3]);

        let refused = words(|rank| if rank == 1 { Err(Error::NoStep) } else { Ok(Word::Go) }, |rank| rank as u64);
        let other = || Err(Error::RankRefused { rank: 1, reason: Error::NoStep.to_string() });
        assert_eq!(refused, [other(), Err(Error::NoStep), other()]);

        let differ = words(|_| Ok(Word::Go), |rank| rank as u64 / 2);
        let (expected, found) = ("digest 0".to_owned(), "digest 1".to_owned());
        assert_eq!(differ, vec![Err(Error::RanksDisagree { rank: 2, expected, found }); 3]);
    }
}
