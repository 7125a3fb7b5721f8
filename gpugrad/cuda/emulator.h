// CUDA on the CPU: a .cu file behind this header compiles with g++, so that its numbers can be checked where there is no GPU.
//
// Each thread of a block is a fiber, a stack of its own and a place in the code. A fiber runs until it waits, at a barrier of the block or in an
// operation of its warp, or returns; then the scheduler gives the turn to another. Blocks run one after another. So a block whose threads wait for
// each other in vain is seen and named, and the order of turns can be changed: a kernel that lacks a barrier then gives other numbers.
//
// Undefined behaviour of C++ (misaligned loads, overflow of signed integers, an index beyond an array whose size is known, null pointers) is
// caught as well: the compiler inserts the checks, the last section of this file turns what they find into the launch's error.
#pragma once
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <utility>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// ------------------------------------------------------------------------------------------------ the words of the language

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static const
// All of it lies in one section, which is filled with nan before each block. The text of a kernel is compiled inside an unnamed namespace
// (emulator.py): a static variable of a template would otherwise be merged by the linker, and such cannot stand in a section beside others.
#define __shared__ static __attribute__((section("emulator_shared")))
#define DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *>(emulator::dynamic_shared)

#define EMULATOR_VECTORS(T, name, align2, align4)                                                                                  \
    struct alignas(align2) name##2 { T x, y; };                                                                                    \
    struct name##3 { T x, y, z; };                                                                                                 \
    struct alignas(align4) name##4 { T x, y, z, w; };                                                                              \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                                     \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                             \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTORS(signed char, char, 2, 4)
EMULATOR_VECTORS(unsigned char, uchar, 2, 4)
EMULATOR_VECTORS(short, short, 4, 8)
EMULATOR_VECTORS(unsigned short, ushort, 4, 8)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(unsigned, uint, 8, 16)
EMULATOR_VECTORS(long long, longlong, 16, 16)
EMULATOR_VECTORS(unsigned long long, ulonglong, 16, 16)
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(double, double, 16, 16)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace emulator {

// ------------------------------------------------------------------------------------------------ fibers

// A context is a fiber's stack pointer, with the registers that a function must keep on its stack; elsewhere than on x86-64 the C library's.
#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
struct Context {
    void *stack_pointer;
};
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void **from, void *to);
asm(R"(.text
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");
inline void switch_context(Context &from, Context &to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }
inline void make_context(Context &context, char *stack, size_t size, void (*start)()) {
    void **top = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15));
    *--top = nullptr;  // where `start` would return to; it does not
    *--top = reinterpret_cast<void *>(start);
    for (int i = 0; i < 6; i++) *--top = nullptr;  // the registers
    context.stack_pointer = top;
}
#else
}  // namespace emulator
#include <ucontext.h>
namespace emulator {
struct Context {
    ucontext_t machine;
};
inline void switch_context(Context &from, Context &to) { swapcontext(&from.machine, &to.machine); }
inline void make_context(Context &context, char *stack, size_t size, void (*start)()) {
    getcontext(&context.machine);
    context.machine.uc_stack.ss_sp = stack;
    context.machine.uc_stack.ss_size = size;
    context.machine.uc_link = nullptr;
    makecontext(&context.machine, start, 0);
}
#endif

enum State { RUNNING, AT_BARRIER, AT_WARP, DONE };
enum Source { NOTHING = -1, VOTE = -2 };  // what a warp operation receives, when it is not the value of a lane

struct Place {
    const char *file;
    int line;
};

struct Fiber {
    Context context;
    State state;
    uint3 thread;
    // What it waits in, and what it gives and gets there.
    const char *operation;
    Place place;
    uint32_t mask;
    int source;  // a lane, or NOTHING, or VOTE
    uint64_t offered, received;
};

const unsigned MOST_THREADS = 1024;
const size_t STACK = (sizeof(void *) << 13) + 320;  // 64 KB; not a power of two, or the tops of all stacks would share a line of the cache
const uint64_t CANARY = 0x5afe57ac4b0770a5;
static Fiber fibers[MOST_THREADS];
static char *stacks;
static Context scheduler;
static unsigned current;       // the fiber whose turn it is
static void (*kernel)(void **);
static void **arguments;
static char *dynamic_shared;
static char problem[1024];     // empty while there is none

// AddressSanitizer is told of each switch, or it would take one stack for another. The scheduler's own stack it tells us.
static const void *scheduler_stack;
static size_t scheduler_stack_size;
#ifdef __SANITIZE_ADDRESS__
inline void before_switch(void **keep, const void *stack, size_t size) { __sanitizer_start_switch_fiber(keep, stack, size); }
inline void in_fiber(void *kept) { __sanitizer_finish_switch_fiber(kept, &scheduler_stack, &scheduler_stack_size); }
inline void in_scheduler(void *kept) { __sanitizer_finish_switch_fiber(kept, nullptr, nullptr); }
#else
inline void before_switch(void **, const void *, size_t) {}
inline void in_fiber(void *) {}
inline void in_scheduler(void *) {}
#endif
#define EMULATOR_UNCHECKED __attribute__((no_sanitize("address")))

inline char *stack_of(unsigned i) { return stacks + (i + 1) * STACK; }  // what overflows the first one goes into a spare one below it

// Gives the turn back to the scheduler; comes back when that gives it again. Unchecked, like `begin`, for from the last time it does not come back, and
// its marks on the stack would remain for the next block.
EMULATOR_UNCHECKED inline void leave(bool for_good) {
    void *kept = nullptr;
    before_switch(for_good ? nullptr : &kept, scheduler_stack, scheduler_stack_size);
    switch_context(fibers[current].context, scheduler);
    in_fiber(kept);
}

EMULATOR_UNCHECKED inline void begin() {
    in_fiber(nullptr);
    kernel(arguments);
    fibers[current].state = DONE;
    leave(true);
}

inline void prepare(unsigned i) {
    make_context(fibers[i].context, stack_of(i), STACK, begin);
    *reinterpret_cast<uint64_t *>(stack_of(i)) = CANARY;
    fibers[i].state = RUNNING;
    fibers[i].thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
}

// The current thread cannot go on: the launch ends with this error.
__attribute__((format(printf, 1, 2))) inline void fail(const char *format, ...) {
    const Fiber &f = fibers[current];
    int n = snprintf(problem, sizeof problem, "thread (%u, %u, %u) of block (%u, %u, %u) ", f.thread.x, f.thread.y, f.thread.z, blockIdx.x, blockIdx.y, blockIdx.z);
    va_list more;
    va_start(more, format);
    vsnprintf(problem + n, sizeof problem - n, format, more);
    va_end(more);
    leave(true);
}

// Gives fiber i the turn; false where that ended in an error.
inline bool resume(unsigned i) {
    current = i;
    threadIdx = fibers[i].thread;
    void *kept = nullptr;
    before_switch(&kept, stack_of(i), STACK);
    switch_context(scheduler, fibers[i].context);
    in_scheduler(kept);
    if (*reinterpret_cast<uint64_t *>(stack_of(i)) != CANARY) snprintf(problem, sizeof problem, "a thread's local variables need more than %zu bytes", STACK);
    return !*problem;
}

// The current thread waits; returns what it is given when the others have come.
inline uint64_t wait(State state, const char *operation, Place place, uint32_t mask = ~0u, int source = NOTHING, uint64_t offered = 0) {
    Fiber &f = fibers[current];
    f.state = state, f.operation = operation, f.place = place, f.mask = mask, f.source = source, f.offered = offered;
    leave(false);
    return f.received;
}

inline bool together(const Fiber &a, const Fiber &b) {
    return a.state == b.state && a.place.line == b.place.line && a.mask == b.mask && !strcmp(a.operation, b.operation);
}

// "thread (3, 0, 0) waits in __syncthreads at sum.cu:12"
inline const char *describe(const Fiber &f, char (&text)[256]) {
    int n = snprintf(text, sizeof text, "thread (%u, %u, %u) ", f.thread.x, f.thread.y, f.thread.z);
    if (f.state == DONE)
        snprintf(text + n, sizeof text - n, "has returned");
    else if (f.state == AT_WARP)
        snprintf(text + n, sizeof text - n, "waits in %s at %s:%d with mask 0x%08x", f.operation, f.place.file, f.place.line, f.mask);
    else
        snprintf(text + n, sizeof text - n, "waits in %s at %s:%d", f.operation, f.place.file, f.place.line);
    return text;
}

inline bool apart(const char *what, const Fiber &a, const Fiber &b) {
    char one[256], other[256];
    snprintf(problem, sizeof problem, "%s in block (%u, %u, %u): %s, while %s", what, blockIdx.x, blockIdx.y, blockIdx.z, describe(a, one), describe(b, other));
    return false;
}

// ------------------------------------------------------------------------------------------------ the scheduler

enum Order { FORWARD, REVERSE, SHUFFLED };
static Order order;
static uint64_t random_state;

inline unsigned random_below(unsigned n) {  // xorshift64*
    random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
    return (random_state * 0x2545f4914f6cdd1dull >> 32) % n;
}

// In which order 0 .. n-1 take their turns.
inline void arrange(unsigned *turns, unsigned n) {
    for (unsigned i = 0; i < n; i++) turns[i] = order == REVERSE ? n - 1 - i : i;
    if (order == SHUFFLED)
        for (unsigned i = n; i > 1; i--) std::swap(turns[i - 1], turns[random_below(i)]);
}

// The warp operation that lane `i` waits in ends, if all threads that its mask names have come; those that returned, or never were, it does not wait for.
// Then each gets the value of the lane it reads from, or the votes (low word) and who voted (high word).
inline bool finish(Fiber *warp, unsigned n, unsigned i) {
    const uint32_t mask = warp[i].mask;
    uint32_t present = 0, votes = 0;
    for (unsigned j = 0; j < n; j++)
        if (mask >> j & 1 && warp[j].state != DONE) {
            if (!together(warp[i], warp[j])) return false;
            present |= 1u << j;
            votes |= uint32_t(warp[j].offered & 1) << j;
        }
    for (unsigned j = 0; j < n; j++)
        if (present >> j & 1) {
            Fiber &f = warp[j];
            if (f.source >= 0 && !(present >> f.source & 1)) {
                char text[256];
                snprintf(problem, sizeof problem, "block (%u, %u, %u): %s and reads from lane %d, which %s", blockIdx.x, blockIdx.y, blockIdx.z,
                         describe(f, text), f.source, mask >> f.source & 1 ? "has returned or is beyond the block" : "the mask does not name");
                return true;
            }
            f.received = f.source >= 0 ? warp[f.source].offered : uint64_t(present) << 32 | votes;
        }
    for (unsigned j = 0; j < n; j++)
        if (present >> j & 1) warp[j].state = RUNNING;
    return true;
}

// Runs the threads of a warp until each has returned or waits at a barrier of the block.
inline bool run_warp(Fiber *warp, unsigned n) {
    for (bool again = true; again;) {
        unsigned turns[32], waiting = n;
        arrange(turns, n);
        for (unsigned k = 0; k < n; k++)
            if (warp[turns[k]].state == RUNNING && !resume(unsigned(warp - fibers) + turns[k])) return false;
        again = false;
        for (unsigned i = 0; i < n; i++)
            if (warp[i].state == AT_WARP) {
                if (finish(warp, n, i)) again = true;
                else if (waiting == n) waiting = i;
                if (*problem) return false;
            }
        if (!again && waiting < n)
            for (unsigned j = 0; j < n; j++)
                if (warp[waiting].mask >> j & 1 && warp[j].state != DONE && !together(warp[waiting], warp[j])) return apart("divergent warp", warp[waiting], warp[j]);
    }
    return true;
}

// All threads of the block have come to the barrier, or it is an error: CUDA allows a barrier only where the whole block passes it.
inline bool finish_barrier(unsigned n) {
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!together(fibers[0], fibers[i])) return fibers[0].state == AT_BARRIER ? apart("divergent barrier", fibers[0], fibers[i]) : apart("divergent barrier", fibers[i], fibers[0]);
        count += fibers[i].offered;
    }
    for (unsigned i = 0; i < n; i++) fibers[i].received = count, fibers[i].state = RUNNING;
    return true;
}

inline bool run_block(unsigned n) {
    for (unsigned i = 0; i < n; i++) prepare(i);
    for (;;) {
        unsigned turns[MOST_THREADS / 32], warps = (n + 31) / 32, done = 0;
        arrange(turns, warps);
        for (unsigned k = 0; k < warps; k++) {
            unsigned first = turns[k] * 32;
            if (!run_warp(fibers + first, n - first < 32 ? n - first : 32)) return false;
        }
        for (unsigned i = 0; i < n; i++) done += fibers[i].state == DONE;
        if (done == n) return true;
        if (!finish_barrier(n)) return false;
    }
}

// ------------------------------------------------------------------------------------------------ a launch

struct Launch {  // as emulator.py fills it
    uint32_t grid[3], block[3];
    uint64_t shared;
    void **arguments;
    const uint32_t *sizes;  // of the arguments, in bytes
    uint32_t count;
    const int64_t *blocks;  // which to run, by x + grid.x * (y + grid.y * z), in their order; null: all
    int64_t block_count;
    uint32_t order;
    uint64_t seed;
};

extern "C" __attribute__((weak, visibility("hidden"))) char __start_emulator_shared[], __stop_emulator_shared[];

// Every byte 255: nan as a float of any size, -1 as an integer. Volatile, for memset would be told to keep off what lies between the arrays.
EMULATOR_UNCHECKED inline void spoil(char *from, size_t size) {
    for (volatile char *p = from; p < from + size; p++) *p = char(255);
}

template <class F> struct Entry;
template <class... A> struct Entry<void (*)(A...)> {
    template <void (*entry)(A...), size_t... I> static void call(void **arguments, std::index_sequence<I...>) { entry(*static_cast<A *>(arguments[I])...); }
    template <void (*entry)(A...)> EMULATOR_UNCHECKED static void call(void **arguments) { call<entry>(arguments, std::index_sequence_for<A...>()); }
    static bool takes(const Launch &launch) {
        const uint32_t sizes[] = {sizeof(A)..., 0};
        if (launch.count != sizeof...(A)) return snprintf(problem, sizeof problem, "takes %zu arguments, got %u", sizeof...(A), launch.count), false;
        for (size_t i = 0; i < sizeof...(A); i++)
            if (launch.sizes[i] != sizes[i])
                return snprintf(problem, sizeof problem, "argument %zu has %u bytes, got one of %u bytes", i, sizes[i], launch.sizes[i]), false;
        return true;
    }
};

inline void run(const Launch &launch) {
    if (!stacks) {
        void *memory = mmap(nullptr, (MOST_THREADS + 1) * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return (void)snprintf(problem, sizeof problem, "there is no memory for the stacks of the threads");
        stacks = static_cast<char *>(memory);
    }
    void *memory;
    if (posix_memalign(&memory, 16, launch.shared)) return (void)snprintf(problem, sizeof problem, "there is no memory for %llu bytes", (unsigned long long)launch.shared);
    dynamic_shared = static_cast<char *>(memory);
    const uint64_t x = launch.grid[0], y = launch.grid[1], z = launch.grid[2];
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    order = Order(launch.order);
    random_state = launch.seed * 2 + 1;
    arguments = launch.arguments;
    const uint64_t count = launch.blocks ? launch.block_count : x * y * z;
    for (uint64_t k = 0; k < count && !*problem; k++) {
        const uint64_t b = launch.blocks ? launch.blocks[k] : k;
        blockIdx = {unsigned(b % x), unsigned(b / x % y), unsigned(b / x / y)};
        spoil(__start_emulator_shared, __stop_emulator_shared - __start_emulator_shared);
        spoil(dynamic_shared, launch.shared);
        run_block(blockDim.x * blockDim.y * blockDim.z);
    }
    free(memory);
#ifdef __SANITIZE_ADDRESS__
    if (*problem) __asan_unpoison_memory_region(stacks, (MOST_THREADS + 1) * STACK);  // some threads never returned
#endif
}

// Runs the kernel; what went wrong, or null.
template <auto entry> const char *launch(const Launch &launch, unsigned most_threads) {
    *problem = 0;
    unsigned threads = launch.block[0] * launch.block[1] * launch.block[2];
    if (threads > most_threads)
        snprintf(problem, sizeof problem, "is declared with __launch_bounds__(%u), got blocks of %u threads", most_threads, threads);
    else if (Entry<decltype(entry)>::takes(launch)) {
        kernel = Entry<decltype(entry)>::template call<entry>;
        run(launch);
    }
    return *problem ? problem : nullptr;
}

// ------------------------------------------------------------------------------------------------ operations of a warp

inline unsigned lane() { return current % 32; }

inline uint64_t warp_operation(const char *name, Place place, uint32_t mask, int source = NOTHING, uint64_t offered = 0) {
    if (!(mask >> lane() & 1)) fail("calls %s at %s:%d with mask 0x%08x, which does not name itself (lane %u)", name, place.file, place.line, mask, lane());
    return wait(AT_WARP, name, place, mask, source, offered);
}

// CUDA's shuffles are of 4 and 8 bytes.
template <class T> T shuffle(const char *name, Place place, uint32_t mask, T value, unsigned source, int width) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    if (width < 1 || width > 32 || width & (width - 1)) fail("calls %s at %s:%d with width %d, which is not 1, 2, 4, 8, 16 or 32", name, place.file, place.line, width);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = warp_operation(name, place, mask, int(source), bits);
    memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace emulator

// The caller's place, as default argument.
#define EMULATOR_HERE emulator::Place place = {__builtin_FILE(), __builtin_LINE()}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_HERE) {
    unsigned first = emulator::lane() & -unsigned(width);
    return emulator::shuffle("__shfl_sync", place, mask, value, first | (source & (width - 1)), width);
}
// A lane that would read beyond its group of `width` lanes keeps its own value; only __shfl_xor_sync reads from earlier groups.
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::lane(), first = lane & -unsigned(width);
    return emulator::shuffle("__shfl_up_sync", place, mask, value, lane < first + (delta & 31) ? lane : lane - (delta & 31), width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::lane(), last = lane | (width - 1);
    return emulator::shuffle("__shfl_down_sync", place, mask, value, lane + (delta & 31) > last ? lane : lane + (delta & 31), width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::lane(), last = lane | (width - 1), source = lane ^ (lanes & 31);
    return emulator::shuffle("__shfl_xor_sync", place, mask, value, source > last ? lane : source, width);
}

inline void __syncwarp(unsigned mask = ~0u, EMULATOR_HERE) { emulator::warp_operation("__syncwarp", place, mask); }
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    return unsigned(emulator::warp_operation("__ballot_sync", place, mask, emulator::VOTE, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    return unsigned(emulator::warp_operation("__any_sync", place, mask, emulator::VOTE, predicate != 0)) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    uint64_t result = emulator::warp_operation("__all_sync", place, mask, emulator::VOTE, predicate != 0);
    return unsigned(result) == result >> 32;
}
// The lanes that have not returned; those that are elsewhere now, which on a GPU may be missing, are among them.
inline unsigned __activemask() {
    unsigned first = emulator::current / 32 * 32, n = blockDim.x * blockDim.y * blockDim.z, active = 0;
    for (unsigned i = first; i < n && i < first + 32; i++) active |= unsigned(emulator::fibers[i].state != emulator::DONE) << (i - first);
    return active;
}

// ------------------------------------------------------------------------------------------------ barriers of a block, fences

inline void __syncthreads(EMULATOR_HERE) { emulator::wait(emulator::AT_BARRIER, "__syncthreads", place); }
inline int __syncthreads_count(int predicate, EMULATOR_HERE) {
    return int(emulator::wait(emulator::AT_BARRIER, "__syncthreads_count", place, ~0u, emulator::NOTHING, predicate != 0));
}
inline int __syncthreads_or(int predicate, EMULATOR_HERE) {
    return emulator::wait(emulator::AT_BARRIER, "__syncthreads_or", place, ~0u, emulator::NOTHING, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, EMULATOR_HERE) {
    return emulator::wait(emulator::AT_BARRIER, "__syncthreads_and", place, ~0u, emulator::NOTHING, predicate == 0) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __trap() { emulator::fail("came to __trap()"); }

// ------------------------------------------------------------------------------------------------ memory

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> void __stcg(T *p, T value) { *p = value; }
template <class T> void __stcs(T *p, T value) { *p = value; }

// Atomics, for the types that CUDA has them for; one thread runs at a time.
#define EMULATOR_ATOMIC(name, T, result)          \
    inline T name(T *p, T value) {                \
        T old = *p;                               \
        *p = result;                              \
        return old;                               \
    }
#define EMULATOR_ATOMICS_32_64(T)                               \
    EMULATOR_ATOMIC(atomicMax, T, old < value ? value : old)    \
    EMULATOR_ATOMIC(atomicMin, T, value < old ? value : old)    \
    EMULATOR_ATOMIC(atomicAnd, T, old & value)                  \
    EMULATOR_ATOMIC(atomicOr, T, old | value)                   \
    EMULATOR_ATOMIC(atomicXor, T, old ^ value)
#define EMULATOR_ATOMICS(T)                       \
    EMULATOR_ATOMIC(atomicExch, T, value)         \
    inline T atomicCAS(T *p, T compare, T value) {\
        T old = *p;                               \
        if (old == compare) *p = value;           \
        return old;                               \
    }
EMULATOR_ATOMICS_32_64(int)
EMULATOR_ATOMICS_32_64(unsigned)
EMULATOR_ATOMICS_32_64(long long)
EMULATOR_ATOMICS_32_64(unsigned long long)
EMULATOR_ATOMICS(int)
EMULATOR_ATOMICS(unsigned)
EMULATOR_ATOMICS(unsigned long long)
EMULATOR_ATOMIC(atomicExch, float, value)
EMULATOR_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(value)))
EMULATOR_ATOMIC(atomicAdd, unsigned, old + value)
EMULATOR_ATOMIC(atomicAdd, unsigned long long, old + value)
EMULATOR_ATOMIC(atomicSub, int, int(unsigned(old) - unsigned(value)))
EMULATOR_ATOMIC(atomicSub, unsigned, old - value)
#define EMULATOR_REFUSED "an atomicAdd of floats sums in the order in which threads come, so its bits change from run to run: write partial sums, and add them in a second pass"
__attribute__((error(EMULATOR_REFUSED))) float atomicAdd(float *, float);
__attribute__((error(EMULATOR_REFUSED))) double atomicAdd(double *, double);

// ------------------------------------------------------------------------------------------------ bits and integers

#define EMULATOR_BITS(name, To, From)             \
    inline To name(From x) {                      \
        To y;                                     \
        memcpy(&y, &x, sizeof y);                 \
        return y;                                 \
    }
EMULATOR_BITS(__float_as_uint, unsigned, float)
EMULATOR_BITS(__float_as_int, int, float)
EMULATOR_BITS(__uint_as_float, float, unsigned)
EMULATOR_BITS(__int_as_float, float, int)
EMULATOR_BITS(__double_as_longlong, long long, double)
EMULATOR_BITS(__longlong_as_double, double, long long)

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned long long __brevll(unsigned long long x) {
    unsigned long long y = 0;
    for (int i = 0; i < 64; i++) y |= (x >> i & 1) << (63 - i);
    return y;
}
inline unsigned __brev(unsigned x) { return unsigned(__brevll(x) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }

// ------------------------------------------------------------------------------------------------ mathematics

// Most functions have C's names. CUDA's approximate ones (__expf and the like) are left out: they would be more accurate here than on a GPU.
inline float rsqrtf(float x) { return float(1.0 / sqrt(double(x))); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return float(0.5 * erfc(double(x) * -0.70710678118654752440)); }
inline double normcdf(double x) { return double(0.5L * erfcl((long double)x * -0.70710678118654752440L)); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
// Never contracted into a multiply-add.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }

// The overloads that CUDA has. Of a nan and a number the floats' give the number.
#define EMULATOR_MIN_MAX(T)                              \
    inline T min(T a, T b) { return b < a ? b : a; }     \
    inline T max(T a, T b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }

// ------------------------------------------------------------------------------------------------ 16-bit floats

namespace emulator {

inline float half_to_float(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 0) {
        float f = ldexpf(float(fraction), -24);
        return sign ? -f : f;
    }
    return __uint_as_float(sign | (exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13));
}

inline uint16_t float_to_half(float f) {  // to nearest, ties to even
    uint16_t sign = __float_as_uint(f) >> 16 & 0x8000;
    float a = fabsf(f);
    if (a != a) return 0x7fff;
    if (a >= 65520.0f) return sign | 0x7c00;
    if (a < 6.103515625e-05f) return sign | uint16_t(nearbyintf(ldexpf(a, 24)));  // subnormal: a multiple of 2^-24
    uint32_t u = __float_as_uint(a);
    u += 0xfff + (u >> 13 & 1);
    return sign | uint16_t((u >> 13) - (112 << 10));
}

// ------------------------------------------------------------------------------------------------ undefined behaviour

// The compiler's checks call these by name, with a record that begins with the place in the source.
struct Found {
    const char *file;
    uint32_t line, column;
};

}  // namespace emulator

#define EMULATOR_UNDEFINED(check, what)                                                                                               \
    extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_##check##_abort(const emulator::Found *at, uintptr_t) {      \
        emulator::fail("met %s at %s:%u", what, at->file, at->line);                                                                  \
    }
EMULATOR_UNDEFINED(add_overflow, "an overflow of signed integers (+)")
EMULATOR_UNDEFINED(sub_overflow, "an overflow of signed integers (-)")
EMULATOR_UNDEFINED(mul_overflow, "an overflow of signed integers (*)")
EMULATOR_UNDEFINED(negate_overflow, "an overflow of signed integers (-)")
EMULATOR_UNDEFINED(divrem_overflow, "a division by zero")
EMULATOR_UNDEFINED(shift_out_of_bounds, "a shift by too many bits, or of a negative number")
EMULATOR_UNDEFINED(out_of_bounds, "an index beyond an array")
EMULATOR_UNDEFINED(float_cast_overflow, "a float that does not fit an integer")
EMULATOR_UNDEFINED(load_invalid_value, "a bool or enum of another value")
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1_abort(const emulator::Found *at, uintptr_t pointer) {
    emulator::fail("met %s at %s:%u", pointer ? "a misaligned pointer" : "a null pointer", at->file, at->line);
}
