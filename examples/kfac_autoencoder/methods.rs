//! The methods, each with the settings that it is tuned over.

use gradus::curvature::Kfac;
use gradus::prelude::*;

/// An optimizer in training; K-FAC also wants to know what the layers saw.
pub(crate) enum Trained {
    Kfac(Box<Kfac<Momentum<f32>, f32>>),
    Other(Box<dyn Optimizer<f32>>),
}

pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) settings: Vec<Setting>,
}

pub(crate) struct Setting {
    pub(crate) words: String,
    pub(crate) build: Box<dyn Fn() -> Trained + Send + Sync>,
}

impl Setting {
    fn other<O: Optimizer<f32> + 'static>(words: String, build: impl Fn() -> O + Send + Sync + 'static) -> Self {
        Self { words, build: Box::new(move || Trained::Other(Box::new(build()))) }
    }
}

/// Every pair of a grid.
fn pairs(first: &[f64], second: &[f64]) -> Vec<(f64, f64)> {
    first.iter().flat_map(|a| second.iter().map(move |b| (*a, *b))).collect()
}

pub(crate) fn methods() -> Vec<Method> {
    let kfac = pairs(&[0.1, 0.3], &[3e-3, 1e-2, 3e-2]).into_iter().map(|(damping, kl_clip)| Setting {
        words: format!("η 0.2, λ {damping}, κ {kl_clip}"),
        build: Box::new(move || {
            let kfac = Momentum::new(0.2, 0.9).kfac().damping(damping).kl_clip(kl_clip).inverse_period(5);
            Trained::Kfac(Box::new(kfac))
        }),
    });
    let adam = pairs(&[3e-3, 6e-3, 1e-2], &[0.95, 0.999])
        .into_iter()
        .map(|(rate, beta2)| Setting::other(format!("η {rate}, β₂ {beta2}"), move || Adam::new(rate).beta2(beta2)));
    // Unclipped it needs smaller rates, and twice the steps.
    let nesterov = pairs(&[0.02, 0.04], &[0.9, 0.95]).into_iter().map(|(rate, momentum)| {
        Setting::other(format!("η {rate}, μ {momentum}, clipped at 5"), move || {
            Nesterov::new(rate, momentum).clip_global_norm(5.0)
        })
    });
    let soap = pairs(&[2e-2, 4e-2], &[0.9, 0.95]).into_iter().map(|(rate, beta2)| {
        Setting::other(format!("η {rate}, β₂ {beta2}"), move || {
            Soap::new(rate).beta1(0.9).beta2(beta2).weight_decay(0.0).every(5)
        })
    });
    let muon = [0.02, 0.05, 0.1].map(|rate| {
        // Biases go to Adam.
        Setting::other(format!("η {rate}"), move || {
            Adam::new(1e-2).route("**.weight", Muon::new(rate).weight_decay(0.0))
        })
    });
    vec![
        Method { name: "K-FAC", settings: kfac.collect() },
        Method { name: "SOAP", settings: soap.collect() },
        Method { name: "Muon", settings: muon.into() },
        Method { name: "Adam", settings: adam.collect() },
        Method { name: "Nesterov", settings: nesterov.collect() },
    ]
}
