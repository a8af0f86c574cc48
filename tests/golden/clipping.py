"""Golden data for gradient clipping.

Run with `python tests/golden/clipping.py`; it writes clipping.json beside itself.

The tree has three tensors of shapes (3, 4), (5,) and (2, 2, 2), 25 elements, numbered k = 0, …, 24
through all tensors in row-major order (`unit` is in common.py):

    grad_k  = 3 * unit(k)                     in f32: the f64 value rounded to f32
    param_k = param_scale * unit(1000 + k)    param_scale is a power of two

All tensors in the file are flat lists in row-major order. `global` norms are over the whole tree,
`per tensor` norms have one number per tensor.
"""

from pathlib import Path

import jax
import numpy as np
import optax
import torch

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)

SHAPES = [(3, 4), (5,), (2, 2, 2)]
DTYPES = {"f32": np.float32, "f64": np.float64}
MAX_NORMS = [0.5, 1.0, 2.0, 100.0]


def tree(first, scale, dtype):
    """Tensors of the three shapes with values scale * unit(first), scale * unit(first + 1), …"""
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])
    flat = (scale * unit(first + np.arange(ends[-1]))).astype(dtype)
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), SHAPES)]


def gradients(dtype=np.float64):
    """The gradient tree."""
    return tree(0, 3.0, dtype)


def parameters(scale, dtype=np.float64):
    """The parameter tree, which only adaptive clipping looks at."""
    return tree(1000, scale, dtype)


def flat(tensors):
    """Tensors as flat lists of numbers."""
    return [numbers(np.asarray(tensor).ravel()) for tensor in tensors]


def case(name, library, call, options, dtype, clipped, **more):
    """One case of the JSON file."""
    return {
        "name": name,
        "library": library.__name__,
        "version": library.__version__,
        "call": call,
        "options": options,
        "dtype": dtype,
        **more,
        "clipped": flat(clipped),
    }


def with_gradients(dtype):
    """PyTorch parameters that carry the gradient tree."""
    tensors = [
        torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.from_numpy(g).dtype)) for g in gradients(dtype)
    ]
    for tensor, g in zip(tensors, gradients(dtype)):
        tensor.grad = torch.from_numpy(g)
    return tensors


def torch_norm_cases():
    """clip_grad_norm_ on the whole tree, and on every tensor by itself."""
    utils = torch.nn.utils
    for dtype, numpy_type in DTYPES.items():
        for norm_type in (1.0, 2.0, 3.0, float("inf")):
            for max_norm in MAX_NORMS:
                options = {
                    "max_norm": max_norm,
                    "norm_type": "inf" if norm_type == float("inf") else norm_type,
                }
                arguments = f"max_norm={max_norm}, norm_type=float('{norm_type}')"
                limits = (max_norm, norm_type)
                tensors = with_gradients(numpy_type)
                norm = utils.clip_grad_norm_(tensors, *limits, foreach=False)
                yield case(
                    "clip_grad_norm_",
                    torch,
                    f"torch.nn.utils.clip_grad_norm_(tensors, {arguments})",
                    options,
                    dtype,
                    [tensor.grad for tensor in tensors],
                    norm=numbers(norm.numpy()),
                )
                tensors = with_gradients(numpy_type)
                norms = [utils.clip_grad_norm_(tensor, *limits, foreach=False).numpy() for tensor in tensors]
                yield case(
                    "clip_grad_norm_ per tensor",
                    torch,
                    f"for tensor in tensors: torch.nn.utils.clip_grad_norm_(tensor, {arguments})",
                    options,
                    dtype,
                    [tensor.grad for tensor in tensors],
                    norm=[numbers(norm) for norm in norms],
                )


def torch_value_cases():
    """clip_grad_value_."""
    for dtype, numpy_type in DTYPES.items():
        for clip_value in MAX_NORMS:
            tensors = with_gradients(numpy_type)
            torch.nn.utils.clip_grad_value_(tensors, clip_value, foreach=False)
            yield case(
                "clip_grad_value_",
                torch,
                f"torch.nn.utils.clip_grad_value_(tensors, clip_value={clip_value})",
                {"clip_value": clip_value},
                dtype,
                [tensor.grad for tensor in tensors],
            )


def optax_update(transformation, grads, params):
    """Apply a stateless gradient transformation."""
    clipped, _ = transformation.update(grads, transformation.init(params), params)
    return clipped


def optax_norm_cases():
    """clip_by_global_norm: exact, without the 1e-6 of PyTorch."""
    grads = [jax.numpy.asarray(g) for g in gradients()]
    for max_norm in MAX_NORMS:
        yield case(
            "clip_by_global_norm",
            optax,
            f"optax.clip_by_global_norm(max_norm={max_norm})",
            {"max_norm": max_norm},
            "f64",
            optax_update(optax.clip_by_global_norm(max_norm), grads, grads),
            norm=numbers(optax.global_norm(grads)),
        )


def adaptive(param, grad, clipping, eps):
    """Adaptive gradient clipping of one tensor with the arithmetic of timm's adaptive_clip_grad.

    A unit is an index of axis 0; a vector is one unit.
    """

    def unit_norm(x):
        axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
        return torch.linalg.vector_norm(x, dim=axes, keepdim=True)

    max_norm = clipping * unit_norm(param).clamp(min=eps)
    norm = unit_norm(grad)
    return torch.where(norm > max_norm, grad * (max_norm / norm.clamp(min=1e-6)), grad)


def optax_adaptive(params, grads, clipping, eps, axes):
    """optax.adaptive_grad_clip with its own reduction axes for every tensor."""
    return [
        optax_update(
            optax.adaptive_grad_clip(clipping, eps, axis), jax.numpy.asarray(g), jax.numpy.asarray(p)
        )
        for p, g, axis in zip(params, grads, axes)
    ]


def ours_adaptive(params, grads, clipping, eps):
    """Clip every tensor of a tree with `adaptive`."""
    pairs = zip(map(torch.from_numpy, params), map(torch.from_numpy, grads))
    return [adaptive(p, g, clipping, eps) for p, g in pairs]


def adaptive_cases():
    """Adaptive gradient clipping: with units of axis 0, and with optax's default units.

    With the reduction axes of each tensor given to it, optax must agree with the first.
    """
    unit_axes = [1, None, (1, 2)]
    optax_axes = [None, None, None]
    settings = [
        {"clipping": 0.01, "eps": 1e-3, "param_scale": 1.0},
        {"clipping": 1.0, "eps": 1e-3, "param_scale": 1.0},
        {"clipping": 4.0, "eps": 1e-3, "param_scale": 1.0},
        {"clipping": 100.0, "eps": 1e-3, "param_scale": 1.0},
        {"clipping": 0.01, "eps": 1e-3, "param_scale": 2.0**-14},
        {"clipping": 0.5, "eps": 1.0, "param_scale": 1.0},
    ]
    for options in settings:
        clipping, eps, scale = options.values()
        for dtype, numpy_type in DTYPES.items():
            yield case(
                "adaptive, unit = index of axis 0",
                torch,
                "adaptive() in clipping.py, the arithmetic of timm's adaptive_clip_grad",
                options,
                dtype,
                ours_adaptive(parameters(scale, numpy_type), gradients(numpy_type), clipping, eps),
            )
        inputs = (parameters(scale), gradients(), clipping, eps)
        for ours, theirs in zip(ours_adaptive(*inputs), optax_adaptive(*inputs, unit_axes)):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-14)
        yield case(
            "adaptive_grad_clip",
            optax,
            f"optax.adaptive_grad_clip(clipping={clipping}, eps={eps})",
            options,
            "f64",
            optax_adaptive(*inputs, optax_axes),
            note="not gradus' units: in 2-D and 3-D tensors optax takes the norm over axis 0 only, so a unit is"
            " a column; the vector is one unit in both. optax with axis=1 for the 2-D and axis=(1, 2) for the"
            " 3-D tensor agrees with the case before to 1e-14 (checked by clipping.py)",
        )


def main():
    use_generic_kernels(torch)
    cases = [*torch_norm_cases(), *torch_value_cases(), *optax_norm_cases(), *adaptive_cases()]
    header = {
        "versions": {module.__name__: module.__version__ for module in (torch, optax, jax)},
        "generator": Path(__file__).name,
        "shapes": SHAPES,
        "grads": flat(gradients()),
        "params": flat(parameters(1.0)),
    }
    write_json(Path(__file__).with_name("clipping.json"), header, cases)


if __name__ == "__main__":
    main()
