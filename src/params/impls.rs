//! The trees that need no derive: arrays, views, numbers and the standard containers.

use std::collections::BTreeMap;
use std::slice;

use ndarray::{
    ArrayBase, ArrayRef, ArrayView, ArrayViewMut, Axis, Data, DataMut, Dimension, IxDyn, aview_mut1, aview0,
};

use super::{Params, ParamsMut, Visitor, VisitorMut};
use crate::params::Element;

impl<A: Element, S: Data<Elem = A>, D: Dimension> Params for ArrayBase<S, D, A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.tensor(self.view());
    }
}

impl<A: Element, S: DataMut<Elem = A>, D: Dimension> ParamsMut for ArrayBase<S, D, A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        visitor.tensor(self.view_mut());
    }
}

impl<A: Element, D: Dimension> Params for ArrayRef<A, D> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.tensor(self.view());
    }
}

impl<A: Element, D: Dimension> ParamsMut for ArrayRef<A, D> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        visitor.tensor(self.view_mut());
    }
}

impl<T: Params + ?Sized> Params for &T {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        (**self).visit(visitor);
    }
}

impl<T: Params + ?Sized> Params for &mut T {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        (**self).visit(visitor);
    }
}

impl<T: ParamsMut + ?Sized> ParamsMut for &mut T {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        (**self).visit_mut(visitor);
    }
}

impl<T: Params + ?Sized> Params for Box<T> {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        (**self).visit(visitor);
    }
}

impl<T: ParamsMut + ?Sized> ParamsMut for Box<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        (**self).visit_mut(visitor);
    }
}

/// In parameters, `None` is no tensor. In gradients, `None` means that the tensors at and below its path have no gradient in this step.
impl<T: Params> Params for Option<T> {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        match self {
            Some(tree) => tree.visit(visitor),
            None => visitor.absent(),
        }
    }
}

impl<T: ParamsMut> ParamsMut for Option<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        match self {
            Some(tree) => tree.visit_mut(visitor),
            None => visitor.absent(),
        }
    }
}

/// A number is a tensor without dimensions; numbers that lie one after the other are one tensor.
macro_rules! number {
    ($($number:ty)*) => {
        $(
            impl Params for $number {
                type Elem = Self;

                fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, Self>) {
                    visitor.tensor(aview0(self));
                }

                fn visit_list<'a>(list: &'a [Self], shape: &[usize], visitor: &mut Visitor<'_, 'a, Self>) {
                    if let Ok(view) = ArrayView::from_shape(IxDyn(shape), list) {
                        visitor.tensor(view);
                    }
                }
            }

            impl ParamsMut for $number {
                fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, Self>) {
                    visitor.tensor(aview_mut1(slice::from_mut(self)).index_axis_move(Axis(0), 0));
                }

                fn visit_list_mut<'a>(list: &'a mut [Self], shape: &[usize], visitor: &mut VisitorMut<'_, 'a, Self>) {
                    if let Ok(view) = ArrayViewMut::from_shape(IxDyn(shape), list) {
                        visitor.tensor(view);
                    }
                }
            }
        )*
    };
}

number!(f32 f64);
#[cfg(feature = "half")]
number!(half::bf16 half::f16);

impl<T: Params> Params for [T] {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        T::visit_list(self, &[self.len()], visitor);
    }
}

impl<T: ParamsMut> ParamsMut for [T] {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        let shape = [self.len()];
        T::visit_list_mut(self, &shape, visitor);
    }
}

impl<T: Params, const N: usize> Params for [T; N] {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        self.as_slice().visit(visitor);
    }

    fn visit_list<'a>(list: &'a [Self], shape: &[usize], visitor: &mut Visitor<'_, 'a, T::Elem>) {
        T::visit_list(list.as_flattened(), &[shape, &[N]].concat(), visitor);
    }
}

impl<T: ParamsMut, const N: usize> ParamsMut for [T; N] {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        self.as_mut_slice().visit_mut(visitor);
    }

    fn visit_list_mut<'a>(list: &'a mut [Self], shape: &[usize], visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        T::visit_list_mut(list.as_flattened_mut(), &[shape, &[N]].concat(), visitor);
    }
}

impl<T: Params> Params for Vec<T> {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        self.as_slice().visit(visitor);
    }
}

impl<T: ParamsMut> ParamsMut for Vec<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        self.as_mut_slice().visit_mut(visitor);
    }
}

impl<K: AsRef<str>, T: Params> Params for BTreeMap<K, T> {
    type Elem = T::Elem;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T::Elem>) {
        for (name, tree) in self {
            visitor.field(name.as_ref(), tree);
        }
    }
}

impl<K: AsRef<str>, T: ParamsMut> ParamsMut for BTreeMap<K, T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T::Elem>) {
        for (name, tree) in self {
            visitor.field(name.as_ref(), tree);
        }
    }
}

macro_rules! tuple {
    ($first:ident $($rest:ident)*; $($index:tt)+) => {
        impl<$first: Params, $($rest: Params<Elem = $first::Elem>),*> Params for ($first, $($rest,)*) {
            type Elem = $first::Elem;

            fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, Self::Elem>) {
                $(visitor.index($index, &self.$index);)+
            }
        }

        impl<$first: ParamsMut, $($rest: ParamsMut<Elem = $first::Elem>),*> ParamsMut for ($first, $($rest,)*) {
            fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, Self::Elem>) {
                $(visitor.index($index, &mut self.$index);)+
            }
        }
    };
}

tuple!(T0; 0);
tuple!(T0 T1; 0 1);
tuple!(T0 T1 T2; 0 1 2);
tuple!(T0 T1 T2 T3; 0 1 2 3);
tuple!(T0 T1 T2 T3 T4; 0 1 2 3 4);
tuple!(T0 T1 T2 T3 T4 T5; 0 1 2 3 4 5);
tuple!(T0 T1 T2 T3 T4 T5 T6; 0 1 2 3 4 5 6);
tuple!(T0 T1 T2 T3 T4 T5 T6 T7; 0 1 2 3 4 5 6 7);
tuple!(T0 T1 T2 T3 T4 T5 T6 T7 T8; 0 1 2 3 4 5 6 7 8);
tuple!(T0 T1 T2 T3 T4 T5 T6 T7 T8 T9; 0 1 2 3 4 5 6 7 8 9);
tuple!(T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10; 0 1 2 3 4 5 6 7 8 9 10);
tuple!(T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11; 0 1 2 3 4 5 6 7 8 9 10 11);
