//! Guards against bad gradients, alone and in chains.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::adaptor::{LossScaling, MaxSkipped, SkipSpikes, ZeroNans};
use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Report};
use ndarray::{Array1, Array2, ShapeBuilder, array};

const NAN: f64 = f64::NAN;

/// The reports of steps with these gradients for one number, and where it ends.
fn steps(opt: &mut impl Optimizer<f64>, grads: &[f64]) -> (Vec<gradus::Result<Report>>, f64) {
    let mut w = array![0.0];
    let reports = grads.iter().map(|grad| opt.step(&mut w, &array![*grad])).collect();
    (reports, w[0])
}

fn skips(reports: &[gradus::Result<Report>]) -> Vec<bool> {
    reports.iter().map(|report| report.as_ref().unwrap().skipped).collect()
}

fn too_many(skipped: u64, allowed: u64) -> Error {
    Error::Step(StepError::TooManySkipped { skipped, allowed })
}

mod loss_scaling {
    use super::*;

    /// Growth after three good steps, and two backoffs.
    #[test]
    fn a_scale_by_hand() {
        let mut opt = Sgd::new(1.0).loss_scaling().initial_scale(8.0).growth_interval(3);
        let (mut w, mut scales) = (array![0.0], Vec::new());
        for finite in [true, true, false, true, true, true, false, false] {
            let scale = opt.loss_scale();
            scales.push(scale);
            let report = opt.step(&mut w, &array![if finite { scale } else { NAN }]).unwrap();
            assert_eq!((report.moved, report.skipped), (finite, !finite));
        }
        assert_eq!(scales, [8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 4.0]);
        assert_eq!((w[0], opt.loss_scale(), opt.steps(), opt.inner().steps()), (-5.0, 2.0, 5, 5));
        assert_eq!(opt.find::<LossScaling>().unwrap().skipped(), 3);
    }

    /// A clip inside sees the divided gradient.
    #[test]
    fn a_clip_inside_sees_the_divided_gradient() {
        let mut opt = Sgd::new(1.0).clip_global_norm(5.0).exact(true).loss_scaling().initial_scale(1024.0);
        let mut w = array![0.0, 0.0];
        let report = opt.step(&mut w, &array![3.0 * 1024.0, 4.0 * 1024.0]).unwrap();
        assert_eq!((report.grad_norm, w), (Some(5.0), array![-3.0, -4.0]));
    }

    /// With `accumulate` outside, the scale is one for the window, and an infinity skips the whole step.
    #[test]
    fn of_a_window() {
        let mut opt = Sgd::new(1.0).loss_scaling().initial_scale(4.0).growth_interval(1).accumulate(2);
        let mut w = array![0.0];
        let mut take =
            |grads: [f64; 2]| grads.map(|grad| opt.step(&mut w, &array![grad * opt.loss_scale()]).unwrap().skipped);
        assert_eq!(take([1.0, 3.0]), [false, false]);
        assert_eq!(take([1.0, f64::INFINITY]), [false, true]);
        assert_eq!(take([f64::INFINITY, 1.0]), [false, true]);
        assert_eq!((w[0], opt.loss_scale(), opt.gathered(), opt.steps()), (-2.0, 2.0, 0, 1));
    }

    /// A step that the optimizer inside refuses changes neither scale nor counter.
    #[test]
    fn a_refused_step_changes_nothing() {
        let rate = |step: u64| if step == 1 { -1.0 } else { 1.0 };
        let mut opt = Sgd::new(rate).loss_scaling().growth_interval(2);
        let mut w = array![0.0];
        opt.step(&mut w, &array![1.0]).unwrap();
        let before = opt.state_dict();
        assert!(opt.step(&mut w, &array![1.0]).is_err());
        assert_eq!(opt.state_dict(), before);
    }

    #[test]
    fn the_scale_stays_a_number_of_f32() {
        let (mut opt, mut w) = (Sgd::new(1.0).loss_scaling().growth_interval(1), array![0.0_f32]);
        for _ in 0..200 {
            opt.step(&mut w, &array![0.0]).unwrap();
        }
        assert_eq!(opt.loss_scale(), 2.0_f64.powi(127));
        for _ in 0..300 {
            opt.step(&mut w, &array![f32::NAN]).unwrap();
        }
        assert_eq!(opt.loss_scale(), f64::from(f32::MIN_POSITIVE));
        assert!(opt.step(&mut w, &array![0.0]).unwrap().moved);
    }

    #[test]
    fn wrong_settings_are_errors() {
        let of = |opt: &mut dyn Optimizer<f64>| opt.step(&mut array![0.0], &array![1.0]).unwrap_err().to_string();
        let new = || Sgd::new(1.0).loss_scaling();
        assert_eq!(of(&mut new().growth_factor(0.5)), "growth_factor is 0.5 at step 0; it must be a finite number ≥ 1");
        assert_eq!(
            of(&mut new().backoff_factor(1.0)),
            "backoff_factor is 1 at step 0; it must be a number in 0 < backoff_factor < 1"
        );
        assert_eq!(
            of(&mut new().initial_scale(1e-39)),
            format!("initial_scale is {} at step 0; it must be a normal number of f32 > 0", "1e-39")
        );
        assert_eq!(of(&mut new().growth_interval(0)), "growth_interval is 0; it must be at least 1");
    }

    #[test]
    fn without_it_the_scale_is_one() {
        assert_eq!(Adam::<f32>::new(0.1).clip_value(1.0).boxed().loss_scale(), 1.0);
    }

    #[cfg(feature = "half")]
    #[test]
    fn in_16_bits() {
        use half::f16;
        let (mut opt, mut w) =
            (Sgd::new(1.0).loss_scaling().initial_scale(256.0).master_weights().boxed(), array![f16::ONE]);
        opt.step(&mut w, &array![f16::from_f32(128.0)]).unwrap();
        assert_eq!(w, array![f16::from_f32(0.5)]);
        assert!(opt.step(&mut w, &array![f16::INFINITY]).unwrap().skipped);
    }

    /// Inside of `data_parallel`, all ranks have one scale, and skip together.
    #[cfg(feature = "distributed")]
    #[test]
    fn on_ranks() {
        use gradus::distributed::{RankGroup, ThreadGroup};
        let ends = ThreadGroup::run(2, |group| {
            let inner = Sgd::new(1.0).loss_scaling().initial_scale(2.0);
            let mut opt = inner.data_parallel(&group).non_finite(NonFinite::Allow);
            let mut w = array![0.0];
            let bad = if group.rank() == 1 { f64::INFINITY } else { 1.0 };
            let reports = [2.0, bad, 1.0].map(|grad| opt.step(&mut w, &array![grad]).unwrap().skipped);
            (reports, w[0], opt.inner().loss_scale())
        });
        assert_eq!(ends, [([false, true, false], -2.0, 1.0); 2]);
    }
}

mod zero_nans {
    use super::*;

    #[test]
    fn only_nan_becomes_zero() {
        let mut opt = Sgd::new(1.0).zero_nans();
        let mut w = (Array1::zeros(3), array![0.0]);
        opt.step(&mut w, &(array![NAN, f64::NEG_INFINITY, 2.0], array![NAN])).unwrap();
        assert_eq!((w, opt.zeroed()), ((array![0.0, f64::INFINITY, -2.0], array![0.0]), 2));
    }

    #[test]
    fn finite_gradients_pass_bit_for_bit() {
        let (mut opt, mut plain, mut w, mut v) =
            (Adam::new(0.1).zero_nans(), Adam::new(0.1), array![1.0, -0.0], array![1.0, -0.0]);
        for step in 0..5 {
            let grad = array![0.1 * f64::from(step), -0.0];
            assert_eq!(opt.step(&mut w, &grad).unwrap(), plain.step(&mut v, &grad).unwrap());
            assert_eq!(w, v);
        }
        assert_eq!(opt.zeroed(), 0);
    }

    #[test]
    fn any_memory_layout_and_rows() {
        let grad = array![[1.0, NAN, 3.0], [NAN, 5.0, 6.0]];
        let mut columns = Array2::zeros((2, 3).f());
        columns.assign(&grad);
        let [mut w, mut v] = [(); 2].map(|()| Array2::zeros((2, 3)));
        Sgd::new(1.0).zero_nans().step(&mut w, &grad).unwrap();
        Sgd::new(1.0).zero_nans().step(&mut v, &columns).unwrap();
        assert_eq!((&w, &w), (&v, &array![[-1.0, 0.0, -3.0], [0.0, -5.0, -6.0]]));
        let mut opt = Sgd::new(1.0).zero_nans();
        let mut w = Array2::zeros((3, 1));
        opt.step(&mut w, &Rows::new(vec![2, 0], array![[NAN], [4.0]])).unwrap();
        assert_eq!((w, opt.zeroed()), (array![[-4.0], [0.0], [0.0]], 1));
    }

    /// The optimizer inside refuses the infinity that is left: nothing was counted.
    #[test]
    fn a_refused_step_is_not_counted() {
        let mut opt = Sgd::new(1.0).check_finite().zero_nans();
        assert!(opt.step(&mut array![0.0, 0.0], &array![NAN, f64::INFINITY]).is_err());
        assert_eq!(opt.find::<ZeroNans>().unwrap().zeroed(), 0);
    }
}

mod skip_spikes {
    use super::*;

    /// With β = 1/2 the mean is that of the binary weights: of 2 and 4 it is 10/3, of 2, 4 and 8 it is 6.
    #[test]
    fn norms_by_hand() {
        let mut opt = Sgd::new(1.0).skip_spikes(3.0).decay(0.5).warmup(1);
        let (reports, w) = steps(&mut opt, &[2.0, 4.0, 10.1, -8.0, 18.1, 17.9]);
        assert_eq!(skips(&reports), [false, false, true, false, true, false]);
        assert_eq!((w, opt.skipped(), opt.steps()), (-2.0 - 4.0 + 8.0 - 17.9, 2, 4));
        assert_eq!(reports[2].as_ref().unwrap().grad_norm, Some(10.1));
    }

    #[test]
    fn a_score_by_hand() {
        // Of 2 and 4 with weights 1 and 2: the mean is 10/3, the mean square 12, the deviation √(8/9).
        let largest = 10.0 / 3.0 + 2.0 * (8.0_f64 / 9.0).sqrt();
        for (norm, is_spike) in [(largest - 1e-9, false), (largest + 1e-9, true)] {
            let mut opt = Sgd::new(1.0).skip_spikes(2.0).z_score(true).decay(0.5).warmup(2);
            let (reports, _) = steps(&mut opt, &[2.0, 4.0, norm]);
            assert_eq!(skips(&reports), [false, false, is_spike]);
        }
    }

    #[test]
    fn what_is_not_finite_is_a_spike_also_at_first() {
        let mut opt = Sgd::new(1.0).skip_spikes(3.0);
        let (reports, w) = steps(&mut opt, &[NAN, f64::INFINITY, 1.0, 1e9, NAN]);
        assert_eq!((skips(&reports), w), (vec![true, true, false, false, true], -1.0 - 1e9));
        assert_eq!(opt.find::<SkipSpikes>().unwrap().skipped(), 3);
    }

    #[test]
    fn a_constant_norm_is_no_spike() {
        for z_score in [false, true] {
            let mut opt = Sgd::new(1.0).skip_spikes(1.5).z_score(z_score).warmup(1);
            let (reports, _) = steps(&mut opt, &[0.0; 5]);
            assert_eq!(skips(&reports), [false; 5]);
            // The mean of equal norms is rounded.
            let mut opt = Sgd::new(1.0).skip_spikes(1.5).z_score(z_score).warmup(1);
            let (reports, _) = steps(&mut opt, &[0.3; 50]);
            assert_eq!(skips(&reports), [false; 50], "{z_score}");
        }
    }

    #[test]
    fn a_refused_step_does_not_count() {
        let mut opt = Sgd::new(|step: u64| if step == 1 { NAN } else { 1.0 }).skip_spikes(2.0);
        steps(&mut opt, &[1.0, 5.0]);
        assert_eq!(opt.mean_norm(), Some(1.0));
    }
}

mod max_skipped {
    use super::*;

    #[test]
    fn the_one_too_many_is_an_error_and_changes_nothing() {
        let mut opt = Momentum::new(1.0, 0.5).skip_nonfinite().max_skipped(2);
        let mut w = array![0.0];
        let mut take = |opt: &mut gradus::adaptor::Adapted<_, MaxSkipped>, grad: f64| {
            let before = (w.clone(), opt.state_dict());
            let result = opt.step(&mut w, &array![grad]);
            if result.is_err() {
                assert_eq!((&w, opt.state_dict()), (&before.0, before.1));
            }
            result.map(|report| report.skipped)
        };
        let grads = [1.0, NAN, NAN, 1.0, NAN, NAN, NAN, NAN, 1.0, NAN];
        let found = grads.map(|grad| take(&mut opt, grad));
        let (ok, skipped, error) = (Ok(false), Ok(true), Err(too_many(3, 2)));
        let expected = [&ok, &skipped, &skipped, &ok, &skipped, &skipped, &error, &error, &ok, &skipped];
        assert_eq!(found.each_ref(), expected);
        assert_eq!((opt.in_a_row(), opt.steps(), opt.inner().skipped()), (1, 3, 5));
    }

    #[test]
    fn none_allowed() {
        let mut opt = Sgd::new(1.0).clip_global_norm(1.0).non_finite(NonFinite::Skip).max_skipped(0);
        let (reports, w) = steps(&mut opt, &[0.5, NAN, 0.5]);
        assert_eq!((&reports[1], w), (&Err(too_many(1, 0)), -1.0));
    }

    /// Every adaptor that skips is seen.
    #[test]
    fn whoever_skips() {
        type Chain = fn(Sgd<f64>) -> Box<dyn Optimizer<f64>>;
        let chains: [(&str, Chain); 8] = [
            ("skip_nonfinite", |opt| opt.skip_nonfinite().max_skipped(1).boxed()),
            ("clip_global_norm", |opt| opt.clip_global_norm(1.0).non_finite(NonFinite::Skip).max_skipped(1).boxed()),
            ("clip_value", |opt| opt.clip_value(1.0).non_finite(NonFinite::Skip).max_skipped(1).boxed()),
            ("loss_scaling", |opt| opt.loss_scaling().max_skipped(1).boxed()),
            ("skip_spikes", |opt| opt.skip_spikes(2.0).max_skipped(1).boxed()),
            ("deep inside", |opt| opt.skip_nonfinite().ema(0.9).unscale(2.0).max_skipped(1).boxed()),
            ("a branch", |opt| Sgd::new(1.0).route("**", opt.skip_nonfinite()).max_skipped(1).boxed()),
            ("of a window", |opt| opt.skip_nonfinite().max_skipped(1).accumulate(1).boxed()),
        ];
        for (name, chain) in chains {
            let mut opt = chain(Sgd::new(1.0));
            let (reports, _) = steps(&mut opt, &[1.0, NAN, NAN, 1.0]);
            assert!(reports[1].as_ref().unwrap().skipped, "{name}");
            assert_eq!(reports[2], Err(too_many(2, 1)), "{name}");
            assert!(reports[3].as_ref().unwrap().moved, "{name}");
        }
    }

    #[cfg(feature = "distributed")]
    #[test]
    fn one_rank() {
        use gradus::distributed::Alone;
        let chains: [Box<dyn Optimizer<f64>>; 2] = [
            Sgd::new(1.0).data_parallel(Alone).non_finite(NonFinite::Skip).max_skipped(1).boxed(),
            Sgd::new(1.0).sharded(Alone).non_finite(NonFinite::Skip).max_skipped(1).boxed(),
        ];
        for mut opt in chains {
            let (reports, _) = steps(&mut opt, &[1.0, NAN, NAN, 1.0]);
            assert_eq!((&reports[2], reports[3].as_ref().unwrap().moved), (&Err(too_many(2, 1)), true));
        }
    }

    /// A state of a run that was about to end ends in the same way.
    #[test]
    fn a_resumed_run_counts_on() {
        let new = || Sgd::new(1.0).skip_nonfinite().max_skipped(2);
        let mut opt = new();
        steps(&mut opt, &[NAN, NAN]);
        let mut resumed = new();
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        let (reports, _) = steps(&mut resumed, &[NAN]);
        assert_eq!(reports, [Err(too_many(3, 2))]);
        resumed.reset();
        let (reports, _) = steps(&mut resumed, &[NAN]);
        assert_eq!(skips(&reports), [true]);
    }

    /// Ranks find out together while they exchange gradients: the error comes a call later, on all.
    #[cfg(feature = "distributed")]
    #[test]
    fn on_ranks() {
        use gradus::distributed::{RankGroup, ThreadGroup};
        let ends = ThreadGroup::run(2, |group| {
            let mut opt = Sgd::new(1.0).data_parallel(&group).non_finite(NonFinite::Skip).max_skipped(1);
            let bad = if group.rank() == 1 { NAN } else { 1.0 };
            let (reports, _) = steps(&mut opt, &[1.0, bad, bad, 1.0]);
            opt.reset();
            let (later, _) = steps(&mut opt, &[1.0]);
            assert!(later[0].as_ref().unwrap().moved);
            reports.into_iter().map(|report| report.map(|report| report.skipped)).collect::<Vec<_>>()
        });
        let expected = vec![Ok(false), Ok(true), Ok(true), Err(too_many(2, 1))];
        assert_eq!(ends, [expected.clone(), expected]);
    }
}
