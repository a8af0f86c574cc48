//! Matrices and vectors of nalgebra and faer.

use gradus::params::{Layout, for_each};
use gradus::prelude::*;

use super::{elements, moves_as_a_vector};

fn shape(tree: &impl Params) -> Vec<usize> {
    Layout::of(tree).unwrap().tensors()[0].shape().to_vec()
}

/// Where the first element lies.
fn place(tree: &impl Params<Elem = f64>) -> *const f64 {
    let mut place = std::ptr::null();
    for_each(tree, |_, shape, values| {
        let values = values.unwrap();
        place = values.view(shape).as_ptr();
    });
    place
}

/// Elements from a counter, row by row.
fn count(columns: usize) -> impl Fn(usize, usize) -> f64 {
    move |row, column| (1 + row * columns + column) as f64
}

const SIX: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

#[cfg(feature = "nalgebra")]
mod of_nalgebra {
    use nalgebra::{DMatrix, DVector, Matrix1, Matrix2x3, RowDVector, RowVector3, SMatrix, SVector, Vector3};
    use ndarray::{Array1, Array2};

    use super::*;

    #[test]
    fn matrices_are_column_major_tensors() {
        let mut dynamic = DMatrix::from_fn(2, 3, count(3));
        let mut fixed = Matrix2x3::from_fn(count(3));
        assert_eq!((shape(&dynamic), elements(&dynamic)), (vec![2, 3], SIX.to_vec()));
        assert_eq!((shape(&fixed), elements(&fixed)), (vec![2, 3], SIX.to_vec()));
        assert_eq!((place(&dynamic), place(&fixed)), (dynamic.as_ptr(), fixed.as_ptr()));
        moves_as_a_vector(&mut dynamic, |halves| DMatrix::from_row_slice(2, 3, halves));
        moves_as_a_vector(&mut dynamic, |halves| Array2::from_shape_vec((2, 3), halves.to_vec()).unwrap());
        moves_as_a_vector(&mut fixed, Matrix2x3::from_row_slice);
        // A matrix of one row is a matrix, unless its type says so.
        assert_eq!(shape(&DMatrix::<f64>::zeros(1, 3)), [1, 3]);
        assert_eq!(shape(&SMatrix::<f64, 0, 2>::zeros()), [0, 2]);
    }

    #[test]
    fn vectors_have_one_axis() {
        let mut dynamic = DVector::from_row_slice(&SIX);
        assert_eq!((shape(&dynamic), place(&dynamic)), (vec![6], dynamic.as_ptr()));
        moves_as_a_vector(&mut dynamic, DVector::from_row_slice);
        moves_as_a_vector(&mut dynamic, |halves| Array1::from(halves.to_vec()));
        let mut fixed = Vector3::new(1.0, 2.0, 3.0);
        moves_as_a_vector(&mut fixed, Vector3::from_row_slice);
        let mut row = RowVector3::new(1.0, 2.0, 3.0);
        moves_as_a_vector(&mut row, RowVector3::from_row_slice);
        let mut row = RowDVector::from_row_slice(&SIX);
        moves_as_a_vector(&mut row, <[f64]>::to_vec);
        assert_eq!((shape(&row), shape(&Matrix1::new(1.0))), (vec![6], vec![1]));
        assert_eq!(shape(&SVector::<f64, 0>::zeros()), [0]);
    }

    #[test]
    fn views_of_whole_columns_are_trees() {
        let mut matrix = SMatrix::<f64, 2, 3>::from_fn(count(3));
        moves_as_a_vector(&mut matrix.fixed_columns_mut::<2>(1), SMatrix::<f64, 2, 2>::from_row_slice);
        moves_as_a_vector(&mut matrix.column_mut(0), DVector::from_row_slice);
        let mut dynamic = DMatrix::from_fn(2, 3, count(3));
        moves_as_a_vector(&mut dynamic.column_mut(1), <[f64]>::to_vec);
        assert!(elements(&matrix).iter().zip(SIX).all(|(now, before)| *now != before));
        assert_eq!((dynamic[(0, 0)], dynamic[(1, 2)]), (1.0, 6.0));
    }

    #[cfg(feature = "derive")]
    #[test]
    fn a_struct_of_them_is_a_tree() {
        #[derive(Params, Clone)]
        struct Linear {
            weight: DMatrix<f32>,
            bias: DVector<f32>,
        }
        let mut model = Linear { weight: DMatrix::from_element(2, 3, 1.0), bias: DVector::from_element(2, 1.0) };
        let grads = model.clone();
        Sgd::new(0.5).clip_global_norm(1e3).step(&mut model, &grads).unwrap();
        Muon::new(0.5).step(&mut model.weight, &grads.weight).unwrap();
        assert!(model.bias.iter().all(|value| *value == 0.5) && model.weight.iter().all(|value| *value < 0.5));
    }
}

#[cfg(feature = "faer")]
mod of_faer {
    use faer::{Col, Mat, Row};
    use ndarray::{Array1, Array2};

    use super::*;

    #[test]
    fn matrices_are_tensors_in_any_layout() {
        // faer leaves a gap below each column.
        let mut owned = Mat::from_fn(2, 3, count(3));
        assert_eq!((shape(&owned), elements(&owned)), (vec![2, 3], SIX.to_vec()));
        assert_eq!(place(&owned), owned.as_ptr());
        moves_as_a_vector(&mut owned, |halves| Mat::from_fn(2, 3, |row, column| halves[3 * row + column]));
        moves_as_a_vector(&mut owned.as_mut(), |halves| Array2::from_shape_vec((2, 3), halves.to_vec()).unwrap());

        let transposed = Mat::from_fn(3, 2, |row, column| count(3)(column, row));
        let grads = transposed.clone();
        assert_eq!((shape(&transposed.transpose()), elements(&transposed.transpose())), (vec![2, 3], SIX.to_vec()));
        let mut moved = Mat::from_fn(2, 3, count(3));
        Sgd::new(0.5).step(&mut moved, &grads.transpose()).unwrap();
        assert_eq!(elements(&moved), SIX.map(|x| x / 2.0));
    }

    #[test]
    fn strides_may_be_negative() {
        let counted = || Mat::from_fn(2, 3, |row, column| count(3)(1 - row, column));
        let mut owned = counted();
        assert_eq!(elements(&owned.reverse_rows()), SIX);
        moves_as_a_vector(&mut owned.reverse_rows_mut(), |halves| {
            Array2::from_shape_vec((2, 3), halves.to_vec()).unwrap()
        });
        moves_as_a_vector(&mut counted().as_mut().reverse_rows_and_cols_mut().submatrix_mut(0, 1, 2, 2), |halves| {
            Array2::from_shape_vec((2, 2), halves.to_vec()).unwrap()
        });
        let backwards = Col::from_fn(6, |at| SIX[5 - at]);
        assert_eq!((elements(&backwards.reverse_rows()), shape(&backwards.reverse_rows())), (SIX.to_vec(), vec![6]));
        let mut one = Mat::from_fn(1, 1, |_, _| 1.0);
        moves_as_a_vector(&mut one.reverse_rows_and_cols_mut(), |halves| Mat::from_fn(1, 1, |_, _| halves[0]));
        assert_eq!(shape(&Mat::<f64>::zeros(0, 2).reverse_cols()), [0, 2]);
    }

    #[test]
    fn vectors_have_one_axis() {
        let mut column = Col::from_fn(6, |at| SIX[at]);
        assert_eq!((shape(&column), place(&column)), (vec![6], column.as_ptr()));
        moves_as_a_vector(&mut column, |halves| Col::from_fn(6, |at| halves[at]));
        moves_as_a_vector(&mut column.as_mut(), |halves| Array1::from(halves.to_vec()));
        let mut row = Row::from_fn(6, |at| SIX[at]);
        assert_eq!((shape(&row), elements(&row.as_ref())), (vec![6], SIX.to_vec()));
        moves_as_a_vector(&mut row, |halves| Row::from_fn(6, |at| halves[at]));
        moves_as_a_vector(&mut row.as_mut(), <[f64]>::to_vec);
        // A row of a matrix has a gap between its elements.
        let mut matrix = Mat::from_fn(3, 2, count(2));
        moves_as_a_vector(&mut matrix.row_mut(1), <[f64]>::to_vec);
        moves_as_a_vector(&mut matrix.col_mut(0), <[f64]>::to_vec);
        assert_eq!((matrix[(0, 1)], matrix[(2, 1)]), (2.0, 6.0));
    }
}
