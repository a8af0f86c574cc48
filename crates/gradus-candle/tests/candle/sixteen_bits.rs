//! Parameters of 16 bits, through f32 master weights.

use candle_core::Var;
use gradus::prelude::*;
use gradus_candle::{CandleElement, Vars};
use half::{bf16, f16};
use ndarray::Array1;

use crate::{store, tensor, values, wave};

fn compare<A: CandleElement>() {
    let var = Var::from_tensor(&tensor::<A>(&[50], 0.1)).unwrap();
    let mut vars = Vars::<A>::named([("w", var.clone())]).unwrap();
    let mut array: Array1<A> = wave(50, 0.1).into();
    // So small a rate that 16 bits alone would lose the steps.
    let (mut ours, mut theirs) = (AdamW::new(1e-4).master_weights::<A>(), AdamW::new(1e-4).master_weights::<A>());
    for step in 0..100 {
        let phase = f64::from(step) / 100.0;
        vars.step(&mut ours, &store([(var.clone(), tensor::<A>(&[50], phase))])).unwrap();
        theirs.step(&mut array, &Array1::from(wave::<A>(50, phase))).unwrap();
    }
    assert_eq!(values::<A>(&var), array.to_vec());
    assert_ne!(values::<A>(&var), wave::<A>(50, 0.1));
}

#[test]
fn as_on_arrays() {
    compare::<bf16>();
    compare::<f16>();
}
