// The optimizers' updates, of all parameters of a model in one launch; and the norm of all gradients together.
//
// Each update is its formula for one number (references with the same names in optimizers.py), and an entry point that computes the constants of a step
// once in a block. The loop over all arrays, weight decay, clipping and the sign of maximization are in lists.cuh, and why it is fast.
// Sums go piece by piece in a fixed order, in double.

// ------------------------------------------------------------------------------------------------ SGD: p, g, the buffer b

struct Sgd : Common {
    acc lr, momentum, keep, nesterov;
    __device__ __forceinline__ void operator()(acc (&x)[3], const bool (&has)[3]) const {
        const acc start = shrink != 1 ? shrink * x[0] : x[0];
        acc step = x[1];
        if (has[2]) {
            x[2] = momentum * x[2] + keep * step;
            step = nesterov != 0 ? step + momentum * x[2] : x[2];
        }
        x[0] = start - lr * step;
    }
};

extern "C" __global__ void __launch_bounds__(256) sgd(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    double momentum, double keep, int64 nesterov,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Sgd shared;
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number);
        shared = {common(lr, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize), (acc)lr, (acc)momentum, (acc)keep, (acc)nesterov};
    }
    __syncthreads();
    in_place<3, 2>(addresses, pieces, count, Sgd(shared));
}

// ------------------------------------------------------------------------------------------------ Adam: p, g, m, v, the largest v

struct Adam : Common {
    acc rate, unbias, beta1, gain1, beta2, gain2, eps;
    __device__ __forceinline__ void operator()(acc (&x)[5], const bool (&has)[5]) const {
        x[2] = beta1 * x[2] + gain1 * x[1];
        acc square = beta2 * x[3] + gain2 * x[1] * x[1];
        x[3] = square;
        if (has[4]) x[4] = square = larger(x[4], square);
        x[0] = shrink * x[0] - rate * (x[2] / (root(square) * unbias + eps));
    }
};

extern "C" __global__ void __launch_bounds__(256) adam(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    const double *__restrict__ step_at, double step_number, double beta1, double beta2, double eps,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Adam shared;
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number), step = number(step_at, step_number);
        shared = {common(lr, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize),
                  (acc)(lr / (1.0 - pow(beta1, step))), (acc)(1.0 / sqrt(1.0 - pow(beta2, step))),
                  (acc)beta1, (acc)(1.0 - beta1), (acc)beta2, (acc)(1.0 - beta2), (acc)eps};
    }
    __syncthreads();
    in_place<5, 4>(addresses, pieces, count, Adam(shared));
}

// ------------------------------------------------------------------------------------------------ NAdam: p, g, m, v

struct Nadam : Common {
    acc of_m, of_g, unbias, beta1, gain1, beta2, gain2, eps;
    __device__ __forceinline__ void operator()(acc (&x)[4], const bool (&has)[4]) const {
        x[2] = beta1 * x[2] + gain1 * x[1];
        x[3] = beta2 * x[3] + gain2 * x[1] * x[1];
        x[0] = shrink * x[0] - (of_m * x[2] + of_g * x[1]) / (root(x[3]) * unbias + eps);
    }
};

extern "C" __global__ void __launch_bounds__(256) nadam(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    const double *__restrict__ step_at, double step_number, const double *__restrict__ mu_product_at, double mu_product_number,
    double beta1, double beta2, double eps, double momentum_decay,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Nadam shared;
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number), step = number(step_at, step_number), product = number(mu_product_at, mu_product_number);
        const double mu = beta1 * (1.0 - 0.5 * pow(0.96, step * momentum_decay)), next = beta1 * (1.0 - 0.5 * pow(0.96, (step + 1.0) * momentum_decay));
        shared = {common(lr, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize),
                  (acc)(lr * next / (1.0 - product * next)), (acc)(lr * (1.0 - mu) / (1.0 - product)), (acc)(1.0 / sqrt(1.0 - pow(beta2, step))),
                  (acc)beta1, (acc)(1.0 - beta1), (acc)beta2, (acc)(1.0 - beta2), (acc)eps};
    }
    __syncthreads();
    in_place<4, 4>(addresses, pieces, count, Nadam(shared));
}

// ------------------------------------------------------------------------------------------------ RMSprop: p, g, v, the average m, the buffer b

struct Rmsprop : Common {
    acc lr, alpha, gain, eps, momentum;
    __device__ __forceinline__ void operator()(acc (&x)[5], const bool (&has)[5]) const {
        acc square = alpha * x[2] + gain * x[1] * x[1];
        x[2] = square;
        if (has[3]) {
            x[3] = alpha * x[3] + gain * x[1];
            square -= x[3] * x[3];
            square = square < 0 ? acc(0) : square;  // nan goes through
        }
        acc step = x[1] / (root(square) + eps);
        if (has[4]) x[4] = step = momentum * x[4] + step;
        x[0] = shrink * x[0] - lr * step;
    }
};

extern "C" __global__ void __launch_bounds__(256) rmsprop(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    double alpha, double eps, double momentum,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Rmsprop shared;
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number);
        shared = {common(lr, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize),
                  (acc)lr, (acc)alpha, (acc)(1.0 - alpha), (acc)eps, (acc)momentum};
    }
    __syncthreads();
    in_place<5, 3>(addresses, pieces, count, Rmsprop(shared));
}

// ------------------------------------------------------------------------------------------------ Adagrad: p, g, the sum s

struct Adagrad : Common {
    acc rate, eps;
    __device__ __forceinline__ void operator()(acc (&x)[3], const bool (&has)[3]) const {
        x[2] += x[1] * x[1];
        x[0] = shrink * x[0] - rate * (x[1] / (root(x[2]) + eps));
    }
};

extern "C" __global__ void __launch_bounds__(256) adagrad(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    const double *__restrict__ step_at, double step_number, double lr_decay, double eps,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Adagrad shared;
    if (threadIdx.x == 0) {
        const double rate = number(lr_at, lr_number) / (1.0 + (number(step_at, step_number) - 1.0) * lr_decay);
        shared = {common(rate, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize), (acc)rate, (acc)eps};
    }
    __syncthreads();
    in_place<3, 3>(addresses, pieces, count, Adagrad(shared));
}

// ------------------------------------------------------------------------------------------------ Adadelta: p, g, v, the average u of squared steps

struct Adadelta : Common {
    acc lr, rho, gain, eps;
    __device__ __forceinline__ void operator()(acc (&x)[4], const bool (&has)[4]) const {
        x[2] = rho * x[2] + gain * x[1] * x[1];
        const acc step = root(x[3] + eps) / root(x[2] + eps) * x[1];
        x[3] = rho * x[3] + gain * step * step;
        x[0] = shrink * x[0] - lr * step;
    }
};

extern "C" __global__ void __launch_bounds__(256) adadelta(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    double rho, double eps,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Adadelta shared;
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number);
        shared = {common(lr, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize),
                  (acc)lr, (acc)rho, (acc)(1.0 - rho), (acc)eps};
    }
    __syncthreads();
    in_place<4, 4>(addresses, pieces, count, Adadelta(shared));
}

// ------------------------------------------------------------------------------------------------ Lion: p, g, m

struct Lion : Common {
    acc lr, beta1, gain1, beta2, gain2;
    __device__ __forceinline__ void operator()(acc (&x)[3], const bool (&has)[3]) const {
        const acc c = beta1 * x[2] + gain1 * x[1], sign = c > 0 ? acc(1) : c < 0 ? acc(-1) : c;  // that of nan is nan
        x[2] = beta2 * x[2] + gain2 * x[1];
        x[0] = shrink * x[0] - lr * sign;
    }
};

extern "C" __global__ void __launch_bounds__(256) lion(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    double beta1, double beta2,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ Lion shared;
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number);
        shared = {common(lr, number(norm_at, norm_number), max_norm, weight_decay, decoupled, maximize),
                  (acc)lr, (acc)beta1, (acc)(1.0 - beta1), (acc)beta2, (acc)(1.0 - beta2)};
    }
    __syncthreads();
    in_place<3, 3>(addresses, pieces, count, Lion(shared));
}

// ------------------------------------------------------------------------------------------------ the norm of all gradients

// partials[piece] = the sum of the squares of its elements
extern "C" __global__ void __launch_bounds__(256) squares(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, double *__restrict__ partials) {
    __shared__ double shared[32];
    for (int64 piece = blockIdx.x; piece < count; piece += gridDim.x) {
        const real *g = reinterpret_cast<const real *>(addresses[pieces[3 * piece]]);
        const int64 start = pieces[3 * piece + 1], stop = pieces[3 * piece + 2];
        double sum = 0.0;
        for (int64 i = start + (int64)threadIdx.x * WIDTH; i < stop; i += (int64)blockDim.x * WIDTH) {
            const int n = stop - i < WIDTH ? (int)(stop - i) : WIDTH;
            const Pack G = load(g + i, n, n == WIDTH && aligned(g));
            for (int k = 0; k < WIDTH; k++) sum += (double)(acc)G.x[k] * (double)(acc)G.x[k];
        }
        sum = block_sum(sum, shared);
        if (threadIdx.x == 0) partials[piece] = sum;
    }
}

// One block: norm = sqrt(sum of partials)
extern "C" __global__ void __launch_bounds__(256) norm_of_squares(const double *__restrict__ partials, int64 count, double *__restrict__ norm) {
    __shared__ double shared[32];
    double sum = 0.0;
    for (int64 i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}
