//! What each adaptor does to a step, alone and in chains.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::schedule::Linear;
use gradus::{Error, Report, Step};
use ndarray::{Array1, Array2, array};

type Pair = (Array1<f64>, Array1<f64>);

fn pair(x: f64, y: f64) -> Pair {
    (array![x], array![y])
}

fn number(i: usize) -> f64 {
    ((i * 7919) as f64 * 0.61).sin()
}

mod accumulate {
    use super::*;

    /// Rows of data; the loss is half the mean square of x·w − y.
    fn gradient(w: &Array1<f64>, rows: std::ops::Range<usize>) -> Array1<f64> {
        let x = Array2::from_shape_fn((rows.len(), 3), |(i, j)| number(3 * (rows.start + i) + j));
        let y = Array1::from_shape_fn(rows.len(), |i| number(1000 + rows.start + i));
        x.t().dot(&(x.dot(w) - y)) / rows.len() as f64
    }

    #[test]
    fn equal_parts_are_the_large_batch() {
        /// The parts are summed in another order than the whole.
        const ROUNDING: f64 = 1e-12;
        let (mut small, mut large) = (AdamW::new(0.1).accumulate(3), AdamW::new(0.1));
        let (mut by_parts, mut by_whole) = (Array1::zeros(3), Array1::zeros(3));
        for step in 0..5 {
            let first = 12 * step;
            for part in 0..3 {
                let rows = first + 4 * part..first + 4 * part + 4;
                let grads = gradient(&by_parts, rows);
                let report = small.step(&mut by_parts, &grads).unwrap();
                assert_eq!(report.moved, part == 2);
            }
            let grads = gradient(&by_whole, first..first + 12);
            large.step(&mut by_whole, &grads).unwrap();
        }
        assert!((&by_parts - &by_whole).iter().all(|x| x.abs() < ROUNDING), "{by_parts} {by_whole}");
        assert_eq!((small.steps(), large.steps()), (5, 5));
    }

    #[test]
    fn the_sum_is_not_divided() {
        let mut opt = Sgd::new(1.0).accumulate(3).sum(true);
        let mut w = array![0.0];
        for part in [1.0, 2.0, 4.0] {
            opt.step(&mut w, &array![part]).unwrap();
        }
        assert_eq!(w, array![-7.0]);
    }

    #[test]
    fn counters_and_rates_are_those_of_large_steps() {
        let mut opt = Sgd::new(Linear::new(1.0, 0.0, 4)).accumulate(2);
        let mut w = array![0.0];
        let mut reports = Vec::new();
        for _ in 0..4 {
            let report = opt.step(&mut w, &array![1.0]).unwrap();
            reports.push((report.learning_rate, report.moved, opt.steps(), opt.gathered()));
        }
        assert_eq!(reports, [(1.0, false, 0, 1), (1.0, true, 1, 0), (0.75, false, 1, 1), (0.75, true, 2, 0)]);
        assert_eq!((opt.learning_rate(), w), (0.5, array![-1.75]));
    }

    /// A part without a gradient for a tensor counts as zero; no part with one leaves the tensor.
    #[test]
    fn absent_gradients() {
        let mut opt = Sgd::new(1.0).accumulate(2);
        let mut w = (array![0.0], array![0.0], array![0.0]);
        opt.step(&mut w, &(Some(array![4.0]), None::<Array1<f64>>, None::<Array1<f64>>)).unwrap();
        let report = opt.step(&mut w, &(None::<Array1<f64>>, Some(array![6.0]), None::<Array1<f64>>)).unwrap();
        assert_eq!(w, (array![-2.0], array![-3.0], array![0.0]));
        assert!(report.moved);
        assert_eq!(["0", "1", "2"].map(|path| opt.inner().tensor_steps(path)), [1, 1, 0]);
        // Nothing of the first two calls is left.
        opt.step(&mut w, &(array![1.0], array![1.0], array![1.0])).unwrap();
        opt.step(&mut w, &(array![1.0], array![1.0], array![1.0])).unwrap();
        assert_eq!(w, (array![-3.0], array![-4.0], array![-1.0]));
    }

    #[test]
    fn what_is_gathered_can_be_discarded() {
        let mut opt = Sgd::new(1.0).accumulate(2);
        let mut w = array![0.0];
        opt.step(&mut w, &array![100.0]).unwrap();
        assert_eq!(opt.gathered(), 1);
        opt.discard();
        assert_eq!(opt.gathered(), 0);
        opt.step(&mut w, &array![1.0]).unwrap();
        opt.step(&mut w, &array![3.0]).unwrap();
        assert_eq!(w, array![-2.0]);
    }

    #[test]
    fn what_was_gathered_for_a_tensor_frozen_meanwhile_is_forgotten() {
        let mut opt = Sgd::new(1.0).accumulate(2).sum(true).freeze("0");
        opt.unfreeze("**").unwrap();
        let mut w = pair(0.0, 0.0);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.refreeze("0").unwrap();
        assert!(opt.step(&mut w, &pair(1.0, 1.0)).unwrap().moved);
        assert_eq!(w, pair(0.0, -2.0));
        opt.unfreeze("0").unwrap();
        (0..2).for_each(|_| assert!(opt.step(&mut w, &pair(1.0, 1.0)).is_ok()));
        assert_eq!(w, pair(-2.0, -4.0));
    }

    #[test]
    fn later_parts_may_lie_otherwise_in_memory() {
        let grads = Array2::from_shape_fn((3, 50), |(i, j)| number(50 * i + j));
        let turned = grads.t().as_standard_layout().to_owned();
        for [first, second, third] in [[false, true, true], [true, false, true], [true, true, false]] {
            let mut opt = Sgd::new(1.0).accumulate(3).sum(true);
            let mut w = Array2::zeros((3, 50));
            for transposed in [first, second, third] {
                let grads = if transposed { turned.t() } else { grads.view() };
                opt.step(&mut w, &grads).unwrap();
            }
            assert_eq!(w, -(&grads + &grads + &grads));
        }
    }

    #[test]
    fn a_broken_part_is_left_out() {
        let mut opt = Sgd::new(1.0).accumulate(2).skip_nonfinite();
        let mut w = array![0.0];
        for (part, moved) in [(1.0, false), (f64::NAN, false), (3.0, true)] {
            assert_eq!(opt.step(&mut w, &array![part]).unwrap().moved, moved);
        }
        assert_eq!((w, opt.skipped()), (array![-2.0], 1));
    }

    #[test]
    fn one_part_is_the_optimizer_itself() {
        let (mut opt, mut w) = (Adam::new(0.1).accumulate(1), array![1.0]);
        let (mut alone, mut expected) = (Adam::new(0.1), array![1.0]);
        for i in 0..4 {
            let report = opt.step(&mut w, &array![number(i)]).unwrap();
            assert_eq!(report, alone.step(&mut expected, &array![number(i)]).unwrap());
        }
        assert_eq!(w, expected);
    }
}

mod freeze {
    use super::*;

    #[test]
    fn frozen_tensors_have_no_state_and_do_not_move() {
        let mut opt = Adam::new(0.1).freeze("1");
        let mut w = pair(1.0, 1.0);
        for _ in 0..3 {
            opt.step(&mut w, &pair(1.0, f64::NAN)).unwrap(); // nobody looks at it
        }
        assert_eq!(w.1, array![1.0]);
        assert!(w.0[0] < 0.75);
        assert!(opt.inner().slot("1", "exp_avg").is_none());
        assert_eq!((opt.inner().tensor_steps("0"), opt.inner().tensor_steps("1")), (3, 0));
    }

    #[test]
    fn a_thawed_tensor_begins_at_its_own_first_step() {
        let (mut opt, mut w) = (Adam::new(0.1).freeze("1"), pair(1.0, 1.0));
        for _ in 0..5 {
            opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        }
        opt.unfreeze("1").unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        let (mut fresh, mut alone) = (Adam::new(0.1), array![1.0]);
        fresh.step(&mut alone, &array![1.0]).unwrap();
        assert_eq!(w.1, alone);
        assert_eq!((opt.steps(), opt.inner().tensor_steps("1")), (6, 1));
    }

    #[test]
    fn a_tensor_frozen_for_a_while_goes_on_where_it_was() {
        let (mut opt, mut w) = (Adam::new(0.1).freeze("0"), pair(1.0, 1.0));
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.refreeze("1").unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.unfreeze("1").unwrap();
        opt.step(&mut w, &pair(1.0, -0.5)).unwrap();
        let (mut straight, mut alone) = (Adam::new(0.1), array![1.0]);
        straight.step(&mut alone, &array![1.0]).unwrap();
        straight.step(&mut alone, &array![-0.5]).unwrap();
        assert_eq!(w, (array![1.0], alone));
    }

    /// The last change that speaks of a tensor decides.
    #[test]
    fn later_changes_override_earlier_ones() {
        let (mut opt, mut w) = (Sgd::new(1.0).freeze("**"), pair(0.0, 0.0));
        assert!(!opt.step(&mut w, &pair(1.0, 1.0)).unwrap().moved);
        opt.unfreeze("1").unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(0.0, -1.0));
        opt.unfreeze("**").unwrap();
        opt.refreeze("1").unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(-1.0, -1.0));
    }

    /// A misspelt name is told at once and forgotten.
    #[test]
    fn a_pattern_without_match_changes_nothing() {
        let (mut opt, mut w) = (Sgd::new(1.0).freeze("0"), pair(0.0, 0.0));
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert!(matches!(opt.unfreeze("body"), Err(Error::Step(StepError::PatternUnmatched { .. }))));
        assert!(matches!(opt.refreeze("{1"), Err(Error::Step(StepError::PatternSyntax { .. }))));
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(0.0, -2.0));
    }

    /// Before the first step nobody knows the names.
    #[test]
    fn a_change_before_the_first_step_is_checked_by_it() {
        let mut opt = Sgd::new(1.0).freeze("0");
        opt.unfreeze("body").unwrap();
        let error = opt.step(&mut pair(0.0, 0.0), &pair(1.0, 1.0)).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::PatternUnmatched { .. })));
    }

    /// What is wrong with the names stays an error until it is taken back.
    #[test]
    fn a_misspelt_name_before_the_first_step_can_be_taken_back() {
        let (mut opt, mut w) = (Sgd::new(1.0).freeze("0"), pair(0.0, 0.0));
        opt.unfreeze("body").unwrap();
        for _ in 0..2 {
            assert!(matches!(opt.step(&mut w, &pair(1.0, 1.0)), Err(Error::Step(StepError::PatternUnmatched { .. }))));
        }
        opt.unfreeze_all();
        opt.refreeze("1").unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(-1.0, 0.0));
        opt.unfreeze_all();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(-2.0, -1.0));
    }

    /// A schedule of freezing and thawing for all of a long training.
    #[test]
    fn many_changes_take_no_more_memory_than_one() {
        let (mut opt, mut w) = (Sgd::new(1.0).freeze("0"), pair(0.0, 0.0));
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        let size = |opt: &gradus::adaptor::Adapted<Sgd<f64>, gradus::adaptor::Freeze>| {
            allocation_counter::measure(|| drop(opt.clone())).bytes_total
        };
        let before = size(&opt);
        for _ in 0..100 {
            opt.unfreeze("0").unwrap();
            opt.refreeze("0").unwrap();
        }
        assert_eq!(size(&opt), before);
    }

    /// The parameters of a refused first step are not remembered.
    #[test]
    fn a_refused_step_decides_nothing() {
        let mut opt = Sgd::new(1.0).check_finite().freeze("0");
        assert!(opt.step(&mut pair(0.0, 0.0), &pair(0.0, f64::NAN)).is_err());
        let mut three = vec![array![0.0]; 3];
        opt.step(&mut three, &vec![array![1.0]; 3]).unwrap();
        assert_eq!(three, [array![0.0], array![-1.0], array![-1.0]]);
        assert!(matches!(
            opt.step(&mut pair(0.0, 0.0), &pair(0.0, 0.0)),
            Err(Error::Step(StepError::ParametersChanged { .. }))
        ));
    }

    #[test]
    fn by_shape() {
        let mut opt = Sgd::new(1.0).freeze(|_: &str, shape: &[usize]| shape.len() == 2);
        let mut w = (array![[0.0]], array![0.0]);
        opt.step(&mut w, &(array![[1.0]], array![1.0])).unwrap();
        assert_eq!(w, (array![[0.0]], array![-1.0]));
    }
}

mod group {
    use super::*;

    /// One step of plain descent with weight decay 0.5 on gradients 1 from parameters 2: 2 − η(1 + λ·2).
    fn moved(groups: impl Fn(Sgd<f64>) -> Box<dyn Optimizer<f64>>) -> Pair {
        let (mut opt, mut w) = (groups(Sgd::new(0.25).weight_decay(0.5)), pair(2.0, 2.0));
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        w
    }

    #[test]
    fn each_value_is_replaced_or_scaled() {
        let of_second = |group: Group| moved(|opt| Box::new(opt.group("1", group.clone())));
        assert_eq!(of_second(Group::new()), pair(1.5, 1.5));
        assert_eq!(of_second(Group::new().learning_rate(0.5)), pair(1.5, 1.0));
        assert_eq!(of_second(Group::new().scale_learning_rate(0.5)), pair(1.5, 1.75));
        assert_eq!(of_second(Group::new().learning_rate(0.5).scale_learning_rate(0.5)), pair(1.5, 1.5));
        assert_eq!(of_second(Group::new().weight_decay(1.5)), pair(1.5, 1.0));
        assert_eq!(of_second(Group::new().scale_weight_decay(3.0)), pair(1.5, 1.0));
        assert_eq!(of_second(Group::no_decay()), pair(1.5, 1.75));
        assert_eq!(of_second(Group::no_decay().learning_rate(0.0)), pair(1.5, 2.0));
    }

    #[test]
    fn of_overlapping_groups_factors_multiply_and_the_last_replacement_holds() {
        let half = || Group::new().scale_learning_rate(0.5);
        assert_eq!(moved(|opt| Box::new(opt.group("1", half()).group("**", half()))), pair(1.75, 1.875));
        let replaced = |rate: f64| Group::new().learning_rate(rate);
        assert_eq!(moved(|opt| Box::new(opt.group("1", replaced(0.5)).group("**", replaced(0.125)))), pair(1.75, 1.75));
        assert_eq!(moved(|opt| Box::new(opt.group("**", replaced(0.125)).group("1", replaced(0.5)))), pair(1.75, 1.0));
    }

    #[test]
    fn a_groups_schedule_follows_the_optimizers_counter() {
        let mut opt = Sgd::new(1.0).group("1", Group::new().learning_rate(|step: u64| step as f64)).accumulate(2);
        let mut w = pair(0.0, 0.0);
        for _ in 0..6 {
            opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        }
        assert_eq!(w, pair(-3.0, -(0.0 + 1.0 + 2.0)));
    }

    #[test]
    fn decoupled_decay_by_group() {
        let (mut opt, mut w) = (AdamW::new(0.5).weight_decay(0.5).group("1", Group::no_decay()), pair(1.0, 1.0));
        let report = opt.step(&mut w, &pair(0.0, 0.0)).unwrap();
        assert_eq!((w, report.learning_rate), (pair(0.75, 1.0), 0.5));
    }
}

mod router {
    use super::*;

    #[test]
    fn each_branch_is_its_optimizer_alone() {
        let mut opt = Momentum::new(0.1, 0.9).route("1", Adam::new(0.01)).route("2", RmsProp::new(0.01));
        let start = || array![1.0, -2.0];
        let mut w = (start(), start(), start(), start());
        let mut alone: [(Box<dyn Optimizer<f64>>, Array1<f64>); 4] = [
            (Box::new(Momentum::new(0.1, 0.9)), start()),
            (Box::new(Adam::new(0.01)), start()),
            (Box::new(RmsProp::new(0.01)), start()),
            (Box::new(Momentum::new(0.1, 0.9)), start()),
        ];
        for step in 0..4 {
            let grads = [0, 1, 2, 3].map(|tensor| array![number(8 * step + tensor), number(8 * step + 4 + tensor)]);
            opt.step(&mut w, &grads).unwrap();
            alone.iter_mut().zip(&grads).for_each(|((opt, w), grad)| _ = opt.step(w, grad).unwrap());
        }
        assert_eq!([w.0, w.1, w.2, w.3], alone.map(|(_, w)| w));
        assert_eq!((opt.steps(), opt.learning_rate()), (4, 0.1));
        assert_eq!(opt.optimizers_mut().map(|opt| opt.learning_rate()).collect::<Vec<_>>(), [0.1, 0.01, 0.01]);
    }

    #[test]
    fn the_last_matching_route_holds() {
        let mut opt = Sgd::new(1.0).route("**", Sgd::new(10.0)).route("1", Sgd::new(100.0));
        let mut w = pair(0.0, 0.0);
        let report = opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(-10.0, -100.0));
        assert!(report.moved && report.learning_rate == 1.0);
    }

    /// Outside the router a clip sees all gradients, inside it those of its branch.
    #[test]
    fn clipping_outside_and_inside() {
        let (mut w, grads) = (pair(0.0, 0.0), pair(3.0, 4.0));
        let mut outside = Sgd::new(1.0).route("1", Sgd::new(1.0)).clip_global_norm(1.0).exact(true);
        assert_eq!(outside.step(&mut w, &grads).unwrap().grad_norm, Some(5.0));
        assert!((w.0[0] + 0.6).abs() < 1e-15 && (w.1[0] + 0.8).abs() < 1e-15);

        let mut w = pair(0.0, 0.0);
        let mut inside = Sgd::new(1.0).route("1", Sgd::new(1.0).clip_global_norm(1.0).exact(true));
        inside.step(&mut w, &grads).unwrap();
        assert_eq!(w, pair(-3.0, -1.0));
    }

    /// An error stops every branch, a skip only its own.
    #[test]
    fn a_branch_that_skips_does_not_stop_the_others() {
        let mut opt = Sgd::new(1.0).route("1", Sgd::new(1.0).skip_nonfinite());
        let mut w = pair(0.0, 0.0);
        assert!(opt.step(&mut w, &pair(1.0, f64::NAN)).unwrap().moved);
        assert_eq!(w, pair(-1.0, 0.0));
    }

    /// Norms of branches are of parts, and perhaps of several kinds.
    #[test]
    fn only_a_clip_outside_reports_the_norm_of_all() {
        let clipped = |opt: Sgd<f64>| opt.clip_global_norm(1.0).exact(true);
        let mut opt = clipped(Sgd::new(1.0)).route("1", clipped(Sgd::new(1.0)).p(1.0));
        let mut w = pair(0.0, 0.0);
        assert_eq!(opt.step(&mut w, &pair(3.0, 4.0)).unwrap().grad_norm, None);
        assert_eq!(w, pair(-1.0, -1.0));
        let mut opt = opt.clip_global_norm(f64::INFINITY);
        assert_eq!(opt.step(&mut w, &pair(3.0, 4.0)).unwrap().grad_norm, Some(5.0));
    }
}

mod finite_and_maximize {
    use super::*;

    #[test]
    fn a_step_with_a_nan_is_refused_or_skipped() {
        for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut w = pair(0.0, 0.0);
            let mut checked = Sgd::new(1.0).check_finite();
            let error = checked.step(&mut w, &pair(1.0, broken)).unwrap_err();
            assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{error}");
            let mut skipping = Sgd::new(1.0).skip_nonfinite();
            let report = skipping.step(&mut w, &pair(1.0, broken)).unwrap();
            assert_eq!((report.moved, skipping.skipped(), skipping.steps()), (false, 1, 0));
            assert_eq!(w, pair(0.0, 0.0));
            assert!(skipping.step(&mut w, &pair(1.0, 1.0)).unwrap().moved);
            assert_eq!((skipping.skipped(), skipping.steps(), &w), (1, 1, &pair(-1.0, -1.0)));
        }
    }

    #[test]
    fn an_ascent_is_a_descent_of_the_negative() {
        let (mut up, mut climbed) = (AdamW::new(0.1).weight_decay(0.1).maximize(), array![1.0]);
        let (mut down, mut descended) = (AdamW::new(0.1).weight_decay(0.1), array![1.0]);
        for i in 0..5 {
            up.step(&mut climbed, &array![number(i)]).unwrap();
            down.step(&mut descended, &array![-number(i)]).unwrap();
        }
        assert_eq!(climbed, descended);
    }
}

mod centralize {
    use super::*;

    fn matrices(x: f64, y: f64) -> (Array2<f64>, Array2<f64>) {
        (array![[x, 0.0]], array![[y, 0.0]])
    }

    #[test]
    fn a_mean_of_parts_is_centralized_once_or_part_by_part() {
        let (mut w, mut v) = (matrices(0.0, 0.0), matrices(0.0, 0.0));
        let (mut outside, mut inside) =
            (Sgd::new(1.0).accumulate(2).centralize(), Sgd::new(1.0).centralize().accumulate(2));
        for grads in [matrices(2.0, -4.0), matrices(6.0, 8.0)] {
            outside.step(&mut w, &grads).unwrap();
            inside.step(&mut v, &grads).unwrap();
        }
        assert_eq!(w, (array![[-2.0, 2.0]], array![[-1.0, 1.0]]));
        assert_eq!(v, w);
    }

    #[test]
    fn only_in_its_branch() {
        let mut w = matrices(0.0, 0.0);
        Sgd::new(1.0).route("1", Sgd::new(1.0).centralize()).step(&mut w, &matrices(2.0, 4.0)).unwrap();
        assert_eq!(w, (array![[-2.0, 0.0]], array![[-2.0, 2.0]]));
    }

    #[test]
    fn what_is_frozen_does_not_move() {
        let (mut w, mut v) = (matrices(0.0, 0.0), matrices(0.0, 0.0));
        Sgd::new(1.0).freeze("0").centralize().step(&mut w, &matrices(2.0, 4.0)).unwrap();
        Sgd::new(1.0).centralize().freeze("0").step(&mut v, &matrices(2.0, 4.0)).unwrap();
        assert_eq!(w, (array![[0.0, 0.0]], array![[-2.0, 2.0]]));
        assert_eq!(v, w);
    }

    #[test]
    fn a_clip_inside_sees_the_centralized_gradient() {
        let mut w = array![[0.0, 0.0]];
        let report = Sgd::new(1.0).clip_global_norm(10.0).centralize().step(&mut w, &array![[7.0, 1.0]]).unwrap();
        assert_eq!(report.grad_norm, Some(18_f64.sqrt()));
        let report = Sgd::new(1.0).centralize().clip_global_norm(10.0).step(&mut w, &array![[3.0, 4.0]]).unwrap();
        assert_eq!(report.grad_norm, Some(5.0));
    }
}

mod chains {
    use super::*;

    /// A frozen tensor's gradient counts for a clip outside `freeze`, not for one inside.
    #[test]
    fn clipping_and_freezing_in_either_order() {
        let grads = pair(3.0, 4.0);
        let mut w = pair(0.0, 0.0);
        let report = Sgd::new(1.0).freeze("1").clip_global_norm(1.0).exact(true).step(&mut w, &grads).unwrap();
        assert_eq!(report.grad_norm, Some(5.0));
        assert!((w.0[0] + 0.6).abs() < 1e-15);
        let mut w = pair(0.0, 0.0);
        let report = Sgd::new(1.0).clip_global_norm(1.0).exact(true).freeze("1").step(&mut w, &grads).unwrap();
        assert_eq!(report.grad_norm, Some(3.0));
        assert_eq!(w, pair(-1.0, 0.0));
    }

    #[test]
    fn what_is_inside_can_be_reached() {
        let mut opt = Adam::<f64>::new(0.1).clip_global_norm(1.0).accumulate(2).freeze("1").check_finite().maximize();
        let mut w = pair(0.0, 0.0);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.inner_mut().inner_mut().inner_mut().discard();
        assert_eq!(opt.inner().inner().inner().gathered(), 0);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        let adam: Adam<f64> = opt.into_inner().into_inner().into_inner().into_inner().into_inner();
        assert_eq!((adam.tensor_steps("0"), adam.tensor_steps("1"), adam.steps()), (1, 0, 1));
    }

    /// Every adaptor passes the report of the optimizer inside on and answers for its counters.
    #[test]
    fn reports_and_counters_pass_through() {
        let schedule = || Linear::new(1.0, 0.0, 4);
        let boxed: Vec<Box<dyn Optimizer<f64>>> = vec![
            Box::new(Sgd::new(schedule())),
            Box::new(Sgd::new(schedule()).clip_global_norm(10.0)),
            Box::new(Sgd::new(schedule()).clip_per_tensor_norm(10.0)),
            Box::new(Sgd::new(schedule()).clip_value(10.0)),
            Box::new(Sgd::new(schedule()).clip_adaptive(10.0)),
            Box::new(Sgd::new(schedule()).accumulate(1)),
            Box::new(Sgd::new(schedule()).freeze("1")),
            Box::new(Sgd::new(schedule()).group("1", Group::no_decay())),
            Box::new(Sgd::new(schedule()).route("1", Adam::new(0.1))),
            Box::new(Sgd::new(schedule()).check_finite()),
            Box::new(Sgd::new(schedule()).skip_nonfinite()),
            Box::new(Sgd::new(schedule()).maximize()),
        ];
        for (number, mut opt) in boxed.into_iter().enumerate() {
            let mut w = pair(1.0, 1.0);
            for step in 0..3 {
                let rate = 1.0 - step as f64 / 4.0;
                assert_eq!((opt.learning_rate(), opt.steps()), (rate, step), "{number}");
                let report = opt.step(&mut w, &pair(0.0, 0.5)).unwrap();
                let mut expected = Report::new(rate, true);
                expected.grad_norm = (1..5).contains(&number).then_some(0.5);
                assert_eq!(report, expected, "{number}");
            }
            assert_eq!(opt.layout().map(|layout| layout.len()), Some(2), "{number}");
        }
    }
}

mod ema {
    use ndarray::{ArrayD, ShapeBuilder};

    use super::*;

    const DECAY: f64 = 0.75;

    /// Beside a second pass over the parameters after every step, in every layout: the same bits.
    #[test]
    fn the_average_is_that_of_a_second_pass() {
        let shape = [70, 90]; // several blocks
        let start = ArrayD::from_shape_fn(&shape[..], |i| number(i[0] * 90 + i[1]));
        let mut fortran = ArrayD::zeros((&shape[..]).f());
        let mut wide = ArrayD::zeros(vec![70, 180]);
        fortran.assign(&start);
        let mut sliced =
            wide.slice_each_axis_mut(|axis| ndarray::Slice::new(0, None, if axis.axis.0 == 1 { 2 } else { 1 }));
        sliced.assign(&start);
        let mut tree = (start.clone(), &mut fortran, &mut sliced);
        let (mut opt, mut plain) = (Adam::new(0.1).ema(DECAY), Adam::new(0.1));
        let (mut expected, mut params) = (start.clone(), start.clone());
        for step in 0..3 {
            let grads = ArrayD::from_shape_fn(&shape[..], |i| number(step * 7 + i[0] * 90 + i[1]));
            opt.step(&mut tree, &(&grads, &grads, &grads)).unwrap();
            plain.step(&mut params, &grads).unwrap();
            let weight = if step == 0 { 1.0 } else { 1.0 - DECAY };
            expected.zip_mut_with(&params, |average, param| *average += weight * (param - *average));
        }
        let mut averages = (start.clone(), start.clone(), start.clone());
        opt.read(&mut averages).unwrap();
        assert!(averages.0 == expected && averages.1 == expected && averages.2 == expected);
        assert_eq!(tree.0, params);
    }

    #[test]
    fn tensors_that_go_to_another_optimizer_have_no_average() {
        let mut opt = Sgd::new(1.0).ema(0.5);
        let (mut w, grads) = (pair(0.0, 7.0), pair(1.0, 1.0));
        let parts = Step::pair(&mut w, &grads, None).unwrap().split(2, |info, _| usize::from(info.path() == "1"));
        opt.apply(parts.into_iter().next().unwrap()).unwrap();
        let mut average = pair(0.0, 3.0);
        opt.read(&mut average).unwrap();
        assert_eq!(average, pair(-1.0, 3.0));
    }

    #[test]
    fn only_steps_count() {
        let mut opt = Sgd::new(1.0).accumulate(2).skip_nonfinite().ema(0.5);
        let mut w = array![0.0];
        let mut average = array![9.0];
        opt.read(&mut average).unwrap();
        assert_eq!(average, array![9.0], "nothing to read yet");
        for (grad, expected) in [(2.0, 0.0), (2.0, -2.0), (f64::NAN, -2.0), (4.0, -2.0), (4.0, -4.0)] {
            opt.step(&mut w, &array![grad]).unwrap();
            opt.read(&mut average).unwrap();
            assert_eq!(average, array![expected]);
        }
        assert_eq!((w, opt.steps()), (array![-6.0], 2));
    }

    #[test]
    fn frozen_tensors_are_their_own_average() {
        let mut opt = Sgd::new(1.0).freeze("1").ema(0.5);
        let (mut w, mut average) = (pair(0.0, 7.0), pair(0.0, 0.0));
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.read(&mut average).unwrap();
        assert_eq!(average, pair(-1.5, 7.0));
        let error = opt.read(&mut array![1.0]).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })));
    }

    #[test]
    fn a_decay_out_of_range_moves_nothing() {
        let mut opt = Sgd::new(1.0).ema(1.5);
        let mut w = array![0.0];
        let error = opt.step(&mut w, &array![1.0]).unwrap_err();
        assert_eq!(error.to_string(), "decay is 1.5 at step 0; it must be a number in 0 ≤ decay ≤ 1");
        assert_eq!(w, array![0.0]);
    }
}

mod limits {
    use gradus::StateDict;

    use super::*;

    /// The state with every count of the chain at its end.
    fn at_the_end(opt: &dyn Optimizer<f64>, names: &[&str]) -> StateDict {
        let mut state = opt.state_dict();
        for name in names {
            assert!(state.text(name).is_some(), "{name} of {:?}", state.keys().collect::<Vec<_>>());
            state.insert_text(*name, u64::MAX);
        }
        state
    }

    #[test]
    fn counts_stay_at_their_end() {
        let mut opt = Sgd::new(1.0).skip_nonfinite();
        let mut w = array![0.0];
        opt.load_state_dict(&at_the_end(&opt, &["skip_nonfinite/skipped"])).unwrap();
        assert!(!opt.step(&mut w, &array![f64::NAN]).unwrap().moved);
        assert_eq!(opt.skipped(), u64::MAX);

        let mut opt = Sgd::new(1.0).swa(1, 1).ema(0.5).warmup(true);
        opt.step(&mut w, &array![1.0]).unwrap();
        opt.load_state_dict(&at_the_end(&opt, &["swa/averaged", "ema/averaged"])).unwrap();
        assert!(opt.step(&mut w, &array![1.0]).unwrap().moved);
        assert_eq!((opt.inner().averaged(), &w), (u64::MAX, &array![-2.0]));
        let mut average = array![0.0];
        opt.inner().read(&mut average).unwrap();
        assert!((average[0] + 1.0).abs() < 1e-15, "the mean of so many barely changes: {average}");
        opt.read(&mut average).unwrap();
        assert_eq!(average, array![-1.5]);
    }

    /// An optimizer that counts no further is asked, and answers itself.
    #[test]
    fn around_an_optimizer_at_its_last_step() {
        struct Last;

        impl Optimizer<f64> for Last {
            fn check(&self, _: &Step<'_, f64>) -> gradus::Result<()> {
                Err(Error::Other("no more".into()))
            }

            fn apply(&mut self, step: Step<'_, f64>) -> gradus::Result<Report> {
                self.check(&step)?;
                Ok(Report::new(1.0, true))
            }

            fn conclude(&mut self, result: gradus::Result<Report>) -> gradus::Result<Report> {
                result
            }

            fn replace_learning_rate(&mut self, _: gradus::Hyper) {}

            fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
                None
            }

            fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
                None
            }

            fn learning_rate(&self) -> f64 {
                1.0
            }

            fn steps(&self) -> u64 {
                u64::MAX
            }

            fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
                None
            }

            fn write_state(&self, _: &mut gradus::StateWriter<'_>) {}

            fn read_state<'s>(&'s mut self, _: &mut gradus::StateReader<'_>) -> gradus::Result<gradus::Commit<'s>> {
                Ok(gradus::Commit::nothing())
            }
        }

        let chains: [Box<dyn Optimizer<f64>>; 8] = [
            Box::new(Last.swa(1, 1)),
            Box::new(Last.swa(u64::MAX, 1)),
            Box::new(Last.lookahead(2, 0.5)),
            Box::new(Last.ema(0.5)),
            Box::new(Last.accumulate(1)),
            Box::new(Last.freeze("**").unfreeze_at(u64::MAX, "**")),
            Box::new(Last.clip_global_norm(1.0).group("**", Group::no_decay())),
            Box::new(Last.layerwise_decay(0.5, ["**"]).skip_nonfinite()),
        ];
        for mut opt in chains {
            let error = opt.step(&mut array![1.0], &array![1.0]).unwrap_err();
            assert_eq!(error.to_string(), "no more");
        }
    }

    /// A call that skips decides which parameters these are, as one that gathers does.
    #[test]
    fn other_parameters_are_told_where_nothing_has_moved_yet() {
        type Build = fn() -> Box<dyn Optimizer<f64>>;
        let builds: [Build; 9] = [
            || Box::new(Adam::new(0.1).clip_per_tensor_norm(1.0).non_finite(NonFinite::Skip)),
            || Box::new(Adam::new(0.1).clip_global_norm(1.0).non_finite(NonFinite::Skip)),
            || Box::new(Adam::new(0.1).clip_value(1.0).non_finite(NonFinite::Skip).maximize()),
            || Box::new(Adam::new(0.1).clip_adaptive(1.0).non_finite(NonFinite::Skip).accumulate(1)),
            || Box::new(Adam::new(0.1).skip_nonfinite()),
            || Box::new(Adam::new(0.1).skip_nonfinite().freeze("0")),
            || Box::new(Adam::new(0.1).skip_nonfinite().ema(0.5).swa(1, 1).lookahead(2, 0.5)),
            || Box::new(Adam::new(0.1).accumulate(3).skip_nonfinite()),
            || Box::new(Adam::new(0.1).skip_nonfinite().route("1", Sgd::new(0.1).skip_nonfinite())),
        ];
        let nan = || (array![f64::NAN], array![f64::NAN]);
        for (number, build) in builds.into_iter().enumerate() {
            for (first, moved) in [(nan(), false), (pair(1.0, 1.0), number != 7)] {
                for second in [f64::NAN, 1.0] {
                    let mut opt = build();
                    assert_eq!(opt.step(&mut pair(0.0, 0.0), &first).unwrap().moved, moved, "{number}");
                    let before = opt.state_dict();
                    let mut other = (array![0.0], array![0.0, 0.0]);
                    let error = opt.step(&mut other, &(array![second], array![second, second])).unwrap_err();
                    assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{number}: {error}");
                    assert_eq!(opt.state_dict(), before, "{number}");
                    // The same go on.
                    assert!(opt.step(&mut pair(0.0, 0.0), &first).is_ok(), "{number}");
                }
            }
        }
        // A state from before replaces what was known.
        let mut opt = Adam::new(0.1).skip_nonfinite().clip_global_norm(1.0).non_finite(NonFinite::Skip);
        let before = opt.state_dict();
        opt.step(&mut pair(0.0, 0.0), &nan()).unwrap();
        opt.load_state_dict(&before).unwrap();
        opt.step(&mut array![1.0], &array![1.0]).unwrap();
    }

    /// Rates whose product is below every number would stop their layers in silence.
    #[test]
    fn a_factor_that_vanishes_is_refused() {
        let names: Vec<String> = (0..1200).map(|layer| format!("{layer}")).collect();
        let mut opt = Sgd::new(1.0).layerwise_decay(0.5, names);
        let mut w = vec![array![0.0]; 1200];
        let error = opt.step(&mut w, &vec![array![1.0]; 1200]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "layerwise_decay is 0.5 at step 0 for \"0\"; it must be 0 or a number whose power of 1199 is one"
        );
        let tiny = || Group::new().scale_learning_rate(1e-200);
        let mut opt = Sgd::new(1.0).group("0", tiny()).group("**", tiny());
        let error = opt.step(&mut pair(0.0, 0.0), &pair(1.0, 1.0)).unwrap_err();
        assert!(error.to_string().starts_with("scale_learning_rate is 1e-200 at step 0"), "{error}");
        assert!(error.to_string().contains("for \"0\""), "{error}");
        // 0 by itself is meant.
        let mut opt = Sgd::new(1.0).layerwise_decay(0.0, ["0", "1"]).group("0", tiny());
        let mut w = pair(0.0, 0.0);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(0.0, -1.0));
    }
}

mod parts {
    use gradus::adaptor::{Accumulate, Ema, Freeze, Router, Unscale};
    use gradus::clip::Norm;
    use gradus::schedule::Linear;

    use super::*;

    /// Through adaptors, boxes, borrows and routers.
    #[test]
    fn are_found_by_type() {
        let inner = Momentum::new(1.0, 0.5).ema(0.5).ema(0.9).clip_global_norm(9.0).accumulate(1).boxed();
        let branch = Adam::new(0.1).freeze("1").unscale(1.0);
        let mut opt = inner.route("1", branch).check_finite().boxed();
        let mut w = pair(0.0, 0.0);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert_eq!(w, pair(-1.0, 0.0));
        let opt: &mut dyn Optimizer<f64> = &mut opt;
        assert_eq!(opt.find::<Accumulate<f64>>().map(|sum| sum.gathered()), Some(0));
        assert!(opt.find::<Norm>().is_some() && opt.find::<Unscale>().is_some() && opt.find::<Router<f64>>().is_some());
        assert!(opt.find::<Momentum<f64>>().unwrap().slot("0", "momentum_buffer").is_some());
        assert!(opt.find::<Sgd<f64>>().is_none() && opt.find::<Ema<f32>>().is_none());
        // The outermost of several.
        opt.find_mut::<Ema<f64>>().unwrap().swap(&mut w).unwrap();
        assert_eq!(opt.step(&mut w, &pair(1.0, 1.0)), Err(Error::Step(StepError::Swapped)));
        opt.find_mut::<Ema<f64>>().unwrap().swap(&mut w).unwrap();
        opt.find_mut::<Freeze>().unwrap().unfreeze_all();
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        assert!(w.1[0] < 0.0);
    }

    #[test]
    fn a_learning_rate_is_set_through_everything() {
        let mut opt = Sgd::new(1.0).ema(0.5).clip_value(9.0).boxed().accumulate(1).route("1", Sgd::new(0.25)).boxed();
        let mut w = pair(0.0, 0.0);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.set_learning_rate(Linear::new(1.0, 0.0, 2));
        assert_eq!(opt.learning_rate(), 0.5);
        opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        opt.set_learning_rate(2.0);
        let report = opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        // The branch keeps its own.
        assert_eq!((w, report.learning_rate), (pair(-3.5, -0.75), 2.0));
        opt.set_learning_rate(-1.0);
        assert!(matches!(
            opt.step(&mut pair(0.0, 0.0), &pair(1.0, 1.0)),
            Err(Error::Step(StepError::HyperParameter { .. }))
        ));
    }

    /// A transform sees the number that its own optimizer counts.
    #[test]
    fn a_step_has_its_number() {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let record = |name: &'static str| {
            let seen = std::sync::Arc::clone(&seen);
            move |step: &mut Step<'_, f64>| {
                seen.lock().unwrap().push((name, step.number()));
                Ok(())
            }
        };
        let mut branch = Sgd::new(1.0);
        branch.step(&mut pair(0.0, 0.0), &pair(1.0, 1.0)).unwrap();
        let branch = branch.transform(record("branch")).accumulate(2);
        let mut opt = Sgd::new(1.0).transform(record("rest")).route("1", branch).transform(record("all"));
        let mut w = pair(0.0, 0.0);
        for _ in 0..2 {
            opt.step(&mut w, &pair(1.0, 1.0)).unwrap();
        }
        let seen = seen.lock().unwrap();
        let of = |name| seen.iter().filter(|(own, _)| *own == name).map(|(_, number)| *number).collect::<Vec<_>>();
        assert_eq!((of("all"), of("rest")), (vec![0, 1], vec![0, 0, 1, 1]));
        assert!(of("branch").iter().all(|number| *number == 1));
    }
}
