//! An actor and a critic learn to stop a cart at the origin. Both have target networks, which follow them with `tree::lerp`, and the training loop
//! lowers the learning rates with `set_learning_rate` when the actor no longer improves.
//!
//! The critic is a quadratic function of position, velocity and force, and the actor a linear one. So the best actor is known: it solves Riccati's
//! equation, and the example ends by comparing with it.
//!
//! ```sh
//! cargo run --release --example actor_critic
//! ```
use gradus::{prelude::*, tree};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const STEPS: usize = 4_000;
const BATCH: usize = 64;
/// The discount of a cost that is one time step later, and the length of a time step.
const DISCOUNT: f64 = 0.95;
const TIME: f64 = 0.2;

/// Position and velocity.
type State = [f64; 2];

/// The force is `actor · state`, and the expected cost `critic · features(state, force)`.
#[derive(Params, Clone)]
struct Agent {
    actor: [f64; 2],
    critic: [f64; 6],
}

fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn features([p, v]: State, force: f64) -> [f64; 6] {
    [p * p, p * v, v * v, p * force, v * force, force * force]
}

/// How the cost rises with the force.
fn slope(critic: &[f64; 6], [p, v]: State, force: f64) -> f64 {
    critic[3] * p + critic[4] * v + 2.0 * critic[5] * force
}

/// The cost of one time step, and the state after it.
fn drive([p, v]: State, force: f64) -> (f64, State) {
    (p * p + 0.1 * v * v + 0.1 * force * force, [p + TIME * v, v + TIME * force])
}

/// The cost of a run from rest at position 1.
fn cost(actor: &[f64; 2]) -> f64 {
    let (mut total, mut state) = (0.0, [1.0, 0.0]);
    for time in 0..100 {
        let (cost, next) = drive(state, dot(actor, &state));
        (total, state) = (total + DISCOUNT.powi(time) * cost, next);
    }
    total
}

/// The best actor, from Riccati's equation for the matrix [[a, b], [b, c]] of costs.
fn best_actor() -> [f64; 2] {
    let ([mut a, mut b, mut c], mut actor) = ([0.0; 3], [0.0; 2]);
    for _ in 0..1_000 {
        let scale = -DISCOUNT * TIME / (0.1 + DISCOUNT * TIME * TIME * c);
        actor = [scale * b, scale * (TIME * b + c)];
        // The cost of a run with this actor from the states (1, 0), (0, 1) and (1, 1).
        let run = |state: State| {
            let (cost, [p, v]) = drive(state, dot(&actor, &state));
            cost + DISCOUNT * (a * p * p + 2.0 * b * p * v + c * v * v)
        };
        let costs = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]].map(run);
        [a, c, b] = [costs[0], costs[1], 0.5 * (costs[2] - costs[0] - costs[1])];
    }
    actor
}

fn main() -> gradus::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut agent = Agent { actor: [0.0; 2], critic: [0.0; 6] };
    let mut target = agent.clone();
    let (mut critic_opt, mut actor_opt) = (Adam::new(0.05), Adam::new(0.01));
    let first = cost(&agent.actor);
    let mut lowest = first;
    println!("{:>5}  {:>7}  {:>7}", "step", "cost", "rate");
    for step in 1..=STEPS {
        let (mut actor_grad, mut critic_grad) = ([0.0; 2], [0.0; 6]);
        for _ in 0..BATCH {
            let state: State = [rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0)];
            let force = rng.random_range(-2.0..2.0);
            let (cost, next) = drive(state, force);
            let next_cost = dot(&target.critic, &features(next, dot(&target.actor, &next)));
            let inputs = features(state, force);
            let error = dot(&agent.critic, &inputs) - (cost + DISCOUNT * next_cost);
            tree::axpy(&mut critic_grad, 2.0 * error / BATCH as f64, &inputs)?;
            let slope = slope(&agent.critic, state, dot(&agent.actor, &state));
            tree::axpy(&mut actor_grad, slope / BATCH as f64, &state)?;
        }
        critic_opt.step(&mut agent.critic, &critic_grad)?;
        actor_opt.step(&mut agent.actor, &actor_grad)?;
        tree::lerp(&mut target, &agent, 0.02)?;
        if step % 500 == 0 {
            let now = cost(&agent.actor);
            println!("{step:>5}  {now:>7.4}  {:>7.5}", critic_opt.learning_rate());
            if now > 0.99 * lowest {
                critic_opt.set_learning_rate(0.5 * critic_opt.learning_rate());
                actor_opt.set_learning_rate(0.5 * actor_opt.learning_rate());
            }
            lowest = lowest.min(now);
        }
    }
    let (best, found) = (best_actor(), agent.actor);
    println!("cost {first:.2} → {lowest:.4}, actor {found:.3?}, the best one {best:.3?}");
    assert!(tree::distance(&found, &best)? < 0.01 && lowest < 0.3 * first && critic_opt.learning_rate() < 0.05);
    Ok(())
}
