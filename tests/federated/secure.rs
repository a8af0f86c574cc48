//! Masked sums: exact together, noise alone.

use std::collections::BTreeMap;

use gradus::Error;
use gradus::federated::secure::{FixedPoint, Masked, MaskedSum, Masker};
use gradus::federated::{Client, FedAdam, Server, Simulation, Task};
use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis, Slice, array};

use super::rounds::{Model, client, model};

const CLIENTS: usize = 10;

/// Secrets that are the same in every run: by the smaller and the larger number of the pair.
fn secret(one: usize, other: usize) -> [u8; 32] {
    std::array::from_fn(|at| (one.min(other) * 41 + one.max(other) * 7 + at * 13) as u8)
}

fn maskers(fixed: FixedPoint) -> Vec<Masker> {
    let of =
        |client| (0..fixed.clients()).filter(move |peer| *peer != client).map(move |peer| (peer, secret(client, peer)));
    (0..fixed.clients()).map(|client| Masker::new(client, of(client).collect(), fixed).unwrap()).collect()
}

/// The change of one client: a tree of two tensors of some thousand numbers.
fn change(client: usize) -> (Array2<f64>, Array1<f64>) {
    let number = |i: usize| ((client * 7919 + i) as f64).sin() * 100.0;
    (Array2::from_shape_fn((30, 40), |(i, j)| number(i * 40 + j)), Array1::from_shape_fn(17, |i| number(i + 5000)))
}

fn elements(tree: &(Array2<f64>, Array1<f64>)) -> impl Iterator<Item = f64> {
    tree.0.iter().chain(&tree.1).copied()
}

#[test]
fn the_sum_of_ten_is_exact() {
    let fixed = FixedPoint::new(20, CLIENTS).unwrap();
    let changes: Vec<_> = (0..CLIENTS).map(change).collect();
    let mut expected = vec![0_i64; 30 * 40 + 17];
    for change in &changes {
        expected.iter_mut().zip(elements(change)).for_each(|(sum, x)| *sum += i64::from(fixed.encode(x).unwrap()));
    }
    for mut clients in [maskers(fixed), Masker::simulation(fixed).unwrap()] {
        // Several rounds, in another order each.
        for round in [0, 1, u64::MAX] {
            let mut sum = MaskedSum::new(fixed, round, clients[0].members(), expected.len()).unwrap();
            clients.rotate_left(3);
            for client in &mut clients {
                sum.add(&client.mask(round, &changes[client.client()]).unwrap()).unwrap();
            }
            let integers: Vec<i64> = sum.integers().unwrap().into_iter().map(i64::from).collect();
            assert_eq!(integers, expected);
            let mut total = change(99);
            sum.unmask(&mut total).unwrap();
            let exact = |(found, integer): (f64, &i64)| found == *integer as f64 / f64::from(1 << 20);
            assert!(elements(&total).zip(&expected).all(exact));
            assert_eq!(sum.clients().collect::<Vec<_>>(), (0..CLIENTS).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_largest_values_do_not_wrap() {
    let fixed = FixedPoint::new(0, 3).unwrap();
    for sign in [1.0, -1.0] {
        let mut sum = MaskedSum::new(fixed, 0, 0..3, 1).unwrap();
        for client in &mut maskers(fixed) {
            sum.add(&client.mask(0, &array![sign * fixed.largest()]).unwrap()).unwrap();
        }
        let mut total = array![0.0];
        sum.unmask(&mut total).unwrap();
        assert_eq!(total[0], sign * 3.0 * 715_827_882.0); // (2³¹ − 1)/3, rounded down
    }
}

/// χ² of counts that should be equal, in standard deviations from its mean: χ² of k − 1 degrees has mean k − 1 and variance 2(k − 1).
fn deviation(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let chi: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    let degrees = (counts.len() - 1) as f64;
    (chi - degrees) / (2.0 * degrees).sqrt()
}

#[test]
fn one_masked_vector_is_uniform() {
    /// Standard deviations: once in some ten thousand secrets. The secrets are fixed.
    const UNLIKELY: f64 = 4.0;
    const WORDS: usize = 200_000;
    let fixed = FixedPoint::new(16, CLIENTS).unwrap();
    // Values that are not uniform at all.
    let values = Array1::from_elem(WORDS, 0.125);
    let masked = |round: u64| maskers(fixed)[4].mask(round, &values).unwrap();
    let (words, next) = (masked(7), masked(8));
    let (words, next) = (words.words(), next.words());
    for byte in 0..4 {
        let mut counts = [0_u64; 256];
        words.iter().for_each(|word| counts[word.to_le_bytes()[byte] as usize] += 1);
        assert!(deviation(&counts).abs() < UNLIKELY, "byte {byte}: {}", deviation(&counts));
    }
    for bit in 0..32 {
        let ones = words.iter().filter(|word| *word >> bit & 1 == 1).count() as f64;
        assert!((ones - WORDS as f64 / 2.0).abs() < UNLIKELY * (WORDS as f64).sqrt() / 2.0, "bit {bit}: {ones}");
    }
    // Neighbors and rounds have nothing to do with each other: the differences are uniform too.
    let pairs: [Vec<u32>; 2] = [
        words.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect(),
        words.iter().zip(next).map(|(a, b)| b.wrapping_sub(*a)).collect(),
    ];
    for differences in pairs {
        let mut counts = [0_u64; 256];
        differences.iter().for_each(|word| counts[(word >> 24) as usize] += 1);
        assert!(deviation(&counts).abs() < UNLIKELY, "{}", deviation(&counts));
    }
    // The test can fail: the values without masks.
    let mut counts = [0_u64; 256];
    values.iter().for_each(|x| counts[fixed.encode(*x).unwrap().to_le_bytes()[1] as usize] += 1);
    assert!(deviation(&counts) > 1e6);
}

#[test]
fn any_layout_and_element_type() {
    let fixed = FixedPoint::new(10, 2).unwrap();
    let [mut one, mut other]: [Masker; 2] = maskers(fixed).try_into().unwrap();
    let wide = Array2::from_shape_fn((3, 8), |(i, j)| (i * 8 + j) as f32);
    let strided = wide.slice_axis(Axis(1), Slice::new(0, None, 2));
    let columns = wide.slice_axis(Axis(1), Slice::new(0, None, 2)).t().to_owned();
    let mut sum = MaskedSum::new(fixed, 0, 0..2, 12).unwrap();
    sum.add(&one.mask(0, &strided).unwrap()).unwrap();
    sum.add(&other.mask(0, &columns.t()).unwrap()).unwrap();
    let mut total = Array2::<f32>::zeros((4, 3)).reversed_axes();
    let tree: &mut dyn ParamsMut<Elem = f32> = &mut total;
    sum.unmask(tree).unwrap();
    assert_eq!(total, 2.0 * &strided);
}

#[test]
fn refusals() {
    let fixed = FixedPoint::new(16, 2).unwrap();
    let [mut one, mut other]: [Masker; 2] = maskers(fixed).try_into().unwrap();
    let tree = (array![0.0, 1.0], array![2.0]);
    let wrong = |at: f64| (array![0.0, 1.0], array![at]);
    let mut sum = MaskedSum::new(fixed, 3, 0..2, 3).unwrap();
    let masked = one.mask(3, &tree).unwrap();
    sum.add(&masked).unwrap();
    let words = || masked.words().to_vec();
    let (half, mut total) = (sum.clone(), tree.clone());
    let table: Vec<(Error, &str)> = vec![
        (FixedPoint::new(31, 2).unwrap_err(), "fraction_bits is 31; it must be at most 30"),
        (FixedPoint::new(3, 0).unwrap_err(), "clients is 0; it must be 1 to 2147483647"),
        (one.mask(3, &tree).unwrap_err(), "round is 3; it must be above 3: masks are used once"),
        (
            Masker::new(0, BTreeMap::from([(1, secret(0, 1))]), fixed).unwrap().after(5).mask(5, &tree).unwrap_err(),
            "round is 5; it must be above 5: masks are used once",
        ),
        (
            one.mask(4, &wrong(-2e4)).unwrap_err(),
            "\"1\" is -20000 at element 0; it must be in −16383.999984741211 to 16383.999984741211, the range of fixed point",
        ),
        (
            one.mask(4, &wrong(f64::NAN)).unwrap_err(),
            "\"1\" is NaN at element 0; it must be in −16383.999984741211 to 16383.999984741211, the range of fixed point",
        ),
        (sum.add(&masked).unwrap_err(), "client is 0; it must be one that is not in the sum yet"),
        (
            sum.add(&Masked::new(1, 3, vec![7, 7])).unwrap_err(),
            "number of elements is 2; it must be 3, for client 1 as for all",
        ),
        (sum.add(&Masked::new(2, 3, words())).unwrap_err(), "client is 2; it must be a member of the sum"),
        (sum.add(&Masked::new(1, 2, words())).unwrap_err(), "round is 2; it must be 3, that of the sum, for client 1"),
        (
            MaskedSum::new(fixed, 3, [0, 0], 3).unwrap_err(),
            "number of members is 1; it must be the number of clients, 2",
        ),
        (
            sum.unmask(&mut total).unwrap_err(),
            "the masked sum has 1 of 2 clients; the masks cancel only in the sum of all",
        ),
        (sum.integers().unwrap_err(), "the masked sum has 1 of 2 clients; the masks cancel only in the sum of all"),
        (
            Masker::new(1, BTreeMap::from([(1, secret(1, 1))]), fixed).unwrap_err(),
            "client is 1; it must be a client without a secret with itself",
        ),
        (
            Masker::new(1, BTreeMap::new(), fixed).unwrap_err(),
            "number of secrets is 0; it must be one for each of the 1 other clients, and at least one",
        ),
        (
            Masker::simulation(FixedPoint::new(16, 1).unwrap()).unwrap_err(),
            "number of secrets is 0; it must be one for each of the 0 other clients, and at least one",
        ),
    ];
    for (error, sentence) in table {
        assert_eq!(error.to_string(), sentence);
    }
    // Nothing has changed: the refused round can still be masked, and the sum completed.
    assert_eq!((one.last_round(), &sum, &total), (Some(3), &half, &tree));
    assert_eq!(one.mask(4, &tree).unwrap().words().len(), 3);
    assert_eq!(sum.missing().collect::<Vec<_>>(), [1]);
    sum.add(&other.mask(3, &tree).unwrap()).unwrap();
    let mut other_tree = array![7.0, 7.0];
    assert_eq!(sum.unmask(&mut other_tree).unwrap_err().to_string(), "tree has shape [2] where [3] is needed");
    assert_eq!(other_tree, array![7.0, 7.0]);
    sum.unmask(&mut total).unwrap();
    assert_eq!(total, (array![0.0, 2.0], array![4.0]));
    assert_eq!(format!("{one:?}"), "Masker { client: 0, peers: [1], .. }");
}

/// Rounds of which the server sees sums alone are the rounds of a server that sees everything.
#[test]
fn masked_rounds_are_rounds() {
    const BITS: u32 = 24;
    const OWNERS: usize = 5;
    const ROUNDS: u64 = 3;
    /// Every client's number is rounded to half of 2⁻²⁴ and divided by the weights, 15; FedAdam's first step makes of a difference
    /// at most η/τ times as much, and three rounds pass it on.
    const TOLERANCE: f64 = 1e-6;
    let mut expected = model();
    let mut server = Server::new(FedAdam::new(0.1).tau(0.1));
    let mut clients = Simulation::new((0..OWNERS).map(client));
    (0..ROUNDS).for_each(|_| _ = server.round(&mut expected, &mut clients).unwrap());

    let fixed = FixedPoint::new(BITS, OWNERS).unwrap();
    let mut owners: Vec<_> = Masker::simulation(fixed).unwrap().into_iter().zip((0..OWNERS).map(client)).collect();
    let (mut found, mut opt) = (model(), FedAdam::new(0.1).tau(0.1));
    for round in 0..ROUNDS {
        let task = Task::new(round, found.clone());
        let mut sum = MaskedSum::new(fixed, round, 0..OWNERS, 9).unwrap();
        for (masker, owner) in &mut owners {
            let update = owner.train(&task).unwrap();
            let (weight, trained): (f64, &Model) = (update.weight(), update.params());
            let change = ((&trained.0 - &found.0) * weight, vec![(&trained.1[0] - &found.1[0]) * weight]);
            sum.add(&masker.mask(round, &(change, array![weight])).unwrap()).unwrap();
        }
        let mut total = (found.clone(), array![0.0]);
        sum.unmask(&mut total).unwrap();
        assert_eq!(total.1[0], 15.0);
        let grads = (total.0.0 / -15.0, vec![&total.0.1[0] / -15.0]);
        opt.step(&mut found, &grads).unwrap();
    }
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < TOLERANCE;
    assert!(found.0.iter().zip(&expected.0).all(close) && found.1[0].iter().zip(&expected.1[0]).all(close));
    assert_ne!(found, model());
}
