//! The numbers are those of gradus on ndarray arrays.

use std::collections::BTreeMap;

use candle_core::Var;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use gradus_candle::{CandleElement, Vars};
use ndarray::{ArrayD, IxDyn};

use crate::{store, tensor, values, wave};

const STEPS: usize = 100;
const NAMED: [(&str, &[usize]); 4] =
    [("a.bias", &[33]), ("a.weight", &[33, 70]), ("b.scale", &[]), ("c.kernel", &[4, 3, 5, 5])];

fn compare<A: CandleElement>(mut ours: impl Optimizer<A>, mut theirs: impl Optimizer<A>) {
    let mut arrays: BTreeMap<String, ArrayD<A>> = NAMED
        .map(|(name, shape)| {
            (name.into(), ArrayD::from_shape_vec(IxDyn(shape), wave(shape.iter().product(), 0.1)).unwrap())
        })
        .into();
    let named = NAMED.map(|(name, shape)| (name, Var::from_tensor(&tensor::<A>(shape, 0.1)).unwrap()));
    let mut vars = Vars::<A>::named(named.clone()).unwrap();
    for step in 0..STEPS {
        let phase = step as f64;
        let absent = |name: &str| step % 3 == 1 && name == "b.scale";
        let grads: BTreeMap<String, Option<ArrayD<A>>> = arrays
            .iter()
            .map(|(name, array)| {
                let grad = ArrayD::from_shape_vec(array.raw_dim(), wave(array.len(), phase)).unwrap();
                (name.clone(), (!absent(name)).then_some(grad))
            })
            .collect();
        let given = named.iter().filter(|(name, _)| !absent(name));
        let given = store(given.map(|(_, var)| (var.clone(), tensor::<A>(var.dims(), phase))));
        let report = vars.step(&mut ours, &given).unwrap();
        assert_eq!(report, theirs.step(&mut arrays, &grads).unwrap());
        for (name, var) in &named {
            let (ours, theirs) = (values::<A>(var), arrays[*name].iter().copied().collect::<Vec<_>>());
            let bits = |values: &[A]| values.iter().map(|value| value.as_f64().to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&ours), bits(&theirs), "{name} after step {step}");
        }
    }
    assert_ne!(values::<A>(&named[1].1), wave::<A>(33 * 70, 0.1));
}

#[test]
fn adamw_bit_for_bit() {
    compare::<f32>(AdamW::new(1e-3), AdamW::new(1e-3));
    compare::<f64>(AdamW::new(1e-3), AdamW::new(1e-3));
}

#[test]
fn a_chain_bit_for_bit() {
    let chain = || {
        AdamW::new(Cosine::new(1e-2, 90).warmup(10))
            .clip_global_norm(0.5)
            .group("*.bias", Group::no_decay())
            .freeze("c.*")
            .accumulate(2)
    };
    compare::<f32>(chain(), chain());
}
