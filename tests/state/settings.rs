//! Settings are code, what was learned is state: where a state has taken part in a setting that is another now, loading says so.

use gradus::error::StateError;
use gradus::prelude::*;
use gradus::{Error, Pattern};
use ndarray::{Array1, array};

type Tree = std::collections::BTreeMap<&'static str, Array1<f64>>;

fn tree(value: f64) -> Tree {
    Tree::from(["backbone.bias", "backbone.weight", "head.weight"].map(|path| (path, array![value])))
}

fn sgd() -> Sgd<f64> {
    Sgd::new(1.0)
}

/// The error, after which everything is as it was.
fn refused<O: Optimizer<f64>>(mut opt: O, state: &gradus::StateDict) -> String {
    let before = opt.state_dict();
    let error = opt.load_state_dict(state).unwrap_err();
    assert!(matches!(error, Error::State(StateError::SettingChanged { .. })), "{error}");
    assert!(opt.state_dict() == before, "{error}");
    error.to_string()
}

fn after<O: Optimizer<f64>>(mut opt: O, steps: u64) -> gradus::StateDict {
    let mut params = tree(1.0);
    (0..steps).for_each(|_| _ = opt.step(&mut params, &tree(0.5)).unwrap());
    opt.state_dict()
}

#[test]
fn another_freeze_is_told() {
    let saved = after(sgd().freeze("backbone.**"), 2);
    assert_eq!(
        refused(sgd().freeze("head.*"), &saved),
        "the state was saved with freeze \"backbone.**\" and is loaded with freeze \"head.*\": they differ in \"backbone.bias\""
    );
    let by_shape = |_: &str, shape: &[usize]| !shape.is_empty();
    assert!(refused(sgd().freeze(by_shape), &saved).ends_with("they differ in \"head.weight\""));
    assert!(refused(sgd().freeze("typo"), &saved).contains("\"typo\""));
    // Other words for the same tensors are no other setting, and what was changed by hand is remembered.
    let same: [Pattern; 3] = [
        "{backbone}.*".into(),
        ["*.bias", "backbone.weight"].into(),
        (|path: &str, _: &[usize]| path.starts_with("back")).into(),
    ];
    for pattern in same {
        let mut opt = sgd().freeze(pattern);
        opt.load_state_dict(&saved).unwrap();
        let mut params = tree(1.0);
        opt.step(&mut params, &tree(0.5)).unwrap();
        assert_eq!((&params["backbone.bias"], &params["head.weight"]), (&array![1.0], &array![0.5]));
    }
    let mut by_hand = sgd().freeze("backbone.**");
    by_hand.unfreeze("backbone.bias").unwrap();
    by_hand.step(&mut tree(1.0), &tree(0.5)).unwrap();
    by_hand.refreeze("head.*").unwrap();
    let mut resumed = sgd().freeze("backbone.**");
    resumed.load_state_dict(&by_hand.state_dict()).unwrap();
    assert!(resumed.state_dict() == by_hand.state_dict());
    let mut params = tree(1.0);
    resumed.step(&mut params, &tree(0.5)).unwrap();
    assert_eq!(params["backbone.bias"], array![0.5]);
    assert_eq!((&params["backbone.weight"], &params["head.weight"]), (&array![1.0], &array![1.0]));
    // All is thawed, also a pattern that never matched.
    let mut wrong = sgd().freeze("typo");
    wrong.unfreeze_all();
    wrong.step(&mut tree(1.0), &tree(0.5)).unwrap();
    let mut resumed = sgd().freeze("typo");
    resumed.load_state_dict(&wrong.state_dict()).unwrap();
    resumed.step(&mut tree(1.0), &tree(0.5)).unwrap();
    // Of a state from before the first step everything is still to come.
    let mut resumed = sgd().freeze("head.*");
    resumed.load_state_dict(&sgd().freeze("backbone.**").state_dict()).unwrap();
    let mut params = tree(1.0);
    resumed.step(&mut params, &tree(0.5)).unwrap();
    assert_eq!((&params["backbone.bias"], &params["head.weight"]), (&array![0.5], &array![1.0]));
}

#[test]
fn what_has_been_thawed_otherwise_is_told() {
    let build = || sgd().freeze("**").unfreeze_at(1, "head.*").unfreeze_at(3, "backbone.weight");
    let saved = after(build(), 3); // steps 0, 1, 2: the head is thawed
    build().load_state_dict(&saved).unwrap();
    let otherwise = sgd().freeze("**").unfreeze_at(2, "head.*").unfreeze_at(3, "backbone.weight");
    assert_eq!(
        refused(otherwise, &saved),
        "the state was saved with freeze \"**\", unfreeze_at 1 \"head.*\", unfreeze_at 3 \"backbone.weight\" and is loaded with \
         freeze \"**\", unfreeze_at 2 \"head.*\", unfreeze_at 3 \"backbone.weight\": they differ in \"head.weight\""
    );
    let otherwise = sgd().freeze("**").unfreeze_at(1, "backbone.weight").unfreeze_at(3, "head.*");
    assert!(refused(otherwise, &saved).ends_with("they differ in \"backbone.weight\""));
    // One that should have been thawed already.
    let earlier = sgd().freeze("**").unfreeze_at(0, "backbone.bias").unfreeze_at(1, "head.*");
    assert!(refused(earlier, &saved).ends_with("they differ in \"backbone.bias\""));
    assert!(refused(sgd().freeze("**"), &saved).ends_with("they differ in \"head.weight\""));
    // What is still to come may be another.
    let mut later = sgd().freeze("**").unfreeze_at(1, "head.*").unfreeze_at(4, "backbone.bias");
    later.load_state_dict(&saved).unwrap();
    let mut params = tree(1.0);
    (0..2).for_each(|_| _ = later.step(&mut params, &tree(0.5)).unwrap());
    assert_eq!(params.values().map(|value| value[0]).collect::<Vec<_>>(), [0.5, 1.0, 0.0]);
}

/// What was asked for before the first step is in the state, a misspelt name too.
#[test]
fn what_waits_for_the_first_step_is_remembered() {
    let build = || sgd().freeze("backbone.**");
    type Change = fn(&mut gradus::adaptor::Freeze);
    let changes: [Change; 4] = [
        |opt| opt.unfreeze("backbone.bias").unwrap(),
        |opt| {
            opt.unfreeze(["backbone.weight", "backbone.bias"]).unwrap();
            opt.refreeze(["head.*"]).unwrap();
            opt.unfreeze("typo").unwrap();
        },
        |opt| {
            opt.unfreeze_all();
            opt.refreeze("head.{weight,\n}").unwrap();
        },
        |opt| opt.unfreeze_all(),
    ];
    for change in changes {
        let mut opt = build();
        change(&mut opt);
        let mut resumed = build();
        resumed.unfreeze("head.weight").unwrap(); // forgotten: the state says what was asked for
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        assert!(resumed.state_dict() == opt.state_dict());
        let mut ends = [tree(1.0), tree(1.0)];
        let [one, other] = [(&mut opt, 0), (&mut resumed, 1)].map(|(opt, at)| opt.step(&mut ends[at], &tree(0.5)));
        assert_eq!(one, other);
        assert_eq!(ends[0], ends[1]);
    }
    // A closure is code: it has to be asked for again.
    let closure = || |path: &str, _: &[usize]| path.ends_with("bias");
    let mut opt = build();
    opt.unfreeze(closure()).unwrap();
    let saved = opt.state_dict();
    assert_eq!(
        refused(build(), &saved),
        "the state was saved with unfreeze \"a closure\" before the first step and is loaded with nothing like it: a closure is \
         not in the state"
    );
    let mut resumed = build();
    resumed.unfreeze(closure()).unwrap();
    resumed.load_state_dict(&saved).unwrap();
    let mut params = tree(1.0);
    resumed.step(&mut params, &tree(0.5)).unwrap();
    assert_eq!((&params["backbone.bias"], &params["backbone.weight"]), (&array![0.5], &array![1.0]));
}

/// Which optimizer a tensor belongs to decides whose memory it has.
#[test]
fn another_route_is_told() {
    let momentum = || Momentum::new(1.0, 0.5);
    let saved = after(momentum().route("backbone.**", momentum()), 2);
    assert_eq!(
        refused(momentum().route("head.*", momentum()), &saved),
        "the state was saved with route \"backbone.**\" and is loaded with route \"head.*\": they differ in \"backbone.bias\""
    );
    assert!(
        refused(momentum().route("backbone.bias", momentum()), &saved).ends_with("they differ in \"backbone.weight\"")
    );
    assert!(refused(momentum().route("typo", momentum()), &saved).contains("route \"typo\""));
    let two = after(momentum().route("backbone.*", momentum()).route("*.bias", momentum()), 2);
    assert!(
        refused(momentum().route("*.bias", momentum()).route("backbone.*", momentum()), &two).contains(
            "saved with route \"backbone.*\", \"*.bias\" and is loaded with route \"*.bias\", \"backbone.*\""
        )
    );
    // Other words for the same tensors.
    let closure = |path: &str, _: &[usize]| path.starts_with("back");
    let mut same = momentum().route(closure, momentum());
    same.load_state_dict(&saved).unwrap();
    same.step(&mut tree(1.0), &tree(0.5)).unwrap();
    // Before the first step no tensor has any.
    let mut early = momentum().route("head.*", momentum());
    early.load_state_dict(&momentum().route("backbone.**", momentum()).state_dict()).unwrap();
    early.step(&mut tree(1.0), &tree(0.5)).unwrap();
    // Nor if only what is around it has seen them.
    let build = |pattern| momentum().route(pattern, momentum()).skip_nonfinite();
    let mut skipped = build("backbone.**");
    assert!(!skipped.step(&mut tree(1.0), &tree(f64::NAN)).unwrap().moved);
    let mut early = build("head.*");
    early.load_state_dict(&skipped.state_dict()).unwrap();
    let mut same = build("backbone.**");
    same.load_state_dict(&skipped.state_dict()).unwrap();
    assert!(same.state_dict() == skipped.state_dict());
}

#[test]
fn another_mean_is_told() {
    let saved = after(sgd().swa(2, 2), 5);
    assert_eq!(
        refused(sgd().swa(3, 2), &saved),
        "the state was saved with swa start 2 and is loaded with swa start 3: it averages 2 steps already"
    );
    assert!(refused(sgd().swa(2, 1), &saved).contains("every 2 and is loaded with swa every 1"));
    // As long as nothing has been averaged, it may begin otherwise.
    let saved = after(sgd().swa(20, 2), 5);
    let mut opt = sgd().swa(6, 1);
    opt.load_state_dict(&saved).unwrap();
    let mut params = tree(1.0);
    opt.step(&mut params, &tree(0.5)).unwrap();
    assert_eq!(opt.averaged(), 1);
}

/// Numbers and options that only say what happens from now on are code: they hold as they are given.
#[test]
fn what_only_concerns_later_steps_may_change() {
    let saved = after(sgd().ema(0.9), 3);
    sgd().ema(0.5).warmup(true).debiased(true).load_state_dict(&saved).unwrap();
    let saved = after(sgd().lookahead(2, 0.5), 3);
    sgd().lookahead(5, 0.8).load_state_dict(&saved).unwrap();
    let saved = after(sgd().accumulate(3), 5);
    sgd().accumulate(4).load_state_dict(&saved).unwrap();
    let error = sgd().accumulate(2).load_state_dict(&saved).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry \"accumulate/gathered\" is \"2\"; it must be less than the micro-batches of a step"
    );
    let saved = after(sgd().group("head.*", Group::no_decay()), 2);
    sgd().group("backbone.*", Group::new().learning_rate(0.5)).load_state_dict(&saved).unwrap();
}
