//! What is refused on clients, in which words, and that it changes nothing.

use gradus::error::{FederatedError, StepError};
use gradus::federated::{LeftOut, Proximal, Reason, RoundReport, Scaffold, Server, Simulation, Task, Tensors, Update};
use gradus::prelude::*;
use gradus::{Error, Report};
use ndarray::{Array1, array};

fn task() -> Task<Array1<f64>> {
    Task::new(0, array![1.0, 2.0])
}

fn with_control() -> Task<Array1<f64>> {
    task().with_control(Tensors::of(&array![0.5, 0.5]).unwrap())
}

#[test]
fn a_round_has_a_beginning_and_an_end() {
    let (mut w, g) = (array![1.0, 2.0], array![1.0, 1.0]);
    let mut near = Sgd::new(0.1).proximal(1.0);
    let mut opt = Sgd::new(0.1).scaffold();
    let no_round = "no round has begun; call begin_round first";
    assert_eq!(near.step(&mut w, &g).unwrap_err().to_string(), no_round);
    assert_eq!(opt.step(&mut w, &g).unwrap_err().to_string(), no_round);
    assert_eq!(opt.end_round(&w).unwrap_err(), Error::Federated(FederatedError::NoRound));
    let error = opt.begin_round(&task()).unwrap_err();
    assert_eq!(error.to_string(), "the task has no control variate; call scaffold() on the server");
    assert_eq!(opt.step(&mut w, &g).unwrap_err(), Error::Federated(FederatedError::NoRound));
    assert_eq!(w, array![1.0, 2.0]);

    opt.begin_round(&with_control()).unwrap();
    assert_eq!(opt.end_round(&w).unwrap_err(), Error::Step(StepError::NoStep));
    opt.step(&mut w, &g).unwrap();
    assert!(matches!(opt.end_round(&array![1.0]), Err(Error::Step(StepError::ParametersChanged { .. }))));
    opt.end_round(&w).unwrap();
    assert_eq!(opt.end_round(&w).unwrap_err(), Error::Federated(FederatedError::NoRound));
    assert_eq!(opt.step(&mut w, &g).unwrap_err(), Error::Federated(FederatedError::NoRound));
}

#[test]
fn a_refused_step_leaves_no_trace() {
    let (mut w, g) = (array![1.0, 2.0], array![1.0, 1.0]);
    let wrong_at_1 = |step: u64| if step == 1 { f64::NAN } else { 0.1 };
    let mut opt = Sgd::new(wrong_at_1).scaffold().proximal(1.0);
    opt.begin_round(&task()).unwrap();
    opt.inner_mut().begin_round(&with_control()).unwrap();
    opt.step(&mut w, &g).unwrap();
    let (state, before) = (opt.state_dict(), w.clone());
    assert!(matches!(opt.step(&mut w, &g), Err(Error::Step(StepError::HyperParameter { name: "learning_rate", .. }))));
    assert!(matches!(opt.step(&mut array![1.0], &array![1.0]), Err(Error::Step(StepError::ParametersChanged { .. }))));
    assert!(matches!(
        opt.begin_round(&Task::new(1, array![1.0])),
        Err(Error::Step(StepError::ParametersChanged { .. }))
    ));
    let other = Task::new(1, array![1.0]).with_control(Tensors::of(&array![1.0]).unwrap());
    assert!(matches!(opt.inner_mut().begin_round(&other), Err(Error::Step(StepError::ParametersChanged { .. }))));
    assert!(opt.state_dict() == state && w == before);

    let mut opt = Sgd::new(0.1).proximal(-1.0);
    opt.begin_round(&task()).unwrap();
    assert_eq!(opt.step(&mut w, &g).unwrap_err().to_string(), "mu is -1 at step 0; it must be a finite number ≥ 0");
}

/// A pull that is none, or without end, in the numbers of the parameters.
#[test]
fn a_pull_within_the_numbers() {
    for (mu, rounded) in [(1e39, "inf"), (1e-46, "0")] {
        let (mut opt, mut w) = (Sgd::new(0.1).proximal(mu), array![1.0_f32, 2.0]);
        opt.begin_round(&Task::new(0, w.clone())).unwrap();
        let error = opt.step(&mut w, &array![1.0, 1.0]).unwrap_err().to_string();
        assert!(error.starts_with("mu is 1") && error.ends_with(&format!("become {rounded} in f32")), "{error}");
        assert_eq!((w, opt.steps()), (array![1.0, 2.0], 0));
        let mut wide = array![1.0_f64, 2.0];
        let mut opt = Sgd::new(0.0).proximal(mu);
        opt.begin_round(&Task::new(0, wide.clone())).unwrap();
        assert!(opt.step(&mut wide, &array![1.0, 1.0]).unwrap().moved, "{mu} is a number in f64");
    }
}

/// An adaptor inside sees what the one outside adds, when it is asked as well as when it acts.
#[test]
fn what_is_added_is_seen_inside() {
    let huge = Task::new(0, array![-1e308, 0.0]);
    let mut opt = Sgd::new(0.1).check_finite().proximal(10.0).accumulate(2);
    opt.inner_mut().begin_round(&huge).unwrap();
    let mut w = array![1e308, 0.0];
    assert!(matches!(opt.step(&mut w, &array![0.0, 0.0]), Err(Error::Step(StepError::NonFiniteGradient { .. }))));
    assert_eq!(opt.gathered(), 0);

    let mut opt = Sgd::new(1.0).clip_global_norm(1.0).exact(true).scaffold();
    opt.begin_round(&Task::new(0, array![0.0]).with_control(Tensors::of(&array![4.0]).unwrap())).unwrap();
    let mut w = array![0.0];
    let report: Report = opt.step(&mut w, &array![1.0]).unwrap();
    assert_eq!((report.grad_norm, w), (Some(5.0), array![-1.0]));
}

/// Tensors without gradient, frozen ones and views in any layout.
#[test]
fn what_is_added_goes_where_it_belongs() {
    let model = (array![1.0, 1.0], array![[1.0, 2.0], [3.0, 4.0]].reversed_axes(), array![5.0]);
    let task = Task::new(0, model.clone());
    let mut opt = Sgd::new(1.0).proximal(1.0).freeze("2");
    opt.inner_mut().begin_round(&task).unwrap();
    let mut w = (&model.0 + 1.0, &model.1 + array![[1.0, 0.0], [0.0, 2.0]], array![7.0]);
    opt.step(&mut w, &(None::<Array1<f64>>, array![[0.0, 1.0], [0.0, 0.0]], array![1.0])).unwrap();
    assert_eq!(w, (&model.0 + 1.0, &model.1 + array![[0.0, -1.0], [0.0, 0.0]], array![7.0]));
}

/// After the first round what is allocated does not depend on the number of elements.
#[test]
fn a_clients_step_allocates_nothing_that_grows() {
    let allocated = |size: usize| {
        let model = Array1::from_elem(size, 1.0);
        let task = Task::new(0, model.clone()).with_control(Tensors::of(&model).unwrap());
        let mut opt = Sgd::new(0.1).scaffold().proximal(0.1).accumulate(2);
        let (mut w, grads) = (model.clone(), model.clone());
        let mut round = |opt: &mut dyn Optimizer<f64>| {
            opt.find_mut::<Proximal<f64>>().unwrap().begin_round(&task).unwrap();
            opt.find_mut::<Scaffold<f64>>().unwrap().begin_round(&task).unwrap();
            (0..2).for_each(|_| _ = opt.step(&mut w, &grads).unwrap());
        };
        round(&mut opt);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| allocation_counter::measure(|| round(&mut opt)).bytes_total)
    };
    let few = allocated(1 << 12);
    assert!(few > 0, "the counter counts");
    assert_eq!(few, allocated(1 << 16));
}

#[test]
fn a_report_is_a_sentence() {
    let failing = |_: &Task<Array1<f64>>| Err::<Update<Array1<f64>>, _>("no data".into());
    let mut server = Server::new(Sgd::new(1.0));
    let report: RoundReport = server.round(&mut array![0.0], &mut Simulation::new([failing])).unwrap();
    assert_eq!(report.to_string(), "round 0: 0 clients counted, the model did not move; client 0 failed: no data");
    let sentences = [
        (Reason::Panicked, "client 3 panicked"),
        (Reason::Late, "client 3 is late"),
        (Reason::Busy, "client 3 is still at an earlier round"),
        (Reason::Silent, "client 3 gave no answer"),
        (Reason::OtherLayout, "client 3 returned other parameters"),
        (Reason::NotFinite, "client 3 returned numbers that cannot be added up"),
        (Reason::Weight, "client 3 has a weight that cannot be used"),
        (Reason::Control, "client 3 returned no control change that fits"),
        (Reason::Duplicate, "client 3 answered more than once"),
        (Reason::Unasked, "client 3 was not asked"),
    ];
    for (reason, sentence) in sentences {
        assert_eq!(LeftOut { client: 3, reason, detail: String::new() }.to_string(), sentence);
    }
}
