//! Every error in every adaptor: parameters, gradients, state and counters are bit for bit what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{declared, variant};
use gradus::adaptor::Monitor;
use gradus::error::StepError;
use gradus::params::{Layout, Params, ParamsMut, Visitor, VisitorMut};
use gradus::schedule::Linear;
use gradus::set::{L1Ball, NonNegative};
use gradus::{Commit, Error, Report, Result, StateReader, StateWriter, Step, prelude::*};
use ndarray::{Array2, ArrayD, IxDyn, arr0, array};

type Tree = BTreeMap<&'static str, ArrayD<f64>>;
type Boxed = Box<dyn Optimizer<f64>>;
type Wrap = fn(Boxed) -> Boxed;

/// Gradients or parameters of fixed numbers: a matrix, a vector and a scalar.
fn tree(phase: f64) -> Tree {
    let wave = |shape: &[usize], phase: f64| {
        let elements = shape.iter().product::<usize>();
        let values = (0..elements).map(|i| (1.7 * i as f64 + phase).sin()).collect();
        ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
    };
    BTreeMap::from([("a", wave(&[2, 3], phase)), ("b", wave(&[3], phase + 0.1)), ("c", wave(&[], phase + 0.2))])
}

/// Equality that NaN does not spoil and that tells 0 from −0.
fn bits(tree: &Tree) -> Vec<(&str, &[usize], Vec<u64>)> {
    tree.iter().map(|(name, a)| (*name, a.shape(), a.iter().map(|x| x.to_bits()).collect())).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands on a hyper-parameter's dial instead of its own value.
#[derive(Clone, Copy)]
enum Turned {
    To(&'static str, f64),
    Refused(&'static str),
}

/// Leads hyper-parameters out of range and back, so that training can go on after the error.
#[derive(Clone, Default)]
struct Dials(Arc<Mutex<Option<Turned>>>);

impl Dials {
    fn set(&self, turned: Option<Turned>) {
        *lock(&self.0) = turned;
    }

    fn dial(&self, name: &'static str, own: f64) -> Dial {
        Dial { dials: self.clone(), name, own }
    }
}

struct Dial {
    dials: Dials,
    name: &'static str,
    own: f64,
}

impl Schedule for Dial {
    fn at(&self, step: u64) -> f64 {
        match *lock(&self.dials.0) {
            Some(Turned::To(name, value)) if name == self.name => value,
            _ => self.own / (1 + step) as f64,
        }
    }

    fn check(&self) -> Result<()> {
        match *lock(&self.dials.0) {
            Some(Turned::Refused(name)) if name == self.name => Err(Error::Step(StepError::Schedule {
                name: None,
                schedule: "Dial",
                argument: "own",
                value: self.own,
                accepted: "something else",
            })),
            _ => Ok(()),
        }
    }

    fn memory(&self) -> gradus::schedule::Memory<'_> {
        gradus::schedule::Memory::none()
    }
}

/// An Adam whose state can be seen from outside whatever is wrapped around it.
struct Watched {
    adam: Arc<Mutex<Adam<f64>>>,
    layout: Option<Arc<Layout>>,
}

impl Optimizer<f64> for Watched {
    fn check(&self, step: &Step<'_, f64>) -> Result<()> {
        lock(&self.adam).check(step)
    }

    fn apply(&mut self, step: Step<'_, f64>) -> Result<Report> {
        let report = lock(&self.adam).apply(step)?;
        self.layout = lock(&self.adam).layout().cloned();
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        lock(&self.adam).conclude(result)
    }

    fn replace_learning_rate(&mut self, learning_rate: gradus::Hyper) {
        lock(&self.adam).replace_learning_rate(learning_rate);
    }

    fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
        None
    }

    fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        None
    }

    fn learning_rate(&self) -> f64 {
        lock(&self.adam).learning_rate()
    }

    fn steps(&self) -> u64 {
        lock(&self.adam).steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state.node("watched").value("is", "there");
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        state.node("watched")?.value::<String>("is", "there")?;
        Ok(Commit::nothing())
    }
}

/// One training run.
struct Run {
    dials: Dials,
    adam: Arc<Mutex<Adam<f64>>>,
    opt: Boxed,
    params: Tree,
    calls: u32,
}

impl Run {
    fn new(wrap: Wrap) -> Self {
        let dials = Dials::default();
        let adam = Adam::new(dials.dial("learning_rate", 0.1))
            .beta1(dials.dial("beta1", 0.9))
            .beta2(dials.dial("beta2", 0.9))
            .eps(dials.dial("eps", 1e-3))
            .weight_decay(dials.dial("weight_decay", 0.1));
        let adam = Arc::new(Mutex::new(adam));
        let opt = wrap(Box::new(Watched { adam: Arc::clone(&adam), layout: None }));
        Self { dials, adam, opt, params: tree(0.0), calls: 0 }
    }

    fn train(&mut self, calls: u32) {
        for _ in 0..calls {
            self.calls += 1;
            self.opt.step(&mut self.params, &tree(f64::from(self.calls))).unwrap();
        }
    }

    /// Everything there is to see: parameters, counters, and for each tensor its steps and slots.
    fn seen(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let counters = (self.opt.learning_rate().to_bits(), self.opt.steps(), self.opt.layout().cloned());
        let adam = lock(&self.adam);
        let slots = ["a", "b", "c"].map(|path| {
            let slot = |name| adam.slot(path, name).map(|slot| slot.mapv(f64::to_bits));
            (adam.tensor_steps(path), slot("exp_avg"), slot("exp_avg_sq"))
        });
        let params: Vec<_> = bits(&self.params).into_iter().map(|(path, _, bits)| (path.to_owned(), bits)).collect();
        (params, slots, adam.steps(), counters)
    }
}

/// The adaptors around which, or inside which, an error may happen.
fn wrappers() -> Vec<(&'static str, Wrap)> {
    vec![
        ("nothing", |opt| opt),
        ("clip_global_norm", |opt| Box::new(opt.clip_global_norm(0.5))),
        ("clip_per_tensor_norm", |opt| Box::new(opt.clip_per_tensor_norm(0.5).exact(true))),
        ("clip_value", |opt| Box::new(opt.clip_value(0.5))),
        ("clip_adaptive", |opt| Box::new(opt.clip_adaptive(0.1))),
        ("qk_clip", |opt| Box::new(opt.qk_clip(100.0))),
        // After three calls the next one would move the parameters, fill the sum up, or begin it.
        ("accumulate(2)", |opt| Box::new(opt.accumulate(2))),
        ("accumulate(5)", |opt| Box::new(opt.accumulate(5).sum(true))),
        ("accumulate(3)", |opt| Box::new(opt.accumulate(3))),
        ("accumulate_by", |opt| Box::new(opt.accumulate_by(|step: u64| 2.0 + step as f64))),
        ("freeze", |opt| Box::new(opt.freeze("c"))),
        ("group", |opt| Box::new(opt.group("b", Group::new().learning_rate(0.3).scale_weight_decay(2.0)))),
        ("check_finite", |opt| Box::new(opt.check_finite())),
        ("maximize", |opt| Box::new(opt.maximize())),
        ("loss_scaling", |opt| Box::new(opt.loss_scaling().initial_scale(8.0).growth_interval(2))),
        ("zero_nans", |opt| Box::new(opt.zero_nans())),
        ("skip_spikes", |opt| Box::new(opt.skip_spikes(9.0).warmup(1))),
        ("max_skipped", |opt| Box::new(opt.max_skipped(3))),
        ("centralize", |opt| Box::new(opt.centralize())),
        ("unscale", |opt| Box::new(opt.unscale(8.0))),
        ("project", |opt| Box::new(opt.project("a", NonNegative).project("b", L1Ball::per_row(0.5)))),
        ("ema", |opt| Box::new(opt.ema(0.9))),
        ("ema, debiased", |opt| Box::new(opt.ema(0.9).debiased(true).warmup(true))),
        ("swa", |opt| Box::new(opt.swa(1, 2))),
        ("monitor", |opt| Box::new(opt.monitor(Monitor::every(1)))),
        ("keep_best", |opt| Box::new(opt.keep_best())),
        ("stop", |opt| Box::new(opt.stop().patience(2).grad_norm(1.0))),
        // After three steps the next one is that of the slow weights, or not.
        ("lookahead(4)", |opt| Box::new(opt.lookahead(4, 0.5))),
        ("lookahead(3)", |opt| Box::new(opt.lookahead(3, 0.5))),
        ("layerwise_decay", |opt| Box::new(opt.layerwise_decay(2.0, ["b", "c"]))),
        ("unfreeze_at", |opt| Box::new(opt.freeze("c").unfreeze_at(3, "c"))),
        // The first branch has no error and comes first: it must not move before the second was asked.
        ("route", |opt| Box::new(Momentum::new(0.1, 0.9).route("b", opt))),
        ("route, the rest", |opt| Box::new(opt.route("b", Momentum::new(0.1, 0.9)))),
        // Without a tap it passes everything.
        #[cfg(feature = "second-order")]
        ("kfac", |opt| Box::new(opt.kfac())),
        ("many", |opt| {
            let branch = opt.clip_global_norm(0.5).accumulate(2).group("b", Group::no_decay());
            Box::new(Momentum::new(0.1, 0.9).route("{b,c}", branch).freeze("c").check_finite().maximize())
        }),
    ]
}

type Call = fn(&mut dyn Optimizer<f64>, &mut Tree, &mut Tree, &Dials) -> Result<Report>;

struct Case {
    variant: &'static str,
    /// After three steps of the bare optimizer.
    message: &'static str,
    call: Call,
}

fn case(variant: &'static str, message: &'static str, call: Call) -> Case {
    Case { variant, message, call }
}

/// A tree that shows "a" a second time, as a hand-written walk may by mistake.
struct Twice<'t>(&'t mut Tree, ArrayD<f64>);

impl Params for Twice<'_> {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        self.0.visit(visitor);
        visitor.field("a", &self.1);
    }
}

impl ParamsMut for Twice<'_> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        self.0.visit_mut(visitor);
        visitor.field("a", &mut self.1);
    }
}

/// Gradients of which that of "a" is one of rows.
struct OfRows<'t>(&'t Tree, Rows<f64>);

impl Params for OfRows<'_> {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        visitor.field("a", &self.1);
        self.0.iter().filter(|(name, _)| **name != "a").for_each(|(name, array)| visitor.field(name, array));
    }
}

/// An optimizer of another crate, with an error that this crate has no name for.
struct Empty<O>(O);

impl<A: Scalar, O: Optimizer<A>> Optimizer<A> for Empty<O> {
    fn check(&self, _: &Step<'_, A>) -> Result<()> {
        Err(Error::Other("the battery is empty".into()))
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        self.check(&step)?;
        self.0.apply(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.0.conclude(result)
    }

    fn replace_learning_rate(&mut self, learning_rate: gradus::Hyper) {
        self.0.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
        self.0.part(of)
    }

    fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        self.0.part_mut(of)
    }

    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.0.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.0.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.0.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        self.0.read_state(state)
    }
}

#[rustfmt::skip] // one case, one paragraph
fn cases() -> Vec<Case> {
    vec![
        case("HyperParameter", "beta1 is 1.5 at step 3; it must be a number in 0 ≤ beta1 < 1",
            |opt, params, grads, dials| { dials.set(Some(Turned::To("beta1", 1.5))); opt.step(params, grads) }),
        case("HyperParameter", "learning_rate is NaN at step 3; it must be a finite number ≥ 0",
            |opt, params, grads, dials| {
                dials.set(Some(Turned::To("learning_rate", f64::NAN)));
                opt.step(params, grads)
            }),
        case("HyperParameter", "weight_decay is -0.1 at step 3; it must be a finite number ≥ 0",
            |opt, params, grads, dials| { dials.set(Some(Turned::To("weight_decay", -0.1))); opt.step(params, grads) }),
        case("HyperParameter", "learning_rate is -1 at step 3 for \"b\" in the group \"{b,c}\"; it must be a finite number ≥ 0",
            |opt, params, grads, _| opt.group("{b,c}", Group::new().learning_rate(-1.0)).step(params, grads)),
        case("HyperParameter", "scale_weight_decay is NaN at step 3 for \"b\" in the group \"b\"; it must be a finite number ≥ 0",
            |opt, params, grads, _| opt.group("b", Group::new().scale_weight_decay(f64::NAN)).step(params, grads)),
        case("HyperParameter", "learning_rate is inf at step 3 for \"b\"; it must be a finite number ≥ 0",
            |opt, params, grads, _| {
                let huge = Group::new().learning_rate(f64::MAX).scale_learning_rate(2.0);
                opt.group("b", huge).step(params, grads)
            }),
        case("UnknownHyperParameter", "Adam has no hyper-parameter \"slowness\", which the group \"b\" sets; it has learning_rate, weight_decay, beta1, beta2, eps",
            |opt, params, grads, _| opt.group("b", Group::new().set("slowness", 0.5)).step(params, grads)),
        case("NotInGroup", "the group \"b\" cannot change cautious of Adam: it is an option, which all tensors share; `route` gives some tensors an optimizer with another",
            |opt, params, grads, _| opt.group("b", Group::new().set("cautious", 1.0)).step(params, grads)),
        case("HyperParameter", "max_norm is -1 at step 3; it must be a number ≥ 0 or infinity",
            |opt, params, grads, _| opt.clip_global_norm(-1.0).step(params, grads)),
        case("Zero", "accumulate is 0; it must be at least 1",
            |opt, params, grads, _| opt.accumulate(0).step(params, grads)),
        case("Schedule", "learning_rate: Dial: own is 0.1; it must be something else",
            |opt, params, grads, dials| { dials.set(Some(Turned::Refused("learning_rate"))); opt.step(params, grads) }),
        case("Schedule", "limit: Linear: start is NaN; it must be a finite number",
            |opt, params, grads, _| opt.clip_value(Linear::new(f64::NAN, 0.0, 9).warmup(5)).step(params, grads)),
        case("MissingGradient", "no gradient for parameter \"b\"; the gradient tree \
             needs the same tensors as the parameters \
             (use `Option` and `None` for \"no gradient this step\")",
            |opt, params, grads, _| { grads.remove("b"); opt.step(params, grads) }),
        case("UnexpectedGradient", "gradient \"d\" belongs to no parameter; the gradient tree needs the same tensors as the parameters",
            |opt, params, grads, _| { grads.insert("d", array![1.0].into_dyn()); opt.step(params, grads) }),
        case("ShapeMismatch", "gradient \"a\" has shape [3, 2] where the parameter has [2, 3]",
            |opt, params, grads, _| { grads.insert("a", ArrayD::ones(IxDyn(&[3, 2]))); opt.step(params, grads) }),
        case("ShapeMismatch", "gradient \"c\" has shape [1] where the parameter has []",
            |opt, params, grads, _| { grads.insert("c", array![1.0].into_dyn()); opt.step(params, grads) }),
        case("RowCount", "gradient \"a\" has 1 row indices and 2 rows of values",
            |opt, params, grads, _| opt.step(params, &OfRows(grads, Rows::new(vec![1], Array2::ones((2, 3)))))),
        case("RowShape", "the rows of gradient \"a\" have shape [2] where those of the parameter have [3]",
            |opt, params, grads, _| opt.step(params, &OfRows(grads, Rows::new(vec![1], Array2::ones((1, 2)))))),
        case("RowOutOfRange", "gradient \"a\" has row index 2 at place 1, and the parameter has 2 rows",
            |opt, params, grads, _| opt.step(params, &OfRows(grads, Rows::new(vec![1, 2], Array2::ones((2, 3)))))),
        case("DuplicatePath", "two tensors have the path \"a\"; rename one",
            |opt, params, grads, _| opt.step(&mut Twice(params, ArrayD::ones(IxDyn(&[2, 3]))), grads)),
        case("DuplicatePath", "two tensors have the path \"a\"; rename one",
            |opt, params, grads, _| opt.step(params, &Twice(grads, ArrayD::ones(IxDyn(&[2, 3]))))),
        case("ParametersChanged", "the parameters have changed since the first step: \
             expected \"a\" of shape [2, 3], found \"aa\" of shape [2, 3]",
            |opt, params, grads, _| {
                for tree in [&mut *params, &mut *grads] { let a = tree.remove("a").unwrap(); tree.insert("aa", a); }
                opt.step(params, grads)
            }),
        case("ParametersChanged", "the parameters have changed since the first step: \
             expected \"a\" of shape [2, 3], found \"a\" of shape [6]",
            |opt, params, grads, _| {
                for tree in [&mut *params, &mut *grads] { tree.insert("a", ArrayD::ones(IxDyn(&[6]))); }
                opt.step(params, grads)
            }),
        case("ParametersChanged", "the parameters have changed since the first step: \
             expected no more tensors, found \"d\" of shape [1]",
            |opt, params, grads, _| {
                for tree in [&mut *params, &mut *grads] { tree.insert("d", array![1.0].into_dyn()); }
                opt.step(params, grads)
            }),
        case("ParametersChanged", "the parameters have changed since the first step: \
             expected \"a\" of shape [2, 3], found \"b\" of shape [3]",
            |opt, params, grads, _| { params.remove("a"); grads.remove("a"); opt.step(params, grads) }),
        case("NonFiniteGradient", "gradient \"a\" is NaN at index [1, 2]",
            |opt, params, grads, _| {
                *grads.get_mut("a").unwrap().last_mut().unwrap() = f64::NAN;
                grads.insert("c", arr0(f64::INFINITY).into_dyn());
                opt.check_finite().step(params, grads)
            }),
        case("NonFiniteGradient", "gradient \"b\" is inf at index [1]",
            |opt, params, grads, _| {
                grads.get_mut("b").unwrap()[1] = f64::INFINITY;
                opt.clip_value(1.0).step(params, grads)
            }),
        case("NonFiniteGradient", "gradient \"c\" is -inf at index []",
            |opt, params, grads, _| {
                grads.insert("c", arr0(f64::NEG_INFINITY).into_dyn());
                opt.clip_global_norm(1.0).step(params, grads)
            }),
        case("NormOverflow", "the gradient norm overflows; the largest element is in \"b\"",
            |opt, params, grads, _| {
                grads.insert("b", array![1.7e308, -1.7e308, 1.0].into_dyn());
                opt.clip_global_norm(1.0).step(params, grads)
            }),
        case("TooManySkipped", "1 steps in a row are skipped, and max_skipped allows 0",
            |opt, params, grads, _| {
                grads.get_mut("b").unwrap()[1] = f64::NAN;
                opt.skip_nonfinite().max_skipped(0).step(params, grads)
            }),
        case("PatternUnmatched", "pattern \"nope.**\" matches no tensor; the tensors are \"a\", \"b\", \"c\"",
            |opt, params, grads, _| opt.freeze("nope.**").step(params, grads)),
        case("PatternUnmatched", "pattern \"b.*\" matches no tensor; the tensors are \"a\", \"b\", \"c\"",
            |opt, params, grads, _| opt.group(["b", "b.*", "d"], Group::no_decay()).step(params, grads)),
        case("PatternSyntax", "pattern \"{a,b\": an opening brace without a closing one",
            |opt, params, grads, _| opt.freeze(["c", "{a,b"]).step(params, grads)),
        case("PatternSyntax", "pattern \"a}\": a closing brace without an opening one",
            |opt, params, grads, _| opt.group("a}", Group::no_decay()).step(params, grads)),
        case("PatternSyntax", "pattern \"{a,{b}}\": braces do not nest",
            |opt, params, grads, _| opt.freeze("{a,{b}}").step(params, grads)),
        case("Other", "the battery is empty", |opt, params, grads, _| Empty(opt).check_finite().step(params, grads)),
    ]
}

/// Those that no step of these chains returns: of functions, of loading and of configurations, of layers, ranks, rounds, of ascents, and of other parameters
/// than numbers of 64 bits.
#[rustfmt::skip]
const ELSEWHERE: [&str; 71] = [
    "AlreadyAscended", "CannotAscend", "CheckpointVersion", "ControlNotPrivate", "Corrupted", "CounterFull", "CutTensors", "DataOfAllRanks",
    "Entropy", "EntryShape", "EntryType", "EntryValue", "FixedPointRange", "FusedHeads", "GradientScale", "InsideSharded", "Io", "Layer", "LossChanged", "MaskedSum",
    "MissingEntry", "MissingRank", "NoControl", "NoOptimizerState", "NoRank", "NoRound", "NoStep", "NoWeight",
    "NonFiniteLoss", "NonFiniteParameter", "NotACheckpoint", "NotAMatrix", "NotAWeight", "NotAscended", "NotFinite", "NotShardable",
    "NotResizable", "NotTheMean", "OptionNotPossible", "Previewed", "Range", "RefusedTooLate", "ReservedName", "RankLeft", "RankRefused", "RankTimeout", "RanksDisagree", "Rows", "RowsUnusable", "SameLayer", "SettingChanged", "Shape", "SimdLevel",
    "SumOfHalves", "Swapped", "TooLarge", "Transport", "Trees", "UnequalBlocks", "UnequalHeads", "UnexpectedEntry", "UnfitDiagonal", "WrongAlgorithm", "Empty",
    "Unreadable", "UnknownKey", "MissingKey", "WrongKind", "UnknownName", "Setting", "OnlyInCode",
];

/// A new variant is told to join the cases, or the list of those that belong elsewhere.
#[test]
fn every_variant_has_a_case_or_belongs_elsewhere() {
    let declared = declared();
    let declared: BTreeSet<_> = declared.iter().map(String::as_str).collect();
    let cases = cases();
    let have: BTreeSet<_> = cases.iter().map(|case| case.variant).collect();
    assert!(ELSEWHERE.iter().all(|name| !have.contains(name)));
    assert_eq!(have.union(&ELSEWHERE.into()).copied().collect::<BTreeSet<_>>(), declared);
}

#[test]
fn every_error_says_what_and_where() {
    for Case { variant: expected, message, call } in cases() {
        let mut run = Run::new(|opt| opt);
        run.train(3);
        let error = call(&mut run.opt, &mut run.params, &mut tree(9.0), &run.dials).expect_err(message);
        assert_eq!((variant(&error).as_str(), error.to_string().as_str()), (expected, message));
    }
}

#[test]
fn after_an_error_everything_is_as_it_was() {
    for (wrapper, wrap) in wrappers() {
        for Case { variant: expected, message, call } in cases() {
            let (mut run, mut twin) = (Run::new(wrap), Run::new(wrap));
            run.train(3);
            twin.train(3);
            let before = run.params.clone();
            let mut grads = tree(9.0);

            // What the call did to the trees on purpose is done to copies too, by an optimizer that takes no step.
            let (mut params_asked, mut grads_asked) = (run.params.clone(), grads.clone());
            let mut refuses = Empty(&mut twin.opt);
            call(&mut refuses, &mut params_asked, &mut grads_asked, &Dials::default()).expect_err(message);

            let error = call(&mut run.opt, &mut run.params, &mut grads, &run.dials).expect_err(message);
            let at = format!("{message} in {wrapper}: {error}");
            assert_eq!(variant(&error), expected, "{at}");
            assert_eq!(bits(&run.params), bits(&params_asked), "{at}");
            assert_eq!(bits(&grads), bits(&grads_asked), "{at}");

            run.dials.set(None);
            run.params = before;
            assert_eq!(run.seen(), twin.seen(), "{at}");
            run.train(7);
            twin.train(7);
            assert_eq!(run.seen(), twin.seen(), "{at}, and some steps later");
            assert!(lock(&run.adam).steps() > 1, "{at}: no step");
        }
    }
}

/// Pairing comes before any optimizer is asked, so that a first step can fail without leaving a layout behind.
#[test]
fn a_first_step_that_fails_leaves_the_optimizer_new() {
    for (wrapper, wrap) in wrappers() {
        for Case { variant: expected, message, call } in cases() {
            if expected == "ParametersChanged" {
                continue; // the first step's parameters are never other ones
            }
            let (mut run, mut twin) = (Run::new(wrap), Run::new(wrap));
            let error = call(&mut run.opt, &mut run.params, &mut tree(9.0), &run.dials).expect_err(message);
            assert_eq!(variant(&error), expected, "{message} in {wrapper}");
            run.dials.set(None);
            run.params = tree(0.0);
            assert_eq!(run.seen(), twin.seen(), "{message} in {wrapper}");
            run.train(6);
            twin.train(6);
            assert_eq!(run.seen(), twin.seen(), "{message} in {wrapper}, and some steps later");
        }
    }
}

/// What a state says that has just been loaded, with or without what belongs to single tensors, is what it says after a step
/// that was refused: nothing has begun.
#[test]
fn a_refused_step_after_loading_leaves_no_trace() {
    for (wrapper, wrap) in wrappers() {
        for calls in 0..6 {
            let mut run = Run::new(wrap);
            run.train(calls);
            let whole = run.opt.state_dict();
            let mut without = whole.clone();
            for key in whole.keys() {
                if ["/average/", "/sum/", "/order/"].iter().any(|part| key.contains(part)) {
                    without.remove(key);
                }
            }
            for state in [whole, without] {
                let mut loaded = Run::new(wrap);
                loaded.opt.load_state_dict(&state).unwrap();
                let (before, params) = (loaded.opt.state_dict(), loaded.params.clone());
                loaded.dials.set(Some(Turned::To("learning_rate", f64::NAN)));
                for _ in 0..2 {
                    assert!(loaded.opt.step(&mut loaded.params, &tree(3.0)).is_err(), "{wrapper}");
                    assert_eq!(loaded.opt.state_dict(), before, "{wrapper} after {calls}");
                    assert_eq!(bits(&loaded.params), bits(&params), "{wrapper} after {calls}");
                }
                // The parameters may be others than those that were refused.
                loaded.dials.set(None);
                loaded.params = tree(5.0);
                let mut fresh = Run::new(wrap);
                fresh.params = tree(5.0);
                fresh.opt.load_state_dict(&state).unwrap();
                for call in 0..5 {
                    let reports =
                        [&mut loaded, &mut fresh].map(|run| run.opt.step(&mut run.params, &tree(f64::from(call))));
                    assert!(reports[0].is_ok() && reports[0] == reports[1], "{wrapper} after {calls}: {reports:?}");
                }
                assert_eq!(bits(&loaded.params), bits(&fresh.params), "{wrapper} after {calls}");
                assert_eq!(loaded.opt.state_dict(), fresh.opt.state_dict(), "{wrapper} after {calls}");
            }
        }
    }
}
