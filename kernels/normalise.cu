// Normalisation of the rows or the columns of a matrix, and the map of its differentials.
//
//   standardize   h = (x - m) / sqrt(v + eps), v = mean((x - m)^2), m = mean(x)        or m = 0, where m is not asked for
//   slope         y = r (d - mean(d) - h mean(h d)), r = 1 / sqrt(v + eps)              or without mean(d), where not centred
//
// Memory: x, h, d and y are (rows, columns) in C order, the moments v, m and r one for each row or column. A row belongs to a block of threads, which take
// every blockDim.x-th element; 32 columns belong to a block of 32 x 32 threads, of which a warp reads 32 neighbours of every 32nd row.
//
// Why it is fast: a kernel for each sum and each elementwise step would pass over memory eight times. Here x comes from it once, and the later readings find it
// in the cache. The host waits for nothing. Columns of many thousands of rows keep few blocks busy, so there several loads are under way at once.
//
// Digits: m is rounded, so the mean of x - m, the drift, is not 0. It is taken off as well: x of mean 1e4 then has in h the digits that it has itself. In
// float32 the square of a deviation of 1e20 is infinite, and h is 0. Sums are made in an order that depends on the sizes alone.

// ------------------------------------------------------------------------------------------------ rows

extern "C" __global__ void __launch_bounds__(1024) standardize_rows(const real *__restrict__ x, real *__restrict__ h, acc *__restrict__ v, acc *__restrict__ m, int64 columns, double eps) {
    __shared__ acc shared[32];
    const real *row = x + blockIdx.x * columns;
    acc mean = 0, drift = 0, squares = 0;
    if (m) {
        for (int64 j = threadIdx.x; j < columns; j += blockDim.x) mean += acc(row[j]);
        mean = block_sum(mean, shared) / columns;
        for (int64 j = threadIdx.x; j < columns; j += blockDim.x) drift += acc(row[j]) - mean;
        drift = block_sum(drift, shared) / columns;
    }
    for (int64 j = threadIdx.x; j < columns; j += blockDim.x) {
        acc c = acc(row[j]) - mean - drift;
        squares += c * c;
    }
    acc var = block_sum(squares, shared) / columns, r = rsqrt(var + acc(eps));
    for (int64 j = threadIdx.x; j < columns; j += blockDim.x) h[blockIdx.x * columns + j] = real((acc(row[j]) - mean - drift) * r);
    if (threadIdx.x) return;
    v[blockIdx.x] = var;
    if (m) m[blockIdx.x] = mean + drift;
}

extern "C" __global__ void __launch_bounds__(1024) slope_rows(const real *__restrict__ d, const real *__restrict__ h, const acc *__restrict__ r, real *__restrict__ y, int64 columns, int64 centred) {
    __shared__ acc shared[32];
    const int64 start = blockIdx.x * columns;
    acc sum = 0, products = 0;
    for (int64 j = threadIdx.x; j < columns; j += blockDim.x) {
        sum += acc(d[start + j]);
        products += acc(h[start + j]) * acc(d[start + j]);
    }
    sum = centred ? block_sum(sum, shared) / columns : acc(0);
    products = block_sum(products, shared) / columns;
    const acc scale = r[blockIdx.x];
    for (int64 j = threadIdx.x; j < columns; j += blockDim.x) y[start + j] = real(scale * (acc(d[start + j]) - sum - acc(h[start + j]) * products));
}

// ------------------------------------------------------------------------------------------------ columns

// Over the threads of a column; each gets the result. May be called again at once.
__device__ __forceinline__ acc column_sum(acc x, acc (*shared)[32]) {
    shared[threadIdx.y][threadIdx.x] = x;
    __syncthreads();
    for (unsigned half = 16; half; half /= 2) {
        if (threadIdx.y < half) shared[threadIdx.y][threadIdx.x] += shared[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    x = shared[0][threadIdx.x];
    __syncthreads();
    return x;
}

extern "C" __global__ void __launch_bounds__(1024) standardize_columns(const real *__restrict__ x, real *__restrict__ h, acc *__restrict__ v, acc *__restrict__ m, int64 rows, int64 columns, double eps) {
    __shared__ acc shared[32][32];
    const int64 j = (int64)blockIdx.x * 32 + threadIdx.x, stop = j < columns ? rows : 0;  // threads without a column go along to the barriers
    acc mean = 0, drift = 0, squares = 0;
    if (m) {
#pragma unroll 4
        for (int64 i = threadIdx.y; i < stop; i += 32) mean += acc(x[i * columns + j]);
        mean = column_sum(mean, shared) / rows;
#pragma unroll 4
        for (int64 i = threadIdx.y; i < stop; i += 32) drift += acc(x[i * columns + j]) - mean;
        drift = column_sum(drift, shared) / rows;
    }
#pragma unroll 4
    for (int64 i = threadIdx.y; i < stop; i += 32) {
        acc c = acc(x[i * columns + j]) - mean - drift;
        squares += c * c;
    }
    acc var = column_sum(squares, shared) / rows, r = rsqrt(var + acc(eps));
#pragma unroll 4
    for (int64 i = threadIdx.y; i < stop; i += 32) h[i * columns + j] = real((acc(x[i * columns + j]) - mean - drift) * r);
    if (threadIdx.y || j >= columns) return;
    v[j] = var;
    if (m) m[j] = mean + drift;
}

extern "C" __global__ void __launch_bounds__(1024) slope_columns(const real *__restrict__ d, const real *__restrict__ h, const acc *__restrict__ r, real *__restrict__ y, int64 rows, int64 columns, int64 centred) {
    __shared__ acc shared[32][32];
    const int64 j = (int64)blockIdx.x * 32 + threadIdx.x, stop = j < columns ? rows : 0;
    acc sum = 0, products = 0;
#pragma unroll 4
    for (int64 i = threadIdx.y; i < stop; i += 32) {
        sum += acc(d[i * columns + j]);
        products += acc(h[i * columns + j]) * acc(d[i * columns + j]);
    }
    sum = centred ? column_sum(sum, shared) / rows : acc(0);
    products = column_sum(products, shared) / rows;
    const acc scale = j < columns ? r[j] : acc(0);
#pragma unroll 4
    for (int64 i = threadIdx.y; i < stop; i += 32) y[i * columns + j] = real(scale * (acc(d[i * columns + j]) - sum - acc(h[i * columns + j]) * products));
}
