//! An option that determines the state, changed between two steps: a state saved at once is that of the new options.

use gradus::optimizer::*;
use gradus::prelude::*;
use ndarray::{Array3, ArrayD};

type Params = (Array3<f64>, ArrayD<f64>);

fn wave(phase: f64) -> Params {
    let wave = |i: usize| (i as f64 * 1.7 + phase).sin();
    (
        Array3::from_shape_fn((6, 2, 2), |(i, j, k)| wave(4 * i + 2 * j + k)),
        ArrayD::from_shape_fn(vec![4, 3], |at| wave(3 * at[0] + at[1] + 40)),
    )
}

/// Steps, changes the option, saves, and resumes in an optimizer that has been built with the new option.
fn resumes<O: Optimizer<f64>>(name: &str, build: impl Fn() -> O, change: impl Fn(O) -> O) {
    let (mut running, mut w) = (build(), wave(0.0));
    (1..4).for_each(|step| _ = running.step(&mut w, &wave(f64::from(step))).unwrap());
    let before = running.state_dict();
    assert!(change(build()).load_state_dict(&before).is_err(), "{name}: the option does not determine the state");
    let (mut running, mut resumed) = (change(running), change(build()));
    resumed.load_state_dict(&running.state_dict()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(resumed.state_dict(), running.state_dict(), "{name}");
    let mut again = w.clone();
    for step in 4..7 {
        running.step(&mut w, &wave(f64::from(step))).unwrap();
        resumed.step(&mut again, &wave(f64::from(step))).unwrap();
        assert!(w == again, "{name} at step {step}");
    }
    assert!(w.0.iter().chain(&w.1).all(|x| x.is_finite()), "{name}");
    assert_eq!(resumed.state_dict(), running.state_dict(), "{name}");
}

#[test]
fn matrix_optimizers_resume_with_the_new_option() {
    resumes("dion", || Dion::new(0.1), |opt| opt.rank_fraction(0.5));
    resumes("apollo", || Apollo::new(0.1).rank(3), |opt| opt.rank(2));
    resumes("normuon", || NorMuon::new(0.1), |opt| opt.blocks(MuonBlocks::LeadingAxes));
    resumes("sm3", || Sm3::new(0.1), |opt| opt.momentum(0.9));
    resumes("adammini", || AdamMini::new(0.1), |opt| opt.blocks("**", AdamMiniBlocks::Rows));
}

#[test]
#[cfg(feature = "second-order")]
fn preconditioned_optimizers_resume_with_the_new_option() {
    resumes("galore", || GaLore::new(0.1).rank(3), |opt| opt.rank(2));
    resumes("soap, sides", || Soap::new(0.1), |opt| opt.max_side(3));
    resumes("kron, mode", || Kron::new(0.1), |opt| opt.memory_save_mode(KronMemory::OneDiag));
    resumes("kron, axes", || Kron::new(0.1), |opt| opt.min_ndim_triangular(3));
    resumes("kron, sides", || Kron::new(0.1), |opt| opt.max_size_triangular(3));
    resumes("shampoo, blocks", || Shampoo::new(0.1), |opt| opt.block_size(3));
    resumes("shampoo, momentum", || Shampoo::new(0.1), |opt| opt.momentum(0.9));
}

/// The two slots have one shape, but a momentum is no mean of squares.
#[test]
#[cfg(feature = "second-order")]
fn a_slot_of_another_name_starts_over() {
    let change = |opt: Shampoo<f64>| opt.momentum(0.9).graft(Graft::None);
    let build = || Shampoo::new(0.1).graft(Graft::RmsProp);
    resumes("shampoo, graft", build, change);
    let (mut opt, mut w) = (build(), wave(0.0));
    opt.step(&mut w, &wave(1.0)).unwrap();
    let [opt, fresh] = [change(opt), change(build())].map(|mut opt| {
        opt.step(&mut w, &wave(2.0)).unwrap();
        opt.slot("1", "momentum_buffer").unwrap()
    });
    assert_eq!(opt, fresh);
}

#[test]
fn factored_optimizers_resume_with_the_new_option() {
    resumes("adafactor, momentum", || Adafactor::new(0.1), |opt| opt.beta1(0.9));
    resumes("adafactor, sides", || Adafactor::new(0.1), |opt| opt.min_side(4));
}

#[test]
fn element_wise_optimizers_resume_with_the_new_option() {
    resumes("adam", || Adam::new(0.1), |opt| opt.amsgrad(true));
    resumes("adam, without", || Adam::new(0.1).amsgrad(true), |opt| opt.amsgrad(false));
    resumes("rmsprop", || RmsProp::new(0.1), |opt| opt.centered(true));
    resumes("marslion", || MarsLion::new(0.1), |opt| opt.vectors(true));
}

/// Once it is not kept any more, a norm is not in the state, and is measured again later.
#[test]
fn a_norm_that_is_kept_no_more() {
    fn forgets<O: Optimizer<f64>>(name: &str, build: impl Fn() -> O, keep: impl Fn(O, bool) -> O) {
        let build = || keep(build(), true);
        resumes(name, build, |opt| keep(opt, false));
        let (mut opt, mut w) = (build(), wave(0.0));
        opt.step(&mut w, &wave(1.0)).unwrap();
        let mut opt = keep(opt, false);
        w.1 *= 3.0;
        opt.step(&mut w, &wave(2.0)).unwrap();
        let norm = |w: &Params| w.1.mapv(|x| x * x).sum().sqrt();
        let (mut opt, before) = (keep(opt, true), norm(&w));
        opt.step(&mut w, &wave(3.0)).unwrap();
        assert!((norm(&w) / before - 1.0).abs() < 1e-12, "{name}");
    }
    forgets("muon", || Muon::new(0.1), |opt, keeps| opt.keep_norm(keeps));
    forgets("adafactor", || Adafactor::new(0.1), |opt, keeps| opt.keep_norm(keeps));
    forgets("adam", || Adam::new(0.1), |opt, keeps| opt.keep_norm(keeps));
}
