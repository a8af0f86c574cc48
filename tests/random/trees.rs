//! Trees of any kind: of no tensor or several, of ranks 0 to 4, empty ones, in every layout of memory, nested to some depth.

use std::collections::BTreeMap;
use std::fmt;

use gradus::Element;
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, ShapeBuilder, Slice};
use rand::RngExt;

use crate::report::Draw;

/// Paths and shapes.
pub(crate) type Names = Vec<(String, Vec<usize>)>;

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    C,
    Fortran,
    /// Every other element of the last axis of something larger.
    Gaps,
    /// The first axis runs backwards.
    Backwards,
    /// The first two axes changed places.
    Swapped,
}

/// One tensor: the memory, and which part of it is meant.
#[derive(Debug, Clone)]
pub(crate) struct Leaf<A> {
    memory: ArrayD<A>,
    form: Form,
}

/// A tree. Fields keep the order they are given in, as those of a struct do.
#[derive(Debug, Clone)]
pub(crate) enum Tree<A> {
    Leaf(Leaf<A>),
    Nothing,
    List(Vec<Tree<A>>),
    Fields(Vec<(String, Tree<A>)>),
    Map(BTreeMap<String, Tree<A>>),
}

impl<A: Element> Leaf<A> {
    /// These values, row by row, in this shape and form.
    pub(crate) fn new(shape: &[usize], values: &[A], form: Form) -> Self {
        let form = if shape.is_empty() || shape.len() < 2 && form == Form::Swapped { Form::C } else { form };
        let memory = match form {
            Form::C | Form::Backwards => ArrayD::zeros(IxDyn(shape)),
            Form::Fortran => ArrayD::zeros(IxDyn(shape).f()),
            Form::Gaps => {
                let mut wide = shape.to_vec();
                *wide.last_mut().unwrap() *= 2;
                ArrayD::from_elem(IxDyn(&wide), A::from_f64(7.0))
            }
            Form::Swapped => {
                let mut swapped = shape.to_vec();
                swapped.swap(0, 1);
                ArrayD::zeros(IxDyn(&swapped))
            }
        };
        let mut leaf = Self { memory, form };
        leaf.view_mut().iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        leaf
    }

    pub(crate) fn view(&self) -> ArrayViewD<'_, A> {
        let mut view = self.memory.view();
        match self.form {
            Form::C | Form::Fortran => view,
            Form::Gaps => {
                let last = Axis(view.ndim() - 1);
                view.slice_axis_move(last, Slice::new(0, None, 2))
            }
            Form::Backwards => {
                view.invert_axis(Axis(0));
                view
            }
            Form::Swapped => {
                view.swap_axes(0, 1);
                view
            }
        }
    }

    pub(crate) fn view_mut(&mut self) -> ArrayViewMutD<'_, A> {
        let mut view = self.memory.view_mut();
        match self.form {
            Form::C | Form::Fortran => view,
            Form::Gaps => {
                let last = Axis(view.ndim() - 1);
                view.slice_axis_move(last, Slice::new(0, None, 2))
            }
            Form::Backwards => {
                view.invert_axis(Axis(0));
                view
            }
            Form::Swapped => {
                view.swap_axes(0, 1);
                view
            }
        }
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        self.view().shape().to_vec()
    }
}

impl<A: Element> Params for Tree<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        match self {
            Self::Leaf(leaf) => visitor.tensor(leaf.view()),
            Self::Nothing => visitor.absent(),
            Self::List(trees) => trees.iter().enumerate().for_each(|(at, tree)| visitor.index(at, tree)),
            Self::Fields(fields) => fields.iter().for_each(|(name, tree)| visitor.field(name, tree)),
            Self::Map(map) => map.visit(visitor),
        }
    }
}

impl<A: Element> ParamsMut for Tree<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        match self {
            Self::Leaf(leaf) => visitor.tensor(leaf.view_mut()),
            Self::Nothing => visitor.absent(),
            Self::List(trees) => trees.iter_mut().enumerate().for_each(|(at, tree)| visitor.index(at, tree)),
            Self::Fields(fields) => fields.iter_mut().for_each(|(name, tree)| visitor.field(name, tree)),
            Self::Map(map) => map.visit_mut(visitor),
        }
    }
}

impl<A: Element> Tree<A> {
    /// The tensors, in the order of the walk.
    pub(crate) fn leaves(&self) -> Vec<&Leaf<A>> {
        match self {
            Self::Leaf(leaf) => vec![leaf],
            Self::Nothing => Vec::new(),
            Self::List(trees) => trees.iter().flat_map(Self::leaves).collect(),
            Self::Fields(fields) => fields.iter().flat_map(|(_, tree)| tree.leaves()).collect(),
            Self::Map(map) => map.values().flat_map(Self::leaves).collect(),
        }
    }

    pub(crate) fn leaves_mut(&mut self) -> Vec<&mut Leaf<A>> {
        match self {
            Self::Leaf(leaf) => vec![leaf],
            Self::Nothing => Vec::new(),
            Self::List(trees) => trees.iter_mut().flat_map(Self::leaves_mut).collect(),
            Self::Fields(fields) => fields.iter_mut().flat_map(|(_, tree)| tree.leaves_mut()).collect(),
            Self::Map(map) => map.values_mut().flat_map(Self::leaves_mut).collect(),
        }
    }

    /// A tree of the same paths whose tensors are made from those here.
    pub(crate) fn map<B>(&self, make: &mut impl FnMut(&Leaf<A>) -> Leaf<B>) -> Tree<B> {
        match self {
            Self::Leaf(leaf) => Tree::Leaf(make(leaf)),
            Self::Nothing => Tree::Nothing,
            Self::List(trees) => Tree::List(trees.iter().map(|tree| tree.map(make)).collect()),
            Self::Fields(fields) => {
                Tree::Fields(fields.iter().map(|(name, tree)| (name.clone(), tree.map(make))).collect())
            }
            Self::Map(map) => Tree::Map(map.iter().map(|(name, tree)| (name.clone(), tree.map(make))).collect()),
        }
    }

    /// A tree like this one with numbers from −`scale` to `scale`, and forms of memory as `forms` says.
    pub(crate) fn like<B: Element>(&self, scale: f64, values: &mut impl RngExt, forms: &mut impl RngExt) -> Tree<B> {
        self.map(&mut |leaf| {
            let numbers: Vec<B> =
                leaf.view().iter().map(|_| B::from_f64(values.random_range(-scale..=scale))).collect();
            Leaf::new(&leaf.shape(), &numbers, form(forms))
        })
    }

    /// All memory, what lies between the elements too, bit for bit.
    pub(crate) fn memory(&self) -> Vec<u64> {
        self.leaves().iter().flat_map(|leaf| leaf.memory.iter().map(|x| x.as_f64().to_bits())).collect()
    }

    /// The values, row by row, bit for bit.
    pub(crate) fn bits(&self) -> Vec<u64> {
        self.leaves()
            .iter()
            .flat_map(|leaf| leaf.view().iter().map(|x| x.as_f64().to_bits()).collect::<Vec<_>>())
            .collect()
    }

    /// The largest magnitude; NaN if there is one.
    pub(crate) fn largest(&self) -> f64 {
        let values =
            self.leaves().into_iter().flat_map(|leaf| leaf.view().iter().map(|x| x.as_f64().abs()).collect::<Vec<_>>());
        values.fold(0.0, |largest, x| if largest.is_nan() || x.is_nan() { f64::NAN } else { largest.max(x) })
    }

    /// Paths and shapes; of a tree in which two tensors have one path too.
    pub(crate) fn names(&self) -> Names {
        let mut names = Vec::new();
        gradus::params::for_each(self, |path, shape, values| {
            if values.is_some() {
                names.push((path.to_string(), shape.to_vec()));
            }
        });
        names
    }
}

/// Paths and shapes in one line.
impl<A: Element> fmt::Display for Tree<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forms: Vec<_> = self.leaves().iter().map(|leaf| leaf.form).collect();
        let names = self.names();
        let all: Vec<_> =
            names.iter().zip(forms).map(|((path, shape), form)| format!("{path:?} {shape:?} {form:?}")).collect();
        write!(f, "{{{}}}", all.join(", "))
    }
}

pub(crate) fn form(random: &mut impl RngExt) -> Form {
    match random.below(10) {
        0..5 => Form::C,
        5..7 => Form::Fortran,
        7 => Form::Gaps,
        8 => Form::Backwards,
        _ => Form::Swapped,
    }
}

/// A shape of few elements; now and then of none.
pub(crate) fn shape(random: &mut impl RngExt) -> Vec<usize> {
    let rank = random.pick(&[0, 1, 1, 1, 2, 2, 2, 2, 3, 4]);
    let empty = random.chance(0.05);
    (0..rank).map(|_| if empty { random.below(2) } else { 1 + random.below(4) }).collect()
}

/// A tree of shapes. Its numbers do not matter.
pub(crate) fn tree(random: &mut impl RngExt) -> Tree<f64> {
    match random.below(20) {
        0 => Tree::Leaf(leaf(random)),
        1 => Tree::List(Vec::new()),
        _ => node(random, 2),
    }
}

fn leaf(random: &mut impl RngExt) -> Leaf<f64> {
    let shape = shape(random);
    Leaf::new(&shape, &[], Form::C)
}

fn node(random: &mut impl RngExt, depth: usize) -> Tree<f64> {
    let count = 1 + random.below(3);
    let mut children = || -> Vec<Tree<f64>> {
        let child = |_| match random.below(12) {
            0 => Tree::Nothing,
            1..4 if depth > 0 => node(random, depth - 1),
            _ => Tree::Leaf(leaf(random)),
        };
        (0..count).map(child).collect()
    };
    let children = children();
    let names = ["w", "b", "head", "a.b", "ä"].map(String::from);
    match random.below(3) {
        0 => Tree::List(children),
        1 => Tree::Fields(names.into_iter().zip(children).collect()),
        _ => Tree::Map(names.into_iter().zip(children).collect()),
    }
}
