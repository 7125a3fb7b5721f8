// CUDA on the CPU: a fiber per thread, block after block, so that a .cu file compiles with g++ and its numbers can be checked without a GPU.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static
#define __constant__ static const
#define __align__(n) alignas(n)
#define DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *>(emulator::dynamic_shared)

struct dim3 {
    unsigned x, y, z;
};
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

enum State { RUNNING, AT_BARRIER, AT_WARP, DONE };
struct Fiber {
    void *stack_pointer;
    State state;
    std::vector<char> stack;
    dim3 thread;
    unsigned index;
};
static std::vector<Fiber> fibers;
static void *main_stack;
static unsigned current;
static char *dynamic_shared;
static std::function<void()> *body;
static uint64_t exchange[64][32];
static const char *problem;

extern "C" void emulator_switch(void **from, void *to);
asm(R"(.text
.type emulator_switch,@function
emulator_switch: pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp,(%rdi); movq %rsi,%rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret
.size emulator_switch,.-emulator_switch
)");

inline void enter() {
    (*body)();
    fibers[current].state = DONE;
    void *gone;
    emulator_switch(&gone, main_stack);
    abort();
}
inline void wait(State state) {
    unsigned me = current;
    fibers[me].state = state;
    emulator_switch(&fibers[me].stack_pointer, main_stack);
}
inline void resume(unsigned i) {
    current = i;
    threadIdx = fibers[i].thread;
    fibers[i].state = RUNNING;
    emulator_switch(&main_stack, fibers[i].stack_pointer);
}
inline void prepare(Fiber &f) {
    f.stack.resize(1 << 16);
    uintptr_t top = ((uintptr_t)f.stack.data() + f.stack.size()) & ~(uintptr_t)15;
    void **p = (void **)top;
    *--p = nullptr;
    *--p = (void *)enter;
    for (int k = 0; k < 6; k++) *--p = nullptr;
    f.stack_pointer = p;
}
inline const char *run_block(unsigned n) {
    unsigned done = 0;
    while (done < n) {
        for (unsigned w = 0; w < n; w += 32) {
            unsigned end = w + 32 < n ? w + 32 : n;
            for (;;) {
                bool any = false, waiting = false, all = true;
                for (unsigned i = w; i < end; i++)
                    if (fibers[i].state == RUNNING) {
                        resume(i);
                        any = true;
                        done += fibers[i].state == DONE;
                    }
                for (unsigned i = w; i < end; i++) {
                    if (fibers[i].state == AT_WARP) waiting = true;
                    else if (fibers[i].state != DONE) all = false;
                }
                if (waiting && all) {
                    for (unsigned i = w; i < end; i++)
                        if (fibers[i].state == AT_WARP) fibers[i].state = RUNNING;
                } else if (waiting) return "a warp operation that not all threads of the warp reach";
                else if (!any) break;
            }
        }
        if (done == n) break;
        unsigned at = 0;
        for (unsigned i = 0; i < n; i++) at += fibers[i].state == AT_BARRIER;
        if (at + done != n || done) return "a barrier that not all threads of the block reach";
        for (unsigned i = 0; i < n; i++) fibers[i].state = RUNNING;
    }
    return nullptr;
}

template <class... A, size_t... I> const char *run(void (*kernel)(A...), const unsigned *grid, const unsigned *block, size_t shared, void **args, std::index_sequence<I...>) {
    std::function<void()> call = [=] { kernel(*(A *)args[I]...); };
    body = &call;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    unsigned n = block[0] * block[1] * block[2];
    std::vector<char> dynamic(shared + 16);
    dynamic_shared = (char *)(((uintptr_t)dynamic.data() + 15) & ~(uintptr_t)15);
    fibers.resize(n);
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                for (unsigned i = 0; i < n; i++) {
                    fibers[i].index = i;
                    fibers[i].thread = {i % block[0], i / block[0] % block[1], i / (block[0] * block[1])};
                    fibers[i].state = RUNNING;
                    prepare(fibers[i]);
                }
                if (const char *problem = run_block(n)) return problem;
            }
    return nullptr;
}
template <class... A> const char *launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, size_t shared, void **args) {
    return run(kernel, grid, block, shared, args, std::index_sequence_for<A...>());
}

inline unsigned lane() { return fibers[current].index % 32; }
template <class T> T swap(T value, unsigned source) {
    unsigned warp = fibers[current].index / 32;
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    exchange[warp][lane()] = bits;
    wait(AT_WARP);
    T result;
    memcpy(&result, &exchange[warp][source & 31], sizeof(T));
    wait(AT_WARP);
    return result;
}

inline float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    float f;
    if (exponent == 0) {
        f = std::ldexp((float)fraction, -24);
        return sign ? -f : f;
    }
    uint32_t u = sign | (exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13);
    memcpy(&f, &u, 4);
    return f;
}
inline uint16_t float_to_half(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = u >> 16 & 0x8000;
    if (f != f) return sign | 0x7fff;
    float a = std::fabs(f);
    if (a >= 65520.0f) return sign | 0x7c00;
    if (a < 6.103515625e-05f) return sign | (uint16_t)std::nearbyint(std::ldexp(a, 24));
    memcpy(&u, &a, 4);
    u += 0xfff + (u >> 13 & 1);
    return sign | (uint16_t)((u >> 13) - (112 << 10));
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait(emulator::AT_BARRIER); }
inline void __syncwarp(unsigned = ~0u) { emulator::wait(emulator::AT_WARP); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) { return emulator::swap(value, emulator::lane() ^ mask); }
template <class T> T __shfl_down_sync(unsigned, T value, unsigned d) { return emulator::swap(value, emulator::lane() + d < 32 ? emulator::lane() + d : emulator::lane()); }
template <class T> T __shfl_sync(unsigned, T value, int source) { return emulator::swap(value, source); }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
template <class T> T __ldg(const T *p) { return *p; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
