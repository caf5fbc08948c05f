// Learning byte-level BPE: the words of GPT-4's split pattern counted, and their most frequent pairs merged.
//
// What model/bpe.py does with `regex` and numpy, word by word and merge by merge. Standard C++ and few headers, as it
// is compiled where a vocabulary is learned, in 0.5 to 1 s of a core.
#include <cstdint>
#include <cstring>
#include <queue>
#include <vector>

namespace {

using Bytes = const uint8_t *;

// Byte strings, numbered in the order in which they came: words, tokens, and pairs of tokens (8 bytes each).
class Strings {
public:
    Strings() : slots(1 << 12) {}

    int32_t count() const { return int32_t(begins.size()) - 1; }
    int64_t total() const { return begins.back(); }  // bytes
    Bytes at(int32_t id) const { return bytes.data() + begins[id]; }
    int64_t size(int32_t id) const { return begins[id + 1] - begins[id]; }

    int32_t id_of(Bytes s, int64_t n) {
        const uint64_t key = key_of(s, n);
        uint64_t k = spread(key, n) >> shift;
        for (; slots[k].id >= 0; k = (k + 1) & (slots.size() - 1))
            if (slots[k].key == key && slots[k].n == uint32_t(n) && (n <= 8 || !memcmp(at(slots[k].id), s, n)))
                return slots[k].id;
        slots[k] = {key, uint32_t(n), count()};
        bytes.insert(bytes.end(), s, s + n);
        begins.push_back(int64_t(bytes.size()));
        if (uint64_t(count()) * 2 > slots.size()) grow();
        return count() - 1;
    }

private:
    struct Slot {
        uint64_t key = 0;
        uint32_t n = 0;
        int32_t id = -1;
    };
    std::vector<uint8_t> bytes;
    std::vector<int64_t> begins{0};
    std::vector<Slot> slots;
    int shift = 64 - 12;

    // Up to 8 bytes are their own key, and need no look at the string itself.
    static uint64_t key_of(Bytes s, int64_t n) {
        uint64_t key = 0, part;
        for (; n > 8; s += 8, n -= 8) {
            memcpy(&part, s, 8);
            key = (key ^ part) * 0x9E3779B97F4A7C15u;
            key ^= key >> 32;
        }
        part = 0;
        memcpy(&part, s, n);
        return key ^ part;
    }
    static uint64_t spread(uint64_t key, int64_t n) {
        return (key ^ uint64_t(n) << 56 ^ key >> 32) * 0x9E3779B97F4A7C15u;
    }
    void grow() {
        std::vector<Slot> old(slots.size() * 2);
        old.swap(slots);
        shift--;
        for (const Slot &s : old)
            if (s.id >= 0) {
                uint64_t k = spread(s.key, s.n) >> shift;
                while (slots[k].id >= 0) k = (k + 1) & (slots.size() - 1);
                slots[k] = s;
            }
    }
};

enum Kind : uint8_t { OTHER, LETTER, NUMBER, SPACE, NEWLINE, END };

struct Character {
    Kind kind;
    int size;  // bytes
};

// Cuts UTF-8 as published.gpt4_pattern does; `kinds` has the Kind of every code point.
struct Splitter {
    const Kind *kinds;
    int64_t digits;
    Bytes end;

    Character at(Bytes p) const {
        if (p >= end) return {END, 0};
        if (*p < 0x80) return {kinds[*p], 1};
        if (*p < 0xE0) return {kinds[(*p & 31) << 6 | (p[1] & 63)], 2};
        if (*p < 0xF0) return {kinds[(*p & 15) << 12 | (p[1] & 63) << 6 | (p[2] & 63)], 3};
        return {kinds[(*p & 7) << 18 | (p[1] & 63) << 12 | (p[2] & 63) << 6 | (p[3] & 63)], 4};
    }

    Bytes run(Bytes p, Kind kind) const {
        for (Character c = at(p); c.kind == kind; c = at(p)) p += c.size;
        return p;
    }

    // (?i:[sdmt]|ll|ve|re): its bytes, or 0. U+017F is an s that has no other case.
    int suffix(Bytes p) const {
        const int first = p < end ? *p | 32 : 0, second = p + 1 < end ? p[1] | 32 : 0;
        if (first == 's' || first == 'd' || first == 'm' || first == 't') return 1;
        if (first == 'l' && second == 'l') return 2;
        if ((first == 'v' || first == 'r') && second == 'e') return 2;
        return p + 1 < end && p[0] == 0xC5 && p[1] == 0xBF ? 2 : 0;
    }

    // Where the word that begins at p ends.
    Bytes word(Bytes p) const {
        const Character c = at(p);
        if (c.kind == LETTER) return run(p + c.size, LETTER);
        if (*p == '\'')
            if (const int n = suffix(p + 1)) return p + 1 + n;
        const Character after = at(p + c.size);
        if (after.kind == LETTER && (c.kind == OTHER || c.kind == SPACE)) return run(p + c.size + after.size, LETTER);
        if (c.kind == NUMBER) return number(p);
        if (c.kind == OTHER || (*p == ' ' && after.kind == OTHER)) return run(run(p + c.size, OTHER), NEWLINE);
        return space(p);
    }

    Bytes number(Bytes p) const {
        Character c = at(p);
        for (int64_t i = 0; i < digits && c.kind == NUMBER; i++, c = at(p)) p += c.size;
        return p;
    }

    // \s*[\r\n], or else \s+(?!\S), or else \s+
    Bytes space(Bytes p) const {
        Bytes line = nullptr, last = p, q = p;
        for (Character c = at(p); c.kind == SPACE || c.kind == NEWLINE; c = at(q)) {
            last = q, q += c.size;
            if (c.kind == NEWLINE) line = q;
        }
        return line ? line : q < end && last > p ? last : q;
    }
};

struct Words {
    Splitter split;
    Strings words;
    std::vector<int64_t> counts;

    void add(Bytes text, int64_t n) {
        split.end = text + n;
        for (Bytes p = text, next; p < split.end; p = next) {
            next = split.word(p);
            const int32_t id = words.id_of(p, next - p);
            if (id == int32_t(counts.size())) counts.push_back(0);
            counts[id]++;
        }
    }
};

// A byte of a word, later the token that begins with it.
struct Place {
    int32_t token;         // -1 once it is part of its left neighbour
    int32_t next, before;  // places of the neighbours in the word, -1 where there is none
    int32_t word;
};

struct Candidate {
    int64_t count;
    uint64_t pair;  // left token << 32 | right token
    // The most frequent first; of equally frequent ones, that of the lowest ids.
    bool operator<(const Candidate &o) const { return count != o.count ? count < o.count : pair > o.pair; }
};

class Learner {
public:
    std::vector<int32_t> merges;  // left, right, left, right ...

    Learner(const Words &from, const uint8_t *alphabet) : weights(from.counts) {
        int32_t of_byte[256];
        for (int i = 0; i < 256; i++) of_byte[alphabet[i]] = tokens.id_of(alphabet + i, 1);
        for (int32_t w = 0; w < from.words.count(); w++) {
            const int32_t begin = int32_t(places.size()), n = int32_t(from.words.size(w));
            for (int32_t i = 0; i < n; i++)
                places.push_back({of_byte[from.words.at(w)[i]], i + 1 < n ? begin + i + 1 : -1, i ? begin + i - 1 : -1, w});
        }
        for (int32_t at = 0; at < int32_t(places.size()); at++)
            if (places[at].next >= 0) add(at);
        queue_grown();
    }

    void learn(int64_t size) {
        while (tokens.count() < size && !queue.empty()) {
            const Candidate top = queue.top();
            queue.pop();
            const int64_t count = pairs[id_of(top.pair)].count;
            if (count == top.count) merge(int32_t(top.pair >> 32), int32_t(top.pair));
            else if (count) queue.push({count, top.pair});
        }
    }

private:
    struct Pair {
        int64_t count = 0;
        std::vector<int32_t> places;  // where it may begin: some have changed since
        bool grown = false;
    };
    Strings tokens, keys;
    const std::vector<int64_t> &weights;
    std::vector<Place> places;
    std::vector<Pair> pairs;
    std::vector<int32_t> grown;
    std::priority_queue<Candidate> queue;

    int32_t id_of(uint64_t pair) {
        const int32_t id = keys.id_of(reinterpret_cast<Bytes>(&pair), 8);
        if (id == int32_t(pairs.size())) pairs.emplace_back();
        return id;
    }
    int32_t pair_at(int32_t at) {
        return id_of(uint64_t(places[at].token) << 32 | uint32_t(places[places[at].next].token));
    }
    void add(int32_t at) {
        const int32_t id = pair_at(at);
        Pair &pair = pairs[id];
        pair.count += weights[places[at].word];
        pair.places.push_back(at);
        if (!pair.grown) grown.push_back(id);
        pair.grown = true;
    }
    void remove(int32_t at) { pairs[pair_at(at)].count -= weights[places[at].word]; }

    void queue_grown() {
        for (int32_t id : grown) {
            uint64_t pair;
            memcpy(&pair, keys.at(id), 8);
            if (pairs[id].count) queue.push({pairs[id].count, pair});
            pairs[id].grown = false;
        }
        grown.clear();
    }

    void merge(int32_t a, int32_t b) {
        std::vector<uint8_t> both(tokens.at(a), tokens.at(a) + tokens.size(a));
        both.insert(both.end(), tokens.at(b), tokens.at(b) + tokens.size(b));
        const int32_t made = tokens.id_of(both.data(), int64_t(both.size()));
        merges.push_back(a), merges.push_back(b);
        std::vector<int32_t> found;
        found.swap(pairs[id_of(uint64_t(a) << 32 | uint32_t(b))].places);
        for (int32_t at : found) {
            if (!stands(at, a, b)) continue;
            if (a == b)  // in a run such as aaa from its left end on
                while (places[at].before >= 0 && places[places[at].before].token == a) at = places[at].before;
            for (; at >= 0 && stands(at, a, b); at = places[at].next) join(at, made);
        }
        pairs[id_of(uint64_t(a) << 32 | uint32_t(b))].count = 0;
        queue_grown();
    }

    bool stands(int32_t at, int32_t a, int32_t b) const {
        const Place &here = places[at];
        return here.token == a && here.next >= 0 && places[here.next].token == b;
    }

    void join(int32_t at, int32_t made) {
        Place &here = places[at], &behind = places[here.next];
        if (here.before >= 0) remove(here.before);
        if (behind.next >= 0) remove(here.next);
        here.token = made, behind.token = -1;
        here.next = behind.next;
        if (here.before >= 0) add(here.before);
        if (here.next >= 0) places[here.next].before = at, add(at);
    }
};

}  // namespace

// Counted words: `kinds` (0x110000) has the kind of each code point, and stays where it is.
extern "C" Words *bpe_words(const Kind *kinds, int64_t digits) { return new Words{{kinds, digits, nullptr}, {}, {}}; }

extern "C" void bpe_free(Words *words) { delete words; }

// Count the words of a text, n bytes of UTF-8.
extern "C" void bpe_count(Words *words, Bytes text, int64_t n) { words->add(text, n); }

// How many words there are, and of word i the bytes and how often it occurs.
extern "C" int64_t bpe_size(const Words *words) { return words->words.count(); }
extern "C" Bytes bpe_word(const Words *words, int64_t i, int64_t *n, int64_t *count) {
    *n = words->words.size(int32_t(i)), *count = words->counts[i];
    return words->words.at(int32_t(i));
}

// Merge until there are `size` tokens or nothing is left to merge; `alphabet` has the 256 bytes in the order of their
// ids. Returns the merges, for bpe_pairs and bpe_forget; null where the words are too long for 32-bit places.
extern "C" Learner *bpe_learn(const Words *words, Bytes alphabet, int64_t size) {
    if (words->words.total() > INT32_MAX) return nullptr;
    auto *learner = new Learner(*words, alphabet);
    learner->learn(size);
    return learner;
}
extern "C" const int32_t *bpe_pairs(const Learner *learner, int64_t *n) {
    *n = int64_t(learner->merges.size()) / 2;
    return learner->merges.data();
}
extern "C" void bpe_forget(Learner *learner) { delete learner; }
