// Normalisation with its affine map, its backward, and the backward of the backward (the formulas stand in normalise.py).
//
//   standardize   h = (x - m) r,  y = h w + b           keeps of each channel m, its drift, r and v, in four rows of `stats`
//   backward      dx = r (d - mean(d) - h mean(h d)), d = g w
//   twice         by_g = s w + h c_w + c_b, s = r (c - mean(c) - h mean(h c)), and by_x
//   weight_sums   sums over blocks of rows of g and of g (p u + q (x - m - drift) + t), where p, q and t belong to the row: the gradients of the weights of rows
//
// All that is written is a sum of x - m, g and c with factors that belong to the channel, or to the channel and the weight. Where not centred, m, mean(d) and mean(c) are 0.
//
// Memory: NAME_rows takes x (rows, columns) with weights along the columns. A row belongs to a block of threads, which take 16 bytes at a time where rows are aligned to that, one
// element otherwise. NAME_channels takes x (outer, channels, inner) with a weight for each channel. A block has `across` channels; its threads are (row, along, across): across is 1
// where inner is not, and else 32 bytes of neighbouring channels, so that whole sectors are read and there are many blocks; along is the number of threads along inner.
//
// Why it is fast: x, g and c come from memory once, and the later passes find them in the cache. The weights' gradients take a second pass over x and g, which lets every row have a block of its own
// in the first. The host waits for nothing.
//
// Digits: m is rounded, so the mean of x - m, the drift, is not 0. It is taken off as well: x of mean 1e4 then has in h the digits that it has itself. In
// float32 the square of a deviation of 1e20 is infinite, and h is 0. Sums are made in an order that depends on the sizes alone.

template <int WIDTH> struct alignas(sizeof(real) * WIDTH) Pack {
    real v[WIDTH];
};

template <int WIDTH> __device__ __forceinline__ Pack<WIDTH> load(const real *p) { return *reinterpret_cast<const Pack<WIDTH> *>(p); }
template <int WIDTH> __device__ __forceinline__ void store(real *p, Pack<WIDTH> x) { *reinterpret_cast<Pack<WIDTH> *>(p) = x; }

// ------------------------------------------------------------------------------------------------ rows: forward

template <int WIDTH>
__device__ __forceinline__ void standardize_row(const real *__restrict__ x, const real *__restrict__ w, const real *__restrict__ b, real *__restrict__ y, acc *__restrict__ stats, int64 rows, int64 columns, acc eps, bool centred, acc *shared) {
    const int64 first = threadIdx.x * WIDTH, step = blockDim.x * WIDTH;
    x += blockIdx.x * columns;
    y += blockIdx.x * columns;
    acc mean = 0, drift = 0, squares = 0;
    if (centred) {
        for (int64 j = first; j < columns; j += step) {
            Pack<WIDTH> in = load<WIDTH>(x + j);
            for (int k = 0; k < WIDTH; k++) mean += acc(in.v[k]);
        }
        mean = block_sum(mean, shared) / columns;
        for (int64 j = first; j < columns; j += step) {
            Pack<WIDTH> in = load<WIDTH>(x + j);
            for (int k = 0; k < WIDTH; k++) drift += acc(in.v[k]) - mean;
        }
        drift = block_sum(drift, shared) / columns;
    }
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j);
        for (int k = 0; k < WIDTH; k++) {
            acc c = acc(in.v[k]) - mean - drift;
            squares += c * c;
        }
    }
    const acc var = block_sum(squares, shared) / columns, r = rsqrt(var + eps);
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j), scale = load<WIDTH>(w + j), shift = load<WIDTH>(b + j);
        for (int k = 0; k < WIDTH; k++) in.v[k] = real((acc(in.v[k]) - mean - drift) * r * acc(scale.v[k]) + acc(shift.v[k]));
        store<WIDTH>(y + j, in);
    }
    if (threadIdx.x) return;
    stats[blockIdx.x] = mean;
    stats[rows + blockIdx.x] = drift;
    stats[2 * rows + blockIdx.x] = r;
    stats[3 * rows + blockIdx.x] = var;
}

extern "C" __global__ void __launch_bounds__(1024) standardize_rows(const real *__restrict__ x, const real *__restrict__ w, const real *__restrict__ b, real *__restrict__ y, acc *__restrict__ stats, int64 rows, int64 columns, double eps, int64 centred, int64 width) {
    __shared__ acc shared[32];
    if (width == 1) standardize_row<1>(x, w, b, y, stats, rows, columns, acc(eps), centred, shared);
    else standardize_row<16 / sizeof(real)>(x, w, b, y, stats, rows, columns, acc(eps), centred, shared);
}

// ------------------------------------------------------------------------------------------------ rows: backward

template <int WIDTH>
__device__ __forceinline__ void backward_row(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ w, const real *__restrict__ g, real *__restrict__ dx, int64 rows, int64 columns, bool centred, acc *shared) {
    const int64 first = threadIdx.x * WIDTH, step = blockDim.x * WIDTH;
    const acc m = stats[blockIdx.x], drift = stats[rows + blockIdx.x], r = stats[2 * rows + blockIdx.x];
    x += blockIdx.x * columns;
    g += blockIdx.x * columns;
    dx += blockIdx.x * columns;
    acc mean = 0, product = 0;
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j), through = load<WIDTH>(g + j), scale = load<WIDTH>(w + j);
        for (int k = 0; k < WIDTH; k++) {
            acc d = acc(through.v[k]) * acc(scale.v[k]);
            mean += d;
            product += d * (acc(in.v[k]) - m - drift);
        }
    }
    mean = centred ? block_sum(mean, shared) / columns : acc(0);
    product = r * r * (block_sum(product, shared) / columns);
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j), through = load<WIDTH>(g + j), scale = load<WIDTH>(w + j);
        for (int k = 0; k < WIDTH; k++) in.v[k] = real(r * (acc(through.v[k]) * acc(scale.v[k]) - mean - (acc(in.v[k]) - m - drift) * product));
        store<WIDTH>(dx + j, in);
    }
}

extern "C" __global__ void __launch_bounds__(1024) backward_rows(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ w, const real *__restrict__ g, real *__restrict__ dx, int64 rows, int64 columns, int64 centred, int64 width) {
    __shared__ acc shared[32];
    if (width == 1) backward_row<1>(x, stats, w, g, dx, rows, columns, centred, shared);
    else backward_row<16 / sizeof(real)>(x, stats, w, g, dx, rows, columns, centred, shared);
}

// u null: it counts for nothing. A block of 32 x 8 threads has 32 columns and `height` rows; partials (2, blocks of rows, columns)
extern "C" __global__ void __launch_bounds__(256) weight_sums(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ g, const real *__restrict__ u, const acc *__restrict__ factors, acc *__restrict__ partials, int64 rows, int64 columns, int64 height) {
    __shared__ acc shared[2][8][32];
    const int64 j = (int64)blockIdx.x * 32 + threadIdx.x, stop = j < columns ? min((int64)(blockIdx.y + 1) * height, rows) : 0;
    acc products = 0, sum = 0;
#pragma unroll 4
    for (int64 i = blockIdx.y * height + threadIdx.y; i < stop; i += 8) {
        acc through = acc(g[i * columns + j]), other = (acc(x[i * columns + j]) - stats[i] - stats[rows + i]) * factors[rows + i];
        if (u) other += acc(u[i * columns + j]) * factors[i] + factors[2 * rows + i];
        products += through * other;
        sum += through;
    }
    shared[0][threadIdx.y][threadIdx.x] = products;
    shared[1][threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 1 || j >= columns) return;
    acc total = 0;
    for (int k = 0; k < 8; k++) total += shared[threadIdx.y][k][threadIdx.x];
    partials[(threadIdx.y * (int64)gridDim.y + blockIdx.y) * columns + j] = total;
}

// ------------------------------------------------------------------------------------------------ rows: the backward of the backward

template <int WIDTH>
__device__ __forceinline__ void twice_row(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ w, const real *__restrict__ g, const real *__restrict__ c, const real *__restrict__ cw, const real *__restrict__ cb, real *__restrict__ by_x, real *__restrict__ by_g, acc *__restrict__ factors, int64 rows, int64 columns, bool centred, acc *shared) {
    const int64 first = threadIdx.x * WIDTH, step = blockDim.x * WIDTH;
    const acc m = stats[blockIdx.x], drift = stats[rows + blockIdx.x], r = stats[2 * rows + blockIdx.x];
    x += blockIdx.x * columns;
    g += blockIdx.x * columns;
    c += blockIdx.x * columns;
    acc c_ = 0, ch = 0;
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j), along = load<WIDTH>(c + j);
        for (int k = 0; k < WIDTH; k++) {
            c_ += acc(along.v[k]);
            ch += acc(along.v[k]) * ((acc(in.v[k]) - m - drift) * r);
        }
    }
    c_ = centred ? block_sum(c_, shared) / columns : acc(0);
    ch = block_sum(ch, shared) / columns;
    if (threadIdx.x == 0 && factors) {
        factors[blockIdx.x] = r;
        factors[rows + blockIdx.x] = -r * r * ch;
        factors[2 * rows + blockIdx.x] = -r * c_;
    }
    if (by_g)
        for (int64 j = first; j < columns; j += step) {
            Pack<WIDTH> in = load<WIDTH>(x + j), along = load<WIDTH>(c + j), scale = load<WIDTH>(w + j), of_w = load<WIDTH>(cw + j), of_b = load<WIDTH>(cb + j);
            for (int k = 0; k < WIDTH; k++) {
                acc h = (acc(in.v[k]) - m - drift) * r;
                in.v[k] = real(r * (acc(along.v[k]) - c_ - h * ch) * acc(scale.v[k]) + h * acc(of_w.v[k]) + acc(of_b.v[k]));
            }
            store<WIDTH>(by_g + blockIdx.x * columns + j, in);
        }
    if (!by_x) return;
    acc d_ = 0, dh = 0, e_ = 0, eh = 0, dc = 0;
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j), along = load<WIDTH>(c + j), through = load<WIDTH>(g + j), scale = load<WIDTH>(w + j), of_w = load<WIDTH>(cw + j);
        for (int k = 0; k < WIDTH; k++) {
            acc h = (acc(in.v[k]) - m - drift) * r, d = acc(through.v[k]) * acc(scale.v[k]), e = acc(through.v[k]) * acc(of_w.v[k]);
            d_ += d;
            dh += d * h;
            e_ += e;
            eh += e * h;
            dc += d * (acc(along.v[k]) - c_);
        }
    }
    d_ = centred ? block_sum(d_, shared) / columns : acc(0);
    e_ = centred ? block_sum(e_, shared) / columns : acc(0);
    dh = block_sum(dh, shared) / columns;
    eh = block_sum(eh, shared) / columns;
    dc = block_sum(dc, shared) / columns;
    const acc bent = eh + r * (dc - 3 * ch * dh);
    for (int64 j = first; j < columns; j += step) {
        Pack<WIDTH> in = load<WIDTH>(x + j), along = load<WIDTH>(c + j), through = load<WIDTH>(g + j), scale = load<WIDTH>(w + j), of_w = load<WIDTH>(cw + j);
        for (int k = 0; k < WIDTH; k++) {
            acc h = (acc(in.v[k]) - m - drift) * r, d = acc(through.v[k]) * acc(scale.v[k]) - d_, e = acc(through.v[k]) * acc(of_w.v[k]) - e_;
            in.v[k] = real(r * (e - h * bent - r * (dh * (acc(along.v[k]) - c_) + ch * d)));
        }
        store<WIDTH>(by_x + blockIdx.x * columns + j, in);
    }
}

// by_x, by_g and factors null: not asked for
extern "C" __global__ void __launch_bounds__(1024) twice_rows(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ w, const real *__restrict__ g, const real *__restrict__ c, const real *__restrict__ cw, const real *__restrict__ cb, real *__restrict__ by_x, real *__restrict__ by_g, acc *__restrict__ factors, int64 rows, int64 columns, int64 centred, int64 width) {
    __shared__ acc shared[32];
    if (width == 1) twice_row<1>(x, stats, w, g, c, cw, cb, by_x, by_g, factors, rows, columns, centred, shared);
    else twice_row<16 / sizeof(real)>(x, stats, w, g, c, cw, cb, by_x, by_g, factors, rows, columns, centred, shared);
}

// ------------------------------------------------------------------------------------------------ channels

// The elements of a thread of a block with 256 threads.
struct Place {
    int64 outer, channels, inner, channel;
    unsigned row, rows, first, along;

    __device__ __forceinline__ Place(int64 outer, int64 channels, int64 inner, unsigned along, unsigned across)
        : outer(outer), channels(channels), inner(inner), channel((int64)blockIdx.x * across + threadIdx.x % across), row(threadIdx.x / (along * across)), rows(256 / (along * across)), first(threadIdx.x / across % along), along(along) {}

    template <class F> __device__ __forceinline__ void each(F f) const {
        if (channel >= channels) return;  // threads without a channel go along to the barriers
        if (inner == 1) {
#pragma unroll 2
            for (int64 i = row; i < outer; i += rows) f(i * channels + channel);
        } else {
            for (int64 i = row; i < outer; i += rows)
                for (int64 j = first; j < inner; j += along) f((i * channels + channel) * inner + j);
        }
    }
};

// Over the threads of a channel; each gets the result. May be called again at once.
__device__ __forceinline__ acc channel_sum(acc x, acc *shared, unsigned across) {
    shared[threadIdx.x] = x;
    __syncthreads();
    for (unsigned half = 128; half >= across; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    x = shared[threadIdx.x % across];
    __syncthreads();
    return x;
}

extern "C" __global__ void __launch_bounds__(256) standardize_channels(const real *__restrict__ x, const real *__restrict__ w, const real *__restrict__ b, real *__restrict__ y, acc *__restrict__ stats, int64 outer, int64 channels, int64 inner, int64 along, int64 across, double eps, int64 centred) {
    __shared__ acc shared[256];
    const Place place(outer, channels, inner, (unsigned)along, (unsigned)across);
    const acc n = acc(outer * inner);
    acc mean = 0, drift = 0, squares = 0;
    if (centred) {
        place.each([&](int64 i) { mean += acc(x[i]); });
        mean = channel_sum(mean, shared, (unsigned)across) / n;
        place.each([&](int64 i) { drift += acc(x[i]) - mean; });
        drift = channel_sum(drift, shared, (unsigned)across) / n;
    }
    place.each([&](int64 i) {
        acc c = acc(x[i]) - mean - drift;
        squares += c * c;
    });
    const acc var = channel_sum(squares, shared, (unsigned)across) / n, r = rsqrt(var + acc(eps));
    if (place.channel >= channels) return;
    const acc scale = acc(w[place.channel]), shift = acc(b[place.channel]);
    place.each([&](int64 i) { y[i] = real((acc(x[i]) - mean - drift) * r * scale + shift); });
    if (place.row || place.first) return;
    stats[place.channel] = mean;
    stats[channels + place.channel] = drift;
    stats[2 * channels + place.channel] = r;
    stats[3 * channels + place.channel] = var;
}

// dx null: the sums alone, of g h and of g
extern "C" __global__ void __launch_bounds__(256) backward_channels(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ w, const real *__restrict__ g, real *__restrict__ dx, real *__restrict__ dw, real *__restrict__ db, int64 outer, int64 channels, int64 inner, int64 along, int64 across, int64 centred) {
    __shared__ acc shared[256];
    const Place place(outer, channels, inner, (unsigned)along, (unsigned)across);
    const int64 c = min(place.channel, channels - 1);
    const acc n = acc(outer * inner), m = stats[c], drift = stats[channels + c], r = stats[2 * channels + c];
    acc sum = 0, product = 0;
    place.each([&](int64 i) {
        sum += acc(g[i]);
        product += acc(g[i]) * ((acc(x[i]) - m - drift) * r);
    });
    sum = channel_sum(sum, shared, (unsigned)across);
    product = channel_sum(product, shared, (unsigned)across);
    const acc mean = centred ? sum / n : acc(0), mean_product = r * (product / n), scale = r * acc(w[c]);
    if (dx) place.each([&](int64 i) { dx[i] = real(scale * (acc(g[i]) - mean - (acc(x[i]) - m - drift) * mean_product)); });
    if (place.row || place.first || place.channel >= channels) return;
    dw[c] = real(product);
    db[c] = real(sum);
}

// by_x, by_w and by_g null: not asked for
extern "C" __global__ void __launch_bounds__(256, 2) twice_channels(const real *__restrict__ x, const acc *__restrict__ stats, const real *__restrict__ w, const real *__restrict__ g, const real *__restrict__ c, const real *__restrict__ cw, const real *__restrict__ cb, real *__restrict__ by_x, real *__restrict__ by_w, real *__restrict__ by_g, int64 outer, int64 channels, int64 inner, int64 along, int64 across, int64 centred) {
    __shared__ acc shared[256];
    const Place place(outer, channels, inner, (unsigned)along, (unsigned)across);
    const int64 k = min(place.channel, channels - 1);
    const acc share = acc(1) / acc(outer * inner), m = stats[k], drift = stats[channels + k], r = stats[2 * channels + k];
    const acc scale = acc(w[k]), of_w = acc(cw[k]), of_b = acc(cb[k]);
    acc c_ = 0, ch = 0, g_ = 0, gh = 0, gc = 0;
    place.each([&](int64 i) {
        c_ += acc(c[i]);
        ch += acc(c[i]) * ((acc(x[i]) - m - drift) * r);
    });
    c_ = centred ? channel_sum(c_, shared, (unsigned)across) * share : acc(0);
    ch = channel_sum(ch, shared, (unsigned)across) * share;
    if (by_g)
        place.each([&](int64 i) {
            acc h = (acc(x[i]) - m - drift) * r;
            by_g[i] = real(r * scale * (acc(c[i]) - c_ - h * ch) + h * of_w + of_b);
        });
    if (!by_x && !by_w) return;
    place.each([&](int64 i) {
        g_ += acc(g[i]);
        gh += acc(g[i]) * ((acc(x[i]) - m - drift) * r);
        gc += acc(g[i]) * (acc(c[i]) - c_);
    });
    g_ = centred ? channel_sum(g_, shared, (unsigned)across) * share : acc(0);
    gh = channel_sum(gh, shared, (unsigned)across) * share;
    gc = channel_sum(gc, shared, (unsigned)across) * share;
    const acc bent = of_w * gh + r * scale * (gc - 3 * ch * gh);
    if (by_x)
        place.each([&](int64 i) {
            acc h = (acc(x[i]) - m - drift) * r, d = acc(g[i]) - g_;
            by_x[i] = real(r * (of_w * d - h * bent - r * scale * (gh * (acc(c[i]) - c_) + ch * d)));
        });
    if (by_w && !place.row && !place.first && place.channel < channels) by_w[k] = real(r * (gc - ch * gh) / share);
}
