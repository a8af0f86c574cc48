//! How ranks find out, before anything is moved, whether all can take a step and whether it is the same one.

use super::group::RankGroup;
use crate::adaptor::NonFinite;
use crate::error::{Error, RankError, Result, StepError};
use crate::params::Element;
use crate::step::Step;

/// What a rank makes of a step, and what all make of it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Go,
    Skip,
}

impl Word {
    /// What a policy makes of gradients that are finite or not.
    pub(super) fn of<A: Element>(policy: NonFinite, finite: bool, step: &Step<'_, A>) -> Result<Self> {
        let outcome = policy.outcome(if finite { 0.0 } else { f64::NAN }, step)?;
        Ok(if outcome.skip { Self::Skip } else { Self::Go })
    }
}

const GO: u8 = 0;
const SKIP: u8 = 1;
const REFUSE: u8 = 2;
/// Refuses for a value that another rank has, and can tell more about.
const REFUSE_TOO: u8 = 3;
const NORM: u8 = 4;

const LENGTH: usize = 1 + size_of::<u64>();

/// Tells the others this rank's word and what its step is about, and returns the word of all: an error if one of them refuses or
/// their steps differ, to skip if one of them skips.
///
/// The `digest` stands for what must be the same everywhere; `describe` tells it, a line for each part, if it is not. Costs a message
/// of nine bytes.
pub(super) fn agree(
    group: &impl RankGroup,
    own: Result<Word>,
    digest: u64,
    describe: impl FnOnce() -> Vec<String>,
) -> Result<Word> {
    let code = match &own {
        Ok(Word::Go) => GO,
        Ok(Word::Skip) => SKIP,
        Err(Error::Step(StepError::NormOverflow { .. })) => REFUSE_TOO,
        Err(_) => REFUSE,
    };
    let words = exchange(group, (code, digest), own.err())?;
    if words.iter().any(|word| word.1 != digest) {
        let lines = texts(group, &describe().join("\n"))?;
        return Err(difference(&lines));
    }
    Ok(if words.iter().any(|word| word.0 == SKIP) { Word::Skip } else { Word::Go })
}

/// Tells the others that this rank has no step to agree about, and returns why.
pub(super) fn refuse(group: &impl RankGroup, own: Error) -> Error {
    agree(group, Err(own.clone()), 0, Vec::new).err().unwrap_or(own)
}

/// The norms of all ranks. One that agrees or refuses meanwhile is understood, as messages are of one form.
pub(super) fn norms(group: &impl RankGroup, own: f64) -> Result<Vec<f64>> {
    let norms = exchange(group, (NORM, own.to_bits()), None)?;
    Ok(norms.into_iter().map(|(_, bits)| f64::from_bits(bits)).collect())
}

/// What all ranks say, if none refuses and all speak of the same; `refused` is why this one does.
fn exchange(group: &impl RankGroup, (code, number): (u8, u64), refused: Option<Error>) -> Result<Vec<(u8, u64)>> {
    let mut message = [code; LENGTH];
    message[1..].copy_from_slice(&number.to_le_bytes());
    let mut all = vec![0; LENGTH * group.size()];
    group.all_gather_bytes(&message, &mut all)?;
    let said = all.as_chunks::<LENGTH>().0.iter();
    let said = said.map(|[code, number @ ..]| (*code, u64::from_le_bytes(*number)));
    let said: Vec<_> = said.collect();
    let find = |code| said.iter().position(|word| word.0 == code);
    if let Some(rank) = find(REFUSE).or(find(REFUSE_TOO)) {
        let reason = refused.as_ref().map(Error::to_string).unwrap_or_default();
        let mut reasons = texts(group, &reason)?;
        let others = || Error::Ranks(RankError::RankRefused { rank, reason: reasons.swap_remove(rank) });
        return Err(refused.filter(|_| code == REFUSE || said[rank].0 == REFUSE_TOO).unwrap_or_else(others));
    }
    let asks = |rank: usize| said[rank].0 == NORM;
    if let Some(rank) = (0..said.len()).find(|rank| asks(*rank) != asks(0)) {
        let describe = |rank| if asks(rank) { "a norm to ask for" } else { "a step to agree about" }.to_owned();
        return Err(Error::Ranks(RankError::RanksDisagree { rank, expected: describe(0), found: describe(rank) }));
    }
    Ok(said)
}

/// The texts of all ranks.
fn texts(group: &impl RankGroup, own: &str) -> Result<Vec<String>> {
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
    Error::Ranks(RankError::RanksDisagree { rank, expected, found })
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

        let refused = words(
            |rank| if rank == 1 { Err(Error::Step(StepError::NoStep)) } else { Ok(Word::Go) },
            |rank| rank as u64,
        );
        let other = || {
            Err(Error::Ranks(RankError::RankRefused { rank: 1, reason: Error::Step(StepError::NoStep).to_string() }))
        };
        assert_eq!(refused, [other(), Err(Error::Step(StepError::NoStep)), other()]);

        let overflow = || Error::Step(StepError::NormOverflow { path: "0".into() });
        let refused = words(|rank| Err(if rank == 1 { Error::Step(StepError::NoStep) } else { overflow() }), |_| 7);
        assert_eq!(refused, [other(), Err(Error::Step(StepError::NoStep)), other()]);
        assert_eq!(words(|_| Err(overflow()), |_| 7), vec![Err(overflow()); 3]);

        let differ = words(|_| Ok(Word::Go), |rank| rank as u64 / 2);
        let (expected, found) = ("digest 0".to_owned(), "digest 1".to_owned());
        assert_eq!(differ, vec![Err(Error::Ranks(RankError::RanksDisagree { rank: 2, expected, found })); 3]);
    }

    #[test]
    fn a_rank_that_asks_for_a_norm_hears_of_a_refusal() {
        let ends = |own: fn() -> Result<Word>| {
            ThreadGroup::run(2, |group| {
                let end = match group.rank() {
                    0 => agree(&group, own(), 0, Vec::new).map(drop),
                    _ => norms(&group, 1.5).map(drop),
                };
                assert_eq!(norms(&group, group.rank() as f64), Ok(vec![0.0, 1.0]));
                end
            })
        };
        let reason = Error::Step(StepError::NoStep).to_string();
        assert_eq!(
            ends(|| Err(Error::Step(StepError::NoStep))),
            [Err(Error::Step(StepError::NoStep)), Err(Error::Ranks(RankError::RankRefused { rank: 0, reason }))]
        );
        let (expected, found) = ("a step to agree about".to_owned(), "a norm to ask for".to_owned());
        assert_eq!(
            ends(|| Ok(Word::Go)),
            vec![Err(Error::Ranks(RankError::RanksDisagree { rank: 1, expected, found })); 2]
        );
    }
}
