//! What every schedule keeps: a table of schedules for each law.

use gradus::error::StepError;
use gradus::schedule::{
    Anneal, Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, Polynomial, Rex, Schedule, ScheduleExt, Step,
    WarmupStableDecay,
};
use gradus::testing;
use gradus::{Adam, Error, Hyper, Optimizer};
use ndarray::array;

use super::{Any, WOBBLE};

/// Every schedule and every combinator, with the range its values lie in.
fn all() -> Vec<(&'static str, Any, f64, f64)> {
    let cosine = || Cosine::new(0.1, 100).floor(0.01);
    let one_cycle = || OneCycle::new(0.1, 100).div_factor(10.0).final_div_factor(10.0);
    vec![
        ("number", Box::new(0.1), 0.1, 0.1),
        ("closure", Box::new(|step: u64| 0.1 / (1.0 + step as f64)), 0.0, 0.1),
        ("Step", Box::new(Step::new(0.1, 30, 0.5)), 0.0, 0.1),
        ("MultiStep", Box::new(MultiStep::new(0.1, [30, 80], 0.5)), 0.025, 0.1),
        ("Exponential", Box::new(Exponential::new(0.1, 0.99)), 0.0, 0.1),
        ("Exponential over", Box::new(Exponential::new(0.1, 0.5).over(70)), 0.0, 0.1),
        ("Linear", Box::new(Linear::new(0.01, 0.1, 100)), 0.01, 0.1),
        ("HalfLife", Box::new(HalfLife::new(0.9, 0.9999, 100)), 0.9, 0.9999),
        ("Polynomial", Box::new(Polynomial::new(0.1, 100).power(2.0).floor(0.01)), 0.01, 0.1),
        ("Rex", Box::new(Rex::new(0.1, 100)), 0.0, 0.1),
        ("Rex max", Box::new(Rex::new(0.1, u64::MAX)), 0.0, 0.1),
        ("Cosine", Box::new(cosine()), 0.01, 0.1),
        ("Cosine exponent", Box::new(cosine().exponent(2.0)), 0.01, 0.1),
        ("Cosine cycles", Box::new(cosine().cycles(7)), 0.01, 0.1),
        ("Cosine waves", Box::new(cosine().waves(2.3)), 0.01, 0.1),
        ("Cosine max", Box::new(Cosine::new(0.1, u64::MAX).cycles(u64::MAX).waves(1e15)), 0.0, 0.1),
        ("CosineRestarts", Box::new(CosineRestarts::new(0.1, 30).floor(0.01)), 0.01, 0.1),
        ("CosineRestarts 2", Box::new(CosineRestarts::new(0.1, 1).factor(2)), 0.0, 0.1),
        ("CosineRestarts max", Box::new(CosineRestarts::new(0.1, u64::MAX).factor(u64::MAX)), 0.0, 0.1),
        ("OneCycle", Box::new(one_cycle()), 0.001, 0.1),
        ("OneCycle three", Box::new(one_cycle().three_phase().anneal(Anneal::Linear)), 0.001, 0.1),
        ("OneCycle max", Box::new(OneCycle::new(0.1, u64::MAX)), 0.0, 0.1),
        ("Cyclic", Box::new(Cyclic::new(0.01, 0.1, 30).down(70)), 0.01, 0.1),
        ("Cyclic 2", Box::new(Cyclic::new(0.01, 0.1, 3).triangular2()), 0.01, 0.1),
        ("Cyclic exp", Box::new(Cyclic::new(0.01, 0.1, 3).exp_range(0.99)), 0.01, 0.1),
        ("Cyclic max", Box::new(Cyclic::new(0.01, 0.1, u64::MAX)), 0.01, 0.1),
        ("InverseSqrt", Box::new(InverseSqrt::new(0.1, 30)), 0.0, 0.1),
        ("InverseSqrt max", Box::new(InverseSqrt::new(0.1, u64::MAX)), 0.0, 0.1),
        ("Noam", Box::new(Noam::new(64, 30)), 0.0, 0.1),
        ("Noam max", Box::new(Noam::new(u64::MAX, u64::MAX)), 0.0, 0.1),
        ("WSD", Box::new(WarmupStableDecay::new(0.1, 20, 50, 30).start(0.01).floor(0.01)), 0.01, 0.1),
        ("WSD max", Box::new(WarmupStableDecay::new(0.1, u64::MAX, u64::MAX, u64::MAX)), 0.0, 0.1),
        ("PiecewiseConstant", Box::new(PiecewiseConstant::new(0.1, [(10, 0.05), (90, 0.02)])), 0.02, 0.1),
        ("PiecewiseLinear", Box::new(PiecewiseLinear::new(0.1, [(10, 0.05), (u64::MAX, 0.02)])), 0.02, 0.1),
        ("PiecewiseCosine", Box::new(PiecewiseCosine::new(0.1, [(10, 0.05), (90, 0.02)])), 0.02, 0.1),
        ("Plateau", Box::new(Plateau::new(0.1)), 0.1, 0.1),
        ("warmup", Box::new(cosine().warmup(20)), 0.0, 0.1),
        ("warmup max", Box::new(cosine().warmup(u64::MAX)), 0.0, 0.1),
        ("warmup_from", Box::new(cosine().warmup_from(0.5, 20)), 0.01, 0.1),
        ("then", Box::new(cosine().then(50, 0.02)), 0.01, 0.1),
        ("scale", Box::new(cosine().scale(2.0)), 0.02, 0.2),
        ("times", Box::new(cosine().times(cosine())), 0.0001, 0.011),
        ("clamp", Box::new(cosine().clamp(0.03, 0.05)), 0.03, 0.05),
        ("delay", Box::new(cosine().delay(u64::MAX)), 0.01, 0.1),
        ("cycle", Box::new(cosine().cycle(u64::MAX)), 0.01, 0.1),
        ("per_epoch", Box::new(cosine().per_epoch(7)), 0.01, 0.1),
    ]
}

/// Values in range at every step, near and far; a pure function of the step; one line of `Debug`.
#[test]
fn every_schedule_keeps_the_laws() {
    for (at, (name, _, low, high)) in all().into_iter().enumerate() {
        testing::schedule(move || all().swap_remove(at).1).named(name).range(low..=high).run();
    }
}

/// Alone, and in other schedules.
#[test]
fn a_plateau_keeps_the_law_of_memory() {
    let observe = |plateau: &Plateau| _ = [1.0, 1.0, 2.0, 0.5].map(|metric| plateau.observe(metric));
    testing::schedule(|| Plateau::new(0.1).patience(0)).range(0.0..=0.1).changed(observe).run();
}

#[test]
fn what_should_only_fall_only_falls() {
    let falling: [(&str, Any); 12] = [
        ("Step", Box::new(Step::new(1.0, 30, 0.5))),
        ("MultiStep", Box::new(MultiStep::new(1.0, [30, 80], 0.5))),
        ("Exponential", Box::new(Exponential::new(1.0, 0.99))),
        ("Linear", Box::new(Linear::new(1.0, 0.1, 777))),
        ("Polynomial", Box::new(Polynomial::new(1.0, 777).power(0.9).floor(0.1))),
        ("Rex", Box::new(Rex::new(1.0, 777))),
        ("Cosine", Box::new(Cosine::new(1.0, 777).floor(0.1))),
        ("InverseSqrt", Box::new(InverseSqrt::new(1.0, 30))),
        ("Noam", Box::new(Noam::new(1, 0))),
        ("WSD", Box::new(WarmupStableDecay::new(1.0, 0, 100, 500).anneal(Anneal::OneMinusSqrt))),
        ("PiecewiseCosine", Box::new(PiecewiseCosine::new(1.0, [(100, 0.7), (500, 0.1)]))),
        ("OneCycle, its second half", Box::new(OneCycle::new(1.0, 777).pct_start(0.0))),
    ];
    for (name, schedule) in falling {
        let mut neighbors = (0..1000).map(|step| (schedule.at(step), schedule.at(step + 1)));
        assert!(neighbors.all(|(now, next)| next <= now + WOBBLE), "{name}");
        assert!(schedule.at(1000) < 0.5 * schedule.at(0), "{name} does not fall");
    }
}

#[test]
fn a_part_of_no_steps_is_over_at_once() {
    let instant: [(&str, Any, f64); 10] = [
        ("HalfLife", Box::new(HalfLife::new(0.9, 0.5, 0)), 0.5),
        ("Linear", Box::new(Linear::new(1.0, 0.5, 0)), 0.5),
        ("Polynomial", Box::new(Polynomial::new(1.0, 0).floor(0.5)), 0.5),
        ("Rex", Box::new(Rex::new(1.0, 0)), 0.0),
        ("Cosine", Box::new(Cosine::new(1.0, 0).floor(0.5)), 0.5),
        ("OneCycle", Box::new(OneCycle::new(1.0, 0).div_factor(1.0).final_div_factor(2.0)), 0.5),
        ("WSD", Box::new(WarmupStableDecay::new(1.0, 0, 0, 0).floor(0.5)), 0.5),
        ("warmup", Box::new(0.5_f64.warmup(0)), 0.5),
        ("then", Box::new(1.0_f64.then(0, 0.5)), 0.5),
        ("delay", Box::new(0.5_f64.delay(0)), 0.5),
    ];
    for (name, schedule, end) in instant {
        schedule.check().unwrap();
        assert_eq!([0, 1, u64::MAX].map(|step| schedule.at(step)), [end; 3], "{name}");
    }
}

/// Schedules of no steps, each with the value it would fall or rise from, 1, and its end value, 0.5.
fn without_steps() -> Vec<(&'static str, Any)> {
    let line = || Linear::new(1.0, 0.5, 0);
    vec![
        ("Linear", Box::new(line())),
        ("Polynomial", Box::new(Polynomial::new(1.0, 0).floor(0.5))),
        ("Rex", Box::new(Rex::new(1.0, 0).clamp(0.5, 1.0))),
        ("Cosine", Box::new(Cosine::new(1.0, 0).floor(0.5))),
        ("Cosine cycles", Box::new(Cosine::new(1.0, 0).floor(0.5).cycles(3))),
        ("OneCycle", Box::new(OneCycle::new(4.0, 0).div_factor(4.0).final_div_factor(2.0))),
        ("WSD", Box::new(WarmupStableDecay::new(1.0, 0, 0, 0).floor(0.5))),
        ("PiecewiseLinear", Box::new(PiecewiseLinear::new(1.0, [(0, 0.5)]))),
        ("PiecewiseCosine", Box::new(PiecewiseCosine::new(1.0, [(0, 0.5)]))),
        ("then", Box::new(1.0.then(0, 0.5))),
        ("then, after what would be refused", Box::new(CosineRestarts::new(1.0, 0).then(0, 0.5))),
        ("warmup", Box::new(line().warmup(0))),
        ("delay", Box::new(line().delay(0))),
        ("scale", Box::new(Linear::new(0.5, 0.25, 0).scale(2.0))),
        ("times", Box::new(line().times(1.0))),
        ("clamp", Box::new(line().clamp(0.0, 2.0))),
        ("cycle", Box::new(line().cycle(3))),
        ("per_epoch", Box::new(line().per_epoch(7))),
        ("Box", Box::new(Box::new(line()) as Any)),
    ]
}

/// The part before them may be as long as the run: `Cosine::new(lr, n - w).warmup(w)` with n = w.
#[test]
fn what_comes_before_a_schedule_of_no_steps_ends_at_its_first_value() {
    for (name, schedule) in without_steps() {
        let warm = Hyper::from(schedule.warmup(4));
        let values = [0, 1, 2, 3, 4, 5, u64::MAX].map(|step| warm.within("learning_rate", 0.0.., step));
        assert_eq!(values, [0.0, 0.25, 0.5, 0.75, 0.5, 0.5, 0.5].map(Ok), "{name}");
    }
    for (name, schedule) in without_steps() {
        let late = Hyper::from(schedule.delay(2));
        let values = [0, 1, 2, 3, u64::MAX].map(|step| late.within("learning_rate", 0.0.., step));
        assert_eq!(values, [1.0, 1.0, 0.5, 0.5, 0.5].map(Ok), "{name}");
    }
    for (name, schedule) in without_steps() {
        let nested = schedule.delay(2).warmup_from(0.5, 2);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|step| nested.at(step)), [0.5, 0.75, 1.0, 1.0, 0.5, 0.5], "{name}");
    }
}

#[test]
fn check_names_the_argument_that_is_wrong() {
    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;
    let cosine = || Cosine::new(1.0, 10);
    let wrong: Vec<(&str, &str, Any)> = vec![
        ("Step", "start", Box::new(Step::new(INF, 1, 0.5))),
        ("Step", "period", Box::new(Step::new(1.0, 0, 0.5))),
        ("Step", "gamma", Box::new(Step::new(1.0, 1, -0.5))),
        ("MultiStep", "start", Box::new(MultiStep::new(NAN, [], 0.5))),
        ("MultiStep", "gamma", Box::new(MultiStep::new(1.0, [1], INF))),
        ("Exponential", "start", Box::new(Exponential::new(NAN, 0.5))),
        ("Exponential", "gamma", Box::new(Exponential::new(1.0, NAN))),
        ("Exponential", "over", Box::new(Exponential::new(1.0, 0.5).over(0))),
        ("Linear", "start", Box::new(Linear::new(NAN, 1.0, 1))),
        ("Linear", "end", Box::new(Linear::new(1.0, INF, 1))),
        ("HalfLife", "start", Box::new(HalfLife::new(0.0, 0.9, 1))),
        ("HalfLife", "end", Box::new(HalfLife::new(0.9, 1.0, 1))),
        ("Polynomial", "peak", Box::new(Polynomial::new(NAN, 1))),
        ("Polynomial", "floor", Box::new(Polynomial::new(1.0, 1).floor(1.1))),
        ("Polynomial", "power", Box::new(Polynomial::new(1.0, 1).power(0.0))),
        ("Rex", "peak", Box::new(Rex::new(NAN, 1))),
        ("Cosine", "peak", Box::new(Cosine::new(INF, 1))),
        ("Cosine", "floor", Box::new(cosine().floor(2.0))),
        ("Cosine", "exponent", Box::new(cosine().exponent(-1.0))),
        ("Cosine", "waves", Box::new(cosine().waves(-0.5))),
        ("Cosine", "waves", Box::new(cosine().waves(f64::MAX))),
        ("CosineRestarts", "peak", Box::new(CosineRestarts::new(NAN, 1))),
        ("CosineRestarts", "floor", Box::new(CosineRestarts::new(1.0, 1).floor(NAN))),
        ("CosineRestarts", "period", Box::new(CosineRestarts::new(1.0, 0).factor(2))),
        ("CosineRestarts", "factor", Box::new(CosineRestarts::new(1.0, 1).factor(0))),
        ("OneCycle", "peak", Box::new(OneCycle::new(NAN, 10))),
        ("OneCycle", "pct_start", Box::new(OneCycle::new(1.0, 10).pct_start(1.1))),
        ("OneCycle", "pct_start", Box::new(OneCycle::new(1.0, 10).pct_start(0.6).three_phase())),
        ("OneCycle", "div_factor", Box::new(OneCycle::new(1.0, 10).div_factor(0.0))),
        ("OneCycle", "div_factor", Box::new(OneCycle::new(1.0, 10).div_factor(5e-324))),
        ("OneCycle", "final_div_factor", Box::new(OneCycle::new(1.0, 10).final_div_factor(-1.0))),
        ("OneCycle", "final_div_factor", Box::new(OneCycle::new(1e300, 10).final_div_factor(1e-300))),
        ("Cyclic", "base", Box::new(Cyclic::new(NAN, 1.0, 1))),
        ("Cyclic", "max", Box::new(Cyclic::new(1.0, NAN, 1))),
        ("Cyclic", "up", Box::new(Cyclic::new(0.0, 1.0, 0))),
        ("Cyclic", "gamma", Box::new(Cyclic::new(0.0, 1.0, 1).exp_range(NAN))),
        ("InverseSqrt", "peak", Box::new(InverseSqrt::new(NAN, 1))),
        ("InverseSqrt", "timescale", Box::new(InverseSqrt::new(1.0, 0))),
        ("Noam", "d_model", Box::new(Noam::new(0, 10))),
        ("WarmupStableDecay", "peak", Box::new(WarmupStableDecay::new(NAN, 1, 1, 1))),
        ("WarmupStableDecay", "start", Box::new(WarmupStableDecay::new(1.0, 1, 1, 1).start(NAN))),
        ("WarmupStableDecay", "floor", Box::new(WarmupStableDecay::new(1.0, 1, 1, 1).floor(1.1))),
        ("PiecewiseConstant", "start", Box::new(PiecewiseConstant::new(NAN, []))),
        ("PiecewiseConstant", "value", Box::new(PiecewiseConstant::new(1.0, [(5, INF)]))),
        ("PiecewiseLinear", "step", Box::new(PiecewiseLinear::new(1.0, [(5, 1.0), (5, 2.0)]))),
        ("PiecewiseCosine", "step", Box::new(PiecewiseCosine::new(1.0, [(5, 1.0), (4, 2.0)]))),
        ("Plateau", "start", Box::new(Plateau::new(NAN))),
        ("Plateau", "factor", Box::new(Plateau::new(1.0).factor(1.0))),
        ("Plateau", "threshold", Box::new(Plateau::new(1.0).relative_threshold(1.0))),
        ("Plateau", "threshold", Box::new(Plateau::new(1.0).absolute_threshold(-1.0))),
        ("Plateau", "floor", Box::new(Plateau::new(1.0).floor(NAN))),
        ("Plateau", "eps", Box::new(Plateau::new(1.0).eps(-1.0))),
        ("Warmup", "start_factor", Box::new(cosine().warmup_from(NAN, 5))),
        ("Scale", "factor", Box::new(cosine().scale(INF))),
        ("Clamp", "max", Box::new(cosine().clamp(0.0, NAN))),
        ("Clamp", "min", Box::new(cosine().clamp(2.0, 1.0))),
        ("Cycle", "steps", Box::new(cosine().cycle(0))),
        ("PerEpoch", "steps_per_epoch", Box::new(cosine().per_epoch(0))),
    ];
    for (name, wrong_argument, wrong) in wrong {
        match wrong.check() {
            Err(Error::Step(StepError::Schedule { schedule, argument, .. })) => {
                assert_eq!((schedule, argument), (name, wrong_argument))
            }
            other => panic!("{name} with a wrong {wrong_argument}: {other:?}"),
        }
        // Whatever the value is, asking for it does not panic.
        for step in [0, 1, 7, u64::MAX] {
            let _ = wrong.at(step);
        }
    }
}

#[test]
fn an_optimizer_s_hyper_parameter_is_checked_and_evaluated() {
    let hyper = Hyper::from(Cosine::new(1.0, 10).warmup(10));
    assert_eq!(hyper.within("learning_rate", 0.0.., 5), Ok(0.5));
    let error = Hyper::from(Cosine::new(1.0, 10).floor(2.0).warmup(10)).within("learning_rate", 0.0.., 5);
    let message = "learning_rate: Cosine: floor is 2; it must be a finite number, at most the peak";
    assert_eq!(error.unwrap_err().to_string(), message);
}

#[test]
fn a_plateau_s_handle_steers_the_optimizer_that_has_its_clone() {
    let plateau = Plateau::new(0.5).factor(0.5).patience(0);
    let mut optimizer = Adam::new(plateau.clone().warmup(1));
    let (mut weight, grad) = (array![1.0_f64], array![1.0_f64]);
    let mut learning_rates = vec![];
    for loss in [3.0, 2.0, 2.0, 1.0] {
        learning_rates.push(optimizer.step(&mut weight, &grad).unwrap().learning_rate);
        plateau.observe(loss);
    }
    assert_eq!(learning_rates, [0.0, 0.5, 0.5, 0.25]);
}
