//! The accountant against Opacus, dp-accounting and integrals of 40 digits, from `accountant.json`.

use gradus::Error;
use gradus::federated::privacy::{Accountant, Spent, noise_for};
use serde_json::Value;

/// The numbers are given to four or more digits behind the point.
const GIVEN: f64 = 1e-4;

fn golden() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/federated/accountant.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn spent(history: &[(f64, f64, u64)], delta: f64) -> Spent {
    let mut accountant = Accountant::new();
    history.iter().for_each(|&(rate, noise, steps)| accountant.steps(rate, noise, steps).unwrap());
    accountant.epsilon(delta).unwrap()
}

#[test]
fn known_epsilons() {
    for (rate, noise, steps, delta, expected, order) in [
        (0.04, 1.5, 2250, 1e-5, 7.32911, Some(3.9)),
        (256.0 / 60000.0, 1.1, 14062, 1e-5, 2.59655587, None),
        (0.01, 4.0, 10000, 1e-5, 1.03549007, None),
        (1.0, 4.530877117, 1, 1e-6, 1.0, None),
    ] {
        let found = spent(&[(rate, noise, steps)], delta);
        assert!((found.epsilon - expected).abs() < GIVEN, "{rate} {noise} {steps}: {found:?}");
        assert!(order.is_none_or(|order| order == found.order) && !found.at_end, "{found:?}");
    }
}

#[test]
fn different_mechanisms_add_up() {
    let mut accountant = Accountant::new().orders((2..=32).map(f64::from)).unwrap();
    accountant.steps(1e-5, 1.0, 10).unwrap();
    accountant.steps(1e-4, 3.0, 4).unwrap();
    let found = accountant.epsilon(1e-5).unwrap();
    assert!((found.epsilon - 0.33634406).abs() < 1e-8 && found.order == 23.0 && !found.at_end, "{found:?}");
}

#[test]
fn as_opacus_and_dp_accounting() {
    /// Opacus breaks its series off at 1e-13 of 1 a step, of which there are up to 5000, and divides by α − 1 ≥ 0.1.
    const OPACUS: f64 = 1e-8;
    let golden = golden();
    let cases = golden["epsilons"].as_array().unwrap();
    assert_eq!(cases.len(), 82);
    let mut together = 0;
    for case in cases {
        let number = |value: &Value| value.as_f64().unwrap();
        let mut accountant = Accountant::new();
        if let Some(orders) = case["orders"].as_array() {
            accountant = accountant.orders(orders.iter().map(number)).unwrap();
        }
        for step in case["history"].as_array().unwrap() {
            accountant.steps(number(&step[0]), number(&step[1]), step[2].as_u64().unwrap()).unwrap();
        }
        let found = accountant.epsilon(number(&case["delta"])).unwrap();
        let (opacus, google) = (number(&case["opacus"][0]), number(&case["dp_accounting"][0]));
        assert!((found.epsilon - opacus.max(0.0)).abs() <= OPACUS * opacus.abs().max(1.0), "{case}: {found:?}");
        assert_eq!(found.order, number(&case["opacus"][1]), "{case}");
        // It has a second conversion for divergences below δ², which gives 0.
        if google == 0.0 {
            assert!(number(&case["delta"]) <= 1e-5 && found.epsilon < 0.2, "{case}: {found:?}");
            continue;
        }
        // It drops the signs of the series' tail, and orders where that does not end: never below, and often the same.
        assert!(found.epsilon <= google + OPACUS * google, "{case}: {found:?}");
        together += usize::from((found.epsilon - google).abs() < GIVEN * google);
    }
    // The others cost ε > 15 at orders below 3, where that tail is long.
    assert_eq!(together, 67);
}

#[test]
fn divergences_are_the_integrals() {
    /// Of the cost of a step; the logarithm of A, if A is near 1, has lost what A has no digits for: 1e-15 of 1.
    const RELATIVE: f64 = 1e-12;
    const ABSOLUTE: f64 = 1e-14;
    let golden = golden();
    let cases = golden["divergences"].as_array().unwrap();
    assert_eq!(cases.len(), 56);
    for case in cases {
        let [rate, noise, order, expected] = [0, 1, 2, 3].map(|at| case[at].as_f64().unwrap());
        let mut accountant = Accountant::new().orders([order]).unwrap();
        accountant.step(rate, noise).unwrap();
        // With δ = ((α − 1)/α)^(α − 1)/α the conversion adds nothing.
        let delta = ((order - 1.0) * ((order - 1.0) / order).ln() - order.ln()).exp();
        let found = accountant.epsilon(delta).unwrap().epsilon;
        // Where A is 1 in twelve digits the cost is that of a chord, at most twice as large.
        let chord = expected * (order - 1.0) < 1e-12 && order.fract() != 0.0;
        let most = if chord { 2.0 * expected } else { expected };
        let tolerance = expected * RELATIVE + ABSOLUTE / (order - 1.0).min(1.0);
        assert!(found > expected - tolerance && found < most + tolerance, "{case}: {found}");
    }
}

#[test]
fn nothing_costs_nothing() {
    let nothing = Accountant::new().epsilon(1e-5).unwrap();
    assert!(nothing.epsilon == 0.0 && !nothing.at_end);
    assert_eq!(spent(&[(0.0, 1.0, 1000), (0.5, 1.0, 0)], 1e-5).epsilon, 0.0);
    // The conversion alone would be below 0.
    assert_eq!(spent(&[(1e-6, 10.0, 1)], 0.5).epsilon, 0.0);
}

#[test]
fn the_end_of_the_orders_is_said() {
    let little = spent(&[(1e-5, 2.0, 1)], 1e-5);
    assert!(little.at_end && little.order == 63.0, "{little:?}");
    let much = spent(&[(1.0, 0.05, 10)], 1e-5);
    assert!(much.at_end && much.order == 1.1, "{much:?}");
    assert_eq!(spent(&[(0.5, 1e-200, 1)], 1e-5).epsilon, f64::INFINITY);
}

#[test]
fn what_was_spent_can_be_saved() {
    let mut accountant = Accountant::new();
    (0..3).for_each(|_| accountant.step(0.1, 1.0).unwrap());
    accountant.steps(0.2, 2.0, 5).unwrap();
    accountant.step(0.1, 1.0).unwrap();
    let entries: Vec<_> = accountant.spendings().iter().map(|s| (s.rate, s.noise_multiplier, s.steps)).collect();
    assert_eq!(entries, [(0.1, 1.0, 4), (0.2, 2.0, 5)]);
    let mut resumed = Accountant::new();
    entries.iter().for_each(|&(rate, noise, steps)| resumed.steps(rate, noise, steps).unwrap());
    assert_eq!(resumed, accountant);
}

#[test]
fn the_least_noise() {
    let noise = noise_for(8.0, 1e-5, 0.04, 2000).unwrap();
    assert!((noise - 1.3562).abs() < 1e-4, "{noise}");
    for (epsilon, rate, steps) in [(8.0, 0.04, 2000), (0.5, 0.01, 100), (1.0, 1.0, 1), (300.0, 0.5, 3)] {
        let noise = noise_for(epsilon, 1e-5, rate, steps).unwrap();
        assert!(spent(&[(rate, noise, steps)], 1e-5).epsilon <= epsilon);
        // The stated tolerance.
        assert!(spent(&[(rate, noise * (1.0 - 2e-6), steps)], 1e-5).epsilon > epsilon, "{epsilon} {noise}");
    }
    let mut half = Accountant::new();
    half.steps(0.04, noise, 1000).unwrap();
    assert!((half.noise_for(8.0, 1e-5, 0.04, 1000).unwrap() / noise - 1.0).abs() < 1e-5);
}

#[test]
fn arguments_out_of_range() {
    let mut accountant = Accountant::new();
    accountant.steps(0.04, 1.5, 2250).unwrap();
    let before = accountant.clone();
    let cases: Vec<(Error, &str)> = vec![
        (accountant.step(1.5, 1.0).unwrap_err(), "rate is 1.5; it must be a probability, 0 to 1"),
        (accountant.step(f64::NAN, 1.0).unwrap_err(), "rate is NaN; it must be a probability, 0 to 1"),
        (accountant.step(0.5, 0.0).unwrap_err(), "noise_multiplier is 0; it must be a finite number above 0"),
        (
            accountant.step(0.5, f64::INFINITY).unwrap_err(),
            "noise_multiplier is inf; it must be a finite number above 0",
        ),
        (accountant.epsilon(0.0).unwrap_err(), "delta is 0; it must be above 0 and below 1"),
        (accountant.epsilon(1.0).unwrap_err(), "delta is 1; it must be above 0 and below 1"),
        (Accountant::new().orders([2.0, 1.0]).unwrap_err(), "order is 1; it must be above 1 and at most 10000"),
        (Accountant::new().orders([f64::NAN]).unwrap_err(), "order is NaN; it must be above 1 and at most 10000"),
        (Accountant::new().orders([]).unwrap_err(), "number of orders is 0; it must be at least 1"),
        (noise_for(0.0, 1e-5, 0.1, 1).unwrap_err(), "epsilon is 0; it must be a finite number above 0"),
        (noise_for(1.0, 2.0, 0.1, 1).unwrap_err(), "delta is 2; it must be above 0 and below 1"),
        (noise_for(1.0, 1e-5, -0.1, 1).unwrap_err(), "rate is -0.1; it must be a probability, 0 to 1"),
    ];
    for (error, sentence) in cases {
        assert_eq!(error.to_string(), sentence);
    }
    assert_eq!(accountant, before);
    // ln(1/(63δ))/62 + ln(62/63), what the largest order leaves of no divergence.
    let floor = noise_for(0.1, 1e-5, 0.1, 1).unwrap_err().to_string();
    assert!(floor.starts_with("epsilon is 0.1; it must be at least 0.10286"), "{floor}");
    let already = accountant.noise_for(7.0, 1e-5, 0.04, 1).unwrap_err().to_string();
    assert!(already.starts_with("epsilon is 7; it must be at least 7.3291"), "{already}");
}
