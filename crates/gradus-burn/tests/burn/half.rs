//! Parameters of 16 bits and of 64.

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use gradus::prelude::*;
use gradus_burn::BurnElement;
use half::{bf16, f16};
use ndarray::Array2;

use crate::support::{addresses, device, numbers};

/// 20 steps of a matrix in burn and of one in ndarray, along the same gradients.
fn compare<A: BurnElement, O: Optimizer<A>>(dtype: DType, optimizer: impl Fn() -> O) {
    let array = |tensor: Tensor<2>| {
        let values = tensor.into_data().try_to_vec::<A>().unwrap();
        Array2::from_shape_vec((3, 5), values).unwrap()
    };
    let at = (&device(), dtype);
    let mut param = Param::from_tensor(Tensor::<2>::from_data(numbers([3, 5], 0, dtype), at));
    let mut plain = array(param.val());
    let (start, before) = (plain.clone(), addresses(&param));
    let (mut opt, mut other) = (optimizer(), optimizer());
    for seed in 0..20 {
        let x = Tensor::<2>::from_data(numbers([3, 5], seed, dtype), at);
        let loss = (param.val() * x).square().sum();
        let grads = GradientsParams::from_grads(loss.backward(), &param);
        other.step(&mut plain, &array(grads.get(param.id).unwrap())).unwrap();
        let report = gradus_burn::step_as(&mut opt, &mut param, grads).unwrap();
        assert_eq!(report.copied, [""; 0]);
        assert_eq!(array(param.val()), plain);
    }
    assert_ne!(plain, start);
    assert_eq!(addresses(&param), before);
    assert_eq!(param.dtype(), dtype);
}

#[test]
fn f64() {
    compare(DType::F64, || AdamW::<f64>::new(1e-2).clip_global_norm(1.0));
}

#[test]
fn bf16_through_master_weights() {
    compare(DType::BF16, || AdamW::new(1e-2).clip_global_norm(1.0).master_weights::<bf16>());
}

#[test]
fn f16_through_master_weights() {
    compare(DType::F16, || AdamW::new(1e-2).clip_global_norm(1.0).master_weights::<f16>());
}
