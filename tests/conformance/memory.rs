//! The memory table of the guide: the bytes that every optimizer holds and needs, counted at the allocator.

use std::collections::{BTreeMap, BTreeSet};

use allocation_counter::measure;
use gradus::optimizer::NAMES;
use gradus::prelude::*;
use gradus::rule::{Elementwise, Factored, FactoredRule, MatrixRule, Matrixwise, Rounding, Rule, StatePrecision};
use ndarray::{Array2, ArrayD, Zip};
use serde_json::Value;

/// Rows and columns of the matrix that is stepped.
const SIDE: usize = 1024;

/// All state is there after the first step, except that of L-BFGS.
const STEPS: usize = 2;

/// Steps after which L-BFGS has all of its 10 pairs.
const STEPS_OF_LBFGS: usize = 12;

/// Bytes per parameter of paths, shapes and counters: 1.5 KiB for one matrix.
const OTHERS: f64 = 0.0015;

/// Smaller numbers have a digit more in the table.
const SMALL: f64 = 0.1;

/// Of scratch memory, relative: the buffers of matrix products depend on the SIMD level and the caches of the machine.
const SCRATCH_TOLERANCE: f64 = 0.05;

/// Bytes per parameter of the buffers for blocks that an optimizer keeps between steps. They do not grow with the matrix.
const KEPT: f64 = 0.5;

/// How the state is stored, in the order of the columns.
const PRECISIONS: [StatePrecision; 4] = [
    StatePrecision::Full,
    StatePrecision::Bf16(Rounding::Stochastic),
    StatePrecision::Blockwise8,
    StatePrecision::Blockwise4(Rounding::Stochastic),
];

/// Bytes per parameter.
struct Measured {
    /// Held after a step.
    held: f64,
    /// Needed beside it during a step.
    scratch: f64,
    /// What `state_bytes` returns, if there is such a method.
    said: Option<f64>,
}

type Said<O> = fn(&O) -> Option<usize>;

/// Counts the memory of an optimizer that steps a matrix down a parabola.
fn measured<O: Optimizer<f32>>(steps: usize, make: impl Fn() -> O + Send + Sync, said: Said<O>) -> Measured {
    let wave = |phase: usize| Array2::from_shape_fn((SIDE, SIDE), |(i, j)| ((i * 31 + j * 17 + phase) % 101) as f32);
    // All in one thread, which is the one whose allocations are counted.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let (mut params, curvature) = (wave(0) / 50.0 - 1.0, wave(7) / 100.0 + 0.5);
        let mut grads = params.clone();
        // The matrix products of faer keep one buffer for each thread, of 4 MiB at every size.
        let small = Array2::ones((64, 64));
        make().step(&mut small.clone(), &small).unwrap();
        let mut kept = None;
        let counted = measure(|| {
            let opt = kept.insert(make());
            for _ in 0..steps {
                Zip::from(&mut grads).and(&params).and(&curvature).for_each(|grad, w, c| *grad = c * w);
                opt.step(&mut params, &grads).unwrap();
            }
        });
        let per_parameter = |bytes: f64| bytes / (SIDE * SIDE) as f64;
        let held = counted.bytes_current as f64;
        Measured {
            held: per_parameter(held),
            scratch: per_parameter(counted.bytes_max as f64 - held),
            said: kept.and_then(|opt| said(&opt)).map(|bytes| per_parameter(bytes as f64)),
        }
    })
}

/// An optimizer in every precision of state that it has.
trait Subject: Optimizer<f32> + Sized {
    fn all(make: fn() -> Self) -> Vec<Measured>;
}

impl<R: Rule<f32>> Subject for Elementwise<R, f32> {
    fn all(make: fn() -> Self) -> Vec<Measured> {
        let one = |precision| measured(STEPS, || make().state_precision(precision), |opt| Some(opt.state_bytes()));
        PRECISIONS.into_iter().map(one).collect()
    }
}

impl<R: MatrixRule<f32>> Subject for Matrixwise<R, f32> {
    fn all(make: fn() -> Self) -> Vec<Measured> {
        vec![measured(STEPS, make, |opt| Some(opt.state_bytes()))]
    }
}

impl<R: FactoredRule<f32>> Subject for Factored<R, f32> {
    fn all(make: fn() -> Self) -> Vec<Measured> {
        vec![measured(STEPS, make, |opt| Some(opt.state_bytes()))]
    }
}

impl Subject for Lbfgs<f32> {
    fn all(make: fn() -> Self) -> Vec<Measured> {
        vec![measured(STEPS_OF_LBFGS, make, |_| None)]
    }
}

/// Defines `measurements`: every optimizer, with its defaults unless there is a call.
macro_rules! measurements {
    ($($(#[$when:meta])* $name:ident $(($($argument:expr),*))?;)*) => {
        const MEASURED: &[&str] = &[$($(#[$when])* stringify!($name)),*];

        fn measurements(of: &str) -> Vec<Measured> {
            $($(#[$when])* if of == stringify!($name) {
                return <$name<f32> as Subject>::all(|| measurements!(@make $name $(($($argument),*))?));
            })*
            panic!("{of} is not measured")
        }
    };
    (@make $name:ident) => { $name::new(0.01) };
    (@make $name:ident ($($argument:expr),*)) => { $name::new($($argument),*) };
}

measurements! {
    AdaBelief;
    Adadelta;
    Adafactor;
    Adagrad;
    AdaHessian;
    Adam;
    AdamW;
    AdamMini;
    Adamax;
    Adan;
    AdEMAMix;
    Adopt;
    Asgd;
    Came;
    DAdaptAdam;
    DAdaptSgd;
    DoG;
    DoWG;
    #[cfg(feature = "second-order")]
    Kron;
    Lamb;
    Lars(0.01, 0.9);
    LaProp;
    Lbfgs;
    Lion;
    Apollo;
    ApolloMini;
    #[cfg(feature = "second-order")]
    GaLore;
    Madgrad;
    Mars;
    MarsLion;
    Momentum(0.01, 0.9);
    AdaMuon;
    Dion;
    Muon;
    NorMuon;
    Scion;
    NAdam;
    NAdamW;
    Nesterov(0.01, 0.9);
    NovoGrad;
    Prodigy;
    RAdam;
    RAdamW;
    RmsProp;
    Rprop;
    AdamWScheduleFree;
    RAdamScheduleFree;
    SgdScheduleFree;
    Sgd;
    Sm3;
    Signum;
    SimplifiedAdEMAMix;
    SignSgd;
    #[cfg(feature = "second-order")]
    Shampoo;
    #[cfg(feature = "second-order")]
    Soap;
    #[cfg(feature = "second-order")]
    KlSoap;
    Sophia;
    StableAdamW;
    Yogi;
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The rows of the guide's table: the cells after each optimizer's name.
fn table() -> BTreeMap<String, Vec<String>> {
    let page = read("guide/memory.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| [`").or_else(|| line.strip_prefix("| `")));
    let rows = rows.map(|row| {
        let (name, rest) = row.split_once('`').unwrap();
        let cells = rest.trim_end_matches(" |").split(" | ").skip(1).map(|cell| cell.trim().to_owned());
        (name.to_owned(), cells.collect())
    });
    rows.collect()
}

/// A number as the table has it: with two digits after the point, or three if it is small.
fn written(number: f64) -> String {
    let text = if number < SMALL { format!("{number:.3}") } else { format!("{number:.2}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How far a number in the table may be from what is measured.
fn tolerance(number: f64) -> f64 {
    OTHERS + if number < SMALL { 0.0005 } else { 0.005 }
}

/// The cells of an optimizer: the bytes held for each precision, and the scratch memory of the one that needs most.
fn cells(all: &[Measured]) -> Vec<String> {
    let mut cells: Vec<_> = all.iter().map(|one| written(one.held)).collect();
    cells.resize(PRECISIONS.len(), "–".into());
    cells.push(written(all.iter().fold(0.0, |most, one| one.scratch.max(most))));
    cells
}

/// Whether two cells are the same number within a tolerance, or the same text.
fn same(found: &str, expected: &str, tolerance: impl Fn(f64) -> f64) -> bool {
    match (found.parse::<f64>(), expected.parse::<f64>()) {
        (Ok(found), Ok(expected)) => (found - expected).abs() <= tolerance(expected),
        _ => found == expected,
    }
}

#[test]
fn every_optimizer_has_a_row_and_is_measured() {
    let names: BTreeSet<_> = NAMES.iter().flat_map(|file| file.iter().copied()).collect();
    let rows = table();
    assert_eq!(names, MEASURED.iter().copied().collect(), "those that are measured");
    let rows: BTreeSet<_> = rows.keys().map(String::as_str).collect();
    assert!(names.is_subset(&rows), "not in guide/memory.md: {:?}", names.difference(&rows));
    if cfg!(feature = "second-order") {
        assert_eq!(names, rows, "those in guide/memory.md");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes if it is not optimized; .ci/run asks for it, optimized")]
fn the_table_has_what_is_measured() {
    let (rows, mut wrong) = (table(), Vec::new());
    for name in MEASURED {
        let all = measurements(name);
        for one in &all {
            if one.said.is_some_and(|said| !(0.0..KEPT).contains(&(one.held - said))) {
                wrong.push(format!("{name} holds {} and state_bytes returns {:?}", one.held, one.said));
            }
        }
        let (measured, guide) = (cells(&all), rows.get(*name).cloned().unwrap_or_default());
        let (scratch, held) = measured.split_last().unwrap();
        let right = guide.len() > held.len()
            && held.iter().zip(&guide).all(|(measured, guide)| same(guide, measured, tolerance))
            && same(&guide[held.len()], scratch, |scratch| tolerance(scratch) + SCRATCH_TOLERANCE * scratch);
        println!("{name}: {}", measured.join(" | "));
        if !right {
            wrong.push(format!("{name}: measured {}, and the guide has {}", measured.join(" | "), guide.join(" | ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The cell with other libraries' numbers: `torchao 2.03 in 8 bits, torch 8`.
#[test]
fn the_table_has_what_was_measured_of_other_libraries() {
    let peers: Value = serde_json::from_str(&read("tests/golden/peer_memory.json")).unwrap();
    let text = |case: &Value, key: &str| case[key].as_str().unwrap_or_else(|| panic!("no {key}: {case}")).to_owned();
    let (mut expected, page) = (BTreeMap::<String, Vec<String>>::new(), read("guide/memory.md"));
    for case in peers["cases"].as_array().unwrap() {
        let [library, optimizer, precision, version] =
            ["library", "optimizer", "precision", "version"].map(|key| text(case, key));
        let state = written(case["state"].as_f64().unwrap());
        let bits = if precision == "f32" { String::new() } else { format!(" in {precision}") };
        expected.entry(optimizer).or_default().push(format!("{library} {state}{bits}"));
        assert!(page.contains(&format!("{library} {version}")), "the page does not have the version of {library}");
    }
    for (name, cells) in table() {
        let peers = expected.remove(&name).unwrap_or_default().join(", ");
        assert_eq!(cells.last().map(String::as_str), Some(&*peers), "other libraries' {name}");
    }
    assert!(expected.is_empty(), "{expected:?}");
}

/// A tensor with two long axes that are not its last has sums for each index of the others.
#[test]
fn the_sums_of_adafactor_take_memory_in_proportion_to_the_tensor() {
    let per_element = |others: usize| {
        let shape = [vec![9; 2], vec![8; others]].concat();
        let (mut opt, mut w, grad) = (Adafactor::new(0.1), ArrayD::<f32>::ones(shape.clone()), ArrayD::ones(shape));
        opt = opt.longest_axes(true);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let counted = pool.install(|| measure(|| _ = opt.step(&mut w, &grad).unwrap()));
        counted.bytes_total as f64 / grad.len() as f64
    };
    let (small, large) = (per_element(4), per_element(5));
    assert!(small > 0.0 && large < 1.5 * small, "{small} and {large} bytes per element");
}
