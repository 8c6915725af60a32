#include <cotrain/aggregate.h>
#include <cotrain/assert.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT_BITS 22
#define CLIP_BITS   15

/* A sender as the sums see it. */
struct party {
    double rate;         /* ν */
    uint64_t weight;     /* capped w */
    uint32_t weight_q22; /* Ω */
    uint32_t clip_q15;
    uint32_t term_weight; /* ω */
    bool established;     /* or nobody is: enters the medians, is divided by W_j and not by W */
};

struct ballot {
    double value;
    uint64_t weight;
};

/* Sums of one chunk. Zero between chunks. */
struct sums {
    int64_t established[CT_CHUNK_VALUES];
    int64_t newcomers[CT_CHUNK_VALUES];
    uint32_t normaliser[CT_CHUNK_VALUES];
    bool touched[CT_CHUNK_VALUES];
};

struct ct_aggregation {
    struct party *parties;  /* [count] */
    struct ballot *ballots; /* [count] scratch of the medians */
    struct sums *sums;
    uint32_t count;
    uint64_t weight_q22; /* W */
    float alpha;
};

/* By a value that the compiler cannot know: half of the least normal number is a subnormal one in
 * the default mode and zero in the mode of E1. */
static bool default_mode(void) {
    volatile float least = 0x1p-126f;
    return least * 0.5f != 0.0f;
}

static int compare_ballots(const void *left, const void *right) {
    const double a = ((const struct ballot *)left)->value;
    const double b = ((const struct ballot *)right)->value;
    return (a > b) - (a < b);
}

/* The lower weighted median; order among equal values does not reach the result. */
static double weighted_median(struct ballot *ballots, uint32_t count) {
    CT_ASSERT(count > 0);
    qsort(ballots, count, sizeof *ballots, compare_ballots);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += ballots[i].weight;
    }
    uint64_t reached = ballots[0].weight;
    uint32_t i = 0;
    while (2 * reached < total) {
        reached += ballots[++i].weight;
    }
    return ballots[i].value;
}

/* w, its cap and Ω. */
static enum ct_err weigh(struct ct_aggregation *aggregation, const struct ct_sender *senders) {
    const uint32_t count = aggregation->count;
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (senders[i].weight == 0 || senders[i].weight > CT_WEIGHT_MAX) {
            return ct_fail(CT_ERR_RULE, "sender %lu has weight %llu: 1 to 2^40 are possible",
                           (unsigned long)i, (unsigned long long)senders[i].weight);
        }
        total += senders[i].weight;
    }
    const uint64_t cap = count <= 20 ? 2 * total / count : total / 10;
    for (uint32_t i = 0; i < count; i++) {
        struct party *party = &aggregation->parties[i];
        party->weight = senders[i].weight < cap ? senders[i].weight : cap;
        party->weight_q22 = (uint32_t)((party->weight << WEIGHT_BITS) / total);
        aggregation->weight_q22 += party->weight_q22;
    }
    CT_ASSERT(aggregation->weight_q22 > 0 && aggregation->weight_q22 <= 1u << WEIGHT_BITS);
    return CT_OK;
}

/* The median of ν, clip and ω. */
static void clip(struct ct_aggregation *aggregation) {
    uint32_t voters = 0;
    for (uint32_t i = 0; i < aggregation->count; i++) {
        const struct party *party = &aggregation->parties[i];
        if (party->established) {
            aggregation->ballots[voters++] = (struct ballot){party->rate, party->weight};
        }
    }
    const double median = weighted_median(aggregation->ballots, voters);
    for (uint32_t i = 0; i < aggregation->count; i++) {
        struct party *party = &aggregation->parties[i];
        const double share = party->rate > 0.0 ? 2.0 * median / party->rate : 1.0;
        party->clip_q15 =
            share >= 1.0 ? 1u << CLIP_BITS : (uint32_t)(share * (double)(1u << CLIP_BITS));
        party->term_weight =
            (uint32_t)(((uint64_t)party->weight_q22 * party->clip_q15) >> CLIP_BITS);
    }
}

/* The largest code at most three times the scale of `median`. */
static uint16_t triple_code(uint16_t median) {
    if (median == 0) {
        return 0;
    }
    const uint32_t product = 3 * (1024u + (median & 1023u));
    const uint32_t carry = product < 4096 ? 1 : 2;
    const uint32_t exponent = (uint32_t)(median >> 10) + carry;
    if (exponent > 63) {
        return UINT16_MAX;
    }
    return (uint16_t)(exponent << 10 | ((product >> carry) - 1024));
}

/* Codes are ordered as their scales are, so the median is taken over codes. */
static uint16_t cap_code(struct ct_aggregation *aggregation, const struct ct_sent *sent) {
    uint32_t voters = 0;
    for (uint32_t i = 0; i < aggregation->count; i++) {
        const struct party *party = &aggregation->parties[i];
        if (party->established) {
            aggregation->ballots[voters++] = (struct ballot){(double)sent[i].code, party->weight};
        }
    }
    return triple_code((uint16_t)weighted_median(aggregation->ballots, voters));
}

static void add_party(struct sums *sums, const struct party *party, const struct ct_chunk *chunk,
                      const struct ct_sent *sent, uint16_t cap) {
    const uint16_t code = sent->code < cap ? sent->code : cap;
    const uint32_t shift = (uint32_t)(cap >> 10) - (uint32_t)(code >> 10);
    const uint64_t mantissa = (uint64_t)(1024u + (code & 1023u)) << 20;
    const int64_t term = shift > 31 ? 0 : (int64_t)((mantissa >> shift) * party->term_weight);
    int64_t *sum = party->established ? sums->established : sums->newcomers;
    for (uint32_t i = 0; i < chunk->selected; i++) {
        const uint32_t j = sent->positions[i];
        sum[j] += sent->negative[i] != 0 ? -term : term;
        CT_ASSERT(sum[j] <= 1ll << 53 && sum[j] >= -(1ll << 53));
        sums->normaliser[j] += party->established ? party->weight_q22 : 0;
        sums->touched[j] = true;
    }
}

/* g of one value. unit = 2^(E_cap − 71). */
static float mean_of(const struct sums *sums, uint32_t j, uint64_t weight_q22, double unit) {
    double mean = 0.0;
    if (sums->normaliser[j] > 0) {
        mean = (double)sums->established[j] / (double)sums->normaliser[j];
    }
    mean += (double)sums->newcomers[j] / (double)weight_q22;
    const float g = (float)(mean * unit);
    return fabsf(g) < 0x1p-100f ? 0.0f : g;
}

static float outer_step(float alpha, float g, float theta) {
    const float moved = __builtin_fmaf(-alpha, g, theta);
    return fabsf(moved) < 0x1p-126f ? copysignf(0.0f, moved) : moved;
}

/* Moves what any sender touched and zeroes the sums. */
static void settle(struct ct_aggregation *aggregation, const struct ct_chunk *chunk,
                   const struct ct_sent *sent, uint16_t cap, float *theta) {
    struct sums *sums = aggregation->sums;
    const double unit = ct_scale_decode((uint16_t)(cap & ~1023u)) * 0x1p-30; /* 2^(E_cap − 71) */
    for (uint32_t i = 0; i < aggregation->count; i++) {
        if (sent[i].code == 0) {
            continue;
        }
        for (uint32_t s = 0; s < chunk->selected; s++) {
            const uint32_t j = sent[i].positions[s];
            if (!sums->touched[j]) {
                continue;
            }
            const size_t at =
                chunk->offset + (size_t)(j / chunk->columns) * chunk->stride + j % chunk->columns;
            theta[at] = outer_step(aggregation->alpha,
                                   mean_of(sums, j, aggregation->weight_q22, unit), theta[at]);
            sums->established[j] = 0;
            sums->newcomers[j] = 0;
            sums->normaliser[j] = 0;
            sums->touched[j] = false;
        }
    }
}

void ct_aggregation_move(struct ct_aggregation *aggregation, const struct ct_chunk *chunk,
                         const struct ct_sent *sent, float *theta) {
    const uint16_t cap = cap_code(aggregation, sent);
    if (cap == 0) {
        return;
    }
    for (uint32_t i = 0; i < aggregation->count; i++) {
        if (sent[i].code != 0) {
            add_party(aggregation->sums, &aggregation->parties[i], chunk, &sent[i], cap);
        }
    }
    settle(aggregation, chunk, sent, cap, theta);
}

void ct_aggregation_free(struct ct_aggregation *aggregation) {
    if (aggregation != NULL) {
        free(aggregation->parties);
        free(aggregation->ballots);
        free(aggregation->sums);
        free(aggregation);
    }
}

static struct ct_aggregation *make(uint32_t count, float alpha) {
    struct ct_aggregation *aggregation = calloc(1, sizeof *aggregation);
    if (aggregation == NULL) {
        return NULL;
    }
    *aggregation = (struct ct_aggregation){
        .parties = calloc(count, sizeof *aggregation->parties),
        .ballots = calloc(count, sizeof *aggregation->ballots),
        .sums = calloc(1, sizeof *aggregation->sums),
        .count = count,
        .alpha = alpha,
    };
    if (aggregation->parties == NULL || aggregation->ballots == NULL || aggregation->sums == NULL) {
        ct_aggregation_free(aggregation);
        return NULL;
    }
    return aggregation;
}

enum ct_err ct_aggregation_new(const struct ct_sender *senders, uint32_t count, float alpha,
                               struct ct_sender_share *shares, struct ct_aggregation **out) {
    CT_ASSERT(count >= 1 && count <= CT_NODES_MAX);
    CT_ASSERT(default_mode());
    struct ct_aggregation *aggregation = make(count, alpha);
    if (aggregation == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to aggregate %lu updates", (unsigned long)count);
    }
    bool any_established = false;
    for (uint32_t i = 0; i < count; i++) {
        any_established = any_established || senders[i].established;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct ct_update *update = senders[i].update;
        aggregation->parties[i] =
            (struct party){.rate = update->norm / sqrt((double)update->header.steps),
                           .established = senders[i].established || !any_established};
    }
    enum ct_err err = weigh(aggregation, senders);
    if (err != CT_OK) {
        ct_aggregation_free(aggregation);
        return err;
    }
    clip(aggregation);
    for (uint32_t i = 0; shares != NULL && i < count; i++) {
        shares[i] = (struct ct_sender_share){aggregation->parties[i].weight_q22,
                                             aggregation->parties[i].clip_q15};
    }
    *out = aggregation;
    return CT_OK;
}

enum ct_err ct_aggregate(const struct ct_chunks *chunks, const struct ct_sender *senders,
                         uint32_t count, float alpha, const float *base, float *new_theta,
                         struct ct_sender_share *shares) {
    struct ct_aggregation *aggregation = NULL;
    CT_TRY(ct_aggregation_new(senders, count, alpha, shares, &aggregation));
    struct ct_sent *sent = calloc(count, sizeof *sent);
    if (sent == NULL) {
        ct_aggregation_free(aggregation);
        return ct_fail(CT_ERR_MEMORY, "no memory to aggregate %lu updates", (unsigned long)count);
    }
    if (new_theta != base) {
        memcpy(new_theta, base, chunks->layout->parameters * sizeof *base);
    }
    size_t first = 0;
    for (uint32_t c = 0; c < chunks->count; c++) {
        for (uint32_t i = 0; i < count; i++) {
            const struct ct_update *update = senders[i].update;
            sent[i] = (struct ct_sent){update->codes[c], update->positions + first,
                                       update->negative + first};
        }
        ct_aggregation_move(aggregation, &chunks->chunks[c], sent, new_theta);
        first += chunks->chunks[c].selected;
    }
    free(sent);
    ct_aggregation_free(aggregation);
    return CT_OK;
}

float ct_outer_rate(uint32_t round, uint32_t rounds) {
    CT_ASSERT(round >= 1 && round <= rounds);
    const uint64_t quarter = rounds / 4;
    const uint64_t flat = rounds - quarter;
    if (round <= flat) {
        return 1.0f;
    }
    /* In [0.65, 1) a binary32 is a multiple of 2^-24: an integer division and its remainder round
     * exactly. The numerator stays below 2^59. */
    const uint64_t denominator = 20 * quarter;
    const uint64_t numerator = (denominator - 7 * (round - flat)) << 24;
    uint64_t units = numerator / denominator;
    const uint64_t twice_left = 2 * (numerator % denominator);
    if (twice_left > denominator || (twice_left == denominator && units % 2 == 1)) {
        units++;
    }
    return (float)units * 0x1p-24f;
}
