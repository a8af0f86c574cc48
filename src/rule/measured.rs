//! What the options of a driver have to know of a whole tensor.

use std::ops::Range;

use pulp::NullaryFnOnce;

use super::factor::Rms;
use super::lanes::agree;
use super::slots::AT_ONCE;
use crate::kernel::simd::{self, padded};
use crate::kernel::squares::near_one;
use crate::kernel::tree;
use crate::params::Element;
use crate::step::grad::BLOCK;

/// Sums over the elements of a tensor's parameter θ and direction d.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) elements: f64,
    sums: Sums,
    scales: Scales,
}

/// The sums that are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The number of elements with a direction.
    pub(super) moving: bool,
    /// The squares and the product.
    pub(super) norms: bool,
    /// With the norms, those over the elements that decay.
    pub(super) decaying: bool,
}

/// Powers of two that θ and d are multiplied with, so that their squares are numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales {
    param: f64,
    direction: f64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    /// Σθ², Σd², Σθd.
    param: f64,
    direction: f64,
    product: f64,
    /// Σθ² and Σθd over the elements that decay.
    decaying: f64,
    decaying_product: f64,
    /// Σ of the squared gradient relative to its average.
    relative: f64,
    /// The elements with a direction.
    moving: f64,
    largest_param: f64,
    largest_direction: f64,
}

/// Squares of these have neither lost digits nor become infinite, and neither have sums of them.
const SAFE: Range<f64> = 1e-140..1e140;

impl Measured {
    /// Measures a tensor of so many elements. `leaf` gets a block's place and length in row-major order and the scales, and sums the block up. Blocks
    /// have at most `block` elements; in larger ones than [`BLOCK`] the sums are those of a tree.
    pub(super) fn of<A: Element>(
        (elements, block): (usize, usize),
        leaf: &(impl Fn(usize, usize, Scales) -> Sums + Sync),
    ) -> Self {
        let measure = |scales: Scales| {
            let leaf = |start: usize, length: usize| leaf(start, length, scales);
            tree::reduce((0, elements), block, &leaf, &Sums::plus)
        };
        let mut scales = Scales { param: 1.0, direction: 1.0 };
        let mut sums = measure(scales);
        let Sums { largest_param, largest_direction, .. } = sums;
        let is_safe = |largest: f64| largest == 0.0 || !largest.is_finite() || SAFE.contains(&largest);
        // Squares of narrower types are numbers of `f64`.
        let is_wide = size_of::<A>() >= size_of::<f64>();
        if is_wide && !(is_safe(largest_param) && is_safe(largest_direction)) {
            scales = Scales { param: near_one(largest_param), direction: near_one(largest_direction) };
            sums = measure(scales);
        }
        Self { elements: elements as f64, sums, scales }
    }

    /// Measures a tensor whose directions are known.
    pub(super) fn of_directions<A: Element>(param: &[A], direction: &[A], wanted: Wanted) -> Self {
        Self::of::<A>((direction.len(), BLOCK), &|start, length, scales| {
            let range = start..start + length;
            Sums::of(&param[range.clone()], &direction[range], wanted, scales)
        })
    }

    /// The number of elements with a direction.
    pub(super) fn moving(&self) -> f64 {
        self.sums.moving
    }

    /// The root mean squares of θ and of d; 0 of no elements.
    pub(super) fn rms(&self) -> Rms {
        let rms = |sum: f64, scale: f64| if self.elements == 0.0 { 0.0 } else { (sum / self.elements).sqrt() / scale };
        Rms {
            param: rms(self.sums.param, self.scales.param),
            direction: rms(self.sums.direction, self.scales.direction),
        }
    }

    /// The root of the mean squared gradient, relative to its average.
    pub(super) fn relative_update(&self) -> f64 {
        (self.sums.relative / self.elements.max(1.0)).sqrt()
    }

    /// ‖d‖.
    pub(super) fn direction_norm(&self) -> f64 {
        self.sums.direction.sqrt() / self.scales.direction
    }

    /// ‖θ‖.
    pub(super) fn norm(&self) -> f64 {
        self.sums.param.sqrt() / self.scales.param
    }

    /// ‖θ‖ / ‖r‖ of the update r = factor·d + decay·θ, θ in r only where it decays; 1 if either is 0, and at most the largest number.
    ///
    /// ‖r‖ comes from the sums of both, so that what is left of r where both nearly cancel, less than 1e-8 of them, counts as 0.
    pub(super) fn ratio(&self, factor: f64, decay: f64) -> f64 {
        let Sums { param, direction, decaying, decaying_product, .. } = self.sums;
        // For the scaled numbers, and with the larger of both factors at 1.
        let factor = factor * (self.scales.param / self.scales.direction);
        let larger = factor.abs().max(decay);
        let (d, p) = (factor / larger, decay / larger);
        let update = d * d * direction + 2.0 * d * p * decaying_product + p * p * decaying;
        match param > 0.0 && direction > 0.0 && larger == 0.0 {
            // The factor is too small for a number of this scale.
            true => f64::MAX,
            false if param > 0.0 && update > 0.0 => (param.sqrt() / update.sqrt() / larger).min(f64::MAX),
            false => 1.0,
        }
    }

    /// The factor that gives the moved parameter θ − decay·θ − step_size·d this norm, θ in the second term only where it decays; 1 if the norm or that of
    /// the moved parameter is 0.
    pub(super) fn scale_to(&self, norm: f64, step_size: f64, decay: f64) -> f64 {
        let Sums { param, direction, product, decaying, decaying_product, .. } = self.sums;
        let step = step_size * (self.scales.param / self.scales.direction);
        let decayed = param - (2.0 - decay) * decay * decaying;
        let moved = decayed + step * (step * direction - 2.0 * (product - decay * decaying_product));
        if norm > 0.0 && moved > 0.0 { norm * self.scales.param / moved.sqrt() } else { 1.0 }
    }
}

impl Sums {
    /// Those of elements whose directions are known.
    pub(super) fn of<A: Element>(param: &[A], direction: &[A], wanted: Wanted, scales: Scales) -> Self {
        let leaf = |start: usize, length: usize| {
            let (range, mut gathered) = (start..start + length, Gathered::new(wanted, scales));
            gathered.add(&param[range.clone()], &direction[range]);
            gathered.sums()
        };
        tree::reduce((0, param.len()), BLOCK, &leaf, &Self::plus)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            param: self.param + other.param,
            direction: self.direction + other.direction,
            product: self.product + other.product,
            decaying: self.decaying + other.decaying,
            decaying_product: self.decaying_product + other.decaying_product,
            relative: self.relative + other.relative,
            moving: self.moving + other.moving,
            largest_param: self.largest_param.max(other.largest_param),
            largest_direction: self.largest_direction.max(other.largest_direction),
        }
    }
}

/// The sums of a block, side by side.
pub(super) struct Gathered<A> {
    wanted: Wanted,
    scales: Scales,
    param: [f64; AT_ONCE],
    direction: [f64; AT_ONCE],
    product: [f64; AT_ONCE],
    decaying: [f64; AT_ONCE],
    decaying_product: [f64; AT_ONCE],
    relative: [f64; AT_ONCE],
    moving: [A; AT_ONCE],
    largest_param: [f64; AT_ONCE],
    largest_direction: [f64; AT_ONCE],
}

impl<A: Element> Gathered<A> {
    pub(super) fn new(wanted: Wanted, scales: Scales) -> Self {
        let zeros = [0.0; AT_ONCE];
        Self {
            wanted,
            scales,
            param: zeros,
            direction: zeros,
            product: zeros,
            decaying: zeros,
            decaying_product: zeros,
            relative: zeros,
            moving: [A::zero(); AT_ONCE],
            largest_param: zeros,
            largest_direction: zeros,
        }
    }

    /// Adds elements with their directions. All numbers but the last that are added must be multiples of [`AT_ONCE`].
    pub(super) fn add(&mut self, param: &[A], direction: &[A]) {
        // Squares of narrower types are numbers of `f64`.
        let is_wide = size_of::<A>() >= size_of::<f64>();
        let arch = simd::arch();
        if self.wanted.moving {
            arch.dispatch(Count { direction, sums: &mut self.moving });
        }
        if self.wanted.norms {
            let scales = is_wide.then_some(self.scales);
            let sums = [&mut self.param, &mut self.direction, &mut self.product];
            let largest = [&mut self.largest_param, &mut self.largest_direction];
            match scales {
                None => arch.dispatch(Products { param, direction, sums }),
                Some(scales) => {
                    arch.dispatch(Squares { param, direction, scales, only_decaying: false, sums, largest });
                }
            }
            if self.wanted.decaying {
                let (mut rest, mut largest) = ([0.0; AT_ONCE], [[0.0; AT_ONCE]; 2]);
                let ([param_largest, direction_largest], sums) =
                    (&mut largest, [&mut self.decaying, &mut rest, &mut self.decaying_product]);
                let largest = [param_largest, direction_largest];
                let scales = scales.unwrap_or(Scales { param: 1.0, direction: 1.0 });
                arch.dispatch(Squares { param, direction, scales, only_decaying: true, sums, largest });
            }
        }
    }

    /// Adds squared gradients relative to their average.
    pub(super) fn add_relative(&mut self, relative: &[A]) {
        simd::arch().dispatch(Plain { values: relative, sums: &mut self.relative });
    }

    pub(super) fn sums(self) -> Sums {
        let sum = |lanes: [f64; AT_ONCE]| lanes.iter().sum();
        let largest = |lanes: [f64; AT_ONCE]| lanes.into_iter().fold(0.0, f64::max);
        let (param, product) = (sum(self.param), sum(self.product));
        // Without selection all elements decay.
        let (decaying, decaying_product) = match self.wanted.decaying {
            true => (sum(self.decaying), sum(self.decaying_product)),
            false => (param, product),
        };
        Sums {
            param,
            direction: sum(self.direction),
            product,
            decaying,
            decaying_product,
            relative: sum(self.relative),
            moving: sum(self.moving.map(Element::as_f64)),
            largest_param: largest(self.largest_param),
            largest_direction: largest(self.largest_direction),
        }
    }
}

/// Counts what is not 0, in numbers of the type: a block has fewer elements than those count.
struct Count<'v, A> {
    direction: &'v [A],
    sums: &'v mut [A; AT_ONCE],
}

impl<A: Element> NullaryFnOnce for Count<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { direction, sums } = self;
        let mut lanes = *sums;
        let (chunks, rest) = direction.as_chunks::<AT_ONCE>();
        for chunk in chunks {
            add_moving(&mut lanes, chunk);
        }
        add_moving(&mut lanes, &padded(rest));
        *sums = lanes;
    }
}

/// Σ of numbers.
struct Plain<'v, A> {
    values: &'v [A],
    sums: &'v mut [f64; AT_ONCE],
}

impl<A: Element> NullaryFnOnce for Plain<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { values, sums } = self;
        let mut lanes = *sums;
        let (chunks, rest) = values.as_chunks::<AT_ONCE>();
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value.as_f64());
        }
        let rest: [A; AT_ONCE] = padded(rest);
        lanes.iter_mut().zip(rest).for_each(|(sum, value)| *sum += value.as_f64());
        *sums = lanes;
    }
}

/// Σθ², Σd² and Σθd. Apart from [`Squares`], beside whose loop this one would not be SIMD.
struct Products<'v, A> {
    param: &'v [A],
    direction: &'v [A],
    sums: [&'v mut [f64; AT_ONCE]; 3],
}

impl<A: Element> NullaryFnOnce for Products<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { param, direction, sums: [params, directions, products] } = self;
        let mut lanes = [*params, *directions, *products];
        let ((param, param_rest), (direction, direction_rest)) =
            (param.as_chunks::<AT_ONCE>(), direction.as_chunks::<AT_ONCE>());
        for (param, direction) in param.iter().zip(direction) {
            for lane in 0..AT_ONCE {
                add_squares(&mut lanes, lane, param[lane].as_f64(), direction[lane].as_f64());
            }
        }
        let (param, direction): ([A; AT_ONCE], [A; AT_ONCE]) = (padded(param_rest), padded(direction_rest));
        for lane in 0..AT_ONCE {
            add_squares(&mut lanes, lane, param[lane].as_f64(), direction[lane].as_f64());
        }
        [*params, *directions, *products] = lanes;
    }
}

/// Σθ², Σd² and Σθd of scaled numbers, and the largest of both.
struct Squares<'v, A> {
    param: &'v [A],
    direction: &'v [A],
    scales: Scales,
    /// Elements that do not decay count as 0.
    only_decaying: bool,
    sums: [&'v mut [f64; AT_ONCE]; 3],
    largest: [&'v mut [f64; AT_ONCE]; 2],
}

impl<A: Element> NullaryFnOnce for Squares<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { param, direction, scales: Scales { param: p, direction: d }, only_decaying, sums, largest } = self;
        let mut lanes = [*sums[0], *sums[1], *sums[2]];
        let [mut most_param, mut most_direction] = [*largest[0], *largest[1]];
        let mut add = |param: &[A; AT_ONCE], direction: &[A; AT_ONCE]| {
            for lane in 0..AT_ONCE {
                let param = decaying(only_decaying, param[lane], direction[lane]).as_f64() * p;
                let direction = direction[lane].as_f64() * d;
                most_param[lane] = param.abs().max(most_param[lane]);
                most_direction[lane] = direction.abs().max(most_direction[lane]);
                add_squares(&mut lanes, lane, param, direction);
            }
        };
        let ((param, param_rest), (direction, direction_rest)) =
            (param.as_chunks::<AT_ONCE>(), direction.as_chunks::<AT_ONCE>());
        param.iter().zip(direction).for_each(|(param, direction)| add(param, direction));
        add(&padded(param_rest), &padded(direction_rest));
        for (sum, lanes) in sums.into_iter().zip(lanes) {
            *sum = lanes;
        }
        for (largest, most) in largest.into_iter().zip([most_param, most_direction]) {
            *largest = most;
        }
    }
}

// Marked: what is not inlined has the instructions of the baseline.
#[inline(always)]
fn add_squares([params, directions, products]: &mut [[f64; AT_ONCE]; 3], lane: usize, param: f64, direction: f64) {
    params[lane] += param * param;
    directions[lane] += direction * direction;
    products[lane] += param * direction;
}

#[inline(always)]
fn add_moving<A: Element>(lanes: &mut [A; AT_ONCE], directions: &[A; AT_ONCE]) {
    for (sum, direction) in lanes.iter_mut().zip(directions) {
        *sum += if *direction == A::zero() { A::zero() } else { A::one() };
    }
}

/// The parameter, or 0 if only those that decay are wanted and it does not.
#[inline(always)]
fn decaying<A: Element>(only: bool, param: A, direction: A) -> A {
    if !only || agree(direction, param) { param } else { A::zero() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(param: &[f64], direction: &[f64]) -> Measured {
        Measured::of_directions(param, direction, Wanted { moving: true, norms: true, decaying: false })
    }

    #[test]
    fn a_ratio_by_hand() {
        let measured = measured(&[3.0, 4.0, 0.0], &[0.0, 2.0, 1.5]);
        assert_eq!((measured.elements, measured.moving()), (3.0, 2.0));
        assert_eq!(measured.ratio(2.0, 0.0), 1.0);
        // r = (1.5, 4, 1.5)
        assert!((measured.ratio(1.0, 0.5) - 5.0 / 20.5_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn without_a_parameter_or_an_update_the_ratio_is_1() {
        assert_eq!(measured(&[0.0; 3], &[1.0; 3]).ratio(1.0, 0.1), 1.0);
        assert_eq!(measured(&[1.0; 3], &[0.0; 3]).ratio(1.0, 0.0), 1.0);
        assert_eq!(measured(&[], &[]).ratio(1.0, 0.1), 1.0);
    }

    #[test]
    fn squares_beyond_the_range_of_f64_do_not_matter() {
        let (param, direction) = ([3.0, -4.0, 1.0], [1.0, 0.5, -2.0]);
        let expected = measured(&param, &direction).ratio(1.0, 0.0);
        for (p, d) in [(1e200, 1.0), (1.0, 1e-200), (1e-200, 1e-200), (1e150, 1e-150), (1e-150, 1e150)] {
            let ratio = measured(&param.map(|x| x * p), &direction.map(|x| x * d)).ratio(p / d, 0.0);
            assert!((ratio / expected - 1.0).abs() < 1e-14, "{p} {d}: {ratio}");
        }
    }
}
