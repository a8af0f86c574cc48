//! One program, run several times: what must hold after every event, and what must be the same at the end.

use std::sync::{Arc, LazyLock};

use gradus::distributed::RankGroup as _;
use gradus::params::Layout;
use gradus::{Element, StateDict, Step};
use half::{bf16, f16};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::actions::Boxed;
use crate::build::{Context, Number, Ranks, build};
use crate::chains::Link;
use crate::dials::{Dials, Turn};
use crate::faults::{self, Fault};
use crate::programs::{Event, Program};
use crate::report::{Caught, Failure, Outcome, caught, random};
use crate::trees::{Names, Tree};

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Done,
    /// An error, which has changed nothing.
    Refused,
    /// A closure of the user's panicked, or a branch of ranks refused too late. Nothing is promised of what is the same afterwards.
    Torn,
}

/// In which way a program is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'w> {
    /// What came of the events in the run with faults; what was refused there is left out here.
    pub(crate) without: Option<&'w [How]>,
    pub(crate) resumes: bool,
    /// Other forms of memory for other numbers.
    pub(crate) forms: u64,
    pub(crate) threads: usize,
    /// Some other rank has gradients that no training has.
    pub(crate) is_wild: bool,
}

/// Where a run ended.
pub(crate) struct End {
    pub(crate) bits: Vec<u64>,
    pub(crate) state: StateDict,
    pub(crate) steps: u64,
    pub(crate) hows: Vec<How>,
}

static POOLS: LazyLock<[ThreadPool; 2]> =
    LazyLock::new(|| [1, 3].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap()));

/// Runs a program with its faults, and then without them in other ways that end with the same bits.
pub(crate) fn compare<A: Number>(program: &Program) -> Outcome {
    let run = |way: Way<'_>| {
        let pool = &POOLS[usize::from(way.threads > 1)];
        pool.install(|| Run::<A>::new(program, way, Ranks::Alone).all())
    };
    let first = run(Way { without: None, resumes: true, forms: 0, threads: 3, is_wild: false })?;
    let hows = first.hows.as_slice();
    let plain = Way { without: Some(hows), resumes: false, forms: 0, threads: 1, is_wild: false };
    let tell =
        |kind: &str, what: String| Failure::new(kind, format!("{program}\n  {what}\n  events:{}", told(program, hows)));
    let second = run(plain)?;
    if let Err(what) = same(&first, &second) {
        // Which of the three differences it was.
        for (kind, way) in [
            ("refused steps leave a trace", Way { resumes: true, threads: 3, ..plain }),
            ("resuming is not going on", Way { threads: 3, ..plain }),
        ] {
            if same(&first, &run(way)?).is_err() {
                return Err(tell(kind, what));
            }
        }
        return Err(tell("the number of threads shows", what));
    }
    if program.chain.has_full_state() {
        let third = run(Way { forms: 1, ..plain })?;
        if third.bits != first.bits || third.steps != first.steps {
            return Err(tell("the layout of memory shows", difference(&first.bits, &third.bits)));
        }
    }
    Ok(())
}

pub(crate) fn same(one: &End, other: &End) -> Result<(), String> {
    if one.bits != other.bits {
        return Err(format!("parameters: {}", difference(&one.bits, &other.bits)));
    }
    if one.steps != other.steps {
        return Err(format!("steps: {} and {}", one.steps, other.steps));
    }
    let (one, other) = (without_orders(&one.state), without_orders(&other.state));
    if one == other { Ok(()) } else { Err(format!("state: {}", states(&one, &other))) }
}

/// In which order of memory a tensor is kept may differ: its values may not.
fn without_orders(state: &StateDict) -> StateDict {
    let mut state = state.clone();
    let orders: Vec<_> = state.keys().filter(|key| key.contains("/order/")).map(str::to_owned).collect();
    orders.iter().for_each(|key| _ = state.remove(key));
    state
}

fn difference(one: &[u64], other: &[u64]) -> String {
    match one.iter().zip(other).position(|(a, b)| a != b) {
        Some(at) => format!("element {at} is {:?} and {:?}", f64::from_bits(one[at]), f64::from_bits(other[at])),
        None => format!("{} elements and {}", one.len(), other.len()),
    }
}

/// In which entry two states differ.
pub(crate) fn states(one: &StateDict, other: &StateDict) -> String {
    if one.layout() != other.layout() {
        return format!("layout {:?} and {:?}", one.layout().map(|l| l.len()), other.layout().map(|l| l.len()));
    }
    let entry = |state: &StateDict, key: &str| {
        let numbers = numbers(state, key).map(|numbers| format!("{numbers:?}"));
        state.text(key).map(str::to_owned).or(numbers).unwrap_or_else(|| "missing, or of another type".into())
    };
    let keys = one.keys().chain(other.keys());
    let all = keys.map(|key| (key, entry(one, key), entry(other, key)));
    let different = all.into_iter().find(|(_, a, b)| a != b);
    different.map_or("somewhere".into(), |(key, a, b)| format!("{key} is {a} and {b}"))
}

fn numbers(state: &StateDict, key: &str) -> Option<Vec<f64>> {
    fn of<A: Element>(state: &StateDict, key: &str) -> Option<Vec<f64>> {
        Some(state.tensor::<A>(key)?.iter().map(|x| x.as_f64()).collect())
    }
    of::<f32>(state, key)
        .or_else(|| of::<f64>(state, key))
        .or_else(|| of::<f16>(state, key))
        .or_else(|| of::<bf16>(state, key))
}

/// Whether all numbers of a state are finite and of a size that a training has.
fn is_sane(state: &StateDict) -> bool {
    let keys: Vec<_> = state.keys().collect();
    keys.into_iter().filter_map(|key| numbers(state, key)).flatten().all(|x| x.abs() <= 1e8)
}

pub(crate) fn told(program: &Program, hows: &[How]) -> String {
    program.events.iter().zip(hows).map(|(event, how)| format!("\n    {event:?} → {how:?}")).collect()
}

/// Everything there is to see of a chain.
#[derive(PartialEq)]
struct Seen {
    memory: Vec<u64>,
    state: StateDict,
    steps: u64,
    rate: u64,
    layout: Option<Arc<Layout>>,
}

/// A program on its way.
pub(crate) struct Run<'p, A> {
    program: &'p Program,
    way: Way<'p>,
    dials: Dials,
    ranks: Ranks,
    opt: Boxed<A>,
    pub(crate) params: Tree<A>,
    hows: Vec<How>,
    /// Paths and shapes that a step was accepted for, and whether it moved.
    known: Option<(Names, bool)>,
    /// Numbers went in that no training has.
    is_wild: bool,
    panicked: bool,
    /// The user wrote into parameters of which there are masters.
    wrote: bool,
    rank: u64,
}

impl<'p, A: Number> Run<'p, A> {
    pub(crate) fn new(program: &'p Program, way: Way<'p>, ranks: Ranks) -> Self {
        let mut dials = Dials::default();
        let opt = build(&program.chain, &mut Context { dials: &mut dials, ranks: ranks.clone() });
        let params = program.tree.like(1.0, &mut random(program.seed, 1), &mut random(program.seed, 2 + way.forms));
        let (rank, hows) = (ranks.rank() as u64, Vec::new());
        let [is_wild, panicked, wrote] = [false; 3];
        Self { program, way, dials, ranks, opt, params, hows, known: None, is_wild, panicked, wrote, rank }
    }

    /// Runs all events, or, in a run without faults, those before the first panic of the user's.
    pub(crate) fn all(mut self) -> Outcome<End> {
        let mut end = None;
        for (at, event) in self.program.events.iter().enumerate() {
            let how = self.way.without.and_then(|hows| hows.get(at).copied());
            if how == Some(How::Torn) {
                break;
            }
            let before = end.is_none().then(|| self.end());
            let how = match how {
                Some(How::Refused) => {
                    self.write(event);
                    How::Refused
                }
                _ => self.event(event).map_err(|failure| {
                    let told = told(self.program, &self.hows);
                    failure.after(format!("{}\n  events:{told}\n    {event:?} → failed", self.program))
                })?,
            };
            self.hows.push(how);
            if how == How::Torn && end.is_none() {
                end = before;
                self.panicked = true;
                if matches!(self.ranks, Ranks::Threads(_)) {
                    break; // the others wait in other calls
                }
            }
        }
        let mut end = end.unwrap_or_else(|| self.end());
        end.hows = self.hows;
        Ok(end)
    }

    fn end(&self) -> End {
        End { bits: self.params.bits(), state: self.opt.state_dict(), steps: self.opt.steps(), hows: Vec::new() }
    }

    fn seen(&self, params: &Tree<A>) -> Seen {
        Seen {
            memory: params.memory(),
            state: self.opt.state_dict(),
            steps: self.opt.steps(),
            rate: self.opt.learning_rate().to_bits(),
            layout: self.opt.layout().cloned(),
        }
    }

    /// What the user writes into parameters before a step stays, whatever comes of the step.
    fn write(&mut self, event: &Event) {
        if let Event::Step { seed, faults, .. } = event {
            for fault in faults {
                if let Fault::Parameter(value) = fault {
                    self.wrote |= self.program.chain.links.iter().any(|link| matches!(link, Link::MasterWeights));
                    faults::set(&mut self.params, *value, &mut random(*seed, 4));
                }
            }
        }
    }

    fn event(&mut self, event: &Event) -> Outcome<How> {
        match event {
            Event::Step { seed, size, faults, asked } => self.step(*seed, *size, faults, *asked),
            Event::Act(depth, action) => {
                let before = self.seen(&self.params);
                let result = caught(|| self.opt.act(*depth, action, &mut self.params));
                self.judge(result, &before, None).map(|(how, _)| how)
            }
            Event::Resume(anew) => {
                if !self.way.resumes {
                    return Ok(How::Done);
                }
                let before = self.seen(&self.params);
                if *anew {
                    let mut dials = Dials::default();
                    self.opt =
                        build(&self.program.chain, &mut Context { dials: &mut dials, ranks: self.ranks.clone() });
                    self.dials = dials;
                }
                match caught(|| self.opt.load_state_dict(&before.state)) {
                    Err(panic) => Err(panicked(&panic)),
                    Ok(Err(_)) if self.panicked => Ok(How::Refused),
                    Ok(Err(error)) => {
                        Err(Failure::new(format!("a chain's own state is refused: {}", kind(&error)), error))
                    }
                    Ok(Ok(())) => {
                        let after = self.seen(&self.params);
                        if after.state != before.state {
                            return Err(Failure::new(
                                "a state is another once loaded",
                                states(&before.state, &after.state),
                            ));
                        }
                        Ok(How::Done)
                    }
                }
            }
            Event::Metric(metric) => {
                self.dials.observe(*metric);
                Ok(How::Done)
            }
            Event::Counters(value) => {
                let before = self.seen(&self.params);
                let mut state = before.state.clone();
                let counters: Vec<_> = state.keys().filter(|key| key.ends_with("/steps")).map(str::to_owned).collect();
                counters.into_iter().for_each(|key| state.insert_text(key, value));
                let result = caught(|| self.opt.load_state_dict(&state));
                self.judge(result, &before, None).map(|(how, _)| how)
            }
        }
    }

    fn step(&mut self, seed: u64, size: f64, faults: &[Fault], asked: bool) -> Outcome<How> {
        self.write(&Event::Step { seed, size, faults: faults.to_vec(), asked });
        let spoil = &mut random(seed, 3);
        let mut params = self.params.clone();
        for fault in faults {
            if let Fault::Both(edit) = fault {
                faults::edit_tree(&mut params, *edit, spoil);
            }
        }
        let mut grads: Tree<A> =
            params.like(size, &mut random(seed, 8 + self.rank), &mut random(seed, 2 + self.way.forms));
        for fault in faults {
            match fault {
                Fault::Parameters(edit) => faults::edit_tree(&mut params, *edit, spoil),
                other => faults::spoil(&mut grads, other, spoil),
            }
        }
        let before = self.seen(&params);
        let turn = |dials: &Dials, on: bool| {
            for fault in faults {
                if let Fault::Dial(dial, turn) = fault {
                    dials.turn(dial % dials.len().max(1), on.then_some(*turn));
                }
            }
        };
        turn(&self.dials, true);
        let allowed = asked.then(|| {
            caught(|| {
                let step = Step::pair(&mut params, &grads, self.opt.layout())?;
                self.opt.check(&step)
            })
        });
        let sane = !self.is_wild
            && !self.way.is_wild
            && !self.is_any_wild(faults)
            && params.largest() <= 1e4
            && grads.largest() <= 3.2e4
            && is_sane(&before.state);
        let names = params.names();
        let result = caught(|| self.opt.step(&mut params, &grads));
        turn(&self.dials, false);
        let (how, report) = self.judge(result, &before, Some(&params))?;
        match allowed {
            Some(Err(panic)) if !panic.is_the_users() => return Err(panicked(&panic)),
            // Between ranks `check` says nothing of what only one rank knows.
            Some(Ok(Ok(()))) if how == How::Refused && !self.program.chain.any(&Link::is_between_ranks) => {
                return Err(Failure::new("check accepts what apply refuses", format!("{faults:?}")));
            }
            // K-FAC's check asks about the gradients as they come: to precondition them is most of a step's work.
            Some(Ok(Err(gradus::Error::Step(gradus::error::StepError::NormOverflow { .. }))))
                if how == How::Done && self.program.chain.any(&|link| matches!(link, Link::Kfac { .. })) => {}
            // Between ranks it does not know what gradients others skip for.
            Some(Ok(Err(_)))
                if how == How::Done && self.is_any_wild(faults) && self.program.chain.any(&Link::is_between_ranks) => {}
            Some(Ok(Err(error))) if how == How::Done => {
                return Err(Failure::new(format!("check refuses what apply accepts: {}", kind(&error)), error));
            }
            _ => {}
        }
        let Some(report) = report else { return Ok(how) };
        // A step that all ranks skip before they have begun is not remembered.
        let begun = |moved: bool| moved || !self.program.chain.any(&Link::is_between_ranks);
        if let Some((known, moved)) = &self.known
            && *known != names
            && begun(*moved)
        {
            let when = if *moved { "a step that moved" } else { "a step that did not move" };
            return Err(Failure::new(
                format!("other parameters are accepted after {when}"),
                format!("{known:?} before, {names:?} now"),
            ));
        }
        let moved = report.moved || self.known.as_ref().is_some_and(|(_, moved)| *moved);
        self.known = Some((names, moved));
        if !report.moved && !self.wrote && params.memory() != before.memory {
            return Err(Failure::new("parameters move without `moved`", difference(&before.memory, &params.memory())));
        }
        // A sane step may be beyond the numbers of f16.
        let largest = params.largest();
        if sane && (largest.is_nan() || largest.is_infinite() && A::DTYPE != "f16") {
            return Err(Failure::new(
                "sane numbers become NaN or infinite",
                difference(&before.memory, &params.memory()),
            ));
        }
        self.is_wild |= self.is_any_wild(faults);
        self.params = params;
        Ok(how)
    }

    /// Whether the numbers of a step are not those of a sane training. A group brings what the type cannot hold back into it.
    fn is_any_wild(&self, faults: &[Fault]) -> bool {
        let is_grouped = self.program.chain.any(&|link| matches!(link, Link::Group(..)));
        faults.iter().any(|fault| fault.is_wild() || is_grouped && matches!(fault, Fault::Dial(_, Turn::To(_))))
    }

    /// What must hold after a call, by what came of it. `params` are those of a step.
    fn judge<T>(
        &self,
        result: Result<gradus::Result<T>, Caught>,
        before: &Seen,
        params: Option<&Tree<A>>,
    ) -> Outcome<(How, Option<T>)> {
        let error = match result {
            Err(panic) if panic.is_the_users() => return Ok((How::Torn, None)),
            Err(panic) => return Err(panicked(&panic)),
            Ok(Ok(value)) => return Ok((How::Done, Some(value))),
            Ok(Err(error)) => error,
        };
        // The documented exception. Without ranks no optimizer of this crate is the cause.
        if matches!(error, gradus::Error::RefusedTooLate { .. }) && self.program.chain.any(&Link::is_between_ranks) {
            return Ok((How::Torn, None));
        }
        let after = self.seen(params.unwrap_or(&self.params));
        let changed =
            |what: &str, how: String| Failure::new(format!("{what} after {}", kind(&error)), format!("{error}: {how}"));
        if after.memory != before.memory {
            return Err(changed("parameters have changed", difference(&before.memory, &after.memory)));
        }
        if after.state != before.state {
            return Err(changed("state has changed", states(&before.state, &after.state)));
        }
        if (after.steps, after.rate) != (before.steps, before.rate) {
            return Err(changed("counters have changed", format!("{} and {} steps", before.steps, after.steps)));
        }
        if after.layout != before.layout {
            return Err(changed("the layout has changed", format!("{:?} and {:?}", before.layout, after.layout)));
        }
        Ok((How::Refused, None))
    }
}

fn panicked(panic: &Caught) -> Failure {
    Failure::new(format!("panic at {}", panic.place), &panic.message)
}

/// An error's variant.
fn kind(error: &gradus::Error) -> String {
    let text = format!("{error:#?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}
