// Reductions of the middle of x (outer, n, inner), which lies in C order.
//
//   total       sums of d, |d|, d^2 with d = x - c, or of 1 where x == c or nan; times a number over another
//   extremum    the largest or the smallest element; a nan is both
//   place       where that is along the axis: the first of equal ones
//   spread      s (x - c), or s where x == c or nan and 0 elsewhere
//
// c and s (outer, inner) belong to a row or column. Where inner is 1 rows are reduced: up to 32 lanes share a short one, a block of threads each piece of a long one. Else columns
// are: a block has blockDim.x * width of them and 16 rows for each thread, the threads of a column join what they have by halves. Where there are several pieces, their results are
// reduced in turn, by another launch. A thread reads 16 bytes at once where all rows are aligned to that, and a warp whole lines of memory.
//
// Why it is fast: each array passes through memory once, and the host waits for nothing. Sums are made in double, also those of shorter floats: a double addition for each four
// bytes that come from memory costs nothing there, and the digits are those of the CPU. Pieces have fixed sizes, so the bits are the same each time.

constexpr int64 PIECE = 8192, DEPTH = 16;

template <int WIDTH> struct alignas(sizeof(real) * WIDTH) Pack {
    real v[WIDTH];
};

template <int WIDTH> __device__ __forceinline__ Pack<WIDTH> load(const real *p) { return *reinterpret_cast<const Pack<WIDTH> *>(p); }

// ------------------------------------------------------------------------------------------------ what is folded

struct Total {
    using State = double;
    int f;
    double times, over;
    real *out;
    double *wide;

    __device__ __forceinline__ double start(real, int64) const { return 0; }
    __device__ __forceinline__ double of(real x, double c, int64) const {
        const double v = double(acc(x)), d = v - c;
        switch (f) {
        case 1: return d < 0 ? -d : d;
        case 2: return d * d;
        case 3: return v == c || v != v;
        default: return d;
        }
    }
    __device__ __forceinline__ double join(double a, double b) const { return a + b; }
    __device__ __forceinline__ void store(int64 i, double total, int64, int64) const {
        total = total * times / over;
        if (wide) wide[i] = total;
        else out[i] = real(acc(total));
    }
};

struct Extremum {
    using State = acc;
    bool smallest;
    real *out;

    __device__ __forceinline__ acc start(real first, int64) const { return acc(first); }
    __device__ __forceinline__ acc of(real x, double, int64) const { return acc(x); }
    __device__ __forceinline__ acc join(acc a, acc b) const { return (smallest ? a < b : a > b) || a != a ? a : b; }
    __device__ __forceinline__ void store(int64 i, acc m, int64, int64) const { out[i] = real(m); }
};

struct At {
    acc value;
    int64 place;
};

// Of pieces: known are the places that their elements come from.
struct Place {
    using State = At;
    bool smallest;
    real *out;
    int64 *places;
    const int64 *known;

    __device__ __forceinline__ At start(real first, int64 j) const { return {acc(first), j}; }
    __device__ __forceinline__ At of(real x, double, int64 j) const { return {acc(x), j}; }
    __device__ __forceinline__ At join(At a, At b) const {
        const bool nan_a = a.value != a.value, nan_b = b.value != b.value, equal = a.value == b.value || (nan_a && nan_b);
        const bool beyond = (smallest ? b.value < a.value : b.value > a.value) || (nan_b && !nan_a);
        return beyond || (equal && b.place < a.place) ? b : a;
    }
    __device__ __forceinline__ void store(int64 i, At m, int64 begin, int64 step) const {
        if (out) out[i] = real(m.value);
        places[i] = known ? known[begin + m.place * step] : m.place;
    }
};

template <class T> __device__ __forceinline__ T of_lane(T state, int offset) { return __shfl_xor_sync(0xffffffffu, state, offset); }

__device__ __forceinline__ At of_lane(At state, int offset) { return {__shfl_xor_sync(0xffffffffu, state.value, offset), __shfl_xor_sync(0xffffffffu, state.place, offset)}; }

// ------------------------------------------------------------------------------------------------ rows

template <int WIDTH, class Fold>
__device__ __forceinline__ void fold_rows(const Fold &fold, const real *__restrict__ x, const double *__restrict__ c, int64 outer, int64 n, int64 pieces, int lanes, typename Fold::State *shared) {
    const int64 unit = (int64)blockIdx.x * (256 / lanes) + threadIdx.x / lanes;
    const bool some = unit < outer * pieces;  // threads without a row go along to the shuffles
    int64 row = some ? unit : 0, start = 0;
    if (pieces > 1) {  // of one block each: divided in 32 bits, which is no call of a function
        row = blockIdx.x / (uint32)pieces;
        start = blockIdx.x % (uint32)pieces * PIECE;
    }
    const int64 stop = some ? min(start + PIECE, n) : 0;
    const int lane = threadIdx.x % lanes;
    const double centre = c ? c[row] : 0;
    x += row * n;
    typename Fold::State state = fold.start(x[start], start);
#pragma unroll 2
    for (int64 j = start + lane * WIDTH; j < stop; j += lanes * WIDTH) {
        Pack<WIDTH> in = load<WIDTH>(x + j);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) state = fold.join(state, fold.of(in.v[k], centre, j + k));
    }
    for (int offset = min(lanes, 32) / 2; offset; offset /= 2) state = fold.join(state, of_lane(state, offset));
    if (lanes > 32) {
        if (lane % 32 == 0) shared[lane / 32] = state;
        __syncthreads();
        if (lane == 0)
            for (int k = 1; k < 8; k++) state = fold.join(state, shared[k]);
    }
    if (lane == 0 && some) fold.store(unit, state, row * n, 1);
}

// ------------------------------------------------------------------------------------------------ columns

template <int WIDTH, class Fold>
__device__ __forceinline__ void fold_columns(const Fold &fold, const real *__restrict__ x, const double *__restrict__ c, int64 n, int64 inner, int64 pieces, int64 tiles, typename Fold::State *shared) {
    const uint32 part = blockIdx.x / (uint32)tiles;
    const int64 o = part / (uint32)pieces, height = DEPTH * blockDim.y, top = part % (uint32)pieces * height, stop = min(top + height, n);
    const int64 own_column = ((int64)(blockIdx.x % (uint32)tiles) * blockDim.x + threadIdx.x) * WIDTH;
    const bool some = own_column < inner;  // threads without a column go along to the barriers
    const int64 j = some ? own_column : 0;
    x += o * n * inner + j;
    typename Fold::State state[WIDTH];
    double centre[WIDTH];
#pragma unroll
    for (int k = 0; k < WIDTH; k++) state[k] = fold.start(x[top * inner + k], top);
#pragma unroll
    for (int k = 0; k < WIDTH; k++) centre[k] = c ? c[o * inner + j + k] : 0;
#pragma unroll 2
    for (int64 i = top + threadIdx.y; i < stop; i += blockDim.y) {
        Pack<WIDTH> in = load<WIDTH>(x + i * inner);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) state[k] = fold.join(state[k], fold.of(in.v[k], centre[k], i));
    }
    typename Fold::State *own = shared + threadIdx.y * blockDim.x * WIDTH + threadIdx.x;  // the k-th lies at k * blockDim.x, so that a warp's are side by side
#pragma unroll
    for (int k = 0; k < WIDTH; k++) own[k * blockDim.x] = state[k];
    __syncthreads();
    for (unsigned half = blockDim.y / 2; half; half /= 2) {
        if (threadIdx.y < half)
            for (int k = 0; k < WIDTH; k++) own[k * blockDim.x] = fold.join(own[k * blockDim.x], own[(half * WIDTH + k) * blockDim.x]);
        __syncthreads();
    }
    if (threadIdx.y == 0 && some)
        for (int k = 0; k < WIDTH; k++) fold.store(part * inner + j + k, own[k * blockDim.x], o * n * inner + j + k, inner);
}

// ------------------------------------------------------------------------------------------------ entry points

constexpr int WIDEST = 16 / sizeof(real);

// c null: none; results go to wide where that is not null. A width of 1 or WIDEST. Two blocks at least on a multiprocessor: left to itself the assembler spills a register to fit more
extern "C" __global__ void __launch_bounds__(256, 2) total_rows(const real *__restrict__ x, real *__restrict__ out, double *__restrict__ wide, int64 outer, int64 n, int64 pieces, int64 lanes, int64 width, const double *__restrict__ c, int64 f, double times, double over) {
    __shared__ double shared[8];
    const Total fold{(int)f, times, over, out, wide};
    if (width == 1) fold_rows<1>(fold, x, c, outer, n, pieces, (int)lanes, shared);
    else fold_rows<WIDEST>(fold, x, c, outer, n, pieces, (int)lanes, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) total_columns(const real *__restrict__ x, real *__restrict__ out, double *__restrict__ wide, int64 n, int64 inner, int64 pieces, int64 tiles, int64 width, const double *__restrict__ c, int64 f, double times, double over) {
    __shared__ double shared[256 * WIDEST];
    const Total fold{(int)f, times, over, out, wide};
    if (width == 1) fold_columns<1>(fold, x, c, n, inner, pieces, tiles, shared);
    else fold_columns<WIDEST>(fold, x, c, n, inner, pieces, tiles, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) extremum_rows(const real *__restrict__ x, real *__restrict__ out, int64 outer, int64 n, int64 pieces, int64 lanes, int64 width, int64 smallest) {
    __shared__ acc shared[8];
    const Extremum fold{smallest != 0, out};
    if (width == 1) fold_rows<1>(fold, x, nullptr, outer, n, pieces, (int)lanes, shared);
    else fold_rows<WIDEST>(fold, x, nullptr, outer, n, pieces, (int)lanes, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) extremum_columns(const real *__restrict__ x, real *__restrict__ out, int64 n, int64 inner, int64 pieces, int64 tiles, int64 width, int64 smallest) {
    __shared__ acc shared[256 * WIDEST];
    const Extremum fold{smallest != 0, out};
    if (width == 1) fold_columns<1>(fold, x, nullptr, n, inner, pieces, tiles, shared);
    else fold_columns<WIDEST>(fold, x, nullptr, n, inner, pieces, tiles, shared);
}

// out null: nobody asks for the elements themselves
extern "C" __global__ void __launch_bounds__(256, 2) place_rows(const real *__restrict__ x, real *__restrict__ out, int64 *__restrict__ places, int64 outer, int64 n, int64 pieces, int64 lanes, int64 width, const int64 *__restrict__ known, int64 smallest) {
    __shared__ At shared[8];
    const Place fold{smallest != 0, out, places, known};
    if (width == 1) fold_rows<1>(fold, x, nullptr, outer, n, pieces, (int)lanes, shared);
    else fold_rows<WIDEST>(fold, x, nullptr, outer, n, pieces, (int)lanes, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) place_columns(const real *__restrict__ x, real *__restrict__ out, int64 *__restrict__ places, int64 n, int64 inner, int64 pieces, int64 tiles, int64 width, const int64 *__restrict__ known, int64 smallest) {
    __shared__ At shared[256 * WIDEST];
    const Place fold{smallest != 0, out, places, known};
    if (width == 1) fold_columns<1>(fold, x, nullptr, n, inner, pieces, tiles, shared);
    else fold_columns<WIDEST>(fold, x, nullptr, n, inner, pieces, tiles, shared);
}

template <int WIDTH>
__device__ __forceinline__ void spread_pack(const real *__restrict__ x, const double *__restrict__ c, const double *__restrict__ s, real *__restrict__ y, int64 size, int64 n, int64 inner, bool ties) {
    const int64 i = thread_index() * WIDTH;
    if (i >= size) return;
    const int64 row = i / (n * inner) * inner, j = inner == 1 ? 0 : i % inner, step = inner == 1 ? 0 : 1;
    Pack<WIDTH> in = load<WIDTH>(x + i), out;
    for (int k = 0; k < WIDTH; k++) {
        const double v = double(acc(in.v[k])), centre = c[row + j + k * step], scale = s[row + j + k * step];
        out.v[k] = real(acc(ties ? (v == centre || v != v ? scale : 0.0) : scale * (v - centre)));
    }
    *reinterpret_cast<Pack<WIDTH> *>(y + i) = out;
}

extern "C" __global__ void __launch_bounds__(256) spread(const real *__restrict__ x, const double *__restrict__ c, const double *__restrict__ s, real *__restrict__ y, int64 size, int64 n, int64 inner, int64 width, int64 ties) {
    if (width == 1) spread_pack<1>(x, c, s, y, size, n, inner, ties != 0);
    else spread_pack<WIDEST>(x, c, s, y, size, n, inner, ties != 0);
}
