// Products of a cotangent: with masks, with slopes, and those in which a zero wins.
//
//   masked   y = f(d, a, b, c): the derivatives of relu, clip, maximum, minimum, fmax, fmin and some functions times d, and products and
//            quotients in which a zero d wins, or a zero of either.
//            With z, of the two-sided ones: y the share of a, and z that of b
//   select   y = mask ? x : other, the other way round if inverted. With z: y = mask ? x : 0 and z the rest of x
//
// Memory: flat arrays, of which any but the results may be a number instead (its pointer is null). A thread takes 16 bytes of each array at once (8 of 16-bit floats)
// where all of them are aligned to that, and one element at a time of the rest.
//
// Why it is fast: each array passes through memory once; a choice is a predicated move, never a branch that a warp would take both ways of. The switch on what is
// computed is uniform.

const int WIDTH = sizeof(real) == 8 ? 2 : 4;  // eight 16-bit floats of four arrays would not fit the registers

struct alignas(WIDTH * sizeof(real)) Pack {
    real v[WIDTH];
};
struct alignas(WIDTH) Mask {
    bool v[WIDTH];
};

enum What { POSITIVE, WITHIN, MAXIMUM, MINIMUM, FMAX, FMIN, STRONG_MULTIPLY, STRONG_DIVIDE, MUTUAL, TANH, SQUARE, RECIPROCAL, SQRT };

__device__ __forceinline__ acc formula(int what, acc d, acc a, acc b, acc c) {
    const acc zero = acc(0);
    switch (what) {
        case POSITIVE: return a <= zero ? zero : d;  // nan stays
        case WITHIN: return a < b || a > c ? zero : d;
        case MAXIMUM: return a == b ? acc(0.5) * d : a < b ? zero : d;
        case MINIMUM: return a == b ? acc(0.5) * d : a > b ? zero : d;
        case FMAX: return a == b ? acc(0.5) * d : a < b || (a != a && b == b) ? zero : d;
        case FMIN: return a == b ? acc(0.5) * d : a > b || (a != a && b == b) ? zero : d;
        case STRONG_MULTIPLY: return d == zero ? zero : d * a;
        case STRONG_DIVIDE: return d == zero ? zero : d / a;
        case MUTUAL: return d == zero || a == zero ? zero : d * a;
        case TANH: return d * ((acc(1) - a) * (acc(1) + a));  // a is the value of these
        case SQUARE: return d * (a + a);
        case RECIPROCAL: return d == zero ? zero : -(d * a * a);
        default: return d == zero ? zero : d / (a + a);
    }
}

__device__ __forceinline__ bool aligned(const void *p) { return (uint64)p % sizeof(Pack) == 0; }

__device__ __forceinline__ Pack load(const real *p, int64 i, acc number) {
    Pack pack;
    if (p) return *reinterpret_cast<const Pack *>(p + i);
    for (int k = 0; k < WIDTH; k++) pack.v[k] = real(number);
    return pack;
}

__device__ __forceinline__ acc one(const real *p, int64 i, acc number) { return p ? acc(p[i]) : acc(real(number)); }

extern "C" __global__ void __launch_bounds__(256) masked(const real *d, const real *a, const real *b, const real *c, real *__restrict__ y, real *__restrict__ z, int64 n, double d0, double a0, double b0, double c0, int64 what) {
    const int64 whole = aligned(d) && aligned(a) && aligned(b) && aligned(c) && aligned(y) && aligned(z) ? n / WIDTH : 0;
    const int f = (int)what;
    for (int64 i = thread_index(); i < whole; i += thread_count()) {
        const Pack D = load(d, i * WIDTH, acc(d0)), A = load(a, i * WIDTH, acc(a0)), B = load(b, i * WIDTH, acc(b0)), C = load(c, i * WIDTH, acc(c0));
        Pack out;
        for (int k = 0; k < WIDTH; k++) out.v[k] = real(formula(f, acc(D.v[k]), acc(A.v[k]), acc(B.v[k]), acc(C.v[k])));
        *reinterpret_cast<Pack *>(y + i * WIDTH) = out;
        if (!z) continue;
        for (int k = 0; k < WIDTH; k++) out.v[k] = real(formula(f, acc(D.v[k]), acc(B.v[k]), acc(A.v[k]), acc(0)));
        *reinterpret_cast<Pack *>(z + i * WIDTH) = out;
    }
    for (int64 i = whole * WIDTH + thread_index(); i < n; i += thread_count()) {
        const acc D = one(d, i, acc(d0)), A = one(a, i, acc(a0)), B = one(b, i, acc(b0));
        y[i] = real(formula(f, D, A, B, one(c, i, acc(c0))));
        if (z) z[i] = real(formula(f, D, B, A, acc(0)));
    }
}

extern "C" __global__ void __launch_bounds__(256) select(const real *x, const real *other, const bool *mask, real *__restrict__ y, real *__restrict__ z, int64 n, double x0, double other0, int64 inverted) {
    const int64 whole = aligned(x) && aligned(other) && aligned(mask) && aligned(y) && aligned(z) ? n / WIDTH : 0;
    const bool chosen = !inverted;
    for (int64 i = thread_index(); i < whole; i += thread_count()) {
        const Pack X = load(x, i * WIDTH, acc(x0)), O = load(other, i * WIDTH, acc(other0));
        const Mask M = *reinterpret_cast<const Mask *>(mask + i * WIDTH);
        Pack out;
        for (int k = 0; k < WIDTH; k++) out.v[k] = M.v[k] == chosen ? X.v[k] : O.v[k];
        *reinterpret_cast<Pack *>(y + i * WIDTH) = out;
        if (!z) continue;
        for (int k = 0; k < WIDTH; k++) out.v[k] = M.v[k] == chosen ? O.v[k] : X.v[k];
        *reinterpret_cast<Pack *>(z + i * WIDTH) = out;
    }
    for (int64 i = whole * WIDTH + thread_index(); i < n; i += thread_count()) {
        const real X = x ? x[i] : real(acc(x0)), O = other ? other[i] : real(acc(other0));
        y[i] = mask[i] == chosen ? X : O;
        if (z) z[i] = mask[i] == chosen ? O : X;
    }
}
