// Rows by their places, see segments.py.
//
//   check_places  places with the negative ones counted from the end; those out of range are noted
//   gather        rows of x at the places
//   sum_windows   of rows sorted by place, the sums of the runs of equal places in each window of WINDOW rows
//   join_windows  the sums of the segments that go over several windows
//
// Memory: rows lie one after the other. A block is `blockDim.x` lanes along a row, each with 16 bytes of it where rows are aligned to that and one element otherwise, by
// blockDim.y rows or windows; narrow rows have few lanes, so that no thread is idle.
//
// Why it is fast: each row of the values is read once, whole lines at a time; partial sums are a 128th of that. A lane's sums stay in registers from the first row of a
// window to its last, and a window has but one run that it shares with the one before and one with the one after, so partial sums have fixed places. No atomics, and nothing that
// the host would have to wait for: the number of segments is never known there.
//
// Sums are made in double, within a window of 16-bit floats in float: there is one addition for each number that is read, which costs less than reading it even where
// double is 64 times slower than float.

#define WINDOW 128

template <int PACK> struct alignas(sizeof(real) * PACK) Pack {
    real v[PACK];
};

template <int BYTES> struct Wider {
    typedef double type;
};
template <> struct Wider<2> {
    typedef float type;
};
typedef Wider<sizeof(real)>::type wide;

// The first index out of range is noted in memory of the host: claimed, ready, operation, index, position, lowest, count.
__device__ __forceinline__ void refuse(int64 report, int64 operation, int64 index, int64 position, int64 lowest, int64 count) {
    volatile int64 *note = reinterpret_cast<volatile int64 *>(report);
    if (atomicCAS(reinterpret_cast<uint64 *>(report), 0ull, 1ull)) return;
    note[2] = operation, note[3] = index, note[4] = position, note[5] = lowest, note[6] = count;
    __threadfence_system();
    note[1] = 1;
}

extern "C" __global__ void __launch_bounds__(256) check_places(const int64 *__restrict__ places, int64 *__restrict__ kept, int64 n, int64 count, int64 from_end, int64 instead, int64 operation, int64 report) {
    const int64 i = thread_index();
    if (i >= n) return;
    const int64 place = places[i] + (places[i] < 0 && from_end ? count : 0);
    const bool fits = 0 <= place && place < count;
    kept[i] = fits ? place : instead;
    if (!fits) refuse(report, operation, places[i], i, from_end ? -count : 0, count);
}

// ------------------------------------------------------------------------------------------------ gather

template <int PACK>
__device__ __forceinline__ void gather_row(const real *__restrict__ x, const int64 *__restrict__ places, real *__restrict__ y, int64 n, int64 count, int64 width, int64 from_end, int64 skip, int64 operation, int64 report) {
    const int64 i = (int64)blockIdx.x * blockDim.y + threadIdx.y;
    if (i >= n) return;
    const int64 place = places[i] + (places[i] < 0 && from_end ? count : 0);
    const bool fits = 0 <= place && place < count;
    if (!fits && threadIdx.x == 0) refuse(report, operation, places[i], i, from_end ? -count : 0, count);
    Pack<PACK> row;
    for (int k = 0; k < PACK; k++) row.v[k] = real(fits ? acc(0) : acc(nan("")));
#pragma unroll 4
    for (int64 j = (int64)threadIdx.x * PACK; j < width; j += (int64)blockDim.x * PACK) {
        if (fits && place != skip) row = *reinterpret_cast<const Pack<PACK> *>(x + place * width + j);
        *reinterpret_cast<Pack<PACK> *>(y + i * width + j) = row;
    }
}

// skip: the place whose rows are zeros, or -1
extern "C" __global__ void __launch_bounds__(256) gather(const real *__restrict__ x, const int64 *__restrict__ places, real *__restrict__ y, int64 n, int64 count, int64 width, int64 pack, int64 from_end, int64 skip, int64 operation, int64 report) {
    if (pack == 1) gather_row<1>(x, places, y, n, count, width, from_end, skip, operation, report);
    else gather_row<16 / sizeof(real)>(x, places, y, n, count, width, from_end, skip, operation, report);
}

// ------------------------------------------------------------------------------------------------ sums

template <int PACK>
__device__ __forceinline__ void sum_window(const real *__restrict__ values, const int64 *__restrict__ order, const int64 *__restrict__ places, real *__restrict__ y, double *__restrict__ heads, double *__restrict__ tails, int64 n, int64 count, int64 width) {
    const int64 w = (int64)blockIdx.x * blockDim.y + threadIdx.y, first = w * WINDOW, last = min(first + WINDOW, n);
    for (int64 j = ((int64)blockIdx.y * blockDim.x + threadIdx.x) * PACK; j < width; j += (int64)gridDim.y * blockDim.x * PACK) {
        wide sum[PACK];
        for (int k = 0; k < PACK; k++) sum[k] = 0;
        bool begun = false;  // whether the run began in this window
        int64 place = first && first < n ? places[first - 1] : -1;
#pragma unroll (PACK > 4 ? 2 : 4)
        for (int64 i = first; i < last; i++) {
            const Pack<PACK> row = *reinterpret_cast<const Pack<PACK> *>(values + order[i] * width + j);
            if (places[i] != place) begun = true, place = places[i];
            for (int k = 0; k < PACK; k++) sum[k] += wide(acc(row.v[k]));
            const bool goes_on = i + 1 < n && places[i + 1] == place;
            if (goes_on && i + 1 < last) continue;
            if (begun && !goes_on) {
                if (place < count)  // those out of range have the place `count`
                    for (int k = 0; k < PACK; k++) y[place * width + j + k] = real(acc(sum[k]));
            } else {
                double *to = (begun ? tails : heads) + w * width + j;
                for (int k = 0; k < PACK; k++) to[k] = sum[k];
            }
            for (int k = 0; k < PACK; k++) sum[k] = 0;
        }
    }
}

// values (n, width); order: the rows by place; places: sorted; heads and tails (windows, width)
extern "C" __global__ void __launch_bounds__(256) sum_windows(const real *__restrict__ values, const int64 *__restrict__ order, const int64 *__restrict__ places, real *__restrict__ y, double *__restrict__ heads, double *__restrict__ tails, int64 n, int64 count, int64 width, int64 pack) {
    if (pack == 1) sum_window<1>(values, order, places, y, heads, tails, n, count, width);
    else sum_window<16 / sizeof(real)>(values, order, places, y, heads, tails, n, count, width);
}

// A block of 32 x 8 threads for each window but the last: of a segment that begins in it and goes on, the tail and the heads of the windows that follow.
extern "C" __global__ void __launch_bounds__(256) join_windows(const int64 *__restrict__ places, const double *__restrict__ heads, const double *__restrict__ tails, real *__restrict__ y, int64 n, int64 count, int64 width) {
    __shared__ double shared[8][32];
    const int64 w = blockIdx.x, first = w * WINDOW, after = first + WINDOW, place = places[after];
    if (places[after - 1] != place || (first && places[first - 1] == place) || place >= count) return;  // for all threads of the block
    for (int64 base = 0; base < width; base += 32) {
        const int64 j = base + threadIdx.x;
        double sum = 0;
        if (j < width)
            for (int64 v = w + 1 + threadIdx.y; v * WINDOW < n && places[v * WINDOW] == place; v += 8) sum += heads[v * width + j];
        shared[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y == 0 && j < width) {
            sum = tails[w * width + j];
            for (int k = 0; k < 8; k++) sum += shared[k][threadIdx.x];
            y[place * width + j] = real(acc(sum));
        }
        __syncthreads();
    }
}
