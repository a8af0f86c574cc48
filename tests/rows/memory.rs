//! Memory of a step grows with its rows.

use allocation_counter::measure;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use ndarray::Array2;

use super::{some_rows, wave};

type Make = fn() -> Box<dyn Optimizer<f32>>;

/// What a step of 100 rows allocates, in a table of so many.
fn allocated(count: usize, mut opt: impl Optimizer<f32>) -> u64 {
    let mut table = Array2::zeros((count, 256));
    let rows: Vec<usize> = some_rows(250, 1).into_iter().map(|row| row * (count / 250)).collect();
    assert_eq!(rows.len(), 100);
    let grads = Rows::new(rows, wave((100, 256), 0.0));
    for _ in 0..3 {
        opt.step(&mut table, &grads).unwrap();
    }
    let used = measure(|| _ = opt.step(&mut table, &grads).unwrap());
    used.bytes_total.max(used.bytes_max)
}

#[test]
fn a_step_allocates_nothing_that_grows_with_the_table() {
    let opt = || Adam::<f32>::new(0.1);
    let makes: [Make; 8] = [
        || Box::new(Adam::new(0.1)),
        || Box::new(Adam::new(0.1).state_precision(StatePrecision::Bf16(Rounding::Nearest))),
        || Box::new(Adam::new(0.1).state_precision(StatePrecision::Blockwise8)),
        || Box::new(Adam::new(0.1).state_precision(StatePrecision::Blockwise4(Rounding::Stochastic))),
        || Box::new(AdamW::new(0.1).cautious(true).trust_ratio(true)),
        || Box::new(Adam::new(0.1).clip_global_norm(0.1).clip_adaptive(0.1).clip_value(0.1).skip_nonfinite()),
        || {
            Box::new(
                Adam::new(0.1)
                    .centralize()
                    .unscale(2.0)
                    .maximize()
                    .group(|_: &str, _: &[usize]| true, Group::new().scale_learning_rate(0.5)),
            )
        },
        || Box::new(Adam::new(0.1).accumulate(2)),
    ];
    for make in makes {
        let (small, large) = (allocated(1000, make()), allocated(16_000, make()));
        // Not to the byte: paths and the number of runs of rows.
        assert!(large <= small + 40_000, "{small} {large}");
        assert!(small <= 20 * 100 * 256 * 4, "{small}");
    }
    let dense = measure(|| {
        let mut table = Array2::zeros((1000, 256));
        opt().step(&mut table, &Array2::ones((1000, 256))).unwrap();
    });
    assert!(dense.bytes_total > 2 * 1000 * 256 * 4, "the counter counts");
}
