//! Loops over memory: SIMD, threads, blocks of views, products and decompositions of matrices; random bits. No tree and no step is known here.

pub(crate) mod adam;
pub(crate) mod aligned;
pub(crate) mod blocks;
pub(crate) mod cube_root;
#[cfg(feature = "second-order")]
pub(crate) mod decomposition;
pub(crate) mod four_bits;
pub(crate) mod level;
pub(crate) mod narrow;
pub(crate) mod normal;
pub(crate) mod orthonormal;
pub(crate) mod product;
pub mod simd;
#[cfg(feature = "half")]
pub(crate) mod sixteen_bits;
pub(crate) mod split_mix;
pub(crate) mod squares;
pub(crate) mod threads;
pub(crate) mod tree;
