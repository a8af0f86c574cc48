//! The backward pass against finite differences.

use gradus::params::{for_each, for_each_mut};

use super::*;

/// The derivative by each element of the tree, against the one found.
fn agrees<T: ParamsMut<Elem = f64> + Clone>(tree: &T, grads: &impl Params<Elem = f64>, loss: impl Fn(&T) -> f64) {
    const STEP: f64 = 1e-5;
    let mut found = Vec::new();
    for_each(grads, |path, shape, values| {
        values
            .iter()
            .for_each(|values| found.push((path.to_string(), values.view(shape).iter().copied().collect::<Vec<_>>())));
    });
    let moved = |tensor: usize, element: usize, by: f64| {
        let (mut other, mut number) = (tree.clone(), 0);
        for_each_mut(&mut other, |_, shape, values| {
            let Some(mut values) = values else { return };
            if number == tensor {
                *values.view_mut(shape).iter_mut().nth(element).unwrap() += by;
            }
            number += 1;
        });
        loss(&other)
    };
    for (tensor, (path, grads)) in found.iter().enumerate() {
        for element in (0..grads.len()).step_by(1 + grads.len() / 9) {
            let expected = (moved(tensor, element, STEP) - moved(tensor, element, -STEP)) / (2.0 * STEP);
            let error = (grads[element] - expected).abs();
            assert!(error < 1e-8, "{path} {element}: {} is not {expected}", grads[element]);
        }
    }
}

#[test]
fn the_backward_pass_is_the_derivative() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let model = Transformer::<f64>::new(16, 2, &mut rng);
    let examples = batch(&Task::Subtraction.examples().0, 3, &mut rng);
    agrees(&model, &model.backward(&examples).1, |model| model.backward(&examples).0);

    // Adapters under way: with B = 0 those of A would all be 0.
    let mut adapters = model.adapters(&Config::new(2, 4.0), &mut rng).unwrap();
    let grads = model.backward_adapters(&adapters, &examples).1;
    Sgd::new(3.0).step(&mut adapters, &grads).unwrap();
    let grads = model.backward_adapters(&adapters, &examples).1;
    agrees(&adapters, &grads, |adapters| model.backward_adapters(adapters, &examples).0);
}

#[test]
fn a_held_out_pair_is_never_learnt() {
    for task in [Task::Addition, Task::Subtraction] {
        let (learnt, held_out) = task.examples();
        assert!(learnt.len() > 8 * held_out.len() && held_out.len() > 300);
        assert!(held_out.iter().all(|example| learnt.iter().all(|other| other.tokens != example.tokens)));
    }
}
