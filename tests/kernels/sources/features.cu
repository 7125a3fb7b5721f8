// What the emulator knows of CUDA, for test_emulator.py, which holds each result to NumPy's. NVRTC compiles the same text, so every name is CUDA's.

extern "C" __global__ void where_am_i(int64 *__restrict__ out) {
    int64 block = blockIdx.x + (int64)gridDim.x * (blockIdx.y + (int64)gridDim.y * blockIdx.z);
    int64 thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int64 *mine = out + 8 * (block * (blockDim.x * blockDim.y * blockDim.z) + thread);
    mine[0] = blockIdx.x, mine[1] = blockIdx.y, mine[2] = blockIdx.z;
    mine[3] = threadIdx.x, mine[4] = threadIdx.y, mine[5] = threadIdx.z;
    mine[6] = gridDim.x * gridDim.y * gridDim.z, mine[7] = blockDim.x * blockDim.y * blockDim.z;
}

// In which order the threads of a block take their turns, before and after a barrier.
extern "C" __global__ void turns(uint32 *__restrict__ count, int64 *__restrict__ out) {
    out[atomicAdd(count, 1u)] = threadIdx.x;
    __syncthreads();
    out[atomicAdd(count, 1u)] = threadIdx.x;
}

// ------------------------------------------------------------------------------------------------ warps

template <class T> __device__ __forceinline__ void shuffle(const T *x, T *y, int64 kind, int64 by, int64 width) {
    int64 i = thread_index();
    uint32 all = 0xffffffffu;
    if (kind == 0) y[i] = __shfl_sync(all, x[i], (int)by, (int)width);
    if (kind == 1) y[i] = __shfl_up_sync(all, x[i], (unsigned)by, (int)width);
    if (kind == 2) y[i] = __shfl_down_sync(all, x[i], (unsigned)by, (int)width);
    if (kind == 3) y[i] = __shfl_xor_sync(all, x[i], (int)by, (int)width);
}
extern "C" __global__ void shuffle_acc(const acc *__restrict__ x, acc *__restrict__ y, int64 kind, int64 by, int64 width) { shuffle(x, y, kind, by, width); }
extern "C" __global__ void shuffle_int32(const int32 *__restrict__ x, int32 *__restrict__ y, int64 kind, int64 by, int64 width) { shuffle(x, y, kind, by, width); }
extern "C" __global__ void shuffle_uint32(const uint32 *__restrict__ x, uint32 *__restrict__ y, int64 kind, int64 by, int64 width) { shuffle(x, y, kind, by, width); }
extern "C" __global__ void shuffle_int64(const int64 *__restrict__ x, int64 *__restrict__ y, int64 kind, int64 by, int64 width) { shuffle(x, y, kind, by, width); }
extern "C" __global__ void shuffle_uint64(const uint64 *__restrict__ x, uint64 *__restrict__ y, int64 kind, int64 by, int64 width) { shuffle(x, y, kind, by, width); }

// The two halves of a warp go their own ways, with masks of their own.
extern "C" __global__ void halves(const int32 *__restrict__ x, int32 *__restrict__ y) {
    int32 value = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) {
        for (int offset = 8; offset; offset >>= 1) value += __shfl_xor_sync(0x0000ffffu, value, offset);
        __syncwarp(0x0000ffffu);
    } else {
        for (int offset = 8; offset; offset >>= 1) value = max(value, __shfl_xor_sync(0xffff0000u, value, offset));
    }
    y[threadIdx.x] = value;
}

extern "C" __global__ void votes(const int32 *__restrict__ x, uint32 *__restrict__ y) {
    uint32 all = 0xffffffffu;
    uint32 *mine = y + 4 * threadIdx.x;
    mine[3] = __activemask();
    mine[0] = __ballot_sync(all, x[threadIdx.x] > 0);
    mine[1] = __any_sync(all, x[threadIdx.x] > 0);
    mine[2] = __all_sync(all, x[threadIdx.x] > 0);
}

// ------------------------------------------------------------------------------------------------ blocks

extern "C" __global__ void counting_barriers(const int32 *__restrict__ x, int32 *__restrict__ y) {
    int32 *mine = y + 3 * threadIdx.x;
    mine[0] = __syncthreads_count(x[threadIdx.x] > 0);
    mine[1] = __syncthreads_or(x[threadIdx.x] > 0) != 0;
    mine[2] = __syncthreads_and(x[threadIdx.x] > 0) != 0;
}

// Through all kinds of shared memory, with a barrier in a loop. n is the number of threads.
template <class T> __device__ __forceinline__ void rotate(T *tile, int64 n) {  // to the next thread
    T value = tile[(threadIdx.x + 1) % n];
    __syncthreads();
    tile[threadIdx.x] = value;
    __syncthreads();
}
extern "C" __global__ void rotations(const acc *__restrict__ x, acc *__restrict__ y, int64 n, int64 times) {
    __shared__ acc fixed[1024];
    DYNAMIC_SHARED(acc, dynamic);
    fixed[threadIdx.x] = x[threadIdx.x];
    dynamic[threadIdx.x] = x[n + threadIdx.x];
    __syncthreads();
    for (int64 k = 0; k < times; k++) rotate(fixed, n), rotate(dynamic, n);
    y[threadIdx.x] = fixed[threadIdx.x];
    y[n + threadIdx.x] = dynamic[threadIdx.x];
}

// Shared memory as it is found, in bits.
extern "C" __global__ void as_found(uint32 *__restrict__ y) {
    __shared__ uint32 fixed[64];
    DYNAMIC_SHARED(uint32, dynamic);
    int64 i = thread_index();
    y[2 * i] = fixed[threadIdx.x];
    y[2 * i + 1] = dynamic[threadIdx.x];
    fixed[threadIdx.x] = dynamic[threadIdx.x] = 0;
}

extern "C" __global__ void block_sums(const acc *__restrict__ x, acc *__restrict__ y) {
    __shared__ acc shared[32];
    acc sum = block_sum(x[thread_index()], shared);
    acc most = block_max(x[thread_index()], shared);
    if (threadIdx.x == 0) y[2 * blockIdx.x] = sum, y[2 * blockIdx.x + 1] = most;
}

// ------------------------------------------------------------------------------------------------ atomics

template <class T> __device__ __forceinline__ void all_but_sums(T *p, T x) {
    atomicMax(p + 0, x);
    atomicMin(p + 1, x);
    atomicAnd(p + 2, x);
    atomicOr(p + 3, x);
    atomicXor(p + 4, x);
}
template <class T> __device__ __forceinline__ void sums(T *p, T x) {
    atomicAdd(p + 5, x);
    atomicExch(p + 6, x);
    for (T old = p[7], assumed = 0; old != assumed;) {  // p[7] += x
        assumed = old;
        old = atomicCAS(p + 7, assumed, T(uint64(assumed) + uint64(x)));
    }
}
extern "C" __global__ void atomics_int32(const int32 *__restrict__ x, int32 *p) { all_but_sums(p, x[threadIdx.x]), sums(p, x[threadIdx.x]); }
extern "C" __global__ void atomics_uint32(const uint32 *__restrict__ x, uint32 *p) { all_but_sums(p, x[threadIdx.x]), sums(p, x[threadIdx.x]); }
extern "C" __global__ void atomics_uint64(const uint64 *__restrict__ x, uint64 *p) { all_but_sums(p, x[threadIdx.x]), sums(p, x[threadIdx.x]); }
extern "C" __global__ void atomics_int64(const int64 *__restrict__ x, int64 *p) { all_but_sums(p, x[threadIdx.x]); }

// The last block to finish knows that it is: how a sum is finished in one launch.
extern "C" __global__ void last_block(uint32 *__restrict__ count, int64 *__restrict__ last) {
    __threadfence();
    if (threadIdx.x == 0 && atomicAdd(count, 1u) == gridDim.x - 1) *last += 1;
}

// ------------------------------------------------------------------------------------------------ bits, numbers

extern "C" __global__ void bits(const uint32 *__restrict__ x, const uint64 *__restrict__ z, int64 *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i >= n) return;
    const uint32 a = x[i], b = __ldg(x + (i + 1) % n);
    const uint64 c = z[i], d = z[(i + 1) % n];
    int64 *mine = y + 14 * i;
    mine[0] = __popc(a), mine[1] = __clz((int)a), mine[2] = __ffs((int)a), mine[3] = __brev(a), mine[4] = __umulhi(a, b), mine[5] = __mulhi((int)a, (int)b);
    mine[6] = __popcll(c), mine[7] = __clzll((int64)c), mine[8] = __ffsll((int64)c), mine[9] = (int64)__brevll(c);
    mine[10] = (int64)__umul64hi(c, d), mine[11] = __mul64hi((int64)c, (int64)d);
    mine[12] = __float_as_uint(__uint_as_float(a)), mine[13] = __double_as_longlong(__longlong_as_double((int64)c));
}

const int FUNCTIONS = 26;
extern "C" __global__ void functions_float(const float *__restrict__ values, float *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i >= n) return;
    float x = values[i], p = fabsf(x), *mine = y + FUNCTIONS * i;
    mine[0] = expf(x), mine[1] = expm1f(x), mine[2] = logf(p), mine[3] = log1pf(p), mine[4] = tanhf(x), mine[5] = erff(x), mine[6] = erfcf(x);
    mine[7] = sqrtf(p), mine[8] = rsqrtf(p), mine[9] = fmaf(x, x, -1.0f), mine[10] = powf(p, 1.5f), mine[11] = sinf(x), mine[12] = cosf(x);
    mine[13] = floorf(x), mine[14] = ceilf(x), mine[15] = truncf(x), mine[16] = rintf(x), mine[17] = copysignf(2.0f, x), mine[18] = min(x, 0.5f);
    mine[19] = max(x, 0.5f), mine[20] = abs(x), mine[21] = isnan(x) ? 1.0f : isinf(x) ? 2.0f : 0.0f, mine[22] = exp2f(x), mine[23] = cbrtf(x);
    mine[24] = normcdff(x), mine[25] = fmodf(x, 0.75f);
}
extern "C" __global__ void functions_double(const double *__restrict__ values, double *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i >= n) return;
    double x = values[i], p = fabs(x), *mine = y + FUNCTIONS * i;
    mine[0] = exp(x), mine[1] = expm1(x), mine[2] = log(p), mine[3] = log1p(p), mine[4] = tanh(x), mine[5] = erf(x), mine[6] = erfc(x);
    mine[7] = sqrt(p), mine[8] = rsqrt(p), mine[9] = fma(x, x, -1.0), mine[10] = pow(p, 1.5), mine[11] = sin(x), mine[12] = cos(x);
    mine[13] = floor(x), mine[14] = ceil(x), mine[15] = trunc(x), mine[16] = rint(x), mine[17] = copysign(2.0, x), mine[18] = min(x, 0.5);
    mine[19] = max(x, 0.5), mine[20] = abs(x), mine[21] = isnan(x) ? 1.0 : isinf(x) ? 2.0 : 0.0, mine[22] = exp2(x), mine[23] = cbrt(x);
    mine[24] = normcdf(x), mine[25] = fmod(x, 0.75);
}

// The overloads without a suffix are of the argument's type.
extern "C" __global__ void overloads(const float *__restrict__ x, double *__restrict__ y) {
    y[0] = exp(x[0]), y[1] = sqrt(x[0]), y[2] = rsqrt(x[0]), y[3] = tanh(x[0]), y[4] = fma(x[0], x[0], x[0]);
    y[5] = min(3, 2), y[6] = max(3u, 2u), y[7] = max((int64)1 << 40, (int64)2), y[8] = abs(-3), y[9] = min(-1, 1u), y[10] = max(x[0], 0.1);
}

// ------------------------------------------------------------------------------------------------ vectors, 16-bit floats

extern "C" __global__ void vectors(const float *__restrict__ x, const double *__restrict__ z, const int32 *__restrict__ k, float *__restrict__ y, double *__restrict__ w, int32 *__restrict__ l) {
    float4 a = reinterpret_cast<const float4 *>(x)[threadIdx.x];
    reinterpret_cast<float4 *>(y)[threadIdx.x] = make_float4(a.w, a.z, a.y, a.x);
    double2 b = reinterpret_cast<const double2 *>(z)[threadIdx.x];
    reinterpret_cast<double2 *>(w)[threadIdx.x] = make_double2(b.y, b.x);
    int4 c = reinterpret_cast<const int4 *>(k)[threadIdx.x];
    reinterpret_cast<int4 *>(l)[threadIdx.x] = make_int4(c.w, c.z, c.y, c.x);
    static_assert(sizeof(float3) == 12 && alignof(float3) == 4 && alignof(float2) == 8 && alignof(uint4) == 16 && sizeof(ushort4) == 8, "as CUDA has them");
}

extern "C" __global__ void widen(const real *__restrict__ x, acc *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i < n) y[i] = (acc)x[i];
}
extern "C" __global__ void narrow(const acc *__restrict__ x, real *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i < n) y[i] = real(x[i]);
}
