// Activation functions of each element (kernels/activations.cuh has the formulas).
//
//   activation         y = act(x)
//   activation_slope   d = g act'(x)
//   activation_bend    d = c act'(x) and e = c g act''(x), or e alone
//
// Memory: arrays of n elements, one after the other. A thread takes 16 bytes of each (`width` elements), or one element where an array is not aligned to that;
// the last one takes what is left.
//
// Why it is fast: each array passes through memory once. All of it is bound by memory, whatever the activation: the switch on it is the same in all threads.

template <int WIDTH> struct alignas(sizeof(real) * WIDTH) Pack {
    real v[WIDTH];
};

template <int WIDTH> __device__ __forceinline__ Pack<WIDTH> load(const real *__restrict__ p, int64 i, int64 n) {
    if (i + WIDTH <= n) return *reinterpret_cast<const Pack<WIDTH> *>(p + i);
    Pack<WIDTH> x;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) x.v[k] = i + k < n ? p[i + k] : real(0.0f);
    return x;
}

template <int WIDTH> __device__ __forceinline__ void store(real *__restrict__ p, int64 i, int64 n, Pack<WIDTH> x) {
    if (i + WIDTH <= n) {
        *reinterpret_cast<Pack<WIDTH> *>(p + i) = x;
        return;
    }
#pragma unroll
    for (int k = 0; k < WIDTH; k++)
        if (i + k < n) p[i + k] = x.v[k];
}

template <int WIDTH> __device__ __forceinline__ void value_of(const real *__restrict__ x, real *__restrict__ y, int64 n, int act, acc a, acc b) {
    const int64 i = thread_index() * WIDTH;
    if (i >= n) return;
    Pack<WIDTH> s = load<WIDTH>(x, i, n);
#pragma unroll
    for (int k = 0; k < WIDTH; k++) s.v[k] = real(activation_value(act, acc(s.v[k]), a, b));
    store<WIDTH>(y, i, n, s);
}

extern "C" __global__ void __launch_bounds__(256) activation(const real *__restrict__ x, real *__restrict__ y, int64 n, int64 width, int64 act, double a, double b) {
    if (width == 1) value_of<1>(x, y, n, (int)act, acc(a), acc(b));
    else value_of<16 / sizeof(real)>(x, y, n, (int)act, acc(a), acc(b));
}

template <int WIDTH>
__device__ __forceinline__ void slope_of(const real *__restrict__ g, const real *__restrict__ x, real *__restrict__ d, int64 n, int act, acc a, acc b) {
    const int64 i = thread_index() * WIDTH;
    if (i >= n) return;
    Pack<WIDTH> r = load<WIDTH>(g, i, n), s = load<WIDTH>(x, i, n);
#pragma unroll
    for (int k = 0; k < WIDTH; k++) r.v[k] = real(activation_times_slope(act, acc(r.v[k]), acc(s.v[k]), a, b));
    store<WIDTH>(d, i, n, r);
}

extern "C" __global__ void __launch_bounds__(256) activation_slope(const real *__restrict__ g, const real *__restrict__ x, real *__restrict__ d, int64 n, int64 width, int64 act, double a, double b) {
    if (width == 1) slope_of<1>(g, x, d, n, (int)act, acc(a), acc(b));
    else slope_of<16 / sizeof(real)>(g, x, d, n, (int)act, acc(a), acc(b));
}

template <int WIDTH>
__device__ __forceinline__ void bend_of(const real *__restrict__ c, const real *__restrict__ g, const real *__restrict__ x, real *__restrict__ d, real *__restrict__ e, int64 n, int act, acc a, acc b) {
    const int64 i = thread_index() * WIDTH;
    if (i >= n) return;
    Pack<WIDTH> p = load<WIDTH>(c, i, n), r = load<WIDTH>(g, i, n), s = load<WIDTH>(x, i, n);
#pragma unroll
    for (int k = 0; k < WIDTH; k++) {
        const acc u = acc(s.v[k]), v = acc(p.v[k]);
        r.v[k] = real(v * acc(r.v[k]) * activation_curvature(act, u, a, b));
        if (d) p.v[k] = real(activation_times_slope(act, v, u, a, b));
    }
    store<WIDTH>(e, i, n, r);
    if (d) store<WIDTH>(d, i, n, p);
}

// d null: e alone
extern "C" __global__ void __launch_bounds__(256) activation_bend(const real *__restrict__ c, const real *__restrict__ g, const real *__restrict__ x, real *__restrict__ d, real *__restrict__ e, int64 n, int64 width, int64 act, double a, double b) {
    if (width == 1) bend_of<1>(c, g, x, d, e, n, (int)act, acc(a), acc(b));
    else bend_of<16 / sizeof(real)>(c, g, x, d, e, n, (int)act, acc(a), acc(b));
}
