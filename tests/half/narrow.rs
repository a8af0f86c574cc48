//! Without copies: stochastic rounding and Kahan summation.

use gradus::error::StepError;
use gradus::params::Rows;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::{Element, Error};
use half::{bf16, f16};
use ndarray::{Array1, Array2, ArrayD, ShapeBuilder, array, s};

use super::{interrupt, matrix};

/// A type of 16 bits.
trait Half: Element {
    /// The distance of neighboring numbers, relative to a number.
    const SPACING: f64;

    fn rounded(opt: impl Optimizer<f32> + 'static, seed: u64) -> Box<dyn Optimizer<Self>>;

    fn kahan(opt: impl Optimizer<f32> + 'static) -> Box<dyn Optimizer<Self>>;
}

macro_rules! half {
    ($($half:ty, $spacing:expr;)*) => {
        $(
            impl Half for $half {
                const SPACING: f64 = $spacing;

                fn rounded(opt: impl Optimizer<f32> + 'static, seed: u64) -> Box<dyn Optimizer<Self>> {
                    Box::new(opt.stochastic_rounding(seed))
                }

                fn kahan(opt: impl Optimizer<f32> + 'static) -> Box<dyn Optimizer<Self>> {
                    Box::new(opt.kahan())
                }
            }
        )*
    };
}

half! {
    bf16, 1.0 / 128.0;
    f16, 1.0 / 1024.0;
}

/// Both ways around the same optimizer.
fn both<H: Half, O: Optimizer<f32> + 'static>(build: impl Fn() -> O) -> [Box<dyn Optimizer<H>>; 2] {
    [H::rounded(build(), 7), H::kahan(build())]
}

fn widened<H: Element>(values: &Array2<H>) -> Array2<f32> {
    values.mapv(|value| value.as_f64() as f32)
}

/// The same bits in every layout and on any number of threads, with state in any precision of which the same can be said.
#[test]
fn layouts_and_threads_do_not_change_the_bits() {
    fn check<H: Half>() {
        let size = (211, 307);
        let build = || {
            let opt = AdamW::new(|step: u64| 0.01 / (step + 1) as f64);
            opt.state_precision(StatePrecision::Bf16(Rounding::Nearest)).clip_value(0.5)
        };
        for kind in 0..2 {
            let mut expected: Option<Array2<H>> = None;
            for threads in [1, 2, 4] {
                let start = matrix::<H>(size, 0);
                let mut fortran = Array2::<H>::zeros(size.f());
                fortran.assign(&start);
                let mut wide = Array2::<H>::zeros((2 * size.0, 2 * size.1));
                let mut sliced = wide.slice_mut(s![..;2, ..;2]);
                sliced.assign(&start);
                let mut plain = start.clone();
                let [mut opts, mut of_columns, mut of_slices] = [(); 3].map(|()| both::<H, _>(build));
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                for step in 1..4 {
                    let grads = matrix::<H>(size, 31 * step);
                    pool.install(|| {
                        opts[kind].step(&mut plain, &grads).unwrap();
                        of_columns[kind].step(&mut fortran, &grads).unwrap();
                        of_slices[kind].step(&mut sliced, &grads).unwrap();
                    });
                }
                assert!(plain == fortran && plain == sliced && plain != start, "{kind} on {threads}");
                let expected = expected.get_or_insert_with(|| plain.clone());
                assert_eq!(plain, *expected, "{kind} on {threads}");
            }
        }
    }
    check::<bf16>();
    check::<f16>();
}

/// The average of a matrix that lies column by column is that of the same matrix row by row, also if the whole matrix moves at once.
#[test]
fn averages_follow_columns() {
    let run = |start: Array2<bf16>| {
        let (mut opt, mut w) = (Muon::new(0.02).ema(0.9).kahan(), start);
        (1..4).for_each(|step| _ = opt.step(&mut w, &matrix::<bf16>((64, 32), 31 * step)).unwrap());
        let mut average = Array2::<f32>::zeros((64, 32));
        opt.inner().read(&mut average).unwrap();
        average
    };
    let rows = matrix::<bf16>((64, 32), 0);
    let mut columns = Array2::zeros((64, 32).f());
    columns.assign(&rows);
    assert_eq!(run(rows), run(columns));
}

/// One step in f32 from the same parameters is between the neighbors that stochastic rounding chooses from, and Kahan's first is its nearest.
#[test]
fn a_step_is_that_of_f32_rounded() {
    fn check<H: Half, O: Optimizer<f32> + 'static>(build: impl Fn() -> O, size: (usize, usize)) {
        let (start, grads) = (matrix::<H>(size, 3), matrix::<H>(size, 5));
        let mut exact = widened(&start);
        build().step(&mut exact, &widened(&grads)).unwrap();
        let [mut rounded, mut kahan] = both::<H, _>(build);
        let (mut near, mut nearest) = (start.clone(), start.clone());
        assert!(rounded.step(&mut near, &grads).unwrap().moved && kahan.step(&mut nearest, &grads).unwrap().moved);
        let (mut ups, mut off) = (0, 0);
        for (((near, nearest), exact), from) in near.iter().zip(&nearest).zip(&exact).zip(&start) {
            let (near, exact) = (near.as_f64(), f64::from(*exact));
            let spacing = H::SPACING * near.abs().max(exact.abs()).max(1e-4);
            assert!((near - exact).abs() < spacing, "{near} from {exact}");
            // The change has been rounded, too.
            let allowed = 0.51 * (spacing + H::SPACING * (exact - from.as_f64()).abs());
            assert!((nearest.as_f64() - exact).abs() <= allowed, "{nearest} from {exact}");
            ups += usize::from(near > exact);
            off += usize::from(near != exact);
        }
        assert!(off > size.0 * size.1 / 2 && ups.abs_diff(off / 2) < off / 6, "{ups} of {off}");
    }
    fn all<H: Half>() {
        check::<H, _>(|| AdamW::new(1e-2), (70, 80));
        check::<H, _>(|| Lamb::new(1e-2), (70, 80));
        check::<H, _>(|| AdamW::new(1e-2).cautious(true).trust_ratio(true), (70, 80));
        check::<H, _>(|| Muon::new(1e-2), (30, 20));
        check::<H, _>(|| Adafactor::new(1e-2), (30, 20));
        check::<H, _>(|| Sgd::new(0.1).clip_global_norm(1.0).accumulate(1).ema(0.9), (70, 80));
    }
    all::<bf16>();
    all::<f16>();
}

/// A thousand steps of a hundredth of the spacing: nearest rounding would lose all of them.
#[test]
fn small_steps_are_not_lost() {
    const COUNT: usize = 4096;
    const STEPS: usize = 1000;
    fn check<H: Half>() {
        let step = H::SPACING / 100.0;
        let [rounded, kahan] = both::<H, _>(|| Sgd::new(step));
        let one = Array1::from_elem(COUNT, H::one());
        let run = |mut opt: Box<dyn Optimizer<H>>| {
            let mut w = Array1::from_elem(COUNT, H::one() + H::one());
            (0..STEPS).for_each(|_| _ = opt.step(&mut w, &one).unwrap());
            w
        };
        let expected = 2.0 - STEPS as f64 * step;
        let w = run(rounded);
        let mean = w.iter().map(|w| w.as_f64()).sum::<f64>() / COUNT as f64;
        // Of one step the variance is p(1 − p) of the spacing squared, p = 1/100 (1/200 at 2): four standard deviations of the mean.
        let deviation = H::SPACING * (STEPS as f64 * 0.01 / COUNT as f64).sqrt();
        assert!((mean - expected).abs() < 4.0 * deviation, "{mean}, {expected}");
        let variance = w.iter().map(|w| (w.as_f64() - mean).powi(2)).sum::<f64>() / COUNT as f64;
        let allowed = STEPS as f64 * 0.01 * H::SPACING.powi(2);
        assert!(variance > 0.5 * allowed && variance < 1.5 * allowed, "{variance}, {allowed}");
        // To the nearest.
        let w = run(kahan);
        assert!(w.iter().all(|w| (w.as_f64() - expected).abs() <= 0.51 * H::SPACING), "{w}");
    }
    check::<bf16>();
    check::<f16>();
}

/// Parameter and compensation together follow the f32 run, which takes the same gradients.
#[test]
fn kahan_follows_f32() {
    const STEPS: usize = 500;
    fn check<H: Half>() {
        let build = || Adam::new(1e-4);
        let mut w = matrix::<H>((20, 30), 0);
        let mut exact = widened(&w);
        let (start, mut opt, mut plain) = (exact.clone(), H::kahan(build()), build());
        for step in 0..STEPS {
            let grads = matrix::<H>((20, 30), 13 * step).mapv(|grad| grad.abs());
            opt.step(&mut w, &grads).unwrap();
            plain.step(&mut exact, &widened(&grads)).unwrap();
        }
        let rest: ArrayD<H> = opt.state_dict().tensor("kahan/compensation/").unwrap();
        let (mut worst, mut moved) = (0.0_f64, 0.0_f64);
        for (((w, rest), exact), start) in w.iter().zip(&rest).zip(&exact).zip(&start) {
            assert!(rest.as_f64().abs() <= 0.51 * H::SPACING * w.as_f64().abs().max(1e-3), "{rest} beside {w}");
            worst = worst.max((w.as_f64() + rest.as_f64() - f64::from(*exact)).abs());
            moved = moved.max(f64::from((exact - start).abs()));
        }
        // Twice a step an error of at most half a spacing of the compensation, which is at most half a spacing of a number below 1, in both directions
        // alike: four standard deviations.
        let each = H::SPACING * H::SPACING / 4.0 / 3.0_f64.sqrt();
        let allowed = 4.0 * (2.0 * STEPS as f64).sqrt() * each;
        assert!(worst <= allowed && moved > 20.0 * allowed, "{worst}, {allowed}, {moved}");
    }
    check::<bf16>();
    check::<f16>();
}

/// Seed, step, path and element are all that the random bits depend on.
#[test]
fn random_bits_differ_between_seeds_steps_and_tensors() {
    let size = (64, 64);
    let start = || Array2::from_elem(size, bf16::ONE);
    let run = |seed: u64, steps: usize| {
        let mut opt = Sgd::new(1e-3).stochastic_rounding(seed);
        let mut w = (start(), start());
        for _ in 0..steps {
            w = (start(), start());
            opt.step(&mut w, &(start(), start())).unwrap();
        }
        w
    };
    let expected = run(1, 1);
    assert_eq!(run(1, 1), expected);
    assert!(expected.0 != expected.1 && run(2, 1).0 != expected.0 && run(1, 2).0 != expected.0);
}

/// Also in the steps of ranks, of which each is paired anew: with the same bits in each of them, most elements would stay for good.
#[cfg(feature = "distributed")]
#[test]
fn random_bits_differ_between_steps_of_ranks() {
    let mut opt = Sgd::new(1e-3).stochastic_rounding(1).data_parallel(gradus::distributed::Alone);
    let mut w = Array1::from_elem(1000, bf16::ONE);
    let grads = w.clone();
    (0..100).for_each(|_| _ = opt.step(&mut w, &grads).unwrap());
    let mean = w.iter().map(|w| w.to_f64()).sum::<f64>() / 1000.0;
    assert!((mean - 0.9).abs() < 0.01 && w.iter().filter(|w| **w == bf16::ONE).count() < 100, "{mean}");
}

/// Tensors without a gradient and rows without one stay, whatever their bits; what is frozen inside, too. Averages follow what moves.
#[test]
fn what_has_no_gradient_stays() {
    for kind in 0..2 {
        let build = |kind: usize| both::<bf16, _>(|| Sgd::new(1e-3).freeze("2")).into_iter().nth(kind).unwrap();
        let mut opt = build(kind).ema(0.5);
        let start = || matrix::<bf16>((40, 50), 9);
        let mut w = (start(), start(), start());
        for _ in 0..3 {
            opt.step(&mut w, &(start(), None::<Array2<bf16>>, start())).unwrap();
        }
        assert!(w.0 != start() && w.1 == start() && w.2 == start());
        let mut average = w.clone();
        opt.read(&mut average).unwrap();
        assert!(average.0 != w.0 && average.0 != start() && average.1 == start() && average.2 == start());

        let mut opt = both::<bf16, _>(|| Adam::new(1e-2)).into_iter().nth(kind).unwrap();
        let (mut table, rows) = (start(), Rows::new(vec![3, 30, 3], matrix::<bf16>((3, 50), 1)));
        opt.step(&mut table, &rows).unwrap();
        for (row, (before, after)) in start().rows().into_iter().zip(table.rows()).enumerate() {
            assert_eq!(before != after, [3, 30].contains(&row), "{row}");
        }
        // As dense: the element's place in the whole table counts.
        let mut dense = both::<bf16, _>(|| Adam::new(1e-2)).into_iter().nth(kind).unwrap();
        let mut expected = start();
        dense.step(&mut expected, &rows.to_dense(40).unwrap()).unwrap();
        assert_eq!(table, expected);
    }
}

/// Nothing of a step is as large as the parameters, where nothing inside needs whole tensors.
#[test]
fn nothing_is_copied() {
    let allocated = |count: usize| {
        let mut most = 0;
        for mut opt in both::<bf16, _>(|| AdamW::new(0.1).clip_global_norm(1.0)) {
            let (mut w, grads) = (Array1::from_elem(count, bf16::ONE), Array1::from_elem(count, bf16::ONE));
            opt.step(&mut w, &grads).unwrap();
            most = allocation_counter::measure(|| _ = opt.step(&mut w, &grads).unwrap()).bytes_total.max(most);
        }
        most
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (small, large) = pool.install(|| (allocated(40_000), allocated(1_000_000)));
    assert!(large <= small + 4096, "{small} {large}");
}

/// Interrupted at every step, also through a file.
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    fn run<H: Half>() {
        type Build<H> = fn() -> Box<dyn Optimizer<H>>;
        let builds: [Build<H>; 3] = [
            || H::rounded(AdamW::new(0.01).accumulate(2), 3),
            || H::kahan(AdamW::new(0.01).accumulate(2)),
            || H::rounded(AdamW::new(0.01).state_precision(StatePrecision::Blockwise4(Rounding::Stochastic)), 3),
        ];
        for build in builds {
            interrupt(build, |phase| matrix::<H>((66, 64), phase), 6);
        }
    }
    run::<bf16>();
    run::<f16>();
    let state = Sgd::<f32>::new(1.0).kahan::<bf16>().state_dict();
    let said = |mut opt: Box<dyn Optimizer<bf16>>| opt.load_state_dict(&state).unwrap_err().to_string();
    assert!(said(Box::new(Sgd::<f32>::new(1.0).stochastic_rounding(1))).contains("stochastic_rounding"));
    let error = Sgd::<f32>::new(1.0).kahan::<f16>().load_state_dict(&state).unwrap_err();
    assert_eq!(error.to_string(), "entry \"kahan/dtype\" is \"bf16\"; it must be f16");
}

#[test]
fn errors_change_nothing() {
    for mut opt in both::<bf16, _>(|| Adam::new(0.1).check_finite()) {
        let mut w = (array![bf16::ONE], array![bf16::ONE]);
        let mut twin = w.clone();
        opt.step(&mut w, &twin).unwrap();
        let (before, state) = (w.clone(), opt.state_dict());
        let error = opt.step(&mut w, &(array![bf16::ONE], array![bf16::NAN])).unwrap_err();
        assert_eq!(error.to_string(), "gradient \"1\" is NaN at index [0]");
        let other = opt.step(&mut array![bf16::ONE], &array![bf16::ONE]).unwrap_err();
        assert!(matches!(other, Error::Step(StepError::ParametersChanged { .. })), "{other}");
        assert!(w == before && opt.state_dict() == state);
        let error = opt.accumulate(2).step(&mut twin, &before).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::SumOfHalves { .. })), "{error}");
    }
    // A first step that is refused leaves no compensation.
    let mut opt = Sgd::new(0.5).check_finite().kahan::<bf16>();
    assert!(opt.step(&mut array![bf16::ONE], &array![bf16::NAN]).is_err());
    assert!(opt.compensation("").is_none() && opt.layout().is_none());
    opt.step(&mut array![bf16::ONE, bf16::ONE], &array![bf16::ONE, bf16::ONE]).unwrap();
    assert_eq!(opt.compensation("").map(|rest| rest.len()), Some(2));
}

/// A parameter beyond its type becomes infinite, without an error, and its compensation 0.
#[test]
fn beyond_the_range() {
    let mut opt = Sgd::new(1.0).kahan();
    let mut w = array![f16::MAX];
    for _ in 0..3 {
        opt.step(&mut w, &array![f16::MIN]).unwrap();
    }
    assert_eq!((w[0], opt.compensation("").map(|rest| rest[0])), (f16::INFINITY, Some(f16::ZERO)));
}

/// Sharded inside: every rank moves its share, and all of them round the whole in the same way.
#[test]
fn shards_inside_have_the_bits_of_the_whole() {
    use gradus::distributed::ThreadGroup;

    let (start, grads) = (matrix::<bf16>((40, 50), 0), matrix::<bf16>((40, 50), 1));
    for kind in 0..2 {
        let mut alone = both::<bf16, _>(|| AdamW::new(1e-2)).into_iter().nth(kind).unwrap();
        let mut expected = start.clone();
        (0..3).for_each(|_| _ = alone.step(&mut expected, &grads).unwrap());
        let all = ThreadGroup::run(2, |group| {
            let sharded = AdamW::new(1e-2).sharded(&group);
            let mut opt: Box<dyn Optimizer<bf16> + '_> =
                if kind == 0 { Box::new(sharded.stochastic_rounding(7)) } else { Box::new(sharded.kahan()) };
            let mut w = start.clone();
            (0..3).for_each(|_| _ = opt.step(&mut w, &grads).unwrap());
            w
        });
        assert!(all.into_iter().all(|w| w == expected), "{kind}");
    }
}
