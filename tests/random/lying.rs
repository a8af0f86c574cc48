//! Trees that lie: a user's own walk that shows something else each time, or panics, in every call that takes a tree.

use std::sync::atomic::{AtomicUsize, Ordering};

use gradus::adaptor::{Adapted, Ema, Lookahead, Swa};
use gradus::checkpoint::Checkpoint;
use gradus::distributed::Alone;
use gradus::federated::privacy::GaussianMechanism;
use gradus::federated::secure::{FixedPoint, Masked, MaskedSum, Masker};
use gradus::federated::{Clients, Proximal, Reply, Scaffold, Server, Task, Tensors, Update};
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use gradus::{Result, StateDict, check, clip, prelude::*};
use rand::RngExt;

use crate::actions::Boxed;
use crate::build::{Context, Ranks, build};
use crate::chains::Surroundings;
use crate::dials::Dials;
use crate::faults::{Edit, edit_tree};
use crate::report::{Draw, Failure, Outcome, USER, caught, random};
use crate::runs::states;
use crate::trees::{self, Tree};

/// Which of its versions a liar shows in a walk; this one panics.
const PANIC: usize = usize::MAX;

/// A tree with several versions. The first is the honest one.
struct Liar {
    versions: Vec<Tree<f64>>,
    /// What each walk shows; the later ones are honest.
    shows: Vec<usize>,
    walks: AtomicUsize,
}

impl Clone for Liar {
    fn clone(&self) -> Self {
        let walks = AtomicUsize::new(self.walks.load(Ordering::Relaxed));
        Self { versions: self.versions.clone(), shows: self.shows.clone(), walks }
    }
}

impl Liar {
    fn honest(tree: &Tree<f64>) -> Self {
        Self { versions: vec![tree.clone()], shows: Vec::new(), walks: AtomicUsize::new(0) }
    }

    fn draw(tree: &Tree<f64>, random: &mut impl RngExt) -> Self {
        let edits = [
            Edit::Missing,
            Edit::Extra,
            Edit::Renamed,
            Edit::Reshaped,
            Edit::Reshaped,
            Edit::Repeated,
            Edit::Reordered,
            Edit::Emptied,
            Edit::None,
        ];
        let mut liar = Self::honest(tree);
        for _ in 0..2 {
            let mut lie = tree.clone();
            if random.chance(0.15) {
                let forms = &mut crate::report::random(random.random(), 0);
                lie = lie.like(1.0, random, forms);
            } else {
                edit_tree(&mut lie, random.pick(&edits), random);
            }
            liar.versions.push(lie);
        }
        let honest = random.below(5);
        liar.shows = vec![0; honest];
        let lies = 1 + random.below(8);
        liar.shows.extend((0..lies).map(|_| random.pick(&[0, 1, 1, 2, PANIC])));
        if random.chance(0.7) {
            liar.shows.iter_mut().for_each(|show| *show = if *show == PANIC { 1 } else { *show });
        }
        liar
    }

    fn next(&self) -> usize {
        let walk = self.walks.fetch_add(1, Ordering::Relaxed);
        let show = self.shows.get(walk).copied().unwrap_or(0);
        if show == PANIC {
            panic!("{USER} in a walk");
        }
        show
    }

    /// What the last walk showed.
    fn last(&self) -> usize {
        let walks = self.walks.load(Ordering::Relaxed);
        walks.checked_sub(1).and_then(|last| self.shows.get(last).copied()).unwrap_or(0)
    }

    fn memory(&self) -> Vec<Vec<u64>> {
        self.versions.iter().map(Tree::memory).collect()
    }
}

impl Params for Liar {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        self.versions[self.next()].visit(visitor);
    }
}

impl ParamsMut for Liar {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        let next = self.next();
        self.versions[next].visit_mut(visitor);
    }
}

/// One client whose model is whatever the liar says.
struct OneClient(Option<Liar>);

impl Clients<Liar> for OneClient {
    fn count(&self) -> usize {
        1
    }

    fn train(&mut self, tasks: Vec<(usize, Task<Liar>)>) -> Vec<Reply<Liar>> {
        let answer = |(client, task): (usize, Task<Liar>)| {
            let model = self.0.take().unwrap_or_else(|| task.model().clone());
            Reply::new(client, Update::new(model, 1.0))
        };
        tasks.into_iter().map(answer).collect()
    }
}

/// All that can be given a tree, having seen the honest one.
struct Places {
    chain: Boxed<f64>,
    ema: Adapted<Adam<f64>, Ema<f64>>,
    swa: Adapted<Sgd<f64>, Swa<f64>>,
    lookahead: Adapted<Sgd<f64>, Lookahead<f64>>,
    lbfgs: Lbfgs<f64>,
    proximal: Adapted<Sgd<f64>, Proximal<f64>>,
    scaffold: Adapted<Sgd<f64>, Scaffold<f64>>,
    server: Server<Sgd<f64>, f64>,
    checkpoint: Checkpoint,
    mechanism: GaussianMechanism,
    masker: Masker,
    sum: MaskedSum,
}

impl Places {
    fn new(seed: u64, tree: &Tree<f64>) -> Self {
        let mut random = random(seed, 9);
        let names = tree.names();
        let surroundings = Surroundings { names: &names, is_half: false, is_distributed: false };
        let chain = surroundings.chain(3, &mut random);
        let mut dials = Dials::default();
        let fixed = FixedPoint::new(10, 2).unwrap();
        let secrets = |other| [(other, [7; 32])].into();
        let mut maskers = [Masker::new(0, secrets(1), fixed).unwrap(), Masker::new(1, secrets(0), fixed).unwrap()];
        let elements = tree.bits().len();
        let mut sum = MaskedSum::new(fixed, 0, [0, 1], elements).unwrap();
        for masker in &mut maskers {
            let client = masker.client();
            sum.add(&masker.mask(0, tree).unwrap_or(Masked::new(client, 0, vec![0; elements]))).unwrap();
        }
        let [masker, _] = maskers;
        let mut places = Self {
            chain: build(&chain, &mut Context { dials: &mut dials, ranks: Ranks::Alone }),
            ema: Adam::new(0.1).ema(0.9),
            swa: Sgd::new(0.1).swa(0, 1),
            lookahead: Sgd::new(0.1).lookahead(2, 0.5),
            lbfgs: Lbfgs::new(1.0),
            proximal: Sgd::new(0.1).proximal(0.1),
            scaffold: Sgd::new(0.1).scaffold(),
            server: Server::new(Sgd::new(1.0)),
            checkpoint: Checkpoint::of_params(tree).unwrap_or_default(),
            mechanism: GaussianMechanism::new(1.0, 1.0, 0.5, 1).unwrap(),
            masker,
            sum,
        };
        if random.chance(0.7) {
            places.step(&mut tree.clone(), tree);
        }
        places
    }

    /// An honest step of everything; what it refuses it refuses.
    fn step(&mut self, params: &mut Tree<f64>, grads: &Tree<f64>) {
        let task = Task::new(0, params.clone());
        _ = self.proximal.begin_round(&task);
        if let Ok(control) = Tensors::of(params) {
            _ = self.scaffold.begin_round(&task.clone().with_control(std::sync::Arc::new(control)));
        }
        let all: [&mut dyn Optimizer<f64>; 7] = [
            &mut self.chain,
            &mut self.ema,
            &mut self.swa,
            &mut self.lookahead,
            &mut self.lbfgs,
            &mut self.proximal,
            &mut self.scaffold,
        ];
        all.into_iter().for_each(|opt| _ = opt.step(params, grads));
        _ = self.server.round(&mut Liar::honest(params), &mut OneClient(None));
    }

    fn states(&self) -> Vec<StateDict> {
        let all: [&dyn Optimizer<f64>; 7] =
            [&self.chain, &self.ema, &self.swa, &self.lookahead, &self.lbfgs, &self.proximal, &self.scaffold];
        let mut states: Vec<_> = all.iter().map(|opt| opt.state_dict()).collect();
        states.push(self.server.state_dict());
        states
    }
}

/// Everything that takes a tree.
const CALLS: [&str; 24] = [
    "chain.step",
    "chain.step, the gradients lie too",
    "ema.read",
    "ema.swap",
    "swa.read",
    "swa.swap",
    "lookahead.read",
    "lookahead.swap",
    "clip::global_norm",
    "clip::per_tensor_norm",
    "clip::value",
    "clip::adaptive",
    "Checkpoint::of",
    "checkpoint.load",
    "checkpoint.load_params",
    "check::gradients",
    "lbfgs.step_with",
    "lbfgs.step_with, the gradients lie",
    "Tensors::of",
    "server.round",
    "server.round, the client lies",
    "begin_round and end_round",
    "mechanism",
    "masks, broadcast",
];

fn call(which: usize, places: &mut Places, params: &mut Liar, grads: &mut Liar) -> Result<()> {
    let loss =
        |params: &Liar| params.versions[0].bits().iter().map(|bits| f64::from_bits(*bits).powi(2)).sum::<f64>() / 2.0;
    match CALLS[which] {
        "chain.step" => places.chain.step(params, &grads.versions[0]).map(drop),
        "chain.step, the gradients lie too" => places.chain.step(params, grads).map(drop),
        "ema.read" => places.ema.read(params),
        "ema.swap" => places.ema.swap(params),
        "swa.read" => places.swa.read(params),
        "swa.swap" => places.swa.swap(params),
        "lookahead.read" => places.lookahead.read(params),
        "lookahead.swap" => places.lookahead.swap(params),
        "clip::global_norm" => clip::global_norm(params, 0.1).map(drop),
        "clip::per_tensor_norm" => clip::per_tensor_norm(params, 0.1).map(drop),
        "clip::value" => clip::value(params, 0.1).map(drop),
        "clip::adaptive" => clip::adaptive(params, grads, 0.1).map(drop),
        "Checkpoint::of" => Checkpoint::of(params, &places.chain).and_then(|file| file.to_bytes()).map(drop),
        "checkpoint.load" => {
            let file = Checkpoint::of(&params.versions[0], &places.ema)?;
            file.load(params, &mut places.ema)
        }
        "checkpoint.load_params" => places.checkpoint.load_params(params),
        "check::gradients" => check::gradients(params, grads, loss).map(drop),
        "lbfgs.step_with" => {
            places.lbfgs.step_with(params, |params| (loss(params), params.versions[0].clone())).map(drop)
        }
        "lbfgs.step_with, the gradients lie" => {
            let grads = grads.clone();
            let mut honest = Liar::honest(&params.versions[0]);
            let result = places.lbfgs.step_with(&mut honest, |params| {
                let walks = AtomicUsize::new(grads.walks.load(Ordering::Relaxed));
                let mut versions = grads.versions.clone();
                versions[0] = params.versions[0].clone();
                grads.walks.fetch_add(1, Ordering::Relaxed);
                (loss(params), Liar { versions, shows: grads.shows.clone(), walks })
            });
            params.versions[0] = honest.versions.swap_remove(0);
            result.map(drop)
        }
        "Tensors::of" => Tensors::of(params).map(drop),
        "server.round" => places.server.round(params, &mut OneClient(Some(grads.clone()))).map(drop),
        "server.round, the client lies" => {
            let mut honest = Liar::honest(&params.versions[0]);
            let result = places.server.round(&mut honest, &mut OneClient(Some(grads.clone())));
            params.versions[0] = honest.versions.swap_remove(0);
            result.map(drop)
        }
        "begin_round and end_round" => {
            places.proximal.begin_round(&Task::new(1, params.clone()))?;
            places.scaffold.end_round(params).map(drop)
        }
        "mechanism" => {
            places.mechanism.clip_change(params)?;
            places.mechanism.finish(params)
        }
        _ => {
            places.masker.mask(1, params)?;
            places.sum.unmask(params)?;
            Sgd::new(0.1).data_parallel(Alone).broadcast(params)?;
            Sgd::new(0.1).sharded(Alone).broadcast(params)
        }
    }
}

pub(crate) fn case(seed: u64) -> Outcome {
    let mut random = random(seed, 10);
    let shapes = trees::tree(&mut random);
    let fresh =
        |part| shapes.like(1.0, &mut crate::report::random(seed, part), &mut crate::report::random(seed, part + 1));
    let (tree, grads): (Tree<f64>, Tree<f64>) = (fresh(11), fresh(13));
    let which = random.below(CALLS.len());
    let mut params = Liar::draw(&tree, &mut random);
    let mut liars = Liar::draw(&grads, &mut random);
    let mut places = Places::new(seed, &tree);
    let (memory, before) = (params.memory(), places.states());
    let beginnings: Vec<_> = params.versions.iter().map(Tree::bits).collect();
    let story = || {
        let lies: Vec<_> = params.versions.iter().map(|tree| format!("\n    {tree}")).collect();
        format!(
            "{} of {}\n  walks show {:?}, of the gradients {:?}",
            CALLS[which],
            lies.concat(),
            params.shows,
            liars.shows
        )
    };
    let story = story();
    let result = caught(|| call(which, &mut places, &mut params, &mut liars));
    let failure =
        |kind: &str, what: String| Err(Failure::new(format!("{}: {kind}", CALLS[which]), format!("{story}\n  {what}")));
    let refused = match result {
        Err(panic) if !panic.is_the_users() => return failure(&format!("panic at {}", panic.place), panic.message),
        Ok(Err(error)) => Some(error),
        _ => None,
    };
    // The account of a mechanism, and rounds and masks that were begun, are not taken back.
    let several = ["mechanism", "masks, broadcast", "begin_round and end_round"].contains(&CALLS[which]);
    if let Some(error) = refused.filter(|_| !several) {
        // A tree that hides what is to be put back keeps it.
        let shown = params.last();
        // Nor can it be told from the one that was stepped when another with the same tensors is shown in its place: that gets what
        // is put back.
        let is_put_back =
            |at: usize| CALLS[which] == "lbfgs.step_with" && beginnings.contains(&params.versions[at].bits());
        if shown != PANIC && params.memory()[shown] != memory[shown] && !is_put_back(shown) {
            return failure("parameters have changed after an error", error.to_string());
        }
        for (before, after) in before.iter().zip(places.states()) {
            if *before != after {
                return failure("state has changed after an error", format!("{error}: {}", states(before, &after)));
            }
        }
        let mut ends = [tree.clone(), tree.clone()];
        let mut twin = Places::new(seed, &tree);
        twin.step(&mut ends[0], &grads);
        match caught(|| places.step(&mut ends[1], &grads)) {
            Err(panic) => return failure(&format!("a later panic at {}", panic.place), panic.message),
            Ok(()) if ends[0].bits() != ends[1].bits() => {
                return failure("later steps differ after an error", error.to_string());
            }
            Ok(()) => {}
        }
    } else if let Err(panic) = caught(|| places.step(&mut tree.clone(), &grads)) {
        return failure(&format!("a later panic at {}", panic.place), panic.message);
    }
    Ok(())
}
