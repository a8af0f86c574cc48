//! Parameters without elements are parameters.

use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use gradus::prelude::*;

use crate::support::{device, facts, numbers, values};

/// Parameters without elements beside one with some.
#[derive(Module, Debug)]
struct Sparse {
    vector: Param<Tensor<1>>,
    frozen: Param<Tensor<1>>,
    rows: Param<Tensor<2>>,
    full: Param<Tensor<2>>,
    columns: Param<Tensor<2>>,
}

const PATHS: [&str; 5] = ["vector", "frozen", "rows", "full", "columns"];

impl Sparse {
    fn new() -> Self {
        Self {
            vector: param([0]),
            frozen: param([0]).no_grad(),
            rows: param([0, 3]),
            full: param([2, 3]),
            columns: param([3, 0]),
        }
    }
}

fn param<const D: usize>(shape: [usize; D]) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(numbers(shape, 0, DType::F32), &device()))
}

#[test]
fn they_are_stepped_beside_others() {
    let mut model = Sparse::new();
    let before = facts(&model);
    let mut opt = AdamW::new(0.1).clip_global_norm(1.0);
    for _ in 0..3 {
        let mut grads = GradientsParams::new();
        grads.register(model.vector.id, Tensor::<1>::ones([0], &Device::flex()));
        for (id, shape) in [(model.rows.id, [0, 3]), (model.full.id, [2, 3]), (model.columns.id, [3, 0])] {
            grads.register(id, Tensor::<2>::ones(shape, &Device::flex()));
        }
        let report = gradus_burn::step(&mut opt, &mut model, grads).unwrap();
        assert!(report.moved && report.copied.is_empty());
    }
    assert_eq!(opt.layout().unwrap().paths().collect::<Vec<_>>(), PATHS);
    let after = facts(&model);
    assert_ne!(after[3].data, before[3].data);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.path, before.id, before.data.shape()), (&after.path, after.id, after.data.shape()));
        assert_eq!(before.is_require_grad, after.is_require_grad);
    }
    assert_eq!(after.iter().filter(|facts| facts.is_require_grad).count(), 4);
}

#[test]
fn they_are_lent_from_a_validation_module() {
    let mut model = Sparse::new().valid();
    let before = values(&model);
    let lent = gradus_burn::lend(&mut model).unwrap();
    let layout = gradus::params::Layout::of(&lent).unwrap();
    assert_eq!(layout.paths().collect::<Vec<_>>(), PATHS);
    drop(lent);
    assert_eq!(values(&model), before);
}

#[test]
fn shared_ones_are_told_of_like_others() {
    let mut model = param([0]);
    let clone = model.clone();
    let step = |model: &mut Param<Tensor<1>>| {
        gradus_burn::step(&mut Sgd::new(0.1), model, GradientsParams::new()).unwrap().copied
    };
    assert_eq!(step(&mut model), [""]);
    assert_eq!(step(&mut model), [""; 0]);
    drop(clone);
}

#[test]
fn of_another_type_they_are_refused_as_that() {
    let found = |dtype| {
        let tensor = Tensor::<1>::empty([0], (&Device::flex(), dtype));
        let mut param = Param::initialized(ParamId::new(), tensor);
        gradus_burn::lend(&mut param).unwrap_err()
    };
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        assert!(matches!(found(dtype), gradus_burn::Error::Dtype { found, .. } if found == dtype));
    }
}
