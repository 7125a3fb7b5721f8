// softmax, log_softmax and logsumexp of the lines of an array, and the maps of their differentials; the formulas are in softmax.py.
//
// Arrays are (outer, n, inner) in C order, a line is what lies along the middle axis, and a team of threads has it: for rows (inner = 1) a warp or, where they are
// long, a block; else a column of a block, whose rows of threads read neighbouring lines. Rows are taken 16 bytes at a time where length and addresses allow it.
//
// Why it is fast: (m, rest) is found in one reading, rescaled when a larger element comes, and all later readings of a line find it in the cache; so memory is
// read once and written once. The host waits for nothing. Where no element is dominant the backward kernels read a line twice, else once more. Sums are made in
// an order that depends on the sizes alone.

// A column of a block's threads. `height` is a power of 2.
struct Column {
    Sum *sums;
    acc *values;
    int64 *places;  // 512 each; what is not asked for may be null

    __device__ __forceinline__ int64 lane() const { return threadIdx.y; }
    __device__ __forceinline__ int64 lanes() const { return blockDim.y; }

    template <class T, class F> __device__ __forceinline__ T reduced(T x, T *shared, F f) const {
        const unsigned own = threadIdx.y * blockDim.x + threadIdx.x;
        shared[own] = x;
        __syncthreads();
        for (unsigned half = blockDim.y / 2; half; half /= 2) {
            if (threadIdx.y < half) shared[own] = f(shared[own], shared[own + half * blockDim.x]);
            __syncthreads();
        }
        x = shared[threadIdx.x];
        __syncthreads();
        return x;
    }
    __device__ __forceinline__ acc sum(acc x) const {
        return reduced(x, values, [](acc a, acc b) { return a + b; });
    }
    __device__ __forceinline__ int64 least(int64 x) const {
        return reduced(x, places, [](int64 a, int64 b) { return a < b ? a : b; });
    }
    __device__ __forceinline__ Sum join(Sum s) const {
        return reduced(s, sums, [](Sum a, Sum b) { return joined(a, b); });
    }
};

// Where a line begins, how many packs it has, and how many packs further the next one is.
struct Line {
    int64 start, packs, stride;
};

template <int V> __device__ __forceinline__ Pack<V> &pack(real *a, Line line, int64 i) { return reinterpret_cast<Pack<V> *>(a + line.start)[i * line.stride]; }
template <int V> __device__ __forceinline__ Pack<V> pack(const real *a, Line line, int64 i) {
    return reinterpret_cast<const Pack<V> *>(a + line.start)[i * line.stride];
}

// ------------------------------------------------------------------------------------------------ forward

// y (scale softmax(x), or log_softmax(x)) and out (logsumexp) may be null, and so may scale, for 1; `number` is the line's, or negative where there is none.
template <int V, class Team>
__device__ __forceinline__ void forward(Team team, Line line, int64 number, const real *x, const real *scale, real *y, real *out, bool log) {
    Sum s = {-infinity(), 0};
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> v = pack<V>(x, line, i);
#pragma unroll
        for (int k = 0; k < V; k++) s = joined(s, {(acc)v.at[k], 0});
    }
    s = team.join(s);
    const acc m = s.max, rest = m == -infinity() ? 0 * s.rest : s.rest;  // nan of a nan
    const acc less = log ? log1p(rest) : acc(0);
    if (out && number >= 0 && team.lane() == 0) out[number] = real(m + less);
    if (!y) return;
    const acc nothing = m == -infinity() ? infinity() : acc(0);
    const acc f = (scale && number >= 0 ? (acc)scale[number] : acc(1)) * (nothing > 0 ? rest : 1 / (1 + rest));
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> v = pack<V>(x, line, i), r;
#pragma unroll
        for (int k = 0; k < V; k++) {
            acc z = (acc)v.at[k] == m ? acc(0) : (acc)v.at[k] - m;  // the difference of infinities would be nan
            r.at[k] = real(log ? z - (less + nothing) : f * exp(z));
        }
        pack<V>(y, line, i) = r;
    }
}

// ------------------------------------------------------------------------------------------------ backward

__device__ __forceinline__ acc bound_of(bool log) { return log ? acc(-0.69314718055994530942) : acc(0.5); }

// Where the element number j of a line is.
template <int V> __device__ __forceinline__ int64 place(Line line, int64 j) { return line.start + (V == 1 ? j * line.stride : j); }

// Stores the balance of a line's d, whose sum without the dominant one is `total`: it is written by the thread that wrote its pack.
template <int V, class Team> __device__ __forceinline__ void balance(Team team, Line line, real *d, int64 top, acc total) {
    total = team.sum(total);
    if (top < line.packs * V && top / V % team.lanes() == team.lane()) d[place<V>(line, top)] = real(-total);
}

template <int V, class Team> __device__ __forceinline__ void slope(Team team, Line line, const real *g, const real *y, real *d, bool log) {
    const int64 n = line.packs * V;
    const acc bound = bound_of(log);
    int64 top = n;
    acc s = 0, from = 0;
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> a = pack<V>(g, line, i), b = pack<V>(y, line, i);
#pragma unroll
        for (int k = 0; k < V; k++) {
            s += log ? (acc)a.at[k] : (acc)b.at[k] * (acc)a.at[k];
            if ((acc)b.at[k] > bound && top == n) top = i * V + k;
        }
    }
    s = team.sum(s);
    top = team.least(top);
    if (!log) {
        from = top < n ? (acc)g[place<V>(line, top)] : acc(0);
        acc again = 0;
        if (top < n)
            for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
                Pack<V> a = pack<V>(g, line, i), b = pack<V>(y, line, i);
#pragma unroll
                for (int k = 0; k < V; k++) again += (acc)b.at[k] * ((acc)a.at[k] - from);
            }
        again = team.sum(again);  // all threads of a block, whatever their lines have
        s = top < n ? again : s;
    }
    acc others = 0;
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> a = pack<V>(g, line, i), b = pack<V>(y, line, i), r;
#pragma unroll
        for (int k = 0; k < V; k++) {
            acc e = log ? (acc)a.at[k] - exp((acc)b.at[k]) * s : (acc)b.at[k] * (((acc)a.at[k] - from) - s);
            r.at[k] = real(e);
            others += i * V + k == top ? acc(0) : e;
        }
        pack<V>(d, line, i) = r;
    }
    balance<V>(team, line, d, top, others);
}

// ------------------------------------------------------------------------------------------------ double backward

// of_y may be null where log, and then g too.
template <int V, class Team>
__device__ __forceinline__ void curvature(Team team, Line line, const real *c, const real *g, const real *y, real *of_g, real *of_y, bool log) {
    const int64 n = line.packs * V;
    const acc bound = bound_of(log);
    int64 top = n;
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> b = pack<V>(y, line, i);
#pragma unroll
        for (int k = 0; k < V; k++)
            if ((acc)b.at[k] > bound && top == n) top = i * V + k;
    }
    top = team.least(top);
    const acc from_c = top < n ? (acc)c[place<V>(line, top)] : acc(0), from_g = top < n && !log ? (acc)g[place<V>(line, top)] : acc(0);
    acc s = 0, t = 0;
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> w = pack<V>(c, line, i), b = pack<V>(y, line, i), u = g ? pack<V>(g, line, i) : w;
#pragma unroll
        for (int k = 0; k < V; k++) {
            acc p = log ? exp((acc)b.at[k]) : (acc)b.at[k];
            t += p * ((acc)w.at[k] - from_c);
            s += log ? (acc)u.at[k] : p * ((acc)u.at[k] - from_g);
        }
    }
    s = team.sum(s);
    t = team.sum(t);
    acc others = 0;
    for (int64 i = team.lane(); i < line.packs; i += team.lanes()) {
        Pack<V> cs = pack<V>(c, line, i), b = pack<V>(y, line, i), gs = g ? pack<V>(g, line, i) : cs, first, second;
#pragma unroll
        for (int k = 0; k < V; k++) {
            acc w = (acc)cs.at[k] - from_c, u = (acc)gs.at[k] - from_g;
            acc e = log ? w - t : (acc)b.at[k] * (w - t);
            first.at[k] = real(e);
            others += i * V + k == top ? acc(0) : e;
            second.at[k] = real(log ? -(exp((acc)b.at[k]) * w) * s : w * (u - s) - u * t);
        }
        pack<V>(of_g, line, i) = first;
        if (of_y) pack<V>(of_y, line, i) = second;
    }
    if (!log) balance<V>(team, line, of_g, top, others);
}

// ------------------------------------------------------------------------------------------------ entry points

__device__ __forceinline__ Line row(int64 i, int64 n, bool packed) { return {i * n, packed ? n / PACKED : n, 1}; }

// The line of this thread's column; one without any elements, where there is none, for the barriers are for all.
__device__ __forceinline__ Line column(int64 n, int64 inner, int64 *number) {
    const int64 groups = (inner + blockDim.x - 1) / blockDim.x, outer = blockIdx.x / groups, c = blockIdx.x % groups * blockDim.x + threadIdx.x;
    *number = c < inner ? outer * inner + c : -1;
    return {outer * n * inner + c, c < inner ? n : 0, inner};
}

__device__ __forceinline__ int64 warp_number() { return thread_index() / 32; }

extern "C" __global__ void __launch_bounds__(128, 4)
softmax_by_warps(const real *__restrict__ x, const real *__restrict__ scale, real *__restrict__ y, real *__restrict__ out, int64 log, int64 rows, int64 n) {
    const int64 i = warp_number();
    if (i >= rows) return;
    const bool packed = n % PACKED == 0 && aligned(x) && aligned(y);
    if (packed) forward<PACKED>(Warp(), row(i, n, true), i, x, scale, y, out, log);
    else forward<1>(Warp(), row(i, n, false), i, x, scale, y, out, log);
}

extern "C" __global__ void __launch_bounds__(1024, 1)
softmax_by_blocks(const real *__restrict__ x, const real *__restrict__ scale, real *__restrict__ y, real *__restrict__ out, int64 log, int64 n) {
    __shared__ acc shared[64];
    const int64 i = blockIdx.x;
    const bool packed = n % PACKED == 0 && aligned(x) && aligned(y);
    if (packed) forward<PACKED>(Block{shared, nullptr}, row(i, n, true), i, x, scale, y, out, log);
    else forward<1>(Block{shared, nullptr}, row(i, n, false), i, x, scale, y, out, log);
}

extern "C" __global__ void __launch_bounds__(512, 1)
softmax_by_columns(const real *__restrict__ x, const real *__restrict__ scale, real *__restrict__ y, real *__restrict__ out, int64 log, int64 n, int64 inner) {
    __shared__ Sum sums[512];
    int64 number;
    const Line line = column(n, inner, &number);
    forward<1>(Column{sums, nullptr, nullptr}, line, number, x, scale, y, out, log);
}

extern "C" __global__ void __launch_bounds__(128, 4)
softmax_slope_by_warps(const real *__restrict__ g, const real *__restrict__ y, real *__restrict__ d, int64 log, int64 rows, int64 n) {
    const int64 i = warp_number();
    if (i >= rows) return;
    const bool packed = n % PACKED == 0 && aligned(g) && aligned(y) && aligned(d);
    if (packed) slope<PACKED>(Warp(), row(i, n, true), g, y, d, log);
    else slope<1>(Warp(), row(i, n, false), g, y, d, log);
}

extern "C" __global__ void __launch_bounds__(1024, 1)
softmax_slope_by_blocks(const real *__restrict__ g, const real *__restrict__ y, real *__restrict__ d, int64 log, int64 n) {
    __shared__ acc shared[64];
    __shared__ int64 places[32];
    const bool packed = n % PACKED == 0 && aligned(g) && aligned(y) && aligned(d);
    if (packed) slope<PACKED>(Block{shared, places}, row(blockIdx.x, n, true), g, y, d, log);
    else slope<1>(Block{shared, places}, row(blockIdx.x, n, false), g, y, d, log);
}

extern "C" __global__ void __launch_bounds__(512, 1)
softmax_slope_by_columns(const real *__restrict__ g, const real *__restrict__ y, real *__restrict__ d, int64 log, int64 n, int64 inner) {
    __shared__ acc values[512];
    __shared__ int64 places[512];
    int64 number;
    const Line line = column(n, inner, &number);
    slope<1>(Column{nullptr, values, places}, line, g, y, d, log);
}

extern "C" __global__ void __launch_bounds__(128, 4)
softmax_curvature_by_warps(const real *__restrict__ c, const real *__restrict__ g, const real *__restrict__ y, real *__restrict__ of_g, real *__restrict__ of_y,
                           int64 log, int64 rows, int64 n) {
    const int64 i = warp_number();
    if (i >= rows) return;
    const bool packed = n % PACKED == 0 && aligned(c) && aligned(g) && aligned(y) && aligned(of_g) && aligned(of_y);
    if (packed) curvature<PACKED>(Warp(), row(i, n, true), c, g, y, of_g, of_y, log);
    else curvature<1>(Warp(), row(i, n, false), c, g, y, of_g, of_y, log);
}

extern "C" __global__ void __launch_bounds__(1024, 1)
softmax_curvature_by_blocks(const real *__restrict__ c, const real *__restrict__ g, const real *__restrict__ y, real *__restrict__ of_g, real *__restrict__ of_y,
                            int64 log, int64 n) {
    __shared__ acc shared[64];
    __shared__ int64 places[32];
    const bool packed = n % PACKED == 0 && aligned(c) && aligned(g) && aligned(y) && aligned(of_g) && aligned(of_y);
    if (packed) curvature<PACKED>(Block{shared, places}, row(blockIdx.x, n, true), c, g, y, of_g, of_y, log);
    else curvature<1>(Block{shared, places}, row(blockIdx.x, n, false), c, g, y, of_g, of_y, log);
}

extern "C" __global__ void __launch_bounds__(512, 1)
softmax_curvature_by_columns(const real *__restrict__ c, const real *__restrict__ g, const real *__restrict__ y, real *__restrict__ of_g, real *__restrict__ of_y,
                             int64 log, int64 n, int64 inner) {
    __shared__ acc values[512];
    __shared__ int64 places[512];
    int64 number;
    const Line line = column(n, inner, &number);
    curvature<1>(Column{nullptr, values, places}, line, c, g, y, of_g, of_y, log);
}
