// Softmax cross entropy: losses of rows of logits and, in the same kernel, their gradient, the residual.
//
// With m the largest logit of a row, z = x - m, and rest the sum of exp(z) over all classes but one of the largest:
//
//     log sum exp(x) = m + log1p(rest)        loss = sum_c q_c (log1p(rest) - z_c)        residual_c = scale ((sum q) exp(z_c) / (1 + rest) - q_c)
//
// where q_c = weight_c ((1 - smoothing) t_c + smoothing / classes), and t is 1 at the label, or the probabilities. No term cancels in the loss. In the
// residual of the class that has nearly all of p and q it is the q of the others - (sum q) rest / (1 + rest) instead.
//
// x, probabilities and residual are (rows, classes) in C order, labels (rows), weight (classes). A row belongs to a team: a warp where it is narrow, else a
// block. Its threads take 16 bytes at a time, lane after lane, where the row's length and the addresses allow it.
//
// Why it is fast: (m, rest) is found in one reading of the row, rescaled when a larger logit comes. The second reading, for the residual, and a third for targets
// that are not a label alone, find the row in the cache; so memory is read once and written once. The divisor of a mean is read from where an earlier
// kernel put it, so the host waits for nothing. Sums are made by shuffles in an order that depends on the sizes alone.

// One row and what is asked of it; weight, t (probabilities) and residual may be null.
struct Row {
    const real *x, *t, *weight;
    real *residual;
    int64 classes, label;
    acc keep, spread, scale;

    __device__ __forceinline__ acc weighted(int64 c, acc share) const { return weight ? (acc)weight[c] * share : share; }
    __device__ __forceinline__ acc q(int64 c, acc t_c) const { return weighted(c, keep * t_c + spread); }
    __device__ __forceinline__ acc one_hot(int64 c) const { return c == label ? acc(1) : acc(0); }
};

template <int V, class Team> __device__ __forceinline__ acc worked(const Row &row, Team team) {
    using Values = Pack<V>;
    const Values *xs = reinterpret_cast<const Values *>(row.x), *ts = reinterpret_cast<const Values *>(row.t);
    Values *out = reinterpret_cast<Values *>(row.residual);
    const int64 n = row.classes / V, first = team.lane(), step = team.lanes();

    Sum s = {-infinity(), 0};
    for (int64 i = first; i < n; i += step) {
        Values x = xs[i];
#pragma unroll
        for (int k = 0; k < V; k++) s = joined(s, {(acc)x.at[k], 0});
    }
    s = team.join(s);
    const acc m = s.max, rest = s.rest + (m - m);  // nan of an infinite m

    acc top = 0, others = 0, cost = 0;  // q of the classes of logit m, that of the others, and the sum of q (m - x)
    if (row.t || row.spread > 0) {
        for (int64 i = first; i < n; i += step) {
            Values x = xs[i], t = ts ? ts[i] : x;
#pragma unroll
            for (int k = 0; k < V; k++) {
                int64 c = i * V + k;
                acc v = (acc)x.at[k], q = row.q(c, ts ? (acc)t.at[k] : row.one_hot(c));
                (v == m ? top : others) += q;
                if (q != 0) cost += q * (m - v);
            }
        }
        top = team.sum(top);
        others = team.sum(others);
        cost = team.sum(cost);
    } else {
        acc v = (acc)row.x[row.label], q = row.q(row.label, 1);
        (v == m ? top : others) = q;
        if (q != 0) cost = q * (m - v);
    }
    const acc total = top + others;

    if (out) {
        const acc f = row.scale * (total / (1 + rest));
        const bool near = rest < 1 && total / (1 + rest) + top > total;
        const acc at_top = row.scale * (others - total * (rest / (1 + rest)));
        for (int64 i = first; i < n; i += step) {
            Values x = xs[i], t = ts ? ts[i] : x, r;
#pragma unroll
            for (int k = 0; k < V; k++) {
                int64 c = i * V + k;
                acc v = (acc)x.at[k], q = row.q(c, ts ? (acc)t.at[k] : row.one_hot(c));
                r.at[k] = real(near && v == m ? at_top : f * exp(v - m) - row.scale * q);
            }
            out[i] = r;
        }
    }
    return total * log1p(rest) + cost;
}

template <class Team>
__device__ __forceinline__ void cross_entropy(Team team, int64 i, const real *x, const int64 *labels, const real *probabilities, const real *weight,
                                              const acc *divisor, acc *losses, real *residual, int64 classes, int64 ignore_index, double smoothing, double scale) {
    Row row;
    row.x = x + i * classes;
    row.t = probabilities ? probabilities + i * classes : nullptr;
    row.residual = residual ? residual + i * classes : nullptr;
    row.weight = weight;
    row.classes = classes;
    row.label = labels ? labels[i] : 0;
    row.keep = (acc)(1 - smoothing);
    row.spread = (acc)(smoothing / classes);
    row.scale = (acc)scale / (divisor ? *divisor : acc(1));
    acc loss;
    bool ignored = labels && row.label == ignore_index;
    if (ignored || (labels && (row.label < 0 || row.label >= classes))) {
        loss = ignored ? acc(0) : nan_();  // nan: a label out of range is an error, which must not go unseen
        if (residual)
            for (int64 c = team.lane(); c < classes; c += team.lanes()) row.residual[c] = real(loss);
    } else {
        bool packed = classes % PACKED == 0 && aligned(x) && aligned(probabilities) && aligned(residual);
        loss = packed ? worked<PACKED>(row, team) : worked<1>(row, team);
    }
    if (team.lane() == 0) losses[i] = loss;
}

extern "C" __global__ void __launch_bounds__(128)
cross_entropy_by_warps(const real *__restrict__ x, const int64 *__restrict__ labels, const real *__restrict__ probabilities, const real *__restrict__ weight,
                       const acc *__restrict__ divisor, acc *__restrict__ losses, real *__restrict__ residual, int64 rows, int64 classes, int64 ignore_index,
                       double smoothing, double scale) {
    int64 i = thread_index() / 32;
    if (i < rows) cross_entropy(Warp(), i, x, labels, probabilities, weight, divisor, losses, residual, classes, ignore_index, smoothing, scale);
}

extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_by_blocks(const real *__restrict__ x, const int64 *__restrict__ labels, const real *__restrict__ probabilities, const real *__restrict__ weight,
                        const acc *__restrict__ divisor, acc *__restrict__ losses, real *__restrict__ residual, int64 rows, int64 classes, int64 ignore_index,
                        double smoothing, double scale) {
    __shared__ acc shared[64];
    cross_entropy(Block{shared, nullptr}, (int64)blockIdx.x, x, labels, probabilities, weight, divisor, losses, residual, classes, ignore_index, smoothing, scale);
}

// What the labels of a block count for in the mean: weight[label] each, nothing where ignored, nan where out of range.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_counts(const int64 *__restrict__ labels, const real *__restrict__ weight, acc *__restrict__ counts, int64 rows, int64 classes, int64 ignore_index) {
    __shared__ acc shared[32];
    acc total = 0;
    for (int64 i = thread_index(); i < rows; i += thread_count()) {
        int64 label = labels[i];
        if (label == ignore_index) continue;
        bool fits = label >= 0 && label < classes;
        total += !fits ? nan_() : weight ? (acc)weight[label] : acc(1);
    }
    total = block_sum(total, shared);
    if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// Each block's sum of values goes to partials; or that of the only block, scaled and divided, to result.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_sums(const acc *__restrict__ values, int64 n, const acc *__restrict__ divisor, double scale, acc *__restrict__ partials, real *__restrict__ result) {
    __shared__ acc shared[32];
    acc total = 0;
    for (int64 i = thread_index(); i < n; i += thread_count()) total += values[i];
    total = block_sum(total, shared);
    if (threadIdx.x) return;
    if (partials) partials[blockIdx.x] = total;
    if (result) *result = real((acc)scale * total / (divisor ? *divisor : acc(1)));
}
