//! The update rule, compared with a slow loop.

use ndarray::{Array2, ArrayD, ArrayViewMut0, Ix2, aview0, aview1};

use super::oracle::{ElementOracle, MatrixOracle, Oracle};
use super::{Kind, OptimizerLaws, TEST_SIZES, changing};
use crate::params::Scalar;
use crate::rule::At;
use crate::step::Optimizer;
use crate::testing::tensors::numbers;
use crate::testing::tree::{same, single};
use crate::testing::violation::{Held, broken, case, ensure};

/// Steps that the oracle is compared on.
const COMPARED: u64 = 10;

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn agrees_with_the_oracle(&self) -> Held {
        match &self.oracle {
            Some(Oracle::Element(oracle, slots)) => self.elements_agree(oracle, *slots),
            Some(Oracle::Matrix(oracle)) => self.matrices_agree(oracle),
            None => Ok(()),
        }
    }

    /// Each step rounds a handful of times, differently here and there; slots pass their difference on.
    fn margin(&self) -> f64 {
        4.0 * COMPARED as f64 * A::epsilon().as_f64() * self.tolerance
    }

    fn elements_agree(&self, oracle: &ElementOracle, slots: usize) -> Held {
        for size in TEST_SIZES {
            case(format_args!("{size} elements, {COMPARED} steps"), || self.vector_agrees(oracle, slots, size))?;
        }
        Ok(())
    }

    fn vector_agrees(&self, oracle: &ElementOracle, slots: usize, size: usize) -> Held {
        let start = numbers::<A>(&[size], 0);
        let mut expected: Vec<_> = start.iter().map(|param| (param.as_f64(), vec![0.0; slots])).collect();
        let (mut opt, mut params) = (self.with(changing), single(start));
        for step in 1..=COMPARED {
            let grads = numbers(&[size], step);
            opt.step(&mut params, &single(grads.clone()))?;
            let at = At { step, learning_rate: changing(step - 1), ..At::default() };
            for ((param, slots), grad) in expected.iter_mut().zip(&grads) {
                *param = oracle(&at, *param, grad.as_f64(), slots);
            }
        }
        let close = |ours: A, naive: f64| (ours.as_f64() - naive).abs() <= self.margin() * naive.abs().max(1.0);
        let params = params.0.iter().filter_map(|(_, tensor)| tensor.as_ref()).flatten();
        for (at, (ours, (naive, _))) in params.zip(&expected).enumerate() {
            ensure(close(*ours, *naive), || format!("\"w\" is {ours:?} at [{at}], where the oracle has {naive:?}"))?;
        }
        for (number, name) in self.slots.iter().enumerate().filter(|_| size > 0) {
            let Some(slot) = self.slot(&opt, name) else {
                return broken(format!("the state has no slot {name:?} of \"w\" in {}", A::DTYPE));
            };
            for (at, (ours, (_, naive))) in slot.iter().zip(&expected).enumerate() {
                let naive = naive.get(number).copied().unwrap_or(f64::NAN);
                ensure(close(*ours, naive), || {
                    format!("slot {name:?} of \"w\" is {ours:?} at [{at}], where the oracle has {naive:?}")
                })?;
            }
        }
        Ok(())
    }

    /// The slot of the single tensor in the saved state.
    fn slot(&self, opt: &O, name: &str) -> Option<ArrayD<A>> {
        let state = opt.state_dict();
        let end = format!("/{name}/w");
        let key = state.keys().find(|key| key.ends_with(&end))?;
        state.tensor(key)
    }

    fn matrices_agree(&self, oracle: &MatrixOracle) -> Held {
        // Square, because statistics of fewer rows than columns are singular, and have no eigenvectors of their own. If all tensors are one
        // vector, a vector of one element has nothing left but rounding after a few steps.
        for shape in [[1, 1], [2, 2], [5, 5], [8, 8]].into_iter().skip(usize::from(self.joins_tensors)) {
            case(format_args!("shape {shape:?}, {COMPARED} steps"), || self.matrix_agrees(oracle, shape))?;
        }
        Ok(())
    }

    fn matrix_agrees(&self, oracle: &MatrixOracle, shape: [usize; 2]) -> Held {
        let start = numbers::<A>(&shape, 0);
        let mut expected = as_matrix(&start);
        let (mut opt, mut params, mut memory) = (self.with(changing), single(start), Vec::new());
        let mut largest = 1.0; // on the way: rounding is relative to it
        for step in 1..=COMPARED {
            let grads = numbers(&shape, step);
            opt.step(&mut params, &single(grads.clone()))?;
            let at = At { step, learning_rate: changing(step - 1), ..At::default() };
            oracle(&at, &mut expected, &as_matrix(&grads), &mut memory);
            largest = expected.iter().fold(largest, |largest: f64, x| largest.max(x.abs()));
        }
        for found in params.0.iter().filter_map(|(_, tensor)| tensor.as_ref()) {
            for ((at, ours), naive) in as_matrix(found).indexed_iter().zip(&expected) {
                ensure((ours - naive).abs() <= self.margin() * largest, || {
                    format!("\"w\" is {ours:?} at {at:?}, where the oracle has {naive:?}")
                })?;
            }
        }
        Ok(())
    }

    /// What the driver does to a tensor, SIMD, blocks and tail, is what the rule does to each element.
    pub(super) fn elements_alone(&self) -> Held {
        if self.kind != Kind::Elements {
            return Ok(());
        }
        for size in TEST_SIZES.into_iter().filter(|size| *size <= 1000) {
            case(format_args!("{size} elements, 3 steps"), || {
                let (mut opt, mut whole) = (self.with(changing), numbers::<A>(&[size], 0));
                let (mut alone, mut elements) = (self.with(changing), whole.iter().copied().collect::<Vec<A>>());
                for step in 1..=3 {
                    let grads = numbers(&[size], step);
                    opt.step(&mut whole, &grads)?;
                    let views = elements.iter_mut().map(std::slice::from_mut);
                    let mut params: Vec<_> =
                        views.filter_map(|element| ArrayViewMut0::from_shape((), element).ok()).collect();
                    let grads: Vec<_> = grads.iter().map(aview0).collect();
                    alone.step(&mut params, &grads)?;
                }
                same("", whole.view(), aview1(&elements).into_dyn(), "the element alone")
            })?;
        }
        Ok(())
    }
}

fn as_matrix<A: Scalar>(tensor: &ArrayD<A>) -> Array2<f64> {
    tensor.mapv(A::as_f64).into_dimensionality::<Ix2>().unwrap_or_default()
}
