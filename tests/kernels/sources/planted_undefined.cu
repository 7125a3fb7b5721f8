// What C++ leaves undefined, and a GPU does somehow.

extern "C" __global__ void misaligned(const float *__restrict__ x, float *__restrict__ y) {
    *reinterpret_cast<float4 *>(y) = *reinterpret_cast<const float4 *>(x + 1);
}
extern "C" __global__ void null_pointer(const float *__restrict__ x, float *__restrict__ y) { *y = *x; }
extern "C" __global__ void beyond_array(float *__restrict__ y, int64 n) {
    __shared__ float tile[8];
    tile[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x + n];
}
extern "C" __global__ void overflow(int32 *__restrict__ y, int64 n) { *y = 2147483647 + (int32)n; }
extern "C" __global__ void long_shift(int32 *__restrict__ y, int64 n) { *y = 1 << n; }
extern "C" __global__ void nan_as_integer(const float *__restrict__ x, int32 *__restrict__ y) { *y = (int32)*x; }
extern "C" __global__ void no_divisor(int32 *__restrict__ y, int64 n) { *y = 7 / (int32)n; }
extern "C" __global__ void trapped(int32 *__restrict__ y) { __trap(); }
