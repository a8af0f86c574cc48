//! Trees as values: mix, add, compare and count whole models.
//!
//! The arguments are [trees](crate::params): models, gradients, single arrays. The two trees of a call need the same tensors: the same paths and
//! shapes, in any order. They may be of different types, for example a struct and a map.
//!
//! | function | result |
//! |---|---|
//! | [`lerp`] | target ← target + τ·(source − target) |
//! | [`axpy`] | target ← target + α·source |
//! | [`scale`] | tree ← factor·tree |
//! | [`copy`], [`cast`] | target ← source, of the same or of another element type |
//! | [`zeros_like`] | a tree of the same type with zeros |
//! | [`dot`], [`norm`], [`distance`] | Σ a·b, √Σ a², √Σ (a − b)² over all elements |
//! | [`is_finite`] | whether no element is NaN or infinite |
//! | [`count`], [`summary`] | tensors, elements and bytes in all, and a table of them |
//!
//! ```
//! use gradus::{prelude::*, tree};
//! use ndarray::{Array1, Array2};
//!
//! #[derive(Params, Clone)]
//! struct Critic {
//!     weight: Array2<f32>,
//!     bias: Array1<f32>,
//! }
//!
//! let critic = Critic { weight: Array2::ones((1, 3)), bias: Array1::ones(1) };
//! let mut target = tree::zeros_like(&critic);
//! tree::lerp(&mut target, &critic, 0.25)?; // a target network
//! assert_eq!(target.weight, Array2::from_elem((1, 3), 0.25));
//! assert_eq!(tree::distance(&target, &critic)?, 1.5);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! The functions use SIMD and all threads as a step does, and read and write any memory layout. Sums are added up in `f64`, in a fixed order:
//! their bits depend on neither the number of threads nor the layout.
//!
//! In the second tree of [`dot`], [`distance`] and [`axpy`], [`Rows`](crate::Rows) count as zeros in the other rows.
//! An empty `Option` is no tensor: it must be empty in both trees.
//!
//! # Errors
//! [`ArgumentError::Trees`](crate::error::ArgumentError::Trees) with the first tensor that only one tree has, or that has another shape. Nothing is
//! changed then. Also [`StepError::DuplicatePath`](crate::error::StepError::DuplicatePath), if the trees have different orders and one has a path twice;
//! [`StepError::RowsUnusable`](crate::error::StepError::RowsUnusable) and the other errors of [`Rows`](crate::Rows);
//! [`ArgumentError::Range`](crate::error::ArgumentError::Range) for a factor that is NaN or infinite.

mod pairs;
mod summary;
mod sums;
mod sweep;

use num_traits::{Float, Zero};

use super::grad::is_in_type;
use super::grad::rows::ensure_rows;
use super::memo::new_ids;
use super::{Grad, norm as norms};
use crate::error::{Error, Result};
use crate::params::{Element, Params, ParamsMut, TensorInfo, Values, for_each, for_each_mut};
use pairs::{InRows, alone, pair, pair_to_read};
use sweep::update_each;

pub use summary::{Count, Summary, TensorSummary, count, summary};

/// Moves `target` a fraction `tau` of the way to `source`: target networks, and averages of models.
///
/// # Update rule
/// ```text
/// target ← target + τ·(source − target)                 if |τ| < ½
/// target ← source − (1 − τ)·(source − target)           otherwise
/// ```
/// Both are the same number, rounded differently: τ = 0 keeps the target and τ = 1 copies the source, bit for bit. Every finite `tau` is accepted.
///
/// # Conventions
/// The formulas of PyTorch's `Tensor.lerp_`. It is optax's `incremental_update(source, target, tau)`. PyTorch's `get_ema_multi_avg_fn(d)` is
/// `tau = 1 − d`.
///
/// # Errors
/// Those of the [module](self#errors).
///
/// # Example
/// ```
/// use gradus::tree;
///
/// let (mut target, online) = (vec![0.0, 1.0], [1.0, 1.0]);
/// tree::lerp(&mut target, &online, 0.25)?;
/// assert_eq!(target, [0.25, 1.0]);
///
/// let error = tree::lerp(&mut target, &[1.0], 0.25).unwrap_err();
/// assert_eq!(error.to_string(), "the trees differ: tensor (root) has shape [2] in the first tree and [1] in the second");
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("polyak", "soft_update", "incremental_update", "ema"))]
pub fn lerp<T, S>(target: &mut T, source: &S, tau: f64) -> Result<()>
where
    T: ParamsMut + ?Sized,
    S: Params<Elem = T::Elem> + ?Sized,
{
    ensure_finite("tau", tau)?;
    let mut pairs = pair(|visit| for_each_mut(target, visit), source, InRows::Refused("lerp"))?;
    let from_target = tau.abs() < 0.5;
    let factor = if from_target { tau } else { 1.0 - tau };
    let own = T::Elem::from_f64(factor);
    match (is_in_type::<T::Elem>(factor), from_target) {
        (true, true) => update_each(&mut pairs, move |to, from| *to = between(*to, *from, own)),
        (true, false) => update_each(&mut pairs, move |to, from| *to = between(*from, *to, own)),
        (false, _) => update_each(&mut pairs, move |to, from| {
            let (now, then) = (to.as_f64(), from.as_f64());
            *to = T::Elem::from_f64(if from_target { between(now, then, factor) } else { between(then, now, factor) });
        }),
    }
    Ok(())
}

/// A number that is a part of the way from one to another.
#[inline(always)]
fn between<A: Float>(from: A, to: A, part: A) -> A {
    from + part * (to - from)
}

/// Adds `alpha` times `source` to `target`: target ← target + α·source.
///
/// # Errors
/// Those of the [module](self#errors).
///
/// # Example
/// ```
/// use gradus::tree;
///
/// let (mut total, grads) = (vec![1.0, 2.0], [3.0, 4.0]);
/// tree::axpy(&mut total, 0.5, &grads)?;
/// assert_eq!(total, [2.5, 4.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("add", "scaled_add"))]
pub fn axpy<T, S>(target: &mut T, alpha: f64, source: &S) -> Result<()>
where
    T: ParamsMut + ?Sized,
    S: Params<Elem = T::Elem> + ?Sized,
{
    ensure_finite("alpha", alpha)?;
    let mut pairs = pair(|visit| for_each_mut(target, visit), source, InRows::Zeros)?;
    let own = T::Elem::from_f64(alpha);
    match is_in_type::<T::Elem>(alpha) {
        true => update_each(&mut pairs, move |to, from| *to += own * *from),
        false => update_each(&mut pairs, move |to, from| {
            *to = T::Elem::from_f64(to.as_f64() + alpha * from.as_f64());
        }),
    }
    Ok(())
}

/// Multiplies every element by `factor`.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) if the factor is NaN or infinite.
///
/// # Example
/// ```
/// use gradus::tree;
///
/// let mut grads = (vec![1.0, 2.0], 3.0);
/// tree::scale(&mut grads, 0.5)?;
/// assert_eq!(grads, (vec![0.5, 1.0], 1.5));
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn scale<T: ParamsMut + ?Sized>(tree: &mut T, factor: f64) -> Result<()> {
    ensure_finite("factor", factor)?;
    let (mut pairs, own) = (alone(tree), T::Elem::from_f64(factor));
    match is_in_type::<T::Elem>(factor) {
        true => update_each(&mut pairs, move |value, _| *value *= own),
        false => update_each(&mut pairs, move |value, _| *value = T::Elem::from_f64(value.as_f64() * factor)),
    }
    Ok(())
}

/// Copies every element of `source` to `target`.
///
/// # Errors
/// Those of the [module](self#errors).
///
/// # Example
/// ```
/// use std::collections::BTreeMap;
///
/// use gradus::tree;
///
/// let (mut model, saved) = ((0.0, vec![0.0]), BTreeMap::from([("1", vec![2.0])]));
/// let error = tree::copy(&mut model, &saved).unwrap_err();
/// assert_eq!(error.to_string(), r#"the trees differ: tensor "0" is only in the first tree"#);
/// tree::copy(&mut model.1, &saved["1"])?;
/// assert_eq!(model, (0.0, vec![2.0]));
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("assign", "load_state_dict", "hard_update"))]
pub fn copy<T, S>(target: &mut T, source: &S) -> Result<()>
where
    T: ParamsMut + ?Sized,
    S: Params<Elem = T::Elem> + ?Sized,
{
    let mut pairs = pair(|visit| for_each_mut(target, visit), source, InRows::Refused("copy"))?;
    update_each(&mut pairs, |to, from| *to = *from);
    Ok(())
}

/// [`copy`] from another element type. Each number is rounded to the nearest of the target's type.
///
/// # Errors
/// Those of the [module](self#errors).
///
/// # Example
/// ```
/// use gradus::{prelude::*, tree};
/// use ndarray::{Array1, array};
///
/// #[derive(Params)]
/// struct Linear<A> {
///     weight: Array1<A>,
///     bias: A,
/// }
///
/// let trained = Linear { weight: array![0.5_f32, 0.1], bias: 1.0 };
/// let mut exact = Linear { weight: Array1::zeros(2), bias: 0.0_f64 }; // to check gradients in f64
/// tree::cast(&mut exact, &trained)?;
/// assert_eq!((exact.weight[1], exact.bias), (f64::from(0.1_f32), 1.0));
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn cast<T: ParamsMut + ?Sized, S: Params + ?Sized>(target: &mut T, source: &S) -> Result<()> {
    let mut pairs = pair(|visit| for_each_mut(target, visit), source, InRows::Refused("cast"))?;
    update_each(&mut pairs, |to, from: &S::Elem| *to = T::Elem::from_f64(from.as_f64()));
    Ok(())
}

/// A clone of the tree with zeros. Fields that are skipped are cloned as they are.
///
/// ```
/// let sums = gradus::tree::zeros_like(&(vec![1.0, 2.0], Some(3.0)));
/// assert_eq!(sums, (vec![0.0, 0.0], Some(0.0)));
/// ```
pub fn zeros_like<T: ParamsMut + Clone>(tree: &T) -> T {
    let mut zeros = tree.clone();
    update_each(&mut alone(&mut zeros), |value, _| *value = T::Elem::zero());
    zeros
}

/// The sum of the products of all elements, in `f64`.
///
/// # Errors
/// Those of the [module](self#errors).
///
/// # Example
/// ```
/// use gradus::tree;
///
/// let (a, b) = ((vec![1.0, 2.0], 3.0), (vec![4.0, 5.0], 6.0));
/// assert_eq!(tree::dot(&a, &b)?, 32.0);
/// let cosine = tree::dot(&a, &b)? / (tree::norm(&a)? * tree::norm(&b)?);
/// assert!((cosine - 0.9746).abs() < 1e-4);
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn dot<A: Element>(a: &(impl Params<Elem = A> + ?Sized), b: &(impl Params<Elem = A> + ?Sized)) -> Result<f64> {
    Ok(sums::dot(&pair_to_read("dot", a, b)?))
}

/// The Euclidean norm of the difference of two trees, in `f64`. No square over- or underflows.
///
/// # Errors
/// Those of the [module](self#errors).
///
/// # Example
/// ```
/// let (before, after) = (vec![1.0, 2.0], [4.0, 6.0]);
/// assert_eq!(gradus::tree::distance(&before, &after)?, 5.0);
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn distance<A: Element>(a: &(impl Params<Elem = A> + ?Sized), b: &(impl Params<Elem = A> + ?Sized)) -> Result<f64> {
    Ok(sums::distance(&pair_to_read("distance", a, b)?))
}

/// The Euclidean norm of all elements together, in `f64`: the norm that
/// [`clip_global_norm`](crate::OptimizerExt::clip_global_norm) limits. No square over- or underflows. [`Rows`](crate::Rows) are added up first.
///
/// # Errors
/// [`StepError::RowCount`](crate::error::StepError::RowCount), if the tree has [`Rows`](crate::Rows) with another number of indices than of rows.
///
/// # Example
/// ```
/// assert_eq!(gradus::tree::norm(&(vec![3.0, 0.0], 4.0))?, 5.0);
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn norm<T: Params + ?Sized>(tree: &T) -> Result<f64> {
    let (mut tensors, mut error) = (Vec::new(), None);
    for_each(tree, |path, shape, values| match values {
        Some(Values::Rows(rows)) => {
            let mut whole = shape.to_vec(); // of a tensor that has these rows
            whole
                .iter_mut()
                .take(1)
                .for_each(|count| *count = rows.0.iter().max().map_or(0, |row| row.saturating_add(1)));
            let info = TensorInfo::new(path.to_string(), &whole);
            match ensure_rows(&info, rows.0, shape) {
                Ok(()) => {
                    let grad = Grad::of_walked_rows(&info, *rows, new_ids(1));
                    tensors.push((info, grad));
                }
                Err(found) => _ = error.get_or_insert(found),
            }
        }
        Some(values) => tensors.push((TensorInfo::new("", shape), Grad::new(values))),
        None => {}
    });
    match error {
        Some(error) => Err(error),
        None => Ok(norms::norm(&tensors.iter().map(|(info, grad)| (info, grad)).collect::<Vec<_>>(), 2.0)),
    }
}

/// Whether no element is NaN or infinite.
///
/// ```
/// assert!(gradus::tree::is_finite(&vec![1.0, f64::MAX]));
/// assert!(!gradus::tree::is_finite(&(vec![1.0], f64::NAN)));
/// ```
pub fn is_finite<T: Params + ?Sized>(tree: &T) -> bool {
    let mut tensors = Vec::new();
    for_each(tree, |_, shape, values| {
        let values = match values {
            Some(Values::Rows(rows)) => Some(rows.1),
            values => values,
        };
        tensors.extend(values.map(|values| (TensorInfo::new("", shape), Grad::new(values))));
    });
    norms::all_finite(&tensors.iter().map(|(info, grad)| (info, grad)).collect::<Vec<_>>())
}

fn ensure_finite(argument: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::argument(argument, value, "a finite number")) }
}
