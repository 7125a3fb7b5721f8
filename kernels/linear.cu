// What a fully connected layer does beside its products.
//
//   bias_act      Z (rows, columns) += b (columns) in each row, Y = act(Z)
//   act_backward  dZ = dY act'(Z), and the sums of its columns over each block of rows
//   sum_partials  the sums of the columns, from those of the blocks of rows
//
// Memory: matrices lie row by row. A block of threads takes a tile of `height` rows and blockDim.x * width columns: thread (x, y) has the `width` columns
// from x on, which are 16 bytes where the rows are aligned to that and one element otherwise, and every blockDim.y-th row. So a warp reads whole lines of
// memory, the bias is read once for a column of the tile, and the sum of a column runs down the rows in a register.
//
// Why it is fast: each matrix passes through memory once; a separate sum of the columns would read dZ again. All of it is bound by memory, whatever the
// activation, so the switch on it costs nothing that can be seen.
//
// Sums are the same each time: the threads of a column add up what they have by halves, the blocks write partial sums, and sum_partials adds those in a fixed
// order. Each runs over few enough terms to keep its digits in float32: height / blockDim.y in a thread, at most 512 blocks.

template <int WIDTH> struct alignas(sizeof(real) * WIDTH) Pack {
    real v[WIDTH];
};

template <int WIDTH> __device__ __forceinline__ Pack<WIDTH> load(const real *p) { return *reinterpret_cast<const Pack<WIDTH> *>(p); }
template <int WIDTH> __device__ __forceinline__ void store(real *p, Pack<WIDTH> x) { *reinterpret_cast<Pack<WIDTH> *>(p) = x; }

// ------------------------------------------------------------------------------------------------ forward

template <int WIDTH>
__device__ __forceinline__ void bias_act_tile(real *__restrict__ z, const real *__restrict__ b, real *__restrict__ y, int64 rows, int64 columns, int64 height, int act) {
    int64 j = ((int64)blockIdx.x * blockDim.x + threadIdx.x) * WIDTH, stop = min((int64)(blockIdx.y + 1) * height, rows);
    if (j >= columns) return;
    acc bias[WIDTH];
    for (int k = 0; k < WIDTH; k++) bias[k] = b ? acc(b[j + k]) : acc(0);
#pragma unroll 2
    for (int64 i = blockIdx.y * height + threadIdx.y; i < stop; i += blockDim.y) {
        Pack<WIDTH> in = load<WIDTH>(z + i * columns + j), out;
        for (int k = 0; k < WIDTH; k++) {
            acc u = acc(in.v[k]) + bias[k];
            in.v[k] = real(u);
            out.v[k] = real(activation_value(act, u));
        }
        store<WIDTH>(z + i * columns + j, y ? in : out);
        if (y) store<WIDTH>(y + i * columns + j, out);
    }
}

// y null: the activation goes into z
extern "C" __global__ void __launch_bounds__(256) bias_act(real *__restrict__ z, const real *__restrict__ b, real *__restrict__ y, int64 rows, int64 columns, int64 height, int64 width, int64 act) {
    if (width == 1) bias_act_tile<1>(z, b, y, rows, columns, height, (int)act);
    else bias_act_tile<16 / sizeof(real)>(z, b, y, rows, columns, height, (int)act);
}

// ------------------------------------------------------------------------------------------------ backward

template <int WIDTH>
__device__ __forceinline__ void act_backward_tile(const real *__restrict__ g, const real *__restrict__ saved, real *__restrict__ dz, acc *__restrict__ partials, int64 rows, int64 columns, int64 height, int act, acc *shared) {
    int64 j = ((int64)blockIdx.x * blockDim.x + threadIdx.x) * WIDTH, stop = min((int64)(blockIdx.y + 1) * height, rows);
    acc sum[WIDTH];
    for (int k = 0; k < WIDTH; k++) sum[k] = acc(0);
    if (j < columns) {
#pragma unroll 2
        for (int64 i = blockIdx.y * height + threadIdx.y; i < stop; i += blockDim.y) {
            Pack<WIDTH> d = load<WIDTH>(g + i * columns + j), s = d;
            if (saved) s = load<WIDTH>(saved + i * columns + j);
            for (int k = 0; k < WIDTH; k++) {
                acc through = activation_times_slope(act, acc(d.v[k]), acc(s.v[k]));
                sum[k] += through;
                d.v[k] = real(through);
            }
            if (dz) store<WIDTH>(dz + i * columns + j, d);
        }
    }
    acc *own = shared + threadIdx.y * blockDim.x * WIDTH + threadIdx.x;  // the k-th sum lies at k * blockDim.x, so that a warp's are side by side
    for (int k = 0; k < WIDTH; k++) own[k * blockDim.x] = sum[k];
    __syncthreads();
    for (unsigned half = blockDim.y / 2; half; half /= 2) {
        if (threadIdx.y < half)
            for (int k = 0; k < WIDTH; k++) own[k * blockDim.x] += own[(half * WIDTH + k) * blockDim.x];
        __syncthreads();
    }
    if (threadIdx.y == 0 && j < columns)
        for (int k = 0; k < WIDTH; k++) partials[blockIdx.y * columns + j + k] = own[k * blockDim.x];
}

// saved null: the slope is 1; dz null: the sums alone. blockDim.y is a power of two
extern "C" __global__ void __launch_bounds__(256) act_backward(const real *__restrict__ g, const real *__restrict__ saved, real *__restrict__ dz, acc *__restrict__ partials, int64 rows, int64 columns, int64 height, int64 width, int64 act) {
    __shared__ acc shared[256 * (16 / sizeof(real))];
    if (width == 1) act_backward_tile<1>(g, saved, dz, partials, rows, columns, height, (int)act, shared);
    else act_backward_tile<16 / sizeof(real)>(g, saved, dz, partials, rows, columns, height, (int)act, shared);
}

// partials (parts, columns); a block of 32 x 8 threads has 32 columns
extern "C" __global__ void __launch_bounds__(256) sum_partials(const acc *__restrict__ partials, real *__restrict__ sums, int64 parts, int64 columns) {
    __shared__ acc shared[8][32];
    int64 j = (int64)blockIdx.x * 32 + threadIdx.x;
    acc sum = acc(0);
    if (j < columns)
        for (int64 i = threadIdx.y; i < parts; i += 8) sum += partials[i * columns + j];
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && j < columns) {
        for (int k = 1; k < 8; k++) sum += shared[k][threadIdx.x];
        sums[j] = real(sum);
    }
}
