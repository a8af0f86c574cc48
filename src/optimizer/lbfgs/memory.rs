//! The pairs of changes that L-BFGS remembers, the direction that they make, and their state.

use std::collections::VecDeque;
use std::sync::Arc;

use super::bounded;
use super::compact::Compact;
use super::limits::Bounds;
use super::vector::{add, dot};
use crate::error::{Error, Result};
use crate::params::scalar::is_kept;
use crate::params::{Layout, Scalar};
use crate::state::{StateReader, StateWriter};
use crate::step::norm;

/// A pair (s, y); shared with the copy that an error goes back to.
type Pair<A> = Arc<(Vec<A>, Vec<A>)>;

/// What an iteration needs to know of those before.
#[derive(Clone, PartialEq)]
pub(super) struct Memory<A> {
    /// Which tensors make the vector.
    pub(super) active: Vec<bool>,
    /// The gradient at the beginning of the last iteration, and how it moved; empty before the first.
    pub(super) grad: Vec<A>,
    pub(super) movement: Vec<A>,
    /// (s, y), the oldest first.
    pub(super) pairs: VecDeque<Pair<A>>,
    /// ⟨y, s⟩/⟨y, y⟩ of the last pair.
    pub(super) scale: f64,
}

impl<A> Default for Memory<A> {
    fn default() -> Self {
        Self { active: Vec::new(), grad: Vec::new(), movement: Vec::new(), pairs: VecDeque::new(), scale: 1.0 }
    }
}

impl<A: Scalar> Memory<A> {
    /// Begins anew if the vector is made of other tensors than before.
    pub(super) fn begin(&mut self, active: &[bool]) {
        if self.active != active {
            *self = Self { active: active.to_vec(), ..Self::default() };
        }
    }

    /// Remembers what the last movement did to the gradient, if the element type has numbers for it and ⟨y, s⟩ and ⟨y, y⟩ are accepted.
    fn remember(&mut self, grad: &[A], history: usize, accepts: impl Fn(f64, f64) -> bool) {
        if !self.movement.is_empty() {
            let change: Vec<A> = grad.iter().zip(&self.grad).map(|(now, before)| *now - *before).collect();
            let (product, squares) = (dot(&change, &self.movement), dot(&change, &change));
            let scale = product / squares;
            if accepts(product, squares) && scale > 0.0 && is_kept::<A>(scale) {
                while self.pairs.len() >= history {
                    self.pairs.pop_front();
                }
                self.scale = scale;
                self.pairs.push_back(Arc::new((self.movement.clone(), change)));
            }
        }
    }

    /// The next direction within bounds, from a position within them: zero if there is none that descends. Starts over if the pairs make none.
    pub(super) fn direction_within(
        &mut self,
        (position, grad): (&[A], &[A]),
        bounds: &Bounds,
        history: usize,
    ) -> Vec<A> {
        self.remember(grad, history, |product, squares| product > f64::EPSILON * squares);
        let [x, g] = [position, grad].map(|all| all.iter().map(|x| x.as_f64()).collect::<Vec<_>>());
        loop {
            let pairs: Vec<_> = self.pairs.iter().map(|pair| (&pair.0[..], &pair.1[..])).collect();
            let compact = match pairs.is_empty() {
                true => Some(Compact::identity(1.0)),
                false => Compact::of(&pairs, x.len(), 1.0 / self.scale),
            };
            let direction = compact.map(|compact| bounded::direction(&x, &g, bounds, &compact));
            let direction: Vec<A> = direction.into_iter().flatten().map(A::from_f64).collect();
            let descends = direction.len() == grad.len() && norm::finite(&direction) && dot(grad, &direction) < 0.0;
            if descends {
                return direction;
            }
            if self.pairs.is_empty() {
                return vec![A::zero(); grad.len()];
            }
            *self = Self { active: std::mem::take(&mut self.active), ..Self::default() };
        }
    }

    /// The next direction, after the last movement has been remembered. Starts over, with the gradient's own, if the pairs make none of finite
    /// numbers.
    pub(super) fn direction(&mut self, grad: &[A], history: usize) -> Vec<A> {
        self.remember(grad, history, |product, _| product > 1e-10);
        let mut direction: Vec<A> = grad.iter().map(|g| -*g).collect();
        let mut shares = Vec::with_capacity(self.pairs.len());
        for (s, y) in self.pairs.iter().map(|pair| &**pair).rev() {
            let (product, share) = (dot(y, s), dot(s, &direction));
            let share = share / product;
            add(&mut direction, y, -share);
            shares.push((share, product));
        }
        let scale = A::from_f64(self.scale);
        direction.iter_mut().for_each(|d| *d *= scale);
        for ((s, y), (share, product)) in self.pairs.iter().map(|pair| &**pair).zip(shares.into_iter().rev()) {
            let other = dot(y, &direction) / product;
            add(&mut direction, s, share - other);
        }
        if !norm::finite(&direction) {
            *self = Self { active: std::mem::take(&mut self.active), ..Self::default() };
            direction = grad.iter().map(|g| -*g).collect();
        }
        direction
    }

    pub(super) fn write(&self, node: &mut StateWriter<'_>, layout: Option<&Layout>) {
        node.value("pairs", self.pairs.len());
        node.value("scale", self.scale);
        let layout = layout.iter().flat_map(|layout| layout.tensors());
        let active = layout.zip(&self.active).filter(|(_, active)| **active).map(|(info, _)| info);
        let mut at = 0;
        for info in active {
            let part = at..at + info.elements();
            at = part.end;
            let mut write = |name: &str, vector: &[A]| {
                // Not by rows: the pairs are vectors of all elements, and their products belong to all.
                if let Some(part) = vector.get(part.clone()) {
                    node.insert(name, info.path(), info.shape(), A::pack(part.to_vec()));
                }
            };
            write("prev_grad", &self.grad);
            write("movement", &self.movement);
            for (number, pair) in self.pairs.iter().enumerate() {
                write(&format!("s.{number}"), &pair.0);
                write(&format!("y.{number}"), &pair.1);
            }
        }
    }

    /// The last `history` pairs of a saved memory.
    pub(super) fn read(node: &StateReader<'_>, history: usize) -> Result<Self> {
        let pairs: usize = node.value("pairs", "a count")?;
        let positive = |scale: &f64| scale.is_finite() && *scale > 0.0;
        let mut memory =
            Memory { scale: node.value_where("scale", "a number above 0", positive)?, ..Memory::default() };
        let part = |name: &str, info| node.tensor::<A>(name, info)?.ok_or_else(|| node.missing(name, info));
        let mut active = Vec::new();
        for info in node.tensors() {
            let grad = node.tensor::<A>("prev_grad", info)?;
            memory.active.push(grad.is_some());
            let Some(grad) = grad else { continue };
            active.push(info);
            memory.grad.extend(grad);
            memory.movement.extend(part("movement", info)?);
        }
        if pairs > 0 && active.is_empty() {
            return Err(node.absent("s.0", ""));
        }
        // All are read, the last ones are kept.
        for number in 0..pairs {
            let whole = |name: String| {
                let parts = active.iter().map(|info| part(&name, info)).collect::<Result<Vec<_>>>();
                Ok::<_, Error>(parts?.concat())
            };
            memory.pairs.push_back(Arc::new((whole(format!("s.{number}"))?, whole(format!("y.{number}"))?)));
            if memory.pairs.len() > history {
                memory.pairs.pop_front();
            }
        }
        if !memory.active.contains(&true) {
            memory.active.clear();
        }
        Ok(memory)
    }
}
