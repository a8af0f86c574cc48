//! What the options of a driver have to know of a whole tensor.

use std::ops::Range;

use pulp::NullaryFnOnce;

use super::factor::Rms;
use crate::kernel::{simd, tree};
use crate::params::Element;
use crate::step::grad::BLOCK;
use crate::step::norm::near_one;

/// Sums over the elements of a tensor's parameter θ and direction d.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) elements: f64,
    sums: Sums,
    scales: Scales,
}

/// Powers of two that θ and d are multiplied with, so that their squares are numbers.
#[derive(Debug, Clone, Copy)]
struct Scales {
    param: f64,
    direction: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Σθ², Σd², Σθd.
    param: f64,
    direction: f64,
    product: f64,
    /// The elements with a direction.
    moving: f64,
    largest_param: f64,
    largest_direction: f64,
}

/// Squares of these have neither lost digits nor become infinite, and neither have sums of them.
const SAFE: Range<f64> = 1e-140..1e140;

impl Measured {
    /// Measures a tensor, given its number of elements and that of a block: the elements with a direction and, if `ratio`, the sums that
    /// [`ratio`](Self::ratio) needs. `read` gets a block's place and length in row-major order, and calls what it is given with the block of θ and that of d.
    pub(super) fn of<A: Element>(
        (elements, block): (usize, usize),
        ratio: bool,
        read: &(impl Fn(usize, usize, &mut dyn FnMut(&[A], &[A])) + Sync),
    ) -> Self {
        let measure = |scales: Scales| {
            let leaf = |start: usize, length: usize| {
                let mut sums = Sums::default();
                read(start, length, &mut |param, direction| sums = Sums::of(param, direction, ratio, scales));
                sums
            };
            tree::reduce((0, elements), block, &leaf, &Sums::plus)
        };
        let mut scales = Scales { param: 1.0, direction: 1.0 };
        let mut sums = measure(scales);
        let Sums { largest_param, largest_direction, .. } = sums;
        let is_safe = |largest: f64| largest == 0.0 || !largest.is_finite() || SAFE.contains(&largest);
        if !is_safe(largest_param) || !is_safe(largest_direction) {
            scales = Scales { param: near_one(largest_param), direction: near_one(largest_direction) };
            sums = measure(scales);
        }
        Self { elements: elements as f64, sums, scales }
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

    /// ‖θ‖ / ‖r‖ of the update r = factor·d + decay·θ; 1 if either is 0, and at most the largest number.
    ///
    /// ‖r‖ comes from the sums of both, so that what is left of r where both nearly cancel, less than 1e-8 of them, counts as 0.
    pub(super) fn ratio(&self, factor: f64, decay: f64) -> f64 {
        let Sums { param, direction, product, .. } = self.sums;
        // For the scaled numbers, and with the larger of both factors at 1.
        let factor = factor * (self.scales.param / self.scales.direction);
        let larger = factor.abs().max(decay);
        let (d, p) = (factor / larger, decay / larger);
        let update = d * d * direction + 2.0 * d * p * product + p * p * param;
        match param > 0.0 && direction > 0.0 && larger == 0.0 {
            // The factor is too small for a number of this scale.
            true => f64::MAX,
            false if param > 0.0 && update > 0.0 => (param.sqrt() / update.sqrt() / larger).min(f64::MAX),
            false => 1.0,
        }
    }
}

impl Sums {
    /// Those of a wide block.
    fn of<A: Element>(param: &[A], direction: &[A], ratio: bool, scales: Scales) -> Self {
        let leaf = |start: usize, length: usize| {
            let range = start..start + length;
            simd::arch().dispatch(Block { param: &param[range.clone()], direction: &direction[range], ratio, scales })
        };
        tree::reduce((0, param.len()), BLOCK, &leaf, &Self::plus)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            param: self.param + other.param,
            direction: self.direction + other.direction,
            product: self.product + other.product,
            moving: self.moving + other.moving,
            largest_param: self.largest_param.max(other.largest_param),
            largest_direction: self.largest_direction.max(other.largest_direction),
        }
    }
}

/// Elements summed side by side, the same on every machine.
const AT_ONCE: usize = 8;

/// A block to sum up.
struct Block<'v, A> {
    param: &'v [A],
    direction: &'v [A],
    ratio: bool,
    scales: Scales,
}

impl<A: Element> NullaryFnOnce for Block<'_, A> {
    type Output = Sums;

    #[inline(always)]
    fn call(self) -> Sums {
        let Self { param, direction, ratio, scales } = self;
        let moving = direction.iter().filter(|direction| **direction != A::zero()).count() as f64;
        if !ratio {
            return Sums { moving, ..Sums::default() };
        }
        // Squares of narrower types are numbers of `f64`.
        let is_wide = size_of::<A>() >= size_of::<f64>();
        let mut lanes = [[0.0; AT_ONCE]; 5];
        let [params, directions, products, largest_params, largest_directions] = &mut lanes;
        let mut add = |lane: usize, param: A, direction: A| {
            let (param, direction) = (param.as_f64() * scales.param, direction.as_f64() * scales.direction);
            params[lane] += param * param;
            directions[lane] += direction * direction;
            products[lane] += param * direction;
            if is_wide {
                largest_params[lane] = param.abs().max(largest_params[lane]);
                largest_directions[lane] = direction.abs().max(largest_directions[lane]);
            }
        };
        let (param_chunks, param_rest) = param.as_chunks::<AT_ONCE>();
        let (direction_chunks, direction_rest) = direction.as_chunks::<AT_ONCE>();
        for (param, direction) in param_chunks.iter().zip(direction_chunks) {
            for lane in 0..AT_ONCE {
                add(lane, param[lane], direction[lane]);
            }
        }
        for (lane, (param, direction)) in param_rest.iter().zip(direction_rest).enumerate() {
            add(lane, *param, *direction);
        }
        let sum = |lanes: [f64; AT_ONCE]| lanes.iter().sum();
        let largest = |lanes: [f64; AT_ONCE]| lanes.into_iter().fold(0.0, f64::max);
        let [param, direction, product, largest_param, largest_direction] = lanes;
        Sums {
            param: sum(param),
            direction: sum(direction),
            product: sum(product),
            moving,
            largest_param: largest(largest_param),
            largest_direction: largest(largest_direction),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(param: &[f64], direction: &[f64]) -> Measured {
        Measured::of((param.len(), BLOCK), true, &|start, length, then| {
            then(&param[start..start + length], &direction[start..start + length]);
        })
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
