//! The images, split into those to learn from and those kept apart.

use std::error::Error;

use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// One image a line: the label, then 64 pixels from 0 to 16.
const CSV: &str = include_str!("../data/digits.csv");
const PIXELS: usize = 64;
const BRIGHTEST: f32 = 16.0;

pub(crate) struct Digits {
    pub(crate) train: Images,
    pub(crate) test: Images,
}

pub(crate) struct Images {
    /// (image, pixel), from 0 to 1.
    pub(crate) pixels: Array2<f32>,
    pub(crate) labels: Array1<usize>,
}

impl Images {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    fn select(&self, rows: &[usize]) -> Self {
        Self { pixels: self.pixels.select(Axis(0), rows), labels: self.labels.select(Axis(0), rows) }
    }
}

impl Digits {
    /// Reads the images and keeps a fifth of them, chosen by the seed, for the test.
    pub(crate) fn load(seed: u64) -> Result<Self, Box<dyn Error>> {
        let (mut labels, mut pixels) = (Vec::new(), Vec::new());
        for line in CSV.lines().skip(1) {
            let mut values = line.split(',');
            labels.push(values.next().ok_or("an empty line")?.parse()?);
            for value in values {
                pixels.push(value.parse::<f32>()? / BRIGHTEST);
            }
        }
        let all = Images { pixels: Array2::from_shape_vec((labels.len(), PIXELS), pixels)?, labels: labels.into() };

        let mut rows: Vec<usize> = (0..all.len()).collect();
        rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let (train, test) = rows.split_at(all.len() - all.len() / 5);
        Ok(Self { train: all.select(train), test: all.select(test) })
    }
}
