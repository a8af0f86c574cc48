//! The bits do not depend on the machine.

use std::sync::{Mutex, PoisonError};

use super::{LARGE, OptimizerLaws, changing, train};
use crate::kernel::level::Level;
use crate::kernel::simd;
use crate::optimizer::OptimizerExt;
use crate::params::Scalar;
use crate::step::Optimizer;
use crate::testing::tensors::{Arranged, Arrangement, bits, numbers};
use crate::testing::tree::{End, same, same_state, single};
use crate::testing::violation::{Held, case, ensure};

/// The level belongs to the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs the same at every SIMD level that the machine has, the lowest first, and then restores the level. One call at a time does this: a call
/// inside of `run`, also one by [`Law::SimdLevels`](crate::testing::Law::SimdLevels), waits forever.
pub fn at_every_level<T>(mut run: impl FnMut(Level) -> T) -> Vec<T> {
    /// Restores the level also after a panic.
    struct Restored(Level);

    impl Drop for Restored {
        fn drop(&mut self) {
            _ = simd::use_level(self.0);
        }
    }

    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _restored = Restored(simd::level());
    let at = |level| simd::use_level(level).is_ok().then(|| run(level));
    simd::available().into_iter().filter_map(at).collect()
}

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn deterministic(&self) -> Held {
        let once = || {
            let (mut opt, mut params) = (self.with(changing), self.tree(LARGE, 0));
            train(&mut opt, &mut params, 3)?;
            Held::Ok(End::of(&opt, &params))
        };
        case("3 steps, twice", || once()?.same(&once()?, "in another run"))
    }

    #[cfg(not(feature = "rayon"))]
    pub(super) fn threads(&self) -> Held {
        Ok(())
    }

    #[cfg(feature = "rayon")]
    pub(super) fn threads(&self) -> Held {
        let one = self.on_threads(1)?;
        for threads in [2, 4] {
            case(format_args!("{threads} threads, 2 steps"), || {
                let (params, state) = self.on_threads(threads)?;
                for (number, (found, expected)) in params.iter().zip(&one.0).enumerate() {
                    same(&number.to_string(), found.view(), expected.view(), "on one thread")?;
                }
                same_state(&state, &one.1, "on one thread")
            })?;
        }
        Ok(())
    }

    #[cfg(feature = "rayon")]
    fn on_threads(&self, threads: usize) -> Held<(Vec<ndarray::ArrayD<A>>, crate::StateDict)> {
        let shapes: [&[usize]; 5] = match self.is_elementwise() {
            true => [&[LARGE], &[3], &[0], &[250, 170], &[70_001]],
            // The first is large enough for its products to be shared between threads.
            false => [&[160, 130], &[3, 2], &[0, 4], &[50, 34], &[30, 2, 45]],
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let Ok(pool) = pool else { return Err(crate::Error::Other("there are no threads".into()).into()) };
        let mut opt = self.with(changing);
        let mut params = shapes.map(|shape| numbers::<A>(shape, 0));
        // The large matrix in a layout of its own, so that views are shared out as well as slices.
        let mut sliced = Arranged::new(&params[3], Arrangement::Sliced);
        for step in 1..=2 {
            let grads = shapes.map(|shape| numbers::<A>(shape, step));
            let [a, b, c, _, e] = &mut params;
            pool.install(|| opt.step(&mut (a, b, c, &mut sliced, e), &grads))?;
        }
        params[3].assign(&sliced.view());
        Ok((params.into(), opt.state_dict()))
    }

    /// Several blocks with a head and a tail.
    pub(super) fn simd_levels(&self) -> Held {
        for size in [1, 7, 33, 1000, 5003] {
            let shape = self.shape(size);
            let ends = at_every_level(|level| {
                let (opt, mut params) = (self.with(changing), single(numbers::<A>(&shape, 0)));
                let mut opt = opt.clip_value(0.9).clip_global_norm(1.0);
                let mut norms = Vec::new();
                for step in 1..=3 {
                    norms.push(opt.step(&mut params, &single(numbers(&shape, step)))?.grad_norm.map(f64::to_bits));
                }
                Held::Ok((level, End::of(&opt, &params), norms))
            });
            let ends = ends.into_iter().collect::<Held<Vec<_>>>()?;
            let Some(((lowest, expected, norms), others)) = ends.split_first() else { continue };
            for (level, end, own) in others {
                case(format_args!("SIMD level {level}, shape {shape:?}, 3 steps"), || {
                    end.same(expected, &format!("at level {lowest}"))?;
                    ensure(own == norms, || format!("the norm of the gradients is not that at level {lowest}"))
                })?;
            }
        }
        Ok(())
    }

    /// Parameter and gradient in any two layouts, smaller and larger than a block, and with clipping's scale.
    pub(super) fn memory_layouts(&self) -> Held {
        let large: &[usize] = if self.is_elementwise() { &[47, 3, 31] } else { &[13, 3, 7] };
        for shape in self.taken(&[&[7], &[5, 6], &[2, 3, 4], large]) {
            let start = numbers::<A>(shape, 0);
            let in_layouts = |param: Arrangement, grad: Arrangement| {
                let (opt, mut params) = (self.with(changing), Arranged::new(&start, param));
                let mut opt = opt.clip_global_norm(1.0);
                for step in 1..=2 {
                    opt.step(&mut params, &Arranged::new(&numbers(shape, step), grad))?;
                }
                ensure(params.surroundings() == Arranged::new(&start, param).surroundings(), || {
                    "memory beside the parameter was written".into()
                })?;
                let mut state = opt.state_dict();
                state.texts.clear(); // of which some say in which order the parameters lie
                Held::Ok((params.view().to_owned(), state))
            };
            let expected = case(format_args!("shape {shape:?}"), || in_layouts(Arrangement::C, Arrangement::C))?;
            // An adaptor may not have moved anything yet.
            ensure(self.is_of_adaptor || bits(&expected.0) != bits(&start), || {
                format!("a step of shape {shape:?} moves nothing")
            })?;
            for param in Arrangement::ALL {
                for grad in Arrangement::ALL {
                    let layouts = format!("shape {shape:?}, parameter {param:?}, gradient {grad:?}, 2 steps");
                    case(layouts, || {
                        let (found, state) = in_layouts(param, grad)?;
                        same("", found.view(), expected.0.view(), "in row-major order")?;
                        same_state(&state, &expected.1, "in row-major order")
                    })?;
                }
            }
        }
        Ok(())
    }
}
