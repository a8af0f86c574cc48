"""The formulas of the documentation, written out in numpy.

Each function takes the options that gradus' setters have and returns `update(theta, g, lr) -> theta` for an optimizer whose
state is in the closure.
"""

import numpy as np


def momentum_reference(momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, classical=False):
    """SGD, momentum and Nesterov; `classical` puts the learning rate inside the velocity."""
    v = None

    def update(theta, g, lr):
        nonlocal v
        g = g + weight_decay * theta
        inside, outside = (lr, 1.0) if classical else (1.0, lr)
        v = inside * g if v is None else momentum * v + inside * (1 - dampening) * g
        return theta - outside * (inside * g + momentum * v if nesterov else v)

    return update


def rmsprop_reference(
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    eps_inside_sqrt=False,
    classical=False,
):
    """RMSProp; `classical` puts the learning rate inside the momentum buffer."""
    s = mean = b = 0.0

    def update(theta, g, lr):
        nonlocal s, mean, b
        g = g + weight_decay * theta
        s = alpha * s + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        average = s - mean * mean if centered else s
        denom = np.sqrt(average + eps) if eps_inside_sqrt else np.sqrt(average) + eps
        inside, outside = (lr, 1.0) if classical else (1.0, lr)
        b = momentum * b + inside * g / denom
        return theta - outside * b

    return update


def adam_reference(
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    decoupled=False,
    eps_hat=False,
    bias_correction=True,
):
    """Adam and, with `decoupled`, AdamW."""
    t = 0
    m = v = v_max = 0.0

    def update(theta, g, lr):
        nonlocal t, m, v, v_max
        t += 1
        if decoupled:
            theta = theta * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        v_max = np.maximum(v_max, v)
        second = v_max if amsgrad else v
        bc1, bc2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1.0, 1.0)
        if eps_hat:
            return theta - lr * bc2**0.5 / bc1 * m / (np.sqrt(second) + eps)
        return theta - lr / bc1 * m / (np.sqrt(second) / bc2**0.5 + eps)

    return update


def lion_reference(beta1=0.9, beta2=0.99, weight_decay=0.0):
    """Lion, algorithm 2 of the paper."""
    m = 0.0

    def update(theta, g, lr):
        nonlocal m
        direction = np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        return theta * (1 - lr * weight_decay) - lr * direction

    return update


def adabelief_reference(beta1=0.9, beta2=0.999, eps=1e-16, weight_decay=0.0):
    """AdaBelief, algorithm 2 of the paper, with decoupled weight decay."""
    t = 0
    m = s = 0.0

    def update(theta, g, lr):
        nonlocal t, m, s
        t += 1
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        m_hat = m / (1 - beta1**t)
        s_hat = s / (1 - beta2**t)
        return theta * (1 - lr * weight_decay) - lr * m_hat / (np.sqrt(s_hat) + eps)

    return update


def nadam_reference(
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    momentum_decay=4e-3,
    weight_decay=0.0,
    decoupled=False,
    momentum_schedule=True,
):
    """NAdam and, with `decoupled`, NAdamW; without `momentum_schedule` the momentum is always beta1."""
    t = 0
    m = v = 0.0
    product = 1.0

    def momentum(t):
        return beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) if momentum_schedule else beta1

    def update(theta, g, lr):
        nonlocal t, m, v, product
        t += 1
        if decoupled:
            theta = theta * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * theta
        product *= momentum(t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat = momentum(t + 1) * m / (1 - product * momentum(t + 1)) + (1 - momentum(t)) * g / (1 - product)
        return theta - lr * m_hat / (np.sqrt(v / (1 - beta2**t)) + eps)

    return update


def radam_reference(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled=False, eps_hat=True):
    """RAdam and, with `decoupled`, RAdamW."""
    t = 0
    m = v = 0.0

    def update(theta, g, lr):
        nonlocal t, m, v
        t += 1
        if decoupled:
            theta = theta * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        bc1, bc2 = 1 - beta1**t, 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / bc2
        if rho <= 5:
            return theta - lr * m / bc1
        r = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
        root = bc2**0.5
        adaptive = root / (np.sqrt(v) + eps) if eps_hat else 1 / (np.sqrt(v) / root + eps)
        return theta - lr * r * m / bc1 * adaptive

    return update


def adamax_reference(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, eps_outside_max=False):
    """Adamax."""
    t = 0
    m = u = 0.0

    def update(theta, g, lr):
        nonlocal t, m, u
        t += 1
        g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g) + (0 if eps_outside_max else eps))
        return theta - lr / (1 - beta1**t) * m / (u + (eps if eps_outside_max else 0))

    return update


def adagrad_reference(
    learning_rate_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    weight_decay=0.0,
    eps_inside_sqrt=False,
):
    """Adagrad."""
    t = 0
    s = initial_accumulator_value

    def update(theta, g, lr):
        nonlocal t, s
        t += 1
        g = g + weight_decay * theta
        s = s + g * g
        denom = np.sqrt(s + eps) if eps_inside_sqrt else np.sqrt(s) + eps
        return theta - lr / (1 + (t - 1) * learning_rate_decay) * g / denom

    return update


def adadelta_reference(rho=0.9, eps=1e-6, weight_decay=0.0):
    """Adadelta."""
    s = a = 0.0

    def update(theta, g, lr):
        nonlocal s, a
        g = g + weight_decay * theta
        s = rho * s + (1 - rho) * g * g
        delta = np.sqrt(a + eps) / np.sqrt(s + eps) * g
        a = rho * a + (1 - rho) * delta * delta
        return theta - lr * delta

    return update


def rprop_reference(eta_minus=0.5, eta_plus=1.2, min_step_size=1e-6, max_step_size=50.0):
    """Rprop; the learning rate is the first step size."""
    prev, size = 0.0, None

    def update(theta, g, lr):
        nonlocal prev, size
        size = np.full_like(theta, lr) if size is None else size
        size = size * np.where(g * prev > 0, eta_plus, np.where(g * prev < 0, eta_minus, 1.0))
        size = np.minimum(np.maximum(size, min_step_size), max_step_size)
        prev = np.where(g * prev < 0, 0.0, g)
        return theta - np.sign(prev) * size

    return update


def asgd_reference(**options):
    """ASGD. `lambda` is a keyword of Python."""
    decay, alpha = options.get("lambda", 1e-4), options.get("alpha", 0.75)
    weight_decay = options.get("weight_decay", 0.0)
    t = 0

    def update(theta, g, lr):
        nonlocal t
        t += 1
        eta = lr / (1 + decay * lr * (t - 1)) ** alpha
        return theta * (1 - decay * eta) - eta * (g + weight_decay * theta)

    return update


def adafactor_reference(
    beta2_decay=-0.8,
    eps=None,
    min_scale=1e-3,
    clip_threshold=1.0,
    beta1=None,
    weight_decay=0.0,
    eps_inside_mean=False,
    scale_parameter=True,
    relative_step=True,
    min_side=0,
):
    """Adafactor, of whole tensors."""
    t = 0
    rows = columns = v = m = 0.0
    eps = eps or (1e-30 if eps_inside_mean else np.finfo(np.float64).eps)

    def rms(x):
        return np.sqrt(np.mean(x * x)) if x.size else 0.0

    def update(theta, g, lr):
        nonlocal t, rows, columns, v, m
        t += 1
        fresh = t**beta2_decay
        squares = g * g + (eps if eps_inside_mean else 0.0)
        if g.size == 0:
            return theta
        if g.ndim > 1 and min(g.shape[-2:]) >= min_side:
            rows = rows + fresh * (squares.mean(axis=-1, keepdims=True) - rows)
            columns = columns + fresh * (squares.mean(axis=-2, keepdims=True) - columns)
            mean = rows.mean(axis=-2, keepdims=True)
            second = rows * columns / (mean if eps_inside_mean else np.maximum(mean, eps))
        else:
            v = v + fresh * (squares - v)
            second = v
        u = g / (np.sqrt(second) if eps_inside_mean else np.maximum(np.sqrt(second), eps))
        scale = max(min_scale, rms(theta)) if scale_parameter else 1.0
        rate = min(lr, t**-0.5) if relative_step else lr
        move = scale * rate * u / max(1.0, rms(u) / clip_threshold)
        if beta1 is not None:
            m = beta1 * m + (1 - beta1) * move
            move = m
        return theta * (1 - lr * weight_decay) - move

    return update


def signum_reference(momentum=0.9, weight_decay=0.0):
    """Signum, and with a momentum of 0 signSGD."""
    m = 0.0

    def update(theta, g, lr):
        nonlocal m
        m = momentum * m + (1 - momentum) * g
        return theta * (1 - lr * weight_decay) - lr * np.sign(m)

    return update


def yogi_reference(beta1=0.9, beta2=0.999, eps=1e-3, initial_accumulator_value=1e-6, weight_decay=0.0):
    """Yogi, with decoupled weight decay."""
    t = 0
    m = v = initial_accumulator_value

    def update(theta, g, lr):
        nonlocal t, m, v
        t += 1
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * np.sign(v - g * g) * g * g
        direction = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        return theta * (1 - lr * weight_decay) - lr * direction

    return update


def laprop_reference(beta1=0.9, beta2=0.999, eps=1e-15, weight_decay=0.0):
    """LaProp, with decoupled weight decay."""
    t = 0
    m = v = 0.0

    def update(theta, g, lr):
        nonlocal t, m, v
        t += 1
        v = beta2 * v + (1 - beta2) * g * g
        m = beta1 * m + (1 - beta1) * g / (np.sqrt(v / (1 - beta2**t)) + eps)
        return theta * (1 - lr * weight_decay) - lr * m / (1 - beta1**t)

    return update


def ademamix_reference(beta1=0.9, beta2=0.999, beta3=0.9999, alpha=5.0, eps=1e-8, weight_decay=0.0):
    """AdEMAMix, algorithm 1 of the paper."""
    t = 0
    fast = slow = v = 0.0

    def update(theta, g, lr):
        nonlocal t, fast, slow, v
        t += 1
        fast = beta1 * fast + (1 - beta1) * g
        slow = beta3 * slow + (1 - beta3) * g
        v = beta2 * v + (1 - beta2) * g * g
        direction = (fast / (1 - beta1**t) + alpha * slow) / (np.sqrt(v / (1 - beta2**t)) + eps)
        return theta * (1 - lr * weight_decay) - lr * direction

    return update


def simplified_ademamix_reference(beta1=0.99, beta2=0.95, alpha=0.0, eps=1e-8, weight_decay=0.0):
    """Simplified AdEMAMix."""
    t = 0
    m = v = 0.0

    def update(theta, g, lr):
        nonlocal t, m, v
        t += 1
        m = beta1 * m + g
        v = beta2 * v + (1 - beta2) * g * g
        direction = (m + alpha * g) / (np.sqrt(v / (1 - beta2**t)) + eps)
        return theta * (1 - lr * weight_decay) - lr * direction

    return update


def adopt_reference(beta1=0.9, beta2=0.9999, eps=1e-6, clip_exponent=0.25, weight_decay=0.0):
    """ADOPT, with a limit of 0 in the first step."""
    t = 0
    m = v = 0.0

    def update(theta, g, lr):
        nonlocal t, m, v
        limit = t**clip_exponent
        m = beta1 * m + (1 - beta1) * np.clip(g / np.maximum(np.sqrt(v), eps), -limit, limit)
        v = g * g if t == 0 else beta2 * v + (1 - beta2) * g * g
        t += 1
        return theta * (1 - lr * weight_decay) - lr * m

    return update


def adan_reference(beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, weight_decay=0.0, proximal=True):
    """Adan."""
    t = 0
    m = d = v = before = 0.0

    def update(theta, g, lr):
        nonlocal t, m, d, v, before
        t += 1
        difference = 0.0 if t == 1 else g - before
        m = beta1 * m + (1 - beta1) * g
        d = beta2 * d + (1 - beta2) * difference
        v = beta3 * v + (1 - beta3) * (g + beta2 * difference) ** 2
        direction = m / (1 - beta1**t) + beta2 * d / (1 - beta2**t)
        before = g
        move = lr * direction / (np.sqrt(v / (1 - beta3**t)) + eps)
        return (theta - move) / (1 + lr * weight_decay) if proximal else theta * (1 - lr * weight_decay) - move

    return update


def madgrad_reference(momentum=0.9, eps=1e-6, weight_decay=0.0):
    """MADGRAD."""
    t = 0
    s = v = 0.0
    first = None

    def update(theta, g, lr):
        nonlocal t, s, v, first
        t += 1
        first = theta if first is None else first
        g = g + weight_decay * theta
        weight = (lr + eps) * t**0.5
        s = s + weight * g
        v = v + weight * g * g
        return (1 - momentum) * (first - s / (np.cbrt(v) + eps)) + momentum * theta

    return update


def schedule_free_reference(
    momentum=0.9,
    beta1=None,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    time_power=0.0,
    lr_power=2.0,
    adaptive=True,
    rectified=False,
    silent=True,
):
    """Schedule-free SGD, AdamW and, with `rectified`, RAdam: z, its average x, and y between them, as in the paper."""
    beta = momentum if beta1 is None else beta1
    t = 0
    v = 0.0
    z = x = None
    largest = total = 0.0

    def update(y, g, lr):
        nonlocal t, v, z, x, largest, total
        t += 1
        if z is None:
            z = x = y
        v = beta2 * v + (1 - beta2) * g * g
        is_adaptive = adaptive
        if rectified:
            rho_inf = 2 / (1 - beta2) - 1
            rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
            is_adaptive = rho > 4
            r = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5 if is_adaptive else float(not silent)
            lr = lr * r
        largest = max(largest, lr)
        weight = t**time_power * largest**lr_power
        total += weight
        c = weight / total if total > 0 else 0.0
        d = g / (np.sqrt(v / (1 - beta2**t)) + eps) if is_adaptive else g
        z = z - lr * (d + weight_decay * y)
        x = (1 - c) * x + c * z
        return (1 - beta) * z + beta * x

    return update
