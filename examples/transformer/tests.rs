//! The backward pass against difference quotients.

use gradus::check::Gradients;

use super::*;

/// Of an element, relative to itself, in f64.
const TOLERANCE: f64 = 1e-6;

#[test]
fn the_backward_pass_is_the_derivative() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut model = Transformer::<f64>::new(16, 2, &mut rng);
    let examples = batch(&Task::Subtraction.examples().0, 3, &mut rng);
    let some = Gradients::new().sample(12, 3);
    let (_, grads) = model.backward(&examples);
    let found = some.compare(&mut model, &grads, |model| model.backward(&examples).0).unwrap();
    assert!(found.worst_error() < TOLERANCE, "{found}");

    // Adapters under way: with B = 0 those of A would all be 0.
    let mut adapters = model.adapters(&Config::new(2, 4.0), &mut rng).unwrap();
    let grads = model.backward_adapters(&adapters, &examples).1;
    Sgd::new(3.0).step(&mut adapters, &grads).unwrap();
    let grads = model.backward_adapters(&adapters, &examples).1;
    let found = some.compare(&mut adapters, &grads, |adapters| model.backward_adapters(adapters, &examples).0).unwrap();
    assert!(found.worst_error() < TOLERANCE, "{found}");
}

#[test]
fn a_held_out_pair_is_never_learned() {
    for task in [Task::Addition, Task::Subtraction] {
        let (learned, held_out) = task.examples();
        assert!(learned.len() > 8 * held_out.len() && held_out.len() > 300);
        assert!(held_out.iter().all(|example| learned.iter().all(|other| other.tokens != example.tokens)));
    }
}
