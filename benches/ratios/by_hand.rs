//! The same arithmetic, written by hand.

use crate::shared::floor::{Lines, arch};

/// Adam over slices: the expression of the library, with the same instructions, and nothing around it.
pub(crate) fn adam(param: &mut [f32], grad: &[f32], slots: &mut [Lines], step: i32) {
    let [m, v] = slots else { return };
    let (m, v) = (&mut m[..], &mut v[..]);
    let (first, second) = (1.0 - 0.9_f64.powi(step), 1.0 - 0.999_f64.powi(step));
    let (step_size, root_scale) = ((1e-3 / first) as f32, (1.0 / second.sqrt()) as f32);
    let (beta1, rest1, beta2, rest2, eps) = (0.9_f32, 0.1_f32, 0.999_f32, 0.001_f32, 1e-8_f32);
    arch().dispatch(
        #[inline(always)]
        move || {
            for (((p, g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *p -= step_size * (*m / (v.sqrt() * root_scale + eps));
            }
        },
    );
}
