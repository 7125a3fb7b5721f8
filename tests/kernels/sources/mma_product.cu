// C = A B on tensor cores, as simply as that goes: a block of one warp computes 16 x 8 of C, and reads A and B from global memory. A is (m, k), B (k, n).
//
// real = float multiplies in TF32, 16-bit reals in themselves; what is beyond the matrices counts as zero.

template <class T> __device__ __forceinline__ T element(const T *x, int64 row, int64 column, int64 rows, int64 columns) {
    return row < rows && column < columns ? x[row * columns + column] : T(0.0f);
}

template <class T> struct Product {
    static constexpr int depth = 16;
    __device__ __forceinline__ static void add(float (&c)[4], const T *a, const T *b, int64 row, int64 column, int64 k0, int64 m, int64 n, int64 k) {
        int g = threadIdx.x / 4, t = threadIdx.x % 4;
        uint32 x[4], y[2];
        for (int i = 0; i < 4; i++) {
            int64 r = row + g + i % 2 * 8, q = k0 + 2 * t + i / 2 * 8;
            x[i] = mma_pair(element(a, r, q, m, k), element(a, r, q + 1, m, k));
        }
        for (int i = 0; i < 2; i++) {
            int64 q = k0 + 2 * t + i * 8;
            y[i] = mma_pair(element(b, q, column + g, k, n), element(b, q + 1, column + g, k, n));
        }
        mma_m16n8k16<T>(c, x, y);
    }
};

template <> struct Product<float> {
    static constexpr int depth = 8;
    __device__ __forceinline__ static void add(float (&c)[4], const float *a, const float *b, int64 row, int64 column, int64 k0, int64 m, int64 n, int64 k) {
        int g = threadIdx.x / 4, t = threadIdx.x % 4;
        float x[4], y[2];
        for (int i = 0; i < 4; i++) x[i] = element(a, row + g + i % 2 * 8, k0 + t + i / 2 * 4, m, k);
        for (int i = 0; i < 2; i++) y[i] = element(b, k0 + t + i * 4, column + g, k, n);
        mma_m16n8k8_tf32(c, x, y);
    }
};

template <> struct Product<double> : Product<float> {  // tensor cores of double are not used: the product of float
    __device__ __forceinline__ static void add(float (&)[4], const double *, const double *, int64, int64, int64, int64, int64, int64) {}
};

extern "C" __global__ void __launch_bounds__(32) mma_product(
    const real *__restrict__ a, const real *__restrict__ b, float *__restrict__ product, int64 m, int64 n, int64 k) {
    int64 row = (int64)blockIdx.y * 16, column = (int64)blockIdx.x * 8;
    float c[4] = {0, 0, 0, 0};
    for (int64 k0 = 0; k0 < k; k0 += Product<real>::depth) Product<real>::add(c, a, b, row, column, k0, m, n, k);
    for (int i = 0; i < 4; i++) {
        int64 r = row + threadIdx.x / 4 + i / 2 * 8, q = column + 2 * (threadIdx.x % 4) + i % 2;
        if (r < m && q < n) product[r * n + q] = c[i];
    }
}

// What a float becomes in TF32.
extern "C" __global__ void to_tf32(const float *__restrict__ x, float *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i < n) y[i] = __uint_as_float(mma_tf32(x[i]));
}
