//! What is lent is a tree like any other.

use candle_core::{DType, Device, Var};
use candle_nn::{Init, VarBuilder, VarMap};
use gradus::checkpoint::Checkpoint;
use gradus::params::{Layout, for_each};
use gradus::prelude::*;
use gradus_candle::Vars;

use crate::{store, tensor, values};

fn map() -> VarMap {
    let map = VarMap::new();
    let builder = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let init = Init::Uniform { lo: -1.0, up: 1.0 };
    for (name, shape) in
        [("z.weight", vec![3, 2]), ("a.weight", vec![2]), ("layers.10.bias", vec![1]), ("layers.9.bias", vec![4])]
    {
        builder.get_with_hints(shape, name, init).unwrap();
    }
    map
}

fn step(vars: &mut Vars<f32>, opt: &mut impl Optimizer<f32>, phase: f64) {
    let grads: Vec<(Var, _)> = vars.iter().map(|(_, var)| (var.clone(), tensor::<f32>(var.dims(), phase))).collect();
    vars.step(opt, &store(grads)).unwrap();
}

fn all(vars: &Vars<f32>) -> Vec<Vec<f32>> {
    vars.iter().map(|(_, var)| values(var)).collect()
}

#[test]
fn a_map_is_a_tree_of_its_names_in_order() {
    let mut vars = Vars::<f32>::of(&map()).unwrap();
    let sorted = ["a.weight", "layers.10.bias", "layers.9.bias", "z.weight"];
    assert_eq!(vars.iter().map(|(name, _)| name).collect::<Vec<_>>(), sorted);
    let layout = Layout::of(&vars.lend().unwrap()).unwrap();
    assert_eq!(layout.paths().collect::<Vec<_>>(), sorted);
    assert_eq!(layout.tensors()[3].shape(), [3, 2]);
}

#[test]
fn a_checkpoint_goes_on_bit_for_bit() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let optimizer = || AdamW::new(1e-2).clip_global_norm(1.0);
    let (mut vars, mut opt) = (Vars::<f32>::of(&map()).unwrap(), optimizer());
    (0..5).for_each(|at| step(&mut vars, &mut opt, f64::from(at)));
    Checkpoint::of(&vars.lend().unwrap(), &opt).unwrap().save(file.path()).unwrap();

    let (mut others, mut other_opt) = (Vars::<f32>::of(&map()).unwrap(), optimizer());
    assert_ne!(all(&vars), all(&others));
    Checkpoint::open(file.path()).unwrap().load(&mut others.lend().unwrap(), &mut other_opt).unwrap();
    for at in 5..10 {
        step(&mut vars, &mut opt, f64::from(at));
        step(&mut others, &mut other_opt, f64::from(at));
        assert_eq!(all(&vars), all(&others));
    }
}

#[test]
fn averages_are_swapped_in_and_out() {
    let (mut vars, mut opt) = (Vars::<f32>::of(&map()).unwrap(), Sgd::new(0.1).ema(0.5));
    (0..3).for_each(|at| step(&mut vars, &mut opt, f64::from(at)));
    let trained = all(&vars);
    opt.swap(&mut vars.lend().unwrap()).unwrap();
    assert_ne!(all(&vars), trained);
    opt.swap(&mut vars.lend().unwrap()).unwrap();
    assert_eq!(all(&vars), trained);
}

#[test]
fn gradients_are_a_tree_too() {
    let var = Var::from_tensor(&tensor::<f32>(&[2], 0.0)).unwrap();
    let vars =
        Vars::<f32>::named([("w", var.clone()), ("v", Var::from_tensor(&tensor::<f32>(&[1], 0.0)).unwrap())]).unwrap();
    let store = store([(var, candle_core::Tensor::new(&[3f32, -4.0], &Device::Cpu).unwrap())]);
    let gradients = vars.gradients(&store).unwrap();
    let mut norms = Vec::new();
    for_each(&gradients, |path, shape, values| {
        norms.push((path.to_string(), values.map(|values| values.view(shape).map(|value| value * value).sum().sqrt())));
    });
    assert_eq!(norms, [("w".into(), Some(5.0)), ("v".into(), None)]);
    assert_eq!(format!("{gradients:?}"), r#"{"w": Some([2]), "v": None}"#);
}
