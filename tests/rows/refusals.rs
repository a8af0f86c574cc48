//! What cannot use rows says so by name, before anything moves.

use gradus::Error;
use gradus::error::StepError;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use ndarray::{Array1, Array2, array};

use super::wave;

type Table = (Array1<f64>, Array2<f64>);

fn table() -> Table {
    (array![1.0], wave((4, 3), 0.0))
}

/// The error of a step, which changes nothing.
fn refused(opt: &mut dyn Optimizer<f64>, rows: Rows<f64>) -> Error {
    let mut params = table();
    let state = opt.state_dict();
    let error = opt.step(&mut params, &(array![1.0], rows)).unwrap_err();
    assert!(params == table() && opt.state_dict() == state && opt.steps() == 0, "{error}");
    error
}

#[test]
fn rows_that_do_not_fit() {
    for started in [false, true] {
        let mut opt = Sgd::new(1.0);
        if started {
            // The way of a known layout.
            opt.step(&mut table(), &table()).unwrap();
        }
        let mut refused = |rows: Rows<f64>| {
            let mut params = table();
            let error = opt.step(&mut params, &(array![1.0], rows)).unwrap_err();
            assert_eq!(params, table());
            match error {
                Error::Step(error) => error,
                other => panic!("{other}"),
            }
        };
        let path = || "1".to_owned();
        let error = refused(Rows::new(vec![0, 4, 9], Array2::zeros((3, 3))));
        assert_eq!(error, StepError::RowOutOfRange { path: path(), place: 1, row: 4, rows: 4 });
        assert_eq!(error.to_string(), "gradient \"1\" has row index 4 at place 1, and the parameter has 4 rows");
        let error = refused(Rows::new(vec![0, 1], Array2::zeros((3, 3))));
        assert_eq!(error, StepError::RowCount { path: path(), indices: 2, values: 3 });
        assert_eq!(error.to_string(), "gradient \"1\" has 2 row indices and 3 rows of values");
        let error = refused(Rows::new(vec![0], Array2::zeros((1, 2))));
        assert_eq!(error, StepError::RowShape { path: path(), parameter: vec![3], gradient: vec![2] });
        assert_eq!(
            error.to_string(),
            "the rows of gradient \"1\" have shape [2] where those of the parameter have [3]"
        );
    }
    let error = Sgd::new(1.0).step(&mut array![1.0, 2.0], &Rows::new(vec![0], array![[1.0]])).unwrap_err();
    assert_eq!(error, Error::Step(StepError::RowShape { path: String::new(), parameter: vec![], gradient: vec![1] }));
    let scalar = ndarray::arr0(1.0);
    let error = Sgd::new(1.0).step(&mut scalar.clone(), &Rows::new(vec![0], array![1.0])).unwrap_err();
    let expected = StepError::ShapeMismatch { path: String::new(), parameter: vec![], gradient: vec![1] };
    assert_eq!(error, Error::Step(expected));
    let error = Sgd::new(1.0).step(&mut array![1.0], &Rows::new(vec![0], scalar)).unwrap_err();
    let expected = StepError::ShapeMismatch { path: String::new(), parameter: vec![1], gradient: vec![] };
    assert_eq!(error, Error::Step(expected));
}

fn rows() -> Rows<f64> {
    Rows::new(vec![2, 0], wave((2, 3), 1.0))
}

#[test]
fn matrix_optimizers() {
    let name = |error: Error| match error {
        Error::Step(StepError::RowsUnusable { name, path, .. }) if path == "1" => name,
        other => panic!("{other}"),
    };
    let sgd = || Sgd::<f64>::new(0.1);
    assert_eq!(name(refused(&mut sgd().route("1", Muon::new(0.1)), rows())), "muon");
    assert_eq!(name(refused(&mut sgd().route("1", Lbfgs::new(0.1)), rows())), "lbfgs");
    assert_eq!(name(refused(&mut sgd().route("1", Adafactor::new(0.1)), rows())), "adafactor");
    #[cfg(feature = "second-order")]
    {
        assert_eq!(name(refused(&mut sgd().route("1", Shampoo::new(0.1)), rows())), "shampoo");
        assert_eq!(name(refused(&mut sgd().route("1", Soap::new(0.1)), rows())), "soap");
        assert_eq!(name(refused(&mut sgd().route("1", KlSoap::new(0.1)), rows())), "klsoap");
        assert_eq!(name(refused(&mut sgd().route("1", Kron::new(0.1)), rows())), "kron");
    }
    let error = refused(&mut sgd().route("1", Muon::new(0.1)), rows());
    let text = "muon cannot use the gradient of rows of \"1\"; \
        pass a dense gradient, or route the tensor to an element-wise optimizer";
    assert_eq!(error.to_string(), text);
    // The others may be anything.
    let mut opt = Muon::new(0.1).route("1", sgd()).route("0", sgd());
    opt.step(&mut table(), &(array![1.0], rows())).unwrap();
}

#[test]
fn what_needs_the_norm_of_all_rows() {
    let name = |error: Error| match error {
        Error::Step(StepError::RowsUnusable { name, path, .. }) if path == "1" => name,
        other => panic!("{other}"),
    };
    assert_eq!(name(refused(&mut Lars::new(0.1, 0.9), rows())), "lars");
    assert_eq!(name(refused(&mut Prodigy::new(1.0), rows())), "prodigy");
    assert_eq!(name(refused(&mut DoG::new(1.0).layerwise(true), rows())), "l_dog");
    assert_eq!(name(refused(&mut DoWG::new(1.0), rows())), "dowg");
    assert_eq!(name(refused(&mut DAdaptAdam::new(1.0), rows())), "dadapt_adam");
    assert_eq!(name(refused(&mut DAdaptSgd::new(1.0), rows())), "dadapt_sgd");
    assert_eq!(name(refused(&mut AdamW::new(0.1).keep_norm(true), rows())), "keep_norm");
}

#[test]
fn few_bits_whose_groups_are_not_rows() {
    let in_bits = |precision| Adam::<f64>::new(0.1).state_precision(precision);
    let four_bits = StatePrecision::Blockwise4(Rounding::Nearest);
    let mut error = in_bits(four_bits);
    let rows_of = |width| Rows::new(vec![3], Array2::ones((1, width)));
    let error = error.step(&mut Array2::zeros((40, 127)), &rows_of(127)).unwrap_err().to_string();
    assert!(error.contains("state in 4 bits") && error.contains("multiples of 128 elements"), "{error}");
    in_bits(four_bits).step(&mut Array2::zeros((40, 128)), &rows_of(128)).unwrap();
    let mut opt = in_bits(StatePrecision::Blockwise8);
    for (width, refused) in [(255, true), (256, false), (512, false)] {
        let start = Array2::zeros((40, width));
        let mut table = start.clone();
        let result = opt.clone().step(&mut table, &Rows::new(vec![3], Array2::ones((1, width))));
        assert_eq!((result.is_err(), table == start), (refused, refused), "{width}");
    }
    // Few elements have full state, and without slots there are no groups.
    opt.step(&mut table(), &(array![1.0], rows())).unwrap();
    let mut opt = Sgd::<f64>::new(0.1).state_precision(StatePrecision::Blockwise8);
    opt.step(&mut Array2::zeros((40, 255)), &Rows::new(vec![3], Array2::ones((1, 255)))).unwrap();
}

gradus::hyper_parameters! {
    /// Moves back to where it began.
    struct Anchored => AnchoredValues {}
}

impl<A: Scalar> gradus::rule::Rule<A> for Anchored {
    type Coefficients = A;

    fn name(&self) -> &'static str {
        "anchored"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["anchor"]
    }

    fn coefficients(&self, _: &AnchoredValues, at: &gradus::rule::At) -> (f64, A) {
        (at.learning_rate, A::from_f64(if at.step == 1 { 1.0 } else { 0.0 }))
    }

    fn sweep(&self, first: A, lanes: gradus::rule::Lanes<'_, A>) {
        lanes.each(first, |first, param, grad, [anchor]: [A; 1]| {
            let anchor = anchor + *first * param;
            (grad + param - anchor, [anchor])
        });
    }
}

#[test]
fn state_that_starts_from_the_parameters() {
    let mut opt = Elementwise::from_rule(Anchored::default(), 0.1);
    let error = refused(&mut opt, rows());
    let text = "anchored cannot use the gradient of rows of \"1\"; its state starts from the parameters; pass a dense gradient";
    assert_eq!(error.to_string(), text);
    let error = refused(&mut Madgrad::new(0.1), rows());
    assert!(matches!(error, Error::Step(StepError::RowsUnusable { name: "madgrad", .. })), "{error}");
    // A dense step starts it.
    opt.step(&mut table(), &table()).unwrap();
    opt.step(&mut table(), &(array![1.0], rows())).unwrap();
}
