// What compiles, and must not pass: more values alive at once than a thread has registers, and an array that is indexed with what only the run knows.

extern "C" __global__ void __launch_bounds__(1024) spills(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    float a[128];
#pragma unroll
    for (int i = 0; i < 128; i++) a[i] = (float)x[i * n];
#pragma unroll
    for (int i = 0; i < 128; i++) a[i] = a[i] * a[(i + 77) % 128] + a[i * 3 % 128];
#pragma unroll
    for (int i = 0; i < 128; i++) y[i * n] = real(a[i]);
}

extern "C" __global__ void local_array(const int64 *__restrict__ order, float *__restrict__ y, int64 n) {
    float a[64];
    for (int64 i = 0; i < n; i++) a[order[i]] = (float)i;
    for (int64 i = 0; i < n; i++) y[i] = a[order[i] / 2];
}

extern "C" __global__ void warned(float *y) {
    int unused;
    __shared__ float s[64];
    s[threadIdx.x] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}
