/* Inner products of stored rows with one vector, where they lie: rows of `dim` numbers that follow one another through
   pieces of a file in memory. Called by dots.py, which owns every pointer, without Python's lock.

   What is said of the pieces may come from a file that anyone wrote, and the file may be cut while it is read: pieces
   are checked against the length of the memory before any of them is used, and memory that vanishes is an answer
   (VANISHED), not the end of the process.                                                                              */

#define _GNU_SOURCE

#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <pthread.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#include <setjmp.h>
#include <signal.h>
#define CAN_ADVISE 1
#define CAN_VANISH 1
#define ADVICE_READ MADV_WILLNEED
#else
#define ADVICE_READ 0
#endif
#if defined(__linux__)
#define ADVICE_MAP 22    /* MADV_POPULATE_READ, since Linux 5.14; older ones refuse it, and map page by page as read */
#else
#define ADVICE_MAP ADVICE_READ
#endif

#if defined(__GNUC__) && defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

#if defined(__GNUC__)
#define FETCH(place) __builtin_prefetch(place)
#else
#define FETCH(place) ((void)0)
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(_WIN32)
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

#define CHUNK 16384      /* numbers that a thread takes at a time */
#define AHEAD 4096        /* bytes that are fetched before they are needed, also across the end of a page */
#define BLOCK 256         /* codes that are made numbers at a time */
#define PATIENCE 5000000  /* nanoseconds that a thread waits for what comes next of a question, before it sleeps */
#define GAP (64 * 1024)  /* bytes between two rows that are still asked for in one go */

enum { FINE = -1, OUTSIDE = -2, VANISHED = -3, UNFIT = -4 };

struct pieces {
    const char *bytes;     /* the file */
    int64_t size;          /* how many of them there are */
    int64_t item;          /* bytes of a number: 4 for float, 1 for int8 */
    int64_t dim, rows;
    int64_t count;         /* of pieces */
    const int64_t *first;  /* the number that each piece begins with, and after the last one how many there are */
    const int64_t *at;     /* where it lies in the file, in bytes */
    const int64_t *head;   /* its first eight bytes; NULL where nothing needs to be compared */
    uint8_t *seen;         /* whether they were compared */
    int64_t fit;           /* that all this was checked, by galsearch_fit */
};

struct task {
    const struct pieces *pieces;
    const float *vector;
    const int64_t *rows;   /* NULL where they are those of spans */
    const int64_t *starts; /* the first row of each span */
    const int64_t *before; /* how many rows the spans before each have, and after the last one all of them */
    int64_t spans;      /* how many */
    int64_t count;      /* of rows */
    float *out;         /* where their products go */
    uint8_t *done;      /* which chunks of rows are done */
    int64_t next;       /* the first chunk that nobody has taken */
    int64_t vanished;   /* that memory was not there any more; then `out` means nothing */
    struct task *after;
};

struct crew {
    struct task first;  /* nothing to do; what is to be done comes after it */
    int64_t over;
    int64_t inside;     /* threads that look at its tasks */
};

PUBLIC int64_t galsearch_dots_version(void) { return 3; }

/* Reading a mapped file that somebody cut raises SIGBUS. A thread that reads one sets `guard`, and the signal brings it
   back there; whatever else raises the signal is passed on to who had it before.                                       */
#ifdef CAN_VANISH
#if defined(__linux__)
static __thread sigjmp_buf *volatile guard __attribute__((tls_model("initial-exec")));
#else
static __thread sigjmp_buf *volatile guard;
#endif
static struct sigaction before_us;

static void on_bus_error(int number, siginfo_t *about, void *context)
{
    if (guard) siglongjmp(*guard, 1);
    if (before_us.sa_flags & SA_SIGINFO) {
        before_us.sa_sigaction(number, about, context);
    } else if (before_us.sa_handler != SIG_DFL && before_us.sa_handler != SIG_IGN) {
        before_us.sa_handler(number);
    } else {
        signal(number, SIG_DFL);  /* what raised it is done again, and ends the process as it always did */
    }
}

static void be_ready(void)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction now, ours;
    if (sigaction(SIGBUS, NULL, &now)) return;
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_bus_error) return;
    pthread_mutex_lock(&one);
    if (!sigaction(SIGBUS, NULL, &now) && !(now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_bus_error)) {
        before_us = now;
        memset(&ours, 0, sizeof ours);
        ours.sa_sigaction = on_bus_error;
        ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;  /* not deferred: it is left by a jump */
        sigaction(SIGBUS, &ours, NULL);
    }
    pthread_mutex_unlock(&one);
}

/* Do `what`; if memory vanished meanwhile, do `otherwise`. */
#define GUARDED(what, otherwise) do { \
        sigjmp_buf here; \
        if (sigsetjmp(here, 0)) { guard = NULL; otherwise; } \
        else { \
            guard = &here; \
            __atomic_signal_fence(__ATOMIC_SEQ_CST);  /* nothing of it before this line, or after the next */ \
            what; \
            __atomic_signal_fence(__ATOMIC_SEQ_CST); \
            guard = NULL; \
        } \
    } while (0)
#else
static void be_ready(void) { }
#define GUARDED(what, otherwise) do { what; } while (0)
#endif

/* Check that the pieces follow one another, lie inside the memory and hold whole rows; say whether they do. */
PUBLIC int64_t galsearch_fit(struct pieces *p)
{
    p->fit = 0;
    if (!p->bytes || p->size < 0 || (p->item != 1 && p->item != 4) || p->dim < 1 || p->rows < 0 || p->count < 1)
        return UNFIT;
    if (p->first[0] != 0) return UNFIT;
    for (int64_t i = 0; i < p->count; i++) {
        if (p->first[i + 1] <= p->first[i]) return UNFIT;
        int64_t numbers = p->first[i + 1] - p->first[i];
        if (p->at[i] < 0 || p->at[i] > p->size || numbers > (p->size - p->at[i]) / p->item) return UNFIT;
        if (p->head && p->size - p->at[i] < 8) return UNFIT;
        if ((uintptr_t)(p->bytes + p->at[i]) % (uintptr_t)p->item) return UNFIT;
    }
    if (p->first[p->count] / p->dim != p->rows || p->first[p->count] % p->dim) return UNFIT;
    p->fit = 1;
    return FINE;
}

static INLINE int64_t piece_of(const struct pieces *p, int64_t number, int64_t near)
{
    int64_t low = 0, high = p->count;
    if (number >= p->first[near] && number < p->first[near + 1]) return near;
    if (near + 2 <= p->count && number >= p->first[near + 1] && number < p->first[near + 2]) return near + 1;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (p->first[middle] <= number) low = middle; else high = middle;
    }
    return low;
}

static void advise(const char *start, const char *end, int advice)
{
#ifdef CAN_ADVISE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)start & ~(page - 1);
    if (end > start) madvise((void *)from, (uintptr_t)end - from, advice);
#else
    (void)start; (void)end; (void)advice;
#endif
}

static int begins_as_noted(const struct pieces *p, int64_t piece)
{
    const unsigned char *start = (const unsigned char *)p->bytes + p->at[piece];
    uint64_t head = 0;
    for (int i = 7; i >= 0; i--) head = head << 8 | start[i];
    return head == (uint64_t)p->head[piece];
}

static int was_seen(const struct pieces *p, int64_t row, int64_t piece)
{
    while (p->seen[piece] && p->first[piece + 1] < (row + 1) * p->dim) piece++;
    return p->seen[piece];
}

/* Give an advice on the rows that were not seen before, neighbors together; return whether there are any. */
static int advise_unseen(const struct pieces *p, const int64_t *rows, int64_t count, int advice)
{
    const char *from = NULL, *to = NULL;
    int64_t piece = 0;
    for (int64_t i = 0; i < count; i++) {
        piece = piece_of(p, rows[i] * p->dim, piece);
        if (was_seen(p, rows[i], piece)) {  /* then all rows that lie in it as a whole */
            int64_t low = (p->first[piece] + p->dim - 1) / p->dim, high = p->first[piece + 1] / p->dim;
            while (i + 1 < count && rows[i + 1] >= low && rows[i + 1] < high) i++;
            continue;
        }
        const char *start = p->bytes + p->at[piece] + (rows[i] * p->dim - p->first[piece]) * p->item;
        const char *end = start + p->dim * p->item;
        if (from && start >= from && start <= to + GAP) { if (end > to) to = end; continue; }
        advise(from, to, advice);
        from = start; to = end;
    }
    advise(from, to, advice);
    return from != NULL;
}

/* The same for spans of rows. */
static int advise_unseen_spans(const struct pieces *p, const int64_t *starts, const int64_t *stops, int64_t count,
                               int advice)
{
    const char *from = NULL, *to = NULL;
    int64_t piece = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t number = starts[i] * p->dim, last = stops[i] * p->dim;
        for (piece = piece_of(p, number, piece); number < last; piece++) {
            int64_t next = last < p->first[piece + 1] ? last : p->first[piece + 1];
            const char *start = p->bytes + p->at[piece] + (number - p->first[piece]) * p->item;
            const char *end = start + (next - number) * p->item;
            number = next;
            if (p->seen[piece]) continue;
            if (from && start >= from && start <= to + GAP) { if (end > to) to = end; continue; }
            advise(from, to, advice);
            from = start; to = end;
        }
        if (piece) piece--;
    }
    advise(from, to, advice);
    return from != NULL;
}

static int64_t compare_heads_of_spans(const struct pieces *p, const int64_t *starts, const int64_t *stops,
                                      int64_t count)
{
    int64_t piece = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t last = stops[i] * p->dim - 1;
        for (piece = piece_of(p, starts[i] * p->dim, piece); ; piece++) {
            if (!p->seen[piece] && p->head && !begins_as_noted(p, piece)) return piece;
            p->seen[piece] = 1;
            if (last < p->first[piece + 1]) break;
        }
    }
    return FINE;
}

static int64_t compare_heads(const struct pieces *p, const int64_t *rows, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t last = (rows[i] + 1) * p->dim - 1;
        for (int64_t piece = piece_of(p, rows[i] * p->dim, 0); ; piece++) {
            if (!p->seen[piece] && p->head && !begins_as_noted(p, piece)) return piece;
            p->seen[piece] = 1;
            if (last < p->first[piece + 1]) break;
        }
    }
    return FINE;
}

/* Ask for what was not read before, all of it at once, wait for it, and compare how the pieces begin. Return FINE,
   UNFIT, OUTSIDE when a row is not there, VANISHED, or the first piece that does not begin as noted.                  */
PUBLIC int64_t galsearch_prepare(const struct pieces *p, const int64_t *rows, int64_t count)
{
    int64_t outside = 0;
    volatile int64_t found = FINE;
    if (!p->fit) return UNFIT;
    for (int64_t i = 0; i < count; i++) outside |= rows[i] < 0 || rows[i] >= p->rows;
    if (outside) return OUTSIDE;
    be_ready();
    if (!advise_unseen(p, rows, count, ADVICE_READ)) return FINE;
    advise_unseen(p, rows, count, ADVICE_MAP);
    GUARDED(found = compare_heads(p, rows, count), found = VANISHED);
    return found;
}

/* The same for the rows of spans, none of which is empty. */
PUBLIC int64_t galsearch_prepare_spans(const struct pieces *p, const int64_t *starts, const int64_t *stops,
                                       int64_t count)
{
    volatile int64_t found = FINE;
    if (!p->fit) return UNFIT;
    for (int64_t i = 0; i < count; i++)
        if (starts[i] < 0 || stops[i] <= starts[i] || stops[i] > p->rows) return OUTSIDE;
    be_ready();
    if (!advise_unseen_spans(p, starts, stops, count, ADVICE_READ)) return FINE;
    advise_unseen_spans(p, starts, stops, count, ADVICE_MAP);
    GUARDED(found = compare_heads_of_spans(p, starts, stops, count), found = VANISHED);
    return found;
}

static void copy(const struct pieces *p, const int64_t *rows, int64_t count, char *out)
{
    int64_t piece = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t number = rows[i] * p->dim, done = 0;
        piece = piece_of(p, number, piece);
        for (int64_t at = piece; done < p->dim; at++) {
            int64_t there = p->first[at + 1] - number - done, part = p->dim - done < there ? p->dim - done : there;
            memcpy(out + (i * p->dim + done) * p->item, p->bytes + p->at[at] + (number + done - p->first[at]) * p->item,
                   (size_t)(part * p->item));
            done += part;
        }
    }
}

/* Copy rows that were prepared; return FINE, UNFIT or VANISHED. */
PUBLIC int64_t galsearch_copy(const struct pieces *p, const int64_t *rows, int64_t count, char *out)
{
    volatile int64_t found = FINE;
    if (!p->fit) return UNFIT;
    GUARDED(copy(p, rows, count, out), found = VANISHED);
    return found;
}

typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));  /* 16 numbers, wherever they lie */
typedef float half __attribute__((vector_size(32)));
typedef float quarter __attribute__((vector_size(16)));

static INLINE wide load(const float *from) { return *(const wide *)from; }

static INLINE float sum_of(wide sums)
{
    union { wide all; half halves[2]; } one = {sums};
    union { half all; quarter quarters[2]; } two = {one.halves[0] + one.halves[1]};
    quarter four = two.quarters[0] + two.quarters[1];
    return (four[0] + four[1]) + (four[2] + four[3]);
}

static INLINE float dot_float(const float *row, const float *vector, int64_t count)
{
    wide a = {0}, b = {0}, c = {0}, d = {0};  /* side by side: an addition takes a few cycles, and none waits for another */
    float rest = 0;
    int64_t i = 0;
    for (; i + 64 <= count; i += 64) {
        a += load(row + i) * load(vector + i);
        b += load(row + i + 16) * load(vector + i + 16);
        c += load(row + i + 32) * load(vector + i + 32);
        d += load(row + i + 48) * load(vector + i + 48);
    }
    for (; i < count; i++) rest += row[i] * vector[i];
    return sum_of((a + b) + (c + d)) + rest;
}

static INLINE float dot_code(const int8_t *row, const float *vector, int64_t count)
{
    float numbers[BLOCK], sum = 0;
    for (int64_t from = 0; from < count; from += BLOCK) {
        int64_t part = count - from < BLOCK ? count - from : BLOCK;
        for (int64_t i = 0; i < part; i++) numbers[i] = row[from + i];
        sum += dot_float(numbers, vector + from, part);
    }
    return sum;
}

static INLINE float dot(const struct pieces *p, const char *start, const float *vector, int64_t count)
{
    for (int64_t byte = 0; byte < count * p->item; byte += 64) FETCH(start + AHEAD + byte);
    return p->item == 1 ? dot_code((const int8_t *)start, vector, count)
                        : dot_float((const float *)start, vector, count);
}

/* The product of a row that begins in a piece and may go on in the next ones. */
static INLINE float dot_across(const struct pieces *p, int64_t number, int64_t piece, const float *vector)
{
    float sum = 0;
    for (int64_t done = 0; done < p->dim; piece++) {
        int64_t there = p->first[piece + 1] - number - done, part = p->dim - done < there ? p->dim - done : there;
        sum += dot(p, p->bytes + p->at[piece] + (number + done - p->first[piece]) * p->item, vector + done, part);
        done += part;
    }
    return sum;
}

/* Rows that follow one another in a piece need not be looked for. */
static INLINE void products_of_spans(const struct task *t, int64_t from, int64_t to)
{
    const struct pieces *p = t->pieces;
    int64_t piece = 0, span = 0;
    for (int64_t high = t->spans; high - span > 1; ) {
        int64_t middle = (span + high) / 2;
        if (t->before[middle] <= from) span = middle; else high = middle;
    }
    for (int64_t i = from; i < to; ) {
        while (t->before[span + 1] <= i) span++;
        int64_t number = (t->starts[span] + i - t->before[span]) * p->dim;
        int64_t left = (t->before[span + 1] < to ? t->before[span + 1] : to) - i;
        piece = piece_of(p, number, piece);
        int64_t whole = (p->first[piece + 1] - number) / p->dim;
        if (!whole) {
            t->out[i++] = dot_across(p, number, piece, t->vector);
            continue;
        }
        const char *start = p->bytes + p->at[piece] + (number - p->first[piece]) * p->item;
        if (whole > left) whole = left;
        for (int64_t end = i + whole; i < end; i++, start += p->dim * p->item) t->out[i] = dot(p, start, t->vector, p->dim);
    }
}

FOR_EACH_PROCESSOR static void products(const struct task *t, int64_t from, int64_t to)
{
    const struct pieces *p = t->pieces;
    int64_t piece = 0;
    if (!t->rows) {
        products_of_spans(t, from, to);
        return;
    }
    for (int64_t i = from; i < to; i++) {
        piece = piece_of(p, t->rows[i] * p->dim, piece);
        t->out[i] = dot_across(p, t->rows[i] * p->dim, piece, t->vector);
    }
}

static int64_t rows_of_chunk(const struct task *t) { return CHUNK / t->pieces->dim + 1; }

/* Do a chunk; say whether its memory was there. */
static int chunk_of(struct task *t, int64_t chunk)
{
    int64_t size = rows_of_chunk(t), end = (chunk + 1) * size;
    volatile int there = 1;
    GUARDED(products(t, chunk * size, end < t->count ? end : t->count), there = 0);
    if (!there) __atomic_store_n(&t->vanished, 1, __ATOMIC_RELAXED);
    return there;
}

static void take_part(struct task *t)
{
    int64_t size = rows_of_chunk(t), chunks = (t->count + size - 1) / size, chunk;
    while ((chunk = __atomic_fetch_add(&t->next, 1, __ATOMIC_RELAXED)) < chunks) {
        if (!chunk_of(t, chunk)) return;
        __atomic_store_n(t->done + chunk, 1, __ATOMIC_RELEASE);
    }
}

PUBLIC int64_t galsearch_chunks(const struct task *t)
{
    return (t->count + rows_of_chunk(t) - 1) / rows_of_chunk(t);
}

/* Do a task whose rows were prepared. It is hung behind `last`, where helpers see it. What a helper has taken and not
   done when all else is done is done here again, for it may have been interrupted for long; both write the same numbers.
   Return FINE, UNFIT or VANISHED.                                                                                      */
PUBLIC int64_t galsearch_do(struct task *t, struct task *last)
{
    if (!t->pieces->fit) return UNFIT;
    if (last) __atomic_store_n(&last->after, t, __ATOMIC_RELEASE);
    take_part(t);
    for (int64_t chunk = 0, chunks = galsearch_chunks(t); chunk < chunks; chunk++)
        if (!__atomic_load_n(t->done + chunk, __ATOMIC_ACQUIRE) && !chunk_of(t, chunk)) break;
    return __atomic_load_n(&t->vanished, __ATOMIC_RELAXED) ? VANISHED : FINE;
}

/* Note in `out` which of the scores may be among the `wanted` largest: those that are no more than `error` below the
   last of these. `heap` has room for `wanted` numbers, `out` for `most`. Return how many they are, noted or not.       */
PUBLIC int64_t galsearch_select(const float *scores, int64_t count, int64_t wanted, float error, float *heap,
                                int64_t *out, int64_t most)
{
    int64_t held = 0, kept = 0;
    for (int64_t i = 0; i < count; i++) {
        float score = scores[i];
        int64_t at;
        if (held < wanted) {  /* up from the bottom of a heap that has its least on top */
            for (at = held++; at && heap[(at - 1) / 2] > score; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
        } else if (score > heap[0]) {  /* down from its top */
            for (at = 0; 2 * at + 1 < held; ) {
                int64_t child = 2 * at + 1;
                if (child + 1 < held && heap[child + 1] < heap[child]) child++;
                if (heap[child] >= score) break;
                heap[at] = heap[child];
                at = child;
            }
        } else {
            continue;
        }
        heap[at] = score;
    }
    if (!held) return 0;
    float least = held < wanted ? -__builtin_inff() : heap[0] - error;
    for (int64_t i = 0; i < count; i++)
        if (scores[i] >= least) {
            if (kept < most) out[kept] = i;
            kept++;
        }
    return kept;
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Take part in the tasks of a crew as they come, until it is over or none has come for long. */
static void take_part_in_all(struct crew *c)
{
    struct task *t = &c->first;
    int64_t since = nanoseconds();
    for (uint32_t turns = 1; !__atomic_load_n(&c->over, __ATOMIC_RELAXED); turns++) {
        struct task *after = __atomic_load_n(&t->after, __ATOMIC_ACQUIRE);
        if (after) {
            take_part(t = after);
            since = nanoseconds();
        } else {
            PAUSE();
            if (turns % 256 == 0 && nanoseconds() - since > PATIENCE) return;
        }
    }
}

/* Helpers sleep until there is a crew to join. One crew at a time has them; whoever comes second works alone. */
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static struct crew *calling;
static uint64_t calls;  /* so many crews have called until now: one may lie where another was */
static int64_t helpers;

static void *helper(void *nothing)
{
    uint64_t joined = 0;
    pthread_mutex_lock(&door);
    for (;;) {
        while (!calling || joined == calls) pthread_cond_wait(&bell, &door);
        struct crew *crew = calling;
        joined = calls;
        crew->inside++;
        pthread_mutex_unlock(&door);
        take_part_in_all(crew);
        pthread_mutex_lock(&door);
        crew->inside--;
    }
    return nothing;
}

static void forget_helpers(void) /* a child process has none of its parent's threads */
{
    pthread_mutex_init(&door, NULL);
    pthread_cond_init(&bell, NULL);
    calling = NULL;
    helpers = 0;
}

/* Let up to `wanted` other threads join the crew; say whether they were called. */
PUBLIC int64_t galsearch_call(struct crew *c, int64_t wanted)
{
    static int64_t prepared;
    int64_t called = 0;
    pthread_mutex_lock(&door);
    if (!prepared++) pthread_atfork(NULL, NULL, forget_helpers);
    for (; helpers < wanted; helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, helper, NULL)) break;
        pthread_detach(thread);
    }
    if (!calling && helpers) {
        calling = c;
        calls++;
        called = 1;
        pthread_cond_broadcast(&bell);
    }
    pthread_mutex_unlock(&door);
    return called;
}

/* End a crew, called or not. It and its tasks must stay in memory while `galsearch_inside` says that threads are in. */
PUBLIC void galsearch_dismiss(struct crew *c)
{
    __atomic_store_n(&c->over, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&door);
    if (calling == c) calling = NULL;
    pthread_mutex_unlock(&door);
}

PUBLIC int64_t galsearch_inside(const struct crew *c)
{
    pthread_mutex_lock(&door);
    int64_t inside = c->inside;
    pthread_mutex_unlock(&door);
    return inside;
}
