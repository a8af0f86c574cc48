//! `#[derive(Params)]`: every kind of struct and enum, and every attribute.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use gradus::params::{Layout, Params as Tree, ParamsMut};
use gradus::prelude::*;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, array};

/// The paths of a tree, in the order of its walk.
fn paths<T: Tree>(tree: &T) -> Vec<String> {
    let layout = Layout::of(tree).expect("the paths differ");
    layout.paths().map(String::from).collect()
}

/// The learning rate of every step here: the first step of Adam moves a parameter by it, against the gradient's sign.
const RATE: f64 = 0.5;

/// The distance that a first step of Adam falls short of its learning rate, for gradients of 1: ε = 1e-8 of it.
const SHORT: f64 = 1e-7;

/// Whether a value that was 1 has moved by one step along a gradient of 1.
fn moved(value: f64) -> bool {
    (value - (1.0 - RATE)).abs() < SHORT
}

/// Takes one step of Adam.
fn step<A: Scalar>(params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Tree<Elem = A>) {
    let report = Adam::new(RATE).step(params, grads).expect("the gradients fit the parameters");
    assert!(report.moved);
}

#[derive(Params, Clone)]
struct Linear<A> {
    weight: Array2<A>,
    bias: Array1<A>,
}

fn linear<A: Scalar>() -> Linear<A> {
    Linear { weight: Array2::ones((2, 2)), bias: Array1::ones(2) }
}

#[test]
fn a_named_struct_is_walked_in_the_order_of_its_fields() {
    assert_eq!(paths(&linear::<f64>()), ["weight", "bias"]);
}

#[test]
fn a_generic_struct_is_a_tree_of_its_element_type() {
    fn elements<T: Tree<Elem = A>, A: Scalar>(_: &T) -> usize {
        size_of::<A>()
    }
    fn inside_generic_code<A: Scalar>(model: &mut Linear<A>, grads: &Linear<A>) {
        step(model, grads);
    }
    let single: &dyn Tree<Elem = f32> = &linear::<f32>();
    assert_eq!((elements(&linear::<f32>()), elements(&linear::<f64>())), (4, 8));
    let mut model = linear::<f32>();
    inside_generic_code(&mut model, &linear());
    assert_eq!(paths(&model), ["weight", "bias"]);
    assert!(model.bias.iter().all(|&value| moved(value.into())));
    gradus::params::for_each(single, |_, shape, _| assert!(!shape.is_empty()));
}

#[test]
fn a_step_infers_its_types_and_moves_every_tensor() {
    let (mut model, mut grads) = (linear::<f64>(), linear::<f64>());
    grads.bias.fill(-1.0);
    let mut optimizer = Adam::new(RATE);
    let report = optimizer.step(&mut model, &grads).expect("same struct");
    assert!(report.moved && model.weight.iter().all(|&value| moved(value)));
    assert!(model.bias.iter().all(|&value| moved(2.0 - value)));
}

#[test]
fn a_tuple_struct_is_named_by_position() {
    #[derive(Params)]
    struct Pair(Array1<f64>, Linear<f64>);
    #[derive(Params)]
    struct Wrapper<T>(T);

    let mut pair = Wrapper(Pair(array![1.0], linear()));
    assert_eq!(paths(&pair), ["0.0", "0.1.weight", "0.1.bias"]);
    step(&mut pair, &Wrapper(Pair(array![1.0], linear())));
    assert!(moved(pair.0.0[0]) && moved(pair.0.1.bias[1]));
}

/// Every element type that a tree can have, not those alone that rules compute in.
#[cfg(feature = "half")]
#[test]
fn a_struct_of_16_bit_arrays_is_a_tree() {
    use half::{bf16, f16};

    #[derive(Params)]
    struct Narrow {
        weight: Array2<bf16>,
        bias: Option<Array1<bf16>>,
    }
    let narrow = || Narrow { weight: array![[bf16::ONE]], bias: Some(array![bf16::ONE]) };
    assert_eq!(paths(&narrow()), ["weight", "bias"]);
    let (mut opt, mut model) = (Sgd::new(0.5).master_weights(), narrow());
    assert!(opt.step(&mut model, &narrow()).expect("same struct").moved);
    assert_eq!((model.weight[[0, 0]], model.bias), (bf16::from_f64(0.5), Some(array![bf16::from_f64(0.5)])));

    let layer = || Linear { weight: array![[f16::ONE]], bias: array![f16::ONE] };
    let (mut opt, mut model) = (Adam::new(RATE).master_weights(), layer());
    opt.step(&mut model, &layer()).expect("same struct");
    assert!(model.weight.iter().chain(&model.bias).all(|&value| moved(value.into())));
}

#[test]
fn structs_and_containers_nest() {
    #[derive(Params)]
    struct Mlp {
        layers: Vec<Linear<f32>>,
        head: (Array1<f32>, Box<Linear<f32>>),
    }
    let mlp = Mlp { layers: vec![linear(), linear()], head: (array![1.0], Box::new(linear())) };
    let expected = [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
        "head.0",
        "head.1.weight",
        "head.1.bias",
    ];
    assert_eq!(paths(&mlp), expected);
}

#[test]
fn a_subtree_can_be_generic() {
    #[derive(Params)]
    struct Net<L, R = L> {
        left: L,
        right: R,
        both: Vec<(L, R)>,
    }
    #[derive(Params)]
    struct Scaled<L> {
        layer: L,
        scale: Array1<f32>,
    }
    let net = Net { left: array![1.0], right: linear::<f64>(), both: vec![(array![1.0], linear())] };
    assert_eq!(paths(&net), ["left", "right.weight", "right.bias", "both.0.0", "both.0.1.weight", "both.0.1.bias"]);

    let mut scaled = Scaled { layer: linear(), scale: array![1.0] };
    step(&mut scaled, &Scaled { layer: linear(), scale: array![1.0] });
    assert!(moved(scaled.layer.weight[[1, 1]].into()) && moved(scaled.scale[0].into()));
}

#[test]
fn where_clauses_and_const_generics_are_kept() {
    #[derive(Params)]
    struct Deep<L: Clone, const N: usize>
    where
        L: Tree<Elem = f64>,
    {
        layers: [L; N],
        last: Option<L>,
    }
    #[derive(Params)]
    struct Stack<const N: usize>([Array1<f32>; N]);

    assert_eq!(paths(&Deep { layers: [linear(), linear()], last: None }).len(), 4);
    assert_eq!(paths(&Stack([array![1.0], array![2.0], array![3.0]])), ["0.0", "0.1", "0.2"]);
}

#[test]
fn a_struct_may_hold_itself() {
    #[derive(Params)]
    struct Node {
        children: Vec<Node>,
        weight: Array1<f64>,
    }
    #[derive(Params)]
    struct Chain<A> {
        next: Option<Box<Self>>,
        weight: Array1<A>,
        branches: Vec<Chain<A>>,
    }
    let leaf = || Node { children: vec![], weight: array![1.0] };
    let node = || Node { children: vec![leaf(), leaf()], weight: array![1.0] };
    let mut moving = node();
    step(&mut moving, &node());
    assert_eq!(paths(&moving), ["children.0.weight", "children.1.weight", "weight"]);
    assert!(moved(moving.children[1].weight[0]));

    let chain = |next| Chain { next, weight: array![1.0], branches: vec![] };
    let mut chained = chain(Some(Box::new(chain(None))));
    step(&mut chained, &chain(Some(Box::new(chain(None)))));
    assert_eq!(paths(&chained), ["next.weight", "weight"]);
    assert!(moved(chained.weight[0]));
}

mod wrapper {
    #[derive(gradus::Params)]
    pub(crate) struct Linear<A>(pub(crate) super::Linear<A>);
}

#[test]
fn a_wrapper_may_share_the_name_of_what_it_wraps() {
    assert_eq!(paths(&wrapper::Linear(linear::<f32>())), ["0.weight", "0.bias"]);
}

#[test]
fn an_option_is_a_tensor_or_none() {
    #[derive(Params)]
    struct Affine {
        weight: Array1<f64>,
        bias: Option<Array1<f64>>,
    }
    let affine = |bias| Affine { weight: array![1.0], bias };
    assert_eq!(paths(&affine(None)), ["weight"]);
    let mut params = affine(Some(array![1.0]));
    assert_eq!(paths(&params), ["weight", "bias"]);
    step(&mut params, &affine(None));
    assert!(moved(params.weight[0]));
    assert_eq!(params.bias, Some(array![1.0]));
}

#[test]
fn skipped_fields_are_left_alone_and_leave_the_names_of_others() {
    #[derive(Params)]
    struct Named<T> {
        #[params(skip)]
        frozen: Array1<f64>,
        weight: Array1<f64>,
        #[params(skip)]
        extra: T,
    }
    #[derive(Params)]
    struct Positional(#[params(skip)] usize, Array1<f64>);

    let named = |extra| Named { frozen: array![1.0], weight: array![1.0], extra };
    let mut params = named("any type");
    step(&mut params, &named("no parameter"));
    assert_eq!((params.frozen, params.extra), (array![1.0], "any type"));
    assert!(moved(params.weight[0]));

    let mut params = Positional(3, array![1.0]);
    assert_eq!(paths(&params), ["1"]);
    step(&mut params, &Positional(7, array![1.0]));
    assert!(moved(params.1[0]) && params.0 == 3);
}

#[test]
fn a_field_is_renamed() {
    #[derive(Params)]
    struct Renamed {
        #[params(rename = "kernel")]
        weight: Array1<f32>,
        #[params(rename = "weight")]
        bias: Array1<f32>,
    }
    #[derive(Params)]
    struct Positional(#[params(rename = "gain")] Array1<f32>, Array1<f32>);

    assert_eq!(paths(&Renamed { weight: array![1.0], bias: array![1.0] }), ["kernel", "weight"]);
    assert_eq!(paths(&Positional(array![1.0], array![1.0])), ["gain", "1"]);
}

#[test]
fn a_raw_identifier_loses_its_prefix() {
    #[derive(Params)]
    struct Raw {
        r#type: Array1<f32>,
    }
    assert_eq!(paths(&Raw { r#type: array![1.0] }), ["type"]);
}

#[test]
fn read_only_views_are_gradients() {
    #[derive(Params)]
    #[params(read_only)]
    struct Grads<'a> {
        weight: ArrayView2<'a, f64>,
        bias: ArrayView1<'a, f64>,
    }
    #[derive(Params)]
    #[params(read_only)]
    struct GenericGrads<'a, A> {
        weight: ArrayView2<'a, A>,
        bias: &'a Array1<A>,
    }
    #[derive(Params)]
    struct WithoutAttribute<'a>(ArrayView2<'a, f64>);

    let source = linear();
    let mut params = linear::<f64>();
    step(&mut params, &Grads { weight: source.weight.view(), bias: source.bias.view() });
    assert!(moved(params.weight[[0, 1]]) && moved(params.bias[0]));

    let mut params = linear::<f64>();
    step(&mut params, &GenericGrads { weight: source.weight.t(), bias: &source.bias });
    assert!(moved(params.weight[[0, 1]]) && moved(params.bias[0]));

    let mut params = (array![[1.0]],);
    step(&mut params, &WithoutAttribute(array![[1.0]].view()));
    assert!(moved(params.0[[0, 0]]));
}

#[test]
fn writable_views_are_parameters() {
    #[derive(Params)]
    struct Borrowed<'a> {
        weight: &'a mut Array2<f64>,
        bias: ndarray::ArrayViewMut1<'a, f64>,
    }
    let mut owned = linear();
    step(&mut Borrowed { weight: &mut owned.weight, bias: owned.bias.view_mut() }, &linear());
    assert!(moved(owned.weight[[0, 0]]) && moved(owned.bias[1]));
}

#[test]
fn a_struct_of_numbers_is_a_tree() {
    #[derive(Params)]
    struct Fit<A> {
        amplitude: A,
        rates: Vec<A>,
        center: [A; 2],
        offset: Array1<A>,
        #[params(skip)]
        noise: f64,
    }
    fn step_once<A: Scalar>(fit: &mut Fit<A>, grads: &Fit<A>) {
        step(fit, grads);
    }
    fn check<A: Scalar>() {
        let one = A::one();
        let fit = || Fit { amplitude: one, rates: vec![one; 3], center: [one; 2], offset: Array1::ones(1), noise: 0.1 };
        let mut moving = fit();
        assert_eq!(paths(&moving), ["amplitude", "rates", "center", "offset"]);
        step_once(&mut moving, &fit());
        let Fit { amplitude, rates, center, offset, noise } = moving;
        let all = [amplitude].into_iter().chain(rates).chain(center).chain(offset);
        assert!(all.map(A::as_f64).all(moved) && noise == 0.1);
    }
    check::<f32>();
    check::<f64>();
}

#[derive(Params)]
enum Layer<A> {
    Linear(Linear<A>),
    Scale {
        gain: A,
        #[params(rename = "bias")]
        shift: Array1<A>,
        #[params(skip)]
        name: &'static str,
    },
    Pair(Array1<A>, #[params(skip)] usize, Linear<A>),
    Single(#[params(skip)] usize, Array1<A>),
    Relu,
    Nothing {},
    #[params(skip)]
    Dropout(f64),
    #[params(rename = "conv")]
    Conv(Array2<A>),
    #[params(rename = "norm")]
    Norm {
        gain: A,
        bias: Option<A>,
    },
}

fn layers() -> Vec<Layer<f64>> {
    vec![
        Layer::Linear(linear()),
        Layer::Relu,
        Layer::Scale { gain: 1.0, shift: array![1.0], name: "scale" },
        Layer::Pair(array![1.0], 3, linear()),
        Layer::Single(3, array![1.0]),
        Layer::Nothing {},
        Layer::Dropout(0.5),
        Layer::Conv(array![[1.0]]),
        Layer::Norm { gain: 1.0, bias: Some(1.0) },
    ]
}

#[test]
fn an_enum_has_the_tensors_of_its_variant() {
    let mut model = layers();
    let expected = [
        "0.weight",
        "0.bias",
        "2.gain",
        "2.bias",
        "3.0",
        "3.2.weight",
        "3.2.bias",
        "4",
        "7.conv",
        "8.norm.gain",
        "8.norm.bias",
    ];
    assert_eq!(paths(&model), expected);
    step(&mut model, &layers());
    let mut tensors = 0;
    gradus::params::for_each(&model, |path, shape, values| {
        let values = values.expect("every tensor has values");
        assert!(values.view(shape).iter().all(|value| moved(*value)), "{path}");
        tensors += 1;
    });
    assert_eq!(tensors, expected.len());
    assert!(matches!(model[6], Layer::Dropout(0.5)) && matches!(model[4], Layer::Single(3, _)));
    assert!(matches!(model[2], Layer::Scale { name: "scale", .. }) && matches!(model[3], Layer::Pair(_, 3, _)));
}

#[test]
fn a_gradient_of_another_variant_is_refused() {
    let mut opt = Adam::new(RATE);
    let mut grads = layers();
    grads[0] = Layer::Relu;
    let error = opt.step(&mut layers(), &grads).expect_err("there is no gradient of 0.weight").to_string();
    assert!(error.starts_with("no gradient for parameter \"0.weight\""), "{error}");

    let mut model = layers();
    opt.step(&mut model, &layers()).expect("the same variants");
    model[0] = Layer::Scale { gain: 1.0, shift: array![1.0], name: "" };
    let grads = || Layer::Scale { gain: 1.0, shift: array![1.0], name: "" };
    let grads: Vec<_> = std::iter::once(grads()).chain(layers().into_iter().skip(1)).collect();
    let error = opt.step(&mut model, &grads).expect_err("the state is of a linear layer").to_string();
    assert!(error.contains("\"0.weight\"") && error.contains("\"0.gain\""), "{error}");
}

/// No gradient for a level that only a variant has.
#[test]
fn a_level_of_a_variant_can_be_without_gradient() {
    #[derive(Params)]
    struct Grads {
        norm: Option<Array1<f64>>,
    }
    let norm = || Layer::Norm { gain: 1.0, bias: Some(1.0) };
    let mut model = norm();
    Adam::new(RATE).step(&mut model, &Grads { norm: None }).expect("both tensors are below `norm`");
    assert!(matches!(model, Layer::Norm { gain: 1.0, bias: Some(1.0) }));
    step(&mut model, &norm());
    assert!(matches!(model, Layer::Norm { gain, bias: Some(bias) } if moved(gain) && moved(bias)));
}

#[test]
fn an_enum_may_hold_itself_and_views() {
    #[derive(Params)]
    enum Branches<A> {
        Leaf(Array1<A>),
        Fork(Box<Self>, Box<Branches<A>>),
        Wrapped(Box<Self>),
    }
    #[derive(Params)]
    #[params(read_only)]
    enum Grads<'a, A: Clone, const N: usize>
    where
        A: Scalar,
    {
        Lent(&'a [A]),
        Fixed([A; N]),
    }
    let leaf = || Box::new(Branches::Leaf(array![1.0]));
    let tree = || Branches::Wrapped(Box::new(Branches::Fork(leaf(), leaf())));
    let mut moving = tree();
    assert_eq!(paths(&moving), ["0", "1"]);
    step(&mut moving, &tree());

    let mut w = [1.0, 1.0];
    step(&mut w, &Grads::<f64, 2>::Lent(&[1.0, 1.0]));
    assert!(w.into_iter().all(moved));
    let mut w = [1.0_f32, 1.0];
    step(&mut w, &Grads::Fixed([1.0_f32, 1.0]));
    assert!(w.into_iter().map(f64::from).all(moved));
}

/// Has the items that the derived code names, but is not gradus: here `&str` is a tree.
mod other {
    pub(crate) use gradus::Element;

    pub(crate) mod params {
        use std::marker::PhantomData;

        pub(crate) struct Visitor<'v, 'a, A>(pub(crate) &'v mut Vec<String>, pub(crate) PhantomData<&'a A>);

        impl<'a, A> Visitor<'_, 'a, A> {
            pub(crate) fn field<T: Params<Elem = A>>(&mut self, name: &str, _: &'a T) {
                self.0.push(name.into());
            }
        }

        pub(crate) trait Params {
            type Elem;

            fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, Self::Elem>);
        }

        impl Params for &str {
            type Elem = f32;

            fn visit<'a>(&'a self, _: &mut Visitor<'_, 'a, f32>) {}
        }
    }
}

#[test]
fn the_crate_may_have_another_path() {
    #[derive(Params)]
    #[params(crate = "crate::other", read_only)]
    struct Model {
        text: &'static str,
    }
    let mut names = Vec::new();
    other::params::Params::visit(
        &Model { text: "" },
        &mut other::params::Visitor(&mut names, std::marker::PhantomData),
    );
    assert_eq!(names, ["text"]);
}

mod layers {
    use gradus::prelude::*;

    #[derive(Params)]
    struct Private<A>(ndarray::Array1<A>);

    macro_rules! layer {
        ($name:ident, $field:ident: $ty:ty) => {
            #[derive(Params)]
            pub(crate) struct $name {
                $field: $ty,
                same: $ty,
            }

            #[derive(Params)]
            pub(crate) struct Generic<A> {
                $field: Private<A>,
                other: Array<A>,
            }
            type Array<A> = ndarray::Array1<A>;
        };
    }
    layer!(Layer, inner: Private<f32>);

    pub(crate) fn layer() -> (Layer, Generic<f32>) {
        let private = || Private(ndarray::array![1.0]);
        (Layer { inner: private(), same: private() }, Generic { inner: private(), other: ndarray::array![1.0] })
    }
}

#[test]
fn private_types_and_types_out_of_macros_can_be_fields() {
    assert_eq!(paths(&layers::layer()), ["0.inner.0", "0.same.0", "1.inner.0", "1.other"]);
}
