//! The walk through a tree: paths on the stack, one callback per tensor.

use std::fmt;

use ndarray::{ArrayView, ArrayViewMut, Dimension};

use super::{Params, ParamsMut, Values, ValuesMut};
use crate::params::Element;

/// Where in a tree the walk is: a linked list on the stack, so that no walk allocates strings.
///
/// [`Display`](fmt::Display) gives the dotted form, `layers.0.weight`; the root's is empty.
#[derive(Debug, Clone, Copy)]
pub struct Path<'v> {
    parent: Option<&'v Path<'v>>,
    segment: Segment<'v>,
}

#[derive(Debug, Clone, Copy)]
enum Segment<'v> {
    Root,
    Name(&'v str),
    Index(usize),
}

impl Path<'_> {
    const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    /// Whether this is the dotted path `text`, without building it: from the last segment to the first.
    #[inline]
    pub fn is(&self, text: &str) -> bool {
        let (mut path, mut text) = (self, text.as_bytes());
        loop {
            let rest = match path.segment {
                Segment::Root => return text.is_empty(),
                Segment::Name(name) => text.strip_suffix(name.as_bytes()),
                Segment::Index(index) => strip_index_from_end(text, index),
            };
            let (Some(rest), Some(parent)) = (rest, path.parent) else { return false };
            (path, text) = match (parent.is_root(), rest.strip_suffix(b".")) {
                (true, _) => return rest.is_empty(),
                (false, Some(rest)) => (parent, rest),
                (false, None) => return false,
            };
        }
    }

    /// Whether the tensor `text` lies below this path. A name with dots is a path of several segments.
    pub fn is_above(&self, text: &str) -> bool {
        if self.is_root() { !text.is_empty() } else { self.strip(text).is_some_and(|rest| rest.starts_with('.')) }
    }

    fn is_root(&self) -> bool {
        matches!(self.segment, Segment::Root)
    }

    /// What remains of `text` behind this path.
    fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        let text = match self.parent {
            Some(parent) if !parent.is_root() => parent.strip(text)?.strip_prefix('.')?,
            _ => text,
        };
        match self.segment {
            Segment::Root => Some(text),
            Segment::Name(name) => text.strip_prefix(name),
            Segment::Index(index) => strip_index(text, index),
        }
    }
}

/// Takes the decimal digits of `index` off the end of `text`.
#[inline]
fn strip_index_from_end(mut text: &[u8], index: usize) -> Option<&[u8]> {
    let mut remaining = index;
    loop {
        let (last, rest) = text.split_last()?;
        if *last != b'0' + (remaining % 10) as u8 {
            return None;
        }
        (remaining, text) = (remaining / 10, rest);
        if remaining == 0 {
            return Some(text);
        }
    }
}

/// Takes the decimal digits of `index` off the front of `text`.
fn strip_index(text: &str, index: usize) -> Option<&str> {
    let digits = index.checked_ilog10().unwrap_or(0) as usize + 1;
    let (head, rest) = text.split_at_checked(digits)?;
    let mut remaining = index;
    for byte in head.bytes().rev() {
        if byte != b'0' + (remaining % 10) as u8 {
            return None;
        }
        remaining /= 10;
    }
    Some(rest)
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|parent| !parent.is_root()) {
            write!(f, "{parent}.")?;
        }
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Name(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "{index}"),
        }
    }
}

/// What a callback of a walk receives: path, shape, and the values, or none where an `Option` was empty.
type Callback<'v, V> = dyn FnMut(&Path<'_>, &[usize], Option<V>) + 'v;

/// Receives the tensors of a [`Params`] tree.
pub struct Visitor<'v, 'a, A> {
    path: Path<'v>,
    callback: &'v mut Callback<'v, Values<'a, A>>,
}

/// Receives the tensors of a [`ParamsMut`] tree.
pub struct VisitorMut<'v, 'a, A> {
    path: Path<'v>,
    callback: &'v mut Callback<'v, ValuesMut<'a, A>>,
}

/// The two visitors differ in nothing but `&` and `&mut`.
macro_rules! visitor {
    ($visitor:ident, $tree:ident, $visit:ident, $view:ident, $values:ident, $($mutable:tt)?) => {
        impl<'a, A: Element> $visitor<'_, 'a, A> {
            /// Visits a subtree under a name.
            pub fn field<T: $tree<Elem = A> + ?Sized>(&mut self, name: &str, tree: &'a $($mutable)? T) {
                self.descend(Segment::Name(name), tree);
            }

            /// Visits a subtree under an index.
            pub fn index<T: $tree<Elem = A> + ?Sized>(&mut self, index: usize, tree: &'a $($mutable)? T) {
                self.descend(Segment::Index(index), tree);
            }

            /// Shows one tensor, at the path reached so far.
            pub fn tensor<D: Dimension>(&mut self, view: $view<'a, A, D>) {
                let shape = view.raw_dim();
                (self.callback)(&self.path, shape.slice(), Some($values::new(view)));
            }

            /// Says that the tensors at and below the path reached so far are absent: in a gradient tree,
            /// "no gradient this step".
            pub fn absent(&mut self) {
                (self.callback)(&self.path, &[], None);
            }

            /// Shows one tensor at a path of its own; the root's is empty.
            #[cfg(feature = "federated")]
            pub(crate) fn tensor_at<D: Dimension>(&mut self, path: &str, view: $view<'a, A, D>) {
                let segment = if path.is_empty() { Segment::Root } else { Segment::Name(path) };
                let path = Path { parent: Some(&self.path), segment };
                $visitor { path, callback: &mut *self.callback }.tensor(view);
            }

            fn descend<T: $tree<Elem = A> + ?Sized>(&mut self, segment: Segment<'_>, tree: &'a $($mutable)? T) {
                let path = Path { parent: Some(&self.path), segment };
                tree.$visit(&mut $visitor { path, callback: &mut *self.callback });
            }
        }

        impl<A> fmt::Debug for $visitor<'_, '_, A> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($visitor)).field("path", &self.path).finish_non_exhaustive()
            }
        }
    };
}

visitor!(Visitor, Params, visit, ArrayView, Values,);
visitor!(VisitorMut, ParamsMut, visit_mut, ArrayViewMut, ValuesMut, mut);

/// Calls `f` with the path, the shape and the values of every tensor; with `None` for an empty `Option`.
///
/// ```
/// let layers = vec![(ndarray::array![[1.0, 2.0]], ndarray::array![3.0])];
/// let mut names = Vec::new();
/// gradus::params::for_each(&layers, |path, shape, _| names.push(format!("{path} {shape:?}")));
/// assert_eq!(names, ["0.0 [1, 2]", "0.1 [1]"]);
/// ```
pub fn for_each<'a, T: Params + ?Sized>(
    tree: &'a T,
    mut f: impl FnMut(&Path<'_>, &[usize], Option<Values<'a, T::Elem>>),
) {
    tree.visit(&mut Visitor { path: Path::ROOT, callback: &mut f });
}

/// [`for_each`] with values that can be written.
pub fn for_each_mut<'a, T: ParamsMut + ?Sized>(
    tree: &'a mut T,
    mut f: impl FnMut(&Path<'_>, &[usize], Option<ValuesMut<'a, T::Elem>>),
) {
    tree.visit_mut(&mut VisitorMut { path: Path::ROOT, callback: &mut f });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_compared_without_being_built() {
        let layers = Path { parent: Some(&Path::ROOT), segment: Segment::Name("layers") };
        let tenth = Path { parent: Some(&layers), segment: Segment::Index(10) };
        let weight = Path { parent: Some(&tenth), segment: Segment::Name("weight") };
        assert_eq!(weight.to_string(), "layers.10.weight");
        assert!(weight.is("layers.10.weight"));
        for other in ["layers.1.weight", "layers.10.weights", "layers.10", "layer.10.weight", "", "layers.100.weight"] {
            assert!(!weight.is(other), "{other}");
        }
        assert!(tenth.is_above("layers.10.weight") && !tenth.is_above("layers.10"));
        assert!(!tenth.is_above("layers.100.weight") && !tenth.is_above("layers.1"));
        assert!(
            Path::ROOT.is_above("anything") && !Path::ROOT.is_above("") && Path::ROOT.is("") && !Path::ROOT.is("x")
        );
    }

    #[test]
    fn an_index_is_compared_by_its_digits() {
        assert_eq!(strip_index("0.w", 0), Some(".w"));
        assert_eq!(strip_index("907", 907), Some(""));
        assert_eq!(strip_index("97", 907), None);
        assert_eq!(strip_index("é", 1), None);
    }
}
