//! Trees whose walks do not show the same: an error, or what one of the walks has shown; never a panic, and nothing half done.

use std::sync::atomic::{AtomicUsize, Ordering};

use gradus::federated::privacy::GaussianMechanism;
use gradus::federated::secure::{FixedPoint, MaskedSum, Masker};
use gradus::federated::{Failure, FedAdam, Server, Simulation, Task, Tensors, Update};
use gradus::params::{Visitor, VisitorMut};
use gradus::prelude::*;
use ndarray::{Array1, array};

/// What a walk shows otherwise than the others.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    Fewer,
    More,
    Shape,
    Order,
    Path,
}

const LIES: [Lie; 5] = [Lie::Fewer, Lie::More, Lie::Shape, Lie::Order, Lie::Path];

/// Two tensors, of which some walks show something else.
#[derive(Debug)]
struct Liar {
    tensors: [Array1<f64>; 2],
    others: [Array1<f64>; 2],
    walks: AtomicUsize,
    /// The first walk that lies.
    from: usize,
    lie: Lie,
}

impl Clone for Liar {
    fn clone(&self) -> Self {
        Self {
            tensors: self.tensors.clone(),
            others: self.others.clone(),
            walks: AtomicUsize::new(self.walks.load(Ordering::Relaxed)),
            ..*self
        }
    }
}

impl Liar {
    fn new(from: usize, lie: Lie) -> Self {
        let tensors = [array![1.0, 2.0], array![3.0]];
        Self { tensors, others: [array![1.0], array![5.0, 6.0, 7.0]], walks: AtomicUsize::new(0), from, lie }
    }
}

impl Params for Liar {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        let lies = self.walks.fetch_add(1, Ordering::Relaxed) >= self.from;
        let ([a, b], [shorter, longer]) = (&self.tensors, &self.others);
        match self.lie {
            _ if !lies => {}
            Lie::Fewer => return visitor.field("a", a),
            Lie::More => visitor.field("c", longer),
            Lie::Shape => {
                visitor.field("a", longer);
                return visitor.field("b", shorter);
            }
            Lie::Order => {
                visitor.field("b", b);
                return visitor.field("a", a);
            }
            Lie::Path => {
                visitor.field("x", a);
                return visitor.field("b", b);
            }
        }
        visitor.field("a", a);
        visitor.field("b", b);
    }
}

impl ParamsMut for Liar {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        let lies = self.walks.fetch_add(1, Ordering::Relaxed) >= self.from;
        let ([a, b], [shorter, longer]) = (&mut self.tensors, &mut self.others);
        match self.lie {
            _ if !lies => {}
            Lie::Fewer => return visitor.field("a", a),
            Lie::More => visitor.field("c", longer),
            Lie::Shape => {
                visitor.field("a", longer);
                return visitor.field("b", shorter);
            }
            Lie::Order => {
                visitor.field("b", b);
                return visitor.field("a", a);
            }
            Lie::Path => {
                visitor.field("x", a);
                return visitor.field("b", b);
            }
        }
        visitor.field("a", a);
        visitor.field("b", b);
    }
}

const WALKS: usize = 8;

fn for_each_liar(mut check: impl FnMut(Liar)) {
    LIES.into_iter().for_each(|lie| (0..WALKS).for_each(|from| check(Liar::new(from, lie))));
}

#[test]
fn tensors_of_a_liar_are_those_of_one_walk() {
    for_each_liar(|liar| {
        let tensors = Tensors::of(&liar).unwrap();
        assert_eq!(tensors.values().len(), tensors.layout().elements());
        tensors.layout().paths().for_each(|path| drop(tensors.tensor(path).unwrap()));
    });
}

#[test]
fn rounds_of_a_liar() {
    let honest = Liar::new(usize::MAX, Lie::Path);
    let control = Tensors::of(&honest).unwrap();
    for_each_liar(|liar| {
        let mut near = Sgd::new(0.1).proximal(0.1);
        let mut corrected = Sgd::new(0.1).scaffold();
        let task = Task::new(0, liar).with_control(control.clone());
        let states = (near.state_dict(), corrected.state_dict());
        let begun = (near.begin_round(&task).is_ok(), corrected.begin_round(&task).is_ok());
        assert!(begun.0 || near.state_dict() == states.0);
        assert!(begun.1 || corrected.state_dict() == states.1);
        let (mut model, grads) = (honest.clone(), honest.clone());
        _ = near.step(&mut model, &grads);
        if corrected.step(&mut model, &grads).is_ok() {
            let state = corrected.state_dict();
            assert!(corrected.end_round(task.model()).is_ok() || corrected.state_dict() == state);
        }
    });
}

/// As the server's model, and as what a client returns.
#[test]
fn servers_and_liars() {
    for scaffold in [false, true] {
        for_each_liar(|liar| {
            let server = || {
                let server = Server::new(FedAdam::new(0.1));
                if scaffold { server.scaffold() } else { server }
            };
            let client = move |task: &Task<Liar>| {
                let mut model = Liar::new(usize::MAX, Lie::Path);
                model.tensors[0] += 1.0;
                let update = Update::new(model, 1.0);
                Ok::<_, Failure>(match task.control() {
                    Some(control) => update.with_control(control.clone()),
                    None => update,
                })
            };
            let (mut own, mut model) = (server(), liar.clone());
            for _ in 0..3 {
                let before = (model.tensors.clone(), own.state_dict());
                if own.round(&mut model, &mut Simulation::new([client, client])).is_err() {
                    assert!((model.tensors.clone(), own.state_dict()) == before, "{liar:?}");
                }
            }
            let answer = move |_: &Task<Liar>| Ok::<_, Failure>(Update::new(liar.clone(), 1.0));
            let (mut own, mut model) = (server(), Liar::new(usize::MAX, Lie::Path));
            own.round(&mut model, &mut Simulation::new([answer])).unwrap();
            assert_eq!(model.tensors, [array![1.0, 2.0], array![3.0]]);
        });
    }
}

#[test]
fn sums_and_noise_of_a_liar() {
    for_each_liar(|mut liar| {
        let mut mechanism = GaussianMechanism::new(1.0, 1.0, 1.0, 1).unwrap();
        _ = mechanism.finish(&mut liar);
        let format = FixedPoint::new(8, 2).unwrap();
        let elements = 3;
        let mut sum = MaskedSum::new(format, 0, 0..2, elements).unwrap();
        let mut maskers = Masker::simulation(format).unwrap();
        liar.walks = AtomicUsize::new(0);
        for masker in &mut maskers {
            let Ok(masked) = masker.mask(0, &liar) else { return };
            if sum.add(&masked).is_err() {
                return;
            }
        }
        let before = liar.tensors.clone();
        if sum.unmask(&mut liar).is_err() {
            assert_eq!(liar.tensors, before);
        }
    });
}
