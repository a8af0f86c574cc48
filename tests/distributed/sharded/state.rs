//! The state of all ranks is that of one process, and goes on anywhere.

use gradus::distributed::{Collective, RankGroup as _, Sharded, ThreadGroup, unshard};
use gradus::error::{RankError, StateError, StepError};
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::{Error, StateDict};
use ndarray::{Array1, Array2, aview1};

use super::equality::{Build, chains, chains_by_tensor};
use super::{Boxed, Run, Tree, bits, params};

const STEPS: usize = 4;

/// An optimizer after some steps, with its parameters, sharded or not.
fn sharded<G: Collective<f64>>(
    group: G,
    build: Build<f64>,
    by_tensor: bool,
) -> (Sharded<Boxed<f64>, G, f64>, Tree<f64>) {
    let opt = build().sharded(group);
    (if by_tensor { opt.by_tensor() } else { opt }, params())
}

/// The states that so many ranks have after the steps.
fn states(ranks: usize, build: Build<f64>, by_tensor: bool, steps: usize) -> Vec<StateDict> {
    let run = Run::new(ranks, steps as u64);
    ThreadGroup::run(ranks, |group| {
        let (mut opt, mut params) = sharded(group, build, by_tensor);
        run.train(&mut opt, &mut params, 0..steps);
        opt.state_dict()
    })
}

/// A state without notes of which tensors lie column by column.
fn row_major(mut state: StateDict) -> StateDict {
    let notes: Vec<String> = state.keys().filter(|key| key.contains("/order/")).map(str::to_owned).collect();
    notes.iter().for_each(|key| _ = state.remove(key));
    state
}

#[test]
fn joined_states_are_that_of_one_process() {
    for ranks in [1, 4] {
        let run = Run::new(ranks, STEPS as u64);
        for (chains, by_tensor) in [(chains(), false), (chains_by_tensor(), true)] {
            for (name, build) in chains {
                let mut states = states(ranks, build, by_tensor, STEPS);
                states.rotate_left(1); // in any order
                let (mut alone, mut params) = (build(), params());
                run.train_alone(&mut alone, &mut params, 0..STEPS);
                let (joined, expected) = (unshard(&states).unwrap(), row_major(alone.state_dict()));
                assert!(joined == expected, "{name} on {ranks} ranks");
            }
        }
    }
}

/// Four steps on four ranks, then three on others, against one process.
fn goes_on(build: Build<f64>, (from, to): (usize, usize), by_tensor: bool, name: &str) {
    let (first, then) = (Run::new(from, STEPS as u64), Run::new(to, 7));
    let (mut alone, mut expected) = (build(), params());
    first.train_alone(&mut alone, &mut expected, 0..STEPS);
    let halfway = expected.clone();
    let plain = alone.state_dict();
    then.train_alone(&mut alone, &mut expected, STEPS..7);

    let joined = unshard(&states(from, build, by_tensor, STEPS)).unwrap();
    for state in [joined, plain] {
        ThreadGroup::run(to, |group| {
            let (mut opt, _) = sharded(group, build, by_tensor);
            let mut own = halfway.clone();
            opt.load_state_dict(&state).unwrap();
            then.train(&mut opt, &mut own, STEPS..7);
            assert!(bits(&own) == bits(&expected), "{name} from {from} to {to} ranks");
        });
    }
}

#[test]
fn a_state_of_four_ranks_goes_on_on_two_and_on_one() {
    for (name, build) in chains() {
        for ranks in [(4, 2), (4, 1)] {
            goes_on(build, ranks, false, name);
        }
    }
    for (name, build) in chains_by_tensor() {
        goes_on(build, (4, 2), true, name);
    }
}

#[test]
fn a_joined_state_goes_on_without_ranks() {
    let (four, run) = (Run::new(4, 7), Run::new(1, 7));
    for (name, build) in chains() {
        let (mut alone, mut expected) = (build(), params());
        four.train_alone(&mut alone, &mut expected, 0..STEPS);
        let (mut opt, mut own) = (build(), expected.clone());
        opt.load_state_dict(&unshard(&states(4, build, false, STEPS)).unwrap()).unwrap();
        run.train_alone(&mut alone, &mut expected, STEPS..7);
        run.train_alone(&mut opt, &mut own, STEPS..7);
        assert!(bits(&own) == bits(&expected), "{name}");
    }
}

/// A rank that stops and goes on with its own state is one that never stopped.
pub(crate) fn resumes(group: &impl Collective<f64>, run: &Run<f64>, build: Build<f64>, name: &str) {
    let (mut opt, mut params) = sharded(group, build, false);
    run.train(&mut opt, &mut params, 0..STEPS);
    let (mut resumed, mut own) = (sharded(group, build, false).0, params.clone());
    let saved = opt.state_dict();
    resumed.load_state_dict(&saved).unwrap();
    assert!(resumed.state_dict() == saved, "{name}");
    run.train(&mut opt, &mut params, STEPS..7);
    run.train(&mut resumed, &mut own, STEPS..7);
    assert!(bits(&own) == bits(&params) && opt.state_dict() == resumed.state_dict(), "{name}");
}

#[test]
fn resuming_is_bit_identical() {
    for ranks in [1, 3] {
        let run = Run::new(ranks, 7);
        ThreadGroup::run(ranks, |group| {
            chains().into_iter().for_each(|(name, build)| resumes(&group, &run, build, name));
        });
    }
    // Before the first step.
    let states = states(2, || Box::new(AdamW::new(0.1).ema(0.9)), false, 0);
    ThreadGroup::run(2, |group| {
        AdamW::<f64>::new(0.1).ema(0.9).sharded(&group).load_state_dict(&states[group.rank()]).unwrap()
    });
    assert_eq!(unshard(&states).unwrap(), AdamW::<f64>::new(0.1).ema(0.9).state_dict());
}

#[cfg(feature = "checkpoint")]
#[test]
fn files_of_four_ranks_resume_on_two_and_on_one() {
    use gradus::checkpoint::Checkpoint;

    let folder = tempfile::tempdir().unwrap();
    let file = |rank: usize| folder.path().join(format!("rank{rank}.safetensors"));
    let build: Build<f64> = || Box::new(AdamW::new(0.05).clip_value(0.3).ema(0.9));
    let run = Run::new(4, 7);
    let ends = ThreadGroup::run(4, |group| {
        let rank = group.rank();
        let (mut opt, mut params) = sharded(group, build, false);
        run.train(&mut opt, &mut params, 0..STEPS);
        Checkpoint::of(&params, &opt).unwrap().save(file(rank)).unwrap();
        run.train(&mut opt, &mut params, STEPS..7);
        bits(&params)
    });
    let files: Vec<_> = (0..4).map(|rank| Checkpoint::open(file(rank)).unwrap()).collect();
    let state = unshard(files.iter().filter_map(Checkpoint::optimizer)).unwrap();

    // On four again, each from its own file.
    ThreadGroup::run(4, |group| {
        let rank = group.rank();
        let (mut opt, mut params) = sharded(group, build, false);
        files[rank].load(&mut params, &mut opt).unwrap();
        run.train(&mut opt, &mut params, STEPS..7);
        assert!(bits(&params) == ends[rank]);
    });
    for ranks in [2, 1] {
        let then = Run::new(ranks, 7);
        let (mut alone, mut expected) = (build(), params());
        files[0].load_params(&mut expected).unwrap();
        alone.load_state_dict(&state).unwrap();
        then.train_alone(&mut alone, &mut expected, STEPS..7);
        ThreadGroup::run(ranks, |group| {
            let (mut opt, mut own) = sharded(group, build, false);
            files[0].load_params(&mut own).unwrap();
            opt.load_state_dict(&state).unwrap();
            run_on(&mut opt, &mut own, &then);
            assert!(bits(&own) == bits(&expected));
        });
    }

    fn run_on<G: Collective<f64>>(opt: &mut Sharded<Boxed<f64>, G, f64>, own: &mut Tree<f64>, run: &Run<f64>) {
        run.train(opt, own, STEPS..7);
    }
}

fn message<T: std::fmt::Debug>(result: gradus::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn states_that_do_not_belong_together_are_refused() {
    let build: Build<f64> = || Box::new(AdamW::new(0.05));
    let four = states(4, build, false, STEPS);
    let refused = |states: &[&StateDict]| message(unshard(states.iter().copied()));
    assert_eq!(
        refused(&[]),
        "the state of rank 0 is missing: 0 states were given, and those of all 1 ranks are needed"
    );
    assert_eq!(
        refused(&[&four[3], &four[0], &four[1]]),
        "the state of rank 2 is missing: 3 states were given, and those of all 4 ranks are needed"
    );
    assert_eq!(
        refused(&[&four[0], &four[1], &four[2], &four[3], &four[1]]),
        "entry \"sharded/rank\" is \"1\"; it must be a rank of the group, each once"
    );
    let two = states(2, build, false, STEPS);
    assert_eq!(
        refused(&[&two[0], &four[1]]),
        "rank 1 has the state of one of 4 ranks where rank 0 has the state of one of 2 ranks"
    );
    let later = states(2, build, false, STEPS + 1);
    assert_eq!(refused(&[&two[0], &later[1]]), "rank 1 has adamw/steps 5 where rank 0 has adamw/steps 4");
    let other = states(2, || Box::new(AdamW::new(0.06)), false, STEPS);
    let different = refused(&[&two[0], &other[1]]);
    assert!(different.starts_with("rank 1 has sharded/parameters "), "{different}");
    let by_tensor = states(2, build, true, STEPS);
    assert_eq!(
        refused(&[&two[0], &by_tensor[1]]),
        "rank 1 has sharded/cut tensors where rank 0 has sharded/cut elements"
    );
    let before = states(2, build, false, 0);
    assert_eq!(refused(&[&two[0], &before[1]]), "rank 1 has no step behind it where rank 0 has a step behind it");
    assert_eq!(refused(&[&build().state_dict()]), "entry \"sharded/rank\" is missing");

    // Something outside that is not the same on all ranks.
    let gathering = ThreadGroup::run(2, |group| {
        let grads = Array1::from_elem(600, group.rank() as f64);
        let mut opt = Sgd::new(0.1).sharded(group).accumulate(2);
        opt.step(&mut Array1::zeros(600), &grads).unwrap();
        opt.state_dict()
    });
    let different = message(unshard(&gathering));
    assert!(different.starts_with("rank 1 has"), "{different}");
}

#[test]
fn entries_of_other_shapes_are_refused() {
    let build: Build<f64> = || Box::new(AdamW::new(0.05));
    let good = states(2, build, false, STEPS);
    let change = |rank: usize, change: &dyn Fn(&mut StateDict)| {
        let mut changed = good.clone();
        change(&mut changed[rank]);
        unshard(&changed).unwrap_err()
    };
    let cut = "adamw/exp_avg/c.weight";
    let short = change(1, &|state| state.insert_tensor(cut, aview1(&[1.0])));
    assert!(matches!(&short, Error::State(StateError::EntryShape { key, .. }) if key == cut), "{short}");
    let narrow = change(1, &|state| state.insert_tensor(cut, aview1(&[1.0_f32])));
    assert!(matches!(&narrow, Error::State(StateError::EntryType { key, .. }) if key == cut), "{narrow}");
    let gone = change(1, &|state| _ = state.remove(cut));
    assert_eq!(gone, Error::State(StateError::MissingEntry { key: cut.into(), similar: vec![] }));
    let no_rank = change(1, &|state| state.insert_text("sharded/rank", "one"));
    assert_eq!(no_rank.to_string(), "entry \"sharded/rank\" is \"one\"; it must be a rank");
    let count = change(1, &|state| _ = state.remove("adamw/step/c.weight"));
    assert!(matches!(count, Error::Ranks(RankError::RanksDisagree { rank: 1, .. })), "{count}");
}

/// What does not load changes nothing.
fn refuses(group: &impl Collective<f64>, run: &Run<f64>, state: &StateDict, expected: &str) {
    let build: Build<f64> = || Box::new(AdamW::new(0.05));
    let (mut opt, mut params) = sharded(group, build, false);
    run.train(&mut opt, &mut params, 0..2);
    let before = opt.state_dict();
    assert_eq!(message(opt.load_state_dict(state)), expected);
    assert!(opt.state_dict() == before);
    run.train(&mut opt, &mut params, 2..3);
}

#[test]
fn loading_is_strict() {
    let build: Build<f64> = || Box::new(AdamW::new(0.05));
    let (run, two) = (Run::new(2, 3), states(2, build, false, STEPS));
    let four = states(4, build, false, STEPS);
    let by_tensor = states(2, build, true, STEPS);
    let mut plain = unshard(&two).unwrap();
    plain.insert_text("adamw/more", "1");
    let mut short = unshard(&two).unwrap();
    short.remove("adamw/exp_avg/c.weight");
    ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let check = |state: &StateDict, expected: &str| refuses(&group, &run, state, expected);
        check(
            &four[rank],
            "entry \"sharded/ranks\" is \"4\"; it must be the number of ranks there are now; unshard joins the states of all ranks for another number",
        );
        check(&two[1 - rank], &format!("entry \"sharded/rank\" is \"{}\"; it must be this rank", 1 - rank));
        check(&by_tensor[rank], "entry \"sharded/cut\" is \"tensors\"; it must be how this optimizer is sharded");
        check(&plain, "unexpected entry \"adamw/more\": the optimizer it is loaded into does not have it");
        check(&short, "entry \"adamw/exp_avg/c.weight\" is missing");
    });
    let unsharded = message(AdamW::<f64>::new(0.05).load_state_dict(&two[0]));
    assert!(unsharded.contains("adamw/exp_avg/"), "{unsharded}");
}

/// Codes lie in the order of memory: they cannot be divided row by row if that is another.
#[test]
fn codes_in_another_order_are_not_divided() {
    for precision in [StatePrecision::Blockwise8, StatePrecision::Blockwise4(Rounding::Nearest)] {
        let build = || AdamW::new(0.1).state_precision(precision);
        let mut alone = build();
        let mut params = Array2::<f64>::ones((64, 80)).reversed_axes();
        let grads = params.clone();
        alone.step(&mut params, &grads).unwrap();
        let error = message(build().sharded(gradus::distributed::Alone).load_state_dict(&alone.state_dict()));
        let expected = "entry \"adamw/order/\" is \"F\"; it must be row-major, without this entry, where state in 8 or 4 bits \
                        is to be divided";
        assert_eq!(error, expected);
    }
}

/// The tensors "a", "b" and "c", of which the first and the last have different lengths.
#[cfg(feature = "checkpoint")]
struct Ordered([(&'static str, Array1<f64>); 3]);

#[cfg(feature = "checkpoint")]
mod ordered {
    use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};

    use super::*;

    impl Ordered {
        pub(super) fn new(names: [&'static str; 3]) -> Self {
            Self(names.map(|name| (name, Array1::linspace(0.1, 1.0, if name == "a" { 40 } else { 90 }))))
        }
    }

    impl Params for Ordered {
        type Elem = f64;

        fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
            self.0.iter().for_each(|(name, tensor)| visitor.field(name, tensor));
        }
    }

    impl ParamsMut for Ordered {
        fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
            self.0.iter_mut().for_each(|(name, tensor)| visitor.field(name, tensor));
        }
    }
}

/// Every rank's share would be other elements.
#[test]
#[cfg(feature = "checkpoint")]
fn a_share_is_not_loaded_into_another_order() {
    use gradus::checkpoint::Checkpoint;

    let saved = ThreadGroup::run(3, |group| {
        let (mut opt, mut params) = (Adam::new(0.1).sharded(group), Ordered::new(["a", "b", "c"]));
        let grads = Ordered::new(["a", "b", "c"]);
        opt.step(&mut params, &grads).unwrap();
        (Checkpoint::of(&params, &opt).unwrap(), opt.state_dict())
    });
    let (checkpoints, states): (Vec<_>, Vec<_>) = saved.into_iter().unzip();
    ThreadGroup::run(3, |group| {
        let (own, mut backwards) = (&checkpoints[group.rank()], Ordered::new(["c", "b", "a"]));
        let mut opt = Adam::new(0.1).sharded(group);
        let error = own.load(&mut backwards, &mut opt).unwrap_err();
        let expected = "\"a\" of shape [40]";
        assert!(
            matches!(&error, Error::Step(StepError::ParametersChanged { expected: saved, .. }) if saved == expected),
            "{error}"
        );
        assert_eq!(opt.steps(), 0);
    });
    assert!(unshard(&states).is_ok());
}
