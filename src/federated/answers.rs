//! From the replies of clients to the sum of what is valid in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aggregation::Aggregation;
use super::client::Update;
use super::clients::Reply;
use super::report::{Counted, LeftOut, Reason};
use super::tensors::{Tensors, flatten, ranges};
use crate::error::{Error, Name, Result, StepError};
use crate::params::{Element, Layout, Params};
use crate::step::norm::unravel;

/// Who answered, and who did not: of one rank, or of all.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answers {
    pub(super) counted: Vec<Counted>,
    pub(super) left_out: Vec<LeftOut>,
}

/// The model that the clients began with, and the sums of their changes.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) start: Vec<f64>,
    /// The sum of the changes; with control variates that of their changes behind it.
    pub(super) sums: Vec<f64>,
    change: Vec<f64>,
}

impl Sums {
    /// Begins a round with this model, and returns its layout; `parts` is 2 with control variates, else 1.
    pub(super) fn begin<T: Params + ?Sized>(&mut self, model: &T, parts: usize) -> Result<Layout> {
        self.start.clear();
        let layout = flatten(model, |values| self.start.extend(values.iter().map(|value| value.as_f64())))?;
        self.sums.clear();
        self.sums.resize(parts * self.start.len(), 0.0);
        Ok(layout)
    }

    /// Writes the gradient of the mean change, whose negative it is: the sum of the changes divided by this.
    pub(super) fn gradient<A: Element>(&self, divisor: f64, gradient: &mut Tensors<A>) -> Result<()> {
        let pairs = gradient.values_mut().iter_mut().zip(&self.sums);
        pairs.for_each(|(gradient, sum)| *gradient = A::from_f64(-(sum / divisor)));
        let Some(at) = gradient.values().iter().position(|gradient| !gradient.is_finite()) else { return Ok(()) };
        let (path, index) = place(gradient.layout(), at).unwrap_or_default();
        Err(Error::Step(StepError::NonFiniteGradient {
            path: path.into(),
            index,
            value: gradient.values()[at].as_f64(),
        }))
    }

    /// Adds up what is valid, in the order of the clients, whatever the order in which they answered.
    pub(super) fn add<T: Params>(
        &mut self,
        layout: &Arc<Layout>,
        chosen: &[usize],
        replies: Vec<Reply<T>>,
        control: Option<&Tensors<T::Elem>>,
        aggregation: &mut impl Aggregation,
    ) -> Answers {
        // Of so many numbers no sum overflows, on one rank or on all together.
        let largest = f64::MAX / (2.0 * chosen.len() as f64);
        let mut of_client: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for Reply { client, answer } in replies {
            of_client.entry(client).or_default().push(answer);
        }
        let mut answers = Answers::default();
        for (client, mut given) in of_client {
            let left_out = |reason, detail: String| LeftOut::new(client, reason, detail);
            let answer = match (chosen.binary_search(&client), given.pop()) {
                (Err(_), _) => Err(left_out(Reason::Unasked, String::new())),
                (Ok(_), Some(answer)) if given.is_empty() => answer,
                (Ok(_), _) => Err(left_out(Reason::Duplicate, format!("{} answers", given.len() + 1))),
            };
            let weight = answer.and_then(|update| {
                let checked = self.check(layout, &update, control, largest);
                let added = checked.and_then(|()| self.add_one(layout, &update, largest, aggregation));
                added.map_err(|(reason, detail)| left_out(reason, detail))
            });
            match weight {
                Ok(weight) => answers.counted.push(Counted { client, weight }),
                Err(out) => answers.left_out.push(out),
            }
        }
        answers
    }

    /// Returns an error unless the update is valid; leaves its change in `self.change`.
    fn check<T: Params>(
        &mut self,
        layout: &Arc<Layout>,
        update: &Update<T>,
        server: Option<&Tensors<T::Elem>>,
        largest: f64,
    ) -> Result<(), (Reason, String)> {
        let weight = update.weight();
        if !(weight.is_finite() && weight > 0.0) {
            return Err((Reason::Weight, weight.to_string()));
        }
        self.change.clear();
        let (mut start, change) = (self.start.iter(), &mut self.change);
        // Of one walk. What is beyond the model's end is of another layout.
        let own = flatten(update.params(), |values| {
            change.extend(values.iter().zip(&mut start).map(|(value, start)| value.as_f64() - start));
        });
        let same = own.and_then(|own| layout.ensure_same(&own));
        same.map_err(|error| (Reason::OtherLayout, error.to_string()))?;
        // What is finite in f64 may not be so in the model's type.
        let narrow = |value: &f64| T::Elem::from_f64(*value).as_f64();
        if let Some(at) = self.change.iter().position(|value| !narrow(value).is_finite()) {
            let (change, own) = (narrow(&self.change[at]), self.change[at] + self.start[at]);
            let value = if own.is_finite() { change } else { own };
            return Err((Reason::NotFinite, describe(layout, at, value)));
        }
        let (server, control) = match (server, update.control()) {
            (None, None) => return Ok(()),
            (Some(_), None) => {
                return Err((Reason::Control, "none; the client needs scaffold() and with_control".into()));
            }
            (None, Some(_)) => return Err((Reason::Control, "the server has no control variate".into())),
            (Some(server), Some(control)) => (server, control),
        };
        if control.layout() != layout {
            return Err((Reason::Control, "other paths or shapes".into()));
        }
        // The server's next control variate lies between those that each client by itself would lead to.
        let fits = |change: f64, own: f64| narrow(&(own + change)).is_finite() && change.abs() <= largest;
        let mut both =
            control.values().iter().zip(server.values()).map(|(change, own)| (change.as_f64(), own.as_f64()));
        match both.position(|(change, own)| !fits(change, own)) {
            Some(at) => Err((Reason::Control, describe(layout, at, control.values()[at].as_f64()))),
            None => Ok(()),
        }
    }

    fn add_one<T: Params>(
        &mut self,
        layout: &Arc<Layout>,
        update: &Update<T>,
        largest: f64,
        aggregation: &mut impl Aggregation,
    ) -> Result<f64, (Reason, String)> {
        let weight = aggregation.prepare(&mut self.change, update.weight());
        let fits = |number: f64| number.abs() <= largest;
        if !fits(weight) {
            return Err((Reason::Weight, format!("{weight:?}{}", why(weight))));
        }
        if let Some(at) = self.change.iter().position(|change| !fits(weight * change)) {
            return Err((Reason::NotFinite, describe(layout, at, weight * self.change[at])));
        }
        let (changes, controls) = self.sums.split_at_mut(self.start.len());
        changes.iter_mut().zip(&self.change).for_each(|(sum, change)| *sum += weight * change);
        if let Some(control) = update.control() {
            controls.iter_mut().zip(control.values()).for_each(|(sum, change)| *sum += change.as_f64());
        }
        Ok(weight)
    }
}

/// Which element it is that lies at this place among all, and its value.
fn describe(layout: &Layout, at: usize, value: f64) -> String {
    let of = |(path, index)| format!("{} is {value:?} at index {index:?}{}", Name(path), why(value));
    place(layout, at).map_or_else(|| value.to_string(), of)
}

/// Why a number cannot be used, where it does not say so itself.
fn why(value: f64) -> &'static str {
    if value.is_finite() { ", too large to add up" } else { "" }
}

/// The tensor and the index of the element at this place among all.
pub(super) fn place(layout: &Layout, at: usize) -> Option<(&str, Vec<usize>)> {
    let (info, range) = ranges(layout).find(|(_, range)| range.contains(&at))?;
    Some((info.path(), unravel(at - range.start, info.shape())))
}

impl Answers {
    /// The bytes in which ranks tell each other.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.counted.len() as u64).to_le_bytes().to_vec();
        for Counted { client, weight } in &self.counted {
            bytes.extend((*client as u64).to_le_bytes());
            bytes.extend(weight.to_le_bytes());
        }
        for LeftOut { client, reason, detail } in &self.left_out {
            bytes.extend((*client as u64).to_le_bytes());
            bytes.push(Reason::ALL.iter().position(|other| other == reason).unwrap_or_default() as u8);
            bytes.extend((detail.len() as u64).to_le_bytes());
            bytes.extend(detail.as_bytes());
        }
        bytes
    }

    /// The answers that these bytes tell, if they tell any.
    pub(super) fn of_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut answers = Self::default();
        for _ in 0..number(&mut bytes)? {
            let client = number(&mut bytes)? as usize;
            answers.counted.push(Counted { client, weight: f64::from_bits(number(&mut bytes)?) });
        }
        while !bytes.is_empty() {
            let client = number(&mut bytes)? as usize;
            let (reason, rest) = bytes.split_first()?;
            bytes = rest;
            let length = usize::try_from(number(&mut bytes)?).ok()?;
            let (detail, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            let reason = *Reason::ALL.get(usize::from(*reason))?;
            answers.left_out.push(LeftOut::new(client, reason, String::from_utf8_lossy(detail)));
        }
        Some(answers)
    }

    /// The answers of all ranks, and a word for those of whom there is none.
    pub(super) fn join(all: impl IntoIterator<Item = Self>, chosen: &[usize]) -> Self {
        let mut joined = Self::default();
        for answers in all {
            joined.counted.extend(answers.counted);
            joined.left_out.extend(answers.left_out);
        }
        joined.counted.sort_by_key(|counted| counted.client);
        let known = |client: &usize| {
            joined.counted.iter().any(|counted| counted.client == *client)
                || joined.left_out.iter().any(|out| out.client == *client)
        };
        let silent: Vec<_> = chosen.iter().copied().filter(|client| !known(client)).collect();
        joined.left_out.extend(silent.into_iter().map(|client| LeftOut::new(client, Reason::Silent, "")));
        joined.left_out.sort_by_key(|out| out.client);
        joined
    }
}

/// The next eight bytes.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_the_way() {
        let counted = vec![Counted { client: 3, weight: 0.5 }, Counted { client: 9, weight: 1e300 }];
        let reasons = Reason::ALL.into_iter().enumerate();
        let left_out = reasons.map(|(client, reason)| LeftOut::new(client, reason, "é".repeat(client))).collect();
        let answers = Answers { counted, left_out };
        let bytes = answers.to_bytes();
        assert_eq!(Answers::of_bytes(&bytes).as_ref(), Some(&answers));
        assert_eq!(Answers::of_bytes(&Answers::default().to_bytes()), Some(Answers::default()));
        // Cut anywhere it is none, or one with fewer who are left out.
        for length in 0..bytes.len() {
            assert!(Answers::of_bytes(&bytes[..length]).is_none_or(|short| short.left_out.len() < 11), "{length}");
        }
    }

    #[test]
    fn an_element_has_its_place() {
        let info = crate::params::TensorInfo::new;
        let layout = Layout::new(vec![info("a", &[2, 3]), info("b", &[]), info("c", &[0]), info("d", &[2])]).unwrap();
        assert_eq!(place(&layout, 5), Some(("a", vec![1, 2])));
        assert_eq!(place(&layout, 6), Some(("b", vec![])));
        assert_eq!(place(&layout, 8), Some(("d", vec![1])));
        assert_eq!(place(&layout, 9), None);
    }
}
