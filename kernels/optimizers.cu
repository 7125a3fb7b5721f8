// The updates of SGD and of Adam, of all parameters of a model in one launch; and the norm of all gradients together.
//
// With c = min(1, max_norm / (norm + 1e-6)), and c < 0 to maximize:
//
//     SGD    g = c g + weight_decay p             Adam    g = c g + weight_decay p    (decoupled: p = p - lr weight_decay p)
//            b = momentum b + keep g                      m = beta1 m + (1 - beta1) g
//            p = p - lr b                                 v = beta2 v + (1 - beta2) g^2
//            (Nesterov: p - lr (g + momentum b))          p = p - lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)
//                                                         (AMSGrad: with the largest v so far)
//
// Memory: addresses[array][k] is where the k-th array (p, g, b; p, g, m, v, w) of each parameter lies, null where there is none; each is contiguous.
// pieces[i] = {array, first element, behind the last element}, at most 4096 elements, cuts all of them into equal work: one block to a piece, so a
// thousand small arrays and a single large one keep the device equally busy.
//
// Why it is fast: every number is read once and written once, 16 bytes at a time where the arrays lie so that one may; the arithmetic hides behind that.
// What the learning rate, the step and the norm make together is computed once in a block, in double, and they may be read from device memory: no
// number has to come from the host, and the norm that clips never goes there. Sums go piece by piece in a fixed order, in double.

const int WIDTH = 16 / sizeof(real);

struct alignas(16) Pack {
    real x[WIDTH];
};

// `count` of WIDTH numbers, at once if `whole`; zeros for the others
__device__ __forceinline__ Pack load(const real *at, int count, bool whole) {
    if (whole) return *reinterpret_cast<const Pack *>(at);
    Pack pack;
    for (int k = 0; k < WIDTH; k++) pack.x[k] = k < count ? at[k] : real(0.0f);
    return pack;
}

__device__ __forceinline__ void store(real *at, const Pack &pack, int count, bool whole) {
    if (whole) {
        *reinterpret_cast<Pack *>(at) = pack;
        return;
    }
    for (int k = 0; k < WIDTH; k++)
        if (k < count) at[k] = pack.x[k];
}

__device__ __forceinline__ bool aligned(const void *at) { return reinterpret_cast<uint64>(at) % 16 == 0; }

__device__ __forceinline__ double number(const double *at, double otherwise) { return at ? *at : otherwise; }

// by what gradients are multiplied; nan goes through
__device__ __forceinline__ double scale_of(double norm, double max_norm, int64 maximize) {
    double c = max_norm / (norm + 1e-6);
    c = c > 1.0 ? 1.0 : c;
    return maximize ? -c : c;
}

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

// ------------------------------------------------------------------------------------------------ SGD

extern "C" __global__ void __launch_bounds__(256) sgd(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    const double *__restrict__ norm_at, double norm_number, double max_norm, double momentum_number, double keep_number, double weight_decay,
    int64 nesterov, int64 maximize) {
    __shared__ acc constants[2];
    if (threadIdx.x == 0) {
        constants[0] = (acc)number(lr_at, lr_number);
        constants[1] = (acc)scale_of(number(norm_at, norm_number), max_norm, maximize);
    }
    __syncthreads();
    const acc lr = constants[0], scale = constants[1], decay = (acc)weight_decay, momentum = (acc)momentum_number, keep = (acc)keep_number;
    for (int64 piece = blockIdx.x; piece < count; piece += gridDim.x) {
        const int64 *where = addresses + 3 * pieces[3 * piece];
        const int64 start = pieces[3 * piece + 1], stop = pieces[3 * piece + 2];
        real *p = reinterpret_cast<real *>(where[0]), *b = reinterpret_cast<real *>(where[2]);
        const real *g = reinterpret_cast<const real *>(where[1]);
        const bool packed = aligned(p) && aligned(g) && aligned(b);
        for (int64 i = start + (int64)threadIdx.x * WIDTH; i < stop; i += (int64)blockDim.x * WIDTH) {
            const int n = stop - i < WIDTH ? (int)(stop - i) : WIDTH;
            const bool whole = packed && n == WIDTH;
            Pack P = load(p + i, n, whole), G = load(g + i, n, whole), B;
            if (b) B = load(b + i, n, whole);
            for (int k = 0; k < WIDTH; k++) {
                acc x = (acc)P.x[k], step = scale * (acc)G.x[k];
                if (decay != 0) step += decay * x;
                if (b) {
                    const acc buffer = momentum * (acc)B.x[k] + keep * step;
                    B.x[k] = real(buffer);
                    step = nesterov ? step + momentum * buffer : buffer;
                }
                P.x[k] = real(x - lr * step);
            }
            store(p + i, P, n, whole);
            if (b) store(b + i, B, n, whole);
        }
    }
}

// ------------------------------------------------------------------------------------------------ Adam

extern "C" __global__ void __launch_bounds__(256) adam(
    const int64 *__restrict__ addresses, const int64 *__restrict__ pieces, int64 count, const double *__restrict__ lr_at, double lr_number,
    const double *__restrict__ step_at, double step_number, const double *__restrict__ norm_at, double norm_number, double max_norm,
    double beta1_number, double beta2_number, double eps_number, double weight_decay, int64 decoupled, int64 maximize) {
    __shared__ acc constants[4];
    if (threadIdx.x == 0) {
        const double lr = number(lr_at, lr_number), step = number(step_at, step_number);
        constants[0] = (acc)(lr / (1.0 - pow(beta1_number, step)));
        constants[1] = (acc)(1.0 / sqrt(1.0 - pow(beta2_number, step)));
        constants[2] = (acc)(decoupled ? 1.0 - lr * weight_decay : 1.0);
        constants[3] = (acc)scale_of(number(norm_at, norm_number), max_norm, maximize);
    }
    __syncthreads();
    const acc rate = constants[0], unbias = constants[1], shrink = constants[2], scale = constants[3], eps = (acc)eps_number;
    const acc decay = (acc)(decoupled ? 0.0 : weight_decay), beta1 = (acc)beta1_number, beta2 = (acc)beta2_number;
    const acc gain1 = (acc)(1.0 - beta1_number), gain2 = (acc)(1.0 - beta2_number);
    for (int64 piece = blockIdx.x; piece < count; piece += gridDim.x) {
        const int64 *where = addresses + 5 * pieces[3 * piece];
        const int64 start = pieces[3 * piece + 1], stop = pieces[3 * piece + 2];
        real *p = reinterpret_cast<real *>(where[0]), *m = reinterpret_cast<real *>(where[2]);
        real *v = reinterpret_cast<real *>(where[3]), *w = reinterpret_cast<real *>(where[4]);
        const real *g = reinterpret_cast<const real *>(where[1]);
        const bool packed = aligned(p) && aligned(g) && aligned(m) && aligned(v) && aligned(w);
        for (int64 i = start + (int64)threadIdx.x * WIDTH; i < stop; i += (int64)blockDim.x * WIDTH) {
            const int n = stop - i < WIDTH ? (int)(stop - i) : WIDTH;
            const bool whole = packed && n == WIDTH;
            Pack P = load(p + i, n, whole), G = load(g + i, n, whole), M = load(m + i, n, whole), V = load(v + i, n, whole), W;
            if (w) W = load(w + i, n, whole);
            for (int k = 0; k < WIDTH; k++) {
                acc x = (acc)P.x[k], step = scale * (acc)G.x[k];
                if (decay != 0) step += decay * x;
                const acc mean = beta1 * (acc)M.x[k] + gain1 * step;
                acc square = beta2 * (acc)V.x[k] + gain2 * step * step;
                M.x[k] = real(mean);
                V.x[k] = real(square);
                if (w) {
                    square = larger((acc)W.x[k], square);
                    W.x[k] = real(square);
                }
                P.x[k] = real(shrink * x - rate * (mean / (root(square) * unbias + eps)));
            }
            store(p + i, P, n, whole);
            store(m + i, M, n, whole);
            store(v + i, V, n, whole);
            if (w) store(w + i, W, n, whole);
        }
    }
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
