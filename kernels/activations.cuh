// Activation functions and their slopes, for kernels that have them built in. `act` is the position of the name in kernels/linear.py's CODES.
//
// The slope of relu and tanh is taken from their value y, that of the others from z: seen from the value of a sigmoid near 1 it has lost its digits.
// Slopes are computed with e = exp(-|u|) <= 1, so nothing overflows and the tails keep their relative accuracy.
#pragma once

enum Activation { NONE, RELU, TANH, SIGMOID, SILU, GELU, GELU_TANH };

__device__ __forceinline__ acc normal_cdf(acc z) {
#ifdef __CUDACC__
    return sizeof(acc) == 8 ? acc(normcdf(double(z))) : acc(normcdff(float(z)));
#else
    return acc(0.5) * erfc(z * acc(-0.70710678118654752440));
#endif
}

__device__ __forceinline__ acc normal_pdf(acc z) { return acc(0.39894228040143267794) * exp(acc(-0.5) * z * z); }

struct Logistic {
    acc value, slope;
};

// sigmoid(u) = 1 / (1 + exp(-u)) and its slope e / (1 + e)^2
__device__ __forceinline__ Logistic logistic(acc u) {
    acc e = exp(-fabs(u)), r = acc(1) / (acc(1) + e);
    return {u >= acc(0) ? r : e * r, e * r * r};
}

__device__ __forceinline__ acc limited(acc z, acc most) { return z < -most ? -most : z > most ? most : z; }  // nan stays

// In gelu_tanh(z) = z sigmoid(u): u = k z (1 + c z^2), k = sqrt(8 / pi)
__device__ __forceinline__ acc gelu_k() { return acc(1.5957691216057307117597842397375); }
__device__ __forceinline__ acc gelu_c() { return acc(0.044715); }

// act(z)
__device__ __forceinline__ acc activation(int act, acc z) {
    switch (act) {
        case RELU: return z <= acc(0) ? acc(0) : z;  // nan stays
        case TANH: return tanh(z);
        case SIGMOID: return logistic(z).value;
        case SILU: return z * logistic(z).value;
        case GELU: return z * normal_cdf(z);
        case GELU_TANH: return z * logistic(gelu_k() * z * (acc(1) + gelu_c() * (z * z))).value;
        default: return z;
    }
}

// g act'(z), where s is the value of relu and tanh, and z of the others. Farther out than the limits a slope is 0 or 1 to the last digit.
__device__ __forceinline__ acc activation_backward(int act, acc g, acc s) {
    switch (act) {
        case RELU: return s <= acc(0) ? acc(0) : g;
        case TANH: return g * ((acc(1) - s) * (acc(1) + s));
        case SIGMOID: return g * logistic(s).slope;
        case SILU: {
            Logistic l = logistic(s);
            return g * (l.value + limited(s, acc(1000)) * l.slope);
        }
        case GELU: {
            acc w = limited(s, acc(40));
            return g * (normal_cdf(w) + w * normal_pdf(w));
        }
        case GELU_TANH: {
            acc w = limited(s, acc(30)), t = gelu_c() * (w * w);
            Logistic l = logistic(gelu_k() * w * (acc(1) + t));
            return g * (l.value + w * l.slope * (gelu_k() * (acc(1) + acc(3) * t)));
        }
        default: return g;
    }
}
