//! What goes wrong with a step: numbers, trees, schedules.

use gradus::Element;
use rand::RngExt;

use crate::dials::{Turn, nonsense};
use crate::report::Draw;
use crate::trees::{Leaf, Tree, form, shape};

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This value in one element of a gradient.
    Element(f64),
    /// All gradients times this.
    Scaled(f64),
    /// `None` for the gradient of one tensor, or for all.
    NoGradient(bool),
    /// Another gradient tree than the parameters'.
    Gradients(Edit),
    /// Another tree of parameters, with the gradients that belong to it.
    Both(Edit),
    /// Another tree of parameters alone.
    Parameters(Edit),
    Dial(usize, Turn),
    /// This value in one element of the parameters: the user's doing, and no error.
    Parameter(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Edit {
    Missing,
    Extra,
    Renamed,
    Reshaped,
    Repeated,
    Reordered,
    Emptied,
    None,
}

pub(crate) fn draw(dials: usize, random: &mut impl RngExt) -> Fault {
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let edits = [
        Edit::Missing,
        Edit::Extra,
        Edit::Renamed,
        Edit::Reshaped,
        Edit::Reshaped,
        Edit::Repeated,
        Edit::Reordered,
        Edit::Emptied,
        Edit::None,
    ];
    match random.below(20) {
        0..3 => Fault::Element(random.pick(&values)),
        3..5 => Fault::Scaled(random.pick(&[0.0, 3e38, 1.5e308, 1e-40, 1e-320, 1e19, 1e160, 6e4])),
        5 => Fault::NoGradient(random.chance(0.5)),
        6..9 => Fault::Gradients(random.pick(&edits)),
        9..12 => Fault::Both(random.pick(&edits)),
        12 => Fault::Parameters(random.pick(&edits)),
        13 => Fault::Parameter(random.pick(&[f64::NAN, f64::INFINITY, 3e38, 1e-40, 0.5, 0.25, 2.0])),
        _ if dials > 0 => Fault::Dial(random.below(dials), nonsense(random)),
        _ => Fault::Both(random.pick(&edits)),
    }
}

impl Fault {
    /// Whether the numbers that go in are not those of a sane training.
    pub(crate) fn is_wild(&self) -> bool {
        match self {
            Self::Element(_) | Self::Scaled(_) | Self::Parameter(_) => true,
            // What a type cannot hold must be refused; what it can hold is the user's.
            Self::Dial(_, Turn::To(value)) => ![1e39, 1e-46].contains(value),
            _ => false,
        }
    }
}

/// The gradients as the fault leaves them.
pub(crate) fn spoil<A: Element>(grads: &mut Tree<A>, fault: &Fault, random: &mut impl RngExt) {
    match fault {
        Fault::Element(value) => set(grads, *value, random),
        Fault::Scaled(factor) => {
            let factor = *factor;
            let finite = |x: f64| A::from_f64(x).as_f64().is_finite();
            let scaled = |x: A| [x.as_f64() * factor, factor.copysign(x.as_f64())].into_iter().find(|x| finite(*x));
            grads
                .leaves_mut()
                .into_iter()
                .for_each(|leaf| leaf.view_mut().mapv_inplace(|x| scaled(x).map_or(x, A::from_f64)));
        }
        Fault::NoGradient(true) => *grads = grads.without(None),
        Fault::NoGradient(false) => *grads = grads.without(Some(random.below(grads.leaves().len()))),
        Fault::Gradients(edit) => edit_tree(grads, *edit, random),
        _ => {}
    }
}

/// Writes into one element.
pub(crate) fn set<A: Element>(tree: &mut Tree<A>, value: f64, random: &mut impl RngExt) {
    let mut leaves = tree.leaves_mut();
    let full: Vec<_> = (0..leaves.len()).filter(|at| !leaves[*at].view().is_empty()).collect();
    if !full.is_empty() {
        let mut view = leaves[random.pick(&full)].view_mut();
        let at = random.below(view.len());
        *view.iter_mut().nth(at).unwrap() = A::from_f64(value);
    }
}

/// Makes another tree of it.
pub(crate) fn edit_tree<A: Element>(tree: &mut Tree<A>, edit: Edit, random: &mut impl RngExt) {
    let extra = |random: &mut _| {
        let shape = shape(random);
        Tree::Leaf(Leaf::new(&shape, &vec![A::one(); shape.iter().product()], form(random)))
    };
    let leaves = tree.leaves().len();
    match edit {
        Edit::Emptied => *tree = Tree::List(Vec::new()),
        Edit::Reshaped if leaves > 0 => {
            let at = random.below(leaves);
            let leaf = &mut *tree.leaves_mut().swap_remove(at);
            let (old, mut new) = (leaf.shape(), shape(random));
            if old == new {
                new.push(2);
            }
            *leaf = Leaf::new(&new, &vec![A::one(); new.iter().product()], form(random));
        }
        Edit::None if leaves > 0 => *tree = tree.without(Some(random.below(leaves))),
        _ => match tree {
            Tree::List(children) => match edit {
                Edit::Missing | Edit::Renamed if !children.is_empty() => {
                    _ = children.remove(random.below(children.len()))
                }
                Edit::Reordered => children.reverse(),
                _ => children.push(extra(random)),
            },
            Tree::Fields(fields) => match edit {
                Edit::Missing if !fields.is_empty() => _ = fields.remove(random.below(fields.len())),
                Edit::Renamed if !fields.is_empty() => {
                    let at = random.below(fields.len());
                    fields[at].0.push('x');
                }
                Edit::Reordered => fields.reverse(),
                Edit::Repeated if !fields.is_empty() => {
                    let again = fields[random.below(fields.len())].clone();
                    fields.push(again);
                }
                _ => fields.push(("extra".into(), extra(random))),
            },
            Tree::Map(map) => match edit {
                Edit::Missing => _ = map.pop_first(),
                Edit::Renamed => {
                    if let Some((name, tree)) = map.pop_first() {
                        map.insert(name + "x", tree);
                    }
                }
                _ => _ = map.insert("extra".into(), extra(random)),
            },
            Tree::Leaf(_) | Tree::Nothing => *tree = Tree::List(vec![std::mem::replace(tree, Tree::Nothing)]),
        },
    }
}

impl<A: Element> Tree<A> {
    /// Nothing instead of the leaf of this number, or of all.
    fn without(&self, leaf: Option<usize>) -> Self {
        self.without_from(leaf, &mut 0)
    }

    fn without_from(&self, which: Option<usize>, next: &mut usize) -> Self {
        match self {
            Self::Leaf(leaf) => {
                *next += 1;
                if which.is_none_or(|which| which == *next - 1) { Self::Nothing } else { Self::Leaf(leaf.clone()) }
            }
            Self::Nothing => Self::Nothing,
            Self::List(trees) => Self::List(trees.iter().map(|tree| tree.without_from(which, next)).collect()),
            Self::Fields(fields) => {
                Self::Fields(fields.iter().map(|(name, tree)| (name.clone(), tree.without_from(which, next))).collect())
            }
            Self::Map(map) => {
                Self::Map(map.iter().map(|(name, tree)| (name.clone(), tree.without_from(which, next))).collect())
            }
        }
    }
}
