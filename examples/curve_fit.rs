//! Curve fitting: amplitude, rate and offset of a decay, y = a·exp(−r·t) + c, all of them ≥ 0, in a `Vec<f64>`. The gradient is calculus by hand.
//!
//! ```sh
//! cargo run --release --example curve_fit
//! ```
use gradus::Lbfgs;

fn main() -> gradus::Result<()> {
    let noise = |i: u32| 0.01 * f64::from(i * i).sin();
    let measured: Vec<(f64, f64)> =
        (0..50).map(|i| (0.1 * f64::from(i), 2.5 * (-0.13 * f64::from(i)).exp() + 0.5 + noise(i))).collect();
    let squared_errors = |fit: &Vec<f64>| {
        let (mut loss, mut grads) = (0.0, vec![0.0; 3]);
        for (t, y) in &measured {
            let decay = (-fit[1] * t).exp();
            let error = fit[0] * decay + fit[2] - y;
            loss += error * error;
            grads[0] += 2.0 * error * decay;
            grads[1] -= 2.0 * error * fit[0] * t * decay;
            grads[2] += 2.0 * error;
        }
        (loss, grads)
    };
    let (mut fit, opt) = (vec![1.0, 1.0, 0.0], Lbfgs::new(1.0).history(10).strong_wolfe(true).iterations(100));
    let report = opt.bounds(&[0.0; 3], &[f64::INFINITY; 3])?.step_with(&mut fit, squared_errors)?;
    println!("a = {:.3}, r = {:.3}, c = {:.3} with a loss of {:.1e}", fit[0], fit[1], fit[2], report.loss);
    assert!(fit.iter().zip([2.5, 1.3, 0.5]).all(|(found, truth)| (found - truth).abs() < 0.02));
    Ok(())
}
