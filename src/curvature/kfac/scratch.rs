//! Memory that one step leaves for the next, so that it need not be asked for, mapped and cleared anew.

use std::mem::take;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ndarray::Array2;

use crate::params::Scalar;

/// Buffers whose contents do not matter. No part of the state: a copy begins without.
#[derive(Debug)]
pub(super) struct Scratch<A>(Mutex<Buffers<A>>);

#[derive(Debug)]
struct Buffers<A> {
    /// Given since the last step.
    new: Vec<Vec<A>>,
    /// Given before.
    old: Vec<Vec<A>>,
}

impl<A> Scratch<A> {
    fn buffers(&self) -> MutexGuard<'_, Buffers<A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a buffer to whoever takes one next.
    pub(super) fn give(&self, buffer: Vec<A>) {
        self.buffers().new.push(buffer);
    }

    /// A step is over: frees what was given before and not taken since.
    pub(super) fn renew(&self) {
        let mut buffers = self.buffers();
        buffers.old = take(&mut buffers.new);
    }
}

impl<A: Scalar> Scratch<A> {
    /// A matrix in row-major order, with whatever there is in it.
    pub(super) fn matrix(&self, shape: (usize, usize)) -> Array2<A> {
        let fitting = |buffers: &mut Vec<Vec<A>>| {
            let at = buffers.iter().position(|buffer| buffer.len() == shape.0 * shape.1)?;
            Some(buffers.swap_remove(at))
        };
        let mut buffers = self.buffers();
        let buffer = fitting(&mut buffers.new).or_else(|| fitting(&mut buffers.old));
        drop(buffers);
        buffer.and_then(|buffer| Array2::from_shape_vec(shape, buffer).ok()).unwrap_or_else(|| Array2::zeros(shape))
    }
}

impl<A> Default for Scratch<A> {
    fn default() -> Self {
        Self(Mutex::new(Buffers { new: Vec::new(), old: Vec::new() }))
    }
}

impl<A> Clone for Scratch<A> {
    fn clone(&self) -> Self {
        Self::default()
    }
}
