//! How ranks find out, before anything has moved, whether all can take a step and whether it is the same one.

use crate::adaptor::NonFinite;
use crate::distributed::group::{RankGroup, gather};
use crate::error::{Error, RankError, Result, StepError};
use crate::state::digest::Digest;
use crate::step::batch::Batch;

/// What a rank makes of a step that it can take.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::distributed) struct Vote {
    /// Whether it leaves the step out.
    pub(in crate::distributed) skips: bool,
    /// The micro-batch of this rank.
    pub(in crate::distributed) batch: Batch,
    /// What must be the same on all ranks, one line per thing.
    pub(in crate::distributed) about: Vec<String>,
}

impl Default for Vote {
    fn default() -> Self {
        Self::about(Vec::new())
    }
}

impl Vote {
    /// To take the step that these lines describe.
    pub(in crate::distributed) fn about(about: Vec<String>) -> Self {
        Self { skips: false, batch: Batch::EQUAL, about }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        for line in &self.about {
            digest.bytes(line.as_bytes());
            digest.bytes(b"\n");
        }
        digest.finish()
    }
}

/// Whether a policy skips a step, of which `non_finite` finds the first gradient that is not finite.
pub(in crate::distributed) fn skips(policy: NonFinite, non_finite: impl FnOnce() -> Option<Error>) -> Result<bool> {
    match policy {
        NonFinite::Allow => Ok(false),
        NonFinite::Skip => Ok(non_finite().is_some()),
        NonFinite::Error => non_finite().map_or(Ok(false), Err),
    }
}

const GO: u8 = 0;
const SKIP: u8 = 1;
const REFUSE: u8 = 2;
/// Refuses for a value that another rank has, and can tell more about.
const REFUSE_TOO: u8 = 3;
const NORM: u8 = 4;
/// Goes on with a micro-batch that has a weight of its own.
const WEIGHTED: u8 = 5;

const LENGTH: usize = 1 + size_of::<u64>();

/// The weights of the ranks' micro-batches in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RankWeights {
    /// The weight of this rank's micro-batch, in means over all ranks: 1 if all ranks have the same.
    pub(super) own: f64,
    /// The mean of the weights of all ranks: that of the micro-batches of all of them, relative to those of other steps.
    pub(super) mean: f64,
    /// Whether they may differ from those of other steps.
    pub(super) are_given: bool,
}

/// Tells the others this rank's vote. Returns the weights if all take the step, `None` if one of them skips it or if no rank has a weight
/// above 0, and an error if one refuses it or if their steps differ. It costs a message of nine bytes, and a second one if a rank has a weight.
pub(super) fn agree(group: &impl RankGroup, own: Result<Vote>) -> Result<Option<RankWeights>> {
    if group.size() == 1 {
        let alone = |Batch { weight, is_weighted, .. }| RankWeights { own: 1.0, mean: weight, are_given: is_weighted };
        return own.map(|vote| (!vote.skips).then(|| alone(vote.batch)));
    }
    let (code, digest) = match &own {
        Ok(vote) if vote.skips => (SKIP, vote.digest()),
        Ok(vote) if vote.batch.is_weighted => (WEIGHTED, vote.digest()),
        Ok(vote) => (GO, vote.digest()),
        Err(Error::Step(StepError::NormOverflow { .. })) => (REFUSE_TOO, 0),
        Err(_) => (REFUSE, 0),
    };
    let (vote, refused) = own.map_or_else(|error| (Vote::default(), Some(error)), |vote| (vote, None));
    let words = exchange(group, (code, digest), refused)?;
    if words.iter().any(|word| word.1 != digest) {
        return Err(difference(&texts(group, &vote.about.join("\n"))?));
    }
    if words.iter().any(|word| word.0 == SKIP) {
        return Ok(None);
    }
    let weight = vote.batch.weight;
    if words.iter().all(|word| word.0 == GO) {
        return Ok(Some(RankWeights { own: 1.0, mean: weight, are_given: false }));
    }
    let weights = norms(group, weight)?;
    let (own, mean) = if weights.iter().all(|other| *other == weight) {
        (1.0, weight)
    } else {
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        (weight / mean, mean)
    };
    Ok((mean > 0.0).then_some(RankWeights { own, mean, are_given: true }))
}

/// The norms of all ranks. One that agrees or refuses meanwhile is understood, as messages are of one form.
pub(in crate::distributed) fn norms(group: &impl RankGroup, own: f64) -> Result<Vec<f64>> {
    let norms = exchange(group, (NORM, own.to_bits()), None)?;
    Ok(norms.into_iter().map(|(_, bits)| f64::from_bits(bits)).collect())
}

/// The words of all ranks. Returns an error if a rank refuses, or if one asks for a norm while another agrees. `refused` is this rank's reason.
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
    let texts = gather(group, own.as_bytes())?;
    Ok(texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
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
    use super::*;
    use crate::distributed::ThreadGroup;

    fn votes(own: impl Fn(usize) -> Result<Vote> + Sync) -> Vec<Result<bool>> {
        ThreadGroup::run(3, |group| agree(&group, own(group.rank())).map(|weights| weights.is_some()))
    }

    fn about(lines: &[&str]) -> Vote {
        Vote::about(lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn all_act_alike() {
        assert_eq!(votes(|_| Ok(about(&["7"]))), vec![Ok(true); 3]);
        let skips = votes(|rank| Ok(Vote { skips: rank == 1, ..about(&["7"]) }));
        assert_eq!(skips, vec![Ok(false); 3]);

        let no_step = || Error::Step(StepError::NoStep);
        let refused = votes(|rank| if rank == 1 { Err(no_step()) } else { Ok(about(&[&rank.to_string()])) });
        let other = || Err(Error::Ranks(RankError::RankRefused { rank: 1, reason: no_step().to_string() }));
        assert_eq!(refused, [other(), Err(no_step()), other()]);

        let overflow = || Error::Step(StepError::NormOverflow { path: "0".into() });
        let refused = votes(|rank| Err(if rank == 1 { no_step() } else { overflow() }));
        assert_eq!(refused, [other(), Err(no_step()), other()]);
        assert_eq!(votes(|_| Err(overflow())), vec![Err(overflow()); 3]);

        let differ = votes(|rank| Ok(about(&["a tensor", ["digest 0", "digest 1"][rank / 2]])));
        let (expected, found) = ("digest 0".to_owned(), "digest 1".to_owned());
        assert_eq!(differ, vec![Err(Error::Ranks(RankError::RanksDisagree { rank: 2, expected, found })); 3]);
    }

    #[test]
    fn the_weights_of_all_ranks_are_known_if_one_has_one() {
        let weights = |own: [Option<f64>; 3]| {
            ThreadGroup::run(3, |group| {
                let batch = own[group.rank()].map_or(Ok(Batch::EQUAL), |weight| Batch::weighted(weight, 0));
                agree(&group, batch.map(|batch| Vote { batch, ..Vote::default() }))
                    .map(|weights| weights.map(|all| (all.own, all.mean)))
            })
        };
        assert_eq!(weights([None; 3]), vec![Ok(Some((1.0, 1.0))); 3]);
        assert_eq!(weights([Some(2.0); 3]), vec![Ok(Some((1.0, 2.0))); 3]);
        assert_eq!(weights([None, Some(5.0), Some(0.0)]), [0.5, 2.5, 0.0].map(|own| Ok(Some((own, 2.0)))));
        assert_eq!(weights([Some(0.0); 3]), vec![Ok(None); 3]);
    }

    #[test]
    fn a_rank_that_asks_for_a_norm_hears_of_a_refusal() {
        let ends = |own: fn() -> Result<Vote>| {
            ThreadGroup::run(2, |group| {
                let end = match group.rank() {
                    0 => agree(&group, own()).map(drop),
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
            ends(|| Ok(Vote::default())),
            vec![Err(Error::Ranks(RankError::RanksDisagree { rank: 1, expected, found })); 2]
        );
    }
}
