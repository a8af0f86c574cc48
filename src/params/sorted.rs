//! Hash maps in the order of their keys.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use super::{Params, ParamsMut, Visitor, VisitorMut};

/// A `HashMap` as a tree: its entries in the order of their keys.
///
/// A `HashMap` has another order in every process. `Sorted` sorts the keys in every walk, which takes longer than a step of a few
/// small tensors; a [`BTreeMap`](std::collections::BTreeMap) is always sorted. The path of an entry is its key, as for a `BTreeMap`.
///
/// It wraps the map itself, for example in a struct, or a reference to it:
///
/// ```
/// use std::collections::HashMap;
///
/// use gradus::{params::Sorted, prelude::*};
/// use ndarray::{Array1, array};
///
/// let mut params: HashMap<String, Array1<f64>> = HashMap::from([("weight".into(), array![1.0, 2.0]), ("bias".into(), array![3.0])]);
/// let grads = params.clone(); // of ½‖θ‖²
/// Sgd::new(0.5).step(&mut Sorted(&mut params), &Sorted(&grads))?;
/// assert_eq!((&params["weight"], &params["bias"]), (&array![0.5, 1.0], &array![1.5]));
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(alias = "HashMap")]
pub struct Sorted<M>(
    /// The map, or a reference to it.
    pub M,
);

impl<M> Deref for Sorted<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Sorted<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

macro_rules! sorted {
    ($($map:ty),*) => {
        $(
            impl<K: AsRef<str>, T: Params, S> Params for Sorted<$map> {
                type Elem = T::Elem;

                fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
                    let mut entries: Vec<_> = self.0.iter().map(|(key, tree)| (key.as_ref(), tree)).collect();
                    entries.sort_unstable_by_key(|(name, _)| *name);
                    entries.into_iter().for_each(|(name, tree)| visitor.field(name, tree));
                }
            }
        )*
    };
}

macro_rules! sorted_mut {
    ($($map:ty),*) => {
        $(
            impl<K: AsRef<str>, T: ParamsMut, S> ParamsMut for Sorted<$map> {
                fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
                    let mut entries: Vec<_> = self.0.iter_mut().map(|(key, tree)| (key.as_ref(), tree)).collect();
                    entries.sort_unstable_by_key(|(name, _)| *name);
                    entries.into_iter().for_each(|(name, tree)| visitor.field(name, tree));
                }
            }
        )*
    };
}

sorted!(HashMap<K, T, S>, &HashMap<K, T, S>, &mut HashMap<K, T, S>);
sorted_mut!(HashMap<K, T, S>, &mut HashMap<K, T, S>);

/// A map whose entries have the same order in every walk.
#[doc(hidden)]
#[allow(unnameable_types, reason = "nobody implements it")]
#[diagnostic::on_unimplemented(
    message = "a `HashMap` has no fixed order, so it is no tree of parameters",
    label = "not a tree of arrays",
    note = "wrap the map or a reference to it, `gradus::params::Sorted(&mut map)`, or use a `BTreeMap`"
)]
pub trait HasOrder {}

/// Says in the compiler's error what to do.
impl<K, T: Params, S> Params for HashMap<K, T, S>
where
    Self: HasOrder,
{
    type Elem = T::Elem;

    fn visit<'a>(&'a self, _: &mut Visitor<'_, 'a, T::Elem>) {}
}

impl<K, T: ParamsMut, S> ParamsMut for HashMap<K, T, S>
where
    Self: HasOrder,
{
    fn visit_mut<'a>(&'a mut self, _: &mut VisitorMut<'_, 'a, T::Elem>) {}
}
