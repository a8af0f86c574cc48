//! Tensors beside other tensors, and tensors without a gradient.

use ndarray::ArrayD;

use super::{OptimizerLaws, changing};
use crate::optimizer::OptimizerExt;
use crate::params::Scalar;
use crate::step::Optimizer;
use crate::testing::tensors::numbers;
use crate::testing::tree::{End, Tree, same_state, single, state_of};
use crate::testing::violation::{Held, case, ensure};

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn leaves(&self) -> Held {
        let shapes: [(&str, &[usize]); 4] = match self.is_elementwise() {
            true => [("a", &[]), ("b", &[6]), ("c", &[3, 5]), ("d", &[2, 2, 3])],
            false => [("a", &[1, 1]), ("b", &[1, 6]), ("c", &[3, 5]), ("d", &[2, 2, 3])],
        };
        let (mut opt, mut tree) = (self.with(changing), Tree::<A>::new(&shapes, 0));
        for step in 1..=3 {
            opt.step(&mut tree, &Tree::new(&shapes, step))?;
        }
        for (leaf, shape) in shapes {
            case(format_args!("shape {shape:?} among 4 tensors, 3 steps"), || {
                let (mut opt, mut alone) = (self.with(changing), Tree::new(&shapes, 0).only(leaf));
                for step in 1..=3 {
                    opt.step(&mut alone, &Tree::new(&shapes, step).only(leaf))?;
                }
                tree.only(leaf).same(&alone, "alone")
            })?;
        }
        Ok(())
    }

    /// The parts are multiples of 2⁻¹⁰, so that sums and means are exact.
    pub(super) fn accumulation(&self) -> Held {
        const PARTS: u64 = 4;
        let shape = self.shape(5003); // several blocks
        let coarse = |x: A| (x * A::from_f64(1024.0)).round() / A::from_f64(1024.0);
        let (mut large, mut by_large) = (self.with(changing), self.tree(5003, 0));
        let (mut small, mut by_small) = (self.with(changing).accumulate(PARTS), by_large.clone());
        for step in 0..3 {
            case(format_args!("shape {shape:?}, {PARTS} parts, step {step}"), || {
                let parts: Vec<_> =
                    (0..PARTS).map(|part| numbers::<A>(&shape, 1 + PARTS * step + part).mapv(coarse)).collect();
                let mean = parts.iter().fold(ArrayD::zeros(&shape[..]), |sum, part| sum + part);
                let mean = mean.mapv_into(|x| x / A::from_f64(PARTS as f64));
                large.step(&mut by_large, &single(mean))?;
                let before = by_small.clone();
                for (number, part) in (1..).zip(parts) {
                    by_small.same(&before, "before the last part")?;
                    let moved = small.step(&mut by_small, &single(part))?.moved;
                    ensure(moved == (number == PARTS), || {
                        format!("the report of part {number} says `moved: {moved}`, not {}", number == PARTS)
                    })?;
                }
                End::of(small.inner(), &by_small).same(&End::of(&large, &by_large), "in the step of the mean")
            })?;
        }
        Ok(())
    }

    /// Two tensors that get the same two gradients, at different steps.
    fn with_gaps(&self, after_each: impl Fn(&End<A>, &End<A>, &[&str]) -> Held) -> Held<(O, Tree<A>)> {
        let shape = self.shape(9);
        let both = |tensor: ArrayD<A>| Tree(vec![("first", Some(tensor.clone())), ("second", Some(tensor))]);
        let grads = |stream| both(numbers(&shape, stream));
        let (mut opt, mut tree) = (self.with(0.05), both(numbers(&shape, 0)));
        let all = ["first", "second"];
        for (step, absent) in [&all[1..], &all, &all[..1], &[]].into_iter().enumerate() {
            case(format_args!("shape {shape:?}, step {step}, no gradient for {absent:?}"), || {
                let before = End::of(&opt, &tree);
                let grads = grads(if step < 3 { 1 } else { 2 }).without(absent);
                let report = opt.step(&mut tree, &grads)?;
                ensure(report.moved == (absent.len() < 2), || {
                    format!("the report says `moved: {}`, not {}", report.moved, absent.len() < 2)
                })?;
                after_each(&before, &End::of(&opt, &tree), absent)
            })?;
        }
        ensure(opt.steps() == 4, || format!("`steps` is {} after 4 steps", opt.steps()))?;
        Ok((opt, tree))
    }

    pub(super) fn no_gradient(&self) -> Held {
        self.with_gaps(|before, after, absent| {
            absent.iter().try_for_each(|path| after.same_tensor(before, path, "before a step without its gradient"))
        })?;
        Ok(())
    }

    /// A tensor that skips a step is, afterwards, where it would be had that step not been.
    pub(super) fn own_steps(&self) -> Held {
        let (opt, tree) = self.with_gaps(|_, _, _| Ok(()))?;
        for path in ["first", "second"] {
            let (mut alone, shape) = (self.with(0.05), self.shape(9));
            let named = |stream| Tree(vec![(path, Some(numbers::<A>(&shape, stream)))]);
            let mut params = named(0);
            alone.step(&mut params, &named(1))?;
            alone.step(&mut params, &named(2))?;
            case(format_args!("shape {shape:?}, 2 of 4 steps"), || {
                params.same(&tree, "with steps between that it had no part in")?;
                let of = |opt: &O| state_of(&opt.state_dict(), path);
                same_state(&of(&opt), &of(&alone), "without the steps between that it had no part in")
            })?;
        }
        Ok(())
    }

    pub(super) fn zero_gradient(&self) -> Held {
        let start = self.tree(9, 0);
        let (mut opt, mut params) = (self.with(0.05), start.clone());
        case("3 steps", || {
            for _ in 0..3 {
                opt.step(&mut params, &start.clone().map(|_| A::zero()))?;
            }
            if !self.decays {
                return params.same(&start, "before");
            }
            let tensors = |tree: &Tree<A>| tree.0.iter().filter_map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>();
            let (found, start) = (tensors(&params), tensors(&start));
            let mut pairs = found.iter().flatten().zip(start.iter().flatten());
            match pairs.find(|(found, start)| found.abs() >= start.abs() || found.is_nan()) {
                Some((found, start)) => ensure(false, || format!("{start:?} became {found:?}, which is no smaller")),
                None => Ok(()),
            }
        })
    }
}
