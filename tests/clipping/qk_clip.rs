//! QK-Clip: which rows are scaled, and when.

use gradus::adaptor::Adapted;
use gradus::clip::QkClip;
use gradus::prelude::*;
use ndarray::{Array2, Array3, Axis};

type Pair = (Array2<f64>, Array2<f64>);
type Clipped = Adapted<Sgd<f64>, QkClip>;

fn ones(query: usize, key: usize) -> Pair {
    (Array2::ones((query, 2)), Array2::ones((key, 2)))
}

/// An optimizer that moves by 0.5.
fn opt() -> Clipped {
    Sgd::new(0.5).qk_clip(10.0)
}

fn columns(pair: &Pair) -> (Vec<f64>, Vec<f64>) {
    assert!([&pair.0, &pair.1].iter().all(|w| w.column(0) == w.column(1)));
    (pair.0.column(0).to_vec(), pair.1.column(0).to_vec())
}

#[test]
fn the_rows_of_a_head_are_scaled_after_the_step() {
    let (mut opt, mut w) = (opt(), ones(4, 4));
    opt.observe("0", "1", [10.0, 40.0]).unwrap();
    opt.step(&mut w, &ones(4, 4)).unwrap();
    assert_eq!(columns(&w), (vec![0.5, 0.5, 0.25, 0.25], vec![0.5, 0.5, 0.25, 0.25]));
    // The logits are those of one step.
    opt.step(&mut w, &ones(4, 4)).unwrap();
    assert_eq!(columns(&w).0, [0.0, 0.0, -0.25, -0.25]);
}

#[test]
fn heads_that_share_a_key_are_one() {
    let (mut opt, mut w) = (opt(), ones(8, 2));
    // Four heads of two rows, and one key head.
    opt.observe("0", "1", [40.0_f32, 1.0, -3.0, 9.0]).unwrap();
    opt.step(&mut w, &ones(8, 2)).unwrap();
    assert_eq!(columns(&w), (vec![0.25; 8], vec![0.25; 2]));
    // Two key heads.
    let mut w = ones(8, 4);
    let mut opt = self::opt();
    opt.observe("0", "1", [1.0, 2.0, 9.0, 160.0]).unwrap();
    opt.step(&mut w, &ones(8, 4)).unwrap();
    let quarter = 0.5 * 0.25;
    assert_eq!(columns(&w).0, [0.5, 0.5, 0.5, 0.5, quarter, quarter, quarter, quarter]);
    assert_eq!(columns(&w).1, [0.5, 0.5, quarter, quarter]);
}

/// Queries, keys and values in the rows of one array, which the tree of parameters has as three views.
#[test]
fn a_fused_weight_is_scaled_by_views() {
    let (mut opt, mut fused, grads) = (opt(), Array2::<f64>::ones((6, 2)), Array2::ones((2, 2)));
    let (query, rest) = fused.view_mut().split_at(Axis(0), 2);
    let (key, value) = rest.split_at(Axis(0), 2);
    opt.observe("0", "1", [40.0, 10.0]).unwrap();
    opt.step(&mut (query, key, value), &(grads.clone(), grads.clone(), grads)).unwrap();
    assert_eq!(fused.column(0).to_vec(), [0.25, 0.5, 0.25, 0.5, 0.5, 0.5]);
}

#[test]
fn a_rotary_query_is_scaled_alone() {
    let (mut opt, mut w) = (opt(), ones(2, 1));
    opt.observe_rotary("0", [40.0, 0.0]).unwrap();
    opt.step(&mut w, &ones(2, 1)).unwrap();
    assert_eq!(columns(&w), (vec![0.125, 0.5], vec![0.5]));
}

#[test]
fn the_largest_of_several_micro_batches_counts() {
    let (mut opt, mut w) = (opt().accumulate(2), ones(2, 2));
    for logits in [[40.0, 0.0], [20.0, 160.0]] {
        opt.find_mut::<QkClip>().unwrap().observe("0", "1", logits).unwrap();
        opt.step(&mut w, &ones(2, 2)).unwrap();
    }
    assert_eq!(columns(&w), (vec![0.25, 0.125], vec![0.25, 0.125]));
    // Inside, a call that moves nothing keeps them.
    let (mut opt, mut w) = (Sgd::new(0.5).accumulate(2).qk_clip(10.0), ones(2, 2));
    for logits in [[40.0, 0.0], [20.0, 160.0]] {
        opt.observe("0", "1", logits).unwrap();
        opt.step(&mut w, &ones(2, 2)).unwrap();
    }
    assert_eq!(columns(&w), (vec![0.25, 0.125], vec![0.25, 0.125]));
}

#[test]
fn what_does_not_move_is_not_scaled() {
    let (mut opt, mut w) = (opt().freeze("0"), ones(1, 1));
    opt.find_mut::<QkClip>().unwrap().observe("0", "1", [40.0]).unwrap();
    opt.step(&mut w, &ones(1, 1)).unwrap();
    assert_eq!(columns(&w), (vec![1.0], vec![0.25]));
}

#[test]
fn averages_follow_the_scaled_weights() {
    let (mut opt, mut w) = (opt().ema(0.5), ones(1, 1));
    opt.find_mut::<QkClip>().unwrap().observe_rotary("0", [40.0]).unwrap();
    opt.step(&mut w, &ones(1, 1)).unwrap();
    let mut average = ones(1, 1);
    opt.read(&mut average).unwrap();
    assert_eq!(columns(&w), (vec![0.125], vec![0.5]));
    assert_eq!(average, w);
}

#[test]
fn a_first_axis_of_heads_and_any_layout() {
    let start = Array3::from_shape_fn((2, 3, 2), |(h, i, j)| (h * 6 + i * 2 + j) as f64);
    let (mut opt, grads) = (Sgd::new(0.0).qk_clip(1.0), start.clone());
    let mut w = start.clone().permuted_axes([2, 1, 0]).as_standard_layout().into_owned();
    let mut view = w.view_mut().permuted_axes([2, 1, 0]);
    opt.observe_rotary("", [1.0, 4.0]).unwrap();
    opt.step(&mut view, &grads).unwrap();
    for ((head, i, j), value) in view.indexed_iter() {
        assert_eq!(*value, start[[head, i, j]] * if head == 1 { 0.25 } else { 1.0 });
    }
}

#[test]
fn observed_logits_are_state() {
    let (mut opt, mut w) = (opt(), ones(2, 2));
    opt.observe("0", "1", [40.0, 0.1]).unwrap();
    opt.observe_rotary("1", [1e300, 20.0]).unwrap();
    let mut resumed = self::opt();
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    let mut again = w.clone();
    opt.step(&mut w, &ones(2, 2)).unwrap();
    resumed.step(&mut again, &ones(2, 2)).unwrap();
    assert_eq!(w, again);
    assert_eq!(columns(&w).0, [0.25, 0.5]);
    assert_eq!(columns(&w).1[1], 0.25);
    let mut state = self::opt().state_dict();
    for (value, accepted) in [("1", false), ("0", true)] {
        state.insert_text("qk_clip/observed", value);
        assert_eq!(self::opt().load_state_dict(&state).is_ok(), accepted);
    }
    state.insert_text("qk_clip/observed", "1");
    state.insert_text("qk_clip/query/0", "0");
    for (logits, accepted) in [("1 2.5", true), ("", false), ("1 NaN", false), ("inf", false), ("1,2", false)] {
        state.insert_text("qk_clip/largest/0", logits);
        assert_eq!(self::opt().load_state_dict(&state).is_ok(), accepted, "{logits}");
    }
}

#[test]
fn nothing_changes_after_an_error() {
    let refused = |change: &dyn Fn(&mut Clipped), shape: (usize, usize)| {
        let (mut opt, mut w) = (opt(), ones(shape.0, shape.1));
        change(&mut opt);
        let error = opt.step(&mut w, &ones(shape.0, shape.1)).unwrap_err().to_string();
        assert!(w == ones(shape.0, shape.1) && opt.steps() == 0);
        opt.discard();
        opt.step(&mut w, &ones(shape.0, shape.1)).unwrap();
        error
    };
    let two = |opt: &mut Clipped| opt.observe("0", "1", [1.0, 2.0]).unwrap();
    assert_eq!(
        refused(&two, (3, 4)),
        "the 3 rows of \"0\" do not fit the 2 heads of the query; there must be a multiple of 2"
    );
    let key = "do not fit the 2 heads of the query; there must be 2 times the number of key heads, which divides 2";
    assert_eq!(refused(&two, (4, 3)), format!("the 3 rows of \"1\" {key}"));
    assert_eq!(refused(&two, (4, 8)), format!("the 8 rows of \"1\" {key}"));
    assert_eq!(refused(&two, (4, 0)), format!("the 0 rows of \"1\" {key}"));
    assert!(refused(&two, (0, 4)).starts_with("the 0 rows of \"0\""));
    let fused = |opt: &mut Clipped| opt.observe("1", "1", [40.0, 1.0]).unwrap();
    assert_eq!(refused(&fused, (4, 4)), "\"1\" is the query and the key of the same heads; qk_clip needs two tensors");
    let unknown = |opt: &mut Clipped| opt.observe("0", "2", [1.0]).unwrap();
    assert_eq!(refused(&unknown, (1, 1)), "pattern \"2\" matches no tensor; the tensors are \"0\", \"1\"");
}

#[test]
fn logits_that_are_none() {
    let mut opt = opt();
    let said = |result: gradus::Result<()>| result.unwrap_err().to_string();
    assert_eq!(said(opt.observe("0", "1", [0.0; 0])), "largest is empty; it must have at least one element");
    assert_eq!(said(opt.observe("0", "1", [1.0, f64::NAN])), "largest is NaN at index [1]");
    assert_eq!(said(opt.observe_rotary("0", [f32::INFINITY])), "largest is inf at index [0]");
    opt.observe("0", "1", [1.0, 2.0]).unwrap();
    assert_eq!(said(opt.observe("0", "1", [1.0])), "largest has shape [1] where [2] is needed");
    assert_eq!(format!("{opt:?}"), "Sgd(learning_rate: 0.5).qk_clip(10)");
}
