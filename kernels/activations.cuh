// Activation functions, their slopes and curvatures, for kernels that have them built in. `act` is the position of the name in kernels/activations.py's
// CODES; a and b are the parameters of those that have some.
//
// The slope of tanh (and that of relu, if one likes) is taken from the value y, that of the others from x: seen from the value of a sigmoid near 1 it has lost
// its digits. Slopes are computed with e = exp(-|u|) <= 1, so nothing overflows and the tails keep their relative accuracy. Farther out than some limits a slope
// is 0 or 1 to the last digit; x is limited to these, for it would come out as inf * 0.
#pragma once

enum Activation { NONE, TANH, SIGMOID, SILU, GELU, GELU_TANH, ELU, SOFTPLUS, RELU, LEAKY_RELU, HARDTANH };

__device__ __forceinline__ acc normal_cdf(acc x) { return sizeof(acc) == 8 ? acc(normcdf(double(x))) : acc(normcdff(float(x))); }

// exp(-x^2 / 2) / sqrt(2 pi), with what the square loses by rounding made up for: far out it counts
__device__ __forceinline__ acc normal_pdf(acc x) {
    acc h = x * x, rest = fma(x, x, -h), e = exp(acc(-0.5) * h);
    return acc(0.39894228040143267794) * (e - e * (acc(0.5) * rest));
}

struct Logistic {
    acc value, slope;
};

// sigmoid(u) = 1 / (1 + exp(-u)) and its slope e / (1 + e)^2. That one's derivative is -slope tanh(u / 2)
__device__ __forceinline__ Logistic logistic(acc u) {
    acc e = exp(-fabs(u)), r = acc(1) / (acc(1) + e);
    return {u >= acc(0) ? r : e * r, e * r * r};
}

__device__ __forceinline__ acc limited(acc x, acc most) { return x < -most ? -most : x > most ? most : x; }  // nan stays

// In gelu_tanh(x) = x sigmoid(u): u = k x (1 + c x^2), k = sqrt(8 / pi), and its derivatives. Far out, what u has lost by rounding counts for sigmoid(u): each
// product and the sum is taken with its rest (T. J. Dekker, Numerische Mathematik 18, 1971).
struct Inner {
    acc value, slope, u, u1, u2;  // value and slope of sigmoid(u)
};

__device__ __forceinline__ Inner inner(acc x) {
    const acc k = acc(1.5957691216057308), k_rest = acc(1.5957691216057308 - double(k) - 9.96930880911092e-17);
    const acc c = acc(0.044715), c_rest = acc(0.044715 - double(c) + 2.1960211427085595e-18);
    acc square = x * x, t = c * square, t_rest = fma(c, square, -t) + (c * fma(x, x, -square) + c_rest * square);
    acc p = acc(1) + t, of_t = p - acc(1), p_rest = ((acc(1) - (p - of_t)) + (t - of_t)) + t_rest;
    acc v = k * x, u = v * p, rest = fma(v, p, -u) + (v * p_rest + (fma(k, x, -v) + k_rest * x) * p);
    Logistic l = logistic(u);
    return {l.value + rest * l.slope, l.slope - l.slope * (u > acc(0) ? rest : -rest), u, k * (acc(1) + acc(3) * t), acc(6) * k * c * x};
}

// act(x)
__device__ __forceinline__ acc activation_value(int act, acc x, acc a = acc(0), acc b = acc(0)) {
    switch (act) {
        case TANH: return tanh(x);
        case SIGMOID: return logistic(x).value;
        case SILU: return x * logistic(x).value;
        case GELU: return x * normal_cdf(x);
        case GELU_TANH: return x * inner(limited(x, acc(30))).value;
        case ELU: return x > acc(0) ? b * x : a * b * expm1(x);
        case SOFTPLUS: return (a * x <= acc(0) ? acc(0) : x) + log1p(exp(-fabs(a * x))) / a;
        case RELU: return x <= acc(0) ? acc(0) : x;  // nan stays
        case LEAKY_RELU: return x > acc(0) ? x : a * x;
        case HARDTANH: return x <= a ? a : x >= b ? b : x;
        default: return x;
    }
}

// g act'(x), where x is the value of tanh
__device__ __forceinline__ acc activation_times_slope(int act, acc g, acc x, acc a = acc(0), acc b = acc(0)) {
    switch (act) {
        case TANH: return g * ((acc(1) - x) * (acc(1) + x));
        case SIGMOID: return g * logistic(x).slope;
        case SILU: {
            Logistic l = logistic(x);
            return g * (l.value + limited(x, acc(1000)) * l.slope);
        }
        case GELU: {
            acc w = limited(x, acc(40));
            return g * (normal_cdf(w) + w * normal_pdf(w));
        }
        case GELU_TANH: {
            acc w = limited(x, acc(30));
            Inner i = inner(w);
            return g * (i.value + w * i.slope * i.u1);
        }
        case ELU: return g * (x > acc(0) ? b : a * b * exp(x));
        case SOFTPLUS: return g * logistic(a * x).value;
        case RELU: return x <= acc(0) ? acc(0) : g;
        case LEAKY_RELU: return x > acc(0) ? g : a * g;
        case HARDTANH: return x <= a || x >= b ? acc(0) : g;
        default: return g;
    }
}

// act''(x) of those that are curved; the derivative of the slope by y where it is taken from that
__device__ __forceinline__ acc activation_curvature(int act, acc x, acc a, acc b) {
    switch (act) {
        case TANH: return acc(-2) * x;
        case SIGMOID: return -logistic(x).slope * tanh(acc(0.5) * x);
        case SILU: return logistic(x).slope * (acc(2) - limited(x, acc(1000)) * tanh(acc(0.5) * x));
        case GELU: {
            acc w = limited(x, acc(40));
            return normal_pdf(w) * (acc(2) - w * w);
        }
        case GELU_TANH: {
            acc w = limited(x, acc(30));
            Inner i = inner(w);
            return i.slope * (acc(2) * i.u1 + w * (i.u2 - i.u1 * i.u1 * tanh(acc(0.5) * i.u)));
        }
        case ELU: return x > acc(0) ? acc(0) : a * b * exp(x);
        case SOFTPLUS: return a * logistic(a * x).slope;
        default: return acc(0);
    }
}
