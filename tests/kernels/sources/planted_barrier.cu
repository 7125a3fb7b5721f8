// A block turns its part of x around through shared memory. Without the barrier a thread may read what has not been written.
extern "C" __global__ void turn(const real *__restrict__ x, real *__restrict__ y) {
    __shared__ real tile[256];
    tile[threadIdx.x] = x[thread_index()];
    y[thread_index()] = tile[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void turn_corrected(const real *__restrict__ x, real *__restrict__ y) {
    __shared__ real tile[256];
    tile[threadIdx.x] = x[thread_index()];
    __syncthreads();
    y[thread_index()] = tile[blockDim.x - 1 - threadIdx.x];
}

// Running sums, in place. Each step reads a neighbour's value before that is replaced: two barriers a step, of which the second is forgotten.
extern "C" __global__ void scan(const acc *__restrict__ x, acc *__restrict__ y) {
    __shared__ acc sums[256];
    sums[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    for (unsigned by = 1; by < blockDim.x; by *= 2) {
        acc left = threadIdx.x >= by ? sums[threadIdx.x - by] : acc(0);
        sums[threadIdx.x] += left;
        __syncthreads();
    }
    y[threadIdx.x] = sums[threadIdx.x];
}
extern "C" __global__ void scan_corrected(const acc *__restrict__ x, acc *__restrict__ y) {
    __shared__ acc sums[256];
    sums[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    for (unsigned by = 1; by < blockDim.x; by *= 2) {
        acc left = threadIdx.x >= by ? sums[threadIdx.x - by] : acc(0);
        __syncthreads();
        sums[threadIdx.x] += left;
        __syncthreads();
    }
    y[threadIdx.x] = sums[threadIdx.x];
}

// Neighbours in a warp through shared memory: without __syncwarp nothing makes the lanes wait for each other.
extern "C" __global__ void neighbours(const real *__restrict__ x, real *__restrict__ y) {
    __shared__ real tile[32];
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
extern "C" __global__ void neighbours_corrected(const real *__restrict__ x, real *__restrict__ y) {
    __shared__ real tile[32];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// Two blocks write to one place.
extern "C" __global__ void last_wins(int64 *__restrict__ y) { *y = blockIdx.x; }
