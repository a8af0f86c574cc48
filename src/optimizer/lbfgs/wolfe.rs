//! How far to go along a direction: the strong Wolfe conditions.

use crate::error::Result;
use crate::params::Scalar;

/// Sufficient decrease, and how flat it must have become: Nocedal and Wright's c₁ and c₂.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;

/// A place on the line.
#[derive(Debug, Clone)]
pub(super) struct Point<A> {
    /// How far along the direction.
    pub(super) length: f64,
    pub(super) loss: f64,
    /// The derivative along the direction.
    pub(super) slope: f64,
    pub(super) grad: Vec<A>,
}

/// The line that is searched.
pub(super) struct Line {
    /// The largest element of the direction.
    pub(super) largest: f64,
    /// Brackets in which no element moves by as much as this are not divided further.
    pub(super) tolerance: f64,
    /// No point is further along the direction.
    pub(super) longest: f64,
    /// The most evaluations after the first, and the most while none has found a lower point.
    pub(super) evaluations: u64,
    pub(super) most: u64,
}

impl Line {
    /// A point that satisfies the conditions or, if the evaluations end before, a lower one, if any was found; `first` is the first guess of
    /// the length. Nocedal and Wright's algorithms 3.5 and 3.6. Also the number of evaluations.
    ///
    /// A loss that is not finite counts as infinitely high, so that the search turns back.
    pub(super) fn search<A: Scalar>(
        &self,
        start: Point<A>,
        first: f64,
        mut evaluate: impl FnMut(f64) -> Result<Point<A>>,
    ) -> Result<(Point<A>, u64)> {
        let is_high = |point: &Point<A>| point.loss > start.loss + DECREASE * point.length * start.slope;
        let is_flat = |point: &Point<A>| point.slope.abs() <= -CURVATURE * start.slope;
        let (mut before, mut now, mut tried) = (start.clone(), evaluate(first)?, 0);
        // Further and further, until a minimum must lie behind.
        let mut bracket = loop {
            if tried >= self.evaluations && (tried >= self.most || now.loss < start.loss) {
                break [start.clone(), now];
            }
            if is_high(&now) || (tried > 1 && now.loss >= before.loss) {
                break [before, now];
            }
            if is_flat(&now) {
                return Ok((now, tried + 1));
            }
            if now.slope >= 0.0 {
                break [before, now];
            }
            if now.length >= self.longest {
                return Ok((now, tried + 1));
            }
            let bounds = (now.length + 0.01 * (now.length - before.length), 10.0 * now.length);
            let next = cubic(&before, &now, bounds).min(self.longest);
            before = std::mem::replace(&mut now, evaluate(next)?);
            tried += 1;
        };
        // Smaller and smaller around it.
        let lower = |bracket: &[Point<A>; 2]| usize::from(bracket[0].loss > bracket[1].loss);
        let (mut low, mut slow) = (lower(&bracket), false);
        while tried < self.evaluations || (tried < self.most && bracket[low].length == 0.0) {
            let [least, most] = order(bracket[0].length, bracket[1].length);
            if (most - least) * self.largest < self.tolerance {
                break;
            }
            let mut next = cubic(&bracket[0], &bracket[1], (least, most));
            let margin = 0.1 * (most - least);
            // Twice in a row close to an end: away from there.
            let close = (most - next).min(next - least) < margin;
            if close && (slow || next >= most || next <= least) {
                next = if most - next < next - least { most - margin } else { least + margin };
                slow = false;
            } else {
                slow = close;
            }
            let point = evaluate(next)?;
            tried += 1;
            if is_high(&point) || point.loss >= bracket[low].loss {
                bracket[1 - low] = point;
                low = lower(&bracket);
            } else if is_flat(&point) {
                return Ok((point, tried + 1));
            } else {
                if point.slope * (bracket[1 - low].length - bracket[low].length) >= 0.0 {
                    bracket[1 - low] = bracket[low].clone();
                }
                bracket[low] = point;
            }
        }
        let [first, second] = bracket;
        Ok((if low == 0 { first } else { second }, tried + 1))
    }
}

fn order(a: f64, b: f64) -> [f64; 2] {
    if a <= b { [a, b] } else { [b, a] }
}

/// The minimum of the cubic through two points with their slopes, within bounds; their middle where there is none.
fn cubic<A>(a: &Point<A>, b: &Point<A>, bounds: (f64, f64)) -> f64 {
    let (left, right) = if a.length <= b.length { (a, b) } else { (b, a) };
    let d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.length - b.length);
    let d2 = (d1 * d1 - a.slope * b.slope).sqrt();
    let share = (right.slope + d2 - d1) / (right.slope - left.slope + 2.0 * d2);
    let minimum = right.length - (right.length - left.length) * share;
    if minimum.is_nan() { (bounds.0 + bounds.1) / 2.0 } else { minimum.max(bounds.0).min(bounds.1) }
}
