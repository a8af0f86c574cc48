//! Combinators and decays with random arguments, and the plateau against a transcription of PyTorch's code.

use std::f64::consts::PI;

use gradus::schedule::{
    Anneal, Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, Polynomial, Rex, Schedule, ScheduleExt, Step,
    WarmupStableDecay,
};
use proptest::prelude::*;

use super::{Any, WOBBLE};

/// PyTorch's `ReduceLROnPlateau.step`, line by line.
struct NaivePlateau {
    maximize: bool,
    absolute: bool,
    threshold: f64,
    patience: u64,
    cooldown: u64,
    factor: f64,
    min_lr: f64,
    lr: f64,
    best: f64,
    num_bad_epochs: u64,
    cooldown_counter: u64,
}

impl NaivePlateau {
    fn step(&mut self, current: f64) {
        let rel_epsilon = if self.maximize { 1.0 + self.threshold } else { 1.0 - self.threshold };
        let is_better = match (self.maximize, self.absolute) {
            (false, false) => current < self.best * rel_epsilon,
            (false, true) => current < self.best - self.threshold,
            (true, false) => current > self.best * rel_epsilon,
            (true, true) => current > self.best + self.threshold,
        };
        if is_better {
            self.best = current;
            self.num_bad_epochs = 0;
        } else {
            self.num_bad_epochs += 1;
        }
        if self.cooldown_counter > 0 {
            self.cooldown_counter -= 1;
            self.num_bad_epochs = 0;
        }
        if self.num_bad_epochs > self.patience {
            let new_lr = f64::max(self.lr * self.factor, self.min_lr);
            if self.lr - new_lr > 1e-8 {
                self.lr = new_lr;
            }
            self.cooldown_counter = self.cooldown;
            self.num_bad_epochs = 0;
        }
    }
}

/// Hugging Face's `_get_cosine_with_hard_restarts_schedule_with_warmup_lr_lambda`, line by line.
fn hard_restarts(step: u64, warmup: u64, training: u64, cycles: u64) -> f64 {
    if step < warmup {
        return step as f64 / warmup.max(1) as f64;
    }
    let progress = (step - warmup) as f64 / (training - warmup).max(1) as f64;
    if progress >= 1.0 {
        return 0.0;
    }
    f64::max(0.0, 0.5 * (1.0 + (PI * ((cycles as f64 * progress) % 1.0)).cos()))
}

/// Its `_get_cosine_schedule_with_warmup_lr_lambda`.
fn waves(step: u64, warmup: u64, training: u64, cycles: f64) -> f64 {
    if step < warmup {
        return step as f64 / warmup.max(1) as f64;
    }
    let progress = (step - warmup) as f64 / (training - warmup).max(1) as f64;
    f64::max(0.0, 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos()))
}

/// Of every length up to 40, every warm-up and number of cycles: all steps of the training.
#[test]
fn hugging_face_s_cosines_have_their_values_whatever_divides_what() {
    for n in 1..=40 {
        for w in 0..=n {
            for cycles in 0..=12 {
                let hard = Cosine::new(1.0, n - w).cycles(cycles).warmup(w);
                let smooth = Cosine::new(1.0, n - w).waves(cycles as f64 / 4.0).warmup(w);
                assert_eq!((hard.check(), smooth.check()), (Ok(()), Ok(())));
                for t in 0..n {
                    let (found, expected) = (hard.at(t), hard_restarts(t, w, n, cycles));
                    assert!((found - expected).abs() <= WOBBLE, "{found} for {expected}: {t} of {n}, {w}, {cycles}");
                    let (found, expected) = (smooth.at(t), waves(t, w, n, cycles as f64 / 4.0));
                    assert!((found - expected).abs() <= WOBBLE, "{found} for {expected}: {t} of {n}, {w}, {cycles}/4");
                }
            }
        }
    }
    assert!((Cosine::new(1.0, 1000).cycles(3).at(999) - 0.0000222).abs() < 5e-8);
}

fn metric() -> impl Strategy<Value = f64> {
    prop_oneof![9 => -2.0..2.0, 3 => (0..4_i32).prop_map(f64::from), 1 => Just(f64::NAN)]
}

/// Finite numbers, many of them at the ends of the range.
fn extreme() -> impl Strategy<Value = f64> {
    let ends = [0.0, 5e-324, f64::MIN_POSITIVE, 0.5, 1.0, 1.5, f64::MAX].into_iter().flat_map(|end| [end, -end]);
    prop_oneof![prop::sample::select(ends.collect::<Vec<_>>()), -10.0..10.0, prop::num::f64::NORMAL]
}

/// Steps and lengths, many of them at the ends of the range.
fn extreme_step() -> impl Strategy<Value = u64> {
    prop_oneof![prop::sample::select(vec![0, 1, 2, u64::MAX - 1, u64::MAX]), 0..100_u64, any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Infinite where the true value is beyond the range, which the optimizer refuses by name; but never NaN.
    #[test]
    fn what_passes_the_check_is_a_number_at_every_step(
        (a, b, c) in (extreme(), extreme(), extreme()),
        (m, n, k) in (extreme_step(), extreme_step(), extreme_step()),
        step in extreme_step(),
        anneal in prop::sample::select(vec![Anneal::Linear, Anneal::Cosine, Anneal::OneMinusSqrt]),
    ) {
        let points = [(m, b), (m.saturating_add(n), c)];
        let schedules: Vec<(&str, Any)> = vec![
            ("Step", Box::new(Step::new(a, m, b))),
            ("MultiStep", Box::new(MultiStep::new(a, [m, n, k, k], b))),
            ("Exponential", Box::new(Exponential::new(a, b).over(m))),
            ("Linear", Box::new(Linear::new(a, b, m))),
            ("HalfLife", Box::new(HalfLife::new(a, b, m))),
            ("Polynomial", Box::new(Polynomial::new(a, m).floor(b).power(c))),
            ("Rex", Box::new(Rex::new(a, m))),
            ("Cosine", Box::new(Cosine::new(a, m).floor(b).exponent(c))),
            ("Cosine cycles", Box::new(Cosine::new(a, m).floor(b).cycles(n).waves(c))),
            ("CosineRestarts", Box::new(CosineRestarts::new(a, m).floor(b).factor(n))),
            ("OneCycle", Box::new(OneCycle::new(a, m).div_factor(b).final_div_factor(c).anneal(anneal))),
            ("OneCycle three", Box::new(OneCycle::new(a, m).div_factor(b).pct_start(c).three_phase().anneal(anneal))),
            ("Cyclic", Box::new(Cyclic::new(a, b, m).down(n))),
            ("Cyclic 2", Box::new(Cyclic::new(a, b, m).down(n).triangular2())),
            ("Cyclic exp", Box::new(Cyclic::new(a, b, m).down(n).exp_range(c))),
            ("InverseSqrt", Box::new(InverseSqrt::new(a, m))),
            ("Noam", Box::new(Noam::new(m, n))),
            ("WSD", Box::new(WarmupStableDecay::new(a, m, n, k).start(b).floor(c).anneal(anneal))),
            ("PiecewiseConstant", Box::new(PiecewiseConstant::new(a, points))),
            ("PiecewiseLinear", Box::new(PiecewiseLinear::new(a, points))),
            ("PiecewiseCosine", Box::new(PiecewiseCosine::new(a, points))),
            ("warmup", Box::new(Exponential::new(a, b).scale(c).warmup(m))),
            ("warmup_from", Box::new(Exponential::new(a, b).warmup_from(c, m))),
            ("scale", Box::new(Exponential::new(a, b).scale(c))),
            ("times", Box::new(Exponential::new(a, b).times(Linear::new(a, c, m)))),
            ("clamp", Box::new(Exponential::new(a, b).clamp(b, c))),
            ("then, delay, cycle", Box::new(Exponential::new(a, b).delay(m).then(n, Linear::new(b, c, k).cycle(k)))),
        ];
        for (name, schedule) in schedules.iter().filter(|(_, schedule)| schedule.check().is_ok()) {
            for step in [0, step, u64::MAX] {
                prop_assert!(!schedule.at(step).is_nan(), "{} at step {}", name, step);
            }
        }
    }
}

proptest! {
    #[test]
    fn plateau_follows_pytorch_s_code(
        metrics in prop::collection::vec(metric(), 1..100),
        (maximize, absolute) in any::<(bool, bool)>(),
        (patience, cooldown) in (0..4_u64, 0..4_u64),
        (threshold, factor, min_lr) in (0.0..0.5, 0.1..0.95, 0.0..0.3),
    ) {
        let plateau = Plateau::new(1.0).patience(patience).cooldown(cooldown).factor(factor).floor(min_lr);
        let plateau = plateau.maximize(maximize);
        let plateau = match absolute {
            true => plateau.absolute_threshold(threshold),
            false => plateau.relative_threshold(threshold),
        };
        let best = if maximize { f64::NEG_INFINITY } else { f64::INFINITY };
        let mut naive = NaivePlateau {
            maximize, absolute, threshold, patience, cooldown, factor, min_lr,
            lr: 1.0, best, num_bad_epochs: 0, cooldown_counter: 0,
        };
        for metric in metrics {
            plateau.observe(metric);
            naive.step(metric);
            prop_assert_eq!(plateau.at(0), naive.lr);
        }
    }

    #[test]
    fn then_begins_the_next_at_its_own_step_0(at in 0..500_u64, step in 0..1000_u64) {
        let (first, next) = (Exponential::new(1.0, 0.99), Cosine::new(0.5, 300));
        let joined = first.clone().then(at, next.clone());
        let expected = if step < at { first.at(step) } else { next.at(step - at) };
        prop_assert_eq!(joined.at(step), expected);
    }

    #[test]
    fn warmup_postpones_and_does_not_change(steps in 0..500_u64, step in 0..1000_u64, factor in 0.0..1.0) {
        let inner = Polynomial::new(0.7, 400).power(1.5);
        let warm = inner.clone().warmup_from(factor, steps);
        prop_assert_eq!(warm.at(steps.saturating_add(step)), inner.at(step));
        let part = factor + (1.0 - factor) * step as f64 / steps as f64;
        prop_assert!(step >= steps || (warm.at(step) - 0.7 * part).abs() <= WOBBLE);
    }

    #[test]
    fn cycle_is_periodic(period in 1..100_u64, step in 0..1000_u64, turns in 0..1_000_000_u64) {
        let schedule = Linear::new(1.0, 0.0, 70).cycle(period);
        prop_assert_eq!(schedule.at(step), schedule.at(step + turns * period));
        prop_assert_eq!(schedule.at(step % period), Linear::new(1.0, 0.0, 70).at(step % period));
    }

    #[test]
    fn clamp_stays_within_and_leaves_the_rest(min in -1.0..1.0, span in 0.0..1.0, step: u64) {
        let inner = Cyclic::new(-1.0, 1.0, 17);
        let (value, max) = (inner.at(step), min + span);
        let clamped = inner.clamp(min, max).at(step);
        prop_assert!((min..=max).contains(&clamped));
        prop_assert!(clamped == value || value < min || value > max);
    }

    #[test]
    fn decays_stay_between_floor_and_peak(
        (floor, height, step, steps) in (-1.0..1.0, 0.0..1.0, 0..300_u64, 0..200_u64),
        power in 0.1..4.0,
    ) {
        let peak = floor + height;
        let decays: [Any; 5] = [
            Box::new(Linear::new(peak, floor, steps)),
            Box::new(Polynomial::new(peak, steps).floor(floor).power(power)),
            Box::new(Cosine::new(peak, steps).floor(floor).exponent(power)),
            Box::new(CosineRestarts::new(peak, steps.max(1)).floor(floor).factor(2)),
            Box::new(WarmupStableDecay::new(peak, 0, steps / 2, steps).floor(floor).anneal(Anneal::OneMinusSqrt)),
        ];
        for decay in decays {
            prop_assert!((floor..=peak).contains(&decay.at(step)));
        }
    }

    #[test]
    fn a_product_is_one_and_a_scale_is_one_too(step: u64, factor in -2.0..2.0) {
        let schedule = || InverseSqrt::new(0.3, 50);
        prop_assert_eq!(schedule().times(factor).at(step), schedule().at(step) * factor);
        prop_assert_eq!(schedule().scale(factor).at(step), schedule().times(factor).at(step));
    }

    #[test]
    fn piecewise_schedules_pass_through_their_points(
        steps in prop::collection::btree_set(1..1000_u64, 1..8),
        values in prop::collection::vec(-1.0..1.0, 8),
    ) {
        let points: Vec<(u64, f64)> = steps.into_iter().zip(values).collect();
        let through: [Any; 3] = [
            Box::new(PiecewiseConstant::new(0.5, points.clone())),
            Box::new(PiecewiseLinear::new(0.5, points.clone())),
            Box::new(PiecewiseCosine::new(0.5, points.clone())),
        ];
        for schedule in through {
            prop_assert_eq!(schedule.check(), Ok(()));
            prop_assert_eq!(schedule.at(0), 0.5);
            for (step, value) in &points {
                prop_assert_eq!(schedule.at(*step), *value);
            }
        }
    }
}
