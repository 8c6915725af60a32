#include "pool.h"

#include <cotrain/assert.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct ct_pool {
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    uint64_t round;   /* of work; a thread that has done this one waits for the next */
    uint32_t at_work; /* threads that have not left this round yet */
    bool closing;
    void (*job)(void *user, size_t index);
    void *user;
    size_t count;
    atomic_size_t next;
    uint32_t thread_count; /* without the caller */
    pthread_t threads[CT_POOL_THREADS_MAX];
};

static void take_jobs(struct ct_pool *pool) {
    for (;;) {
        const size_t index = atomic_fetch_add(&pool->next, 1);
        if (index >= pool->count) {
            return;
        }
        pool->job(pool->user, index);
    }
}

static void *thread_main(void *user) {
    struct ct_pool *pool = user;
    uint64_t done = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == done && !pool->closing) {
            pthread_cond_wait(&pool->begin, &pool->lock);
        }
        if (pool->closing) {
            break;
        }
        done = pool->round;
        pthread_mutex_unlock(&pool->lock);
        take_jobs(pool);
        pthread_mutex_lock(&pool->lock);
        if (--pool->at_work == 0) {
            pthread_cond_signal(&pool->end);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static uint32_t usable_cores(void) {
    cpu_set_t set;
    const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : (uint32_t)count;
}

enum ct_err ct_pool_open(uint32_t threads, struct ct_pool **out) {
    struct ct_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for threads");
    }
    threads = threads == 0 ? usable_cores() : threads;
    threads = threads > CT_POOL_THREADS_MAX ? CT_POOL_THREADS_MAX : threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->end, NULL);
    while (pool->thread_count + 1 < threads) {
        if (pthread_create(&pool->threads[pool->thread_count], NULL, thread_main, pool) != 0) {
            ct_pool_close(pool);
            return ct_fail(CT_ERR_MEMORY, "the system gives no %uth thread", threads);
        }
        pool->thread_count++;
    }
    *out = pool;
    return CT_OK;
}

void ct_pool_close(struct ct_pool *pool) {
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->begin);
    pthread_cond_destroy(&pool->end);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

uint32_t ct_pool_threads(const struct ct_pool *pool) {
    return pool->thread_count + 1;
}

void ct_pool_run(struct ct_pool *pool, size_t count, void (*job)(void *user, size_t index),
                 void *user) {
    pthread_mutex_lock(&pool->lock);
    CT_ASSERT(pool->at_work == 0);
    pool->job = job;
    pool->user = user;
    pool->count = count;
    atomic_store(&pool->next, 0);
    pool->at_work = pool->thread_count;
    pool->round++;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    take_jobs(pool);
    pthread_mutex_lock(&pool->lock);
    while (pool->at_work > 0) {
        pthread_cond_wait(&pool->end, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}
