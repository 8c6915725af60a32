#include <cotrain/shape.h>

#include <cotrain/limits.h>

#include <stddef.h>
#include <string.h>

static const struct {
    const char *name;
    enum ct_arch arch;
} archs[] = {
    {"gpt2", CT_ARCH_GPT2},
    {"llama", CT_ARCH_LLAMA},
};

const char *ct_arch_name(enum ct_arch arch) {
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (archs[i].arch == arch) {
            return archs[i].name;
        }
    }
    return "unknown";
}

enum ct_err ct_arch_parse(const char *name, enum ct_arch *out) {
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (strcmp(archs[i].name, name) == 0) {
            *out = archs[i].arch;
            return CT_OK;
        }
    }
    return ct_fail(CT_ERR_CONFIG, "architecture '%.32s' is not known here: gpt2 or llama", name);
}

static void fill(struct ct_model_shape *shape) {
    if (shape->kv_heads == 0) {
        shape->kv_heads = shape->heads;
    }
    if (shape->norm_epsilon == 0.0f) {
        shape->norm_epsilon = 1e-5f;
    }
    if (shape->arch == CT_ARCH_GPT2) {
        shape->tied = true;
        if (shape->hidden == 0 && shape->width <= CT_WIDTH_MAX) {
            shape->hidden = 4 * shape->width;
        }
    } else if (shape->rope_theta == 0.0f) {
        shape->rope_theta = 10000.0f;
    }
}

static enum ct_err check_sizes(const struct ct_model_shape *shape) {
    const struct {
        const char *name;
        uint32_t value, maximum;
    } sizes[] = {
        {"vocab", shape->vocab, CT_VOCAB_MAX},    {"context", shape->context, CT_CONTEXT_MAX},
        {"layers", shape->layers, CT_LAYERS_MAX}, {"heads", shape->heads, CT_WIDTH_MAX},
        {"width", shape->width, CT_WIDTH_MAX},    {"kv_heads", shape->kv_heads, CT_WIDTH_MAX},
        {"hidden", shape->hidden, CT_HIDDEN_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].value == 0 || sizes[i].value > sizes[i].maximum) {
            return ct_fail(CT_ERR_CONFIG, "model: %s is %u, must be 1 to %u", sizes[i].name,
                           sizes[i].value, sizes[i].maximum);
        }
    }
    if (shape->width % shape->heads != 0) {
        return ct_fail(CT_ERR_CONFIG, "model: width %u is not a multiple of heads %u", shape->width,
                       shape->heads);
    }
    return CT_OK;
}

static enum ct_err check_gpt2(const struct ct_model_shape *shape) {
    if (shape->kv_heads != shape->heads || shape->hidden != 4 * shape->width ||
        shape->norm_epsilon != 1e-5f || shape->rope_theta != 0.0f) {
        return ct_fail(CT_ERR_CONFIG, "model: a GPT-2 has no kv_heads, hidden, norm_epsilon or "
                                      "rope_theta of its own");
    }
    return CT_OK;
}

static enum ct_err check_llama(const struct ct_model_shape *shape) {
    if (shape->heads % shape->kv_heads != 0) {
        return ct_fail(CT_ERR_CONFIG, "model: heads %u are not a multiple of kv_heads %u",
                       shape->heads, shape->kv_heads);
    }
    if (shape->width / shape->heads % 2 != 0) {
        return ct_fail(CT_ERR_CONFIG, "model: heads of width %u: RoPE needs an even one",
                       shape->width / shape->heads);
    }
    /* Written so that NaN is refused. */
    if (!(shape->norm_epsilon >= CT_NORM_EPSILON_MIN &&
          shape->norm_epsilon <= CT_NORM_EPSILON_MAX)) {
        return ct_fail(CT_ERR_CONFIG, "model: norm_epsilon is %g, must be %g to %g",
                       (double)shape->norm_epsilon, (double)CT_NORM_EPSILON_MIN,
                       (double)CT_NORM_EPSILON_MAX);
    }
    if (!(shape->rope_theta >= CT_ROPE_THETA_MIN && shape->rope_theta <= CT_ROPE_THETA_MAX)) {
        return ct_fail(CT_ERR_CONFIG, "model: rope_theta is %g, must be %g to %g",
                       (double)shape->rope_theta, (double)CT_ROPE_THETA_MIN,
                       (double)CT_ROPE_THETA_MAX);
    }
    return CT_OK;
}

uint64_t ct_shape_parameters(const struct ct_model_shape *shape) {
    const uint64_t d = shape->width, hidden = shape->hidden, vocab = shape->vocab;
    if (shape->arch == CT_ARCH_GPT2) {
        return (vocab + shape->context + 2) * d + shape->layers * (12 * d * d + 13 * d);
    }
    const uint64_t kv = d / shape->heads * shape->kv_heads;
    const uint64_t layer = 2 * d + 2 * d * d + 2 * d * kv + 3 * d * hidden;
    return (shape->tied ? 1 : 2) * vocab * d + d + shape->layers * layer;
}

enum ct_err ct_shape_settle(struct ct_model_shape *shape) {
    struct ct_model_shape settled = *shape;
    if (settled.arch != CT_ARCH_GPT2 && settled.arch != CT_ARCH_LLAMA) {
        return ct_fail(CT_ERR_CONFIG, "model: architecture number %d is not known here",
                       (int)settled.arch);
    }
    fill(&settled);
    CT_TRY(check_sizes(&settled));
    CT_TRY(settled.arch == CT_ARCH_GPT2 ? check_gpt2(&settled) : check_llama(&settled));
    /* Below 2^46 for the sizes allowed, so nothing has wrapped. */
    const uint64_t parameters = ct_shape_parameters(&settled);
    if (parameters > CT_PARAMETERS_MAX) {
        return ct_fail(CT_ERR_CONFIG, "model: %llu parameters, at most %llu are supported",
                       (unsigned long long)parameters, (unsigned long long)CT_PARAMETERS_MAX);
    }
    *shape = settled;
    return CT_OK;
}
