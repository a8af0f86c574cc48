//! Joins the states of all ranks into one, and takes a rank's part of a joined state.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use super::cut::{BLOCK, Cut, How};
use crate::error::{Error, RankError, Result, StateError};
use crate::params::{Element, Layout, TensorInfo};
use crate::state::data::Data;
use crate::state::digest::Digest;
use crate::state::{NUMBER, StateDict, StateTensor};

/// The node of what a rank's state says of itself.
pub(super) const NODE: &str = "sharded";
pub(super) const RANKS: &str = "ranks";
pub(super) const RANK: &str = "rank";
pub(super) const CUT: &str = "cut";
pub(super) const PARAMETERS: &str = "parameters";

/// What stands for parameters that are a step behind the state.
pub(super) const TORN: &str = "torn";

/// In what order of memory state lies: by tensor, in the node of whoever has it.
const ORDER: &str = "/order";

/// The scales of a slot in 8 or 4 bits.
const SCALES: &str = ".scales";

/// A number that the parameters after the last step leave, the same on all ranks; none before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fingerprint(pub(super) Option<u64>);

impl Fingerprint {
    /// From a thousand of the parameters.
    pub(super) fn of<A: Element>(params: &[A]) -> Self {
        const SAMPLES: usize = 1024;
        let mut digest = Digest::new();
        let samples = params.iter().step_by(params.len().div_ceil(SAMPLES).max(1));
        samples.for_each(|param| digest.number(param.as_f64().to_bits()));
        Self(Some(digest.finish()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number:016x}"),
            None => f.write_str("none"),
        }
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { u64::from_str_radix(text, 16).map(|number| Self(Some(number))) }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByElements => "elements",
            Self::ByTensor => "tensors",
        })
    }
}

impl FromStr for How {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::ByElements, Self::ByTensor].into_iter().find(|how| how.to_string() == text).ok_or(())
    }
}

/// Joins the states that all ranks of a [`Sharded`](super::Sharded) optimizer saved, in any order, into the state of the optimizer
/// without `sharded`.
///
/// The joined state can be loaded by the optimizer without `sharded`, and by the sharded optimizer on any number of ranks.
///
/// For row-major parameters the joined state equals one that was never sharded. For other parameters it lacks the memory order, so the
/// loaded state is row-major. The state of adaptors outside `sharded` must be the same on all ranks; with `accumulate` outside, save
/// between combined steps.
///
/// ```
/// use gradus::distributed::{ThreadGroup, unshard};
/// use gradus::prelude::*;
/// use ndarray::Array1;
///
/// let states = ThreadGroup::run(2, |group| {
///     let (mut opt, mut w) = (Adam::new(0.1).sharded(group), Array1::from_elem(1000, 1.0));
///     opt.step(&mut w, &Array1::from_elem(1000, 0.5))?;
///     gradus::Result::Ok(opt.state_dict())
/// });
/// let state = unshard(&states.into_iter().collect::<Result<Vec<_>, _>>()?)?;
/// let mut alone: Adam<f64> = Adam::new(0.1);
/// alone.load_state_dict(&state)?;
/// assert_eq!((alone.steps(), alone.slot("", "exp_avg").unwrap().len()), (1, 1000));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Errors
/// [`StateError::MissingRank`]; [`RankError::RanksDisagree`] if the states come from different runs or steps; [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged),
/// [`StateError::MissingEntry`], [`StateError::EntryValue`], [`StateError::EntryShape`], [`StateError::EntryType`].
pub fn unshard<'s>(states: impl IntoIterator<Item = &'s StateDict>) -> Result<StateDict> {
    let states = in_order_of_ranks(states)?;
    let [first, others @ ..] = &*states else {
        return Err(Error::State(StateError::MissingRank { rank: 0, size: 1, found: 0 }));
    };
    for (rank, other) in (1..).zip(others) {
        ensure_same_run(first, rank, other)?;
    }
    let mut joined = StateDict::new(first.layout.clone());
    let own = |key: &str| key.strip_prefix(NODE).is_some_and(|rest| rest.starts_with('/'));
    joined.texts.extend(first.texts.iter().filter(|(key, _)| !own(key)).map(|(key, text)| (key.clone(), text.clone())));

    let whole = first.layout.clone().unwrap_or_default();
    let cut = Cut::new(&whole, states.len(), value(first, CUT, "elements or tensors")?);
    let places = Places::new(&whole);
    let keys: BTreeSet<&String> = states.iter().flat_map(|state| state.tensors.keys()).collect();
    for key in keys {
        let entry = match places.find(key) {
            Some((tensor, _)) => join(&states, key, &cut, tensor)?,
            None => the_same(&states, key)?,
        };
        joined.tensors.insert(key.clone(), entry);
    }
    Ok(joined)
}

/// The states, if there is one of each rank.
fn in_order_of_ranks<'s>(states: impl IntoIterator<Item = &'s StateDict>) -> Result<Vec<&'s StateDict>> {
    let ranked = states.into_iter().map(|state| Ok((value::<usize>(state, RANK, "a rank")?, state)));
    let mut ranked = ranked.collect::<Result<Vec<_>>>()?;
    ranked.sort_by_key(|(rank, _)| *rank); // stable, so that errors speak of the first
    let found = ranked.len();
    let Some((_, first)) = ranked.first() else { return Ok(Vec::new()) };
    let size: usize = value(first, RANKS, "a number of ranks")?;
    for (rank, state) in &ranked {
        let ranks: usize = value(state, RANKS, "a number of ranks")?;
        if ranks != size {
            let [expected, found] = [size, ranks].map(|ranks| format!("the state of one of {ranks} ranks"));
            return Err(Error::Ranks(RankError::RanksDisagree { rank: *rank, expected, found }));
        }
    }
    for expected in 0..size.max(found) {
        match ranked.get(expected) {
            Some((rank, _)) if *rank == expected => {}
            Some((rank, _)) if *rank < expected || *rank >= size => {
                let accepted = "a rank of the group, each once";
                return Err(Error::State(StateError::EntryValue {
                    key: key_of(RANK),
                    value: rank.to_string(),
                    accepted,
                }));
            }
            _ => return Err(Error::State(StateError::MissingRank { rank: expected, size, found })),
        }
    }
    Ok(ranked.into_iter().map(|(_, state)| state).collect())
}

/// Returns an error unless a rank's state comes from the same step of the same run as that of rank 0.
fn ensure_same_run(first: &StateDict, rank: usize, other: &StateDict) -> Result<()> {
    let disagree =
        |expected: String, found: String| Err(Error::Ranks(RankError::RanksDisagree { rank, expected, found }));
    match (&first.layout, &other.layout) {
        (Some(first), Some(other)) => first.ensure_same(other)?,
        (None, None) => {}
        (first, _) => {
            let say = |known: bool| if known { "a step behind it" } else { "no step behind it" }.to_owned();
            return disagree(say(first.is_some()), say(first.is_none()));
        }
    }
    // The parameters' fingerprint last: a count that differs says more.
    let keys: BTreeSet<&String> = first.texts.keys().chain(other.texts.keys()).collect();
    let (rank_key, last) = (key_of(RANK), key_of(PARAMETERS));
    let keys = keys.into_iter().filter(|key| **key != rank_key && **key != last).chain([&last]);
    for key in keys {
        if first.text(key) != other.text(key) {
            let say = |state: &StateDict| format!("{key} {}", state.text(key).unwrap_or("missing"));
            return disagree(say(first), say(other));
        }
    }
    value::<Fingerprint>(first, PARAMETERS, "a fingerprint of parameters that have taken the same steps").map(drop)
}

fn key_of(name: &str) -> String {
    format!("{NODE}/{name}")
}

/// What a rank's state says of itself.
fn value<T: FromStr>(state: &StateDict, name: &str, accepted: &'static str) -> Result<T> {
    let key = key_of(name);
    let Some(text) = state.text(&key) else {
        return Err(Error::State(StateError::MissingEntry { key, similar: Vec::new() }));
    };
    text.parse().map_err(|_| Error::State(StateError::EntryValue { key: key.clone(), value: text.into(), accepted }))
}

/// Finds the tensor that an entry belongs to.
struct Places<'l>(HashMap<&'l str, usize>);

impl<'l> Places<'l> {
    fn new(layout: &'l Layout) -> Self {
        Self(layout.paths().enumerate().map(|(tensor, path)| (path, tensor)).collect())
    }

    /// The tensor whose path ends the key, and what stands before the path. There is a node and a name at least.
    fn find<'k>(&self, key: &'k str) -> Option<(usize, &'k str)> {
        let slashes = key.match_indices('/').skip(1);
        slashes.into_iter().find_map(|(at, _)| Some((*self.0.get(&key[at + 1..])?, &key[..at])))
    }
}

/// How the numbers of an entry belong to the elements of its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They do not: it is a count, or a number that belongs to the tensor as a whole.
    Count,
    /// One for each.
    Values,
    /// Codes of 8 or 4 bits: a byte for every 1 or 2 elements.
    Codes(usize),
    /// A scale for every group of this many elements.
    Scales(usize),
    /// It is a matrix that belongs to the tensor as a whole.
    Other,
}

impl Kind {
    /// What the entry of this key is, in a state that has the tensor in this shape.
    fn of(state: &StateDict, key: &str, tensor: &TensorInfo, entry: &StateTensor) -> Self {
        let name_length = key.len() - tensor.path().len() - 1;
        let scaled = key[..name_length].strip_suffix(SCALES).map(|name| format!("{name}{}", &key[name_length..]));
        let per_code = |codes: &StateTensor| match &codes.data {
            Data::U8(codes) if codes.len() == tensor.elements() => Some(1),
            Data::U8(_) => Some(2),
            _ => None,
        };
        let codes = scaled.and_then(|key| per_code(state.tensors.get(&key)?));
        match (&entry.data, codes) {
            (Data::U64(_), _) if entry.shape.is_empty() => Self::Count,
            (Data::F64(_), _) if key[..name_length].ends_with(NUMBER) => Self::Count,
            (Data::U8(_), _) => Self::Codes(per_code(entry).unwrap_or(1)),
            // Codes of 4 bits have scales for half as many elements.
            (_, Some(per_code)) => Self::Scales(BLOCK / per_code),
            _ if *entry.shape == *tensor.shape() => Self::Values,
            _ => Self::Other,
        }
    }

    /// Which of the numbers belong to these elements.
    fn range(self, elements: &Range<usize>) -> Range<usize> {
        match self {
            Self::Codes(each) | Self::Scales(each) => elements.start / each..elements.end.div_ceil(each),
            _ => elements.clone(),
        }
    }
}

/// An entry that is the same on all ranks.
fn the_same(states: &[&StateDict], key: &str) -> Result<StateTensor> {
    let entry = |state: &StateDict| state.tensors.get(key).cloned();
    let first = states
        .first()
        .and_then(|state| entry(state))
        .ok_or_else(|| Error::State(StateError::MissingEntry { key: key.into(), similar: Vec::new() }))?;
    match states.iter().position(|state| entry(state).as_ref() != Some(&first)) {
        None => Ok(first),
        Some(rank) => {
            let found = if entry(states[rank]).is_some() { "another" } else { "none" };
            let [expected, found] = ["one", found].map(|which| format!("{which} of the entries {key}"));
            Err(Error::Ranks(RankError::RanksDisagree { rank, expected, found }))
        }
    }
}

/// The entry of a tensor, from those of the ranks that have the tensor's pieces.
fn join(states: &[&StateDict], key: &str, cut: &Cut, tensor: usize) -> Result<StateTensor> {
    let whole = &cut.whole().tensors()[tensor];
    let missing = || Error::State(StateError::MissingEntry { key: key.into(), similar: Vec::new() });
    let own = |rank: usize| states.get(rank).and_then(|state| state.tensors.get(key));
    let [first, ..] = cut.pieces(tensor) else {
        return states.iter().find_map(|state| state.tensors.get(key)).cloned().ok_or_else(missing);
    };
    let entry = own(first.rank).ok_or_else(missing)?;
    let kind = Kind::of(states[first.rank], key, &cut.info(tensor, first.rank), entry);
    // A number may follow from the elements: ranks that have none of them have another.
    if let ([_], Kind::Count, Data::F64(_)) = (cut.pieces(tensor), kind, &entry.data) {
        return Ok(entry.clone());
    }
    // What an adaptor outside has is there as often as there are ranks.
    let copies = (0..states.len()).filter_map(own).filter(|entry| entry.data.len() == whole.elements()).count();
    if kind == Kind::Count || *entry.shape == *whole.shape() && whole.elements() > 0 && copies > 1 {
        return the_same(states, key);
    }
    if let [_] = cut.pieces(tensor) {
        return Ok(entry.clone());
    }
    let mut data = entry.data.range(0..0);
    for piece in cut.pieces(tensor) {
        let entry = own(piece.rank).ok_or_else(missing)?;
        entry.ensure(key, &[kind.range(&piece.elements).len()], data.dtype())?;
        data.append(&entry.data);
    }
    let shape = match kind {
        Kind::Values => whole.shape().into(),
        _ => [data.len()].into(),
    };
    Ok(StateTensor { shape, data })
}

/// What a rank has of a state that is not divided.
pub(super) fn split(state: &StateDict, cut: &Cut, rank: usize) -> Result<StateDict> {
    let whole: &Arc<Layout> = cut.whole();
    let places = Places::new(whole);
    let mut own = StateDict::new(state.layout.clone());
    for (key, text) in &state.texts {
        let Some((tensor, node)) = places.find(key).and_then(|(at, name)| Some((at, name.strip_suffix(ORDER)?))) else {
            own.texts.insert(key.clone(), text.clone());
            continue;
        };
        // A rank's share lies in row-major order, as the entries do; codes lie in the order of memory.
        let coded = |(key, entry): (&String, &StateTensor)| {
            key.starts_with(node)
                && matches!(entry.data, Data::U8(_))
                && places.find(key).is_some_and(|(at, _)| at == tensor)
        };
        if state.tensors.iter().any(coded) {
            let accepted = "row-major, without this entry, where state in 8 or 4 bits is to be divided";
            return Err(Error::State(StateError::EntryValue { key: key.clone(), value: text.clone(), accepted }));
        }
    }
    for (key, entry) in &state.tensors {
        let part = match places.find(key) {
            Some((tensor, _)) => part_of(state, key, entry, cut, (tensor, rank)),
            None => Some(entry.clone()),
        };
        own.tensors.extend(part.map(|part| (key.clone(), part)));
    }
    Ok(own)
}

/// A rank's part of an entry.
fn part_of(
    state: &StateDict,
    key: &str,
    entry: &StateTensor,
    cut: &Cut,
    (tensor, rank): (usize, usize),
) -> Option<StateTensor> {
    let whole = &cut.whole().tensors()[tensor];
    let elements = cut.piece(tensor, rank).map_or(0..0, |piece| piece.elements.clone());
    let kind = Kind::of(state, key, whole, entry);
    match kind {
        _ if elements.len() == whole.elements() => Some(entry.clone()),
        Kind::Count => Some(entry.clone()),
        Kind::Other => (!elements.is_empty()).then(|| entry.clone()),
        _ => {
            let data = entry.data.range(kind.range(&elements));
            Some(StateTensor { shape: [data.len()].into(), data })
        }
    }
}
