// Kernels over lists of arrays, which change them in place: the loop over all of them, and what every optimizer's update shares.
//
// Memory: addresses[array][k] is where the k-th array (the parameter, its gradient, what is remembered of it) lies, null where there is none; each is
// contiguous. pieces[i] = {array, first element, behind the last element}, at most 4096 elements, cuts all of them into equal work: one block to a piece,
// so a thousand small arrays and a single large one keep the device equally busy.
//
// Why it is fast: every number is read once and written once, 16 bytes at a time where the arrays lie so that one may; the arithmetic hides behind that.
// What the learning rate, the step and the norm make together is computed once in a block, in double, and they may be read from device memory: no
// number has to come from the host, and the norm that clips never goes there.
#pragma once

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

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

// ------------------------------------------------------------------------------------------------ what every update begins with

// The gradient is scale g + decay p; decoupled weight decay multiplies p by shrink
struct Common {
    acc scale, decay, shrink;
};

__device__ __forceinline__ Common common(double rate, double norm, double max_norm, double weight_decay, int64 decoupled, int64 maximize) {
    double c = max_norm / (norm + 1e-6);
    c = c > 1.0 ? 1.0 : c;  // nan goes through
    return {(acc)(maximize ? -c : c), (acc)(decoupled ? 0.0 : weight_decay), (acc)(decoupled ? 1.0 - rate * weight_decay : 1.0)};
}

// update(x, has): x[0] = p, x[1] = the gradient, the others what is remembered, of which has[k] says whether it exists; it changes all but x[1].
// Of the N arrays the first ALWAYS exist.
template <int N, int ALWAYS, class Update>
__device__ __forceinline__ void in_place(const int64 *addresses, const int64 *pieces, int64 count, const Update &update) {
    for (int64 piece = blockIdx.x; piece < count; piece += gridDim.x) {
        const int64 *where = addresses + N * pieces[3 * piece];
        const int64 start = pieces[3 * piece + 1], stop = pieces[3 * piece + 2];
        real *at[N];
        bool has[N], packed = true;
        for (int a = 0; a < N; a++) {
            at[a] = reinterpret_cast<real *>(where[a]);
            has[a] = a < ALWAYS || at[a];
            packed = packed && aligned(at[a]);
        }
        for (int64 i = start + (int64)threadIdx.x * WIDTH; i < stop; i += (int64)blockDim.x * WIDTH) {
            const int n = stop - i < WIDTH ? (int)(stop - i) : WIDTH;
            const bool whole = packed && n == WIDTH;
            Pack pack[N];
            for (int a = 0; a < N; a++)
                if (has[a]) pack[a] = load(at[a] + i, n, whole);
            for (int k = 0; k < WIDTH; k++) {
                acc x[N];
                for (int a = 0; a < N; a++) x[a] = has[a] ? (acc)pack[a].x[k] : acc(0);
                x[1] *= update.scale;
                if (update.decay != 0) x[1] += update.decay * x[0];
                update(x, has);
                for (int a = 0; a < N; a++)
                    if (a != 1 && has[a]) pack[a].x[k] = real(x[a]);
            }
            for (int a = 0; a < N; a++)
                if (a != 1 && has[a]) store(at[a] + i, pack[a], n, whole);
        }
    }
}
