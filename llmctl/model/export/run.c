/* A language model in two files: this program, and model.bin with the weights and the tokenizer. Written by llmctl.

       cc -O3 -o run run.c -lm                              faster: cc -O3 -march=native -fopenmp -o run run.c -lm
       ./run model.bin -p "Once upon a time" -n 100         go on with a text, always with the likeliest token
       ./run model.bin -p "Once" -t 0.8 -m 0.05 -s 7        draw tokens instead: temperature, min-p, seed
       ./run model.bin --chat                               answer the lines of stdin (chat models)
       ./run model.bin --tokens < text                      the token ids of a text (of several, NUL bytes between)

   A text becomes numbers (tokens), each number a vector; every layer lets the vectors look at those before them
   (attention) and thinks about each (mlp); the last vector scores every possible next token. That is all there is. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#define IN_PARALLEL _Pragma("omp parallel for")
#else
#define IN_PARALLEL
#endif

/* ---- the file ---------------------------------------------------------------------------------------------------- */

enum { NORMAL = 1, CONTROL = 3 };                              /* kinds of tokens */
enum { SWIGLU, RELU2, GELU };                                  /* what is between the matrices of an mlp */

typedef struct {
    char magic[8];
    int64_t bytes;                                             /* of the whole file: a cut one is noticed */
    int32_t layers, width, heads, kv_heads, head_dim, mlp_width, rows, context;
    int32_t centred, qk_norm, mlp, embedding_norm, learned_positions, tied;
    int32_t byte_level, whole_pieces, start, im_start, im_sep, im_end;
    int32_t names, sorted, merges, ends, steps, alternatives, runs;
    float eps, softcap;
    int32_t unused;
} Header;

typedef struct { int32_t class, least, most, look; } Step;     /* a run of characters in the split pattern */
typedef struct { int32_t left, right, rank, merged; } Merge;   /* two tokens that become one; lower ranks first */
typedef struct { const float *weight, *bias; } Map;            /* a matrix (out, in), or the gain of a norm; a bias */
typedef struct { Map attention_norm, q, k, v, q_norm, k_norm, o, mlp_norm, gate, up, down; } Layer;

static Header h;
static const int32_t *name_at, *sorted, *byte_id, *end_id, *alternative, *run_start;
static const uint32_t *run_mask;
static const uint8_t *kind, *name;
static const Merge *merge;
static const Step *step;
static const float *frequency, *embedding, *positions, *head;
static Map last_norm;
static Layer *layer;

static void die(const char *about, const char *what) {
    fprintf(stderr, "%s: %s\n", about, what);
    exit(2);
}

static void *room(size_t bytes) {
    void *p = calloc(bytes + 1, 1);
    if (!p) die("run", "not enough memory");
    return p;
}

static char *file;
static int64_t at;

static const void *next(int64_t n, int64_t size) { /* n items in the file; each part begins at a multiple of 64 bytes */
    const void *here = file + at;
    if (n < 0 || n * size > h.bytes - at) die("model.bin", "damaged: its parts do not fit");
    at += (n * size + 63) / 64 * 64;
    return here;
}

static Map next_map(int64_t weights, int64_t biases) {
    Map m;
    m.weight = next(weights, 4);
    m.bias = next(biases, 4);
    return m;
}

static void load(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) die(path, "cannot read it");
    if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, "llmctl\0\1", 8)) die(path, "no model that llmctl wrote");
    file = room((size_t)h.bytes + 64);
    rewind(f);
    if (fread(file, 1, (size_t)h.bytes, f) != (size_t)h.bytes) die(path, "damaged: it is cut off");
    fclose(f);

    int64_t d = h.width, q = (int64_t)h.heads * h.head_dim, kv = (int64_t)h.kv_heads * h.head_dim, m = h.mlp_width;
    next(1, sizeof h);
    name_at = next(h.rows + 1, 4), name = next(h.names, 1), kind = next(h.rows, 1), sorted = next(h.sorted, 4);
    merge = next(h.merges, sizeof *merge), byte_id = next(256, 4), end_id = next(h.ends, 4);
    step = next(h.steps, sizeof *step), alternative = next(h.alternatives + 1, 4);
    run_start = next(h.runs, 4), run_mask = next(h.runs, 4);
    frequency = next(h.head_dim / 2, 4), embedding = next(h.rows * d, 4);
    positions = next(h.learned_positions ? h.context * d : 0, 4);
    layer = room(sizeof *layer * (size_t)h.layers);
    for (Layer *l = layer; l < layer + h.layers; l++) {
        l->attention_norm = next_map(d, d);
        l->q = next_map(q * d, q), l->k = next_map(kv * d, kv), l->v = next_map(kv * d, kv);
        l->q_norm = next_map(h.head_dim, h.head_dim), l->k_norm = next_map(h.head_dim, h.head_dim);
        l->o = next_map(d * q, d);
        l->mlp_norm = next_map(d, d);
        if (h.mlp == SWIGLU) l->gate = next_map(m * d, m);
        l->up = next_map(m * d, m), l->down = next_map(d * m, d);
    }
    last_norm = next_map(d, d);
    head = h.tied ? embedding : next(h.rows * d, 4);
}

/* ---- the tokenizer: text to numbers ------------------------------------------------------------------------------ */

typedef struct { int32_t *id; size_t n, room; } Ids;

static void push(Ids *ids, int32_t id) {
    if (ids->n == ids->room) {
        ids->room = 2 * ids->room + 64;
        ids->id = realloc(ids->id, ids->room * sizeof *ids->id);
        if (!ids->id) die("run", "not enough memory");
    }
    ids->id[ids->n++] = id;
}

static int32_t length(int32_t id) { return name_at[id + 1] - name_at[id]; }

static int32_t find_token(const uint8_t *s, int64_t n) { /* the token of these bytes, or -1 */
    for (int32_t low = 0, high = h.sorted; low < high;) {
        int32_t middle = (low + high) / 2, id = sorted[middle];
        int order = memcmp(name + name_at[id], s, (size_t)(length(id) < n ? length(id) : n));
        if (!order) order = (length(id) > n) - (length(id) < n);
        if (!order) return id;
        if (order < 0) low = middle + 1; else high = middle;
    }
    return -1;
}

static const Merge *find_merge(int32_t left, int32_t right) {
    for (int32_t low = 0, high = h.merges; low < high;) {
        int32_t middle = (low + high) / 2;
        const Merge *m = merge + middle;
        if (m->left == left && m->right == right) return m;
        if (m->left < left || (m->left == left && m->right < right)) low = middle + 1; else high = middle;
    }
    return NULL;
}

/* How long the UTF-8 character at s is, and its code point; -1 for bytes that are none, to be read as one U+FFFD. */
static int64_t character(const uint8_t *s, int64_t n, int32_t *point) {
    int32_t c = s[0], more = c < 0x80 ? 0 : c < 0xC2 ? -1 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : c < 0xF5 ? 3 : -1;
    /* No longer than needed, no surrogates, nothing above U+10FFFF. */
    int32_t low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    *point = -1;
    if (more < 0) return 1;
    int32_t found = more ? c & (0x3F >> more) : c;
    for (int32_t i = 1; i <= more; i++, low = 0x80, high = 0xBF) {
        if (i >= n || s[i] < low || s[i] > high) return i;
        found = found << 6 | (s[i] & 0x3F);
    }
    *point = found;
    return more + 1;
}

/* Byte-pair encoding of one piece: begin with its bytes (or characters), and merge the pair of the lowest rank until
   none is left. */
static void encode_piece(const uint8_t *s, int64_t n, Ids *ids) {
    int32_t id = h.whole_pieces ? find_token(s, n) : -1, point;
    if (id >= 0) { push(ids, id); return; }
    size_t first = ids->n;
    for (int64_t i = 0, used; i < n; i += used) {
        used = h.byte_level ? 1 : character(s + i, n - i, &point);
        id = h.byte_level ? -1 : find_token(s + i, used);
        if (id >= 0) push(ids, id);
        for (int64_t b = i; id < 0 && b < i + used; b++) push(ids, byte_id[s[b]]);
    }
    int32_t *token = ids->id + first;
    int64_t count = (int64_t)(ids->n - first);
    const Merge **pair = room((size_t)(count + 1) * sizeof *pair); /* pair[i] joins tokens i and i + 1, or is NULL */
    for (int64_t i = 0; i + 1 < count; i++) pair[i] = find_merge(token[i], token[i + 1]);
    for (;;) {
        int64_t best = -1;
        for (int64_t i = 0; i + 1 < count; i++)
            if (pair[i] && (best < 0 || pair[i]->rank < pair[best]->rank)) best = i;
        if (best < 0) break;
        token[best] = pair[best]->merged;
        count--;
        memmove(token + best + 1, token + best + 2, (size_t)(count - best - 1) * sizeof *token);
        memmove(pair + best, pair + best + 1, (size_t)(count - best) * sizeof *pair);
        if (best + 1 < count) pair[best] = find_merge(token[best], token[best + 1]);
        if (best > 0) pair[best - 1] = find_merge(token[best - 1], token[best]);
    }
    ids->n = first + (size_t)count;
    free(pair);
}

static uint32_t classes(int32_t point) { /* which classes of the split pattern a character is in, a bit each */
    int32_t low = 0, high = h.runs - 1;
    while (low < high) {
        int32_t middle = (low + high + 1) / 2;
        if (run_start[middle] <= point) low = middle; else high = middle - 1;
    }
    return run_mask[low];
}

/* Where the steps up to `end` match the characters from i on, or -1. As many as possible, then fewer. */
static int64_t match(const Step *s, const Step *end, const uint32_t *mask, int64_t i, int64_t n) {
    if (s == end) return i;
    int64_t most = 0, found = -1;
    if (s->look) {
        int there = i < n && (mask[i] >> s->class & 1);
        return there == (s->look > 0) ? match(s + 1, end, mask, i, n) : -1;
    }
    while (most < s->most && i + most < n && (mask[i + most] >> s->class & 1)) most++;
    for (; found < 0 && most >= s->least; most--) found = match(s + 1, end, mask, i + most, n);
    return found;
}

/* Cut text by the pattern, and encode the pieces. Special tokens in it are never read as such: text is text. */
static void encode(const char *text, int64_t bytes, Ids *ids) {
    uint8_t *clean = room((size_t)(3 * bytes) + 4); /* well-formed UTF-8 */
    uint32_t *mask = room((size_t)(bytes + 2) * sizeof *mask);
    int64_t *offset = room((size_t)(bytes + 2) * sizeof *offset), n = 0, from = 0, size = 0;
    if (!h.byte_level && bytes) clean[size++] = ' '; /* SentencePiece's way: a space before, U+2581 for a space */
    for (int64_t i = 0, used; i < bytes; i += used) {
        int32_t point;
        const char *as = text + i;
        used = character((const uint8_t *)as, bytes - i, &point);
        int64_t long_as = point < 0 ? 3 : used;
        if (point < 0) as = "\xEF\xBF\xBD";
        if (!h.byte_level && point == 0x2581) as = " ", long_as = 1;
        if (h.byte_level) mask[n] = classes(point < 0 ? 0xFFFD : point);
        offset[n++] = size;
        memcpy(clean + size, as, (size_t)long_as);
        size += long_as;
    }
    offset[n] = size;
    for (int64_t i = 0; h.byte_level && i < n;) {
        int64_t found = -1;
        for (int32_t a = 0; found <= i && a < h.alternatives; a++)
            found = match(step + alternative[a], step + alternative[a + 1], mask, i, n);
        if (found <= i) { i++; continue; } /* what the pattern leaves out is a piece too */
        if (from < i) encode_piece(clean + offset[from], offset[i] - offset[from], ids);
        encode_piece(clean + offset[i], offset[found] - offset[i], ids);
        from = i = found;
    }
    if (from < n) encode_piece(clean + (from ? offset[from] : 0), size - (from ? offset[from] : 0), ids);
    free(clean), free(mask), free(offset);
}

/* ---- the transformer: numbers to scores -------------------------------------------------------------------------- */

static float *x, *y, *z, *gate, *up, *score, *logits, *keys, *values;

static void make_room(void) {
    size_t d = (size_t)h.width, q = (size_t)h.heads * (size_t)h.head_dim, c = (size_t)h.context;
    size_t cache = (size_t)h.layers * c * (size_t)h.kv_heads * (size_t)h.head_dim;
    x = room(4 * d), y = room(4 * (q > d ? q : d)), z = room(4 * (q > d ? q : d));
    gate = room(4 * (size_t)h.mlp_width), up = room(4 * (size_t)h.mlp_width);
    score = room(4 * (size_t)h.heads * c), logits = room(4 * (size_t)h.rows);
    keys = room(4 * cache), values = room(4 * cache);
}

static float dot(const float *a, const float *b, int32_t n) {
    float sum[16] = {0}, total = 0; /* 16 sums side by side: the compiler makes vectors of them */
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int32_t j = 0; j < 16; j++) sum[j] += a[i + j] * b[i + j];
    for (int32_t j = 0; j < 16; j++) total += sum[j];
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

static void multiply(float *out, Map m, const float *in, int32_t rows, int32_t columns) {
    IN_PARALLEL
    for (int32_t i = 0; i < rows; i++)
        out[i] = dot(m.weight + (int64_t)i * columns, in, columns) + (m.bias ? m.bias[i] : 0);
}

static void normalise(float *out, const float *in, Map m, int32_t n) { /* RMSNorm; LayerNorm takes the mean out too */
    float mean = 0, squares = 0;
    for (int32_t i = 0; h.centred && i < n; i++) mean += in[i] / (float)n;
    for (int32_t i = 0; i < n; i++) squares += (in[i] - mean) * (in[i] - mean);
    float scale = 1.0f / sqrtf(squares / (float)n + h.eps);
    for (int32_t i = 0; i < n; i++) out[i] = (in[i] - mean) * scale * m.weight[i] + m.bias[i];
}

static void prepare(float *v, int32_t n, Map norm, int32_t position) { /* queries or keys: normalised, then turned */
    int32_t half = h.head_dim / 2;
    for (float *end = v + n; v < end; v += h.head_dim) {
        if (h.qk_norm) normalise(v, v, norm, h.head_dim);
        for (int32_t i = 0; !h.learned_positions && i < half; i++) { /* so that dot products see distances */
            float angle = (float)position * frequency[i], a = v[i], b = v[i + half];
            v[i] = a * cosf(angle) - b * sinf(angle);
            v[i + half] = b * cosf(angle) + a * sinf(angle);
        }
    }
}

static void attend(float *out, const float *q, const float *k, const float *v, int32_t n) {
    int32_t e = h.head_dim, stride = h.kv_heads * e;
    IN_PARALLEL
    for (int32_t a = 0; a < h.heads; a++) { /* every head looks at the n positions so far */
        int32_t shift = a / (h.heads / h.kv_heads) * e;
        float *s = score + (int64_t)a * h.context, *o = out + a * e, highest = -INFINITY, total = 0;
        for (int32_t t = 0; t < n; t++) {
            s[t] = dot(q + a * e, k + (int64_t)t * stride + shift, e) / sqrtf((float)e);
            if (s[t] > highest) highest = s[t];
        }
        for (int32_t t = 0; t < n; t++) total += s[t] = expf(s[t] - highest);
        memset(o, 0, 4 * (size_t)e);
        for (int32_t t = 0; t < n; t++)
            for (int32_t i = 0; i < e; i++) o[i] += s[t] / total * v[(int64_t)t * stride + shift + i];
    }
}

static float activate(float u, float g) {
    if (h.mlp == RELU2) return u > 0 ? u * u : 0;
    if (h.mlp == GELU) return 0.5f * u * (1 + tanhf(0.7978845608f * (u + 0.044715f * u * u * u)));
    return u * g / (1 + expf(-g));
}

/* Take in one token at a position; where wanted, `logits` then scores what comes next. */
static void forward(int32_t token, int32_t position, int wanted) {
    int32_t d = h.width, q = h.heads * h.head_dim, kv = h.kv_heads * h.head_dim, m = h.mlp_width;
    memcpy(x, embedding + (int64_t)token * d, 4 * (size_t)d);
    for (int32_t i = 0; h.learned_positions && i < d; i++) x[i] += positions[(int64_t)position * d + i];
    if (h.embedding_norm) normalise(x, x, last_norm, d);
    for (int32_t n = 0; n < h.layers; n++) {
        const Layer *l = layer + n;
        float *all_k = keys + (int64_t)n * h.context * kv, *k = all_k + (int64_t)position * kv;
        float *all_v = values + (int64_t)n * h.context * kv, *v = all_v + (int64_t)position * kv;
        normalise(y, x, l->attention_norm, d);
        multiply(z, l->q, y, q, d), multiply(k, l->k, y, kv, d), multiply(v, l->v, y, kv, d);
        prepare(z, q, l->q_norm, position), prepare(k, kv, l->k_norm, position);
        attend(y, z, all_k, all_v, position + 1);
        multiply(z, l->o, y, d, q);
        for (int32_t i = 0; i < d; i++) x[i] += z[i];
        normalise(y, x, l->mlp_norm, d);
        if (h.mlp == SWIGLU) multiply(gate, l->gate, y, m, d);
        multiply(up, l->up, y, m, d);
        for (int32_t i = 0; i < m; i++) up[i] = activate(up[i], gate[i]);
        multiply(z, l->down, up, d, m);
        for (int32_t i = 0; i < d; i++) x[i] += z[i];
    }
    if (!wanted) return;
    normalise(y, x, last_norm, d);
    multiply(logits, (Map){head, NULL}, y, h.rows, d);
    for (int32_t i = 0; h.softcap > 0 && i < h.rows; i++) logits[i] = h.softcap * tanhf(logits[i] / h.softcap);
}

/* ---- going on with a text ---------------------------------------------------------------------------------------- */

static double temperature = 0, min_p = 0;
static uint64_t seed = 1;
static int32_t position; /* how many tokens the model has read */
static int as_ids, shown; /* print numbers; something is printed already */

static double chance(void) { /* splitmix64: a number from 0 to 1 */
    uint64_t c = seed += 0x9E3779B97F4A7C15u;
    c = (c ^ c >> 30) * 0xBF58476D1CE4E5B9u, c = (c ^ c >> 27) * 0x94D049BB133111EBu;
    return (double)((c ^ c >> 31) >> 11) / 9007199254740992.0;
}

static int32_t choose(void) {
    int32_t best = 0;
    for (int32_t i = 1; i < h.rows; i++)
        if (logits[i] > logits[best]) best = i;
    if (temperature <= 0) return best;
    double total = 0, highest = logits[best];
    for (int32_t i = 0; i < h.rows; i++) {
        double p = exp((logits[i] - highest) / temperature);
        total += logits[i] = p < min_p ? 0 : (float)p; /* min-p: leave out what is far less likely than the best */
    }
    double left = chance() * total;
    for (int32_t i = 0; i < h.rows; i++)
        if ((left -= logits[i]) < 0) return i;
    return best;
}

static int is_end(int32_t id) {
    for (int32_t i = 0; i < h.ends; i++)
        if (end_id[i] == id) return 1;
    return 0;
}

static void show(int32_t id) {
    if (as_ids) {
        printf(shown ? " %d" : "%d", id);
    } else if (kind[id] != CONTROL) {
        int32_t space = !h.byte_level && !shown && length(id) && name[name_at[id]] == ' '; /* put there in encoding */
        fwrite(name + name_at[id] + space, 1, (size_t)(length(id) - space), stdout);
        fflush(stdout);
    }
    shown = 1;
}

static void read_in(const Ids *ids) {
    if (ids->n >= (size_t)(h.context - position)) die("run", "that is more than the model's context holds");
    for (size_t i = 0; i < ids->n; i++) forward(ids->id[i], position++, i + 1 == ids->n);
}

static int32_t go_on(int32_t most) { /* write up to `most` tokens, until one of them ends the text; how many */
    int32_t made = 0;
    for (int ended = 0; made < most && position < h.context && !ended;) {
        int32_t id = choose();
        ended = is_end(id);
        if (as_ids || !ended) show(id);
        if (++made < most || ended) forward(id, position++, !ended);
    }
    printf("\n");
    return made;
}

static char *read_stdin(char end, int64_t *n) { /* up to `end` or the end of the input; NULL where there is nothing */
    char *text = NULL;
    size_t size = 0;
    *n = 0;
    for (int c; (c = getchar()) != EOF || *n;) {
        if ((size_t)*n + 1 >= size) text = realloc(text, size = 2 * size + 4096);
        if (!text) die("run", "not enough memory");
        text[*n] = 0;
        if (c == EOF || c == (unsigned char)end) return text;
        text[(*n)++] = (char)c;
    }
    return text;
}

static void chat(int32_t most) {
    int64_t n;
    if (h.im_start < 0 || h.im_sep < 0 || h.im_end < 0) die("--chat", "this model has no tokens for a conversation");
    for (char *line; fprintf(stderr, "> "), (line = read_stdin('\n', &n)); free(line)) {
        Ids ids = {0}; /* <|im_start|>user<|im_sep|>TEXT<|im_end|><|im_start|>assistant<|im_sep|> */
        push(&ids, h.im_start), encode("user", 4, &ids), push(&ids, h.im_sep), encode(line, n, &ids);
        push(&ids, h.im_end), push(&ids, h.im_start), encode("assistant", 9, &ids), push(&ids, h.im_sep);
        shown = 0;
        read_in(&ids);
        go_on(most);
        free(ids.id);
    }
}

static void print_tokens(void) {
    int64_t n;
    for (char *text; (text = read_stdin(0, &n)); free(text)) {
        Ids ids = {0};
        encode(text, n, &ids);
        for (size_t i = 0; i < ids.n; i++) printf(i ? " %d" : "%d", ids.id[i]);
        printf("\n");
        free(ids.id);
    }
}

static void usage(const char *wrong) {
    die(wrong, "usage: run model.bin [-p TEXT] [-n TOKENS] [-t TEMPERATURE] [-m MIN_P] [-s SEED] [--ids] [--speed], "
               "or run model.bin --chat, or run model.bin --tokens");
}

int main(int argc, char **argv) {
    const char *prompt = "", *mode = "";
    int32_t most = 256;
    int speed = 0;
    if (argc < 2) usage("which model?");
    for (int i = 2; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--ids")) as_ids = 1;
        else if (!strcmp(a, "--speed")) speed = 1;
        else if (!strcmp(a, "--chat") || !strcmp(a, "--tokens")) mode = a;
        else if (i + 1 == argc) usage(a);
        else if (!strcmp(a, "-p")) prompt = argv[++i];
        else if (!strcmp(a, "-n")) most = atoi(argv[++i]);
        else if (!strcmp(a, "-t")) temperature = atof(argv[++i]);
        else if (!strcmp(a, "-m")) min_p = atof(argv[++i]);
        else if (!strcmp(a, "-s")) seed = strtoull(argv[++i], NULL, 10);
        else usage(a);
    }
    load(argv[1]);
    if (!strcmp(mode, "--tokens")) { print_tokens(); return 0; }
    make_room();
    if (!strcmp(mode, "--chat")) { chat(most); return 0; }
    Ids ids = {0};
    push(&ids, h.start);
    encode(prompt, (int64_t)strlen(prompt), &ids);
    for (size_t i = 1; i < ids.n && !as_ids; i++) show(ids.id[i]);
    struct timespec begin, end;
    timespec_get(&begin, TIME_UTC);
    read_in(&ids);
    int32_t made = go_on(most);
    timespec_get(&end, TIME_UTC);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    if (speed) fprintf(stderr, "%.0f tokens/s\n", ((double)made + (double)ids.n) / seconds);
    return 0;
}
